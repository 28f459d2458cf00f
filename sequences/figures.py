"""Pictures of results, all in one style, as ``matplotlib.figure.Figure`` objects.

No pyplot and no global state: a figure is made from data alone, and the same data give the same
picture; ``store.write_figure`` writes it, with the same bytes. Sizes suit a page about 800 px
wide. Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart, and what
matters is never said by colour alone.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

P = ParamSpec("P")

BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#767676",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, GREY)
MARKERS = "osD^vPX*hp<>"
WIDTH = 8.0  # inches, of every figure
CLASSES = 26  # more classes than this are not shown one by one
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.dpi": 144,
    "figure.titlesize": 12,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#E4E4E4",
    "image.cmap": "Blues",
    "legend.frameon": False,
    "lines.markersize": 5,
    "xtick.color": "#404040",
    "ytick.color": "#404040",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Give a drawing function the project's style over matplotlib's defaults, and only to it."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made late: now, while the style holds
        return figure

    return inner


@styled
def learning_curves(history: pd.DataFrame, best: int | None) -> Figure:
    """Loss, every metric that has a ``validation_`` partner, and the learning rate, by epoch.

    Args:
        history: a row for each epoch: epoch, loss, validation_loss, learning_rate, ...
        best: the epoch whose weights were kept, marked; None marks nothing.

    Raises:
        ValueError: no column has a validation partner.
    """
    columns = [str(name) for name in history]
    names = [name for name in columns if f"validation_{name}" in columns]
    if not names:
        raise ValueError(f"no column has a validation_ partner among {', '.join(columns)}")
    strip = ["learning_rate"] if "learning_rate" in columns else []
    figure = Figure(figsize=(WIDTH, 3.6 + 1.3 * len(strip)))
    mosaic: Any = [names, strip * len(names)][: 1 + len(strip)]
    panels = figure.subplot_mosaic(mosaic, height_ratios=[3.5, 1][: len(mosaic)])
    x = history["epoch"].to_numpy()
    dots = "o" if len(x) <= 40 else ""
    for name in names:
        axes, validation = panels[name], history[f"validation_{name}"].to_numpy()
        title = name.replace("_", " ").capitalize()
        axes.plot(x, history[name], "--", color=BLUE, marker=dots, ms=3, label="training")
        axes.plot(x, validation, color=RED, marker=dots, ms=3, label="validation")
        if best is not None:
            value = validation[x == best].item()
            axes.plot(best, value, "*", color=RED, ms=13, label="the epoch that was kept")
            title += f", validation {value:.3g} at epoch {best}"
        axes.set_title(title)
    for name in strip:
        panels[name].plot(x, history[name], color=GREY, marker=dots, ms=3)
        panels[name].set_title("Learning rate", fontsize=9)
        panels[name].set_ylim(bottom=0)
    for axes in panels.values():
        axes.tick_params(labelsize=8.5)
        axes.set_xlabel("Epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles = panels[names[0]].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


@styled
def confusion(counts: ArrayLike, classes: Sequence[str]) -> Figure:
    """Which classes are taken for which: the matrix, or where it is large its worst part.

    Args:
        counts: (class, class), true class by row, predicted by column.
        classes: their names.
    """
    matrix = np.asarray(counts)
    wrong = matrix * (1 - np.eye(len(classes), dtype=matrix.dtype))
    pairs = [
        divmod(int(cell), len(classes))
        for cell in np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    ]
    if len(classes) <= CLASSES:
        figure = Figure(figsize=(WIDTH, 1.4 + 0.27 * max(len(classes), 8)))
        axes = figure.subplots()
        _matrix(axes, matrix, classes, list(range(len(classes))))
        axes.set_title("Predictions for each class, % of its examples")
        return figure
    # The classes of the worst pairs, as many as can be read; every row still counts all of them.
    worst = dict.fromkeys(cls for pair in pairs for cls in pair)
    chosen = sorted(list(worst)[:CLASSES]) or list(range(CLASSES))
    figure = Figure(figsize=(WIDTH, 13.2))
    top, bottom = figure.subplots(2, 1, height_ratios=[8, 5])
    _matrix(top, matrix, classes, chosen)
    which = "most confused" if pairs else "none confused"
    top.set_title(f"{len(chosen)} of {len(classes)} classes, {which}, % of examples")
    listed = pairs[:20]
    names = [f"{classes[t]} taken for {classes[p]}" for t, p in listed]
    values = [int(matrix[t, p]) for t, p in listed]
    notes = [
        f"{matrix[t, p]} of {matrix[t].sum()}  (other way {matrix[p, t]} of {matrix[p].sum()})"
        for t, p in listed
    ]
    _bars(bottom, names, values, notes)
    share = sum(values) / max(1, int(wrong.sum()))
    bottom.set_title(f"Most frequent mistakes, {share:.0%} of all {int(wrong.sum()):,}")
    bottom.set_xlim(right=1.9 * max(values, default=1))
    bottom.set_xlabel("Examples")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def calibration(table: dict[str, NDArray[Any]] | pd.DataFrame, error: float) -> Figure:
    """Reliability diagram: accuracy against confidence by bin, with how many examples are in each.

    Args:
        table: of ``metrics.reliability``.
        error: the expected calibration error, for the title.
    """
    low, high, samples = (np.asarray(table[name]) for name in ("low", "high", "samples"))
    claimed, true = (np.asarray(table[name]) for name in ("confidence", "accuracy"))
    figure = Figure(figsize=(WIDTH, 5.4))
    top, bottom = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    top.bar(low, true, high - low, align="edge", color=SKY, edgecolor="white", label="accuracy")
    top.plot([0, 1], [0, 1], "--", color=GREY, label="as confident as right")
    top.plot(claimed, true, "o", color=BLUE, label="mean confidence of the bin")
    top.vlines(claimed, np.minimum(claimed, true), np.maximum(claimed, true), color=RED, lw=2,
               label="gap")  # fmt: skip
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Accuracy")
    gap = np.nansum((claimed - true) * samples)
    kind = "too sure" if gap > 0 else "not sure enough"
    top.set_title(f"Confidence against accuracy: off by {error:.3f} on average, mostly {kind}")
    top.legend(loc="upper left")
    bottom.bar(low, samples / samples.sum(), high - low, align="edge", color=GREY,
               edgecolor="white")  # fmt: skip
    bottom.set(xlabel="Confidence (probability of the predicted class)", ylabel="Examples")
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@styled
def progress(table: pd.DataFrame, samples: int) -> Figure:
    """Accuracy against how much of each sequence was seen, with 95% intervals.

    Args:
        table: columns share, top1, low, high.
        samples: how many sequences.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    shares = table["share"].to_numpy()
    axes.fill_between(shares, table["low"], table["high"], color=SKY, alpha=0.35, lw=0,
                      label="95% interval")  # fmt: skip
    axes.plot(shares, table["top1"], "o-", color=BLUE, label="top-1 accuracy")
    for share, value in zip(shares, table["top1"], strict=True):
        axes.annotate(f"{value:.1%}", (share, value), (0, -15), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1.05), ylim=(-0.02, 1.02), xlabel="Points seen so far", ylabel="Accuracy")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"Recognised while being drawn ({samples:,} drawings)")
    axes.legend(loc="upper left")
    return figure


@styled
def gallery(examples: Sequence[NDArray[Any]], captions: Sequence[str], title: str) -> Figure:
    """Drawings with a caption each, six in a row.

    Args:
        examples: stroke-3 (point, 3) of offsets and lifts, y down; or images (height, width, 1).
        captions: a few short lines each.
        title: what they have in common.
    """
    columns = 6
    rows = max(1, -(-len(examples) // columns))
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    figure = Figure(figsize=(WIDTH, 0.4 + rows * (1.2 + 0.16 * lines)))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, example, caption in zip(figure.axes, examples, captions, strict=False):
        axes.set_title(caption, fontsize=8.5, loc="center")
        if example.shape[-1] == 3 and example.ndim == 2:
            points = np.cumsum(example[:, :2], axis=0, dtype=np.float64)
            strokes = np.split(points, np.flatnonzero(example[:-1, 2] > 0) + 1)
            axes.add_collection(LineCollection(strokes, colors="black", linewidths=1.5,
                                               capstyle="round", joinstyle="round"))  # fmt: skip
            middle = (points.min(axis=0) + points.max(axis=0)) / 2
            half = max(float(np.ptp(points, axis=0).max()) * 0.53, 1.0)
            axes.set(xlim=(middle[0] - half, middle[0] + half),
                     ylim=(middle[1] + half, middle[1] - half))  # fmt: skip
        else:
            axes.imshow(example, cmap="gray_r")
        axes.set_aspect("equal")
    return figure


@styled
def frames_seen(table: pd.DataFrame, samples: int) -> Figure:
    """Accuracy against how many frames of each clip were seen, with 95% intervals.

    Args:
        table: columns frames, top1, low, high.
        samples: how many clips.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    frames = table["frames"].to_numpy()
    axes.fill_between(frames, table["low"], table["high"], color=SKY, alpha=0.35, lw=0,
                      label="95% interval")  # fmt: skip
    axes.plot(frames, table["top1"], "o-", color=BLUE, label="top-1 accuracy")
    axes.set(ylim=(-0.02, 1.02), xlabel="Frames seen, from the first on", ylabel="Accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"Recognised after so many frames ({samples:,} clips)")
    axes.legend(loc="lower right")
    return figure


@styled
def contact_sheet(
    clips: Sequence[NDArray[Any]],
    captions: Sequence[str],
    title: str,
    heat: Sequence[NDArray[Any]] | None = None,
) -> Figure:
    """Clips with a caption each, one a row: eight frames of each, evenly from first to last.

    Args:
        clips: uint8 (frame, height, width, channel) of one or three channels.
        captions: a few short lines each.
        title: what they have in common.
        heat: for each clip 0 to 1 (frame, height, width), laid over it; coarser pictures will do.
    """
    columns = 8
    rows = max(1, len(clips))
    figure = Figure(figsize=(WIDTH, 0.5 + 0.8 * rows))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(rows, 1 + columns, squeeze=False, width_ratios=[1.8, *[1.0] * columns])
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        grid[row, 0].text(0, 0.5, caption, va="center", fontsize=8)
        height, width, channels = clip.shape[1:]
        chosen = np.unique(np.linspace(0, len(clip) - 1, columns).round().astype(int))
        for axes, frame in zip(grid[row, 1:], chosen, strict=False):
            extent = (0, width, height, 0)
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if channels == 1 else {}
            axes.imshow(clip[frame], extent=extent, **grey)
            if heat is not None:
                axes.imshow(heat[row][frame], extent=extent, cmap="inferno", vmin=0, vmax=1,
                            alpha=0.55, interpolation="bilinear")  # fmt: skip
    return figure


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """F1, precision and recall of each class, best first; where there are many, both ends.

    Args:
        table: columns class, support, precision, recall, f1.
    """
    rows = _records(table[table["f1"].notna()], "f1", "class")
    title = f"F1 of each of {len(rows)} classes (examples), best first"
    if len(rows) > 2 * CLASSES:
        title = f"The best and the worst {CLASSES} of {len(rows)} classes (examples) by F1"
        rows = rows[:CLASSES] + rows[-CLASSES:]
    half = -(-len(rows) // 2)
    figure = Figure(figsize=(WIDTH, 1.4 + 0.25 * max(half, 4)))
    columns = figure.subplots(1, 2, sharex=True)
    for axes, part in zip(columns, (rows[:half], rows[half:]), strict=True):
        names = [f"{row['class']} ({row['support']:,})" for row in part]
        _bars(axes, names, [row["f1"] for row in part], [])
        for column, mark, colour in (("precision", "|", RED), ("recall", ".", "black")):
            axes.plot([row[column] for row in part], range(len(part)), mark, color=colour, ms=8,
                      mew=2 if mark == "|" else 0, label=column)  # fmt: skip
        axes.set(xlim=(0, 1.02), xlabel="F1")
        axes.set_ylim(half - 0.4, -0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


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


@styled
def comparison(runs: pd.DataFrame, name: str, lower: bool) -> Figure:
    """Runs by score with 95% intervals, best first.

    Args:
        runs: columns run, score, low, high.
        name: of the score.
        lower: whether a lower one is better.
    """
    rows = _records(runs, "score", "run", lower)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.33 * max(len(rows), 2)))
    axes = figure.subplots()
    for y, row in enumerate(rows):
        axes.errorbar(row["score"], y, xerr=_bounds(row), fmt="o", color=BLUE, capsize=3)
        shown = ",.3f" if abs(row["score"]) < 100 else ",.0f"
        note = f"{row['score']:{shown}}  [{row['low']:{shown}}, {row['high']:{shown}}]"
        axes.annotate(note, (1.01, y),
                      xycoords=("axes fraction", "data"), va="center", fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row["run"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(name)
    axes.set_title(f"{name[:1].upper()}{name[1:]} of each run, with its 95% interval")
    return figure


@styled
def tradeoff(runs: pd.DataFrame, name: str, lower: bool) -> Figure:
    """Score against what it costs: the time of an answer, and parameters.

    Args:
        runs: columns run, score, low, high, inference_ms, parameters.
        name: of the score.
        lower: whether a lower one is better.
    """
    rows = _records(runs, "score", "run", lower)
    figure = Figure(figsize=(WIDTH, 3.6 + 0.25 * -(-len(rows) // 3)))
    panels = figure.subplots(1, 2, sharey=True)
    costs = {
        "inference_ms": ("Time of one answer, ms", 1.0),
        "parameters": ("Parameters, millions", 1e6),
    }
    for axes, (column, (label, unit)) in zip(panels, costs.items(), strict=True):
        for number, row in enumerate(rows):
            axes.errorbar(
                row[column] / unit, row["score"], yerr=_bounds(row), label=row["run"],
                fmt=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)],
                ms=8, capsize=3,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
    panels[0].set_ylabel(name)
    title = f"{name[:1].upper()}{name[1:]} against its cost (left is cheaper)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def forecasts(panels: Sequence[dict[str, Any]], title: str) -> Figure:
    """Forecasts with their intervals over what came true, a panel for each origin.

    Args:
        panels: title; past, truth, forecast (step,); bounds: level -> low and high (step,).
        title: of them all.
    """
    rows = max(1, -(-len(panels) // 2))
    figure = Figure(figsize=(WIDTH, 0.9 + 2.1 * rows))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    grid = figure.subplots(rows, 2, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        axes.set_axis_on()
        before, steps = len(panel["past"]), np.arange(1, len(panel["truth"]) + 1)
        axes.plot(np.arange(1 - before, 1), panel["past"], color=GREY, lw=1, label="past")
        for shade, (level, (low, high)) in zip((0.25, 0.5), panel["bounds"].items(), strict=False):
            axes.fill_between(steps, low, high, color=SKY, alpha=shade, lw=0,
                              label=f"{level:.0%} interval")  # fmt: skip
        axes.plot(steps, panel["truth"], "o-", color="black", ms=3, lw=1, label="truth")
        axes.plot(steps, panel["forecast"], color=RED, label="forecast")
        axes.set_title(panel["title"], fontsize=9)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panels:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@styled
def horizon(table: pd.DataFrame) -> Figure:
    """Mean absolute error by step of the horizon, beside that of the seasonal naive forecast.

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
def held(table: pd.DataFrame) -> Figure:
    """The share of truths that intervals held, against the share that they promise.

    Args:
        table: columns level, raw, conformal.
    """
    figure = Figure(figsize=(WIDTH, 4.6))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=GREY, label="as promised")
    axes.plot(table["level"], table["raw"], "s-", color=SKY, ms=4, label="the model's quantiles")
    axes.plot(table["level"], table["conformal"], "o-", color=BLUE, ms=4,
              label="after calibration")  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Promised", ylabel="Held")
    axes.set_aspect("equal")
    axes.set_title("Share of the truths within the intervals")
    axes.legend(loc="upper left")
    return figure


@styled
def residuals(errors: NDArray[Any], title: str) -> Figure:
    """Errors in order of their origins, and how often each size occurs.

    Args:
        errors: truth less forecast (window, horizon), NaN where not measured.
        title: what they are.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    order = np.arange(len(errors))
    for step, colour in ((errors.shape[1] - 1, SKY), (0, BLUE)):
        left.plot(order, errors[:, step], ".", color=colour, ms=4, label=f"step {step + 1}")
    for axes in (left, right):
        axes.axhline(0, color=GREY, lw=1)
    right.hist(errors[np.isfinite(errors)], bins=30, orientation="horizontal", color=SKY)
    left.set(xlabel="Window", ylabel="Truth less forecast")
    right.set_xlabel("How often")
    left.set_title(title)
    left.legend()
    return figure


@styled
def by_length(table: pd.DataFrame) -> Figure:
    """BLEU of translations by the length of their sources, with 95% intervals.

    Args:
        table: columns shortest, longest (tokens), sentences, bleu, low, high.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    place = np.arange(len(table))
    error = [table["bleu"] - table["low"], table["high"] - table["bleu"]]
    axes.errorbar(place, table["bleu"], np.maximum(error, 0), fmt="o", color=BLUE, capsize=3)
    bands = zip(table["shortest"], table["longest"], table["sentences"], strict=True)
    names = [f"{a}\n({n:,})" if a == b else f"{a} to {b}\n({n:,})" for a, b, n in bands]
    axes.set_xticks(place, names)
    axes.set(
        xlabel="Tokens of the source (sentences)", ylabel="BLEU", xlim=(-0.5, len(table) - 0.5)
    )
    axes.set_ylim(bottom=0)
    axes.set_title("BLEU by length of the source")
    return figure


@styled
def alignments(maps: Sequence[tuple[NDArray[Any], list[str], list[str]]], title: str) -> Figure:
    """What each token of a translation attended to, a panel for each sentence.

    Args:
        maps: attention (token, source token), the tokens, and those of the source.
        title: over all.
    """
    rows = -(-len(maps) // 2)
    most = max(len(tokens) for _, tokens, _ in maps)
    figure = Figure(figsize=(WIDTH, rows * (0.14 * most + 1.2) + 0.4))
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    for axes, (attention, tokens, source) in zip(panels, maps, strict=False):
        axes.imshow(attention, vmin=0, vmax=1, aspect="auto")
        spelled = ([piece.replace("\u2581", "_").replace("$", r"\$") for piece in pieces]
                   for pieces in (source, tokens))  # fmt: skip
        axes.set_xticks(range(len(source)), next(spelled), rotation=90, fontsize=7)
        axes.set_yticks(range(len(tokens)), next(spelled), fontsize=7)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    figure.suptitle(title, x=0.01, ha="left")
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


def _records(
    table: pd.DataFrame, score: str, name: str, lower: bool = False
) -> list[dict[Any, Any]]:
    """The rows, best score first, equals by name."""
    return table.sort_values([score, name], ascending=[lower, True]).to_dict("records")


def _bounds(row: dict[Any, Any]) -> list[list[float]]:
    """How far the interval of a row reaches below and above its score, as errorbar wants it."""
    return [[row["score"] - row["low"]], [row["high"] - row["score"]]]


def _matrix(axes: Axes, matrix: NDArray[Any], classes: Sequence[str], chosen: list[int]) -> None:
    """Some rows and columns of a confusion matrix in %, and a column for all other classes."""
    support = np.maximum(matrix[chosen].sum(axis=1, keepdims=True), 1)
    shares = matrix[np.ix_(chosen, chosen)] / support
    columns = [classes[c] for c in chosen]
    if len(chosen) < len(classes):
        others = matrix[chosen].sum(axis=1, keepdims=True) / support - shares.sum(1, keepdims=True)
        shares = np.hstack([shares, others])
        columns.append("all others")
    axes.imshow(shares, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        share = shares[row, column]
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5,
                  color="white" if share > 0.55 else "black")  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8.5)
    axes.set_yticks(range(len(chosen)), [classes[c] for c in chosen], fontsize=8.5)
    axes.set(xlabel="Predicted", ylabel="True")
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], notes: Sequence[str]) -> None:
    """Horizontal bars from the top down, with a note behind each."""
    axes.barh(range(len(names)), values, color=SKY)
    for row, note in enumerate(notes):
        axes.annotate(note, (values[row], row), (4, 0), textcoords="offset points", va="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


@styled
def drift(table: pd.DataFrame, psi: float, ks: float) -> Figure:
    """How far each feature has moved, by both measures, with the bounds from which it is much.

    Args:
        table: a row for each feature: feature, psi, ks, drifted; NaN where it was not measured.
        psi: from which a population stability index is large.
        ks: from which a Kolmogorov-Smirnov distance is large.
    """
    rows = table.sort_values("psi", ascending=False).head(CLASSES)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * max(len(rows), 2)))
    panels = figure.subplots(1, 2, sharey=True)
    names = [f"{row.feature}{' (drifted)' if row.drifted else ''}" for row in rows.itertuples()]
    for axes, column, bound in zip(panels, ("psi", "ks"), (psi, ks), strict=True):
        values = rows[column].to_numpy()
        shown = np.nan_to_num(values)
        notes = ["not measured" if np.isnan(value) else f"{value:.3f}" for value in values]
        _bars(axes, names, shown, notes)
        axes.axvline(bound, color=RED, linestyle="--", linewidth=1.2)
        axes.set_xlim(0, 1.25 * max(bound, shown.max(initial=0)))
        axes.set_title(f"{column.upper()}, large from {bound:g}")
    title = "How far features have moved: population stability index, Kolmogorov-Smirnov distance"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


@styled
def distributions(then: dict[str, Sequence[float]], now: dict[str, Sequence[float]]) -> Figure:
    """The share of values up to each value, then and now, of up to eight features.

    Args:
        then: a sample of each feature's values; the figure has the features of both, in this order.
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
    figure.suptitle("Share of values up to each value", x=0.01, ha="left", fontsize=11)
    return figure


@styled
def shares(table: pd.DataFrame, name: str) -> Figure:
    """The share of each category then and now, the largest changes first.

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
    few = f", the {len(rows)} largest changes of {len(table)}" if len(table) > len(rows) else ""
    axes.set_title(f"Shares of {name}{few}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
