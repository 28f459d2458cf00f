"""Forecasts a series: its history in, dates with forecasts and intervals out.

A history is its dates and values, in order, without gaps, at the frequency of the training data
and at least as long as the model's window, with the covariates that the model was trained on. The
intervals are as wide as the model's errors asked for at the last origin of its evaluation, on data
that it had not learned.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ostinato import params, store
from ostinato.errors import RequestError
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.cleaning import Rules, Told, read
from ostinato.forecasting.dataset.windows import scale
from ostinato.forecasting.evaluation import compiled, interval
from ostinato.params import near

Array = NDArray[Any]
Cell = str | float

FILES = ("results/tables/intervals.csv",)  # what `load` reads beside the model
PACKAGES = ("holidays",)

LIMITS = """\
- It knows the rhythm of the series that it was trained on, and no event that no feature tells.
- Intervals hold their share of the truths as long as the series behaves as it did before the last
  origin of the evaluation; they do not move with what has come true since.
"""


class History(BaseModel):
    """A series up to now."""

    dates: list[str] = Field(description="ISO 8601, in order, without gaps")
    values: list[float | None] = Field(description="one for each date")
    series: str | None = Field(None, description="which of the series it is, where there are many")
    past: dict[str, list[Cell]] = Field({}, description="covariates, one value for each date")
    known: dict[str, list[Cell]] = Field(
        {}, description="covariates that are known ahead: for each date, and for those forecast"
    )
    static: dict[str, Cell] = Field({}, description="covariates of the whole series")


class Interval(BaseModel):
    """Bounds, one for each date."""

    low: list[float]
    high: list[float]


class Answer(BaseModel):
    """A forecast."""

    dates: list[str]
    forecast: list[float]  # the median
    intervals: dict[str, Interval]  # by the share of the truths that they promise to hold


Input = History


def load(folder: Path) -> Callable[[Sequence[History], int], list[Answer]]:
    """The model whose files are in ``folder``, ready to answer.

    The files are model.keras, about.json and manifest.json, and intervals.csv of the evaluation's
    tables.

    Returns:
        A function of histories, and of a number that means nothing here.
    """
    about, manifest = (store.read_json(folder / f"{name}.json") for name in ("about", "manifest"))
    params.model_module(about["domain"], about["model"])  # registers the model's layers
    call = compiled(store.read_model(folder / "model.keras"))
    table = pd.read_csv(folder / "intervals.csv")
    margins = {
        float(level): table.loc[table["level"] == level, "margin"].to_numpy()
        for level in table["level"].unique()
    }

    def answer(histories: Sequence[History], best: int) -> list[Answer]:
        return [
            _answer(f"history {number}", history, manifest, margins, call)
            for number, history in enumerate(histories)
        ]

    return answer


def _answer(
    name: str,
    history: History,
    about: Mapping[str, Any],
    margins: Mapping[float, Array],
    call: Callable[[Any], Array],
) -> Answer:
    x, centre, spread, ahead = inputs(name, history, about)
    z = call(x).astype(np.float64)

    def unscaled(values: Array) -> list[float]:
        told = values[0] * spread + centre
        return list(map(float, np.expm1(told) if about["log"] else told))

    intervals = {}
    for level, margin in margins.items():
        low, high = interval(z, margin, level)
        intervals[f"{level:g}"] = Interval(low=unscaled(low), high=unscaled(high))
    dates = [moment.isoformat() for moment in ahead]
    forecast = unscaled(metrics.quantile(z, 0.5))
    return Answer(dates=dates, forecast=forecast, intervals=intervals)


def inputs(
    name: str, history: History, about: Mapping[str, Any]
) -> tuple[dict[str, Array], float, float, pd.DatetimeIndex]:
    """What the model reads of a history, its centre and spread, and the dates to forecast.

    Raises:
        ServedError: names the history and what does not fit: unequal steps, a value that is
            missing, too few of them, or a covariate that is missing, unknown or of another length.
    """
    window, horizon, frequency = about["window"], about["horizon"], about["frequency"]
    count = len(history.dates)
    if len(history.values) != count:
        raise RequestError(f"{name}: {count} dates, but {len(history.values)} values")
    if count < window:
        raise RequestError(f"{name}: {count} values are too short; the model reads {window}")
    times = pd.to_datetime(pd.Series(history.dates), format="ISO8601", errors="coerce")
    if times.isna().any():
        place = int(np.flatnonzero(times.isna())[0])
        raise RequestError(f"{name}: date {place}: {history.dates[place]!r} is not ISO 8601")
    grid = pd.date_range(times.iloc[0], periods=count + horizon, freq=frequency, unit="s")
    wrong = np.flatnonzero(times.to_numpy("datetime64[s]") != grid[:count].to_numpy())
    if len(wrong):
        place = int(wrong[0])
        raise RequestError(
            f"{name}: date {place}: {history.dates[place]}, where equal steps of frequency "
            f"{frequency} give {grid[place].isoformat()}; fill gaps and remove what is twice"
        )
    values = np.array(history.values, np.float64)
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        raise RequestError(f"{name}: value {place}, of {history.dates[place]}, is not a number")
    if about["log"] and values.min() <= -1:
        raise RequestError(f"{name}: {values.min()} has no logarithm of 1 + value")
    scaled = (np.log1p(values) if about["log"] else values)[None, -window:]
    if about["per"] == "window":
        centre, spread = (float(part.item()) for part in scale(scaled, about["scaling"]))
    else:
        known = about["series"]
        asked = known[0] if history.series is None and len(known) == 1 else history.series
        if asked not in known:
            raise RequestError(f"{name}: series {asked!r} is not known; {near(str(asked), known)}")
        centre, spread = (about[part][known.index(asked)] for part in ("centre", "spread"))
    codes, calendar = about["codes"], about["calendar"]
    _, dated = features.calendar(
        grid, calendar["kinds"], calendar["country"], calendar["subdivision"]
    )
    past = _coded(name, "past", codes["past"], history.past, count)[-window:]
    ahead = np.concatenate(
        [_coded(name, "known", codes["known"], history.known, count + horizon), dated], axis=1
    )
    target = ((scaled[0] - centre) / spread)[:, None]
    before = ahead[count - window : count]
    x = {"past": np.concatenate([target, past, before], axis=1, dtype=np.float32)[None]}
    if ahead.shape[1]:
        x["future"] = ahead[None, count:].astype(np.float32)
    if codes["static"]:
        single = {column: [cell] for column, cell in history.static.items()}
        x["static"] = _coded(name, "static", codes["static"], single, 1)
    return x, centre, spread, grid[count:]


def _coded(
    name: str,
    part: str,
    codes: list[dict[str, Any]],
    given: Mapping[str, Sequence[Cell]],
    count: int,
) -> Array:
    """Covariates as features, float32 (count, feature)."""
    wanted = [code["column"] for code in codes]
    if unknown := sorted(set(given) - set(wanted)):
        raise RequestError(f"{name}: {part}: unknown {unknown[0]!r}; {near(unknown[0], wanted)}")
    tables = [np.zeros((count, 0), np.float32)]
    for code in codes:
        column = code["column"]
        if column not in given:
            raise RequestError(f"{name}: {part}: {column!r} is missing")
        if len(given[column]) != count:
            raise RequestError(
                f"{name}: {part}: {column!r} has {len(given[column])} values, not {count}"
            )
        cells = np.array([str(cell) for cell in given[column]], object)
        tables.append(features.encode(features.Coding(**code), cells)[0])
    return np.concatenate(tables, axis=1)


def questions(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Windows of the test split as somebody would ask them, by key, from the raw files.

    Dirt is repaired by the rules that prepare went by.
    """
    source, about = (store.read_json(folder / "manifest.json") for folder in (raw, prepared))
    columns = source.get("columns", {"past": [], "known": [], "static": []})
    found: dict[str, dict[str, Any]] = {}
    asked = [str(key).rpartition("@") for key in keys]
    for series in read(raw, source, Rules(**about["rules"]), Told(), 1.0):
        size = len(series.target) + about["horizon"]
        grid = pd.date_range(series.first, periods=size, freq=source["frequency"], unit="s")
        for name, _, moment in asked:
            origin = int(grid.searchsorted(pd.Timestamp(moment)))
            if name != series.name or origin < about["window"]:
                continue
            seen = slice(origin - about["window"], origin)
            told = slice(seen.start, origin + about["horizon"])
            found[f"{name}@{moment}"] = {
                "dates": [at.isoformat() for at in grid[seen]],
                "values": series.target[seen].tolist(),
                "series": name,
                "past": {c: series.covariates[c][seen].tolist() for c in columns["past"]},
                "known": {c: series.covariates[c][told].tolist() for c in columns["known"]},
                "static": {c: series.covariates[c][0] for c in columns["static"]},
            }
    return found


def arrays(
    answers: Sequence[Mapping[str, Any]], truth: Sequence[Sequence[float]], classes: Sequence[str]
) -> dict[str, Array]:
    """Answers as evaluation keeps them: truth and forecast.

    Bounds have no counterpart there: evaluation moves them from origin to origin.

    Args:
        answers: of ``load``'s function.
        truth: what came true of each.
        classes: nothing here: forecasts have none.
    """
    return {
        "truth": np.array(truth, np.float64),
        "forecast": np.array([answer["forecast"] for answer in answers]),
    }
