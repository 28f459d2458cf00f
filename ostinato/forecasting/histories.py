"""Histories of series as requests hold them, and what a model reads of them.

Dates, gaps, numbers and categories are read by the functions that read the training data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Integer
from pydantic import BaseModel, ConfigDict, Field

from ostinato.errors import DataError, RequestError
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.cleaning import time_zone
from ostinato.forecasting.dataset.gaps import Regular, refused_gaps, rule_of, to_regular
from ostinato.forecasting.dataset.grid import to_periods
from ostinato.forecasting.dataset.windows import Inputs, fit_scale, model_inputs, to_model_units
from ostinato.forecasting.formats import times as formats
from ostinato.forecasting.formats.layout import COVARIATES, Covariates, Details
from ostinato.forecasting.formats.numbers import Cell
from ostinato.forecasting.formats.table import shorten
from ostinato.params import near

MAX_STEPS = 100_000  # of a history
SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST = float(np.finfo(np.float32).max)  # that a model reads, scaled


class Input(BaseModel):
    """A series up to the origin, at the frequency of the training data.

    Missing steps are filled by the rule of the training data (`prepare`'s gaps and longest_gap).
    """

    model_config = ConfigDict(extra="forbid")

    dates: list[str] = Field(
        description="ISO 8601, in order; times with Z or an offset become wall times of the "
        "model's time zone"
    )
    values: list[float | None] = Field(
        description="one for each date, null where it is missing; with the filled steps at least "
        "as many as the model's window"
    )
    series: str | None = Field(
        None, description="name of the series, where the model was trained on several"
    )
    past_covariates: dict[str, list[Cell]] = Field({}, description="one value for each date")
    future_covariates: dict[str, list[Cell]] = Field(
        {}, description="one value for each date and for each step of the horizon"
    )
    static_covariates: dict[str, Cell] = Field({}, description="one value for the series")


@dataclass(frozen=True)
class PreparedInput:
    """What a model reads of one history.

    Args:
        inputs: of the model.
        centre: of the scale.
        spread: of the scale.
        times: of the horizon.
        warnings: of the response.
    """

    inputs: Inputs
    centre: Float[np.ndarray, "1 1"]
    spread: Float[np.ndarray, "1 1"]
    times: pd.DatetimeIndex
    warnings: list[str]


def prepare_input(name: str, history: Input, details: Details) -> PreparedInput:
    """Turn a history into what a model reads, by the functions that training calls.

    Args:
        name: of the history, for errors.
        history: of a request.
        details: of the training data.

    Raises:
        RequestError: a date that is none or not on the grid, a gap that the rules of the training
            data refuse, too few or too many values, an unknown series, or a covariate that is
            missing, unknown, no number or of another length.
    """
    window, horizon = details.window, details.horizon
    grid, steps = _read_dates(name, history, details)
    size = int(steps[-1]) + 1
    regular = _fill(name, history, details, grid, steps)
    count = len(regular.target)
    if count < window:
        raise RequestError(f"{name}: {count} values are too few; the model reads {window} steps")
    values = to_model_units(regular.target[None, -window:], log=details.log)
    if details.per == "window":
        centre, spread = fit_scale(values, details.scaling)
    else:
        index = _series_index(name, history, details)
        centre = np.array([[details.centre[index]]])
        spread = np.array([[details.spread[index]]])
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values - centre) / spread
    if not (np.abs(scaled) <= LARGEST).all():
        raise RequestError(
            f"{name}: values: found {np.abs(regular.target).max():g}; expected the magnitude of "
            "the training data"
        )
    try:
        _, calendar = features.calendar(grid[regular.begin :], details.calendar)
    except (ValueError, OverflowError, NotImplementedError) as error:
        raise RequestError(f"{name}: dates: {grid[0]} to {grid[-1]}: {error}") from None
    past = steps - regular.begin
    given: dict[Covariates, tuple[Mapping[str, Sequence[Cell]], np.ndarray, int]] = {
        "past": (history.past_covariates, past, count),
        "future": (
            history.future_covariates,
            np.concatenate([past, count + np.arange(horizon)]),
            count + horizon,
        ),
        "static": ({c: [v] for c, v in history.static_covariates.items()}, np.zeros(1, int), 1),
    }
    tables = {}
    warnings: list[str] = []
    for kind in COVARIATES:
        tables[kind], unknown = _encode(name, kind, details, *given[kind])
        warnings += unknown
    inputs = model_inputs(
        scaled,
        tables["past"][None, -window:],
        np.concatenate([tables["future"], calendar], axis=1)[None, count - window :],
        tables["static"],
    )
    return PreparedInput(inputs, centre, spread, grid[size:], warnings)


def _read_dates(
    name: str, history: Input, details: Details
) -> tuple[pd.DatetimeIndex, Integer[np.ndarray, " date"]]:
    """The grid from the first date over the horizon, and the step of each date."""
    count, rules = len(history.dates), details.rules
    if len(history.values) != count:
        raise RequestError(f"{name}: {count} dates, but {len(history.values)} values")
    if not count:
        raise RequestError(f"{name}: 0 values are too few; the model reads {details.window} steps")
    if count > MAX_STEPS:
        raise RequestError(f"{name}: {count:,} dates are too many; expected at most {MAX_STEPS:,}")
    times = read_times(name, history.dates, rules.timezone)
    longest = 1 + (0 if rules.gaps == "refuse" else rules.longest_gap)
    if details.stamps == "period":
        times = to_periods(times, details.frequency)
    size = min(count * longest, 2 * MAX_STEPS) + details.horizon
    try:
        grid = pd.date_range(times.iloc[0], periods=size, freq=details.frequency, unit="s")
        steps = grid.get_indexer(pd.DatetimeIndex(times))
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{name}: dates: from {history.dates[0]} on: {error}") from None
    distance = np.diff(steps, prepend=-1)
    wrong = np.flatnonzero((steps < 0) | (distance <= 0) | (distance > longest))
    if len(wrong):
        index = int(wrong[0])
        expected = grid[int(steps[index - 1]) + 1 if index else 0]
        raise RequestError(_not_on_grid(name, history, details, index, expected))
    return grid[: int(steps[-1]) + 1 + details.horizon], steps


def _not_on_grid(
    name: str, history: Input, details: Details, index: int, expected: pd.Timestamp
) -> str:
    """The error of a date that is not the next step."""
    return (
        f"{name}: date {index}: {shorten(history.dates[index])}, where equal steps of frequency "
        f"{details.frequency} give {expected.isoformat()}; dates are in order, without duplicates, "
        f"and the model's {rule_of(details.rules)}"
    )


def read_times(name: str, dates: Sequence[str], timezone: str | None) -> "pd.Series[pd.Timestamp]":
    """Wall times, read as those of the training data.

    Where the model has no time zone, all offsets have to be the same; the wall time then counts.
    """
    for index, date in enumerate(dates):
        if SURROGATE.search(date):  # JSON can name one alone, and pandas holds text as UTF-8
            raise RequestError(f"{name}: date {index}: {shorten(date)!r} is not ISO 8601")
    text = pd.Series(list(dates), dtype=str).str.strip()
    if timezone is None and formats.offsets(text, None).any():
        text, found = formats.without_offsets(text)
        if len(found) > 1:
            listed = ", ".join(offset or "none" for offset in found)
            raise RequestError(
                f"{name}: dates: found the offsets {listed}; the model has no time zone to convert "
                "them to; write wall times without an offset"
            )
    try:
        times = formats.parse(text, None, time_zone(timezone))
    except DataError as error:
        raise RequestError(f"{name}: dates: {error}") from None
    if times.isna().any():
        index = int(np.flatnonzero(times.isna())[0])
        raise RequestError(f"{name}: date {index}: {shorten(dates[index])!r} is not ISO 8601")
    return times


def _fill(
    name: str,
    history: Input,
    details: Details,
    grid: pd.DatetimeIndex,
    steps: Integer[np.ndarray, " date"],
) -> Regular:
    """The values on regular steps, with their gaps filled as those of the training data."""

    listed = history.values  # noqa: PD011 - not of pandas

    def no_number(index: int) -> str:
        value = listed[index]
        fault = "is not a number"
        if value is not None and np.isfinite(value):
            fault = f"is {value:g}, which means a missing value in the training data"
        return f"{name}: value {index}, of {shorten(history.dates[index])}, {fault}"

    given = np.array([value is not None for value in listed])
    values = np.array([np.nan if v is None else v for v in listed], np.float64)
    if len(wrong := np.flatnonzero(given & ~np.isfinite(values))):
        raise RequestError(f"{no_number(int(wrong[0]))}; write null where a value is missing")
    values[[details.notation.is_missing(value) for value in listed]] = np.nan
    if details.log and np.nanmin(values, initial=0.0) <= -1:
        raise RequestError(
            f"{name}: value {np.nanmin(values)}: the model reads log(1 + value), so values must be "
            "above -1"
        )
    regular = to_regular(steps, values, {}, details.rules)
    if regular is None or regular.begin + len(regular.target) < int(steps[-1]) + 1:
        raise RequestError(f"{no_number(len(values) - 1)}; a history ends with a measured value")
    for start, end in refused_gaps(regular.observed, details.rules):
        step = regular.begin + start
        index = int(np.searchsorted(steps, step))
        if steps[index] > step:  # there is no such date
            raise RequestError(_not_on_grid(name, history, details, index, grid[step]))
        raise RequestError(
            f"{no_number(index)}, {end - start} steps are missing, and the model's "
            f"{rule_of(details.rules)}"
        )
    return regular


def _series_index(name: str, history: Input, details: Details) -> int:
    """The index of the history's series; the only one where none is named."""
    names = details.series
    series = names[0] if history.series is None and len(names) == 1 else history.series
    if series not in names:
        raise RequestError(
            f"{name}: unknown series {shorten(str(series))!r}; {shorten(near(str(series), names))}"
        )
    return names.index(series)


def _encode(
    name: str,
    kind: Covariates,
    details: Details,
    columns: Mapping[str, Sequence[Cell]],
    steps: Integer[np.ndarray, " cell"],
    size: int,
) -> tuple[Float32[np.ndarray, "step feature"], list[str]]:
    """Covariates of one kind as features of regular steps, and a warning for unknown categories.

    Args:
        name: of the input, for errors.
        kind: of the covariates.
        details: of the training data.
        columns: cells of the request by column.
        steps: of the cells; those below 0 are left out.
        size: number of steps.
    """
    codings, field = details.codings[kind], f"{kind}_covariates"
    wanted = [coding.column for coding in codings]
    if unknown := sorted(set(columns) - set(wanted)):
        first = shorten(unknown[0])
        raise RequestError(f"{name}: {field}: unknown {first!r}; {near(first, wanted)}")
    tables, warnings = [np.zeros((size, 0), np.float32)], []
    used = np.flatnonzero(steps >= 0)
    for coding in codings:
        if coding.column not in columns:
            raise RequestError(f"{name}: {field}: {coding.column!r} is missing")
        cells = columns[coding.column]
        if len(cells) != len(steps):
            raise RequestError(
                f"{name}: {field}: {coding.column!r} has {len(cells)} values, not {len(steps)}"
            )
        regular: list[Cell] = [""] * size
        for place in used.tolist():
            regular[int(steps[place])] = cells[place]
        with np.errstate(over="ignore"):
            table, unread = features.encode(coding, regular, details.notation)
        at = f"{name}: {field}: {coding.column!r}"
        given = used[np.isin(steps[used], unread)]  # indices in the request
        if coding.categories is None and len(given):
            index = int(given[0])
            cell = shorten(str(cells[index]))
            raise RequestError(f"{at}: value {index}: found {cell!r}; expected a number")
        if not np.isfinite(table).all():
            raise RequestError(f"{at}: expected numbers of the magnitude of the training data")
        if len(given):
            index = int(given[0])
            cell = shorten(str(cells[index]))
            warnings.append(
                f"{field}: {coding.column!r}: the model knows no category {cell!r} (value "
                f"{index}; {len(given)} such values in all); "
                f"{shorten(near(cell, coding.categories or []))}"
            )
        tables.append(table)
    return np.concatenate(tables, axis=1), warnings
