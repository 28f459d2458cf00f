"""TODO."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ostinato.evaluation.figures import BLUE, GREY, RED, SKY, WIDTH, styled


@styled
def search(trials: pd.DataFrame, name: str, lower: bool) -> Figure:
    """The trials of a search in their order, and the best so far.

    Args:
        trials: columns trial, state (complete, pruned, failed) and value, NaN where it failed.
        name: of the value.
        lower: whether a lower value is better.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    complete = trials[trials["state"] == "complete"]
    reached = complete["value"].cummin() if lower else complete["value"].cummax()
    axes.step(complete["trial"], reached, where="post", color=RED, label="best so far")
    _trials(axes, trials, trials["trial"])
    failed = trials.loc[trials["state"] == "failed", "trial"]
    axes.plot(failed, np.full(len(failed), 0.02), "^", color="black",
              transform=axes.get_xaxis_transform(), label=f"failed ({len(failed)})")  # fmt: skip
    _spread(axes, trials["value"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="Trial", ylabel=name)
    axes.set_title(f"{len(trials)} trials, {'lower' if lower else 'higher'} is better")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def search_curves(records: pd.DataFrame, best: int, name: str) -> Figure:
    """The learning curve of every trial of a search, the best one in front.

    Args:
        records: a row for each epoch of each trial: trial, state, epoch, value.
        best: the trial that won.
        name: of the value.
    """
    figure = Figure(figsize=(WIDTH, 4.2))
    axes = figure.subplots()
    looks: dict[Any, Any] = {
        "complete": {"color": SKY, "ls": "-"},
        "pruned": {"color": GREY, "ls": "--", "marker": "x", "markevery": [-1]},
        "failed": {"color": "black", "ls": ":", "marker": "^", "markevery": [-1]},
    }
    for (trial, state), curve in records.groupby(["trial", "state"]):
        look = looks[state]
        if trial == best:
            look = {"color": RED, "lw": 2.5, "marker": "o", "zorder": 3}
        label = f"the best, trial {best}" if trial == best else state
        axes.plot(curve["epoch"], curve["value"], label=label, **{"lw": 1, **look})
    _spread(axes, records["value"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="Epoch", ylabel=name)
    axes.set_title("Learning curves of all trials")
    handles, labels = axes.get_legend_handles_labels()
    each = dict(zip(labels, handles, strict=True))
    figure.legend(list(each.values()), list(each), loc="outside lower center", ncols=4)
    return figure


@styled
def search_slices(trials: pd.DataFrame, parameters: dict[str, bool], name: str) -> Figure:
    """The value of every trial against each parameter.

    Args:
        trials: columns trial, state, value, and the parameters.
        parameters: their names, and whether each lies on a logarithmic scale.
        name: of the value.
    """
    columns = min(3, len(parameters))
    rows = -(-len(parameters) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.6 * rows))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(parameters) :]:
        axes.set_axis_off()
    for axes, (parameter, log) in zip(panels.flat, parameters.items(), strict=False):
        x = trials[parameter]
        if not pd.api.types.is_numeric_dtype(x) or pd.api.types.is_bool_dtype(x):
            choices = sorted(set(x.map(str)))
            x = x.map(lambda value, choices=choices: choices.index(str(value)))
            tilt = 30 if sum(map(len, choices)) > 30 else 0
            axes.set_xticks(range(len(choices)), choices, fontsize=8.5, rotation=tilt)
            axes.set_xlim(-0.5, len(choices) - 0.5)
        elif log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        _trials(axes, trials, x)
        axes.set_xlabel(parameter)
    _spread(panels[0, 0], trials["value"])
    for row in panels:
        row[0].set_ylabel(name)
    figure.suptitle("Each parameter, over all others", x=0.01, ha="left", fontsize=11)
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def _trials(axes: Axes, trials: pd.DataFrame, x: "pd.Series[Any]") -> None:
    """The trials that have a value: complete ones as dots, pruned ones as crosses."""
    for state, mark, colour in (("complete", "o", BLUE), ("pruned", "x", GREY)):
        chosen = trials["state"] == state
        axes.plot(x[chosen], trials["value"][chosen], mark, color=colour,
                  label=f"{state} ({chosen.sum()})")  # fmt: skip


def _spread(axes: Axes, values: "pd.Series[float]") -> None:
    """A logarithmic scale for values of several magnitudes, or the lost ones hide the rest."""
    if 0 < 20 * values.min() < values.max():
        axes.set_yscale("log")
