"""Intervals of metrics and comparisons of models: one bootstrap, over clusters of examples.

The report and the promotion gate both ask `compare`, so they cannot disagree.
"""

import numpy as np
from jaxtyping import Float, Integer, Shaped

from ostinato.errors import EvaluationError
from ostinato.task import Comparison, Metric, PerExample

CHUNK = 1 << 22  # resampled counts held at once


def resample(
    statistics: Float[np.ndarray, "example k"],
    clusters: Integer[np.ndarray, " example"],
    *,
    resamples: int,
    seed: int,
) -> Float[np.ndarray, "resample k"]:
    """Sums of the statistics over bootstrap samples of the clusters.

    A sample draws as many clusters as there are, with replacement. Drawing how often each distinct
    row of sums occurs, from a multinomial, gives the same distribution; accuracies have few
    distinct rows, so they cost a few draws a sample (Efron & Tibshirani 1993). Where a cluster is
    a stretch of time this is the block bootstrap of Carlstein (1986).

    Args:
        statistics: of each example.
        clusters: a number for each example.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        EvaluationError: no example, or all examples are in one cluster.
    """
    if not len(statistics):
        raise EvaluationError("bootstrap: no examples to resample")
    _, index = np.unique(clusters, return_inverse=True)
    if index.max() == 0:
        raise EvaluationError("bootstrap: all examples are in one cluster; nothing varies")
    columns = [np.bincount(index, column) for column in statistics.T]
    rows, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    total, size = int(counts.sum()), max(1, CHUNK // len(rows))
    generator = np.random.default_rng(seed)
    parts = [min(size, resamples - start) for start in range(0, resamples, size)]
    draws = (generator.multinomial(total, counts / total, part) for part in parts)
    return np.concatenate([draw @ rows for draw in draws])


def interval(
    values: Float[np.ndarray, " resample"], confidence: float = 0.95
) -> tuple[float, float]:
    """The percentile interval (low, high) of bootstrap values; NaN where none is finite.

    Samples on which the metric is not defined are left out.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def metric_interval(
    results: PerExample, metric: Metric, *, resamples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The bootstrap confidence interval of a metric.

    Args:
        results: of one model.
        metric: one of the domain's.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        confidence: of the interval.
    """
    rows = results.statistics[metric.name]
    known = ~np.isnan(rows).any(axis=1)
    sums = resample(rows[known], results.clusters[known], resamples=resamples, seed=seed)
    return interval(metric.aggregate(sums), confidence)


def compare(
    ours: PerExample,
    theirs: PerExample,
    metric: Metric,
    *,
    resamples: int,
    seed: int,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two models on the examples that both have a value for, paired by key.

    Pairing removes how hard the examples are, which is most of the variance (Koehn 2004, ACL
    W04-3250). Both models are aggregated on the same bootstrap samples of clusters.

    Args:
        ours: the challenger; its clusters count.
        theirs: the opponent.
        metric: one of the domain's.
        resamples: number of bootstrap samples.
        seed: of the resampling.
        confidence: of the interval.

    Raises:
        EvaluationError: fewer than two clusters of examples have a value in both, or the metric is
            not defined on these examples.
    """
    _, mine, others = np.intersect1d(
        _distinct(ours.keys), _distinct(theirs.keys), return_indices=True
    )
    a, b = ours.statistics[metric.name][mine], theirs.statistics[metric.name][others]
    clusters = ours.clusters[mine]
    known = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
    if len(mine) and not known.any():
        raise EvaluationError(f"{metric.name}: no test example has a value in both models")
    if not known.any():
        raise EvaluationError(
            f"{metric.name}: the models have no test example in common; were they evaluated on "
            "the same data set?"
        )
    both, clusters = np.concatenate([a, b], axis=1)[known], clusters[known]
    sign, width = (1 if metric.higher_is_better else -1), a.shape[1]

    def difference(sums: Float[np.ndarray, "*rows k"]) -> Float[np.ndarray, "*rows"]:
        gained = metric.aggregate(sums[..., :width]) - metric.aggregate(sums[..., width:])
        return np.asarray(sign * gained)

    sums = resample(both, clusters, resamples=resamples, seed=seed)
    value = float(difference(both.sum(axis=0)))
    low, high = interval(difference(sums), confidence)
    if not np.isfinite([value, low, high]).all():
        raise EvaluationError(
            f"{metric.name}: is not defined on the {len(both):,} test examples of both models"
        )
    return Comparison(
        metric=metric.name,
        difference=value,
        low=low,
        high=high,
        confidence=confidence,
        examples=len(both),
        clusters=len(np.unique(clusters)),
    )


def _distinct(keys: Shaped[np.ndarray, " example"]) -> Shaped[np.ndarray, " example"]:
    """Keys with the number of their repetition: the n-th examples of a key are paired."""
    order = np.argsort(keys, kind="stable")
    ordered = np.asarray(keys)[order]
    starts = np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1]
    counts = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    repetition = np.empty(len(ordered), int)
    repetition[order] = counts
    return np.array([f"{key} {n}" for key, n in zip(keys, repetition, strict=True)])
