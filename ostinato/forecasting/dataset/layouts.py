"""The columns of a long file as text, and what its other columns tell about a wrong reading."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ostinato.forecasting.dataset.report import ReadReport
from ostinato.forecasting.formats.layout import Columns
from ostinato.forecasting.formats.table import find_header, rows

CHUNK = 100_000  # rows that are held as lists of texts
LOOKED_AT = 10_000  # rows from which an error is explained
CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?|\d{1,2}\.\d\d\.\d\d")
PARTS = {
    "year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "hr": "%H", "minute": "%M", "min": "%M",
    "second": "%S", "sec": "%S",
}  # fmt: skip


def read_columns(path: Path, wanted: Sequence[str], report: ReadReport) -> pd.DataFrame:
    """The wanted columns as text, "" where a cell is empty; the index is the row of the file.

    Rows without any cell of the wanted columns are nothing. A row with more cells than the header
    is a reject.

    Args:
        path: of the file.
        wanted: names of columns.
        report: gets the number of rows, and rejects.

    Raises:
        DataError: the file is no table, or has not all columns.
    """
    separator, header = find_header(path, wanted)
    places = [header.index(name) for name in wanted]
    chunks, index, columns = [], list[int](), [list[str]() for _ in wanted]

    def chunk() -> pd.DataFrame:
        content = dict(enumerate(columns))
        return pd.DataFrame(content, index=index, dtype=str).set_axis(list(wanted), axis=1)

    table = rows(path, separator)
    next(table)
    for row, cells in table:
        if len(cells) > len(header):
            if any(cells):
                report.counts["rows"] += 1
                reason = f"{len(cells)} cells, and the header has {len(header)}"
                report.reject(path.name, row, "row", separator.join(cells), reason)
            continue
        texts = [cells[place].strip() if place < len(cells) else "" for place in places]
        if not any(texts):
            continue
        index.append(row)
        for column, text in zip(columns, texts, strict=True):
            column.append(text)
        if len(index) == CHUNK:
            chunks.append(chunk())
            index, columns = [], [[] for _ in wanted]
    chunks.append(chunk())
    result = pd.concat(chunks) if len(chunks) > 1 else chunks[0]
    report.counts["rows"] += len(result)
    return result


def explain_conflicts(path: Path, columns: Columns, date_format: str | None) -> str:
    """Which other column may tell rows of the same time apart; "" where none does.

    Args:
        path: of the file.
        columns: that were read.
        date_format: of the dates that were read.
    """
    used = {*columns.dates, columns.target, *([columns.series] if columns.series else [])}
    separator, header = find_header(path, sorted(used))
    found: dict[str, list[str]] = {name: [] for name in header if name}
    for number, (_, cells) in enumerate(rows(path, separator)):
        if 0 < number <= LOOKED_AT:
            for name, cell in zip(header, cells, strict=False):
                if name:
                    found[name].append(cell.strip())
    others = [name for name in found if name not in used]
    known = [*columns.dates, *([columns.series] if columns.series else [])]

    def distinct(names: Sequence[str]) -> int:
        return len(set(zip(*(found[name] for name in names), strict=False)))

    parts: list[str] = []
    whole = any(name.lower() not in PARTS for name in columns.dates)  # else of a year, say
    for name in sorted(others, key=_rank):
        is_part = name.lower() in PARTS or _is_clock(found[name])
        tells = is_part and distinct([*known, *parts, name]) > distinct([*known, *parts])
        if tells or (is_part and not whole):
            parts.append(name)
    if distinct([*known, *parts]) > distinct(known):
        order = [*columns.dates, *parts]
        formats = " ".join(
            [date_format or "%Y-%m-%d", *(_format(name, found[name]) for name in parts)]
        )
        return (
            f"the time of a row seems to stand in more columns: set the source's date: "
            f"[{', '.join(order)}] and a date_format such as '{formats}'"
        )
    if columns.series is None:
        for name in sorted(others, key=lambda name: len(set(found[name]))):
            count = len(found[name])
            if distinct([*known, name]) == count and 2 * len(set(found[name])) <= count:
                return f"if the column {name!r} names the series, set the source's series: {name}"
    return ""


def _is_clock(cells: Sequence[str]) -> bool:
    """Whether all cells of a column are times of the day."""
    present = [cell for cell in cells if cell]
    return bool(present) and all(CLOCK.fullmatch(cell) for cell in present)


def _rank(name: str) -> int:
    """The place of a part of a time: year first, clock times last."""
    return list(PARTS).index(name.lower()) if name.lower() in PARTS else len(PARTS)


def _format(name: str, cells: Sequence[str]) -> str:
    """The directives of ``strftime`` that a column's cells probably have."""
    if name.lower() in PARTS:
        return PARTS[name.lower()]
    sample = next(cell for cell in cells if cell)
    mark = ":" if ":" in sample else "."
    return mark.join(["%H", "%M", "%S"][: sample.count(mark) + 1])
