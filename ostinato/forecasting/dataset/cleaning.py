"""Raw files to series on a regular grid. Dirt is repaired by a rule, or refused.

A gap is filled from the past only, so that no window sees its future through it. Every repair is
counted in ``ReadReport.counts``; what cannot be read is listed in ``ReadReport.rejects`` with its
file, its row (the header is row 1) and the reason.
"""

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer, Shaped

from ostinato.errors import DataError
from ostinato.forecasting.formats.layout import Columns, Gaps, RawManifest, Rules
from ostinato.params import near

WITH_OFFSET = r":\d\d(?:[.,]\d+)?\s*(?:Z|[+-]\d\d(?::?\d\d)?)$|Z$"  # a time with an offset from UTC
UTC = r"(?<=\d) ?(?:UTC|GMT)$"
NAMED_ROWS = 3  # that an error lists


@dataclass
class ReadReport:
    """What was found in raw files: counts by kind, and rejected rows or cells."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[dict[str, str | int]] = field(default_factory=list)

    def reject(self, file: str, row: int, column: str, value: str, reason: str) -> None:
        """Add a rejected row, or one of its cells."""
        self.rejects.append(
            {"file": file, "row": row, "column": column, "value": value, "reason": reason}
        )

    def check(self, tolerated: float) -> None:
        """Raise an error where more than the ``tolerated`` share of the rows has a reject."""
        rows = {(reject["file"], reject["row"]) for reject in self.rejects}
        if len(rows) > tolerated * self.counts["rows"]:
            examples = [
                f"{r['file']}:{r['row']}: {r['column']} {r['value']!r}: {r['reason']}"
                for r in self.rejects[:NAMED_ROWS]
            ]
            raise DataError(
                f"{len(rows)} of {self.counts['rows']} rows cannot be used, more than "
                f"tolerated_rejects: {tolerated} allows:\n  " + "\n  ".join(examples)
            )


class Series(NamedTuple):
    """A regular series without gaps.

    Attributes:
        name: of the series.
        row: of the file at which it begins.
        first: time of the first step.
        target: its values.
        observed: False where a value was missing and is filled in.
        covariates: text of the cells by column; "" where a cell is missing.
    """

    name: str
    row: int
    first: pd.Timestamp
    target: Float[np.ndarray, " step"]
    observed: Bool[np.ndarray, " step"]
    covariates: dict[str, Shaped[np.ndarray, " step"]]


def read_series(
    manifest: RawManifest, rules: Rules, report: ReadReport, tolerated: float
) -> list[Series]:
    """Read and clean all series of a raw folder, in the order in which their names appear.

    All series lie on one grid, which begins at the first time of the file.

    Args:
        manifest: of the raw folder.
        rules: of cleaning.
        report: gets counts and rejects.
        tolerated: share of the rows that may be unreadable.

    Raises:
        DataError: names the file and the row that a rule refuses, or the column that is missing;
            or more than the tolerated share of the rows is unreadable.
    """
    if manifest.columns is None:
        parsed = _read_wide(manifest.paths, report)
        longest = max((len(each.target) for each in parsed), default=0)
        frequency = manifest.frequency
        grid = pd.date_range(pd.Timestamp(0), periods=longest, freq=frequency, unit="s")
    else:
        parsed, grid = _read_long(manifest, manifest.columns, rules, report)
    report.check(tolerated)  # before gaps are, as unreadable cells leave gaps
    series = [regular for each in parsed if (regular := _regular(each, grid, rules, report))]
    report.check(tolerated)
    if not series:
        raise DataError(f"{manifest.paths[0].name}: has no series with a value")
    return series


class _Parsed(NamedTuple):
    """A series as parsed: sorted by time, without duplicates; gaps are NaN or have no row.

    Attributes:
        name: of the series.
        file: name of its file.
        rows: of the file.
        steps: on the grid.
        target: NaN where missing.
        covariates: text by column.
    """

    name: str
    file: str
    rows: Integer[np.ndarray, " row"]
    steps: Integer[np.ndarray, " row"]
    target: Float[np.ndarray, " row"]
    covariates: dict[str, Shaped[np.ndarray, " row"]]


def _read_wide(paths: list[Path], report: ReadReport) -> list[_Parsed]:
    """Read files with a row for each series; a second file continues the rows of the first."""
    values: dict[str, np.ndarray] = {}
    begins: dict[str, tuple[str, int]] = {}
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            next(reader, None)
            for cells in reader:
                row = reader.line_num
                while cells and cells[-1].strip() in ("", "NA"):
                    cells.pop()  # shorter series are padded with empty cells
                if not cells:
                    continue
                report.counts["rows"] += 1
                if path != paths[0] and cells[0] not in values:
                    report.reject(path.name, row, "1", cells[0], "not a series of the first file")
                    continue
                if path == paths[0] and cells[0] in values:
                    report.reject(path.name, row, "1", cells[0], "a second series of this name")
                    continue
                begins.setdefault(cells[0], (path.name, row))
                try:
                    numbers = [float(cell) for cell in cells[1:]]
                except ValueError:
                    numbers = []
                    for number, cell in enumerate(cells[1:], 2):
                        numbers.append(_number(cell, path.name, row, str(number), report))
                before = values.get(cells[0], np.empty(0))
                values[cells[0]] = np.concatenate([before, numbers or [np.nan]])
    return [
        _Parsed(
            name,
            begins[name][0],
            np.full(len(numbers), begins[name][1]),
            np.arange(len(numbers)),
            numbers,
            {},
        )
        for name, numbers in values.items()
    ]


def _number(cell: str, file: str, row: int, column: str, report: ReadReport) -> float:
    """The number in a cell; NaN where it is empty, and a reject where it is no number."""
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) and cell.strip():
        report.reject(file, row, column, cell, "not a number")
        value = np.nan
    return value


def _read_long(
    manifest: RawManifest, columns: Columns, rules: Rules, report: ReadReport
) -> tuple[list[_Parsed], pd.DatetimeIndex]:
    """Read a file with a row for each time of a series; also return the grid of all series."""
    path = manifest.paths[0]
    file, key, target = path.name, columns.series, columns.target
    covariates = [name for names in columns.covariates.values() for name in names]
    key_column = [] if key is None else [key]
    table = _read_table(path, [columns.date, *key_column, target, *covariates])
    report.counts["rows"] += len(table)
    dates = table.pop(columns.date)
    times = _parse_dates(file, dates, manifest.date_format, rules.timezone, report)
    if key is not None:
        for row in times.index[table.loc[times.index, key] == ""]:
            report.reject(file, row, key, "", "no name of a series")
        times = times[table.loc[times.index, key] != ""]
    dated = len(times)
    if rules.since is not None:
        times = times[times >= _period("since", rules.since).start_time]
    if rules.until is not None:
        times = times[times <= _period("until", rules.until).end_time]
    report.counts["outside"] += dated - len(times)
    if dated and times.empty:
        raise DataError(
            f"{file}: no row lies between since {rules.since} and until {rules.until}; change or "
            "remove prepare's since and until"
        )
    steps, grid = _to_grid(file, columns.date, times, manifest.frequency, report)
    if steps.empty:
        return [], grid
    if len(steps) < len(table):
        table = table.loc[steps.index]
    series, distinct = pd.factorize(table[key] if key else np.full(len(table), target, object))
    names = list(map(str, distinct))
    cells = table[[target, *covariates]].set_axis(range(len(covariates) + 1), axis=1)
    # Columns of the file have numbers for names, so that none can be called series or step.
    rows = cells.assign(series=series, step=steps)

    order = np.argsort(series, kind="stable")
    earlier = np.diff(steps.to_numpy()[order]) < 0
    report.counts["unsorted"] += int((earlier & (np.diff(series[order]) == 0)).sum())
    rows = rows.iloc[np.lexsort((steps, series))]
    rows = _deduplicate(file, names, rows, rules.duplicates, report)
    for number, column in enumerate(covariates, 1):
        if column in columns.covariates["static"]:
            _check_static(file, column, names, rows["series"], rows[number])
    numbers = pd.to_numeric(rows[0], errors="coerce").to_numpy(float, copy=True)
    lines = rows.index.to_numpy(int)
    for index in np.flatnonzero(~np.isfinite(numbers)):
        line = int(lines[index])
        numbers[index] = _number(str(rows[0].iloc[index]), file, line, target, report)
    ends = np.cumsum(np.bincount(rows["series"], minlength=len(names)))[:-1]
    text = {name: rows[n].to_numpy(object) for n, name in enumerate(covariates, 1)}
    parts = [
        np.split(part, ends) for part in (lines, rows["step"].to_numpy(), numbers, *text.values())
    ]
    return [
        _Parsed(str(name), file, line, step, values, dict(zip(text, others, strict=True)))
        for name, line, step, values, *others in zip(names, *parts, strict=True)
        if len(line)
    ], grid


def _read_table(path: Path, wanted: list[str]) -> pd.DataFrame:
    """The wanted columns as text, "" where a cell is empty; the index is the row of the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                skip_blank_lines=False,  # they count as rows
                index_col=False,
                encoding="utf-8-sig",
            ).set_axis(header, axis=1)
    except pd.errors.ParserWarning:
        raise DataError(f"{path.name}: rows have more cells than the header has names") from None
    except ValueError as error:  # no UTF-8, unequal rows, or empty
        raise DataError(f"{path.name}: not a CSV file in UTF-8: {error}") from None
    for name in wanted:
        if name not in header:
            hint = "" if len(header) > 1 else "; are the columns separated by commas?"
            raise DataError(f"{path.name}: no column {name!r}; {near(name, header)}{hint}")
        if header.count(name) > 1:
            raise DataError(f"{path.name}:1: {header.count(name)} columns are called {name!r}")
    table = table[wanted]
    for name in wanted:  # column by column, to save memory
        table[name] = table[name].str.strip()
    table.index += 2  # the header is row 1
    blank = (table == "").all(axis=1)
    return table.drop(index=table.index[blank]) if blank.any() else table


def _period(key: str, text: str) -> pd.Period:
    """The period that a text names: a day, a month, an hour ..."""
    try:
        return pd.Period(text)
    except ValueError:
        raise DataError(f"prepare: {key}: {text!r} is not a date such as 2014-12-31") from None


def _to_grid(
    file: str, column: str, times: "pd.Series[pd.Timestamp]", frequency: str, report: ReadReport
) -> tuple["pd.Series[int]", pd.DatetimeIndex]:
    """The steps of times on the grid that begins with the first of them, and the grid."""
    if times.empty:
        return pd.Series(dtype=int), pd.DatetimeIndex([])
    grid = pd.date_range(times.min(), times.max(), freq=frequency, unit="s")
    steps = pd.Series(grid.get_indexer(pd.DatetimeIndex(times)), times.index)
    off_grid = times[steps < 0]
    if len(off_grid):
        begins = f"begins at {grid[0]}" if len(grid) else "has no time from the first to the last"
        reason = f"not on the grid of frequency {frequency}, which {begins}"
        distinct = pd.DatetimeIndex(times.unique()).sort_values()
        if len(off_grid) > len(times) / 2 and len(distinct) > 2:
            with pd.option_context("future.infer_freq_returns_offset", True):
                guess: Any = pd.infer_freq(distinct)
            if guess is not None:
                reason += f"; the times look like frequency: {guess.freqstr}"
        for row, time in off_grid.items():
            report.reject(file, int(str(row)), column, str(time), reason)
    return steps[steps >= 0], grid


def _parse_dates(
    file: str,
    text: "pd.Series[str]",
    date_format: str | None,
    timezone: str | None,
    report: ReadReport,
) -> "pd.Series[pd.Timestamp]":
    """Wall times in the zone; rows without a date are rejected."""
    codes, values = pd.factorize(text)  # many series share their dates
    distinct = pd.Series(values)
    if date_format is None:
        distinct = distinct.str.replace(UTC, "Z", regex=True)
    zoned = distinct.str.contains(WITH_OFFSET).to_numpy(bool) | ("%z" in (date_format or ""))
    zoned_rows = zoned[codes]
    if zoned_rows.any() and timezone is None:
        raise DataError(
            f"{file}:{text.index[zoned_rows][0]}: {text[zoned_rows].iloc[0]!r} has a time zone; "
            "set prepare's timezone to the zone whose wall time counts, such as America/Chicago"
        )
    zone = None
    if timezone is not None:
        try:
            zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise DataError(
                f"prepare: timezone: unknown {timezone!r}; {near(timezone, available_timezones())}"
            ) from None
    kind = "ISO8601" if date_format is None else date_format
    try:
        wall = pd.to_datetime(distinct.mask(zoned), format=kind, errors="coerce")
        wall = wall.astype("datetime64[s]")
        if zoned.any():
            moments = pd.to_datetime(distinct[zoned], format=kind, errors="coerce", utc=True)
            local = moments.dt.tz_convert(zone).dt.tz_localize(None)
            wall.loc[local.index] = local.astype("datetime64[s]")
            report.counts["zoned"] += int(zoned_rows.sum())
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: dates do not fit date_format: {date_format}: {error}") from None
    times = pd.Series(wall.to_numpy()[codes], text.index)
    expected = "ISO 8601, as date_format is null" if date_format is None else f"strftime's {kind}"
    for row, cell in text[times.isna()].items():
        report.reject(file, int(str(row)), "date", cell, f"not a date ({expected})")
    return times[times.notna()] if times.isna().any() else times


def _deduplicate(
    file: str, names: Sequence[str], rows: pd.DataFrame, rule: str, report: ReadReport
) -> pd.DataFrame:
    """Keep one row for each time of a series; contradicting rows are resolved by the rule."""
    repeated = rows.duplicated()
    report.counts["duplicates"] += int(repeated.sum())
    rows = rows[~repeated]
    conflicts = rows.duplicated(["series", "step"])
    if conflicts.any():
        report.counts["conflicts"] += int(conflicts.sum())
        if rule == "refuse":
            first = rows[conflicts].iloc[0]
            same_time = (rows["series"] == first["series"]) & (rows["step"] == first["step"])
            listed = rows.index[same_time]
            raise DataError(
                f"{file}:{listed[0]}: {len(listed)} rows of {names[first['series']]!r} contradict "
                f"each other about the same time (rows {', '.join(map(str, listed[:NAMED_ROWS]))}),"
                f" as do {int(conflicts.sum())} rows in all; correct them, or set prepare's "
                "duplicates to first or last"
            )
        keep: Literal["first", "last"] = "first" if rule == "first" else "last"
        rows = rows.drop_duplicates(["series", "step"], keep=keep)
    return rows


def _check_static(
    file: str,
    column: str,
    names: Sequence[str],
    series: "pd.Series[int]",
    cells: "pd.Series[str]",
) -> None:
    """Raise an error where a static column has two values for a series."""
    present = cells[cells != ""]
    first = present.groupby(series).transform("first")
    if (changed := present.index[present != first]).size:
        row = changed[0]
        raise DataError(
            f"{file}:{row}: static {column!r} of {names[series[row]]!r} is {present[row]!r}, but "
            f"{first[row]!r} in an earlier row; correct it, or make the column a past or future "
            "covariate"
        )


def _regular(
    parsed: _Parsed, grid: pd.DatetimeIndex, rules: Rules, report: ReadReport
) -> Series | None:
    """The series on the grid with its gaps filled; None where it has no value."""
    values = parsed.target.copy()
    zeros = values == 0
    report.counts["zeros"] += int(zeros.sum())
    if rules.zeros == "missing":
        values[zeros] = np.nan
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        report.reject(parsed.file, int(parsed.rows[0]), "series", parsed.name, "has no value")
        return None
    inside = slice(int(finite[0]), int(finite[-1]) + 1)
    report.counts["trimmed"] += len(values) - (inside.stop - inside.start)
    begin = parsed.steps[inside.start]
    steps = parsed.steps[inside] - begin
    size = int(steps[-1]) + 1
    target, rows = np.full(size, np.nan), np.zeros(size, int)
    target[steps], rows[steps] = values[inside], parsed.rows[inside]
    rows = np.maximum.accumulate(rows)  # a missing step has the row before it
    covariates = {}
    for name, column in parsed.covariates.items():
        covariates[name] = np.full(size, "", object)
        covariates[name][steps] = column[inside]
    observed = np.isfinite(target)
    report.counts["filled"] += int((~observed).sum())
    _check_gaps(parsed, rows, observed, rules)
    filled = _fill_gaps(target, rules.gaps, rules.season)
    return Series(parsed.name, int(rows[0]), grid[begin], filled, observed, covariates)


def _check_gaps(
    series: _Parsed,
    rows: Integer[np.ndarray, " step"],
    observed: Bool[np.ndarray, " step"],
    rules: Rules,
) -> None:
    """Raise an error for a gap that is longer than the rules allow."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], observed, [True]]).astype(int)))
    for start, end in edges.reshape(-1, 2):
        if rules.gaps == "refuse" or end - start > rules.longest_gap:
            rule = (
                "gaps is refuse"
                if rules.gaps == "refuse"
                else f"longest_gap is {rules.longest_gap}"
            )
            raise DataError(
                f"{series.file}:{rows[start]}: {end - start} steps of {series.name!r} are missing "
                f"after this row, and prepare's {rule}; complete the file, change the rule, or "
                "begin later with since"
            )


def _fill_gaps(
    target: Float[np.ndarray, " step"], rule: Gaps, season: int
) -> Float[np.ndarray, " step"]:
    """Fill gaps with the value of a season ago, or the last one: from the past only.

    Interpolation would show a window that ends inside a gap its future.
    """
    filled = target.copy()
    for step in np.flatnonzero(~np.isfinite(target)):
        lag = season if rule == "seasonal" and step >= season else 1
        filled[step] = filled[step - lag]
    return filled
