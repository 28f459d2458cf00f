"""Tables in text files: the header tells the separator, and every row keeps its line number."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ostinato.errors import DataError
from ostinato.params import near

SEPARATORS = (",", ";", "\t", "|")
HEADER_WITHIN = 50  # rows in which a header below other lines is looked for, for the error
SHOWN = 60  # characters of a cell in a message
OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive; save the table as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the table as CSV",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"<!DO": "an HTML page, perhaps of a login; download the file itself",
    b"<htm": "an HTML page, perhaps of a login; download the file itself",
}


def shorten(cell: str) -> str:
    """A cell as messages show it: at most `SHOWN` characters."""
    return cell if len(cell) <= SHOWN else f"{cell[: SHOWN - 3]}..."


def find_header(path: Path, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The separator of a table and the names of its columns.

    The separator is the one of `SEPARATORS` that gives the first line all wanted columns.

    Args:
        path: of the file.
        wanted: names of columns.

    Raises:
        DataError: the file is no table in UTF-8, its first line has not all wanted columns, or it
            has one of them twice.
    """
    headers, failure = {}, None
    for separator in SEPARATORS:
        try:
            header = [name.strip() for name in next(rows(path, separator), (1, [""]))[1]]
        except DataError as error:
            failure = failure or error
            continue
        if set(wanted) <= set(header):
            for name in wanted:
                if header.count(name) > 1:
                    count = header.count(name)
                    raise DataError(f"{path.name}:1: {count} columns are called {name!r}")
            return separator, header
        headers[separator] = header
    if not headers and failure:
        raise failure
    for separator in headers:
        if line := _later_header(path, separator, wanted):
            raise DataError(
                f"{path.name}:{line}: the names of the columns stand in this line; expected them "
                "in line 1; remove the lines before it"
            )
    header = max(headers.values(), key=len)
    missing = next(name for name in wanted if name not in header)
    known = [shorten(name) for name in header if name]
    raise DataError(f"{path.name}:1: no column {missing!r}; {near(missing, known)}")


def wide_separator(path: Path) -> str:
    """The separator of a file without column names that are known: it gives the most cells."""
    counts = {}
    for separator in SEPARATORS:
        try:
            counts[separator] = len(next(rows(path, separator), (1, []))[1])
        except DataError:
            counts[separator] = 0
    return max(counts, key=lambda separator: counts[separator])


def rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the line at which it begins; the header is one of them.

    Args:
        path: of the file, in UTF-8 or, with a byte order mark, in UTF-16.
        separator: between two cells.

    Raises:
        DataError: the file is no text in UTF-8, or the quotes of a row do not match.
    """
    with path.open("rb") as binary:
        begin = binary.read(4)
    for magic, kind in OTHER_FILES.items():
        if begin.startswith(magic):
            raise DataError(f"{path.name}: found {kind}")
    encoding = "utf-16" if begin[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{path.name}:{line}: {error}; does a quote in this row not close?"
                ) from None
            except UnicodeError:
                raise DataError(_not_utf8(path)) from None
            yield line, cells


def _later_header(path: Path, separator: str, wanted: Sequence[str]) -> int | None:
    """The line of a row with all wanted names, among the first rows; None where there is none."""
    try:
        for number, (line, cells) in enumerate(rows(path, separator)):
            if number >= HEADER_WITHIN:
                return None
            if set(wanted) <= {cell.strip() for cell in cells}:
                return line
    except DataError:
        pass
    return None


def _not_utf8(path: Path) -> str:
    """An error with the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return (
                    f"{path.name}:{number}: found the byte 0x{byte:02x}; expected text in UTF-8; "
                    "save the file as UTF-8"
                )
    return f"{path.name}: its text is cut off; expected UTF-8 or UTF-16"
