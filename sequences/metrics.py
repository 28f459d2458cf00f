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

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = NDArray[Any]

SURE = float(np.finfo(np.float32).eps)  # least likelihood that a log is taken of
CHUNK = 1 << 22  # counts held at once while resampling


class ScoreError(ValueError):
    """A model that cannot be scored; the message says why."""


class Scores(NamedTuple):
    """What is known of a model after its test; all but ``speed`` repeats exactly."""

    metrics: dict[str, float]
    tables: dict[str, "pd.DataFrame"]
    figures: dict[str, "Figure"]
    arrays: dict[str, Array]
    speed: dict[str, float]  # milliseconds an example


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


def mae(truth: ArrayLike, forecast: ArrayLike, axis: int | None = None) -> Any:
    """Mean absolute error, over ``axis`` or all."""
    return np.nanmean(np.abs(np.asarray(truth) - np.asarray(forecast)), axis=axis)


def rmse(truth: ArrayLike, forecast: ArrayLike, axis: int | None = None) -> Any:
    """Root of the mean squared error, over ``axis`` or all."""
    return np.sqrt(np.nanmean((np.asarray(truth) - np.asarray(forecast)) ** 2, axis=axis))


def smape(truth: ArrayLike, forecast: ArrayLike, axis: int | None = None) -> Any:
    """Symmetric mean absolute percentage error, 0 to 200, as in M4 (Makridakis et al. 2020).

    0 where truth and forecast are both 0.
    """
    t, f = np.asarray(truth, np.float64), np.asarray(forecast, np.float64)
    size = np.abs(t) + np.abs(f)
    return np.nanmean(200 * np.abs(t - f) / np.where(size == 0, 1, size), axis=axis)


def naive_scale(history: ArrayLike, season: int) -> float:
    """What MASE divides by: the mean absolute change over a season, NaN in too short a history."""
    past = np.asarray(history, np.float64)
    return float(np.abs(past[season:] - past[:-season]).mean()) if len(past) > season else np.nan


def pinball(truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> Array:
    """Quantile loss: (...) and (..., quantile) to (..., quantile) (Koenker & Bassett 1978)."""
    over = np.asarray(truth)[..., None] - np.asarray(quantiles)
    return np.asarray(np.maximum(np.asarray(levels) * over, (np.asarray(levels) - 1) * over))


def levels(count: int) -> Array:
    """The levels of ``count`` quantiles, float64: the middles of as many equal parts of [0, 1].

    The mean pinball loss at them is half the continuous ranked probability score of the
    distribution that puts equal weights on the quantiles (Dabney et al. 2017, arXiv 1710.10044).
    One quantile is the median.
    """
    return (np.arange(count) + 0.5) / count


def quantile(quantiles: ArrayLike, level: float) -> Array:
    """The quantile at any level from those at ``levels``: (..., quantile) to (...).

    On a line between two neighbours; beyond the outermost, that one.
    """
    q = np.asarray(quantiles)
    place = np.clip(level * q.shape[-1] - 0.5, 0, q.shape[-1] - 1)
    low, share = int(place), place - int(place)
    high = min(low + 1, q.shape[-1] - 1)
    return np.asarray((1 - share) * q[..., low] + share * q[..., high])


def weighted_quantile_loss(truth: ArrayLike, quantiles: ArrayLike) -> float:
    """Mean over ``levels`` of twice the summed pinball loss over the summed size of the truth."""
    t, q = np.asarray(truth), np.asarray(quantiles)
    loss = 2 * np.nansum(pinball(t, q, levels(q.shape[-1])).reshape(-1, q.shape[-1]), axis=0)
    return float((loss / np.nansum(np.abs(t))).mean())


def coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike, axis: int | None = None) -> Any:
    """The share of truths within [low, high], over ``axis`` or all."""
    t = np.asarray(truth)
    inside = ((t >= np.asarray(low)) & (t <= np.asarray(high))).astype(float)
    return np.nanmean(np.where(np.isnan(t), np.nan, inside), axis=axis)


def conformal(excess: ArrayLike, level: float) -> Array:
    """How far intervals must be moved out to hold ``level`` of the truths to come.

    Conformalised quantile regression (Romano, Patterson & Candes 2019, arXiv 1905.03222), for
    each step of the horizon: the ceil((n + 1) level)-th smallest excess of n windows, or the
    largest. Negative where the intervals were too wide.

    Args:
        excess: how far each truth of the calibration lies outside its interval, negative inside,
            (window, horizon), NaN where not measured.
        level: share of the truths that the intervals shall hold.
    """
    ordered = np.sort(np.asarray(excess, np.float64), axis=0)  # NaN comes last
    count = (~np.isnan(ordered)).sum(axis=0)
    place = np.clip(np.ceil((count + 1) * level).astype(int), 1, np.maximum(count, 1)) - 1
    return np.asarray(np.take_along_axis(ordered, place[None], axis=0)[0])


def naive2(history: ArrayLike, season: int, horizon: int) -> Array:
    """M4's benchmark: the last value, after taking out a multiplicative season if there is one.

    The season is taken out where its autocorrelation is significant at 90% and all values are
    positive, by classical decomposition (Makridakis, Spiliotis & Assimakopoulos 2020).

    Returns:
        float64 (horizon,).
    """
    x = np.asarray(history, np.float64)
    n, index = len(x), np.ones(season)
    if season > 1 and n >= 3 * season and x.min() > 0 and np.ptp(x) > 0:
        centred = x - x.mean()
        lagged = [centred[k:] @ centred[: n - k] for k in range(1, season + 1)]
        correlation = np.array(lagged) / (centred @ centred)
        limit = 1.645 * np.sqrt((1 + 2 * (correlation[:-1] ** 2).sum()) / n)
        if abs(correlation[-1]) > limit:
            half = season // 2
            kernel = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
            trend = np.convolve(x, kernel / season, "valid")
            ratio = x[half : half + len(trend)] / trend
            phase = (np.arange(len(ratio)) + half) % season
            index = np.bincount(phase, ratio, season) / np.bincount(phase, minlength=season)
            index /= index.mean()
    last = x[-1] / index[(n - 1) % season]
    return np.asarray(last * index[(n + np.arange(horizon)) % season])


def diebold_mariano(one: ArrayLike, other: ArrayLike, lags: int) -> tuple[float, float, float]:
    """Whether two forecasts differ: Diebold and Mariano's test (1995) on paired losses in time.

    The long-run variance has Bartlett weights (Newey & West 1987), so that it cannot be negative;
    the statistic has the correction for few forecasts of Harvey, Leybourne and Newbold (1997).

    Args:
        one: losses of one forecast, in order of time (origin,).
        other: those of the other on the same origins.
        lags: neighbours that share errors: the horizon less one, 0 for independent losses.

    Returns:
        The mean of ``one - other``, its standard error with the correction, and the statistic, to
        be compared with a t distribution of n - 1 degrees of freedom. Without any difference the
        statistic is 0.
    """
    d = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    n, centred = len(d), d - d.mean()
    lags = min(lags, n - 1)
    variance = centred @ centred
    for k in range(1, lags + 1):
        variance += 2 * (1 - k / (lags + 1)) * (centred[k:] @ centred[:-k])
    h = lags + 1
    correction = (n + 1 - 2 * h + h * (h - 1) / n) / n
    error = float(np.sqrt(max(variance, 0.0) / n**2 / max(correction, 1 / n)))
    return float(d.mean()), error, float(d.mean() / error) if error > 0 else 0.0


def mean_in_time(losses: ArrayLike, keys: ArrayLike, horizon: int) -> tuple[float, float, float]:
    """`diebold_mariano` of losses, or of differences of losses, against 0.

    Windows of many series are first averaged at each time, as series share their weather. Where
    there are hardly more times than steps, as in a competition, the series count as independent.

    Args:
        losses: of windows (window,), NaN where nothing was measured.
        keys: ``series@time`` of the windows, str (window,).
        horizon: steps of a forecast: origins nearer to each other share errors.
    """
    values, names = np.asarray(losses, np.float64), np.asarray(keys, str)
    known = ~np.isnan(values)
    values, times = values[known], np.array([key.rpartition("@")[2] for key in names[known]])
    moments, place = np.unique(times, return_inverse=True)
    if len(moments) > 2 * horizon:
        means = np.bincount(place, values) / np.bincount(place)
        return diebold_mariano(means, np.zeros(len(means)), horizon - 1)
    return diebold_mariano(values, np.zeros(len(values)), 0)


def bleu_counts(texts: Sequence[str], truth: Sequence[str]) -> Array:
    """What BLEU counts in each sentence, int32 (sentence, 10), by sacreBLEU's defaults."""
    from sacrebleu.metrics import BLEU

    judge = BLEU(effective_order=True)  # says nothing of short sentences; counts are the same
    scores = [judge.sentence_score(a, [b]) for a, b in zip(texts, truth, strict=True)]
    rows = [(*s.counts, *s.totals, s.sys_len, s.ref_len) for s in scores]
    return np.array(rows, np.int32).reshape(-1, 10)


def bleu(counts: ArrayLike) -> float:
    """BLEU, 0 to 100, of the counts of a whole corpus (10,), as sacreBLEU smooths it by default."""
    from sacrebleu.metrics import BLEU

    row = np.asarray(counts).tolist()
    return float(BLEU.compute_bleu(row[:4], row[4:8], *row[8:], smooth_method="exp").score)


def resampled_bleu(counts: ArrayLike, resamples: int, seed: int) -> Array:
    """BLEU of bootstrap samples of the sentences, float64 (resample,), as sacreBLEU draws them.

    Runs on the same sentences, in the same order and with the same seed, are drawn in pairs: an
    ``interval`` of their difference that excludes 0 tells them apart (Koehn 2004, ACL W04-3250).

    Args:
        counts: of ``bleu_counts`` (sentence, count).
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: there are no sentences.
    """
    rows, random = np.asarray(counts, np.int64), np.random.default_rng(seed)
    if not len(rows):
        raise ValueError("resampled_bleu: no sentences to resample")
    drawn = (random.integers(len(rows), size=len(rows)) for _ in range(resamples))
    return np.array([bleu(np.bincount(at, minlength=len(rows)) @ rows) for at in drawn])
