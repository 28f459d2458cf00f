"""Figures of translation: BLEU by length, and attention."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from ostinato.evaluation.figures import BLUE, WIDTH, styled


class Alignment(NamedTuple):
    """The attention of a translation.

    Attributes:
        attention: (token, source token), 0 to 1.
        tokens: of the translation.
        source_tokens: of the source.
    """

    attention: Float[np.ndarray, "token source"]
    tokens: list[str]
    source_tokens: list[str]


@styled
def bleu_by_length(table: pd.DataFrame) -> Figure:
    """BLEU by source length, with 95% intervals.

    Args:
        table: columns shortest, longest (tokens), sentences, bleu, low, high.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    x = np.arange(len(table))
    error = [table["bleu"] - table["low"], table["high"] - table["bleu"]]
    axes.errorbar(x, table["bleu"], np.maximum(error, 0), fmt="o", color=BLUE, capsize=3)
    bins = zip(table["shortest"], table["longest"], table["sentences"], strict=True)
    names = [f"{a}\n({n:,})" if a == b else f"{a} to {b}\n({n:,})" for a, b, n in bins]
    axes.set_xticks(x, names)
    axes.set(
        xlabel="Tokens of the source (sentences)", ylabel="BLEU", xlim=(-0.5, len(table) - 0.5)
    )
    axes.set_ylim(bottom=0)
    axes.set_title("BLEU by length of the source")
    return figure


@styled
def alignments(maps: Sequence[Alignment], title: str) -> Figure:
    """The attention of each token of a translation, a panel for each sentence.

    Args:
        maps: at least one.
        title: of the figure.
    """
    rows = -(-len(maps) // 2)
    longest = max(len(alignment.tokens) for alignment in maps)
    figure = Figure(figsize=(WIDTH, rows * (0.14 * longest + 1.2) + 0.4))
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    for axes, alignment in zip(panels, maps, strict=False):
        axes.imshow(alignment.attention, vmin=0, vmax=1, aspect="auto")
        source, tokens = _labels(alignment.source_tokens), _labels(alignment.tokens)
        axes.set_xticks(range(len(source)), source, rotation=90, fontsize=7)
        axes.set_yticks(range(len(tokens)), tokens, fontsize=7)
        axes.tick_params(length=0)
        axes.grid(visible=False)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _labels(pieces: list[str]) -> list[str]:
    """Pieces with visible spaces, and without matplotlib's mathematical mode."""
    return [piece.replace("\u2581", "_").replace("$", r"\$") for piece in pieces]
