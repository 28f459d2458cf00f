"""Dates and times as tables and requests write them; one reader for both."""

import re
from collections.abc import Sequence
from itertools import product
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from jaxtyping import Bool

from ostinato.errors import DataError
from ostinato.forecasting.formats.numbers import Notation

EPOCHS = {"epoch": 1, "epoch_ms": 1000, "epoch_us": 1_000_000, "epoch_ns": 1_000_000_000}
"""Values of ``date_format`` for numbers since 1970-01-01 UTC, and how many are a second."""

EXCEL = "excel"
"""The value of ``date_format`` for the serial numbers of Excel: days since 1899-12-30."""

WITH_OFFSET = re.compile(
    r"(?P<wall>.*[T ]\d\d(?::?\d\d){0,2}(?:[.,]\d+)?)\s*(?P<offset>Z|[+-]\d\d(?::?\d\d)?)"
    r"|(?P<date>.*\d)Z"
)
"""A time of ISO 8601 with an offset from UTC."""

UTC_NAME = re.compile(r"(?<=\d) ?(?:UTC|GMT)$")
HOUR_24 = re.compile(r"(?<!\d)24(?!\d)|(?<=T)24(?=00)")
ISO_DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")
SECONDS_OF_DAY, EXCEL_TO_1970 = 86_400, 25_569
MAX_SECONDS = 250_000_000_000  # since 1970: the year 9892
MAX_PROPOSED = 10_000  # distinct cells that proposals of a format look at

DATE_FORMATS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d, %Y"),
    *("%d %B %Y", "%B %d, %Y", "%Y%m", "%m/%Y", "%b %Y", "%b-%y", "%Y%m%d"),
)
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H.%M", " %H.%M.%S", " %I:%M %p", " %I:%M:%S %p")


def offsets(text: "pd.Series[str]", date_format: str | None) -> Bool[np.ndarray, " cell"]:
    """Whether each time has an offset from UTC."""
    if date_format is None:
        plain = text.str.replace(UTC_NAME, "Z", regex=True)
        return plain.str.fullmatch(WITH_OFFSET).to_numpy(bool)
    return np.full(len(text), "%z" in date_format)


def without_offsets(text: "pd.Series[str]") -> tuple["pd.Series[str]", list[str]]:
    """Times of ISO 8601 without their offsets, and the distinct offsets; "" where none is."""
    walls, found = [], set()
    for cell in text.str.replace(UTC_NAME, "Z", regex=True):
        match = WITH_OFFSET.fullmatch(cell)
        walls.append((match["wall"] or match["date"]) if match else cell)
        found.add((match["offset"] or "Z") if match else "")
    return pd.Series(walls, text.index, dtype=str), sorted(found)


def parse(
    text: "pd.Series[str]", date_format: str | None, zone: ZoneInfo | None
) -> "pd.Series[pd.Timestamp]":
    """Wall times of distinct texts; NaT where a text is no time.

    24:00 is the midnight at the end of a day (ISO 8601:1988). Times with an offset, and numbers
    since 1970, become wall times of the zone; without a zone, of UTC.

    Args:
        text: of the times.
        date_format: as for ``strftime``, or one of `EPOCHS` or `EXCEL`; None: ISO 8601.
        zone: whose wall time is wanted.

    Raises:
        DataError: the format is none.
    """
    if date_format in EPOCHS or date_format == EXCEL:
        return _parse_numbers(text, date_format, zone)
    wall = _parse_texts(text, date_format, zone)
    for index in np.flatnonzero(wall.isna().to_numpy()).tolist():
        midnight = _end_of_day(text.iloc[index], date_format, zone)
        if midnight is not None:
            wall.iloc[index] = midnight
    return wall


def propose(cells: Sequence[str]) -> str:
    """The values of ``date_format`` that fit at least half of the texts; "" where none does."""
    text = pd.Series(sorted(set(cells))[:MAX_PROPOSED], dtype=str)
    lengths = text[text.str.fullmatch(r"\d+")].str.len()
    for name, digits in ((EXCEL, (5,)), ("epoch", (9, 10)), ("epoch_ms", (12, 13)),
                         ("epoch_us", (15, 16)), ("epoch_ns", (18, 19))):  # fmt: skip
        if 2 * lengths.isin(digits).sum() >= len(text):
            return f"; set date_format: {name}, if these are {_numbers(name)}"
    probes, fits = text.iloc[:: max(1, len(text) // 3)], {}
    for date, time in product(DATE_FORMATS, TIME_FORMATS):
        if _parse_texts(probes, date + time, None).notna().any():
            fits[date + time] = int(parse(text, date + time, None).notna().sum())
    best = max(fits.values(), default=0)
    if 2 * best < len(text) or not best:
        return ""
    listed = [f"'{name}'" for name, count in fits.items() if count == best]
    return f"; set date_format: {' or '.join(listed)}"


def read_iso(key: str, text: str) -> pd.Period:
    """The period that a date of params.yaml names: a year, a month, a day, an hour ...

    Only ISO 8601 is read: 01/02/2020 is another day in America than in Europe.

    Raises:
        DataError: it is no date of ISO 8601.
    """
    try:
        if ISO_DATE.fullmatch(text):
            return pd.Period(text)
    except ValueError:
        pass
    raise DataError(
        f"prepare: {key}: {text!r} is not a date such as 2014-12-31 or 2014-12-31 18:00"
    )


def _numbers(name: str) -> str:
    """What the numbers of a format count."""
    units = {"epoch": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds",
             "epoch_ns": "nanoseconds"}  # fmt: skip
    return f"{units[name]} since 1970" if name in units else "the day numbers of Excel"


def _parse_numbers(
    text: "pd.Series[str]", date_format: str, zone: ZoneInfo | None
) -> "pd.Series[pd.Timestamp]":
    """Wall times of numbers of seconds since 1970, or of Excel's days."""
    plain = Notation()
    values = np.array([np.nan if (v := plain.read(cell)) is None else v for cell in text], float)
    if date_format == EXCEL:
        seconds = np.round((values - EXCEL_TO_1970) * SECONDS_OF_DAY)
        seconds[values < 61] = np.nan  # Excel has a 29 February 1900 before
    else:
        seconds = np.floor(values / EPOCHS[date_format])
    seconds[~(np.abs(seconds) < MAX_SECONDS)] = np.nan
    known = np.isfinite(seconds)
    times = np.full(len(seconds), np.datetime64("NaT", "s"))
    times[known] = seconds[known].astype(np.int64).astype("datetime64[s]")
    wall = pd.Series(times, text.index)
    if zone is None or date_format == EXCEL:
        return wall
    moments = pd.DatetimeIndex(wall).tz_localize("UTC").tz_convert(zone)
    return pd.Series(moments.tz_localize(None), text.index)


def _parse_texts(
    text: "pd.Series[str]", date_format: str | None, zone: ZoneInfo | None
) -> "pd.Series[pd.Timestamp]":
    """Wall times of texts that are dates of a format as they stand."""
    if date_format is None:
        text = text.str.replace(UTC_NAME, "Z", regex=True)
    elif "%Z" in date_format:
        raise DataError(
            f"date_format: {date_format!r}: names of time zones are not read, as several zones "
            "share one; write the name itself in place of %Z, or offsets as %z"
        )
    zoned = offsets(text, date_format)
    kind = "ISO8601" if date_format is None else date_format
    try:
        wall = pd.to_datetime(text.mask(zoned), format=kind, errors="coerce")
        wall = wall.dt.tz_localize(None).astype("datetime64[s]")
        if zoned.any():
            moments = pd.to_datetime(text[zoned], format=kind, errors="coerce", utc=True)
            local = moments.dt.tz_convert(zone or "UTC").dt.tz_localize(None)
            wall.loc[local.index] = local.astype("datetime64[s]")
    except (TypeError, ValueError, AttributeError) as error:
        hint = "; seconds since 1970 are date_format: epoch" if "%s" in str(date_format) else ""
        raise DataError(f"date_format: {date_format!r}: {error}{hint}") from None
    return wall


def _end_of_day(text: str, date_format: str | None, zone: ZoneInfo | None) -> pd.Timestamp | None:
    """The time of a text whose hour is 24: midnight of the next day."""
    for match in HOUR_24.finditer(text):
        as_midnight = f"{text[: match.start()]}00{text[match.end() :]}"
        wall = _parse_texts(pd.Series([as_midnight]), date_format, None).iloc[0]
        if pd.notna(wall) and wall == wall.normalize():
            moved = _parse_texts(pd.Series([as_midnight]), date_format, zone).iloc[0]
            end: pd.Timestamp = moved + pd.Timedelta(days=1)
            return end
    return None
