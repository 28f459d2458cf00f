"""Figures of drawings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Shaped
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ostinato.evaluation.figures import BLUE, SKY, WIDTH, styled


@styled
def early_recognition(table: pd.DataFrame, size: int) -> Figure:
    """Accuracy by the fraction of the points that is known, with 95% confidence intervals.

    Args:
        table: columns fraction, top1, low, high.
        size: number of drawings.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    x = table["fraction"].to_numpy()
    axes.fill_between(x, table["low"], table["high"], color=SKY, alpha=0.35, lw=0,
                      label="95% interval")  # fmt: skip
    axes.plot(x, table["top1"], "o-", color=BLUE, label="top-1 accuracy")
    for fraction, value in zip(x, table["top1"], strict=True):
        axes.annotate(f"{value:.1%}", (fraction, value), (0, -15), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1.05), ylim=(-0.02, 1.02), xlabel="Points drawn so far", ylabel="Accuracy")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"Early recognition ({size:,} drawings)")
    axes.legend(loc="upper left")
    return figure


@styled
def gallery(
    drawings: Sequence[Shaped[np.ndarray, "..."]], captions: Sequence[str], title: str
) -> Figure:
    """Drawings with a caption each, six in a row.

    Args:
        drawings: stroke-3 rows (point, 3) with y pointing down, or images (height, width, 1).
        captions: a few short lines each.
        title: of the figure.
    """
    columns = 6
    rows = max(1, -(-len(drawings) // columns))
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    figure = Figure(figsize=(WIDTH, 0.4 + rows * (1.2 + 0.16 * lines)))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, drawing, caption in zip(figure.axes, drawings, captions, strict=False):
        axes.set_title(caption, fontsize=8.5, loc="center")
        if drawing.shape[-1] == 3 and drawing.ndim == 2:
            points = np.cumsum(drawing[:, :2], axis=0, dtype=np.float64)
            strokes = np.split(points, np.flatnonzero(drawing[:-1, 2] > 0) + 1)
            axes.add_collection(LineCollection(strokes, colors="black", linewidths=1.5,
                                               capstyle="round", joinstyle="round"))  # fmt: skip
            middle = (points.min(axis=0) + points.max(axis=0)) / 2
            half = max(float(np.ptp(points, axis=0).max()) * 0.53, 1.0)
            axes.set(xlim=(middle[0] - half, middle[0] + half),
                     ylim=(middle[1] + half, middle[1] - half))  # fmt: skip
        else:
            axes.imshow(drawing, cmap="gray_r")
        axes.set_aspect("equal")
    return figure
