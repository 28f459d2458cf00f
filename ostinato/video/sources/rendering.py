"""Render drawings as videos, and play the frames in different orders.

Lines are white on black and anti-aliased: a pixel's brightness is the share of it that the pen
covers, computed from the distance of its centre to the line.
"""

from collections.abc import Sequence
from typing import Literal, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Integer, Shaped, UInt8

Pace = Literal["ink", "time"]
"""The quantity that grows evenly over the frames: length of the line, or recorded time."""

ORDERS = ("forwards", "backwards", "erased", "left", "right")


def render(
    strokes: Sequence[Float[np.ndarray, "axis _"] | Integer[np.ndarray, "axis _"]],
    *,
    frames: int,
    size: int,
    pen: float,
    pace: Pace,
) -> UInt8[np.ndarray, "{frames} {size} {size}"]:
    """Render a drawing stroke by stroke, as it was drawn.

    Frame i of n shows the first i / n of the drawing; the last frame shows all of it.

    Args:
        strokes: in drawing order, each of the rows x, y and, for the pace "time", time in ms.
        frames: number of frames.
        size: height and width, in pixels; the drawing is scaled to fill them.
        pen: width of the pen, in pixels.
        pace: a frame adds an equal length of the line ("ink"), or an equal time ("time").
    """
    sizes = [stroke.shape[1] for stroke in strokes]
    track = np.concatenate([stroke[:2] for stroke in strokes], axis=1).T.astype(np.float64)
    low, high = track.min(axis=0), track.max(axis=0)
    margin = pen / 2 + 0.5
    scale = max(size - 1 - 2 * margin, 0) / max((high - low).max(), 1e-9)
    track = (track - (low + high) / 2) * scale + (size - 1) / 2
    # A line leads to each point from the point before; to a stroke's first point from itself,
    # which draws a dot.
    before = np.concatenate([track[:1], track[:-1]])
    starts = np.cumsum([0, *sizes[:-1]])
    before[starts] = track[starts]
    if pace == "ink":
        steps = np.hypot(*(track - before).T)
        steps[starts] += 1e-3  # a dot has a length greater than zero
        until = np.cumsum(steps)
        since = until - steps
    else:
        until = np.concatenate([stroke[2] for stroke in strokes]).astype(np.float64)
        until = np.maximum.accumulate(until - until[0])
        since = np.concatenate([until[:1], until[:-1]])
        since[starts] = until[starts]
    marks = until[-1] * np.arange(1, frames + 1) / frames
    film: UInt8[np.ndarray, "frame height width"] = _draw(
        before, track, since, until, marks, size, pen / 2
    )
    return film


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the plain function, without a check of shapes
def _draw(before, track, since, until, marks, size, half):
    """Draw the lines up to each mark: uint8 (mark, size, size).

    ``before`` and ``track`` (point, 2) are the ends of each line; ``since`` and ``until`` (point,)
    the length or time at which it begins and ends; ``half`` is half of the pen's width in pixels.
    """
    film = np.empty((len(marks), size, size), np.uint8)
    canvas = np.zeros((size, size))
    reach = half + 0.5
    point = 0
    done = 0.0  # share of the line to `point` that is drawn
    for mark in range(len(marks)):
        last = mark == len(marks) - 1
        while point < len(track):
            share = 1.0
            if until[point] > marks[mark] and not last:
                if since[point] >= marks[mark]:
                    break
                share = (marks[mark] - since[point]) / (until[point] - since[point])
            ax = before[point, 0] + done * (track[point, 0] - before[point, 0])
            ay = before[point, 1] + done * (track[point, 1] - before[point, 1])
            bx = before[point, 0] + share * (track[point, 0] - before[point, 0])
            by = before[point, 1] + share * (track[point, 1] - before[point, 1])
            square = (bx - ax) ** 2 + (by - ay) ** 2
            for y in range(
                max(0, int(min(ay, by) - reach)), min(size, int(max(ay, by) + reach) + 2)
            ):
                for x in range(
                    max(0, int(min(ax, bx) - reach)), min(size, int(max(ax, bx) + reach) + 2)
                ):
                    along = 0.0
                    if square > 0:
                        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / square
                        along = min(1.0, max(0.0, along))
                    dx, dy = x - ax - along * (bx - ax), y - ay - along * (by - ay)
                    coverage = min(1.0, reach - np.sqrt(dx * dx + dy * dy))
                    if coverage > canvas[y, x]:
                        canvas[y, x] = coverage
            done = share
            if share < 1.0:
                break
            point += 1
            done = 0.0
        for y in range(size):
            for x in range(size):
                film[mark, y, x] = np.uint8(np.rint(255 * canvas[y, x]))
    return film


def play(
    film: Shaped[np.ndarray, "frame height width"], order: str, constant: int, start: int
) -> Shaped[np.ndarray, "frame height width"]:
    """Play a drawing as a loop whose class only the order of the frames shows.

    Each frame shows a stage of the drawing at a horizontal position. There are as many stages and
    positions as frames; the positions are spread evenly over the width, and pixels that leave the
    frame on one side enter on the other. In the orders ``forwards``, ``backwards`` and ``erased``
    (drawn and erased at double speed, the last line first) the stage changes and the position is
    constant; in ``left`` and ``right`` the position changes and the stage is constant.

    If constant and start are uniformly distributed, each frame of a clip has the same distribution
    in all orders, so no single frame carries information on the order. This would fail if the
    drawing were erased from its beginning (frames would show the ends of drawings, as in no other
    order) or if the loop always started at its beginning (the first frame would show the order).

    Args:
        film: from `render`.
        order: one of ``ORDERS``.
        constant: the constant position or stage, 0 to frames - 1.
        start: the frame of the loop that comes first, 0 to frames - 1.
    """
    frames, width = len(film), film.shape[2]
    turn = np.arange(frames)
    turns = {
        "forwards": turn,
        "backwards": turn[::-1],
        "erased": np.concatenate([turn[1::2], turn[::2][::-1]]),
        "left": turn[::-1],
        "right": turn,
    }
    sequence = np.roll(turns[order], -start)
    stages, positions = sequence, np.full(frames, constant)
    if order in ("left", "right"):
        stages, positions = positions, stages
    shifts = positions * width // frames
    return np.stack(
        [np.roll(film[stage], shift, axis=1) for stage, shift in zip(stages, shifts, strict=True)]
    )
