"""Raw files to series on a regular grid: what is dirty is repaired by a rule, or refused.

A gap is filled from the past alone, so that no window can see its future through it.
Every departure is counted in ``Told.counts``; what could not be read is listed in ``Told.rejects``
with its file, its row (the header is row 1) and the reason.
"""

import csv
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ostinato.errors import DataError
from ostinato.params import near

Array = NDArray[Any]

AWARE = r":\d\d(?:[.,]\d+)?\s*(?:Z|[+-]\d\d(?::?\d\d)?)$|Z$"  # a time with its offset from UTC
UTC = r"(?<=\d) ?(?:UTC|GMT)$"
SHOWN = 3  # of the rows that an error names


class Rules(NamedTuple):
    """What is done about dirt; see ``prepare``."""

    since: str | None
    until: str | None
    timezone: str | None
    duplicates: Literal["refuse", "first", "last"]
    gaps: Literal["refuse", "forward", "seasonal"]
    longest_gap: int
    zeros: Literal["keep", "missing"]
    season: int


@dataclass
class Told:
    """What was found in the raw files."""

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[dict[str, Any]] = field(default_factory=list)

    def reject(self, file: str, row: int, column: str, value: str, reason: str) -> None:
        """A row, or one value of it, that is left out."""
        entry = {"file": file, "row": row, "column": column, "value": value, "reason": reason}
        self.rejects.append(entry)

    def tolerate(self, share: float) -> None:
        """An error where more than this share of the rows has something unreadable."""
        rows = {(reject["file"], reject["row"]) for reject in self.rejects}
        if len(rows) > share * self.counts["rows"]:
            shown = [
                f"{r['file']}:{r['row']}: {r['column']} {r['value']!r}: {r['reason']}"
                for r in self.rejects[:SHOWN]
            ]
            raise DataError(
                f"{len(rows)} of {self.counts['rows']} rows cannot be used, more than "
                f"tolerated_rejects: {share} allows:\n  " + "\n  ".join(shown)
            )


class Series(NamedTuple):
    """One series, regular and without gaps; ``covariates`` are columns as they were written."""

    name: str
    row: int  # of the file, where it begins
    first: pd.Timestamp
    target: Array  # float64 (step,)
    observed: Array  # bool (step,): not filled in
    covariates: dict[str, Array]  # column -> str (step,), "" where nothing is known


def read(
    raw: Path, about: Mapping[str, Any], rules: Rules, told: Told, tolerated: float
) -> list[Series]:
    """All series of a raw folder, clean, in the order of their names' first appearance.

    All of them lie on one grid, which begins at the first time of the file.

    Raises:
        DataError: names the file and the row that a rule refuses, or the column that is not there;
            or more than the ``tolerated`` share of the rows is unreadable.
    """
    paths = [raw / file["path"] for file in about["files"]]
    if about["layout"] == "wide":
        found = _wide(paths, told)
        longest = max((len(each.target) for each in found), default=0)
        grid = pd.date_range(pd.Timestamp(0), periods=longest, freq=about["frequency"], unit="s")
    else:
        found, grid = _long(paths[0], about, rules, told)
    told.tolerate(tolerated)  # first, as what is unreadable leaves gaps
    series = [made for each in found if (made := _regular(each, grid, rules, told))]
    told.tolerate(tolerated)
    if not series:
        raise DataError(f"{paths[0].name}: holds no series with a value")
    return series


class _Found(NamedTuple):
    """One series as it was found: sorted, without duplicates, gaps as NaN or left out."""

    name: str
    file: str
    rows: Array  # int (found,): of the file
    places: Array  # int (found,): on the grid
    target: Array  # float64 (found,), NaN where missing
    covariates: dict[str, Array]


def _wide(paths: list[Path], told: Told) -> list[_Found]:
    """A row is a series; the rows of a second file go on where those of the first one ended."""
    values: dict[str, Array] = {}
    places: dict[str, tuple[str, int]] = {}
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            next(reader, None)
            for cells in reader:
                row = reader.line_num
                while cells and cells[-1].strip() in ("", "NA"):
                    cells.pop()  # shorter series are filled up with nothing
                if not cells:
                    continue
                told.counts["rows"] += 1
                if path != paths[0] and cells[0] not in values:
                    told.reject(path.name, row, "1", cells[0], "not a series of the first file")
                    continue
                if path == paths[0] and cells[0] in values:
                    told.reject(path.name, row, "1", cells[0], "a second series of this name")
                    continue
                places.setdefault(cells[0], (path.name, row))
                try:
                    numbers = [float(cell) for cell in cells[1:]]
                except ValueError:
                    numbers = []
                    for number, cell in enumerate(cells[1:], 2):
                        numbers.append(_value(cell, path.name, row, str(number), told))
                before = values.get(cells[0], np.empty(0))
                values[cells[0]] = np.concatenate([before, numbers or [np.nan]])
    return [
        _Found(
            name,
            places[name][0],
            np.full(len(numbers), places[name][1]),
            np.arange(len(numbers)),
            numbers,
            {},
        )
        for name, numbers in values.items()
    ]


def _value(cell: str, file: str, row: int, column: str, told: Told) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) and cell.strip():
        told.reject(file, row, column, cell, "not a number")
        value = np.nan
    return value


def _long(
    path: Path, about: Mapping[str, Any], rules: Rules, told: Told
) -> tuple[list[_Found], pd.DatetimeIndex]:
    """A row is a time of a series; also gives the grid of all of them."""
    columns, file = about["columns"], path.name
    date, key, target = columns["date"], columns["series"], columns["target"]
    covariates = [*columns["past"], *columns["known"], *columns["static"]]
    table = _table(path, [date, *([] if key is None else [key]), target, *covariates])
    told.counts["rows"] += len(table)
    at = _dates(file, table.pop(date), about["date_format"], rules.timezone, told)
    if key is not None:
        for row in at.index[table.loc[at.index, key] == ""]:
            told.reject(file, row, key, "", "a row of no series")
        at = at[table.loc[at.index, key] != ""]
    known = len(at)
    if rules.since is not None:
        at = at[at >= _period("since", rules.since).start_time]
    if rules.until is not None:
        at = at[at <= _period("until", rules.until).end_time]
    told.counts["outside"] += known - len(at)
    if known and at.empty:
        raise DataError(f"{file}: no row lies between since {rules.since} and until {rules.until}")
    place, grid = _placed(file, date, at, about["frequency"], told)
    if place.empty:
        return [], grid
    if len(place) < len(table):
        table = table.loc[place.index]
    series, found = pd.factorize(table[key] if key else np.full(len(table), target, object))
    names = list(map(str, found))
    cells = table[[target, *covariates]].set_axis(range(len(covariates) + 1), axis=1)
    rows = cells.assign(series=series, place=place)  # other columns have numbers for names

    order = np.argsort(series, kind="stable")
    back = np.diff(place.to_numpy()[order]) < 0
    told.counts["unsorted"] += int((back & (np.diff(series[order]) == 0)).sum())
    rows = rows.iloc[np.lexsort((place, series))]
    rows = _single(file, names, rows, rules.duplicates, told)
    for number, column in enumerate(covariates, 1):
        if column in columns["static"]:
            _refuse_change(file, column, names, rows["series"], rows[number])
    numbers = pd.to_numeric(rows[0], errors="coerce").to_numpy(float, copy=True)
    lines = rows.index.to_numpy(int)
    for lost in np.flatnonzero(~np.isfinite(numbers)):
        numbers[lost] = _value(str(rows[0].iloc[lost]), file, int(lines[lost]), target, told)
    ends = np.cumsum(np.bincount(rows["series"], minlength=len(names)))[:-1]
    given = {name: rows[n].to_numpy(object) for n, name in enumerate(covariates, 1)}
    parts = [
        np.split(part, ends) for part in (lines, rows["place"].to_numpy(), numbers, *given.values())
    ]
    return [
        _Found(str(name), file, row, where, values, dict(zip(given, others, strict=True)))
        for name, row, where, values, *others in zip(names, *parts, strict=True)
        if len(row)
    ], grid


def _table(path: Path, wanted: list[str]) -> pd.DataFrame:
    """The wanted columns as text, "" where nothing is; the index is the row of the file."""
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
    for name in wanted:  # one by one, for the memory
        table[name] = table[name].str.strip()
    table.index += 2  # the header is row 1
    blank = (table == "").all(axis=1)
    return table.drop(index=table.index[blank]) if blank.any() else table


def _period(key: str, text: str) -> pd.Period:
    """A day, a month, an hour ...: as much of a time as is given."""
    try:
        return pd.Period(text)
    except ValueError:
        raise DataError(f"prepare: {key}: {text!r} is no date, such as 2014-12-31") from None


def _placed(
    file: str, column: str, at: "pd.Series[pd.Timestamp]", frequency: str, told: Told
) -> tuple["pd.Series[int]", pd.DatetimeIndex]:
    """Where times lie on the grid that begins with the first of them, and the grid."""
    if at.empty:
        return pd.Series(dtype=int), pd.DatetimeIndex([])
    grid = pd.date_range(at.min(), at.max(), freq=frequency, unit="s")
    place = pd.Series(grid.get_indexer(pd.DatetimeIndex(at)), at.index)
    lost = at[place < 0]
    if len(lost):
        begins = f"begins at {grid[0]}" if len(grid) else "has no time from the first to the last"
        reason = f"not on the grid of frequency {frequency}, which {begins}"
        times = pd.DatetimeIndex(at.unique()).sort_values()
        if len(lost) > len(at) / 2 and len(times) > 2:
            with pd.option_context("future.infer_freq_returns_offset", True):
                guess: Any = pd.infer_freq(times)
            if guess is not None:
                reason += f"; the times look like frequency: {guess.freqstr}"
        for row, moment in lost.items():
            told.reject(file, int(str(row)), column, str(moment), reason)
    return place[place >= 0], grid


def _dates(
    file: str,
    text: "pd.Series[str]",
    date_format: str | None,
    timezone: str | None,
    told: Told,
) -> "pd.Series[pd.Timestamp]":
    """Wall times of the zone; rows without a date are left out."""
    codes, distinct = pd.factorize(text)  # many series share their dates
    given = pd.Series(distinct)
    if date_format is None:
        given = given.str.replace(UTC, "Z", regex=True)
    zoned = given.str.contains(AWARE).to_numpy(bool) | ("%z" in (date_format or ""))
    aware = zoned[codes]
    if aware.any() and timezone is None:
        raise DataError(
            f"{file}:{text.index[aware][0]}: {text[aware].iloc[0]!r} has a time zone; set "
            "prepare's timezone to the one whose days are meant, such as America/Chicago"
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
        wall = pd.to_datetime(given.mask(zoned), format=kind, errors="coerce")
        wall = wall.astype("datetime64[s]")
        if zoned.any():
            moments = pd.to_datetime(given[zoned], format=kind, errors="coerce", utc=True)
            local = moments.dt.tz_convert(zone).dt.tz_localize(None)
            wall.loc[local.index] = local.astype("datetime64[s]")
            told.counts["zoned"] += int(aware.sum())
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: dates do not fit date_format: {date_format}: {error}") from None
    at = pd.Series(wall.to_numpy()[codes], text.index)
    meant = "ISO 8601, as date_format is null" if date_format is None else f"strftime's {kind}"
    for row, cell in text[at.isna()].items():
        told.reject(file, int(str(row)), "date", cell, f"not a date ({meant})")
    return at[at.notna()] if at.isna().any() else at


def _single(
    file: str, names: Sequence[str], rows: pd.DataFrame, rule: str, told: Told
) -> pd.DataFrame:
    """One row for each time of a series: repeated rows go, contradicting ones by the rule."""
    repeated = rows.duplicated()
    told.counts["duplicates"] += int(repeated.sum())
    rows = rows[~repeated]
    again = rows.duplicated(["series", "place"])
    if again.any():
        told.counts["conflicts"] += int(again.sum())
        if rule == "refuse":
            first = rows[again].iloc[0]
            alike = (rows["series"] == first["series"]) & (rows["place"] == first["place"])
            listed = rows.index[alike]
            raise DataError(
                f"{file}:{listed[0]}: {len(listed)} rows of {names[first['series']]!r} contradict "
                f"each other about the same time (rows {', '.join(map(str, listed[:SHOWN]))}), as "
                f"do {int(again.sum())} rows in all; mend them, or set prepare's duplicates to "
                "first or last"
            )
        keep: Literal["first", "last"] = "first" if rule == "first" else "last"
        rows = rows.drop_duplicates(["series", "place"], keep=keep)
    return rows


def _refuse_change(
    file: str,
    column: str,
    names: Sequence[str],
    series: "pd.Series[int]",
    cells: "pd.Series[str]",
) -> None:
    """An error where a static column says two things about a series."""
    said = cells[cells != ""]
    first = said.groupby(series).transform("first")
    if (wrong := said.index[said != first]).size:
        row = wrong[0]
        raise DataError(
            f"{file}:{row}: static {column!r} of {names[series[row]]!r} is {said[row]!r}, but "
            f"{first[row]!r} in an earlier row; mend it, or make the column past or known"
        )


def _regular(found: _Found, grid: pd.DatetimeIndex, rules: Rules, told: Told) -> Series | None:
    """The series on the grid, its gaps filled; none where it holds no value."""
    values = found.target.copy()
    zeros = values == 0
    told.counts["zeros"] += int(zeros.sum())
    if rules.zeros == "missing":
        values[zeros] = np.nan
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        told.reject(found.file, int(found.rows[0]), "series", found.name, "holds no value")
        return None
    inside = slice(int(known[0]), int(known[-1]) + 1)
    told.counts["trimmed"] += len(values) - (inside.stop - inside.start)
    begin = found.places[inside.start]
    where = found.places[inside] - begin
    size = int(where[-1]) + 1
    target, rows = np.full(size, np.nan), np.zeros(size, int)
    target[where], rows[where] = values[inside], found.rows[inside]
    rows = np.maximum.accumulate(rows)  # a missing row: the last one before it
    covariates = {}
    for name, column in found.covariates.items():
        covariates[name] = np.full(size, "", object)
        covariates[name][where] = column[inside]
    observed = np.isfinite(target)
    told.counts["filled"] += int((~observed).sum())
    _refuse_gaps(found, rows, observed, rules)
    filled = _fill(target, rules.gaps, rules.season)
    return Series(found.name, int(rows[0]), grid[begin], filled, observed, covariates)


def _refuse_gaps(found: _Found, rows: Array, observed: Array, rules: Rules) -> None:
    """An error for a gap that is longer than the rules allow."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], observed, [True]]).astype(int)))
    for start, end in edges.reshape(-1, 2):
        if rules.gaps == "refuse" or end - start > rules.longest_gap:
            advice = (
                "gaps is refuse"
                if rules.gaps == "refuse"
                else f"longest_gap is {rules.longest_gap}"
            )
            raise DataError(
                f"{found.file}:{rows[start]}: {end - start} steps of {found.name!r} are missing "
                f"from here on, and prepare's {advice}; mend the file, raise it, or begin later "
                "with since"
            )


def _fill(target: Array, rule: str, season: int) -> Array:
    """Gaps filled with the value of a season ago, or the last one: from the past alone.

    A line from before a gap to behind it would show a window that ends in between its future.
    """
    filled = target.copy()
    for step in np.flatnonzero(~np.isfinite(target)):
        back = season if rule == "seasonal" and step >= season else 1
        filled[step] = filled[step - back]
    return filled
