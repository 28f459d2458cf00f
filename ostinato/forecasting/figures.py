"""Figures of forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ostinato.evaluation.figures import BLUE, GREY, RED, SKY, WIDTH, styled


@dataclass(frozen=True)
class Panel:
    """A forecast to draw.

    Args:
        title: key of the window.
        past: values before the origin.
        truth: NaN where not measured.
        forecast: the median.
        intervals: low and high by level, the widest first.
    """

    title: str
    past: Float[np.ndarray, " time"]
    truth: Float[np.ndarray, " horizon"]
    forecast: Float[np.ndarray, " horizon"]
    intervals: Mapping[float, tuple[Float[np.ndarray, " horizon"], Float[np.ndarray, " horizon"]]]


@styled
def forecasts(panels: Sequence[Panel], title: str) -> Figure:
    """Forecasts with their intervals, and the truth; a panel for each origin.

    Args:
        panels: the forecasts.
        title: of the figure.
    """
    rows = max(1, -(-len(panels) // 2))
    figure = Figure(figsize=(WIDTH, 0.9 + 2.1 * rows))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(rows, 2, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_axis_on()
        before, steps = len(panel.past), np.arange(1, len(panel.truth) + 1)
        axes.plot(np.arange(1 - before, 1), panel.past, color=GREY, lw=1, label="past")
        for shade, (level, (low, high)) in zip((0.25, 0.5), panel.intervals.items(), strict=False):
            axes.fill_between(steps, low, high, color=SKY, alpha=shade, lw=0,
                              label=f"{level:.0%} interval")  # fmt: skip
        axes.plot(steps, panel.truth, "o-", color="black", ms=3, lw=1, label="truth")
        axes.plot(steps, panel.forecast, color=RED, label="forecast")
        axes.set_title(panel.title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panels:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@styled
def horizon(table: pd.DataFrame) -> Figure:
    """Mean absolute error by step of the horizon, of the run and of the seasonal naive forecast.

    Args:
        table: columns step, mae, naive.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.plot(table["step"], table["naive"], "s--", color=GREY, ms=4, label="seasonal naive")
    axes.plot(table["step"], table["mae"], "o-", color=BLUE, ms=4, label="this run")
    axes.set(xlabel="Step of the horizon", ylabel="Mean absolute error")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Error by step of the horizon")
    axes.legend()
    return figure


@styled
def interval_coverage(table: pd.DataFrame) -> Figure:
    """Observed against nominal coverage of prediction intervals.

    Args:
        table: columns level, raw, conformal.
    """
    figure = Figure(figsize=(WIDTH, 4.6))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="nominal")
    axes.plot(table["level"], table["raw"], "s-", color=SKY, ms=4, label="the model's quantiles")
    axes.plot(table["level"], table["conformal"], "o-", color=BLUE, ms=4,
              label="after calibration")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Nominal coverage", ylabel="Observed coverage")
    axes.set_aspect("equal")
    axes.set_title("Coverage of the prediction intervals")
    axes.legend(loc="upper left")
    return figure


@styled
def residuals(errors: Float[np.ndarray, "window horizon"], title: str) -> Figure:
    """Residuals by window for the first and the last step of the horizon, and their histogram.

    Args:
        errors: truth minus forecast; NaN where not measured.
        title: of the figure.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    order = np.arange(len(errors))
    for step, colour in ((errors.shape[1] - 1, SKY), (0, BLUE)):
        left.plot(order, errors[:, step], ".", color=colour, ms=4, label=f"step {step + 1}")
    for axes in (left, right):
        axes.axhline(0, color=GREY, lw=1)
    right.hist(errors[np.isfinite(errors)], bins=30, orientation="horizontal", color=SKY)
    left.set(xlabel="Window", ylabel="Truth minus forecast")
    right.set_xlabel("Count")
    left.set_title(title)
    left.legend()
    return figure
