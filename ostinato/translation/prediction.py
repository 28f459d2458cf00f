"""Texts in files, one a line, or in a column of tab-separated tables; plain or packed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ostinato.errors import DataError
from ostinato.serving.prediction.records import Format, Key, Record, fields, refused
from ostinato.task import Service
from ostinato.translation.formats.opening import ENDINGS, open_file, read_lines
from ostinato.translation.formats.raw import Reject
from ostinato.translation.serving import Input, Response
from ostinato.units import Count

SUFFIXES = tuple(kind + packed for kind in (".txt", ".tsv") for packed in ("", *ENDINGS))


def read(path: Path, service: Service, *, column: Count | None = None) -> Iterator[Record]:
    """The texts of a file, one a line; an empty line is a text, so that lines stay aligned.

    Args:
        path: of the file.
        service: not used.
        column: of a tab-separated table, from 1; without it the first of a ``.tsv`` file, and the
            whole line of any other.
    """
    if column is None and ".tsv" in path.suffixes:
        column = 1
    with open_file(path, path.name) as stream:
        for number, line in enumerate(read_lines(stream, path.name), 1):
            place = f"line {number}"
            if isinstance(line, Reject):
                yield refused(place, line.reason)
            else:
                yield Record(place, len(line) + 1, partial(_parse, number, line, column))


def _parse(number: int, line: str, column: int | None) -> tuple[Key, Input]:
    if column is None:
        return {"line": number}, Input(text=line)
    cells = line.split("\t")
    if line.strip() and len(cells) < column:
        raise DataError(f"found {len(cells)} columns; expected at least {column}")
    return {"line": number}, Input(text=cells[column - 1] if line.strip() else "")


FORMAT = Format(
    noun="texts",
    suffixes=SUFFIXES,
    keys={"line": int},
    batch_size=64,
    read=read,
    columns=lambda service: fields(Response),
)
