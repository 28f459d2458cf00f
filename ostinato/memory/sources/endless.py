"""Tasks without end: only their settings are stored, and the data set draws the examples.

``length`` is that of the validation and test examples; in training it is uniform between
``min_length`` and ``length``. ``delay`` is a number of empty steps before the answer.
"""

from pathlib import Path
from typing import Any

from ostinato import store
from ostinato.errors import SourceError
from ostinato.memory.formats.examples import Delay, RawManifest
from ostinato.memory.formats.tasks import CLASSES, TARGETS
from ostinato.units import Count, Length


def adding(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    examples_per_epoch: Count,
) -> None:
    """Add the two marked numbers of a sequence (Hochreiter and Schmidhuber 1997)."""
    _write(folder, "adding", seed, length, min_length, delay, examples_per_epoch, shortest=2)


def copy(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    bits: Count,
    examples_per_epoch: Count,
) -> None:
    """Copy vectors of random bits (Graves et al. 2014, arXiv 1410.5401)."""
    _write(folder, "copy", seed, length, min_length, delay, examples_per_epoch, bits=bits)


def repeat_copy(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    bits: Count,
    repeats: Count,
    examples_per_epoch: Count,
) -> None:
    """Copy vectors of random bits up to ``repeats`` times (Graves et al. 2014)."""
    settings = {"bits": bits, "repeats": repeats}
    _write(folder, "repeat_copy", seed, length, min_length, delay, examples_per_epoch, **settings)


def associative_recall(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    bits: Count,
    item_length: Count,
    examples_per_epoch: Count,
) -> None:
    """Recall the item after a given one among ``length`` items (Graves et al. 2014)."""
    settings = {"bits": bits, "item_length": item_length}
    name = "associative_recall"
    _write(
        folder, name, seed, length, min_length, delay, examples_per_epoch, shortest=2, **settings
    )


def temporal_order(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    examples_per_epoch: Count,
) -> None:
    """Tell the order of two symbols (Hochreiter and Schmidhuber 1997)."""
    name = "temporal_order"
    _write(folder, name, seed, length, min_length, delay, examples_per_epoch, shortest=10)


def parity(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    length: Length,
    min_length: Length,
    delay: Delay,
    examples_per_epoch: Count,
) -> None:
    """Tell whether the number of ones is even or odd."""
    _write(folder, "parity", seed, length, min_length, delay, examples_per_epoch)


def _write(
    folder: Path,
    task: str,
    seed: int,
    length: int,
    min_length: int,
    delay: int,
    examples_per_epoch: int,
    *,
    shortest: int = 1,
    **settings: Any,
) -> None:
    if not shortest <= min_length <= length:
        raise SourceError(
            f"min_length: found {min_length}; expected {shortest} to {length}, the `length`; set "
            "min_length to the shortest examples of the training"
        )
    manifest = RawManifest(
        source=task,
        seed=seed,
        target=TARGETS[task],
        classes=CLASSES.get(task, []),
        task=task,
        settings=settings,
        length=length,
        min_length=min_length,
        delay=delay,
        examples_per_epoch=examples_per_epoch,
    )
    store.write_json(folder / "manifest.json", manifest.to_json())
