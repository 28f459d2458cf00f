"""Figures of generated drawings."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int16, Int32
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ostinato.evaluation.figures import BLUE, GREEN, GREY, RED, WIDTH, styled
from ostinato.generation.evaluation import (
    HALF,
    Examples,
    Generator,
    complete,
    reconstruct,
    some_of,
)
from ostinato.generation.formats.drawings import fitted, prefix, strokes_of
from ostinato.generation.formats.latent import spherical
from ostinato.generation.formats.svg import to_svg
from ostinato.generation.metrics import nearest

Rows = Int16[np.ndarray, "_ 3"]
COLUMNS = 6  # of a figure of pairs
STEPS = 7  # between two drawings
REPLAY_SECONDS = 4.0


def draw(
    predictor: Generator,
    classes: Sequence[str],
    train: Examples,
    test: Examples,
    temperature: float,
    labels: Int32[np.ndarray, " sample"],
    samples: Mapping[float, list[Rows]],
    by_temperature: pd.DataFrame,
    completion_table: pd.DataFrame,
    real: float | None,
    seed: int,
    count: int,
) -> dict[str, Figure | str]:
    """All figures of an evaluation.

    Args:
        predictor: the generator.
        classes: their names.
        train: the drawings that it has learned from.
        test: the test drawings.
        temperature: the chosen one.
        labels: of the samples.
        samples: by temperature.
        by_temperature: see `ostinato.generation.evaluation.temperature_table`.
        completion_table: see `ostinato.generation.evaluation.completion_table`.
        real: fraction of the test drawings that is recognised.
        seed: of the choice of classes and drawings.
        count: number of classes or drawings in a figure.
    """
    random = np.random.default_rng([seed, 1])
    shown = np.sort(random.permutation(len(classes))[:count])
    some = some_of(test, np.sort(random.permutation(len(test))[:count]))
    names = [classes[label] for label in some.labels]
    ours = samples[temperature]
    first = [int(np.flatnonzero(labels == label)[0]) for label in shown]
    twice = min(2, int((labels == 0).sum()))  # samples of a class at each temperature
    found: dict[str, Figure | str] = {
        "samples": grid(
            [[each[k + i] for each in samples.values() for i in range(twice)] for k in first],
            [classes[label] for label in shown],
            [f"{heat:g}" if i == 0 else "" for heat in samples for i in range(twice)],
            "Samples by class and temperature",
        ),
        "temperature": by_temperature_figure(by_temperature, temperature, real),
    }
    completed = complete(predictor, some, temperature, HALF)
    begun = [prefix(rows, HALF) for rows in some]
    found["completions"] = pairs(
        list(some), completed, names, "Test drawings (grey) and completions from half of them",
        begun=begun,
    )  # fmt: skip
    if predictor.latent_size:
        again = reconstruct(predictor, some, temperature)
        title = "Test drawings (grey) and their reconstructions"
        found["reconstructions"] = pairs(list(some), again, names, title)
        found["interpolations"] = interpolations(predictor, some, names, temperature)
    if len(completion_table):
        found["completion"] = completion(completion_table, real)
    picked = [i for i in random.permutation(len(labels)).tolist() if len(ours[i]) > 1][:count]
    index, _ = nearest([ours[i] for i in picked], labels[picked], train, train.labels)
    found["neighbours"] = pairs(
        [train[i] if i >= 0 else np.zeros((0, 3), np.int16) for i in index.tolist()],
        [ours[i] for i in picked],
        [classes[labels[i]] for i in picked],
        "Samples, and the nearest training drawing of the class (grey)",
    )
    longest = max(picked, key=lambda i: len(ours[i]), default=None)
    sample = fitted(ours[longest]) if longest is not None else np.zeros((0, 3), np.int16)
    found["replay"] = to_svg(strokes_of(sample), animate_seconds=REPLAY_SECONDS)
    return found


def interpolations(
    predictor: Generator, some: Examples, names: Sequence[str], temperature: float
) -> Figure:
    """What lies between pairs of test drawings: on the arc between their latent vectors.

    The class that the decoder is told is that of the nearer drawing.
    """
    latent = predictor.encode(list(some), some.labels)
    ends = [(i, i + 1) for i in range(0, len(some) - 1, 2)]
    shares = np.linspace(0, 1, STEPS)
    vectors = [spherical(latent[i], latent[j], shares) for i, j in ends]
    labels = [np.where(shares < 0.5, some.labels[i], some.labels[j]) for i, j in ends]
    drawn: list[Rows] = []
    if ends:
        total = STEPS * len(ends)
        # One seed: only the latent vector changes within a row.
        drawn = predictor.draw(
            np.concatenate(labels), [0] * total, np.full(total, temperature),
            latent=np.concatenate(vectors),
        )  # fmt: skip
    rows = [
        [some[i], *drawn[STEPS * k : STEPS * (k + 1)], some[j]] for k, (i, j) in enumerate(ends)
    ]
    columns = ["test drawing", *(f"{share:.0%}" for share in shares), "test drawing"]
    titles = [f"{names[i]},\n{names[j]}" for i, j in ends]
    return grid(rows, titles, columns, "Between two test drawings", grey=(0, STEPS + 1))


@styled
def by_temperature_figure(table: pd.DataFrame, chosen: float, real: float | None) -> Figure:
    """Recognition, and diversity and novelty, by temperature.

    Args:
        table: columns temperature, samples, reconstructions, diversity, novelty.
        chosen: the temperature that is marked.
        real: fraction of the test drawings that is recognised.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    left, right = figure.subplots(1, 2)
    for axes, columns in (
        (left, ("samples", "reconstructions")),
        (right, ("diversity", "novelty")),
    ):
        for column, marker in zip(columns, "os", strict=True):
            if table[column].notna().any():
                axes.plot(table["temperature"], table[column], f"{marker}-", label=column)
        axes.axvline(chosen, color=GREY, lw=1, ls=":", label="chosen temperature")
        axes.set(xlabel="Temperature")
    if real is not None:
        left.axhline(real, color=GREY, lw=1, ls="--", label="test drawings")
    left.set(ylabel="Recognised", ylim=(-0.02, 1.02), title="Recognition")
    left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.axhline(1, color=GREY, lw=1, ls="--", label="test drawings")
    right.set(ylabel="Relative to test drawings", title="Variety of samples")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.legend(fontsize=8.5)
    return figure


@styled
def completion(table: pd.DataFrame, real: float | None) -> Figure:
    """Recognition of drawings before and after completion, by the part that is given."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.plot(table["fraction"], table["unfinished"], "s--", color=RED, label="unfinished")
    axes.plot(table["fraction"], table["completed"], "o-", color=BLUE, label="completed")
    if real is not None:
        axes.axhline(real, color=GREY, lw=1, ls=":", label="whole test drawings")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="Points that are given", ylabel="Recognised")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Recognition of completions")
    axes.legend(loc="lower right")
    return figure


def pairs(
    originals: Sequence[Rows],
    drawn: Sequence[Rows],
    names: Sequence[str],
    title: str,
    begun: Sequence[Rows] | None = None,
) -> Figure:
    """Originals in grey, each above another drawing, with the class on top."""
    rows: list[list[Rows]] = []
    captions: list[list[str]] = []
    given: list[list[int]] = []
    for start in range(0, len(originals), COLUMNS):
        part = slice(start, start + COLUMNS)
        rows += [list(originals[part]), list(drawn[part])]
        captions += [list(names[part]), []]
        given += [[], [len(each) for each in begun[part]] if begun is not None else []]
    return grid(rows, [], [], title, grey_rows=True, captions=captions, given=given)


@styled
def grid(
    rows: Sequence[Sequence[Rows]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    title: str,
    *,
    grey: Sequence[int] = (),
    grey_rows: bool = False,
    captions: Sequence[Sequence[str]] = (),
    given: Sequence[Sequence[int]] = (),
) -> Figure:
    """Drawings in rows and columns.

    Args:
        rows: of drawings.
        row_titles: at the left.
        column_titles: at the top.
        title: of the figure.
        grey: columns that are drawn in grey.
        grey_rows: whether every other row is drawn in grey, from the first one.
        captions: above each drawing.
        given: number of points that were given: what follows has another colour.
    """
    columns = max([len(row) for row in rows] + [len(column_titles), 1])
    cell = min(1.3, WIDTH / (columns + bool(row_titles)))
    extra = 0.22 * len(captions) / 2
    figure = Figure(figsize=(WIDTH, 0.6 + max(1, len(rows)) * cell + extra))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    all_axes = figure.subplots(max(1, len(rows)), columns, squeeze=False)
    for axes in all_axes.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal")
    for number, row in enumerate(rows):
        if row_titles:
            label = all_axes[number, 0]
            label.set_ylabel(row_titles[number], rotation=0, ha="right", va="center", fontsize=8.5)
        for column, drawing in enumerate(row):
            axes = all_axes[number, column]
            faint = column in grey or (grey_rows and number % 2 == 0)
            marks = given[number] if number < len(given) else ()
            _strokes(axes, drawing, GREY if faint else "black", marks[column] if marks else None)
            if number < len(captions) and captions[number]:
                axes.set_title(captions[number][column], fontsize=8.5, loc="center")
    for column, text in enumerate(column_titles[:columns]):
        all_axes[0, column].set_title(text, fontsize=8.5, loc="center")
    return figure


def _strokes(axes: Axes, drawing: Rows, colour: str, given: int | None) -> None:
    """Draw a drawing; what comes after the given points is green."""
    if not len(drawing):
        axes.text(0.5, 0.5, "empty", ha="center", va="center", color=GREY, fontsize=8)
        return
    points = np.cumsum(drawing[:, :2], axis=0, dtype=np.float64)
    lifts, parts = drawing[:, 2] > 0, [(0, len(drawing), colour)]
    if given is not None:
        after = given if given and lifts[given - 1] else max(given - 1, 0)
        parts = [(0, given, colour), (after, len(drawing), GREEN)]
    for start, end, shade in parts:
        lines = np.split(points[start:end], np.flatnonzero(lifts[start : end - 1]) + 1)
        # A line of one point is a dot.
        axes.add_collection(LineCollection([line if len(line) > 1 else np.repeat(line, 2, axis=0)
                                            for line in lines if len(line)], colors=shade,
                                           linewidths=1.3, capstyle="round",
                                           joinstyle="round"))  # fmt: skip
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    half = max(float(np.ptp(points, axis=0).max()) * 0.55, 1.0)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half))
