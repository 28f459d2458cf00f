"""What report.md says of recognised clips."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ostinato.evaluation import bootstrap

Array = NDArray[Any]

SCORE = "top1"
NAME = "Top-1"
SPOKEN = "top-1"
AXIS = "top-1 accuracy"
GAIN = "top-1"
LOWER_IS_BETTER = False
COLUMNS = {
    "Top-5": "top5",
    "Videos": "top1_video",
    "Log loss": "log_loss",
    "Frames shuffled": "top1_shuffled",
    "Lost": "time",
    "at least": "time_low",
    "at most": "time_high",
}
EXAMPLES = "clips"
BASELINES = ("single_frame", "cnn3d")
OTHERS = "challenger"
AGAINST_THE_BEST = False
FIGURES = {  # of the best run, in this order, where they are there
    "learning_curves": "Learning curves",
    "confusion": "What is taken for what",
    "wrong": "The surest mistakes",
    "right": "Recognised",
    "activation": "What speaks for the predicted class",
    "frames_seen": "Recognised after so many frames",
    "per_class": "Each class",
}
LEGEND = """\
Top-1, top-5: share of the test clips whose class is the first, among the first five. In brackets:
95% interval (bootstrap over test videos). Videos: top-1 of whole videos, by the mean over their
clips. Log loss in nats. Frames shuffled: top-1 where the frames of each clip stand in random order;
lost: how much less that is, with its 95% interval, that is how much a model uses time. Training:
wall time of all epochs. Inference: milliseconds a clip, one by one / in batches. Times are this
machine's.
"""


def number(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def answers(arrays: Mapping[str, Array]) -> pd.DataFrame:
    """1 where a run's prediction was right, 0 where not, and the video, by the clip's key."""
    right = (arrays["rank"] == 1).astype(float)
    return pd.DataFrame({"right": right, "video": arrays["videos"]}, arrays["keys"])


def gain(
    ours: pd.DataFrame, theirs: pd.DataFrame, block: Mapping[str, Any], seed: int
) -> tuple[float, float, float]:
    """How much more often we are right on the same clips, with its 95% interval.

    The clips of a video are drawn together: they share their luck.
    """
    one, other = ours["right"].to_numpy(), theirs["right"].to_numpy()
    means = bootstrap.paired_bootstrap(one, other, block["resamples"], seed, ours["video"])
    return float(np.mean(one - other)), *bootstrap.interval(means)


def beside(results: Mapping[str, Any], block: Mapping[str, Any], seed: int) -> Iterator[str]:
    """Runs of any domain that were tested on the same drawings, as strokes, bitmap or film.

    Args:
        results: those of all runs, by name: ``run``, ``answers`` by key.
        block: of the scores of this domain.
        seed: of resampling.
    """
    told = {name: result.answers for name, result in results.items()}
    told = {name: table for name, table in told.items() if "right" in table}
    sets: dict[frozenset[str], list[str]] = {}
    for name in told:
        if results[name].run["domain"] == "video":
            sets.setdefault(frozenset(told[name].index), []).append(name)
    for keys, names in sets.items():
        others = {
            name: both
            for name, table in told.items()
            if name not in names and (both := keys & frozenset(table.index))
        }
        if not others:
            continue
        shared = sorted(frozenset.intersection(*others.values()))
        right = {name: told[name].loc[shared, "right"].to_numpy() for name in (*others, *names)}
        order = sorted(right, key=lambda name: (-right[name].mean(), name))
        yield "## The same drawings as strokes, as bitmaps and as films\n"
        yield (
            f"All were tested on these {len(shared):,} drawings, and trained on none of them. The "
            f"difference from {order[0]}, the best, is paired; intervals hold 95%.\n"
        )
        yield "| Run | Model | Top-1 | Difference |"
        yield "|---|---|---:|---:|"
        for name in order:
            low, high = bootstrap.interval(
                bootstrap.bootstrap(right[name], block["resamples"], seed)
            )
            cells = f"{number(right[name].mean())} [{number(low)}, {number(high)}] | "
            if name != order[0]:
                means = bootstrap.paired_bootstrap(
                    right[name], right[order[0]], block["resamples"], seed
                )
                low, high = bootstrap.interval(means)
                mean = (right[name] - right[order[0]]).mean()
                cells += f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
            run = results[name].run
            yield f"| {name} | ostinato/{run['domain']}/{run['model']}.py | {cells} |"
        yield ""
