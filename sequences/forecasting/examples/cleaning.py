"""Raw files to series on a regular grid: what is dirty is repaired by a rule, or refused.

A gap is filled from the past alone, so that no window can see its future through it.
Every departure is counted in ``Told.counts``; what could not be read is listed in ``Told.rejects``
with its file, its row (the header is row 1) and the reason.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sequences.params import near

Array = NDArray[Any]

AWARE = re.compile(r":.*(Z|[+-]\d\d:?\d\d)$|Z$")  # a time of day with its offset from UTC
SHOWN = 3  # of the rows that an error names


class DataError(ValueError):
    """Raw data that cannot be prepared; the message says where, why and what to do."""


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
                f"{len(rows)} of {self.counts['rows']} rows are unreadable, more than "
                f"tolerated_rejects: {share} allows:\n  " + "\n  ".join(shown)
            )


class Series(NamedTuple):
    """One series, regular and without gaps; ``covariates`` are columns as they were written."""

    name: str
    first: pd.Timestamp
    target: Array  # float64 (step,)
    observed: Array  # bool (step,): not filled in
    covariates: dict[str, Array]  # column -> str (step,), "" where nothing is known


def read(
    raw: Path, about: Mapping[str, Any], rules: Rules, told: Told, tolerated: float
) -> list[Series]:
    """All series of a raw folder, clean, in the order of their names' first appearance.

    Raises:
        DataError: names the file and the row that a rule refuses, or the column that is not there;
            or more than the ``tolerated`` share of the rows is unreadable.
    """
    paths = [raw / file["path"] for file in about["files"]]
    found = _wide(paths, told) if about["layout"] == "wide" else _long(paths[0], about, rules, told)
    told.tolerate(tolerated)  # first, as what is unreadable leaves gaps
    series = [_regular(each, about["frequency"], rules, told) for each in found]
    told.tolerate(tolerated)
    if not series:
        raise DataError(f"{paths[0].name}: holds no series with a value")
    told.counts["series"] = len(series)
    return series


class _Found(NamedTuple):
    """One series as it was found: sorted, without duplicates, gaps as NaN or left out."""

    name: str
    file: str
    rows: Array  # int (found,): of the file
    times: pd.DatetimeIndex | None  # None: one after the other
    target: Array  # float64 (found,), NaN where missing
    covariates: dict[str, Array]


def _wide(paths: list[Path], told: Told) -> list[_Found]:
    """A row is a series; the rows of a second file go on where those of the first one ended."""
    values: dict[str, list[float]] = {}
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
                values.setdefault(cells[0], []).extend(numbers)
    return [
        _Found(
            name,
            places[name][0],
            np.full(len(numbers), places[name][1]),
            None,
            np.asarray(numbers),
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


def _long(path: Path, about: Mapping[str, Any], rules: Rules, told: Told) -> list[_Found]:
    """A row is a time of a series."""
    columns = about["columns"]
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig"
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path.name}: not a CSV file in UTF-8: {error}") from None
    covariates = [*columns["past"], *columns["known"], *columns["static"]]
    date, key, target = columns["date"], columns["series"], columns["target"]
    for name in filter(None, [date, key, target, *covariates]):
        if name not in table:
            raise DataError(f"{path.name}: no column {name!r}; {near(name, map(str, table))}")
    told.counts["rows"] += len(table)
    rows = np.arange(len(table)) + 2
    at = _dates(path.name, table[date], rows, about["date_format"], rules.timezone, told)
    used = table[covariates].apply(lambda column: column.str.strip())
    used[target] = table[target].str.strip()
    used["series"] = table[key].str.strip() if key else target
    used["at"], used["row"] = at, rows
    used = used[used["at"].notna()]
    before = len(used)
    if rules.since is not None:
        used = used[used["at"] >= pd.Timestamp(rules.since)]
    if rules.until is not None:
        used = used[used["at"] <= pd.Timestamp(rules.until)]
    told.counts["outside"] += before - len(used)
    numbers = pd.to_numeric(used[target], errors="coerce").to_numpy(float, copy=True)
    for place in np.flatnonzero(~np.isfinite(numbers)):
        row, cell = int(used["row"].iloc[place]), str(used[target].iloc[place])
        numbers[place] = _value(cell, path.name, row, target, told)
    used["number"] = numbers
    found = []
    for name, group in used.groupby("series", sort=False):
        told.counts["unsorted"] += int((np.diff(group["at"].to_numpy()) < np.timedelta64(0)).sum())
        group = group.sort_values("at", kind="stable")
        group = _single(path.name, str(name), group, rules.duplicates, told)
        found.append(
            _Found(
                str(name),
                path.name,
                group["row"].to_numpy(),
                pd.DatetimeIndex(group["at"]),
                group["number"].to_numpy(),
                {column: group[column].to_numpy(object) for column in covariates},
            )
        )
    return found


def _dates(
    file: str,
    text: "pd.Series[str]",
    rows: Array,
    date_format: str | None,
    timezone: str | None,
    told: Told,
) -> "pd.Series[pd.Timestamp]":
    """Wall times of the zone, NaT where there is no date."""
    text = text.str.strip()
    aware = text.str.contains(AWARE.pattern.replace("(", "(?:"), regex=True).to_numpy()
    if aware.any() and timezone is None:
        row = int(rows[aware][0])
        raise DataError(
            f"{file}:{row}: {text[aware].iloc[0]!r} has a time zone; set prepare's timezone to "
            "the one whose days are meant, such as America/Chicago"
        )
    kind = "ISO8601" if date_format is None else date_format
    at = pd.to_datetime(text.mask(aware), format=kind, errors="coerce").astype("datetime64[s]")
    if aware.any():
        zoned = pd.to_datetime(text[aware], format=kind, errors="coerce", utc=True)
        wall = zoned.dt.tz_convert(ZoneInfo(str(timezone))).dt.tz_localize(None)
        at.loc[wall.index] = wall.astype("datetime64[s]")
        told.counts["zoned"] += int(aware.sum())
    for place in np.flatnonzero(at.isna().to_numpy()):
        told.reject(file, int(rows[place]), "date", str(text.iloc[place]), f"not a date ({kind})")
    return at


def _single(file: str, name: str, group: Any, rule: str, told: Told) -> Any:
    """One row for each time: repeated rows go, contradicting ones by the rule."""
    same = [column for column in group if column != "row"]
    repeated = group.duplicated(same, keep="first")
    told.counts["duplicates"] += int(repeated.sum())
    group = group[~repeated]
    conflicting = group.duplicated("at", keep=False)
    if conflicting.any():
        told.counts["conflicts"] += int(group.duplicated("at").sum())
        if rule == "refuse":
            rows = group.loc[conflicting, "row"].head(SHOWN).tolist()
            raise DataError(
                f"{file}:{rows[0]}: {int(conflicting.sum())} rows of {name!r} contradict each "
                f"other about the same time (rows {', '.join(map(str, rows))} ...); mend them, or "
                "set prepare's duplicates to first or last"
            )
        group = group.drop_duplicates("at", keep=rule)
    return group


def _regular(found: _Found, frequency: str, rules: Rules, told: Told) -> Series:
    """The series on its grid, its gaps filled."""
    target, rows = found.target.copy(), found.rows
    covariates, place = found.covariates, f"{found.file}:"
    zeros = target == 0
    told.counts["zeros"] += int(zeros.sum())
    if rules.zeros == "missing":
        target[zeros] = np.nan
    known = np.flatnonzero(np.isfinite(target))
    if not len(known):
        raise DataError(f"{place}{rows[0] if len(rows) else 1}: {found.name!r} holds no value")
    inside = slice(int(known[0]), int(known[-1]) + 1)
    told.counts["trimmed"] += len(target) - (inside.stop - inside.start)
    target, rows = target[inside], rows[inside]
    covariates = {name: column[inside] for name, column in covariates.items()}
    if found.times is None:
        grid = pd.DatetimeIndex([pd.Timestamp(0)])
    else:
        at = found.times[inside]
        grid = pd.date_range(at[0], at[-1], freq=frequency, unit="s")
        where = grid.get_indexer(at)
        for lost in np.flatnonzero(where < 0):
            reason = f"not on the grid of frequency {frequency} that begins at {at[0]}"
            told.reject(found.file, int(rows[lost]), "date", str(at[int(lost)]), reason)
        kept, sparse, numbers = where >= 0, target, rows
        if not kept.any():
            raise DataError(f"{place}{rows[0]}: {found.name!r} has no time on the grid {frequency}")
        target, rows = np.full(len(grid), np.nan), np.zeros(len(grid), int)
        target[where[kept]], rows[where[kept]] = sparse[kept], numbers[kept]
        rows = np.maximum.accumulate(rows)  # a missing row: the last one before it
        columns = {}
        for name, column in covariates.items():
            columns[name] = np.full(len(grid), "", object)
            columns[name][where[kept]] = column[kept]
        covariates = columns
    observed = np.isfinite(target)
    told.counts["filled"] += int((~observed).sum())
    _refuse_gaps(found, rows, observed, rules)
    filled = _fill(target, rules.gaps, rules.season)
    return Series(found.name, grid[0], filled, observed, covariates)


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
