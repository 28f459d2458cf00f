"""Scores of a forecaster on the test range, from every origin in it: a rolling-origin backtest."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ostinato.errors import EvaluationError
from ostinato.forecasting import figures, metrics
from ostinato.params import near
from ostinato.task import Evaluation
from ostinato.units import BatchSize, Count, Fraction

if TYPE_CHECKING:
    from ostinato.forecasting.dataset.windows import Data, Windows

Array = NDArray[Any]

LOSSES = ("mae", "mase", "smape")  # of the metrics of `outcomes`: less is better
PROMISES = np.arange(0.1, 1.0, 0.1)  # levels of the figure that compares promised and held


def evaluate(
    model: Any,
    data: Any,
    seed: int,
    *,
    stride: Count,
    intervals: list[Fraction],
    calibration_window: Count | None,
    num_plots: Count,
    batch_size: BatchSize,
    timed_requests: Count,
) -> Evaluation:
    """Score ``model`` on the test split of ``data``.

    Intervals are those of the model's quantiles, moved for each step of the horizon by what
    earlier forecasts ask for (``margins``), first of all those of the calibration split. MASE
    divides by the seasonal naive error before the origin; OWA compares with M4's Naive2, made at
    the same origins.

    Args:
        model: maps a window to scaled quantiles (batch, horizon, quantile).
        data: of ``examples.load``.
        seed: not used: nothing is drawn.
        stride: steps from one origin to the next.
        intervals: the shares of truths that intervals promise: 0.8 and 0.95, say.
        calibration_window: how many of the latest origins move the intervals; null: those of the calibration
            split do, at all origins alike.
        num_plots: origins in the figure of forecasts.
        batch_size: windows forecast at once.
        timed_requests: how many are forecast one by one to see how long that takes.

    Returns:
        metrics; tables of horizon, periods, intervals (the margins of the last origin, scaled, by
        level and step); figures; arrays by window (keys, truth, forecast, naive, scale, which is
        what MASE divides by, low and high of each interval); speed.

    Raises:
        ScoreError: the model gives something else than finite quantiles in increasing order.
    """
    every = np.arange(0, data.size("test"), stride)
    windows, (z, seconds) = (
        data.windows("test", every),
        predict(model, data, "test", every, batch_size),
    )
    truth = np.where(windows.observed, windows.truth, np.nan)
    quantiles = data.unscaled(z, windows)
    forecast = data.unscaled(metrics.quantile(z, 0.5), windows)
    naive = seasonal_naive(data, windows)
    past = np.arange(data.size("calibration"))
    calibration = data.windows("calibration", past)
    ready = predict(model, data, "calibration", past, batch_size)[0]
    seen = (
        [(calibration, ready)]
        if calibration_window is None
        else [(calibration, ready), (windows, z)]
    )
    moments = np.concatenate([part.moment for part, _ in seen])

    def moved(level: float) -> Array:
        parts = [excess(data, part, quantiles, level) for part, quantiles in seen]
        return margins(np.concatenate(parts), moments, windows.moment, level, calibration_window)

    bounds, last = {}, {}
    for level in intervals:
        margin = moved(level)
        low, high = interval(z, margin, level)
        bounds[level] = data.unscaled(low, windows), data.unscaled(high, windows)
        last[level] = margin[np.argmax(windows.moment)]

    errors = metrics.mae(truth, forecast, axis=1)
    histories = [data.history(s, h) for s, h in zip(windows.series, windows.history, strict=True)]
    scales = np.array([metrics.naive_scale(h, data.season) for h in histories])
    scales[scales == 0] = np.nan
    naive2 = np.stack([metrics.naive2(h, data.season, data.horizon) for h in histories])
    mase = np.nanmean(errors / scales)
    relative = mase / np.nanmean(metrics.mae(truth, naive2, axis=1) / scales)
    percent = metrics.smape(truth, forecast), metrics.smape(truth, naive2)
    mean, error, _ = metrics.mean_in_time(errors, windows.keys, data.horizon)
    numbers: dict[str, float] = {
        "samples": len(every),
        "mae": float(np.nanmean(errors)),
        "mae_low": mean - 1.96 * error,
        "mae_high": mean + 1.96 * error,
        "rmse": float(metrics.rmse(truth, forecast)),
        "mase": float(mase),
        "smape": float(percent[0]),
        "owa": float(relative + percent[0] / percent[1]) / 2,
        "weighted_quantile_loss": metrics.weighted_quantile_loss(truth, quantiles),
        "naive_mae": float(metrics.mae(truth, naive)),
    }
    for level, (low, high) in bounds.items():
        numbers[f"coverage_{100 * level:g}"] = float(metrics.coverage(truth, low, high))
        numbers[f"width_{100 * level:g}"] = float((high - low).mean())
    numbers["parameters"] = int(model.count_params())

    steps = pd.DataFrame({"step": np.arange(1, data.horizon + 1)})
    steps["mae"], steps["naive"] = metrics.mae(truth, forecast, 0), metrics.mae(truth, naive, 0)
    steps["rmse"] = metrics.rmse(truth, forecast, 0)
    for level, (low, high) in bounds.items():
        steps[f"coverage_{100 * level:g}"] = metrics.coverage(truth, low, high, 0)
        steps[f"width_{100 * level:g}"] = (high - low).mean(axis=0)
    tables = {
        "horizon": steps,
        "periods": periods(windows, truth, forecast, naive, bounds),
        "intervals": pd.DataFrame(
            [
                {"level": level, "step": number, "margin": float(value)}
                for level, values in last.items()
                for number, value in enumerate(values, 1)
            ]
        ),
    }
    promised = []
    for level in PROMISES:
        for name, margin in (("raw", np.zeros(data.horizon)), ("conformal", moved(level))):
            low, high = (data.unscaled(q, windows) for q in interval(z, margin, level))
            promised.append((level, name, float(metrics.coverage(truth, low, high))))
    tables["coverage"] = (
        pd.DataFrame(promised, columns=["level", "kind", "held"])
        .pivot_table(index="level", columns="kind", values="held")
        .reset_index()[["level", "raw", "conformal"]]
    )
    chosen = np.unique(
        np.linspace(0, len(every) - 1, min(num_plots, len(every))).round().astype(int)
    )
    panels = [
        {
            "title": str(windows.keys[i]).removesuffix("T00:00:00"),
            "past": histories[i][-2 * data.horizon :],
            "truth": truth[i],
            "forecast": forecast[i],
            "bounds": {v: (bounds[v][0][i], bounds[v][1][i]) for v in sorted(bounds)[::-1]},
        }
        for i in chosen
    ]
    pictures = {
        "forecasts": figures.forecasts(panels, f"{len(panels)} of {len(every):,} forecasts"),
        "horizon": figures.horizon(steps),
        "coverage": figures.interval_coverage(tables["coverage"]),
        "residuals": figures.residuals(truth - forecast, f"Errors of {len(every):,} forecasts"),
    }
    alone = [
        data.examples("test", every[i : i + 1])[0] for i in range(min(timed_requests, len(every)))
    ]
    call = compiled(model)
    call(alone[0])
    times = [elapsed(call, x) for x in alone]
    speed = {
        "inference_ms_single": 1e3 * float(np.median(times)),
        "inference_ms_batched": 1e3 * seconds / len(every),
    }
    arrays = {"keys": windows.keys, "truth": truth, "forecast": forecast, "naive": naive}
    arrays["scale"] = scales
    for level, (low, high) in bounds.items():
        arrays |= {f"low_{100 * level:g}": low, f"high_{100 * level:g}": high}
    return Evaluation(numbers, tables, pictures, arrays, speed)


def outcomes(metric: str, arrays: Mapping[str, Array]) -> Array:
    """What each window adds to a metric, its sign turned, so that more is better.

    Args:
        metric: mae, mase or smape.
        arrays: of `score`.

    Returns:
        float64 (window,), NaN where nothing was measured, or a scale is none.

    Raises:
        ScoreError: the metric is no mean over windows, or there is none of this name.
    """
    truth, forecast = arrays["truth"], arrays["forecast"]
    known = ~np.isnan(truth).all(axis=1)
    losses = np.full(len(truth), np.nan)
    if metric not in LOSSES:
        raise EvaluationError(f"{metric!r} is no mean over windows; {near(metric, LOSSES)}")
    loss = metrics.smape if metric == "smape" else metrics.mae
    losses[known] = loss(truth[known], forecast[known], axis=1)
    return -losses / (arrays["scale"] if metric == "mase" else 1.0)


def clusters(arrays: Mapping[str, Array]) -> Array:
    """Windows that share their luck, a number each, int64 (window,).

    They are those whose origins lie in the same stretch of two horizons: forecasts of the same
    days, in all series. Where there are hardly more origins than steps, as in a competition, they
    are those of a series.
    """
    names, _, times = zip(*(str(key).rpartition("@") for key in arrays["keys"]), strict=True)
    moments, place = np.unique(times, return_inverse=True)
    stretch = 2 * arrays["truth"].shape[1]
    if len(moments) > 2 * stretch:
        return np.asarray(place // stretch)
    return np.unique(names, return_inverse=True)[1]


def predict(
    model: Any, data: "Data", split: str, numbers: Array, batch: int
) -> tuple[Array, float]:
    """Scaled quantiles (window, horizon, quantile), float64, and the seconds they took."""
    call, parts, seconds = compiled(model), [], 0.0
    for start in range(0, len(numbers), batch):
        x = data.examples(split, numbers[start : start + batch])[0]
        if start == 0:
            call(x)  # so that no time counts the making of the graph
        begin = time.perf_counter()
        parts.append(call(x))
        seconds += time.perf_counter() - begin
    z = np.concatenate(parts).astype(np.float64)
    if z.ndim != 3 or z.shape[1] != data.horizon:
        raise EvaluationError(
            f"the model's output is {z.shape}, not (batch, {data.horizon}, quantile)"
        )
    if not np.isfinite(z).all() or (np.diff(z, axis=-1) < 0).any():
        raise EvaluationError(
            "the model's quantiles are not finite or cross; did training diverge?"
        )
    return z, seconds


def compiled(model: Any) -> Any:
    """The model as one graph: from a dict of float32 arrays to an array."""
    import tensorflow as tf

    given = {x.name: tf.TensorSpec(x.shape, tf.float32) for x in model.inputs}
    graph = tf.function(lambda x: model(x, training=False), input_signature=[given])
    return lambda x: graph({name: x[name] for name in given}).numpy()


def elapsed(call: Any, x: Any) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call(x)
    return time.perf_counter() - begin


def excess(data: "Data", windows: "Windows", quantiles: Array, level: float) -> Array:
    """How far scaled truths lie outside the interval that quantiles give, negative inside.

    Float64 (window, horizon), NaN where the truth was not measured.
    """
    truth = np.where(windows.observed, data.scaled_as(windows), np.nan)
    low, high = interval(quantiles, np.zeros(quantiles.shape[1]), level)
    return np.asarray(np.maximum(low - truth, truth - high))


def margins(
    excess: Array, moments: Array, origins: Array, level: float, recent: int | None
) -> Array:
    """How far intervals of forecasts move out for each step: float64 (origin, horizon).

    A sliding window of past errors, as in Xu and Xie 2021, arXiv 2010.09107: at each origin and
    step only forecasts whose truth of that step is known by then count.

    Args:
        excess: of earlier forecasts, see ``excess``; of any order (window, horizon).
        moments: the first step that each of them forecasts (window,).
        origins: the same of the forecasts whose intervals are asked for (origin,).
        level: the share of truths that intervals promise.
        recent: how many of the latest moments count; None: all forecasts do, at all origins.

    Raises:
        ScoreError: nothing is known yet at an origin.
    """
    if recent is None:
        return np.tile(metrics.conformal(excess, level), (len(origins), 1))
    order = np.argsort(moments, kind="stable")
    begins, sizes = np.unique(moments, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    asked, place = np.unique(origins, return_inverse=True)
    moved = np.empty((len(asked), excess.shape[1]))
    for step, errors in enumerate(excess[order].T):
        known = np.searchsorted(begins, asked - step)  # their truths are of earlier times
        if not known.all():
            raise EvaluationError(
                "no forecast of the calibration split is over when the test of another series "
                "begins; set recent: null"
            )
        first, last = ends[np.maximum(0, known - recent)], ends[known]
        rows = first + np.arange((last - first).max())[:, None]  # (error, origin)
        latest = np.where(rows < last, errors[np.minimum(rows, len(errors) - 1)], np.nan)
        moved[:, step] = metrics.conformal(latest, level)
    return np.asarray(moved[place])


def interval(quantiles: Array, margin: Array, level: float) -> tuple[Array, Array]:
    """The scaled interval that promises ``level``: low and high (window, horizon).

    ``margin`` is (horizon,) or (window, horizon).
    """
    middle = metrics.quantile(quantiles, 0.5)
    low = metrics.quantile(quantiles, (1 - level) / 2) - margin
    high = metrics.quantile(quantiles, (1 + level) / 2) + margin
    return np.minimum(low, middle), np.maximum(high, middle)


def seasonal_naive(data: "Data", windows: "Windows") -> Array:
    """The values a season before, float64 (window, horizon)."""
    ahead = np.arange(data.horizon) % data.season - data.season
    rows = [
        data.history(series, before)[ahead]
        for series, before in zip(windows.series, windows.history, strict=True)
    ]
    return np.stack(rows)


def periods(
    windows: "Windows", truth: Array, forecast: Array, naive: Array, bounds: dict[float, Any]
) -> pd.DataFrame:
    """Scores by the month in which a forecast begins."""
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
        for level, (low, high) in bounds.items():
            held = metrics.coverage(truth[at], low[at], high[at])
            row[f"coverage_{100 * level:g}"] = float(held)
        rows.append(row)
    return pd.DataFrame(rows)
