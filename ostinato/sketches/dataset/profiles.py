"""What the training drawings are like, in few numbers: what a later data set is compared with.

``profile.json`` has the form that ostinato/data/drift.py reads from every domain: a sample of each
number (``numbers``), how often each category occurs (``counts``), and of how many (``examples``).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1000
"""Drawings in the sample: the first of the stored order, which is that of a hash. So it is random,
but the same for the same drawings, however they were cut into pieces; and a drawing that stays in
the data as they change mostly stays in the sample too."""

NUMBERS = {"strokes": ("points", "strokes", "ink length", "aspect"), "bitmap": ("ink share",)}
"""By kind of data set, the columns of `features`."""


def features(content: NDArray[np.uint8], ends: NDArray[np.int64], kind: str) -> NDArray[Any]:
    """The numbers of each drawing, float64 (drawing, feature).

    Points; strokes; length of the ink in pixels, without the way of a lifted pen; aspect, which is
    width / (width + height): 0.5 for a square, and finite for a line. Of bitmaps, the mean ink.

    Args:
        content: (byte,): stroke-3 rows of int16, or pixels, of all drawings.
        ends: (drawing,): where each ends in ``content``.
        kind: "strokes" or "bitmap".
    """
    if not len(ends):
        return np.empty((0, len(NUMBERS[kind])))
    if kind == "bitmap":
        ink = content.reshape(len(ends), -1).mean(axis=1, keepdims=True) / 255
        return np.asarray(ink.round(4))
    rows = content.view(np.int16).reshape(-1, 3)
    last = ends // rows.strides[0] - 1
    rows = rows.astype(np.int64)
    first = np.concatenate([[0], last[:-1] + 1])
    lifted = rows[:, 2] != 0
    lifted[last] = True  # also where a stroke was left unfinished
    steps = np.hypot(rows[:, 0], rows[:, 1])
    steps[np.flatnonzero(lifted)[:-1] + 1] = 0
    steps[0] = 0
    places = np.cumsum(rows[:, :2], axis=0)
    width, height = (np.maximum.reduceat(places, first) - np.minimum.reduceat(places, first)).T
    aspect = np.where(width + height, width / np.maximum(width + height, 1), 0.5)
    strokes = np.add.reduceat(lifted, first, dtype=np.int64)
    length = np.add.reduceat(steps, first)
    return np.stack([last + 1 - first, strokes, length.round(1), aspect.round(4)], axis=1)


def profile(
    kind: str, counts: Mapping[str, int], samples: list[NDArray[np.float64]]
) -> dict[str, Any]:
    """The profile of a data set.

    Args:
        kind: "strokes" or "bitmap".
        counts: the training drawings of each class.
        samples: `features` of the first training drawings of each part of the stored order.
    """
    sample = np.concatenate(samples)[:SAMPLE].T
    return {
        "examples": sum(counts.values()),
        "numbers": {
            name: np.sort(column).tolist()
            for name, column in zip(NUMBERS[kind], sample, strict=True)
        },
        "counts": {"category": dict(counts)},
    }
