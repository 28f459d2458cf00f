"""Features of a step: the calendar, and covariates that are numeric or categorical.

Whatever is learned here (scales, categories) is learned from training rows only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import holidays
import numpy as np
import pandas as pd
from jaxtyping import Float32, Integer, Shaped

from ostinato.errors import DataError
from ostinato.forecasting.formats.layout import CalendarFeatures, Coding
from ostinato.forecasting.formats.numbers import Cell, Notation, propose
from ostinato.forecasting.formats.table import shorten

HARMONICS = 2  # of the year and of the day
SECONDS_OF_YEAR, SECONDS_OF_DAY = 365.2425 * 86_400, 86_400
MAX_CATEGORIES = 100  # of a column of words
MAX_CODES = 20  # of a column of numbers and words
UNKNOWN = -1  # the index of a category that the training part does not have
JSON_NUMBERS = Notation()


def calendar(
    times: pd.DatetimeIndex, wanted: CalendarFeatures
) -> tuple[list[str], Float32[np.ndarray, "step feature"]]:
    """Names and values of the features of times; all values are between -1 and 1.

    weekday: one column for each day of the week. year, hour: two harmonics of the time of the
    year, of the day. holiday: whether the day, the next day or the day before is a holiday.
    day_type: working day, Saturday, or Sunday or holiday.

    Raises:
        ValueError: ``holiday`` or ``day_type`` without a country that ``holidays`` knows.
    """
    columns: dict[str, np.ndarray] = {}
    seconds = times.to_numpy().astype("datetime64[s]").astype(np.int64)
    if "weekday" in wanted.kinds:
        columns |= {f"weekday {day}": times.day_of_week.to_numpy() == day for day in range(7)}
    for kind, length in (("year", SECONDS_OF_YEAR), ("hour", SECONDS_OF_DAY)):
        for harmonic in range(1, HARMONICS + 1) if kind in wanted.kinds else ():
            phase = 2 * np.pi * harmonic * seconds / length
            columns |= {f"{kind} sin {harmonic}": np.sin(phase)}
            columns |= {f"{kind} cos {harmonic}": np.cos(phase)}
    if "holiday" in wanted.kinds or "day_type" in wanted.kinds:
        country = wanted.country
        if country not in holidays.list_supported_countries():
            raise ValueError(f"country: `holidays` has no country {country!r}; use an ISO code")
        years = range(times[0].year - 1, times[-1].year + 2)
        listed = holidays.country_holidays(country, wanted.subdivision, years=years)
        dates = pd.DatetimeIndex(sorted(listed))
        days, one_day = times.normalize(), pd.Timedelta(days=1)
        holiday = days.isin(dates)
        if "holiday" in wanted.kinds:
            columns["holiday"] = holiday
            columns["before a holiday"] = (days + one_day).isin(dates)
            columns["after a holiday"] = (days - one_day).isin(dates)
        if "day_type" in wanted.kinds:
            sunday = holiday | (times.day_of_week == 6)
            columns["working day"] = ~sunday & (times.day_of_week < 5)
            columns["saturday"] = ~sunday & (times.day_of_week == 5)
            columns["sunday or holiday"] = sunday
    table = np.zeros((len(times), len(columns)), np.float32)
    for number, column in enumerate(columns.values()):
        table[:, number] = column
    return list(columns), table


def learn_coding(
    column: str,
    cells: Shaped[np.ndarray, " row"],
    notation: Notation,
    place: Callable[[int], str],
) -> Coding:
    """Learn the coding of a column from its training cells.

    The column is numeric where every cell is a number or missing. Else it is one of categories: of
    at most `MAX_CODES`, or, where no cell is a number and each occurs twice on average, of at most
    `MAX_CATEGORIES`.

    Args:
        column: its name.
        cells: text.
        notation: of numbers and missing values.
        place: names the file and the row of a cell by its index.

    Raises:
        DataError: the column is neither, or its numbers have another notation.
    """
    codes, distinct = pd.factorize(pd.Series(cells, dtype=object))
    numbers = [notation.number(cell) for cell in distinct]
    values = np.array(numbers, float)[codes]  # NaN where there is no number
    if all(number is not None for number in numbers):
        known = values[np.isfinite(values)]
        if len(known):
            return Coding(column, None, float(known.mean()), float(known.std()) or 1.0)
    categories = sorted(str(cell) for cell in distinct if not notation.is_missing(cell))
    texts = [cell for cell, number in zip(distinct, numbers, strict=True) if number is None]
    if not texts:
        return Coding(column, categories, 0.0, 1.0)
    row = place(int(np.argmax(np.array([number is None for number in numbers])[codes])))
    shown = f"{row}: column {column!r}: found {shorten(str(texts[0]))!r}"
    valued = [str(c) for c, n in zip(distinct, numbers, strict=True) if n is None or np.isfinite(n)]
    if other := propose(valued, notation):
        raise DataError(f"{shown}, which is no number; {other}")
    limit = MAX_CATEGORIES if len(texts) == len(valued) else MAX_CODES
    count = int((~np.array([notation.is_missing(cell) for cell in distinct])[codes]).sum())
    if len(categories) <= MAX_CODES or len(categories) <= min(limit, count // 2):
        return Coding(column, categories, 0.0, 1.0)
    what = "" if limit == MAX_CATEGORIES else ", some of which are numbers"
    raise DataError(
        f"{shown}, which is no number, and the column has {len(categories):,} different cells in "
        f"{count:,} training rows{what}; expected numbers alone, or at most {limit} categories "
        "that occur twice on average; correct the column, name its words for a missing value in "
        "the source's missing, or leave it out of the covariates"
    )


def encode(
    coding: Coding, cells: Sequence[Cell] | Shaped[np.ndarray, " step"], notation: Notation
) -> tuple[Float32[np.ndarray, "step feature"], Integer[np.ndarray, " unread"]]:
    """Encode cells in order of time; also return the indices of those that the coding cannot read.

    A missing or unreadable number takes the last known one, at the beginning the mean. A missing
    category takes the last one. A category that is not in the training part has no feature.

    Args:
        coding: of the column.
        cells: texts of a file, or values of a request, which mean the same: 1, 1.0 and true are the
            cells "1" and "True".
        notation: of the numbers in texts.
    """
    codes, distinct = pd.factorize(pd.Series(list(cells), dtype=object), use_na_sentinel=False)
    if coding.categories is None:
        numbers = [notation.number(_plain(cell)) for cell in distinct]
        unread = np.array([number is None for number in numbers], bool)[codes]
        values = pd.Series(np.array(numbers, float)[codes]).ffill().fillna(coding.centre).to_numpy()
        table = ((values - coding.centre) / coding.spread).astype(np.float32)[:, None]
        return table, np.flatnonzero(unread)
    missing = np.array([notation.is_missing(_plain(cell)) for cell in distinct], bool)[codes]
    index = np.array([category(coding, _plain(cell)) for cell in distinct], int)[codes]
    last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(codes))))  # with a cell
    index = np.where(last < 0, UNKNOWN, index[np.maximum(last, 0)])
    flags = index[:, None] == np.arange(len(coding.categories))
    return flags.astype(np.float32), np.flatnonzero((index == UNKNOWN) & ~missing)


def category(coding: Coding, cell: Cell) -> int:
    """The index of the category that a cell means, or `UNKNOWN`.

    It is the category with this text, or else the only one that means the same value.
    """
    categories = coding.categories or []
    if isinstance(cell, str) and cell in categories:
        return categories.index(cell)
    value = _value(cell)
    same = [i for i, each in enumerate(categories) if value is not None and _value(each) == value]
    return same[0] if len(same) == 1 else UNKNOWN


def _value(cell: Cell) -> float | None:
    """The number that a cell means; the words true and false are 1 and 0."""
    if isinstance(cell, str) and cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    return JSON_NUMBERS.read(cell)


def _plain(cell: Any) -> Cell:
    """A cell as Python's own type; None where pandas has its sign for a missing value."""
    if isinstance(cell, str | bool | int | float):
        return cell
    return None if cell is None or pd.isna(cell) else cell.item()
