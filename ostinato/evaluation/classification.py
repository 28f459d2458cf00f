"""Scores of classifiers, forecasts and translations, and their intervals. numpy, and sacreBLEU.

Classifiers: ranks, likelihoods, calibration, confusion. A score is taken in two steps: a model's
output is reduced to a few numbers an example (``ranks``, ``likelihoods``, confidence and
prediction), batch by batch, so that a million rows of probabilities need not be held; then these
are reduced to one number. Probabilities are (example, class), truths and predictions class indices
(example,).

Forecasts: errors, also in proportion to those of simple forecasts; quantiles and the coverage of
intervals; the test of Diebold and Mariano. Truths and forecasts are (window, horizon); a truth
that is NaN was not measured and does not count.

Translations: BLEU from counts (sentence, count), so that it is resampled without reading the texts
again; a row is what sacreBLEU counts in a sentence: the n-grams that the reference has too, for n
from 1 to 4, all n-grams, the length of the text and that of the reference.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    pass

Array = NDArray[Any]

EPSILON = float(np.finfo(np.float32).eps)  # least likelihood that a log is taken of


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
    return float(-np.log(np.maximum(np.asarray(likelihood, np.float64), EPSILON)).mean())


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
