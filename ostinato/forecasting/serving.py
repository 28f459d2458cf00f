"""Serve a forecaster: a history of a series in, dates with forecasts and intervals out.

The model's window, scale, covariates and calendar are those of training, by the same functions.
Intervals have the margins of the last origin of the evaluation.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Shaped
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.errors import EvaluationError, RequestError
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.cleaning import ReadReport, Series, read_series
from ostinato.forecasting.dataset.windows import (
    Inputs,
    fit_scale,
    from_model_units,
    model_inputs,
    to_model_units,
)
from ostinato.forecasting.evaluation import Forecaster, interval
from ostinato.forecasting.formats.layout import COVARIATES, Coding, Details, RawManifest
from ostinato.params import near
from ostinato.task import Json, Manifest, Serving

Cell = str | float

SERVING = Serving(
    limits="""\
- The model extrapolates learned seasonality. It cannot anticipate events that no covariate
  describes.
- Intervals have their nominal coverage as long as the series behaves as it did before the last
  origin of the evaluation; later forecast errors do not move them.
""",
    files=("results/serving.npz",),
    packages=("holidays",),
)


class Input(BaseModel):
    """A series up to the origin, without gaps, at the frequency of the training data."""

    dates: list[str] = Field(description="ISO 8601, in order, without gaps")
    values: list[float | None] = Field(
        description="one for each date, none missing, at least as many as the model's window"
    )
    series: str | None = Field(
        None, description="name of the series, where the model was trained on several"
    )
    past_covariates: dict[str, list[Cell]] = Field({}, description="one value for each date")
    future_covariates: dict[str, list[Cell]] = Field(
        {}, description="one value for each date and for each step of the horizon"
    )
    static_covariates: dict[str, Cell] = Field({}, description="one value for the series")


class Interval(BaseModel):
    """Bounds, one for each date."""

    low: list[float]
    high: list[float]


class Response(BaseModel):
    """A forecast."""

    dates: list[str] = Field(description="of the steps of the horizon, ISO 8601")
    forecast: list[float] = Field(description="the median")
    intervals: dict[str, Interval] = Field(description="by nominal coverage")


def load(folder: Path) -> "Service":
    """Load a packaged model.

    Args:
        folder: holds model/, about.json, manifest.json and serving.npz.
    """
    about = store.read_json(folder / "about.json")
    model = models.load(about["domain"], about["model"])
    arrays = store.read_arrays(folder / "serving.npz")
    margins = dict(zip(arrays["levels"].tolist(), arrays["margins"], strict=True))
    details = Details.of(Manifest.read(folder / "manifest.json"))
    return Service(model.restore(folder / "model"), details, margins)


@dataclass(frozen=True)
class Service:
    """A loaded forecaster.

    Args:
        predictor: the model.
        details: of the data set that the model was trained on.
        margins: scaled margins of the intervals, by nominal coverage and step.
    """

    predictor: Forecaster
    details: Details
    margins: Mapping[float, Float[np.ndarray, " horizon"]]

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Json]) -> list[Response]:
        """Forecast the horizon after each history.

        Args:
            inputs: histories.
            options: none are used.

        Raises:
            RequestError: names the input by its number, and what is wrong with it.
        """
        return [self._forecast(f"input {n}", history) for n, history in enumerate(inputs)]

    def _forecast(self, name: str, history: Input) -> Response:
        prepared = prepare_input(name, history, self.details)
        scaled = self.predictor(prepared.inputs).astype(np.float64)

        def unscaled(values: Float[np.ndarray, "1 horizon"]) -> list[float]:
            centre, spread = prepared.centre, prepared.spread
            found = from_model_units(values, centre, spread, log=self.details.log)
            return [float(value) for value in found[0]]

        intervals = {}
        for level, margin in self.margins.items():
            low, high = interval(scaled, margin, level)
            intervals[f"{level:g}"] = Interval(low=unscaled(low), high=unscaled(high))
        return Response(
            dates=[time.isoformat() for time in prepared.times],
            forecast=unscaled(metrics.quantile(scaled, 0.5)),
            intervals=intervals,
        )


@dataclass(frozen=True)
class PreparedInput:
    """What a model reads of one history.

    Args:
        inputs: of the model.
        centre: of the scale.
        spread: of the scale.
        times: of the horizon.
    """

    inputs: Inputs
    centre: Float[np.ndarray, "1 1"]
    spread: Float[np.ndarray, "1 1"]
    times: pd.DatetimeIndex


def prepare_input(name: str, history: Input, details: Details) -> PreparedInput:
    """Turn a history into what a model reads, by the functions that training calls.

    Args:
        name: of the history, for errors.
        history: of a request.
        details: of the training data.

    Raises:
        RequestError: unequal steps, a missing value, too few values, an unknown series, or a
            covariate that is missing, unknown or of another length.
    """
    count, window = len(history.dates), details.window
    grid = _check_dates(name, history, details)
    values = _check_values(name, history, details)
    scaled = to_model_units(values[None, -window:], log=details.log)
    if details.per == "window":
        centre, spread = fit_scale(scaled, details.scaling)
    else:
        index = _series_index(name, history, details)
        centre = np.array([[details.centre[index]]])
        spread = np.array([[details.spread[index]]])
    _, calendar = features.calendar(grid, details.calendar)
    static = {column: [cell] for column, cell in history.static_covariates.items()}
    past = _encode(name, "past_covariates", details.codings["past"], history.past_covariates, count)
    future = _encode(
        name,
        "future_covariates",
        details.codings["future"],
        history.future_covariates,
        count + details.horizon,
    )
    inputs = model_inputs(
        (scaled - centre) / spread,
        past[None, -window:],
        np.concatenate([future, calendar], axis=1)[None, count - window :],
        _encode(name, "static_covariates", details.codings["static"], static, 1),
    )
    return PreparedInput(inputs, centre, spread, grid[count:])


def _check_dates(name: str, history: Input, details: Details) -> pd.DatetimeIndex:
    """The times of the history and of the horizon, in equal steps."""
    count = len(history.dates)
    if len(history.values) != count:
        raise RequestError(f"{name}: {count} dates, but {len(history.values)} values")
    if count < details.window:
        raise RequestError(
            f"{name}: {count} values are too few; the model reads {details.window} steps"
        )
    times = pd.to_datetime(pd.Series(history.dates), format="ISO8601", errors="coerce")
    if times.isna().any():
        index = int(np.flatnonzero(times.isna())[0])
        raise RequestError(f"{name}: date {index}: {history.dates[index]!r} is not ISO 8601")
    size, frequency = count + details.horizon, details.frequency
    grid = pd.date_range(times.iloc[0], periods=size, freq=frequency, unit="s")
    unequal = np.flatnonzero(times.to_numpy("datetime64[s]") != grid[:count].to_numpy())
    if len(unequal):
        index = int(unequal[0])
        raise RequestError(
            f"{name}: date {index}: {history.dates[index]}, where equal steps of frequency "
            f"{frequency} give {grid[index].isoformat()}; fill gaps and remove duplicates"
        )
    return grid


def _check_values(name: str, history: Input, details: Details) -> Float[np.ndarray, " step"]:
    """The values of the history, all of which are finite."""
    values = np.array(history.values, np.float64)
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise RequestError(f"{name}: value {index}, of {history.dates[index]}, is not a number")
    if details.log and values.min() <= -1:
        raise RequestError(
            f"{name}: value {values.min()}: the model reads log(1 + value), so values must be "
            "above -1"
        )
    return values


def _series_index(name: str, history: Input, details: Details) -> int:
    """The index of the history's series; the only one where none is named."""
    names = details.series
    series = names[0] if history.series is None and len(names) == 1 else history.series
    if series not in names:
        raise RequestError(f"{name}: unknown series {series!r}; {near(str(series), names)}")
    return names.index(series)


def _encode(
    name: str,
    kind: str,
    codings: Sequence[Coding],
    columns: Mapping[str, Sequence[Cell]],
    count: int,
) -> Float32[np.ndarray, "step feature"]:
    """Covariates of one kind as features."""
    wanted = [coding.column for coding in codings]
    if unknown := sorted(set(columns) - set(wanted)):
        raise RequestError(f"{name}: {kind}: unknown {unknown[0]!r}; {near(unknown[0], wanted)}")
    tables = [np.zeros((count, 0), np.float32)]
    for coding in codings:
        if coding.column not in columns:
            raise RequestError(f"{name}: {kind}: {coding.column!r} is missing")
        cells = columns[coding.column]
        if len(cells) != count:
            raise RequestError(
                f"{name}: {kind}: {coding.column!r} has {len(cells)} values, not {count}"
            )
        text = np.array([str(cell) for cell in cells], object)
        tables.append(features.encode(coding, text)[0])
    return np.concatenate(tables, axis=1)


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test windows as requests, by key, from the raw files after cleaning.

    Args:
        raw: folder of the raw data.
        prepared: folder of the prepared data.
        keys: ``series@time`` of windows; keys without a whole window are left out.
    """
    manifest = RawManifest.read(raw)
    details = Details.of(Manifest.read(prepared / "manifest.json"))
    requests: dict[str, dict[str, Json]] = {}
    split_keys = [str(key).rpartition("@") for key in keys]
    for series in read_series(manifest, details.rules, ReadReport(), 1.0):
        size = len(series.target) + details.horizon
        grid = pd.date_range(series.first, periods=size, freq=details.frequency, unit="s")
        for name, _, time in split_keys:
            origin = int(grid.searchsorted(pd.Timestamp(time)))
            if name == series.name and origin >= details.window:
                requests[f"{name}@{time}"] = _request(series, manifest, details, grid, origin)
    return requests


def _request(
    series: Series, manifest: RawManifest, details: Details, grid: pd.DatetimeIndex, origin: int
) -> dict[str, Json]:
    """A window of a series as JSON of an `Input`."""
    past = slice(origin - details.window, origin)
    around = slice(past.start, origin + details.horizon)
    past_names, future_names, static_names = (manifest.covariates(kind) for kind in COVARIATES)
    return {
        "dates": [time.isoformat() for time in grid[past]],
        "values": series.target[past].tolist(),
        "series": series.name,
        "past_covariates": {c: series.covariates[c][past].tolist() for c in past_names},
        "future_covariates": {c: series.covariates[c][around].tolist() for c in future_names},
        "static_covariates": {c: series.covariates[c][0] for c in static_names},
    }


def from_responses(
    responses: Sequence[Mapping[str, Json]],
    truth: Sequence[Sequence[float]] | Float[np.ndarray, "window horizon"],
    classes: Sequence[str],
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses as the arrays ``truth`` and ``forecast`` of `evaluation.evaluate`.

    Intervals are left out: in the evaluation their margins differ by origin.

    Args:
        responses: JSON of `Response`.
        truth: of each window.
        classes: not used.

    Raises:
        EvaluationError: a forecast has another number of steps than its truth.
    """
    forecasts = [response["forecast"] for response in responses]
    for forecast, true in zip(forecasts, truth, strict=True):
        if len(forecast) != len(true):
            raise EvaluationError(
                f"the model forecasts {len(forecast)} steps, the data set has {len(true)}"
            )
    return {"truth": np.array(truth, np.float64), "forecast": np.array(forecasts)}
