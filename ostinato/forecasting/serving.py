"""Serve a forecaster: a history of a series in, dates with forecasts and intervals out.

The model's window, scale, covariates and calendar are those of training, by the same functions.
Intervals have the margins of the last origin of the evaluation.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.errors import EvaluationError, RequestError
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset.cleaning import ReadReport, Series, read_series
from ostinato.forecasting.dataset.windows import from_model_units
from ostinato.forecasting.evaluation import Forecaster, interval
from ostinato.forecasting.formats.layout import COVARIATES, Coding, Details, RawManifest
from ostinato.forecasting.histories import Input, prepare_input
from ostinato.task import Json, Manifest, Serving

__all__ = ["SERVING", "Input", "Response", "Service", "from_responses", "load", "to_requests"]

SERVING = Serving(
    limits="""\
- The model extrapolates learned seasonality. It cannot anticipate events that no covariate
  describes.
- Intervals have their nominal coverage as long as the series behaves as it did before the last
  origin of the evaluation; later forecast errors do not move them.
""",
    files=("results/serving.npz",),
    packages=("holidays", "scipy"),
)


class Interval(BaseModel):
    """Bounds, one for each date."""

    low: list[float]
    high: list[float]


class Response(BaseModel):
    """A forecast."""

    dates: list[str] = Field(description="of the steps of the horizon, ISO 8601")
    forecast: list[float] = Field(description="the median")
    intervals: dict[str, Interval] = Field(description="by nominal coverage")
    warnings: list[str] = Field(
        [], description="one line for each covariate with values of no category of the training"
    )


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
            with np.errstate(over="ignore", invalid="ignore"):
                found = from_model_units(values, centre, spread, log=self.details.log)
            if not np.isfinite(found).all():
                raise RequestError(
                    f"{name}: values: the forecast is not finite; expected values of the magnitude "
                    "of the training data"
                )
            return [float(value) for value in found[0]]

        intervals = {}
        for level, margin in self.margins.items():
            low, high = interval(scaled, margin, level)
            intervals[f"{level:g}"] = Interval(low=unscaled(low), high=unscaled(high))
        return Response(
            dates=[time.isoformat() for time in prepared.times],
            forecast=unscaled(metrics.quantile(scaled, 0.5)),
            intervals=intervals,
            warnings=prepared.warnings,
        )


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
    cells = {
        coding.column: _filled(series.covariates[coding.column], coding, details)
        for kind in COVARIATES
        for coding in details.codings[kind]
    }
    past_names, future_names, static_names = (manifest.covariates(kind) for kind in COVARIATES)
    return {
        "dates": [time.isoformat() for time in grid[past]],
        "values": series.target[past].tolist(),
        "series": series.name,
        "past_covariates": {c: cells[c][past].tolist() for c in past_names},
        "future_covariates": {c: cells[c][around].tolist() for c in future_names},
        "static_covariates": {c: cells[c][0] for c in static_names},
    }


def _filled(
    cells: Shaped[np.ndarray, " step"], coding: Coding, details: Details
) -> Shaped[np.ndarray, " step"]:
    """Cells of a column, with the last one in place of those that training fills from it."""
    codes, distinct = pd.factorize(pd.Series(cells, dtype=object))
    if coding.categories is None:
        numbers = np.array([details.notation.number(cell) for cell in distinct], float)
        known = np.isfinite(numbers)  # None is NaN
    else:
        known = np.array([not details.notation.is_missing(cell) for cell in distinct], bool)
    given = known[codes]
    last = np.maximum.accumulate(np.where(given, np.arange(len(cells)), -1))
    return np.where(last < 0, "", cells[np.maximum(last, 0)])


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
