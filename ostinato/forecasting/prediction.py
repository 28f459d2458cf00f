"""Series in CSV or Parquet files with a row for each time; each series is one input.

A history ends with its last value. The rows after it hold the future covariates of the horizon. A
file is read whole, as in training.
"""

from collections.abc import Iterator, Sequence
from datetime import date as Date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from ostinato.errors import DataError
from ostinato.forecasting.dataset.cleaning import time_zone
from ostinato.forecasting.dataset.grid import to_periods
from ostinato.forecasting.dataset.layouts import read_columns
from ostinato.forecasting.dataset.report import ReadReport, describe
from ostinato.forecasting.formats import times as formats
from ostinato.forecasting.formats.layout import COVARIATES, Details
from ostinato.forecasting.formats.table import shorten
from ostinato.forecasting.histories import MAX_STEPS, Input
from ostinato.forecasting.serving import Response, Service
from ostinato.params import near
from ostinato.serving.prediction.records import Format, Key, Record, refused

TIME = "\0"  # the column of parsed times; no column of a file has this name


def read(
    path: Path,
    service: Service,
    *,
    date: str | list[str] = "date",
    date_format: str | None = None,
    series: str | None = None,
    target: str = "value",
) -> Iterator[Record]:
    """The series of a file, in the order in which their names appear.

    Args:
        path: of the file.
        service: whose covariates are the further columns.
        date: column of dates or times; several, such as [Date, Time], are joined by a space.
        date_format: of the dates, as for ``strftime``; without it ISO 8601.
        series: column of the series' names; without it the file is one series.
        target: column of the values.
    """
    details = service.details
    dates = [date] if isinstance(date, str) else date
    covariates = [coding.column for kind in COVARIATES for coding in details.codings[kind]]
    wanted = list(dict.fromkeys([*dates, *([series] if series else []), target, *covariates]))
    report = ReadReport()
    if path.suffix.lower() == ".parquet":
        table = _read_parquet(path, wanted)
    else:
        table = read_columns(path, wanted, report)
    for reject in report.rejects:
        yield refused(f"row {reject['row']}", describe(reject))
    if table.empty:
        return
    table[TIME] = _times(table, dates, date_format, details)
    size = path.stat().st_size // len(table)
    if series is None:
        yield Record("", size * len(table), partial(_parse, None, table, target, dates, details))
        return
    for name, rows in table.groupby(series, sort=False):
        if name == "":
            yield refused(f"row {rows.index[0]}", f"{series}: found no name of a series")
            continue
        parse = partial(_parse, str(name), rows, target, dates, details)
        yield Record(f"series {shorten(str(name))!r}", size * len(rows), parse)


def _read_parquet(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """The wanted columns as cells; the index is the row from 1, and dates are text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        for name in wanted:
            if name not in names:
                raise DataError(f"{path.name}: no column {name!r}; {near(name, names)}")
        columns = pq.read_table(path, columns=list(wanted)).to_pydict()
    except pa.ArrowException as error:
        raise DataError(f"{path.name}: not a Parquet file: {error}") from None
    content = {name: [_cell(cell) for cell in columns[name]] for name in wanted}
    index = range(1, len(content[wanted[0]]) + 1)
    return pd.DataFrame(content, index=index, dtype=object)


def _cell(cell: Any) -> Any:
    """A cell of Parquet as a CSV file or a request would have it."""
    if cell is None:
        return ""
    if isinstance(cell, Date):  # also a time
        return cell.isoformat()
    return cell if isinstance(cell, bool | int | float | str) else str(cell)


def _times(
    table: pd.DataFrame, dates: Sequence[str], date_format: str | None, details: Details
) -> "pd.Series[pd.Timestamp]":
    """Wall times, read as those of the training data; NaT where a text is none."""
    text = table[list(dates)].astype(str).agg(" ".join, axis=1)
    codes, values = pd.factorize(text)
    distinct = pd.Series(values, dtype=str)
    zone = time_zone(details.rules.timezone)
    zoned = formats.offsets(distinct, date_format)
    if zoned.any() and zone is None:
        raise DataError(
            f"found the time {distinct[zoned].iloc[0]!r}, and the model has no time zone to "
            "convert it to; expected wall times without an offset"
        )
    return pd.Series(formats.parse(distinct, date_format, zone).to_numpy()[codes], table.index)


def _parse(
    name: str | None, rows: pd.DataFrame, target: str, dates: Sequence[str], details: Details
) -> tuple[Key, Input]:
    """The history of a series, and its future covariates."""
    if rows[TIME].isna().any():
        row = rows.index[rows[TIME].isna()][0]
        cell = " ".join(str(rows.loc[row, column]) for column in dates)
        raise DataError(f"row {row}: found {shorten(cell)!r}; expected a date; see date_format")
    others = [column for column in rows if column not in dates]  # two texts may be one time
    distinct = rows.sort_values(TIME, kind="stable").drop_duplicates(others)
    rows = _without_conflicts(distinct, details)
    numbers = [details.notation.number(cell) for cell in rows[target]]
    if None in numbers:
        row = rows.index[numbers.index(None)]
        cell = str(rows.loc[row, target])
        raise DataError(f"row {row}: {target}: found {shorten(cell)!r}; expected a number")
    values = np.array(numbers, float)
    measured = np.flatnonzero(~np.isnan(values))
    if not len(measured):
        raise DataError(f"{target}: found no value in {len(rows)} rows")
    end = int(measured[-1]) + 1
    begin = max(0, end - MAX_STEPS)
    past, following = rows.iloc[begin:end], rows.iloc[end:]
    columns = {kind: [coding.column for coding in details.codings[kind]] for kind in COVARIATES}
    steps = _horizon(past, following, details) if columns["future"] else following
    around = pd.concat([past, steps])
    return {"series": name}, Input(
        dates=[time.isoformat() for time in past[TIME]],
        values=[None if np.isnan(value) else float(value) for value in values[begin:end]],
        series=name,
        past_covariates={column: past[column].tolist() for column in columns["past"]},
        future_covariates={column: around[column].tolist() for column in columns["future"]},
        static_covariates={column: past[column].iloc[-1] for column in columns["static"]},
    )


def _without_conflicts(rows: pd.DataFrame, details: Details) -> pd.DataFrame:
    """One row for each time, by the rule of the training data."""
    repeated = rows[TIME].duplicated()
    if not repeated.any():
        return rows
    rule = details.rules.duplicates
    if rule == "refuse":
        time = rows[TIME][repeated].iloc[0]
        listed = ", ".join(map(str, rows.index[rows[TIME] == time]))
        raise DataError(f"rows {listed}: contradict each other about {time}; expected one of them")
    return rows[~rows[TIME].duplicated(keep="first" if rule == "first" else "last")]


def _horizon(past: pd.DataFrame, following: pd.DataFrame, details: Details) -> pd.DataFrame:
    """The rows of the steps that are forecast."""
    both = pd.concat([past[TIME].iloc[-1:], following[TIME]])
    if details.stamps == "period":
        both = to_periods(both, details.frequency)
    last, *others = both.tolist()
    steps = pd.date_range(last, periods=details.horizon + 1, freq=details.frequency, unit="s")
    places = {time: place for place, time in enumerate(others)}
    for step in steps[1:]:
        if step not in places:
            raise DataError(
                f"no row for {step}; expected future covariates for the {details.horizon} steps "
                f"after the last value, {last}"
            )
    return following.iloc[[places[step] for step in steps[1:]]]


def columns(service: Service) -> dict[str, Any]:
    """The columns of a step: its forecast, and the bounds of each interval."""
    levels = [f"{100 * level:g}" for level in service.margins]
    bounds = {f"{end}_{level}": float for level in levels for end in ("low", "high")}
    return {"date": str, "forecast": float, **bounds, "warnings": list[str]}


def rows(response: BaseModel) -> list[dict[str, Any]]:
    """A row for each step of the horizon."""
    assert isinstance(response, Response)
    bounds = {
        f"{end}_{100 * float(level):g}": getattr(interval, end)
        for level, interval in response.intervals.items()
        for end in ("low", "high")
    }
    return [
        {
            "date": date,
            "forecast": response.forecast[step],
            **{name: values[step] for name, values in bounds.items()},
            "warnings": response.warnings,
        }
        for step, date in enumerate(response.dates)
    ]


FORMAT = Format(
    noun="series",
    suffixes=(".csv", ".tsv", ".parquet"),
    keys={"series": str},
    batch_size=64,
    read=read,
    columns=columns,  # type: ignore[arg-type]
    rows=rows,
)
