"""Features of a step: the calendar, and covariates that are numeric or categorical.

Whatever is learned here (scales, categories) is learned from training rows only.
"""

import holidays
import numpy as np
import pandas as pd
from jaxtyping import Float32, Shaped

from ostinato.forecasting.formats.layout import CalendarFeatures, Coding

HARMONICS = 2  # of the year and of the day
SECONDS_OF_YEAR, SECONDS_OF_DAY = 365.2425 * 86_400, 86_400
MIN_NUMERIC = 0.5  # share of a column's values that must be numbers for a numeric column


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


def learn_coding(column: str, cells: Shaped[np.ndarray, " row"]) -> Coding:
    """Learn the coding of a column from its training cells, which are text; "" is missing."""
    present = cells[cells != ""]
    numbers = pd.to_numeric(pd.Series(present, dtype=str), errors="coerce").to_numpy(float)
    finite = numbers[np.isfinite(numbers)]
    if len(present) and len(finite) >= MIN_NUMERIC * len(present):
        return Coding(column, None, float(finite.mean()), float(finite.std()) or 1.0)
    return Coding(column, sorted({str(cell) for cell in present}), 0.0, 1.0)


def encode(
    coding: Coding, cells: Shaped[np.ndarray, " step"]
) -> tuple[Float32[np.ndarray, "step feature"], int]:
    """Encode cells, in order of time; also return how many are unknown to the coding.

    A missing or unknown number takes the last known one, at the beginning the mean. A missing
    category takes the last one. A category that is not in the training part has no feature.
    """
    if coding.categories is None:
        numbers = pd.to_numeric(pd.Series(cells, dtype=str), errors="coerce")
        numbers = numbers.where(np.isfinite(numbers))
        unknown = int((numbers.isna().to_numpy() & (cells != "")).sum())
        scaled = (numbers.ffill().fillna(coding.centre).to_numpy() - coding.centre) / coding.spread
        return scaled.astype(np.float32)[:, None], unknown
    filled = pd.Series(cells, dtype=object).replace("", None).ffill().to_numpy(object)
    if not coding.categories:
        return np.zeros((len(cells), 0), np.float32), int((cells != "").sum())
    flags = np.stack([filled == category for category in coding.categories], axis=-1)
    not_learned = (~flags.any(axis=1)) & (cells != "")
    return flags.astype(np.float32), int(not_learned.sum())
