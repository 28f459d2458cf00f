"""Figures of drift: two data sets compared feature by feature."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ostinato.evaluation.figures import BLUE, GREY, MAX_CLASSES, ORANGE, RED, WIDTH, bars, styled


@styled
def drift(table: pd.DataFrame, psi_threshold: float, ks_threshold: float) -> Figure:
    """The drift of each feature by both measures, with their thresholds.

    Args:
        table: a row for each feature: feature, psi, ks, drifted; NaN if it was not measured.
        psi_threshold: of the population stability index.
        ks_threshold: of the Kolmogorov-Smirnov distance.
    """
    rows = table.sort_values("psi", ascending=False).head(MAX_CLASSES)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * max(len(rows), 2)))
    panels = figure.subplots(1, 2, sharey=True)
    names = [f"{row.feature}{' (drifted)' if row.drifted else ''}" for row in rows.itertuples()]
    for axes, column, threshold in zip(
        panels, ("psi", "ks"), (psi_threshold, ks_threshold), strict=True
    ):
        values = rows[column].to_numpy()
        lengths = np.nan_to_num(values)
        notes = ["not measured" if np.isnan(value) else f"{value:.3f}" for value in values]
        bars(axes, names, lengths, notes)
        axes.axvline(threshold, color=RED, linestyle="--", linewidth=1.2)
        axes.set_xlim(0, 1.25 * max(threshold, lengths.max(initial=0)))
        axes.set_title(f"{column.upper()}, threshold {threshold:g}")
    title = "Drift by feature: population stability index and Kolmogorov-Smirnov distance"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


@styled
def distributions(then: dict[str, Sequence[float]], now: dict[str, Sequence[float]]) -> Figure:
    """Empirical distribution functions, then and now, of up to eight features.

    Args:
        then: a sample of the values of each feature. The figure shows the features that both have.
        now: later samples.
    """
    names = [name for name in then if name in now][:8]
    rows = max(1, -(-len(names) // 2))
    figure = Figure(figsize=(WIDTH, 0.5 + 2.1 * rows))
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        axes.ecdf(now[name], color=ORANGE, linewidth=2.5, label="now")
        axes.ecdf(then[name], color=BLUE, linestyle="--", linewidth=1.2, label="then")
        axes.set_title(name)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(labelsize=8.5)
    if names:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
    figure.suptitle("Empirical distribution functions", x=0.01, ha="left", fontsize=11)
    return figure


@styled
def category_shift(table: pd.DataFrame, name: str) -> Figure:
    """The relative frequency of categories, then and now.

    Args:
        table: category, then, now; the largest changes first.
        name: of the feature.
    """
    rows = table.head(12)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.27 * max(len(rows), 3)))
    axes = figure.subplots()
    for y, (then, now) in enumerate(zip(rows["then"], rows["now"], strict=True)):
        axes.plot([then, now], [y, y], color=GREY, linewidth=1.5)
    for column, colour, filling in (("now", ORANGE, ORANGE), ("then", BLUE, "none")):
        axes.plot(rows[column], range(len(rows)), "o", color=colour, mfc=filling, ms=7,
                  clip_on=False, zorder=3, label=column)  # fmt: skip
    axes.set_yticks(range(len(rows)), rows["category"], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    note = f", the {len(rows)} largest changes of {len(table)}" if len(table) > len(rows) else ""
    axes.set_title(f"Frequencies of {name}{note}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
