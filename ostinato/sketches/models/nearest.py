"""Nearest neighbours on the rendered drawing: no learning, the floor under every score.

The references are drawings of the training split, as even over the classes as it allows, kept
as weights of the model. Cover and Hart 1967.
Input (batch, point, 3), padded with zeroes and drawn inside the model, or where the data are
bitmaps (batch, height, width, 1) in 0 to 1; output (batch, class), probabilities.
"""

import time
from typing import Any

import keras
import numpy as np

from ostinato.sketches.layers import Neighbours, Rasterise
from ostinato.task import TrainingContext
from ostinato.units import BatchSize, Count, NonNegative

__all__ = ["build", "fit"]

SIZE = 28  # pixels, as QuickDraw's own bitmaps


def build(
    data: Any, *, references: Count, neighbours: Count, blur: NonNegative, prior_votes: NonNegative
) -> keras.Model:
    """The model, its references still empty.

    Args:
        data: what the model reads: kind (strokes or bitmap), classes, size.
        references: how many drawings are kept, at most all of the training split.
        neighbours: how many of the nearest vote.
        blur: standard deviation of the blur before comparing, in pixels.
        prior_votes: votes that the classes share evenly in advance; above 0, or the log loss is
            infinite.
    """
    if prior_votes == 0:
        raise ValueError("smoothing: must be above 0, or a class without a vote is impossible")
    if data.kind == "strokes":
        given = keras.Input((None, 3), name="points")
        x = Rasterise(SIZE, name="picture")(given)
    else:
        given = keras.Input((SIZE, SIZE, 1), name="bitmap")
        x = keras.layers.Identity(name="picture")(given)
    x = Neighbours(
        min(references, data.size("train")),
        len(data.classes),
        neighbours,
        blur,
        prior_votes,
        name="neighbours",
    )(x)
    return keras.Model(given, x)


def fit(
    model: keras.Model,
    data: Any,
    context: TrainingContext,
    *,
    batch_size: BatchSize,
) -> list[dict[str, Any]]:
    """Choose the references and keep them in the model; one record, of one pass.

    Args:
        model: from ``build``.
        data: batches of the training and the validation split.
        context: of this training.
        batch_size: drawings read at a time.
    """
    start = time.perf_counter()
    neighbours = model.get_layer("neighbours")
    picture = keras.Model(model.input, model.get_layer("picture").output)

    def batches(split: str) -> Any:
        return data.batches(split, batch_size=batch_size, seed=None, epoch=0).as_numpy_iterator()

    labels = np.concatenate([y for _, y in batches("train")])
    chosen = balanced(labels, neighbours.references, np.random.default_rng(context.seed))
    pictures, first = [], 0
    for x, y in batches("train"):
        keep = chosen[first : first + len(y)]
        if keep.any():
            pictures.append(picture(x[keep]).numpy())
        first += len(y)
    neighbours.fill(np.concatenate(pictures), labels[chosen])
    seconds = time.perf_counter() - start

    record: dict[str, Any] = {"epoch": 1}
    for prefix, split in (("", "train"), ("validation_", "validation")):
        scores = np.concatenate([_score(model(x).numpy(), y) for x, y in batches(split)])
        record[f"{prefix}loss"], record[f"{prefix}accuracy"] = map(float, scores.mean(axis=0))
    record |= {"learning_rate": 0.0, "gradient_norm": 0.0}
    record |= {"seconds": seconds, "sequences_per_second": len(labels) / seconds}
    context.on_epoch(record)
    return [record]


def balanced(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Which ``count`` of the examples to keep, as many of each class as there are, evenly.

    Returns:
        (example,) bool.
    """
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.zeros(len(labels), bool)
    kept[order[np.argsort(rank, kind="stable")[:count]]] = True
    return kept


def _score(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log loss and whether the first guess is right: (batch, 2)."""
    loss = -np.log(probabilities[np.arange(len(labels)), labels])
    return np.stack([loss, probabilities.argmax(axis=1) == labels], axis=1)
