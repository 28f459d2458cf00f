"""Nearest neighbours on the rasterised drawing: a baseline without learning.

The references are drawings of the training split, balanced over the classes, stored as weights of
the model. Cover and Hart 1967 (Nearest neighbor pattern classification).

Input: (batch, point, 3), zero-padded and rasterised inside the model; of bitmaps (batch, height,
width, 1) in 0 to 1. Output: probabilities (batch, class).
"""

import time
from typing import Any

import keras
import numpy as np
from jaxtyping import Bool, Float, Integer

from ostinato.errors import ParamsError
from ostinato.sketches.dataset.protocols import ModelData
from ostinato.sketches.layers import Neighbours, Rasterise
from ostinato.task import Dataset, Record, TrainingContext
from ostinato.units import BatchSize, Count, NonNegative

__all__ = ["build", "fit"]

SIZE = 28  # height and width in pixels, as QuickDraw's bitmaps


def build(
    data: ModelData,
    *,
    references: Count,
    neighbours: Count,
    blur: NonNegative,
    prior_votes: NonNegative,
) -> keras.Model:
    """Build the model without references.

    Args:
        data: of strokes or bitmaps.
        references: number of stored drawings, at most the training split.
        neighbours: number of nearest references that vote.
        blur: standard deviation of the Gaussian blur before the comparison, in pixels.
        prior_votes: votes that are divided evenly among all classes in advance, above 0.

    Raises:
        ParamsError: ``prior_votes`` is 0, which gives an infinite log loss.
    """
    if prior_votes == 0:
        raise ParamsError(
            "prior_votes: must be above 0; else a class without votes has probability 0"
        )
    if data.kind == "strokes":
        inputs = keras.Input((None, 3), name="points")
        x = Rasterise(SIZE, name="picture")(inputs)
    else:
        inputs = keras.Input((SIZE, SIZE, 1), name="bitmap")
        x = keras.layers.Identity(name="picture")(inputs)
    x = Neighbours(
        min(references, data.size("train")),
        len(data.classes),
        neighbours,
        blur,
        prior_votes,
        name="neighbours",
    )(x)
    return keras.Model(inputs, x)


def fit(
    model: keras.Model,
    data: Dataset,
    context: TrainingContext,
    *,
    batch_size: BatchSize,
) -> list[Record]:
    """Store the references in the model; return one record, as of one epoch.

    Args:
        model: of ``build``.
        data: the data set.
        context: of this training; its seed selects the references.
        batch_size: drawings in a batch.
    """
    start = time.perf_counter()
    neighbours = model.get_layer("neighbours")
    rasterise = keras.Model(model.input, model.get_layer("picture").output)

    def batches(split: str) -> Any:
        stored: Any = data.batches(split, batch_size=batch_size, seed=None, epoch=0)
        return stored.as_numpy_iterator()

    labels = np.concatenate([y for _, y in batches("train")])
    chosen = balanced(labels, neighbours.references, np.random.default_rng(context.seed))
    pictures, first = [], 0
    for x, y in batches("train"):
        keep = chosen[first : first + len(y)]
        if keep.any():
            pictures.append(rasterise(x[keep]).numpy())
        first += len(y)
    neighbours.fill(np.concatenate(pictures), labels[chosen])
    seconds = time.perf_counter() - start

    record: Record = {"epoch": 1}
    for prefix, split in (("", "train"), ("validation_", "validation")):
        scores = np.concatenate(
            [_loss_and_accuracy(model(x).numpy(), y) for x, y in batches(split)]
        )
        record[f"{prefix}loss"], record[f"{prefix}accuracy"] = map(float, scores.mean(axis=0))
    record |= {"learning_rate": 0.0, "gradient_norm": 0.0}
    record |= {"seconds": seconds, "sequences_per_second": len(labels) / seconds}
    context.on_epoch(record)
    return [record]


def balanced(
    labels: Integer[np.ndarray, " example"], count: int, generator: np.random.Generator
) -> Bool[np.ndarray, " example"]:
    """Select ``count`` random examples, the same number of each class as far as possible."""
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.zeros(len(labels), bool)
    kept[order[np.argsort(rank, kind="stable")[:count]]] = True
    return kept


def _loss_and_accuracy(
    probabilities: Float[np.ndarray, "batch class"], labels: Integer[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch 2"]:
    """Log loss, and 1 if the most probable class is correct, else 0."""
    loss = -np.log(probabilities[np.arange(len(labels)), labels])
    return np.stack([loss, probabilities.argmax(axis=1) == labels], axis=1)
