"""Evaluate a forecaster on the test split from every origin: a rolling-origin backtest."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Integer, Shaped

from ostinato.errors import EvaluationError
from ostinato.evaluation import comparison, timing
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset import SeriesDataset, Windows
from ostinato.forecasting.dataset.windows import Inputs
from ostinato.forecasting.metrics import METRICS
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.units import BatchSize, Count, Fraction

LOG = logging.getLogger(__name__)
UNDEFINED = {
    "mase": "no series changes from one season to the next, or all are shorter than a season",
    "owa": "no series changes from one season to the next, or Naive2 forecasts all without error",
    "weighted_quantile_loss": "all true values of the test split are 0",
}
NOT_OBSERVED = "a step of the horizon has no observed truth that calibrates its intervals"
NOTHING_OBSERVED = "no truth of the split is observed"
INTERVAL_KINDS = ("coverage", "width")
CURVE_LEVELS = np.arange(0.1, 1.0, 0.1)  # of the figure of nominal and observed coverage


@runtime_checkable
class Forecaster(Protocol):
    """A trained model: from inputs to scaled quantiles (window, horizon, quantile)."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    def __call__(self, inputs: Inputs, /) -> Float[np.ndarray, "window horizon quantile"]:
        """Forecast windows."""


@dataclass(frozen=True)
class Interval:
    """A prediction interval of each forecast, in the units of the data.

    Args:
        low: bounds.
        high: bounds.
        last_margin: the scaled margin of the last origin for each step; serving uses it.
    """

    low: Float64[np.ndarray, "window horizon"]
    high: Float64[np.ndarray, "window horizon"]
    last_margin: Float64[np.ndarray, " horizon"]


def evaluate(
    predictor: Forecaster,
    data: SeriesDataset,
    seed: int,
    *,
    stride: Count,
    intervals: list[Fraction],
    calibration_window: Count | None,
    num_plots: Count,
    batch_size: BatchSize,
    timed_requests: Count,
    resamples: Count,
) -> Evaluation:
    """Evaluate a model on the test split.

    Intervals are those of the model's quantiles, moved for each step of the horizon by a margin
    from earlier forecasts (`margins`), the first of which are those of the calibration split. MASE
    divides by the seasonal naive error before the origin. OWA compares with M4's Naive2 from the
    same origins.

    Args:
        predictor: the model.
        data: of the data set.
        seed: of the bootstrap.
        stride: steps from one origin to the next.
        intervals: nominal coverages, such as 0.8 and 0.95.
        calibration_window: number of the latest origins that calibrate the intervals; null: the
            calibration split calibrates the intervals of all origins.
        num_plots: forecasts in the figure of forecasts.
        batch_size: windows in a batch.
        timed_requests: forecasts made one by one to measure the latency.
        resamples: bootstrap samples behind the 95% confidence interval of MAE.

    Returns:
        Metrics; the tables horizon, periods and coverage; figures; arrays by window: keys, truth,
        forecast, naive, naive2, scale (of MASE), low and high of each interval; speed; for
        serving, the scaled margins of the last origin by level and step.

    Raises:
        EvaluationError: the quantiles of the model have another shape, are not finite, or cross.
    """
    numbers = np.arange(0, data.size("test"), stride)
    windows = data.windows("test", numbers)
    timer = timing.Timer(predictor)
    scaled = _predict(timer, data, "test", numbers, batch_size)
    seconds = timer.seconds
    quantiles = data.unscaled(scaled, windows)
    calibrated = _Calibration(data, timer, windows, scaled, batch_size, calibration_window)
    bounds = {level: calibrated.interval(level) for level in intervals}

    arrays, histories = _arrays(data, windows, scaled)
    truth, forecast, naive = arrays["truth"], arrays["forecast"], arrays["naive"]
    earlier = np.arange(0, data.size("validation"), stride)
    validation, _ = _arrays(
        data,
        data.windows("validation", earlier),
        _predict(predictor, data, "validation", earlier, batch_size),
    )
    for level, each in bounds.items():
        arrays |= {f"low_{100 * level:g}": each.low, f"high_{100 * level:g}": each.high}
    values = _values(arrays, quantiles, bounds)
    mae_interval = _mae_interval(arrays, resamples=resamples, seed=seed)
    steps = _steps(truth, forecast, naive, bounds)
    coverage = _coverage(truth, calibrated)
    tables = {
        "horizon": steps,
        "periods": _periods(windows, truth, forecast, naive, bounds),
        "coverage": coverage,
    }
    from ostinato.forecasting import figures

    panels = [
        figures.Panel(
            title=str(windows.keys[i]).removesuffix("T00:00:00"),
            past=histories[i][-2 * data.horizon :],
            truth=truth[i],
            forecast=forecast[i],
            intervals={v: (bounds[v].low[i], bounds[v].high[i]) for v in sorted(bounds)[::-1]},
        )
        for i in _evenly(len(numbers), num_plots)
    ]
    count = f"{len(numbers):,}"
    drawn = {
        "forecasts": figures.forecasts(panels, f"{len(panels)} of {count} forecasts"),
        "horizon": figures.horizon(steps),
        "coverage": figures.interval_coverage(coverage),
        "residuals": figures.residuals(truth - forecast, f"Residuals of {count} forecasts"),
    }
    requests = [data.examples("test", number[None])[0] for number in numbers[:timed_requests]]
    return Evaluation(
        metrics={
            "samples": len(numbers),
            "mae": values["mae"],
            **mae_interval,
            **values,
            "parameters": predictor.parameters,
            **validation_metrics(per_example(validation), METRICS),
        },
        tables=tables,
        figures=drawn,
        arrays=arrays,
        speed=timing.speed(predictor, requests, seconds, len(numbers)),
        serving={"levels": np.array(list(bounds)), "margins": _served_margins(bounds)},
        undefined=_undefined(bounds),
    )


def _undefined(levels: Iterable[float]) -> dict[str, str]:
    """Why a metric may have no value, by its name."""
    intervals = {f"{kind}_{100 * v:g}": NOT_OBSERVED for v in levels for kind in INTERVAL_KINDS}
    reasons = {**dict.fromkeys(METRICS, NOTHING_OBSERVED), **UNDEFINED, **intervals}
    return {**reasons, **{f"validation_{name}": reason for name, reason in reasons.items()}}


def _served_margins(bounds: Mapping[float, Interval]) -> Float64[np.ndarray, "level *horizon"]:
    """The margins of the last origin; 0 for a step without an observed truth to calibrate it."""
    margins = np.array([each.last_margin for each in bounds.values()], np.float64)
    if np.isnan(margins).any():
        LOG.warning("Served intervals have steps that are not calibrated: %s", NOT_OBSERVED)
    return np.nan_to_num(margins)


def _arrays(
    data: SeriesDataset,
    windows: Windows,
    scaled: Float64[np.ndarray, "window horizon quantile"],
) -> tuple[dict[str, Shaped[np.ndarray, "window ..."]], list[Float[np.ndarray, " step"]]]:
    """The arrays that `per_example` reads, and the history of each window."""
    pairs = zip(windows.series, windows.history, strict=True)
    histories = [data.history(series, steps) for series, steps in pairs]
    scale = np.array([metrics.naive_scale(history, data.season) for history in histories])
    scale[scale == 0] = np.nan
    arrays = {
        "keys": windows.keys,
        "truth": np.where(windows.observed, windows.truth, np.nan),
        "forecast": data.unscaled(metrics.quantile(scaled, 0.5), windows),
        "naive": seasonal_naive(data, windows),
        "naive2": np.stack([metrics.naive2(past, data.season, data.horizon) for past in histories]),
        "scale": scale,
    }
    return arrays, histories


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each forecast for the metrics of `METRICS`.

    Args:
        arrays: of `evaluate`: keys, truth, forecast, scale and naive2 (without it OWA has no
            value); truth and forecast may be those of `serving.from_responses`.
    """
    truth, forecast, scale = arrays["truth"], arrays["forecast"], arrays["scale"][:, None]
    naive2 = arrays.get("naive2", np.full_like(truth, np.nan))
    error, percent = np.abs(truth - forecast), metrics.percentage_errors(truth, forecast)
    parts = [
        _mean_row(error / scale),
        _sum_row(percent),
        _mean_row(np.abs(truth - naive2) / scale),
        _sum_row(metrics.percentage_errors(truth, naive2)),
    ]
    owa = np.concatenate(parts, axis=1)
    # Where MASE has no scale, the other parts still count: the missing ones have sum and count 0.
    usable = ~np.isnan(truth).all(axis=1) & ~np.isnan(naive2).all(axis=1)
    return PerExample(
        keys=arrays["keys"],
        clusters=clusters(arrays["keys"], truth.shape[1]),
        statistics={
            "mae": _mean_row(error),
            "rmse": _sum_row(error**2),
            "mase": parts[0],
            "smape": parts[1],
            "owa": np.where(usable[:, None], np.nan_to_num(owa), np.nan),
        },
    )


def clusters(keys: Shaped[np.ndarray, " window"], horizon: int) -> Integer[np.ndarray, " window"]:
    """The cluster of each window: overlapping forecasts are correlated.

    A cluster is a block of two horizons of origins, in all series. Where there are at most two
    horizons of origins, as in a competition, a cluster is a series.

    Args:
        keys: ``series@time``.
        horizon: steps of a forecast.
    """
    names, _, times = zip(*(str(key).rpartition("@") for key in keys), strict=True)
    distinct, index = np.unique(times, return_inverse=True)
    if len(distinct) > 2 * horizon:
        return np.asarray(index // (2 * horizon))
    return np.asarray(np.unique(names, return_inverse=True)[1])


def margins(
    excess: Float[np.ndarray, "window horizon"],
    forecast_origins: Integer[np.ndarray, " window"],
    origins: Integer[np.ndarray, " origin"],
    level: float,
    calibration_window: int | None,
) -> Float64[np.ndarray, "origin horizon"]:
    """The margins by which the intervals of forecasts move outwards, for each step.

    A sliding window of past errors, as in Xu and Xie 2021, arXiv 2010.09107: at each origin and
    step, only forecasts whose truth of that step is observed before the origin count.

    Args:
        excess: of earlier forecasts in any order; see `_Calibration.excess`.
        forecast_origins: the first step that each earlier forecast predicts.
        origins: the first step that each forecast predicts whose margins are returned.
        level: nominal coverage.
        calibration_window: number of the latest origins that count; None: all forecasts count,
            at each origin.

    Raises:
        EvaluationError: at an origin no truth is observed yet.
    """
    if calibration_window is None:
        return np.tile(metrics.conformal(excess, level), (len(origins), 1))
    order = np.argsort(forecast_origins, kind="stable")
    begins, sizes = np.unique(forecast_origins, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    distinct, index = np.unique(origins, return_inverse=True)
    moved = np.empty((len(distinct), excess.shape[1]))
    for step, errors in enumerate(excess[order].T):
        observed = np.searchsorted(begins, distinct - step)  # origins whose truth is before
        if not observed.all():
            raise EvaluationError(
                "the test split of a series begins before any forecast of the calibration split "
                "is over; set evaluation's calibration_window: null, or begin calibration earlier"
            )
        first, last = ends[np.maximum(0, observed - calibration_window)], ends[observed]
        rows = first + np.arange((last - first).max())[:, None]  # (error, origin)
        latest = np.where(rows < last, errors[np.minimum(rows, len(errors) - 1)], np.nan)
        moved[:, step] = metrics.conformal(latest, level)
    return np.asarray(moved[index])


def interval(
    quantiles: Float[np.ndarray, "window horizon quantile"],
    margin: Float[np.ndarray, "*window horizon"],
    level: float,
) -> tuple[Float[np.ndarray, "window horizon"], Float[np.ndarray, "window horizon"]]:
    """The scaled interval (low, high) with nominal coverage ``level``, moved by a margin."""
    middle = metrics.quantile(quantiles, 0.5)
    low = metrics.quantile(quantiles, (1 - level) / 2) - margin
    high = metrics.quantile(quantiles, (1 + level) / 2) + margin
    return np.minimum(low, middle), np.maximum(high, middle)


def seasonal_naive(data: SeriesDataset, windows: Windows) -> Float[np.ndarray, "window horizon"]:
    """The values a season ago; a shorter history is repeated as a whole."""
    ahead = np.arange(data.horizon)
    pairs = zip(windows.series, windows.history, strict=True)
    seasons = [data.history(series, steps)[-data.season :] for series, steps in pairs]
    return np.stack([season[ahead % len(season)] for season in seasons])


class _Calibration:
    """Intervals of the test forecasts, calibrated by earlier forecasts.

    Args:
        data: the data set.
        predict: the model.
        windows: of the test split.
        scaled: their quantiles.
        batch_size: windows in a batch.
        calibration_window: see `evaluate`.
    """

    def __init__(
        self,
        data: SeriesDataset,
        predict: Callable[[Inputs], np.ndarray],
        windows: Windows,
        scaled: Float64[np.ndarray, "window horizon quantile"],
        batch_size: int,
        calibration_window: int | None,
    ) -> None:
        self.data, self.windows, self.scaled = data, windows, scaled
        self.calibration_window = calibration_window
        numbers = np.arange(data.size("calibration"))
        earlier = data.windows("calibration", numbers)
        self.earlier = [(earlier, _predict(predict, data, "calibration", numbers, batch_size))]
        if calibration_window is not None:
            self.earlier.append((windows, scaled))
        self.origins = np.concatenate([part.origin for part, _ in self.earlier])

    def excess(
        self, windows: Windows, scaled: Float64[np.ndarray, "window horizon quantile"], level: float
    ) -> Float64[np.ndarray, "window horizon"]:
        """The distance of the scaled truth to its interval, negative inside; NaN if unobserved."""
        truth = np.where(windows.observed, self.data.scaled_truth(windows), np.nan)
        low, high = interval(scaled, np.zeros(scaled.shape[1]), level)
        return np.asarray(np.maximum(low - truth, truth - high))

    def margin(self, level: float) -> Float64[np.ndarray, "window horizon"]:
        """The scaled margins of the test forecasts."""
        excess = np.concatenate([self.excess(*part, level) for part in self.earlier])
        window = self.calibration_window
        return margins(excess, self.origins, self.windows.origin, level, window)

    def bounds(
        self, level: float, margin: Float[np.ndarray, "*window horizon"]
    ) -> tuple[Float64[np.ndarray, "window horizon"], Float64[np.ndarray, "window horizon"]]:
        """Low and high of the test forecasts in the units of the data."""
        low, high = interval(self.scaled, margin, level)
        return self.data.unscaled(low, self.windows), self.data.unscaled(high, self.windows)

    def interval(self, level: float) -> Interval:
        """The calibrated interval of each test forecast."""
        margin = self.margin(level)
        return Interval(*self.bounds(level, margin), margin[np.argmax(self.windows.origin)])


def _predict(
    predict: Callable[[Inputs], np.ndarray],
    data: SeriesDataset,
    split: str,
    numbers: Integer[np.ndarray, " window"],
    batch_size: int,
) -> Float64[np.ndarray, "window horizon quantile"]:
    """Scaled quantiles of the windows of a split with these numbers."""
    batches = (numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size))
    parts = [predict(data.examples(split, batch)[0]) for batch in batches]
    scaled = np.concatenate(parts).astype(np.float64)
    if scaled.ndim != 3 or scaled.shape[1] != data.horizon:
        raise EvaluationError(
            f"the model's output has shape {scaled.shape}, not (window, {data.horizon}, quantile)"
        )
    if not np.isfinite(scaled).all() or (np.diff(scaled, axis=-1) < 0).any():
        raise EvaluationError(
            "the model's quantiles are not finite or cross; did training diverge?"
        )
    return scaled


def _mean_row(values: Float[np.ndarray, "window horizon"]) -> Float[np.ndarray, "window 2"]:
    """Statistics (mean of the steps, 1) of each window; NaN without an observed step."""
    observed = ~np.isnan(values).all(axis=1)
    row = np.full((len(values), 2), np.nan)
    row[observed, 0], row[observed, 1] = np.nanmean(values[observed], axis=1), 1
    return row


def _sum_row(values: Float[np.ndarray, "window horizon"]) -> Float[np.ndarray, "window 2"]:
    """Statistics (sum of the steps, count) of each window; NaN without an observed step."""
    observed = ~np.isnan(values)
    row = np.stack([np.nansum(values, axis=1), observed.sum(axis=1).astype(float)], axis=1)
    row[~observed.any(axis=1)] = np.nan
    return row


def _values(
    arrays: Mapping[str, np.ndarray],
    quantiles: Float[np.ndarray, "window horizon quantile"],
    bounds: Mapping[float, Interval],
) -> dict[str, float]:
    """Metrics of all forecasts; not finite where one is not defined (see `UNDEFINED`)."""
    truth, forecast, naive2 = arrays["truth"], arrays["forecast"], arrays["naive2"]
    errors = metrics.mae(truth, forecast, axis=1)
    scaled = errors / arrays["scale"], metrics.mae(truth, naive2, axis=1) / arrays["scale"]
    mase, mase_naive2 = (np.nan if np.isnan(x).all() else np.nanmean(x) for x in scaled)
    smape, smape_naive2 = metrics.smape(truth, forecast), metrics.smape(truth, naive2)
    with np.errstate(divide="ignore", invalid="ignore"):  # Naive2 is exact for a constant
        owa = (np.divide(mase, mase_naive2) + np.divide(smape, smape_naive2)) / 2
    values = {
        "mae": float(np.nanmean(errors)),
        "rmse": float(metrics.rmse(truth, forecast)),
        "mase": float(mase),
        "smape": float(smape),
        "owa": float(owa),
        "weighted_quantile_loss": metrics.weighted_quantile_loss(truth, quantiles),
        "naive_mae": float(metrics.mae(truth, arrays["naive"])),
    }
    for level, each in bounds.items():
        name = f"{100 * level:g}"
        values[f"coverage_{name}"] = float(metrics.coverage(truth, each.low, each.high))
        values[f"width_{name}"] = float((each.high - each.low).mean())
    return values


def _mae_interval(
    arrays: Mapping[str, np.ndarray], *, resamples: int, seed: int
) -> dict[str, float]:
    """The 95% confidence interval of MAE; empty where there are fewer than two clusters."""
    try:
        low, high = comparison.metric_interval(
            per_example(arrays), METRICS["mae"], resamples=resamples, seed=seed
        )
    except EvaluationError as error:
        LOG.warning("MAE has no confidence interval: %s", error)
        return {}
    return {"mae_low": low, "mae_high": high}


def _steps(
    truth: Float[np.ndarray, "window horizon"],
    forecast: Float[np.ndarray, "window horizon"],
    naive: Float[np.ndarray, "window horizon"],
    bounds: Mapping[float, Interval],
) -> pd.DataFrame:
    """Metrics by step of the horizon."""
    table = pd.DataFrame({"step": np.arange(1, truth.shape[1] + 1)})
    table["mae"], table["naive"] = metrics.mae(truth, forecast, 0), metrics.mae(truth, naive, 0)
    table["rmse"] = metrics.rmse(truth, forecast, 0)
    for level, each in bounds.items():
        name = f"{100 * level:g}"
        table[f"coverage_{name}"] = metrics.coverage(truth, each.low, each.high, 0)
        table[f"width_{name}"] = (each.high - each.low).mean(axis=0)
    return table


def _periods(
    windows: Windows,
    truth: Float[np.ndarray, "window horizon"],
    forecast: Float[np.ndarray, "window horizon"],
    naive: Float[np.ndarray, "window horizon"],
    bounds: Mapping[float, Interval],
) -> pd.DataFrame:
    """Metrics by the month of the origin."""
    months = np.array([str(key).rpartition("@")[2][:7] for key in windows.keys])
    rows = []
    for month in np.unique(months):
        at = months == month
        row = {
            "month": month,
            "windows": int(at.sum()),
            "mae": float(metrics.mae(truth[at], forecast[at])),
            "naive": float(metrics.mae(truth[at], naive[at])),
        }
        for level, each in bounds.items():
            covered = metrics.coverage(truth[at], each.low[at], each.high[at])
            row[f"coverage_{100 * level:g}"] = float(covered)
        rows.append(row)
    return pd.DataFrame(rows)


def _coverage(truth: Float[np.ndarray, "window horizon"], calibrated: _Calibration) -> pd.DataFrame:
    """Observed coverage by level, before and after calibration."""
    rows = []
    for level in CURVE_LEVELS:
        raw = calibrated.bounds(level, np.zeros(truth.shape[1]))
        conformal = calibrated.bounds(level, calibrated.margin(level))
        rows.append([level, *(float(metrics.coverage(truth, *b)) for b in (raw, conformal))])
    return pd.DataFrame(rows, columns=["level", "raw", "conformal"])


def _evenly(size: int, count: int) -> Sequence[int]:
    """At most ``count`` different indices below ``size``, at equal distances."""
    chosen = np.linspace(0, size - 1, min(count, size)).round().astype(int)
    return [int(index) for index in np.unique(chosen)]
