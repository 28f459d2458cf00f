"""Metrics of forecasts: numeric functions, and `METRICS` with their directions and titles.

The functions take arrays of any shape; NaN in the truth is a value that was not measured, and is
left out.
"""

import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ostinato.task import Metric


def _root_mean(sums: Float[np.ndarray, "*rows 2"]) -> Float[np.ndarray, "*rows"]:
    """Root of the mean from the statistics (sum of squares, count)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(sums[..., 0] / sums[..., 1]))


def _overall_weighted_average(sums: Float[np.ndarray, "*rows 8"]) -> Float[np.ndarray, "*rows"]:
    """OWA from four pairs (sum, count): MASE, sMAPE, and both of Naive2."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[..., ::2] / sums[..., 1::2]
        return np.asarray((means[..., 0] / means[..., 2] + means[..., 1] / means[..., 3]) / 2)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mae", "MAE", higher_is_better=False, format=",.3f"),
        Metric("rmse", "RMSE", higher_is_better=False, aggregate=_root_mean, format=",.3f"),
        Metric("mase", "MASE", higher_is_better=False),
        Metric("smape", "sMAPE", "%", higher_is_better=False, format=".2f"),
        Metric("owa", "OWA", higher_is_better=False, aggregate=_overall_weighted_average),
    )
}
"""Metrics with statistics of each forecast: see `evaluation.per_example`.

MAE and MASE are means over forecasts, sMAPE and RMSE are over all steps of all forecasts.
"""

INTERVAL_METRICS: tuple[Metric, ...] = (
    Metric("weighted_quantile_loss", "Quantile loss", higher_is_better=False),
    Metric("coverage_80", "80% coverage"),
    Metric("width_80", "80% width", higher_is_better=False, format=",.3f"),
    Metric("coverage_95", "95% coverage"),
    Metric("width_95", "95% width", higher_is_better=False, format=",.3f"),
)
"""Metrics of quantiles and intervals without statistics of each forecast: for tables only.

A coverage is best at its nominal value, so it has no direction and is not compared.
"""


def _mean(values: ArrayLike, axis: int | None = None) -> Float[np.ndarray, "..."]:
    """Mean of the values that are not NaN; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(np.asarray(values), axis=axis))


def mae(truth: ArrayLike, forecast: ArrayLike, axis: int | None = None) -> Float[np.ndarray, "..."]:
    """Mean absolute error, over ``axis`` or all values."""
    return np.asarray(_mean(np.abs(np.asarray(truth) - np.asarray(forecast)), axis=axis))


def rmse(
    truth: ArrayLike, forecast: ArrayLike, axis: int | None = None
) -> Float[np.ndarray, "..."]:
    """Root of the mean squared error, over ``axis`` or all values."""
    squares = (np.asarray(truth) - np.asarray(forecast)) ** 2
    return np.asarray(np.sqrt(_mean(squares, axis=axis)))


def percentage_errors(truth: ArrayLike, forecast: ArrayLike) -> Float[np.ndarray, "..."]:
    """Symmetric absolute percentage errors, 0 to 200; 0 where truth and forecast are both 0."""
    t, f = np.asarray(truth, np.float64), np.asarray(forecast, np.float64)
    size = np.abs(t) + np.abs(f)
    return np.asarray(200 * np.abs(t - f) / np.where(size == 0, 1, size))


def smape(
    truth: ArrayLike, forecast: ArrayLike, axis: int | None = None
) -> Float[np.ndarray, "..."]:
    """Symmetric mean absolute percentage error, 0 to 200, as in M4 (Makridakis et al. 2020)."""
    return np.asarray(_mean(percentage_errors(truth, forecast), axis=axis))


def naive_scale(history: ArrayLike, season: int) -> float:
    """The scale of MASE: the mean absolute change over a season; NaN for too short a history."""
    past = np.asarray(history, np.float64)
    return float(np.abs(past[season:] - past[:-season]).mean()) if len(past) > season else np.nan


def pinball(
    truth: ArrayLike, quantiles: ArrayLike, levels: ArrayLike
) -> Float[np.ndarray, "... quantile"]:
    """Quantile loss (Koenker & Bassett 1978) of truth (...) and quantiles (..., quantile)."""
    over = np.asarray(truth)[..., None] - np.asarray(quantiles)
    return np.asarray(np.maximum(np.asarray(levels) * over, (np.asarray(levels) - 1) * over))


def levels(count: int) -> Float[np.ndarray, " quantile"]:
    """The levels of ``count`` quantiles: the middles of as many equal parts of [0, 1].

    The mean pinball loss at these levels is half the continuous ranked probability score of the
    distribution with equal weights on the quantiles (Dabney et al. 2017, arXiv 1710.10044). One
    quantile is the median.
    """
    return (np.arange(count) + 0.5) / count


def quantile(quantiles: ArrayLike, level: float) -> Float[np.ndarray, "..."]:
    """The quantile at any level from those at `levels`: (..., quantile) to (...).

    Interpolates linearly between two neighbours; beyond the outermost quantile, returns it.
    """
    q = np.asarray(quantiles)
    position = np.clip(level * q.shape[-1] - 0.5, 0, q.shape[-1] - 1)
    low, share = int(position), position - int(position)
    high = min(low + 1, q.shape[-1] - 1)
    return np.asarray((1 - share) * q[..., low] + share * q[..., high])


def weighted_quantile_loss(truth: ArrayLike, quantiles: ArrayLike) -> float:
    """Mean over `levels` of twice the summed pinball loss over the summed absolute truth.

    NaN where all of the truth is 0.
    """
    t, q = np.asarray(truth), np.asarray(quantiles)
    loss = 2 * np.nansum(pinball(t, q, levels(q.shape[-1])).reshape(-1, q.shape[-1]), axis=0)
    size = np.nansum(np.abs(t))
    return float((loss / size).mean()) if size else float("nan")


def coverage(
    truth: ArrayLike, low: ArrayLike, high: ArrayLike, axis: int | None = None
) -> Float[np.ndarray, "..."]:
    """The share of the truth inside [low, high], over ``axis`` or all values."""
    t = np.asarray(truth)
    inside = ((t >= np.asarray(low)) & (t <= np.asarray(high))).astype(float)
    return np.asarray(_mean(np.where(np.isnan(t), np.nan, inside), axis=axis))


def conformal(
    excess: Float[np.ndarray, "window horizon"], level: float
) -> Float[np.ndarray, " horizon"]:
    """The margins by which intervals move outwards to cover ``level`` of the truth.

    Conformalised quantile regression (Romano, Patterson & Candes 2019, arXiv 1905.03222), for
    each step of the horizon: the ceil((n + 1) level)-th smallest excess of n windows, or the
    largest. Negative where the intervals were too wide.

    Args:
        excess: distance of the truth to its interval, negative inside; NaN where not measured.
        level: share of the truth that the intervals cover.
    """
    ordered = np.sort(np.asarray(excess, np.float64), axis=0)  # NaN comes last
    count = (~np.isnan(ordered)).sum(axis=0)
    rank = np.clip(np.ceil((count + 1) * level).astype(int), 1, np.maximum(count, 1)) - 1
    return np.asarray(np.take_along_axis(ordered, rank[None], axis=0)[0])


def naive2(history: ArrayLike, season: int, horizon: int) -> Float[np.ndarray, " horizon"]:
    """M4's benchmark Naive2: the last value, seasonally adjusted if the season is significant.

    The multiplicative season is removed by classical decomposition where its autocorrelation is
    significant at 90% and all values are positive (Makridakis, Spiliotis & Assimakopoulos 2020).
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
