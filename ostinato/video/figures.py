"""Figures of video classification."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ostinato.evaluation.figures import BLUE, SKY, WIDTH, styled

COLUMNS = 8  # frames of each clip in a contact sheet


@styled
def plot_prefix_accuracy(table: pd.DataFrame, num_clips: int) -> Figure:
    """Accuracy against the number of first frames of each clip, with 95% intervals.

    Args:
        table: columns frames, top1, low, high.
        num_clips: number of clips.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    frames = table["frames"].to_numpy()
    axes.fill_between(frames, table["low"], table["high"], color=SKY, alpha=0.35, lw=0,
                      label="95% interval")  # fmt: skip
    axes.plot(frames, table["top1"], "o-", color=BLUE, label="top-1 accuracy")
    axes.set(ylim=(-0.02, 1.02), xlabel="Number of first frames", ylabel="Accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"Accuracy on the first frames of {num_clips:,} clips")
    axes.legend(loc="lower right")
    return figure


@styled
def contact_sheet(
    clips: Sequence[UInt8[np.ndarray, "_ _ _ channel"]],
    captions: Sequence[str],
    title: str,
    heat: Sequence[Float[np.ndarray, "_ _ _"]] | None = None,
) -> Figure:
    """Clips with captions, one in a row: eight frames of each, evenly spaced from first to last.

    Args:
        clips: (frame, height, width, channel), of one or three channels.
        captions: a few short lines for each clip.
        title: of the figure.
        heat: heat maps from 0 to 1 (frame, height, width) for an overlay; they may have a lower
            resolution than the clips.
    """
    rows = max(1, len(clips))
    figure = Figure(figsize=(WIDTH, 0.5 + 0.8 * rows))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(rows, 1 + COLUMNS, squeeze=False, width_ratios=[1.8, *[1.0] * COLUMNS])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        grid[row, 0].text(0, 0.5, caption, va="center", fontsize=8)
        height, width, channels = clip.shape[1:]
        chosen = np.unique(np.linspace(0, len(clip) - 1, COLUMNS).round().astype(int))
        for axes, frame in zip(grid[row, 1:], chosen, strict=False):
            extent = (0, width, height, 0)
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if channels == 1 else {}
            axes.imshow(clip[frame], extent=extent, **grey)
            if heat is not None:
                axes.imshow(heat[row][frame], extent=extent, cmap="inferno", vmin=0, vmax=1,
                            alpha=0.55, interpolation="bilinear")  # fmt: skip
    return figure
