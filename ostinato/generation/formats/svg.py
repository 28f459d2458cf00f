"""Drawings as SVG pictures: at rest, or drawn stroke by stroke."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Stroke = Sequence[Sequence[float]]
"""[xs, ys], as in QuickDraw's files; more lists, such as times, are ignored."""

MARGIN = 8  # pixels around the drawing
LINE_WIDTH = 4  # pixels
PAUSE = 0.08  # of the whole animation, between all strokes together: the pen moves
STYLE = """\
<style>
.stroke{animation-name:draw;animation-timing-function:linear;animation-fill-mode:backwards}
.line{stroke-dasharray:1}
@keyframes draw{from{stroke-dashoffset:1;visibility:hidden}to{stroke-dashoffset:0}}
@media(prefers-reduced-motion:reduce){.stroke{animation-name:none}}
</style>
"""


def to_svg(
    strokes: Sequence[Stroke], *, size: int = 255, animate_seconds: float | None = None
) -> str:
    """A drawing as a square SVG picture, centred, its longer side as long as the picture.

    The animation is CSS without a script. A reader who prefers reduced motion, and a program that
    knows no animation, show the whole drawing.

    Args:
        strokes: [xs, ys] each, in any unit, y pointing down; may be empty.
        size: of the picture, in pixels.
        animate_seconds: duration in which the strokes are drawn one after the other, at a constant
            speed; None: a picture at rest.
    """
    lines = [np.array(stroke[:2], np.float64).T for stroke in strokes if len(stroke[0])]
    placed = _placed(lines, size)
    times = [""] * len(placed)
    if animate_seconds and placed:
        times = _times(placed, animate_seconds)
    paths = [_path(points, time) for points, time in zip(placed, times, strict=True)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" '
        f'viewBox="0 0 {size} {size}">\n'
        f"{STYLE if animate_seconds else ''}"
        f'<rect width="{size}" height="{size}" fill="#fff"/>\n'
        f'<g fill="none" stroke="#000" stroke-width="{LINE_WIDTH}" stroke-linecap="round" '
        f'stroke-linejoin="round">\n{"".join(paths)}</g>\n</svg>\n'
    )


def _placed(lines: Sequence[Float[np.ndarray, "_ 2"]], size: int) -> list[Float[np.ndarray, "_ 2"]]:
    """The points within the picture."""
    if not lines:
        return []
    points = np.concatenate(lines)
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max())
    factor = (size - 2 * MARGIN) / extent if extent else 1.0
    return [(each - (low + high) / 2) * factor + size / 2 for each in lines]


def _times(lines: Sequence[Float[np.ndarray, "_ 2"]], seconds: float) -> list[str]:
    """The animation of each stroke: its duration by its length, after those before it."""
    lengths = [np.hypot(*np.diff(line, axis=0).T).sum() + LINE_WIDTH for line in lines]
    pause = PAUSE * seconds / len(lines)
    shares = np.array(lengths) / sum(lengths) * (1 - PAUSE) * seconds
    starts = np.cumsum(shares + pause) - shares
    return [
        f' style="animation-duration:{share:.3f}s;animation-delay:{start:.3f}s"'
        for share, start in zip(shares, starts, strict=True)
    ]


def _path(points: Float[np.ndarray, "_ 2"], time: str) -> str:
    first, *others = (f"{x:.1f} {y:.1f}" for x, y in points)
    moving = len({first, *others}) > 1  # else a dot, which has no length to be drawn along
    rest = f"L{' '.join(others)}" if moving else "h0"
    kind = f' class="stroke{" line" if moving else ""}"' if time else ""
    length = ' pathLength="1"' if time and moving else ""
    return f'<path{kind}{length} d="M{first}{rest}"{time}/>\n'
