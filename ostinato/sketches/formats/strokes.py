"""Pen strokes: Google's simplification, and the stroke-3 and stroke-5 formats.

Numba compiles the functions marked ``compiled`` at their first call and caches the machine code
beside this file (or in the user's cache directory if that is read-only), so only the first run
pays. They release the GIL, so threads run them on all cores. They are plain loops, which compile
fastest.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from jaxtyping import Float, Float32, Int16, Integer, Real

BOX = 255  # side of the square that a simplified drawing fills, in pixels
EPSILON = 2.0  # tolerance of the simplification, in pixels of that square
MAX_COORDINATE = 1e6  # in pixels; no screen is larger


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function with numba, without the shape checks that tests wrap around it."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(inspect.unwrap(function))
    except RuntimeError:  # neither this folder nor the user's can be written to
        return numba.njit(**options)(inspect.unwrap(function))


def simplify(strokes: Sequence[Real[np.ndarray, "..."]]) -> list[Int16[np.ndarray, "_ 2"]]:
    """Simplify a raw drawing as Google did for its simplified files.

    Steps: align to the top left, scale the longer side to 255, resample at a spacing of 1 pixel,
    simplify by Ramer-Douglas-Peucker (1972, 1973) with epsilon 2 and the distance to the infinite
    line, round half to even. On straight lines many distances are equal up to the last bits of
    the resampled points, so the order of operations matters: this one reproduces Google's files.
    The `simplification` package measures the distance to the segment and reproduces only a
    quarter of the drawings.

    Args:
        strokes: x and y of each stroke in pixels, in drawing order.

    Returns:
        The same number of strokes, with at least two points each, in 0 to 255.

    Raises:
        ValueError: no strokes, a stroke without points or of another shape, or a coordinate that
            is not finite or beyond `MAX_COORDINATE`.
    """
    if not len(strokes) or any(np.ndim(s) != 2 or np.shape(s)[1] != 2 for s in strokes):
        raise ValueError("expected at least one stroke, each of shape (point, 2)")
    if not all(map(len, strokes)):
        raise ValueError("a stroke has no points")
    ends = np.cumsum([len(stroke) for stroke in strokes])
    points = np.concatenate(strokes).astype(np.float64)
    if not np.all(np.abs(points) <= MAX_COORDINATE):
        raise ValueError(f"a coordinate is not finite or beyond {MAX_COORDINATE:,.0f} pixels")
    simple, ends = simplify_all(points, ends, np.array([len(ends)]))
    return np.split(simple, ends[:-1])


@compiled
def simplify_all(points, strokes, drawings):  # type: ignore[no-untyped-def]
    """`simplify` for many drawings.

    Args:
        points: of all drawings, float64 (point, 2).
        strokes: end of each stroke in ``points``, int64 (stroke,).
        drawings: end of each drawing in ``strokes``, int64 (drawing,).

    Returns:
        The new points, int16 (point, 2), and the end of each stroke in them.
    """
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
                        simple = _grow(simple)
                    simple[size, 0], simple[size, 1] = np.rint(fine[i, 0]), np.rint(fine[i, 1])
                    size += 1
            begin = strokes[stroke]
            ends[stroke] = size
            stroke += 1
    return simple[:size], ends


@compiled
def _grow(rows):  # type: ignore[no-untyped-def]
    more = np.empty((2 * len(rows), 2), rows.dtype)
    for i in range(len(rows)):
        more[i, 0], more[i, 1] = rows[i, 0], rows[i, 1]
    return more


@compiled
def _resampled(track):  # type: ignore[no-untyped-def]
    """Points at every full pixel of the stroke's length, and its last point."""
    steps = np.empty(len(track) - 1)
    length = 0.0
    for i in range(len(steps)):
        across, down = track[i + 1, 0] - track[i, 0], track[i + 1, 1] - track[i, 1]
        steps[i] = np.sqrt(across * across + down * down)
        length += steps[i]
    fine = np.empty((int(length) + 3, 2))
    count = 0
    travelled = 0.0
    for i in range(len(steps)):
        while count < travelled + steps[i]:
            share = (count - travelled) / steps[i]
            fine[count, 0] = track[i, 0] * (1 - share) + track[i + 1, 0] * share
            fine[count, 1] = track[i, 1] * (1 - share) + track[i + 1, 1] * share
            count += 1
        travelled += steps[i]
    if count == 0:  # a dot
        fine[0, 0], fine[0, 1] = track[0, 0], track[0, 1]
        count = 1
    fine[count, 0], fine[count, 1] = track[-1, 0], track[-1, 1]
    return fine[: count + 1]


@compiled
def _corners(fine):  # type: ignore[no-untyped-def]
    """Whether Ramer-Douglas-Peucker keeps each point; a stack replaces the recursion."""
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
        largest = 0.0  # of the numerators; only a larger one needs the division
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
    points: Int16[np.ndarray, "point 2"],
    strokes: Integer[np.ndarray, " stroke"],
    drawings: Integer[np.ndarray, " drawing"],
) -> tuple[Int16[np.ndarray, "point 3"], Integer[np.ndarray, " drawing"]]:
    """`to_stroke3` for many drawings.

    Args:
        points: of all drawings.
        strokes: end of each stroke in ``points``.
        drawings: end of each drawing in ``strokes``.

    Returns:
        The rows of all drawings, and the end of each drawing in them.
    """
    ends = np.concatenate([[0], strokes])[drawings]
    starts = np.concatenate([[0], ends])[:-1]
    starts = starts[starts < ends]
    rows = np.zeros((len(points), 3), np.int16)
    rows[1:, :2] = np.diff(points, axis=0)
    rows[starts, :2] = points[starts]
    rows[strokes - 1, 2] = 1
    return rows, ends


def to_stroke3(strokes: Sequence[Real[np.ndarray, "_ 2"]]) -> Int16[np.ndarray, "point 3"]:
    """Convert strokes to stroke-3 rows (dx, dy, lift) (Ha and Eck 2017, arXiv 1704.03477).

    The first row is the offset from (0, 0), so the conversion is lossless. ``lift`` is 1 if the
    pen is lifted after the point.
    """
    points = np.concatenate([np.empty((0, 2), np.int16), *strokes]).astype(np.int16)
    ends = np.cumsum([len(stroke) for stroke in strokes], dtype=np.int64)
    return stroke3_all(points, ends, np.array([len(ends)]))[0]


def from_stroke3(rows: Real[np.ndarray, "point 3"]) -> list[Real[np.ndarray, "_ 2"]]:
    """Convert stroke-3 rows to strokes: the inverse of `to_stroke3`.

    If the last row does not lift the pen, the last stroke is unfinished.
    """
    points = np.cumsum(rows[:, :2], axis=0, dtype=rows.dtype)
    strokes = np.split(points, np.flatnonzero(rows[:, 2]) + 1)
    return strokes if len(strokes[-1]) else strokes[:-1]


def to_stroke5(rows: Real[np.ndarray, "point 3"], length: int) -> Float32[np.ndarray, "row 5"]:
    """Convert stroke-3 rows to stroke-5 rows (dx, dy, down, lifted, end) (arXiv 1704.03477).

    One of the last three is 1: the pen draws on to the next point, is lifted after this point, or
    the drawing has ended. The rows are padded to ``length`` with ended rows.

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


def from_stroke5(five: Float[np.ndarray, "row 5"]) -> Float[np.ndarray, "point 3"]:
    """Convert stroke-5 rows to the stroke-3 rows before the end: the inverse of `to_stroke5`."""
    ended = np.flatnonzero(five[:, 4])
    return five[: ended[0] if len(ended) else len(five), [0, 1, 3]]
