"""The profile of the training drawings, with which later data are compared to find drift."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from ostinato.data.profile import SAMPLE, sorted_sample
from ostinato.sketches.dataset.protocols import Kind
from ostinato.task import Profile

FEATURES: Mapping[Kind, tuple[str, ...]] = {
    "strokes": ("points", "strokes", "ink length", "aspect"),
    "bitmap": ("ink share",),
}
"""The columns of `features`, by kind of data set."""


def features(
    content: UInt8[np.ndarray, " byte"], ends: Integer[np.ndarray, " drawing"], kind: Kind
) -> Float64[np.ndarray, "drawing feature"]:
    """The numeric features of each drawing.

    Of strokes: number of points; number of strokes; length of the ink in pixels, without pen
    lifts; aspect, width / (width + height), which is 0.5 for a square and finite for a line. Of
    bitmaps: the mean ink, 0 to 1.

    Args:
        content: stroke-3 rows of int16, or pixels, of all drawings.
        ends: end of each drawing in ``content``.
        kind: of the drawings.
    """
    if not len(ends):
        return np.empty((0, len(FEATURES[kind])))
    if kind == "bitmap":
        ink = content.reshape(len(ends), -1).mean(axis=1, keepdims=True) / 255
        return np.asarray(ink.round(4))
    rows = content.view(np.int16).reshape(-1, 3)
    last = ends // rows.strides[0] - 1
    rows = rows.astype(np.int64)
    first = np.concatenate([[0], last[:-1] + 1])
    lifted = rows[:, 2] != 0
    lifted[last] = True  # also if the last stroke is unfinished
    steps = np.hypot(rows[:, 0], rows[:, 1])
    steps[np.flatnonzero(lifted)[:-1] + 1] = 0
    steps[0] = 0
    points = np.cumsum(rows[:, :2], axis=0)
    width, height = (np.maximum.reduceat(points, first) - np.minimum.reduceat(points, first)).T
    aspect = np.where(width + height, width / np.maximum(width + height, 1), 0.5)
    strokes = np.add.reduceat(lifted, first, dtype=np.int64)
    length = np.add.reduceat(steps, first)
    return np.stack([last + 1 - first, strokes, length.round(1), aspect.round(4)], axis=1)


def profile(
    kind: Kind,
    counts: Mapping[str, int],
    samples: Sequence[Float64[np.ndarray, "drawing feature"]],
) -> Profile:
    """The profile of a data set.

    The sample is the first `SAMPLE` training drawings in the stored order, which is the order of a
    hash. It is random, but the same for the same drawings however the files were divided, and most
    of it stays when the data change.

    Args:
        kind: of the drawings.
        counts: number of training drawings of each class.
        samples: `features` of the first training drawings of each part of the stored order.
    """
    columns = np.concatenate(samples)[:SAMPLE].T
    return Profile(
        examples=sum(counts.values()),
        numbers={
            name: sorted_sample(column)
            for name, column in zip(FEATURES[kind], columns, strict=True)
        },
        counts={"category": dict(counts)},
    )
