"""Figures of a search: its trials, their learning curves, and the effect of each parameter."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ostinato.evaluation.figures import BLUE, GREY, RED, SKY, WIDTH, styled


@styled
def trials(table: pd.DataFrame, name: str, minimized: bool) -> Figure:
    """The values of the trials in their order, and the best value so far.

    Args:
        table: columns trial, state (complete, pruned, failed) and value, NaN where it failed.
        name: of the value.
        minimized: whether lower values are better.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    complete = table[table["state"] == "complete"]
    reached = complete["value"].cummin() if minimized else complete["value"].cummax()
    axes.step(complete["trial"], reached, where="post", color=RED, label="best so far")
    _points(axes, table, table["trial"])
    failed = table.loc[table["state"] == "failed", "trial"]
    axes.plot(failed, np.full(len(failed), 0.02), "^", color="black",
              transform=axes.get_xaxis_transform(), label=f"failed ({len(failed)})")  # fmt: skip
    _scale(axes, table["value"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="Trial", ylabel=name)
    axes.set_title(f"{len(table)} trials, {'lower' if minimized else 'higher'} is better")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def learning_curves(records: pd.DataFrame, best: int, name: str) -> Figure:
    """The learning curve of each trial, the best one in front.

    Args:
        records: a row for each epoch of each trial: trial, state, epoch, value.
        best: number of the best trial.
        name: of the value.
    """
    figure = Figure(figsize=(WIDTH, 4.2))
    axes = figure.subplots()
    styles: dict[Any, Any] = {
        "complete": {"color": SKY, "ls": "-"},
        "pruned": {"color": GREY, "ls": "--", "marker": "x", "markevery": [-1]},
        "failed": {"color": "black", "ls": ":", "marker": "^", "markevery": [-1]},
    }
    for (trial, state), curve in records.groupby(["trial", "state"]):
        style = styles[state]
        if trial == best:
            style = {"color": RED, "lw": 2.5, "marker": "o", "zorder": 3}
        label = f"the best, trial {best}" if trial == best else state
        axes.plot(curve["epoch"], curve["value"], label=label, **{"lw": 1, **style})
    _scale(axes, records["value"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="Epoch", ylabel=name)
    axes.set_title("Learning curves of all trials")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(list(unique.values()), list(unique), loc="outside lower center", ncols=4)
    return figure


@styled
def parameters(table: pd.DataFrame, logarithmic: dict[str, bool], name: str) -> Figure:
    """The value of each trial against each parameter.

    Args:
        table: columns trial, state, value, and the parameters.
        logarithmic: for each parameter whether its axis has a logarithmic scale.
        name: of the value.
    """
    columns = min(3, len(logarithmic))
    rows = -(-len(logarithmic) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.6 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(logarithmic) :]:
        axes.set_axis_off()
    for axes, (parameter, log) in zip(panels.flat, logarithmic.items(), strict=False):
        x = table[parameter]
        if not pd.api.types.is_numeric_dtype(x) or pd.api.types.is_bool_dtype(x):
            choices = sorted(set(x.map(str)))
            x = x.map(lambda value, choices=choices: choices.index(str(value)))
            rotation = 30 if sum(map(len, choices)) > 30 else 0
            axes.set_xticks(range(len(choices)), choices, fontsize=8.5, rotation=rotation)
            axes.set_xlim(-0.5, len(choices) - 0.5)
        elif log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        _points(axes, table, x)
        axes.set_xlabel(parameter)
    _scale(panels[0, 0], table["value"])
    for row in panels:
        row[0].set_ylabel(name)
    figure.suptitle("Each parameter, over all values of the others", x=0.01, ha="left", fontsize=11)
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def _points(axes: Axes, table: pd.DataFrame, x: "pd.Series[Any]") -> None:
    """The trials that have a value: complete ones as dots, pruned ones as crosses."""
    for state, marker, colour in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        rows = table["state"] == state
        axes.plot(x[rows], table["value"][rows], marker, color=colour,
                  label=f"{state} ({rows.sum()})")  # fmt: skip


def _scale(axes: Axes, values: "pd.Series[float]") -> None:
    """Use a logarithmic scale for values of several magnitudes, as outliers hide the rest."""
    if 0 < 20 * values.min() < values.max():
        axes.set_yscale("log")
