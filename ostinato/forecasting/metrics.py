"""TODO."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ostinato.evaluation.classification import Array


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
