"""TODO."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ostinato.evaluation.figures import BLUE, WIDTH, styled


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
