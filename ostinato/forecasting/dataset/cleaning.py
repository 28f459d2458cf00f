"""Raw files to series on a regular grid. Dirt is repaired by a rule, or refused.

Every repair is counted in ``ReadReport.counts``; what cannot be read is listed in
``ReadReport.rejects`` with its file, its row (the line at which it begins; the header is row 1) and
the reason.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer, Shaped

from ostinato.errors import DataError
from ostinato.forecasting.dataset.gaps import refused_gaps, rule_of, to_regular
from ostinato.forecasting.dataset.grid import to_grid
from ostinato.forecasting.dataset.layouts import explain_conflicts, read_columns
from ostinato.forecasting.dataset.report import NAMED_ROWS, ReadReport
from ostinato.forecasting.dataset.wide import read_wide
from ostinato.forecasting.formats import times as formats
from ostinato.forecasting.formats.layout import Columns, RawManifest, Rules
from ostinato.forecasting.formats.numbers import Notation, propose
from ostinato.params import near

NOT_A_NUMBER = "not a number"
FAR = 10  # a gap of more than so many times the rows behind it is the fault of these rows

__all__ = ["ReadReport", "Series", "read_series", "time_zone"]


class Series(NamedTuple):
    """A regular series without gaps.

    Attributes:
        name: of the series.
        file: name of its file.
        rows: of the file, for each step; a missing step has the row before it.
        first: time of the first step.
        target: its values.
        observed: False where a value was missing and is filled in.
        covariates: text of the cells by column; "" where a cell is missing.
    """

    name: str
    file: str
    rows: Integer[np.ndarray, " step"]
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
        wide = read_wide(manifest.paths, manifest.notation, report)
        parsed = [
            _Parsed(name, file, np.full(len(values), row), np.arange(len(values)), values, {})
            for name, (file, row, values) in wide.items()
        ]
        longest = max((len(each.target) for each in parsed), default=0)
        frequency = manifest.frequency
        grid = pd.date_range(pd.Timestamp(0), periods=longest, freq=frequency, unit="s")
    else:
        parsed, grid = _read_long(manifest, manifest.columns, rules, report, tolerated)

    report.check(
        tolerated, lambda: _advice(manifest, report)
    )  # before gaps are, as unreadable cells leave gaps
    series = [regular for each in parsed if (regular := _regular(each, grid, rules, report))]
    if not series:
        raise DataError(
            f"{manifest.paths[0].name}: has no series with a value; {report.counts['rows']} rows "
            f"were read, {len(report.unreadable)} of them rejected"
        )
    return series


def time_zone(name: str | None) -> ZoneInfo | None:
    """The zone that prepare's ``timezone`` names.

    Raises:
        DataError: there is no such zone.
    """
    try:
        return None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DataError(
            f"prepare: timezone: unknown {name!r}; {near(str(name), available_timezones())}"
        ) from None


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


def _advice(manifest: RawManifest, report: ReadReport) -> str:
    """What to set in the source where cells are numbers of another notation, or are one word."""
    cells = [str(r["value"]) for r in report.rejects if r["reason"] == NOT_A_NUMBER]
    if manifest.columns is None or not cells:
        return ""
    with_digit = [cell for cell in cells if any(map(str.isdigit, cell))]
    if found := propose(with_digit, manifest.notation):
        return f"; {found}, if these are numbers"
    word, count = Counter(cells).most_common(1)[0]
    if count > 1 and 2 * count > len(cells):
        return f"; set the source's missing: ['{word}'], if it means a missing value"
    return ""


def _read_long(
    manifest: RawManifest, columns: Columns, rules: Rules, report: ReadReport, tolerated: float
) -> tuple[list[_Parsed], pd.DatetimeIndex]:
    """Read a file with a row for each time of a series; also return the grid of all series."""
    path = manifest.paths[0]
    file, key, target = path.name, columns.series, columns.target
    covariates = [name for names in columns.covariates.values() for name in names]
    key_column = [] if key is None else [key]
    table = read_columns(path, [*columns.dates, *key_column, target, *covariates], report)
    if table.empty and not report.rejects:
        raise DataError(f"{file}: has a header and no rows")
    dates = table[columns.dates[0]]
    for name in columns.dates[1:]:
        dates = dates + " " + table[name]
    times = _parse_dates(file, dates, manifest.date_format, rules.timezone, report, tolerated)
    if key is not None:
        for row in times.index[table.loc[times.index, key] == ""]:
            report.reject(file, row, key, "", "no name of a series")
        times = times[table.loc[times.index, key] != ""]
    dated = len(times)
    if rules.since is not None:
        times = times[times >= formats.read_iso("since", rules.since).start_time]
    if rules.until is not None:
        times = times[times <= formats.read_iso("until", rules.until).end_time]
    report.counts["outside"] += dated - len(times)
    if dated and times.empty:
        raise DataError(
            f"{file}: no row lies between since {rules.since} and until {rules.until}; change or "
            "remove prepare's since and until"
        )
    label = " ".join(columns.dates)
    steps, grid = to_grid(file, label, times, manifest.frequency, manifest.stamps, report)
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
    rows = _deduplicate(manifest, columns, names, rows, rules.duplicates, report)
    for number, column in enumerate(covariates, 1):
        if column in columns.covariates["static"]:
            _check_static(file, column, names, rows["series"], rows[number])
    lines = rows.index.to_numpy(int)
    numbers = _read_target(file, target, rows[0], lines, manifest.notation, report)
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


def _read_target(
    file: str,
    column: str,
    cells: "pd.Series[str]",
    lines: Integer[np.ndarray, " row"],
    notation: Notation,
    report: ReadReport,
) -> Float[np.ndarray, " row"]:
    """The numbers of the target; NaN where missing, and a reject where a cell is no number."""
    codes, distinct = pd.factorize(cells)
    values = np.array([notation.number(str(cell)) for cell in distinct], float)  # None is NaN
    unread = np.array([notation.number(str(cell)) is None for cell in distinct], bool)
    for index in np.flatnonzero(unread[codes]):
        report.reject(file, int(lines[index]), column, str(cells.iloc[index]), NOT_A_NUMBER)
    numbers = values[codes]
    present = (cells != "").to_numpy()
    report.counts["missing_values"] += int((np.isnan(numbers) & present & ~unread[codes]).sum())
    return numbers


def _parse_dates(
    file: str,
    text: "pd.Series[str]",
    date_format: str | None,
    timezone: str | None,
    report: ReadReport,
    tolerated: float,
) -> "pd.Series[pd.Timestamp]":
    """Wall times in the zone; rows without a date are rejected."""
    codes, values = pd.factorize(text)  # many series share their dates
    distinct = pd.Series(values, dtype=str)
    zone = time_zone(timezone)
    zoned = formats.offsets(distinct, date_format)[codes]
    if zoned.any() and zone is None:
        raise DataError(
            f"{file}:{text.index[zoned][0]}: {text[zoned].iloc[0]!r} has a time zone; "
            "set prepare's timezone to the zone whose wall time counts, such as America/Chicago"
        )
    report.counts["zoned"] += int(zoned.sum())
    try:
        wall = formats.parse(distinct, date_format, zone)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    times = pd.Series(wall.to_numpy()[codes], text.index)
    if not times.isna().any():
        return times
    expected = f"date_format is {'null: ISO 8601' if date_format is None else date_format}"
    unread = text[times.isna()]
    many = len(unread) > tolerated * len(text)
    hint = formats.propose(unread.tolist()) if many else ""
    for row, cell in unread.items():
        report.reject(file, int(str(row)), "date", cell, f"not a date ({expected}){hint}")
    return times[times.notna()]


def _deduplicate(
    manifest: RawManifest,
    columns: Columns,
    names: Sequence[str],
    rows: pd.DataFrame,
    rule: str,
    report: ReadReport,
) -> pd.DataFrame:
    """Keep one row for each time of a series; contradicting rows are resolved by the rule."""
    repeated = rows.duplicated()
    report.counts["duplicates"] += int(repeated.sum())
    rows = rows[~repeated]
    conflicts = rows.duplicated(["series", "step"])
    if conflicts.any():
        count = int(conflicts.sum())
        report.counts["conflicts"] += count
        if rule == "refuse":
            path = manifest.paths[0]
            first = rows[conflicts].iloc[0]
            same_time = (rows["series"] == first["series"]) & (rows["step"] == first["step"])
            listed = rows.index[same_time]
            advice = explain_conflicts(path, columns, manifest.date_format) or (
                "correct them, or set prepare's duplicates to first or last, which leaves out "
                f"{count} of {len(rows)} rows"
            )
            raise DataError(
                f"{path.name}:{listed[0]}: {len(listed)} rows of {names[first['series']]!r} "
                "contradict each other about the same time (rows "
                f"{', '.join(map(str, listed[:NAMED_ROWS]))}), as do {count} rows in all; {advice}"
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
    report.counts["zeros"] += int((parsed.target == 0).sum())
    regular = to_regular(parsed.steps, parsed.target, parsed.covariates, rules)
    if regular is None:
        report.leave_out(parsed.file, int(parsed.rows[0]), parsed.name, "has no value")
        return None
    begin, index, target, observed, covariates = regular
    report.counts["trimmed"] += len(parsed.target) - int(index[-1] - index[0] + 1)
    report.counts["filled"] += int((~observed).sum())
    rows = parsed.rows[index]
    for start, end in refused_gaps(observed, rules):
        raise DataError(_describe_gap(parsed, rows, observed, grid[begin:], start, end, rules))
    return Series(parsed.name, parsed.file, rows, grid[begin], target, observed, covariates)


def _describe_gap(
    series: _Parsed,
    rows: Integer[np.ndarray, " step"],
    observed: Bool[np.ndarray, " step"],
    times: pd.DatetimeIndex,
    start: int,
    end: int,
    rules: Rules,
) -> str:
    """The error of a gap; it blames a few rows that lie far off all others."""
    before, after = (f"row {rows[i]}, {times[i]}" for i in (start - 1, end))
    early, late = int(observed[:start].sum()), int(observed[end:].sum())
    if end - start > min(early, late) * FAR and min(early, late) < max(early, late):
        odd, other = (end, before) if late < early else (start - 1, after)
        return (
            f"{series.file}:{rows[odd]}: found the time {times[odd]}, {end - start:,} steps of "
            f"{series.name!r} away from the nearest other row ({other}); expected a time near the "
            "others; correct its year, month or day"
        )
    return (
        f"{series.file}:{rows[start - 1]}: {end - start} steps of {series.name!r} are missing "
        f"after this row, until {after}, and prepare's {rule_of(rules)}; complete the file, change "
        "the rule, or begin later with since"
    )
