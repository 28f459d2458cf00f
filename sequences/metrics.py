"""Scores of classifiers: ranks, likelihoods, calibration, confusion, intervals. numpy alone.

A score is taken in two steps: a model's output is reduced to a few numbers an example (``ranks``,
``likelihoods``, confidence and prediction), batch by batch, so that a million rows of
probabilities need not be held; then these are reduced to one number. Probabilities are
(example, class), truths and predictions class indices (example,).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

SURE = float(np.finfo(np.float32).eps)  # least likelihood that a log is taken of
CHUNK = 1 << 22  # counts held at once while resampling


def ranks(probabilities: ArrayLike, truth: ArrayLike) -> Array:
    """Rank of the true class by probability, int32 (example,), 1 for the first.

    A tie counts against the truth: every class at least as probable as it goes before it. So a
    model that gives all classes the same has rank ``class`` everywhere, and gets nothing for free.
    """
    p, t = np.asarray(probabilities), np.asarray(truth)
    return np.asarray((p >= p[np.arange(len(t)), t][:, None]).sum(axis=1), np.int32)


def likelihoods(probabilities: ArrayLike, truth: ArrayLike) -> Array:
    """Probability given to the true class, float64 (example,)."""
    p, t = np.asarray(probabilities), np.asarray(truth)
    return np.asarray(p[np.arange(len(t)), t], np.float64)


def top(rank: ArrayLike, k: int) -> float:
    """Top-k accuracy: the share of examples whose true class is among the first ``k``."""
    return float(np.mean(np.asarray(rank) <= k))


def mean_average_precision(rank: ArrayLike, k: int) -> float:
    """MAP@k with one right answer: mean of 1/rank, 0 beyond ``k`` (Kaggle's Quick, Draw! score)."""
    r = np.asarray(rank)
    return float(np.mean(np.where(r <= k, 1 / r, 0.0)))


def log_loss(likelihood: ArrayLike) -> float:
    """Mean of -log likelihood, in nats; likelihoods under float32's epsilon count as that."""
    return float(-np.log(np.maximum(np.asarray(likelihood, np.float64), SURE)).mean())


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int) -> dict[str, Array]:
    """The reliability table: what was claimed against what came true, a row for each bin.

    [0, 1] is cut into ``bins`` of equal width, open below and closed above, (low, high], as in
    Guo et al. 2017 (arXiv 1706.04599); confidence 0 is in the first.

    Returns:
        low, high: the bin's bounds; samples: how many examples; confidence, accuracy: their
        means, NaN in an empty bin.
    """
    c, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    where = np.digitize(c, edges[1:-1], right=True)
    samples = np.bincount(where, minlength=bins)
    some = np.where(samples, samples, np.nan)
    return {
        "low": edges[:-1],
        "high": edges[1:],
        "samples": samples,
        "confidence": np.bincount(where, c, bins) / some,
        "accuracy": np.bincount(where, right, bins) / some,
    }


def calibration_error(table: dict[str, Array]) -> float:
    """Expected calibration error of a reliability table (Guo et al. 2017, arXiv 1706.04599).

    The gap between mean confidence and accuracy, averaged over bins by their samples.
    """
    gap = np.abs(table["confidence"] - table["accuracy"])
    return float(np.nansum(gap * table["samples"]) / table["samples"].sum())


def confusion(truth: ArrayLike, prediction: ArrayLike, classes: int) -> Array:
    """How often each class (row) was taken for each (column), int64 (class, class)."""
    cells = np.asarray(truth, np.int64) * classes + np.asarray(prediction, np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(counts: ArrayLike) -> dict[str, Array]:
    """Support, precision, recall and F1 of each class, from ``confusion``.

    NaN where undefined: precision of a class never predicted, recall of one without examples, F1
    of one with neither. The nanmean of F1 is the macro F1 of scikit-learn.
    """
    matrix = np.asarray(counts)
    hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)

    def share(part: Array, whole: Array) -> Array:
        return np.asarray(part / np.where(whole, whole, np.nan))

    return {
        "support": support,
        "predicted": predicted,
        "precision": share(hits, predicted),
        "recall": share(hits, support),
        "f1": share(2 * hits, support + predicted),
    }


def bootstrap(values: ArrayLike, resamples: int, seed: int) -> Array:
    """Means of ``resamples`` bootstrap samples of ``values`` (example,), float64 (resample,).

    Drawing n of n examples with replacement draws how often each distinct value occurs, from a
    multinomial: the same distribution, but accuracies (two values) cost a few draws a resample
    instead of n, and the order of the examples cannot matter (Efron & Tibshirani 1993).

    Raises:
        ValueError: there are no values.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    if not len(distinct):
        raise ValueError("bootstrap: no values to resample")
    random, n = np.random.default_rng(seed), int(counts.sum())
    rows = max(1, CHUNK // len(distinct))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = [random.multinomial(n, counts / n, size) @ distinct / n for size in sizes]
    return np.concatenate(means)


def interval(means: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap means that holds ``level`` of them: (low, high)."""
    low, high = np.quantile(np.asarray(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(one: ArrayLike, other: ArrayLike, resamples: int, seed: int) -> Array:
    """Bootstrap means of the difference ``one - other`` of two runs on the same examples.

    Pairing takes out how hard the examples are, which is most of the variance (Koehn 2004, ACL
    W04-3250). An ``interval`` of it that excludes 0 tells the runs apart.

    Args:
        one: a value for each example (example,), such as whether its prediction was right.
        other: the same examples' values, in the same order.
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: the runs have different numbers of examples, or none.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired_bootstrap: {len(a)} examples against {len(b)}; pair them by key")
    return bootstrap(a - b, resamples, seed)
