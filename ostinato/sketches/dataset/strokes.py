"""Pen strokes: simplified as Google's, and as stroke-3 and stroke-5 rows.

The compiled functions are compiled by numba at their first use and kept beside this file (or in
the user's cache where that is read-only), so that only the first run pays. They release the GIL:
threads run them on all cores. Plain loops compile fastest.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BOX = 255  # side of the square that a simplified drawing fills, in pixels
EPSILON = 2.0  # tolerance of the simplification, in pixels of that square
FARTHEST = 1e6  # a coordinate beyond this is not a screen's

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


def simplify(strokes: Sequence[NDArray[Any]]) -> list[NDArray[np.int16]]:
    """Simplify a raw drawing as Google did for its simplified files.

    Aligned to the top left, scaled to 255, resampled at a spacing of 1 pixel, then
    Ramer-Douglas-Peucker (1972, 1973) with epsilon 2 and the distance to the whole line, then
    rounded half to even. Straight lines are full of ties, which only the last bits of the
    resampled points break: the order of operations here is the one that agrees with Google's
    answers. The `simplification` package measures the distance to the segment: a quarter of the
    drawings come out right. So this is compiled here.

    Args:
        strokes: the pen's tracks, each (point, 2), in pixels, in the order drawn.

    Returns:
        As many strokes, each (point, 2) in 0..255, at least two points each.

    Raises:
        ValueError: no stroke, one without points, or one that is not (point, 2).
    """
    if not len(strokes) or any(np.ndim(s) != 2 or np.shape(s)[1] != 2 for s in strokes):
        raise ValueError("expected at least one stroke, each of shape (point, 2)")
    if not all(map(len, strokes)):
        raise ValueError("a stroke has no points")
    ends = np.cumsum([len(stroke) for stroke in strokes])
    points = np.concatenate(strokes).astype(np.float64)
    if not np.all(np.abs(points) <= FARTHEST):
        raise ValueError(f"a coordinate is beyond {FARTHEST:,.0f} pixels")
    simple, ends = simplify_all(points, ends, np.array([len(ends)]))
    return np.split(simple, ends[:-1])


@compiled
def simplify_all(points, strokes, drawings):  # type: ignore[no-untyped-def]
    """`simplify` for many drawings: new points int16 (point, 2) and where each stroke ends."""
    simple = np.empty((len(points) // 2 + 2, 2), np.int16)
    ends = np.empty(len(strokes), np.int64)
    size = stroke = begin = 0
    for drawing in range(len(drawings)):
        left = top = np.inf
        right = bottom = -np.inf
        for i in range(begin, strokes[drawings[drawing] - 1] if drawings[drawing] else 0):
            left, right = min(left, points[i, 0]), max(right, points[i, 0])
            top, bottom = min(top, points[i, 1]), max(bottom, points[i, 1])
        extent = max(right - left, bottom - top)
        while stroke < drawings[drawing]:
            track = np.empty((strokes[stroke] - begin, 2))
            for i in range(len(track)):
                x, y = points[begin + i, 0] - left, points[begin + i, 1] - top
                track[i, 0] = x * BOX / extent if extent else x
                track[i, 1] = y * BOX / extent if extent else y
            fine = _resampled(track)
            corner = _corners(fine)
            for i in range(len(fine)):
                if corner[i]:
                    if size == len(simple):
                        simple = _doubled(simple)
                    simple[size, 0], simple[size, 1] = np.rint(fine[i, 0]), np.rint(fine[i, 1])
                    size += 1
            begin = strokes[stroke]
            ends[stroke] = size
            stroke += 1
    return simple[:size], ends


@compiled
def _doubled(rows):  # type: ignore[no-untyped-def]
    more = np.empty((2 * len(rows), 2), rows.dtype)
    for i in range(len(rows)):
        more[i, 0], more[i, 1] = rows[i, 0], rows[i, 1]
    return more


@compiled
def _resampled(track):  # type: ignore[no-untyped-def]
    """Points at every full pixel of the track's length, and its last point."""
    steps = np.empty(len(track) - 1)
    length = 0.0
    for i in range(len(steps)):
        across, down = track[i + 1, 0] - track[i, 0], track[i + 1, 1] - track[i, 1]
        steps[i] = np.sqrt(across * across + down * down)
        length += steps[i]
    fine = np.empty((int(length) + 3, 2))
    count = 0
    walked = 0.0
    for i in range(len(steps)):
        while count < walked + steps[i]:
            share = (count - walked) / steps[i]
            fine[count, 0] = track[i, 0] * (1 - share) + track[i + 1, 0] * share
            fine[count, 1] = track[i, 1] * (1 - share) + track[i + 1, 1] * share
            count += 1
        walked += steps[i]
    if count == 0:  # a dot
        fine[0, 0], fine[0, 1] = track[0, 0], track[0, 1]
        count = 1
    fine[count, 0], fine[count, 1] = track[-1, 0], track[-1, 1]
    return fine[: count + 1]


@compiled
def _corners(fine):  # type: ignore[no-untyped-def]
    """Whether Ramer-Douglas-Peucker keeps each point; a stack in place of the recursion."""
    keep = np.zeros(len(fine), np.bool_)
    keep[0] = keep[-1] = True
    stack = np.empty((len(fine), 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, len(fine) - 1
    height = 1
    while height:
        height -= 1
        first, last = stack[height, 0], stack[height, 1]
        x, y = fine[first, 0], fine[first, 1]
        across, down = fine[last, 0] - x, fine[last, 1] - y
        length = np.sqrt(across * across + down * down)
        farthest, corner = EPSILON, -1
        largest = 0.0  # of the numerators, which alone need a division
        for i in range(first + 1, last):
            dx, dy = fine[i, 0] - x, fine[i, 1] - y
            above = abs(dx * down - dy * across) if length else dx * dx + dy * dy
            if above > largest:
                largest = above
                distance = above / length if length else np.sqrt(above)
                if distance > farthest:
                    farthest, corner = distance, i
        if corner >= 0:
            keep[corner] = True
            stack[height, 0], stack[height, 1] = first, corner
            stack[height + 1, 0], stack[height + 1, 1] = corner, last
            height += 2
    return keep


def stroke3_all(
    points: NDArray[np.int16], strokes: NDArray[np.int64], drawings: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """`to_stroke3` for many drawings: rows int16 (point, 3), and where each drawing ends."""
    ends = np.concatenate([[0], strokes])[drawings]
    starts = np.concatenate([[0], ends])[:-1]
    starts = starts[starts < ends]
    rows = np.zeros((len(points), 3), np.int16)
    rows[1:, :2] = np.diff(points, axis=0)
    rows[starts, :2] = points[starts]
    rows[strokes - 1, 2] = 1
    return rows, ends


def to_stroke3(strokes: Sequence[NDArray[np.integer]]) -> NDArray[np.int16]:
    """Strokes, each (point, 2), as rows (dx, dy, lift) int16 (point, 3).

    The first row is the offset from (0, 0), so that nothing is lost; lift is 1 where the pen is
    lifted after the point (Ha and Eck 2017, arXiv 1704.03477).
    """
    points = np.concatenate([np.empty((0, 2), np.int16), *strokes]).astype(np.int16)
    ends = np.cumsum([len(stroke) for stroke in strokes], dtype=np.int64)
    return stroke3_all(points, ends, np.array([len(ends)]))[0]


def from_stroke3(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The strokes, each (point, 2), of stroke-3 rows (point, 3); inverse of `to_stroke3`.

    A drawing whose last row does not lift the pen ends with its unfinished stroke.
    """
    points = np.cumsum(rows[:, :2], axis=0, dtype=rows.dtype)
    strokes = np.split(points, np.flatnonzero(rows[:, 2]) + 1)
    return strokes if len(strokes[-1]) else strokes[:-1]


def to_stroke5(rows: NDArray[Any], length: int) -> NDArray[np.float32]:
    """Stroke-3 rows (point, 3) as (dx, dy, down, lifted, end), float32 (length, 5).

    One of the last three is 1: the pen touches the paper on its way to the next point, is lifted
    after this one, or the drawing has ended; padded with ended rows (arXiv 1704.03477).

    Raises:
        ValueError: the drawing has more than ``length`` points.
    """
    if len(rows) > length:
        raise ValueError(f"{len(rows)} points do not fit into {length} rows")
    five = np.zeros((length, 5), np.float32)
    five[: len(rows), :2] = rows[:, :2]
    five[: len(rows), 2] = rows[:, 2] == 0
    five[: len(rows), 3] = rows[:, 2] != 0
    five[len(rows) :, 4] = 1
    return five


def from_stroke5(five: NDArray[np.float32]) -> NDArray[np.float32]:
    """The stroke-3 rows (point, 3) before the first ended row; inverse of `to_stroke5`."""
    ended = np.flatnonzero(five[:, 4])
    return five[: ended[0] if len(ended) else len(five), [0, 1, 3]]
