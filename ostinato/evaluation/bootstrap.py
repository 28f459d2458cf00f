"""TODO."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

CHUNK = 1 << 22  # counts held at once while resampling


def bootstrap(
    values: ArrayLike, resamples: int, seed: int, clusters: ArrayLike | None = None
) -> Array:
    """Means of ``resamples`` bootstrap samples of ``values`` (example,), float64 (resample,).

    Drawing n of n examples with replacement draws how often each distinct value occurs, from a
    multinomial: the same distribution, but accuracies (two values) cost a few draws a resample
    instead of n, and the order of the examples cannot matter (Efron & Tibshirani 1993).

    Args:
        values: of the examples.
        resamples: how many samples.
        seed: of the resampling.
        clusters: a number for each example (example,): those with the same number are drawn
            together, as they are not independent. Where a cluster is a stretch of time this is the
            block bootstrap of Carlstein (1986). None: each example stands alone.

    Raises:
        ValueError: there are no values, or all are of one cluster.
    """
    x, random = np.asarray(values, np.float64), np.random.default_rng(seed)
    if not len(x):
        raise ValueError("bootstrap: no values to resample")
    if clusters is None:
        sums, often = np.unique(x, return_counts=True)
        sizes: Array = np.ones(len(sums))
    else:
        _, place = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.bincount(place, x).astype(np.float64)
        sizes = np.bincount(place).astype(np.float64)
        often = np.ones(len(sums), np.int64)
        if len(sums) < 2:
            raise ValueError("bootstrap: all examples are of one cluster; nothing varies")
    n, rows = int(often.sum()), max(1, CHUNK // len(sums))
    parts = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    drawn = (random.multinomial(n, often / n, part) for part in parts)
    return np.concatenate([draw @ sums / (draw @ sizes) for draw in drawn])


def interval(means: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap means that holds ``level`` of them: (low, high)."""
    low, high = np.quantile(np.asarray(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_bootstrap(
    one: ArrayLike,
    other: ArrayLike,
    resamples: int,
    seed: int,
    clusters: ArrayLike | None = None,
) -> Array:
    """Bootstrap means of the difference ``one - other`` of two runs on the same examples.

    Pairing takes out how hard the examples are, which is most of the variance (Koehn 2004, ACL
    W04-3250). An ``interval`` of it that excludes 0 tells the runs apart.

    Args:
        one: a value for each example (example,), such as whether its prediction was right.
        other: the same examples' values, in the same order.
        resamples: how many bootstrap samples.
        seed: of the resampling.
        clusters: examples that are drawn together, as `bootstrap` takes them.

    Raises:
        ValueError: the runs have different numbers of examples, or none.
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired_bootstrap: {len(a)} examples against {len(b)}; pair them by key")
    return bootstrap(a - b, resamples, seed, clusters)
