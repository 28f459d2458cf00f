"""Drawings as film: inked along their tracks, and the orders in which the frames can be played.

What is drawn is white on black, with soft edges: a pixel is as bright as the pen covers it, taken
from the distance of its middle to the track.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

Pace = Literal["ink", "time"]

ORDERS = ("forwards", "backwards", "erased", "left", "right")


def drawn(
    strokes: Sequence[NDArray[Any]], *, frames: int, size: int, pen: float, pace: Pace
) -> NDArray[np.uint8]:
    """Play a drawing back as it was drawn, stroke by stroke: uint8 (frame, height, width).

    The first frame shows the first part of ``frames`` equal ones, the last the whole drawing.

    Args:
        strokes: in drawing order, each (2, point) of x and y, or (3, point) with times.
        frames: how many.
        size: height and width, in pixels; the drawing fills them.
        pen: its width, in pixels.
        pace: parts are equal in length of "ink", or in "time" as it was drawn.
    """
    sizes = [stroke.shape[1] for stroke in strokes]
    track = np.concatenate([stroke[:2] for stroke in strokes], axis=1).T.astype(np.float64)
    low, high = track.min(axis=0), track.max(axis=0)
    margin = pen / 2 + 0.5
    scale = max(size - 1 - 2 * margin, 0) / max((high - low).max(), 1e-9)
    track = (track - (low + high) / 2) * scale + (size - 1) / 2
    # Each point is reached from the one before; a stroke's first from itself, which sets a dot.
    before = np.concatenate([track[:1], track[:-1]])
    starts = np.cumsum([0, *sizes[:-1]])
    before[starts] = track[starts]
    if pace == "ink":
        steps = np.hypot(*(track - before).T)
        steps[starts] += 1e-3  # dots take a moment as well
        until = np.cumsum(steps)
        since = until - steps
    else:
        until = np.concatenate([stroke[2] for stroke in strokes]).astype(np.float64)
        until = np.maximum.accumulate(until - until[0])
        since = np.concatenate([until[:1], until[:-1]])
        since[starts] = until[starts]
    marks = until[-1] * np.arange(1, frames + 1) / frames
    film: NDArray[np.uint8] = _inked(before, track, since, until, marks, size, pen / 2)
    return film


@numba.njit(cache=True, nogil=True)
def _inked(before, track, since, until, marks, size, half):  # type: ignore[no-untyped-def]
    """The ink that is there at each mark of the clock, uint8 (mark, size, size)."""
    film = np.empty((len(marks), size, size), np.uint8)
    paper = np.zeros((size, size))
    reach = half + 0.5
    at = 0
    done = 0.0  # share of the way to the point `at` that is inked
    for mark in range(len(marks)):
        last = mark == len(marks) - 1
        while at < len(track):
            share = 1.0
            if until[at] > marks[mark] and not last:
                if since[at] >= marks[mark]:
                    break
                share = (marks[mark] - since[at]) / (until[at] - since[at])
            ax = before[at, 0] + done * (track[at, 0] - before[at, 0])
            ay = before[at, 1] + done * (track[at, 1] - before[at, 1])
            bx = before[at, 0] + share * (track[at, 0] - before[at, 0])
            by = before[at, 1] + share * (track[at, 1] - before[at, 1])
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
                    covered = min(1.0, reach - np.sqrt(dx * dx + dy * dy))
                    if covered > paper[y, x]:
                        paper[y, x] = covered
            done = share
            if share < 1.0:
                break
            at += 1
            done = 0.0
        for y in range(size):
            for x in range(size):
                film[mark, y, x] = np.uint8(np.rint(255 * paper[y, x]))
    return film


def played(film: NDArray[np.uint8], order: str, still: int, start: int) -> NDArray[np.uint8]:
    """A loop in which nothing but the order of its frames tells how it is played.

    A frame shows a part of the drawing in a place; there are as many parts as frames, and as many
    places, evenly round the picture (what leaves it on one side comes in on the other). Inked
    ``forwards``, ``backwards``, or inked and ``erased`` again at double speed (what was drawn last
    goes first), the drawing stays in a place; moved ``left`` or ``right``, it stays a part.

    Where place, part and the loop's start are drawn evenly, every frame of a clip shows each part
    in each place equally often, whatever the order: no frame, wherever it stands, says anything.
    Were it erased from where it was begun, frames would show ends of drawings, as no other order
    does; and a clip that begins at the beginning would be told by its first frame.

    Args:
        film: as `drawn` gives it, (frame, height, width).
        order: one of ``ORDERS``.
        still: the place, or the part, in which it stays: 0 to frames - 1.
        start: the frame of the loop that comes first: 0 to frames - 1.
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
    way = np.roll(turns[order], -start)
    parts, places = way, np.full(frames, still)
    if order in ("left", "right"):
        parts, places = places, parts
    shifts = places * width // frames
    return np.stack([np.roll(film[p], s, axis=1) for p, s in zip(parts, shifts, strict=True)])
