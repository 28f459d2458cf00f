"""Metrics of classifiers and their evaluation, shared by all domains that classify. NumPy only.

An evaluation has two steps. `collect` reduces the probabilities of each batch to a few numbers per
example: prediction, confidence, rank and likelihood of the true class. Metrics are then computed
from these numbers, so a million rows of probabilities need not be held in full precision.

Probabilities are (example, class); true and predicted classes are class indices (example,).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from ostinato.errors import EvaluationError
from ostinato.evaluation import comparison
from ostinato.task import Metric, PerExample, mean

if TYPE_CHECKING:
    import pandas as pd

EPSILON = float(np.finfo(np.float32).eps)
"""Lower bound of a likelihood in the log loss."""

TOP1 = Metric("top1", "Top-1 accuracy")
TOP5 = Metric("top5", "Top-5 accuracy")
MAP3 = Metric("map3", "MAP@3")
LOG_LOSS = Metric("log_loss", "Log loss", unit="nats", higher_is_better=False)
CALIBRATION_ERROR = Metric("calibration_error", "Calibration error", higher_is_better=False)
"""For reports only: a function of bins over the whole split, without statistics per example."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier for the examples of a split, in the stored order.

    Args:
        truth: true class of each example.
        prediction: most probable class.
        rank: rank of the true class, from 1: see `ranks`.
        confidence: probability of the predicted class.
        likelihood: probability of the true class.
        probabilities: of all classes.
    """

    truth: Integer[np.ndarray, " example"]
    prediction: Integer[np.ndarray, " example"]
    rank: Integer[np.ndarray, " example"]
    confidence: Float[np.ndarray, " example"]
    likelihood: Float[np.ndarray, " example"]
    probabilities: Float[np.ndarray, "example class"]

    @property
    def correct(self) -> Bool[np.ndarray, " example"]:
        """Whether the true class has rank 1."""
        return np.asarray(self.rank == 1)

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The arrays that `per_example` reads; probabilities in half precision."""
        return {
            "truth": self.truth,
            "rank": self.rank,
            "likelihood": self.likelihood,
            "probabilities": self.probabilities.astype(np.float16),
        }


def collect(
    batches: Iterable[tuple[Integer[np.ndarray, " batch"], Float[np.ndarray, "batch class"]]],
    truth: Integer[np.ndarray, " example"],
    num_classes: int,
    dtype: type[np.floating[Any]] = np.float16,
) -> Predictions:
    """Reduce batches of probabilities to `Predictions`.

    Args:
        batches: (rows, probabilities): rows are indices of the batch's examples into ``truth``.
            Together they contain each example once, in any order.
        truth: true class of each example.
        num_classes: number of classes.
        dtype: in which the probabilities are kept. All else is computed before the conversion.

    Raises:
        EvaluationError: an output is not a distribution over the classes.
    """
    size = len(truth)
    found = Predictions(
        truth,
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size),
        np.empty(size),
        np.empty((size, num_classes), dtype),
    )
    for rows, p in batches:
        check_probabilities(p, len(rows), num_classes)
        found.prediction[rows], found.confidence[rows] = p.argmax(axis=1), p.max(axis=1)
        found.rank[rows] = ranks(p, truth[rows])
        found.likelihood[rows] = likelihoods(p, truth[rows])
        found.probabilities[rows] = p
    return found


def check_probabilities(
    probabilities: Float[np.ndarray, "..."], batch: int, num_classes: int
) -> None:
    """Check that a model's output is a distribution over the classes for each example.

    Raises:
        EvaluationError: another shape than (batch, class), or rows that do not sum to 1 (within
            0.01, for half precision) or contain NaN.
    """
    if probabilities.shape != (batch, num_classes):
        raise EvaluationError(
            f"the model's output has shape {probabilities.shape}, expected {(batch, num_classes)} "
            "(batch, class)"
        )
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-2):  # also false for NaN
        raise EvaluationError(
            "the model's output is not a distribution over the classes: rows sum to "
            f"{sums.min():.3g} to {sums.max():.3g}, expected 1; did training diverge?"
        )


def ranks(
    probabilities: Float[np.ndarray, "example class"], truth: Integer[np.ndarray, " example"]
) -> Integer[np.ndarray, " example"]:
    """Rank of the true class by probability, int32, 1 for the most probable.

    Ties are resolved pessimistically: every class that is at least as probable as the true one
    ranks before it, so a constant predictor ranks the true class last.
    """
    of_truth = probabilities[np.arange(len(truth)), truth]
    return np.asarray((probabilities >= of_truth[:, None]).sum(axis=1), np.int32)


def likelihoods(
    probabilities: Float[np.ndarray, "example class"], truth: Integer[np.ndarray, " example"]
) -> Float[np.ndarray, " example"]:
    """Probability of the true class, float64."""
    return np.asarray(probabilities[np.arange(len(truth)), truth], np.float64)


def top_k_accuracy(rank: Integer[np.ndarray, " example"], k: int) -> float:
    """Share of examples whose true class is among the ``k`` most probable classes."""
    return float(np.mean(rank <= k))


def mean_average_precision(rank: Integer[np.ndarray, " example"], k: int) -> float:
    """MAP@k with one correct class: mean of 1/rank, 0 beyond ``k`` (Kaggle's Quick, Draw!)."""
    return float(np.mean(np.where(rank <= k, 1 / rank, 0.0)))


def log_loss(likelihood: Float[np.ndarray, " example"]) -> float:
    """Mean negative log-likelihood of the true class in nats; at most -log `EPSILON` each."""
    return float(-np.log(np.maximum(np.asarray(likelihood, np.float64), EPSILON)).mean())


def per_example(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    metrics: Iterable[str],
    clusters: Integer[np.ndarray, " example"] | None = None,
) -> PerExample:
    """The statistics (value, 1) of each example.

    Args:
        arrays: ``keys``, and those of `Predictions.arrays`.
        metrics: names of some of `TOP1`, `TOP5`, `MAP3`, `LOG_LOSS`.
        clusters: a number for each example; None: examples are independent.
    """
    rank = arrays["rank"]
    likelihood = np.asarray(arrays["likelihood"], np.float64)
    values = {
        TOP1.name: rank <= 1,
        TOP5.name: rank <= 5,
        MAP3.name: np.where(rank <= 3, 1 / rank, 0.0),
        LOG_LOSS.name: -np.log(np.maximum(likelihood, EPSILON)),
    }
    one = np.ones(len(rank))
    return PerExample(
        arrays["keys"],
        np.arange(len(rank)) if clusters is None else clusters,
        {name: np.stack([values[name].astype(np.float64), one], axis=1) for name in metrics},
    )


def mean_interval(
    values: Shaped[np.ndarray, " example"],
    *,
    resamples: int,
    seed: int,
    clusters: Integer[np.ndarray, " example"] | None = None,
) -> tuple[float, float]:
    """The bootstrap 95% confidence interval (low, high) of a mean, such as an accuracy.

    Args:
        values: of the examples, such as whether each is classified correctly.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        clusters: a number for each example; None: examples are independent.
    """
    rows = np.stack([values.astype(np.float64), np.ones(len(values))], axis=1)
    groups = np.arange(len(values)) if clusters is None else clusters
    return comparison.interval(
        mean(comparison.resample(rows, groups, resamples=resamples, seed=seed))
    )


def reliability(
    confidence: Float[np.ndarray, " example"], correct: Bool[np.ndarray, " example"], bins: int
) -> "pd.DataFrame":
    """The reliability table: mean confidence and accuracy in bins of confidence.

    [0, 1] is divided into ``bins`` intervals (low, high] of equal width (Guo et al. 2017, arXiv
    1706.04599); confidence 0 belongs to the first.

    Returns:
        A row for each bin: low, high; samples: its number of examples; confidence, accuracy: their
        means, NaN in an empty bin.
    """
    import pandas as pd

    c = np.asarray(confidence, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    index = np.digitize(c, edges[1:-1], right=True)
    samples = np.bincount(index, minlength=bins)
    divisor = np.where(samples, samples, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "samples": samples,
            "confidence": np.bincount(index, c, bins) / divisor,
            "accuracy": np.bincount(index, np.asarray(correct, np.float64), bins) / divisor,
        }
    )


def expected_calibration_error(table: "pd.DataFrame") -> float:
    """Expected calibration error of a `reliability` table (Guo et al. 2017, arXiv 1706.04599).

    The absolute difference of mean confidence and accuracy, averaged over bins by their samples.
    """
    confidence, accuracy, samples = (
        table[name].to_numpy() for name in ("confidence", "accuracy", "samples")
    )
    gap = np.abs(confidence - accuracy)
    return float(np.nansum(gap * samples) / samples.sum())


def confusion_matrix(
    truth: Integer[np.ndarray, " example"],
    prediction: Integer[np.ndarray, " example"],
    num_classes: int,
) -> Integer[np.ndarray, "class class"]:
    """The number of examples by true class (row) and predicted class (column), int64."""
    cells = truth.astype(np.int64) * num_classes + prediction.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_table(
    counts: Integer[np.ndarray, "class class"], classes: Sequence[str]
) -> "pd.DataFrame":
    """The cells of a confusion matrix that are not 0: truth, prediction, count."""
    import pandas as pd

    cells, names = np.nonzero(counts), np.asarray(classes)
    return pd.DataFrame(
        {"truth": names[cells[0]], "prediction": names[cells[1]], "count": counts[cells]}
    )


def per_class(counts: Integer[np.ndarray, "class class"], classes: Sequence[str]) -> "pd.DataFrame":
    """Support, number of predictions, precision, recall and F1 of each class.

    NaN where undefined: precision of a class that is never predicted, recall of a class without
    examples, F1 of a class with neither. The mean of F1 that ignores NaN is scikit-learn's macro
    F1.

    Args:
        counts: of `confusion_matrix`.
        classes: their names.

    Returns:
        A row for each class: class, support, predicted, precision, recall, f1.
    """
    import pandas as pd

    hits, support, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def ratio(
        part: Shaped[np.ndarray, " class"], whole: Shaped[np.ndarray, " class"]
    ) -> Float[np.ndarray, " class"]:
        return np.asarray(part / np.where(whole, whole, np.nan))

    return pd.DataFrame(
        {
            "class": list(classes),
            "support": support,
            "predicted": predicted,
            "precision": ratio(hits, predicted),
            "recall": ratio(hits, support),
            "f1": ratio(2 * hits, support + predicted),
        }
    )
