"""The metrics of memory tasks; each belongs to one kind of target and has no value for others."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Integer, Shaped

from ostinato.task import Metric, mean


def _root(sums: Float[np.ndarray, "*rows 2"]) -> Float[np.ndarray, "*rows"]:
    return np.asarray(np.sqrt(mean(sums)))


ACCURACY = Metric("accuracy", "Accuracy")
SQUARED_ERROR = Metric("squared_error", "Mean squared error", higher_is_better=False, format=".2e")
RMSE = Metric(
    "rmse", "Root mean squared error", higher_is_better=False, aggregate=_root, format=".2e"
)
NRMSE = Metric(
    "nrmse",
    "Root mean squared error, divided by the range",
    higher_is_better=False,
    aggregate=_root,
    format=".2e",
)
BIT_ERROR = Metric("bit_error", "Wrong bits", higher_is_better=False, format=".2%")
METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (ACCURACY, BIT_ERROR, SQUARED_ERROR, RMSE, NRMSE)
}
"""Every metric with statistics per example, for gates, intervals and comparisons."""
OF_TARGET = {
    "class": (ACCURACY,),
    "bits": (BIT_ERROR,),
    "number": (SQUARED_ERROR, RMSE, NRMSE),
}
"""The metrics of each kind of target."""


def statistics(
    target: str,
    truth: Shaped[np.ndarray, "example ..."],
    prediction: Float[np.ndarray, "example ..."],
) -> dict[str, Float[np.ndarray, "example 2"]]:
    """The statistics (sum, count) of all metrics, for each example.

    Args:
        target: class, number or bits.
        truth: classes (example,), or values (example, ..., output), NaN at steps without a target.
        prediction: probabilities (example, class), or values of the shape of the truth.
    """
    found = {name: np.full((len(truth), 2), np.nan) for name in METRICS}
    if target == "class":
        right = prediction.argmax(axis=-1) == truth
        found["accuracy"] = np.stack([right, np.ones(len(truth))], axis=1).astype(float)
        return found
    flat_truth = truth.reshape(len(truth), -1).astype(np.float64)
    flat = prediction.reshape(len(truth), -1).astype(np.float64)
    valid = ~np.isnan(flat_truth)
    count = valid.sum(axis=1)
    if target == "bits":
        wrong = valid & ((flat > 0.5) != (flat_truth > 0.5))
        found["bit_error"] = np.stack([wrong.sum(axis=1), count], axis=1).astype(float)
        return found
    squares = np.where(valid, flat - flat_truth, 0) ** 2
    width = float(np.nanmax(flat_truth) - np.nanmin(flat_truth)) or 1.0
    for name, scale in (("squared_error", 1.0), ("rmse", 1.0), ("nrmse", width**2)):
        found[name] = np.stack([squares.sum(axis=1) / scale, count], axis=1).astype(float)
    return found


def error(
    target: str,
    truth: Shaped[np.ndarray, "example ..."],
    prediction: Float[np.ndarray, "example ..."],
) -> float:
    """The error: fraction of wrong classes or bits, or the mean squared error."""
    metric = OF_TARGET[target][0]
    value = float(metric.aggregate(statistics(target, truth, prediction)[metric.name].sum(axis=0)))
    return 1 - value if metric.higher_is_better else value


def chance(target: str, truth: Shaped[np.ndarray, "example ..."]) -> float:
    """The error of the best constant answer.

    That is the most frequent class, the mean number, or each bit at random.
    """
    if target == "class":
        labels: Integer[np.ndarray, " example"] = truth
        return 1 - float(np.bincount(labels).max() / len(labels))
    if target == "bits":
        return 0.5
    return float(np.nanvar(truth.reshape(-1, truth.shape[-1]), axis=0).mean())
