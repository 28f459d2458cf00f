"""Wide files: a row for each series, its name first, then its values in order."""

import re
from pathlib import Path

import numpy as np

from ostinato.errors import DataError
from ostinato.forecasting.dataset.report import ReadReport
from ostinato.forecasting.formats.numbers import Notation
from ostinato.forecasting.formats.table import rows, shorten, wide_separator

DATES_TELL = 3  # rows whose names are dates, from which on the file is taken for a long one
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}([-/.]\d{1,4})?([T ]|$)")


def read_wide(
    paths: list[Path], notation: Notation, report: ReadReport
) -> dict[str, tuple[str, int, np.ndarray]]:
    """Read wide files; a second file continues the series of the first.

    Args:
        paths: of the files; the first row of each is a header.
        notation: of the numbers.
        report: gets counts and rejects.

    Returns:
        By the names of the series: file and row at which it begins, and its values.

    Raises:
        DataError: a file is no table, or has a row for each time.
    """
    found: dict[str, tuple[str, int, np.ndarray]] = {}
    for path in paths:
        lines = rows(path, wide_separator(path))
        next(lines, None)
        for row, cells in lines:
            while cells and _has_no_value(cells[-1], notation):
                cells.pop()  # shorter series are padded
            if not cells:
                continue
            report.counts["rows"] += 1
            name = cells[0].strip()
            if path == paths[0]:
                if name in found:
                    report.reject(path.name, row, "1", name, "a second series of this name")
                    continue
                found[name] = path.name, row, np.empty(0)
            elif name not in found:
                report.reject(path.name, row, "1", name, "not a series of the first file")
                continue
            numbers = _numbers(cells[1:], path.name, row, notation, report)
            file, begin, before = found[name]
            found[name] = file, begin, np.concatenate([before, numbers])
        if path == paths[0]:
            _check_names(path.name, list(found))
    return found


def _has_no_value(cell: str, notation: Notation) -> bool:
    """Whether a cell is empty or says that its value is missing."""
    value = notation.number(cell.strip())
    return value is not None and np.isnan(value)


def _numbers(
    cells: list[str], file: str, row: int, notation: Notation, report: ReadReport
) -> np.ndarray:
    """The numbers of a row; NaN where a value is missing, and a reject where it is no number."""
    if notation == Notation() and "_" not in "".join(cells):
        try:
            numbers = np.array([float(cell) for cell in cells] or [np.nan])
        except ValueError:
            pass
        else:
            if np.isfinite(numbers).all():
                return numbers
    values = []
    for number, cell in enumerate(cells, 2):
        value = notation.number(cell.strip())
        if value is None:
            report.reject(file, row, str(number), cell.strip(), "not a number")
        values.append(np.nan if value is None else value)
    return np.array(values or [np.nan])


def _check_names(file: str, names: list[str]) -> None:
    """Raise an error where the names of the series are dates: the file is not wide."""
    if len(names) >= DATES_TELL and all(map(DATE.match, names)):
        raise DataError(
            f"{file}: found dates in the first column ({shorten(names[0])} ...); expected the name "
            "of a series in each row; a table with a row for each time is read by source: csv"
        )
