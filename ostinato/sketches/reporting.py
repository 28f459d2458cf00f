"""What report.md says of recognised drawings."""

from collections.abc import Mapping
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
    "MAP@3": "map3",
    "Log loss": "log_loss",
    "Calibration error": "calibration_error",
}
EXAMPLES = "examples"
# Models without recurrence: what the recurrent ones have to beat.
BASELINES = ("bitmap_cnn", "nearest")
OTHERS = "recurrent run"
AGAINST_THE_BEST = False
FIGURES = {  # of the best run, in this order, where they are there
    "learning_curves": "Learning curves",
    "confusion": "What is taken for what",
    "mistakes": "The surest mistakes",
    "progress": "Recognised while being drawn",
    "calibration": "Confidence against accuracy",
    "per_class": "Each class",
}
LEGEND = """\
Top-1, top-5: share of the test examples whose class is the first, among the first five. In
brackets: 95% interval (bootstrap over test examples). MAP@3: mean of 1/rank, 0 beyond 3. Log loss
in nats. Calibration error: mean gap between confidence and accuracy. Training: wall time of all
epochs. Inference: milliseconds an example, one by one / in batches. Times are this machine's.
"""


def number(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def answers(arrays: Mapping[str, Array]) -> pd.DataFrame:
    """1 where a run's prediction was right, 0 where not, by the example's key."""
    return pd.DataFrame({"right": arrays["rank"] == 1}, arrays["keys"], dtype=float)


def gain(
    ours: pd.DataFrame, theirs: pd.DataFrame, block: Mapping[str, Any], seed: int
) -> tuple[float, float, float]:
    """How much more often we are right on the same examples, with its 95% interval."""
    one, other = ours["right"].to_numpy(), theirs["right"].to_numpy()
    means = bootstrap.paired_bootstrap(one, other, block["resamples"], seed)
    return float(np.mean(one - other)), *bootstrap.interval(means)
