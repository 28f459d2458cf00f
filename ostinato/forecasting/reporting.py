"""What report.md says of forecasts."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ostinato.forecasting import metrics

Array = NDArray[Any]

SCORE = "mae"
NAME = "MAE"
SPOKEN = "MAE"
AXIS = "mean absolute error"
GAIN = "less MAE"
LOWER_IS_BETTER = True
COLUMNS = {
    "RMSE": "rmse",
    "MASE": "mase",
    "sMAPE": "smape",
    "OWA": "owa",
    "Quantile loss": "weighted_quantile_loss",
    "80% held": "coverage_80",
    "80% width": "width_80",
    "95% held": "coverage_95",
    "95% width": "width_95",
}
EXAMPLES = "forecasts"
BASELINES = ("seasonal_naive", "linear")
OTHERS = "network"
AGAINST_THE_BEST = True  # the best network is a baseline of the others, too
FIGURES = {
    "learning_curves": "Learning curves",
    "forecasts": "Forecasts with their intervals over the truth",
    "horizon": "Error by step of the horizon",
    "coverage": "Promised and held coverage",
    "residuals": "Errors",
}
LEGEND = """\
MAE: mean absolute error over all origins and steps of the test range, in the units of the data; in
brackets its 95% interval (origins near each other share errors: Newey and West 1987). MASE: against
the seasonal naive error before the origin. OWA: mean of MASE and sMAPE, each against M4's Naive2.
Quantile loss: weighted, over all quantiles. Held: the share of truths within the calibrated
interval; width: its mean width. Training: wall time of all epochs. Inference: milliseconds a
forecast of the whole horizon, one by one / in batches. Times are this machine's.
"""


def number(value: float) -> str:
    """Four significant digits, and no exponent."""
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def answers(arrays: Mapping[str, Array]) -> pd.DataFrame:
    """Absolute errors of a run's predictions (window, step), by the window's key."""
    return pd.DataFrame(np.abs(arrays["truth"] - arrays["forecast"]), arrays["keys"])


def gain(
    ours: pd.DataFrame, theirs: pd.DataFrame, block: Mapping[str, Any], seed: int
) -> tuple[float, float, float]:
    """By how much our error is smaller on the same windows, with its 95% interval.

    The test of Diebold and Mariano: the interval excludes 0 where it tells them apart.
    """
    better = (theirs - ours).mean(axis=1)
    mean, error, _ = metrics.mean_in_time(better, better.index, ours.shape[1])
    return mean, mean - 1.96 * error, mean + 1.96 * error
