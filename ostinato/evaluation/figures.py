"""Figures of results that all domains share, as ``matplotlib.figure.Figure`` objects.

Figures use no pyplot and no global state: the same data give the same figure, and
``store.write_figure`` writes it with the same bytes. Sizes suit a page about 800 px wide. Colours
are those of Okabe and Ito (2008), which are distinguishable for colour-blind readers; no
information is given by colour alone.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

P = ParamSpec("P")

BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#767676",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, GREY)
WIDTH = 8.0  # inches, of every figure
MAX_CLASSES = 26  # that are shown one by one
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
    """Draw with the project's style on top of matplotlib's defaults, and restore the settings."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # creates the ticks while the style is active
            figure.set_layout_engine("none")  # the layout is done: do not repeat it when saving
        return figure

    return inner


@styled
def learning_curves(history: pd.DataFrame, best: int | None) -> Figure:
    """Loss, all metrics with a ``validation_`` column, and the learning rate, by epoch.

    Args:
        history: a row for each epoch: epoch, loss, validation_loss, learning_rate, ...
        best: the epoch whose weights were kept, which is marked; None: no mark.

    Raises:
        ValueError: there is no ``validation_`` column of another column.
    """
    columns = [str(name) for name in history]
    names = [name for name in columns if f"validation_{name}" in columns]
    if not names:
        raise ValueError(
            f"expected a column and its validation_ column, found {', '.join(columns)}"
        )
    bottom_row = ["learning_rate"] if "learning_rate" in columns else []
    figure = Figure(figsize=(WIDTH, 3.6 + 1.3 * len(bottom_row)))
    mosaic: Any = [names, bottom_row * len(names)][: 1 + len(bottom_row)]
    panels = figure.subplot_mosaic(mosaic, height_ratios=[3.5, 1][: len(mosaic)])
    x = history["epoch"].to_numpy()
    marker = "o" if len(x) <= 40 else ""
    for name in names:
        axes, validation = panels[name], history[f"validation_{name}"].to_numpy()
        title = name.replace("_", " ").capitalize()
        axes.plot(x, history[name], "--", color=BLUE, marker=marker, ms=3, label="training")
        axes.plot(x, validation, color=RED, marker=marker, ms=3, label="validation")
        if best is not None:
            value = validation[x == best].item()
            axes.plot(best, value, "*", color=RED, ms=13, label="best epoch")
            title += f", validation {value:.3g} at epoch {best}"
        axes.set_title(title)
    for name in bottom_row:
        panels[name].plot(x, history[name], color=GREY, marker=marker, ms=3)
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
def confusion(counts: Integer[np.ndarray, "class class"], classes: Sequence[str]) -> Figure:
    """The confusion matrix, or of many classes the most confused ones.

    Args:
        counts: of `classification.confusion_matrix`.
        classes: their names.
    """
    matrix = counts
    wrong = matrix * (1 - np.eye(len(classes), dtype=matrix.dtype))
    pairs = [
        divmod(int(cell), len(classes))
        for cell in np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    ]
    if len(classes) <= MAX_CLASSES:
        figure = Figure(figsize=(WIDTH, 1.4 + 0.27 * max(len(classes), 8)))
        axes = figure.subplots()
        _matrix(axes, matrix, classes, list(range(len(classes))))
        axes.set_title("Predictions for each class, % of its examples")
        return figure
    # The classes of the most confused pairs. Each row still counts all predictions.
    confused = dict.fromkeys(cls for pair in pairs for cls in pair)
    chosen = sorted(list(confused)[:MAX_CLASSES]) or list(range(MAX_CLASSES))
    figure = Figure(figsize=(WIDTH, 13.2))
    top, bottom = figure.subplots(2, 1, height_ratios=[8, 5])
    _matrix(top, matrix, classes, chosen)
    note = "the most confused" if pairs else "none confused"
    top.set_title(f"{len(chosen)} of {len(classes)} classes, {note}, % of examples")
    shown = pairs[:20]
    names = [f"{classes[t]} as {classes[p]}" for t, p in shown]
    values = [int(matrix[t, p]) for t, p in shown]
    notes = [
        f"{matrix[t, p]} of {matrix[t].sum()}  (reverse {matrix[p, t]} of {matrix[p].sum()})"
        for t, p in shown
    ]
    bars(bottom, names, values, notes)
    share = sum(values) / max(1, int(wrong.sum()))
    bottom.set_title(f"Most frequent errors, {share:.0%} of all {int(wrong.sum()):,}")
    bottom.set_xlim(right=1.9 * max(values, default=1))
    bottom.set_xlabel("Examples")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def calibration(table: pd.DataFrame, error: float) -> Figure:
    """Reliability diagram: accuracy and number of examples by bin of confidence.

    Args:
        table: of `classification.reliability`.
        error: the expected calibration error, for the title.
    """
    low, high, samples = (table[name].to_numpy() for name in ("low", "high", "samples"))
    confidence, accuracy = (table[name].to_numpy() for name in ("confidence", "accuracy"))
    figure = Figure(figsize=(WIDTH, 5.4))
    top, bottom = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    top.bar(low, accuracy, high - low, align="edge", color=SKY, edgecolor="white", label="accuracy")
    top.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    top.plot(confidence, accuracy, "o", color=BLUE, label="mean confidence of the bin")
    lower, upper = np.minimum(confidence, accuracy), np.maximum(confidence, accuracy)
    top.vlines(confidence, lower, upper, color=RED, lw=2, label="gap")
    top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="Accuracy")
    gap = np.nansum((confidence - accuracy) * samples)
    kind = "overconfident" if gap > 0 else "underconfident"
    top.set_title(f"Calibration: expected error {error:.3f}, mostly {kind}")
    top.legend(loc="upper left")
    bottom.bar(low, samples / samples.sum(), high - low, align="edge", color=GREY,
               edgecolor="white")  # fmt: skip
    bottom.set(xlabel="Confidence (probability of the predicted class)", ylabel="Examples")
    bottom.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """F1, precision and recall of each class, best first; of many classes the best and the worst.

    Args:
        table: columns class, support, precision, recall, f1.
    """
    rows = _records(table[table["f1"].notna()], "f1", "class")
    title = f"F1 of each of {len(rows)} classes (examples), best first"
    if len(rows) > 2 * MAX_CLASSES:
        title = f"The {MAX_CLASSES} best and worst of {len(rows)} classes (examples) by F1"
        rows = rows[:MAX_CLASSES] + rows[-MAX_CLASSES:]
    half = -(-len(rows) // 2)
    figure = Figure(figsize=(WIDTH, 1.4 + 0.25 * max(half, 4)))
    columns = figure.subplots(1, 2, sharex=True)
    for axes, part in zip(columns, (rows[:half], rows[half:]), strict=True):
        names = [f"{row['class']} ({row['support']:,})" for row in part]
        bars(axes, names, [row["f1"] for row in part], [])
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
    """The runs' values of a metric with 95% confidence intervals, best first.

    Args:
        runs: columns run, score, low, high.
        name: of the metric.
        lower: whether lower values are better.
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
    axes.set_title(f"{name[:1].upper()}{name[1:]} by run, with 95% confidence interval")
    return figure


def _records(
    table: pd.DataFrame, score: str, name: str, lower: bool = False
) -> list[dict[Any, Any]]:
    """The rows, best score first, ties by name."""
    return table.sort_values([score, name], ascending=[lower, True]).to_dict("records")


def _bounds(row: dict[Any, Any]) -> list[list[float]]:
    """The lengths of a row's interval below and above its score, as errorbar takes them."""
    return [[row["score"] - row["low"]], [row["high"] - row["score"]]]


def _matrix(
    axes: Axes,
    matrix: Integer[np.ndarray, "class class"],
    classes: Sequence[str],
    chosen: list[int],
) -> None:
    """Draw rows and columns of a confusion matrix in %, and a column of all other classes."""
    support = np.maximum(matrix[chosen].sum(axis=1, keepdims=True), 1)
    fractions = matrix[np.ix_(chosen, chosen)] / support
    columns = [classes[c] for c in chosen]
    if len(chosen) < len(classes):
        others = matrix[chosen].sum(axis=1, keepdims=True) / support - fractions.sum(
            1, keepdims=True
        )
        fractions = np.hstack([fractions, others])
        columns.append("all others")
    axes.imshow(fractions, vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(fractions >= 0.005), strict=True):
        fraction = fractions[row, column]
        axes.text(column, row, f"{100 * fraction:.0f}", ha="center", va="center", fontsize=7.5,
                  color="white" if fraction > 0.55 else "black")  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8.5)
    axes.set_yticks(range(len(chosen)), [classes[c] for c in chosen], fontsize=8.5)
    axes.set(xlabel="Predicted", ylabel="True")
    axes.grid(visible=False)
    axes.tick_params(length=0)


def bars(axes: Axes, names: Sequence[str], values: Sequence[float], notes: Sequence[str]) -> None:
    """Draw horizontal bars from the top down, each with a note to its right."""
    axes.barh(range(len(names)), values, color=SKY)
    for row, note in enumerate(notes):
        axes.annotate(note, (values[row], row), (4, 0), textcoords="offset points", va="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
