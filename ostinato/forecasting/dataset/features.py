"""Numbers that a network can read: the calendar, and covariates of any kind.

All that is learned here (a scale, the categories) is learned from training rows alone.
"""

from typing import Any, Literal, NamedTuple

import holidays
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[Any]
Calendar = Literal["weekday", "year", "hour", "holiday", "day_type"]

HARMONICS = 2  # of the year and of the day
SECONDS_OF_YEAR, SECONDS_OF_DAY = 365.2425 * 86_400, 86_400
NUMERIC = 0.5  # share of a column's values that must be numbers for it to be one of numbers


def calendar(
    at: pd.DatetimeIndex, kinds: list[Calendar], country: str | None, subdivision: str | None
) -> tuple[list[str], Array]:
    """Features of times, all in -1 to 1: names, and float32 (step, feature).

    weekday: one column for each day of the week. year, hour: two harmonics of the time of the
    year, of the day. holiday: whether the day is one, the day before and the day after is.
    day_type: whether it is a working day, a Saturday, or a Sunday or holiday.

    Raises:
        ValueError: ``holiday`` or ``day_type`` without a country that ``holidays`` knows.
    """
    columns: dict[str, Array] = {}
    seconds = at.to_numpy().astype("datetime64[s]").astype(np.int64)
    if "weekday" in kinds:
        columns |= {f"weekday {day}": at.day_of_week.to_numpy() == day for day in range(7)}
    for kind, length in (("year", SECONDS_OF_YEAR), ("hour", SECONDS_OF_DAY)):
        for harmonic in range(1, HARMONICS + 1) if kind in kinds else ():
            turn = 2 * np.pi * harmonic * seconds / length
            columns |= {f"{kind} sin {harmonic}": np.sin(turn)}
            columns |= {f"{kind} cos {harmonic}": np.cos(turn)}
    if "holiday" in kinds or "day_type" in kinds:
        if country not in holidays.list_supported_countries():
            raise ValueError(f"country: `holidays` knows none as {country!r}; give an ISO code")
        years = range(at[0].year - 1, at[-1].year + 2)
        listed = holidays.country_holidays(country, subdivision, years=years)
        free = pd.DatetimeIndex(sorted(listed))
        days, one = at.normalize(), pd.Timedelta(days=1)
        on = days.isin(free)
        if "holiday" in kinds:
            columns["holiday"] = on
            columns["before a holiday"] = (days + one).isin(free)
            columns["after a holiday"] = (days - one).isin(free)
        if "day_type" in kinds:
            rest = on | (at.day_of_week == 6)
            columns["working day"] = ~rest & (at.day_of_week < 5)
            columns["saturday"] = ~rest & (at.day_of_week == 5)
            columns["sunday or holiday"] = rest
    table = np.zeros((len(at), len(columns)), np.float32)
    for number, column in enumerate(columns.values()):
        table[:, number] = column
    return list(columns), table


class Coding(NamedTuple):
    """How a column becomes numbers."""

    column: str
    categories: list[str] | None  # one feature for each; None: the column is one of numbers
    centre: float
    spread: float

    @property
    def names(self) -> list[str]:
        """Of the features."""
        if self.categories is None:
            return [self.column]
        return [f"{self.column} {category}" for category in self.categories]


def learn(column: str, values: Array) -> Coding:
    """The coding of a column, from its training values, str (row,)."""
    given = values[values != ""]
    numbers = pd.to_numeric(pd.Series(given, dtype=str), errors="coerce").to_numpy(float)
    finite = numbers[np.isfinite(numbers)]
    if len(given) and len(finite) >= NUMERIC * len(given):
        return Coding(column, None, float(finite.mean()), float(finite.std()) or 1.0)
    return Coding(column, sorted({str(value) for value in given}), 0.0, 1.0)


def encode(coding: Coding, values: Array) -> tuple[Array, int]:
    """Values, str (step,), as float32 (step, feature), and how many were not understood.

    What is missing is what it was before, at the beginning the mean, or no category: the past
    alone fills gaps. A category that training never saw has no feature.
    """
    if coding.categories is None:
        numbers = pd.to_numeric(pd.Series(values, dtype=str), errors="coerce")
        numbers = numbers.where(np.isfinite(numbers))
        strange = int((numbers.isna().to_numpy() & (values != "")).sum())
        scaled = (numbers.ffill().fillna(coding.centre).to_numpy() - coding.centre) / coding.spread
        return scaled.astype(np.float32)[:, None], strange
    filled = pd.Series(values, dtype=object).replace("", None).ffill().to_numpy(object)
    flags = np.stack([filled == category for category in coding.categories], axis=-1)
    strange = (~flags.any(axis=1)) & (values != "")
    return flags.astype(np.float32), int(strange.sum())
