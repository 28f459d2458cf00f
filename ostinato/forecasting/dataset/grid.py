"""The regular grid of times on which all series lie."""

from typing import Any

import numpy as np
import pandas as pd

from ostinato.errors import DataError
from ostinato.forecasting.dataset.report import ReadReport
from ostinato.forecasting.formats.layout import Stamps

MAX_STEPS = 10_000_000  # of a grid
NAMED_BY_END = (
    *(pd.offsets.Week, pd.offsets.MonthEnd, pd.offsets.QuarterEnd, pd.offsets.YearEnd),
    *(pd.offsets.BMonthEnd, pd.offsets.BQuarterEnd, pd.offsets.BYearEnd),
)


def to_grid(
    file: str,
    column: str,
    times: "pd.Series[pd.Timestamp]",
    frequency: str,
    stamps: Stamps,
    report: ReadReport,
) -> tuple["pd.Series[int]", pd.DatetimeIndex]:
    """The steps of times on the grid that begins with the first of them, and the grid.

    Args:
        file: name of the file.
        column: of the times.
        times: by row of the file.
        frequency: of the steps, as pandas names it.
        stamps: exact: each time lies on the grid; period: each time lies anywhere in its period.
        report: gets the times that are not on the grid.

    Raises:
        DataError: the grid would be longer than `MAX_STEPS`.
    """
    if times.empty:
        return pd.Series(dtype=int), pd.DatetimeIndex([])
    if stamps == "period":
        times = to_periods(times, frequency)
    _check_length(file, times, frequency)
    grid = pd.date_range(times.min(), times.max(), freq=frequency, unit="s")
    steps = pd.Series(grid.get_indexer(pd.DatetimeIndex(times)), times.index)
    off_grid = times[steps < 0]
    if len(off_grid):
        begins = f"begins at {grid[0]}" if len(grid) else "has no time from the first to the last"
        reason = (
            f"not on the grid of frequency {frequency}, which {begins}{_hint(times, frequency)}"
        )
        for row, time in off_grid.items():
            report.reject(file, int(str(row)), column, str(time), reason)
    return steps[steps >= 0], grid


def to_periods(times: "pd.Series[pd.Timestamp]", frequency: str) -> "pd.Series[pd.Timestamp]":
    """The time of the grid that stands for the period in which each time lies.

    It is the begin of the period, but its end where the frequency is named by the end: weeks, and
    ME, QE and YE.
    """
    offset: Any = pd.tseries.frequencies.to_offset(frequency)
    if isinstance(offset, pd.offsets.Tick):
        return times.dt.floor(frequency)
    days = times.dt.normalize()
    first, last = days.min() - 2 * offset, days.max() + 2 * offset
    grid = pd.date_range(first, last, freq=frequency, unit="s")
    if isinstance(offset, NAMED_BY_END):
        index = grid.searchsorted(pd.DatetimeIndex(days), side="left")
    else:
        index = grid.searchsorted(pd.DatetimeIndex(days), side="right") - 1
    return pd.Series(grid[index], times.index)


def _check_length(file: str, times: "pd.Series[pd.Timestamp]", frequency: str) -> None:
    """Raise an error, before the grid is made, where it would be too long."""
    first, second = pd.date_range(times.min(), periods=2, freq=frequency, unit="s")
    steps = (times.max() - times.min()) / (second - first)
    if steps <= MAX_STEPS:
        return
    ordered = times.sort_values(kind="stable")
    widest = int(np.argmax(np.diff(ordered.to_numpy())))
    odd, other = widest + 1, widest
    if odd > len(ordered) / 2:
        found, nearest = odd, other
    else:
        found, nearest = other, odd
    raise DataError(
        f"{file}:{ordered.index[found]}: found the time {ordered.iloc[found]}; the nearest other "
        f"is {ordered.iloc[nearest]} (row {ordered.index[nearest]}), and the times of the file "
        f"span {steps:,.0f} steps of frequency {frequency}, of at most {MAX_STEPS:,}; correct its "
        "year, or the source's frequency"
    )


def _hint(times: "pd.Series[pd.Timestamp]", frequency: str) -> str:
    """What to set instead, where the times have another frequency or lie within their periods."""
    distinct = pd.DatetimeIndex(times.unique()).sort_values()
    if len(distinct) < 3:
        return ""
    with pd.option_context("future.infer_freq_returns_offset", True):
        guess: Any = pd.infer_freq(distinct)
    if guess is not None:
        return f"; the times look like frequency: {guess.freqstr}"
    periods = to_periods(pd.Series(distinct), frequency)
    if periods.is_unique:
        return (
            f"; each time lies in a period of its own: set stamps: period if {frequency} is right"
        )
    return ""
