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
    category_shift = matrix[np.ix_(chosen, chosen)] / support
    columns = [classes[c] for c in chosen]
    if len(chosen) < len(classes):
        others = matrix[chosen].sum(axis=1, keepdims=True) / support - category_shift.sum(
            1, keepdims=True
        )
        category_shift = np.hstack([category_shift, others])
        columns.append("all others")
    axes.imshow(category_shift, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(category_shift >= 0.005), strict=True):
        share = category_shift[row, column]
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
