"""From raw examples, or the settings of a task without end, to a data set with three splits."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ostinato import store
from ostinato.data.profile import sorted_sample
from ostinato.errors import DataError
from ostinato.memory.formats import tasks
from ostinato.memory.formats.examples import Delay, Examples, RawManifest
from ostinato.task import Manifest, Profile
from ostinato.units import Length, RampEpochs, SplitFraction

SPLITS = ("train", "validation", "test")


def prepare(
    raw: Path,
    folder: Path,
    *,
    validation: SplitFraction,
    test: SplitFraction,
    curriculum_epochs: RampEpochs,
    lengths: list[Length],
    delays: list[Delay],
) -> None:
    """Split the examples of a task.

    Args:
        raw: folder that a source has written.
        folder: gets the data set.
        validation: fraction of the examples; of a task without end, of those of an epoch.
        test: likewise; unused where the authors of the data have chosen the test split.
        curriculum_epochs: epochs over which the longest training examples grow from ``min_length``
            to ``length``; 0 for none. Only tasks without end have lengths.
        lengths: at which the evaluation measures the error; only of tasks without end.
        delays: empty steps before the answer, at which the evaluation measures the error; only
            where there is one answer, at the end, or the task is without end.

    Raises:
        DataError: a split is empty.
    """
    manifest = RawManifest.read(raw / "manifest.json")
    if manifest.task:
        splits, sizes = _drawn(manifest, validation, test)
    else:
        splits = _stored(raw, manifest, validation, test)
        sizes = {split: len(examples) for split, examples in splits.items()}
    if empty := [split for split in SPLITS if not sizes[split]]:
        raise DataError(
            f"{raw}: no example in the split {' and '.join(empty)} of {sum(sizes.values())}; raise "
            "the number of examples, or the fractions validation and test"
        )
    for split, examples in splits.items():
        store.write_arrays(folder / f"{split}.npz", examples.arrays())
    example = splits["test"]
    if len(lengths) > 0 and not manifest.task:
        raise DataError("lengths: examples of this source have one length; set `lengths: []`")
    if len(delays) > 0 and not manifest.task and example.weight is not None:
        raise DataError("delays: this source has a target at each step; set `delays: []`")
    outputs = len(manifest.classes) or example.y.shape[-1]
    details = {
        "target": manifest.target,
        "per_step": example.weight is not None,
        "features": example.x.shape[2],
        "outputs": outputs,
        "steps": example.x.shape[1],
        "fixed": not manifest.task or manifest.min_length == manifest.length,
        "task": manifest.task,
        "settings": manifest.settings or {},
        "seed": manifest.seed,
        "length": manifest.length,
        "min_length": manifest.min_length,
        "delay": manifest.delay,
        "curriculum_epochs": curriculum_epochs if manifest.task else 0,
        "lengths": lengths,
        "delays": delays,
    }
    counts = {split: {"examples": sizes[split]} for split in SPLITS}
    written = Manifest(manifest.source, "examples", counts, manifest.classes, details)
    store.write_json(folder / "manifest.json", written.to_json())
    store.write_json(
        folder / "profile.json", _profile(splits.get("train", example), manifest.classes).to_json()
    )


def _drawn(
    manifest: RawManifest, validation: float, test: float
) -> tuple[dict[str, Examples], dict[str, int]]:
    """The validation and test split of a task without end, and the size of each split."""
    function, splits = tasks.task(manifest.task), {}
    sizes = {"train": manifest.examples_per_epoch}
    for number, (split, fraction) in enumerate((("validation", validation), ("test", test))):
        sizes[split] = round(fraction * manifest.examples_per_epoch)
        random = np.random.default_rng([manifest.seed, number])
        splits[split] = function(
            random,
            sizes[split],
            length=manifest.length,
            delay=manifest.delay,
            **(manifest.settings or {}),
        )
    return splits, sizes


def _stored(
    raw: Path, manifest: RawManifest, validation: float, test: float
) -> dict[str, Examples]:
    """The splits of stored examples: consecutive ones, or by a hash of the example's number."""
    arrays = store.read_arrays(raw / "examples.npz")
    chosen = arrays.pop("test", None)
    examples = Examples(**arrays)
    size = len(examples)
    if manifest.ordered:
        tail = round(test * size)
        ends = [size - tail - round(validation * size), size - tail]
        split = np.searchsorted(ends, np.arange(size), side="right")
    else:
        uniform = _uniform(size)
        bounds = [test, test + validation] if chosen is None else [0.0, validation]
        split = 2 - np.searchsorted(bounds, uniform, side="right")
        if chosen is not None:
            split[chosen] = 2
    return {name: examples[np.flatnonzero(split == n)] for n, name in enumerate(SPLITS)}


def _uniform(size: int) -> np.ndarray:
    """A number in 0 to 1 for each example, from a hash of its number."""
    digests = [blake2b(str(n).encode(), digest_size=8).digest() for n in range(size)]
    hashes: Int64[np.ndarray, " example"] = np.frombuffer(b"".join(digests), "<u8")
    return (hashes >> np.uint64(11)) * 2.0**-53


def _profile(examples: Examples, classes: list[str]) -> Profile:
    """Distributions of the mean and the deviation of an example's inputs, and of its class."""
    flat = examples.x.reshape(len(examples), -1).astype(np.float64)
    numbers = {
        "mean": sorted_sample(flat.mean(axis=1)),
        "standard deviation": sorted_sample(flat.std(axis=1)),
    }
    if not classes:
        return Profile(len(examples), numbers)
    counts = np.bincount(examples.y, minlength=len(classes)).tolist()
    return Profile(len(examples), numbers, {"label": dict(zip(classes, counts, strict=True))})
