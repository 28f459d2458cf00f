"""Prepare raw drawings for generators: clean, split, and train the classifier that judges them."""

import logging
import shutil
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Shaped
from pydantic import Field

from ostinato import params, store
from ostinato.errors import DataError
from ostinato.generation.dataset import classifier
from ostinato.generation.dataset.loader import Drawings
from ostinato.task import Manifest
from ostinato.training.imports import import_keras_quietly
from ostinato.units import (
    BatchSize,
    Count,
    DropoutRate,
    Epochs,
    Fraction,
    LearningRate,
    Points,
    Seed,
    SplitFraction,
    Units,
)

LOG = logging.getLogger(__name__)


def prepare(
    raw: Path,
    folder: Path,
    *,
    tolerated_rejects: Fraction,
    validation: SplitFraction,
    test: SplitFraction,
    max_points: Points,
    only_recognised: bool,
    workers: Count,
    classifier_fraction: SplitFraction,
    classifier_filters: Annotated[list[Units], Field(min_length=3, max_length=3)],
    classifier_units: Units,
    classifier_dropout: DropoutRate,
    classifier_epochs: Epochs,
    classifier_batch_size: BatchSize,
    classifier_learning_rate: LearningRate,
    classifier_seed: Seed,
) -> None:
    """Write drawings that generators learn from, and a classifier that has seen none of them.

    Drawings are cleaned, simplified and split as by `ostinato.sketches.dataset.prepare`. The
    training drawings are divided once more, by a hash of the key: a classifier learns from one
    part, the generators from the other one. With one class there is no classifier. Drawings of more
    than ``max_points`` points are left out and counted: a generator would learn to stop too early.

    Args:
        raw: a folder that a source has filled.
        folder: an empty folder; gets an array file for each split, ``classifier.keras``,
            ``manifest.json``, ``profile.json`` and ``rejects.ndjson``.
        tolerated_rejects: fraction of the lines that may be malformed.
        validation: fraction of the drawings in the validation split.
        test: fraction of the drawings in the test split.
        max_points: of a drawing.
        only_recognised: leave out drawings that Google's game did not recognise.
        workers: number of threads.
        classifier_fraction: fraction of the training drawings that the classifier learns from.
        classifier_filters: of its three convolutions.
        classifier_units: of its LSTMs, in each direction.
        classifier_dropout: rate after its LSTMs and between its convolutions.
        classifier_epochs: passes over its drawings.
        classifier_batch_size: drawings in a step.
        classifier_learning_rate: the highest one.
        classifier_seed: of its weights, order and dropout.

    Raises:
        DataError: as by `ostinato.sketches.dataset.prepare`; the drawings are bitmaps; or a split
            is empty.
    """
    import_keras_quietly()
    # Found by name: training and evaluation do not depend on the code that prepares drawings.
    sketches = params.module("sketches", "dataset")
    with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as temporary:
        cleaned = Path(temporary, "drawings")
        cleaned.mkdir()
        sketches.prepare(
            raw,
            cleaned,
            tolerated_rejects=tolerated_rejects,
            validation=validation,
            test=test,
            max_points=max_points + 1,  # longer drawings are cut to this length, then left out
            only_recognised=only_recognised,
            shard_size=1_000_000,
            workers=workers,
        )
        data = sketches.load(cleaned)
        if data.kind != "strokes":
            raise DataError(f"{raw}: found bitmaps; a generator learns from strokes")
        found = {split: data.examples(split) for split in data.manifest.splits}
        details: dict[str, Any] = dict(data.manifest.details)
        for name in ("profile.json", "rejects.ndjson"):
            shutil.copyfile(cleaned / name, folder / name)
    splits = {name: _select(each, _lengths(each) <= max_points) for name, each in found.items()}
    left_out = sum(len(found[name]) - len(splits[name]) for name in found)
    if left_out:
        LOG.info("%d drawings have more than %d points and are left out", left_out, max_points)
    classes, scale = data.manifest.classes, float(details["scale"])
    judged: dict[str, Any] = {}
    if len(classes) > 1:
        chosen = _chosen(splits["train"].keys, classifier_fraction)
        judging = _select(splits["train"], chosen)
        splits["train"] = _select(splits["train"], ~chosen)
        _check_sizes(splits | {"train (of the classifier)": judging})
        LOG.info("training the classifier on %d drawings", len(judging))
        judge = classifier.train(
            folder / classifier.FILE,
            {"train": judging, "validation": splits["validation"]},
            scale=scale,
            classes=len(classes),
            units=classifier_units,
            filters=classifier_filters,
            dropout=classifier_dropout,
            epochs=classifier_epochs,
            batch_size=classifier_batch_size,
            learning_rate=classifier_learning_rate,
            seed=classifier_seed,
        )
        judged = {"drawings": len(judging)}
        for split in ("validation", "test"):
            probabilities, _ = judge(splits[split])
            correct = probabilities.argmax(axis=1) == splits[split].labels
            judged[split] = round(float(correct.mean()), 4)
        LOG.info("the classifier recognises %.1f%% of the test drawings", 100 * judged["test"])
    else:
        _check_sizes(splits)
    for name, each in splits.items():
        store.write_arrays(
            folder / f"{name}.npz",
            {"points": each.points, "ends": each.ends, "labels": each.labels, "keys": each.keys},
        )
    lengths = {name: _lengths(each) for name, each in splits.items()}
    kept = ("format", "form", "lines", "malformed", "without_ink", "duplicates", "files")
    manifest = Manifest(
        source=data.manifest.source,
        examples="drawings",
        splits={
            name: {"drawings": len(each), "points": len(each.points)}
            for name, each in splits.items()
        },
        classes=classes,
        details={
            **{key: details[key] for key in kept if key in details},
            "scale": scale,
            "max_points": max_points,
            "longest": int(lengths["train"].max()),
            "too_long": left_out,
            "classifier": judged,
            "class_counts": {
                name: dict(
                    zip(
                        classes,
                        np.bincount(each.labels, minlength=len(classes)).tolist(),
                        strict=True,
                    )
                )
                for name, each in splits.items()
            },
        },
    )
    store.write_json(folder / "manifest.json", manifest.to_json())


def _lengths(drawings: Any) -> Any:
    return np.diff(drawings.ends, prepend=0)


def _select(drawings: Any, keep: Bool[np.ndarray, " drawing"]) -> Drawings:
    lengths = _lengths(drawings)
    return Drawings(
        drawings.points[np.repeat(keep, lengths)],
        np.cumsum(lengths[keep]),
        drawings.labels[keep],
        drawings.keys[keep],
    )


def _chosen(keys: Shaped[np.ndarray, " drawing"], fraction: float) -> Bool[np.ndarray, " drawing"]:
    """Whether the classifier gets each drawing: a function of its key and the fraction."""
    hashes = [blake2b(b"classifier " + key.encode(), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(hashes), "<u8") < fraction * 2.0**64


def _check_sizes(splits: dict[str, Drawings]) -> None:
    for name in ("train", "validation", "test"):
        if name not in splits or not len(splits[name]):
            raise DataError(
                f"no drawing is left in the split {name}; fetch more drawings, or raise max_points"
            )
    for name, each in splits.items():
        if not len(each):
            raise DataError(f"no drawing is left in the split {name}; fetch more drawings")
