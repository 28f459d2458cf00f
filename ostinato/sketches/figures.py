"""TODO."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ostinato.evaluation.figures import BLUE, SKY, WIDTH, styled


@styled
def early_recognition(table: pd.DataFrame, samples: int) -> Figure:
    """Accuracy against how much of each sequence was seen, with 95% intervals.

    Args:
        table: columns share, top1, low, high.
        samples: how many ostinato.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.subplots()
    category_shift = table["share"].to_numpy()
    axes.fill_between(category_shift, table["low"], table["high"], color=SKY, alpha=0.35, lw=0,
                      label="95% interval")  # fmt: skip
    axes.plot(category_shift, table["top1"], "o-", color=BLUE, label="top-1 accuracy")
    for share, value in zip(category_shift, table["top1"], strict=True):
        axes.annotate(f"{value:.1%}", (share, value), (0, -15), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1.05), ylim=(-0.02, 1.02), xlabel="Points seen so far", ylabel="Accuracy")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"Recognised while being drawn ({samples:,} drawings)")
    axes.legend(loc="upper left")
    return figure
