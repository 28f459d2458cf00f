"""Drawings as arrays: stroke-3 rows, stroke-5 rows, and the strokes of QuickDraw's files.

Stroke-3 and stroke-5: Ha and Eck 2017, arXiv 1704.03477.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Float32, Float64, Int16, Integer, Real

BOX = 255
"""The longer side of a prepared drawing, in pixels."""

START = np.array([0, 0, 1, 0, 0], np.float32)
"""The stroke-5 row that a decoder reads before the first one."""

END = np.array([0, 0, 0, 0, 1], np.float32)
"""The stroke-5 row of a drawing that has ended."""


def to_stroke5(
    drawings: Sequence[Real[np.ndarray, "_ 3"]], scale: float, length: int | None = None
) -> Float32[np.ndarray, "drawing row 5"]:
    """Stroke-3 rows as stroke-5 rows (dx, dy, down, lifted, end), padded with ended rows.

    Args:
        drawings: rows (dx, dy, lift) of each.
        scale: by which offsets are divided.
        length: rows of each drawing; None: one more than the longest has.
    """
    longest = max((len(rows) for rows in drawings), default=0)
    five = np.zeros((len(drawings), longest + 1 if length is None else length, 5), np.float32)
    five[:, :, 4] = 1
    for padded, rows in zip(five, drawings, strict=True):
        padded[: len(rows), :2] = rows[:, :2] / np.float32(scale)
        padded[: len(rows), 2] = rows[:, 2] == 0
        padded[: len(rows), 3] = rows[:, 2] != 0
        padded[: len(rows), 4] = 0
    return five


def from_stroke5(
    five: Float32[np.ndarray, "drawing row 5"], scale: float
) -> list[Float64[np.ndarray, "_ 3"]]:
    """The stroke-3 rows before the end of each drawing: the inverse of `to_stroke5`."""
    ended = five[:, :, 4] > 0
    lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), five.shape[1])
    found = []
    for rows, length in zip(five, lengths.tolist(), strict=True):
        out = rows[:length, [0, 1, 3]].astype(np.float64)
        out[:, :2] *= scale
        found.append(out)
    return found


def fitted(rows: Real[np.ndarray, "point 3"]) -> Int16[np.ndarray, "point 3"]:
    """A drawing aligned to the top left of its box, whose longer side is `BOX`, as prepared ones.

    The last row lifts the pen. A drawing of one point, or of equal points, stays at its place.
    """
    if not len(rows):
        return np.zeros((0, 3), np.int16)
    points = np.cumsum(rows[:, :2], axis=0, dtype=np.float64)
    points -= points.min(axis=0)
    points *= BOX / max(points.max(), 1e-9) if points.max() > 0 else 1.0
    out = np.zeros((len(rows), 3), np.int16)
    out[:, :2] = np.diff(np.rint(points), axis=0, prepend=0)
    out[:, 2] = rows[:, 2] > 0
    out[-1, 2] = 1
    return out


def prefix(rows: Int16[np.ndarray, "point 3"], fraction: float) -> Int16[np.ndarray, "prefix 3"]:
    """The first points of a drawing at their places, at least one."""
    return rows[: max(1, round(fraction * len(rows)))]


def seed_of(key: str) -> int:
    """The seed, below 2**32, with which evaluation and server draw for a test drawing."""
    return int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), "little")


def strokes_of(rows: Integer[np.ndarray, "point 3"]) -> list[list[list[int]]]:
    """Stroke-3 rows as the strokes of QuickDraw's files: [xs, ys] each."""
    points = np.cumsum(rows[:, :2], axis=0, dtype=np.int64)
    parts = np.split(points, np.flatnonzero(rows[:, 2]) + 1)
    return [part.T.tolist() for part in parts if len(part)]
