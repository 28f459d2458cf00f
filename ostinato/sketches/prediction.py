"""Drawings in ndjson files, as `ostinato.sketches.formats.quickdraw` reads them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ostinato.errors import DataError
from ostinato.serving.prediction.records import Format, Key, Record, fields
from ostinato.sketches.formats import quickdraw
from ostinato.sketches.serving import Input, Response
from ostinato.task import Service


def read(path: Path, service: Service, *, simplified: bool = False) -> Iterator[Record]:
    """The drawings of a file, one a line.

    Args:
        path: of the file.
        service: not used.
        simplified: whether coordinates are in 0 to 255 and simplified, as Google's.
    """
    if fault := quickdraw.layout_fault(path):
        raise DataError(fault)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip(b" \t\r\n"):
                parse = partial(_parse, number, line.rstrip(b"\n"), simplified)
                yield Record(f"line {number}", len(line), parse)


def _parse(number: int, line: bytes, simplified: bool) -> tuple[Key, Input]:
    key, strokes = quickdraw.read_lists(line)
    return {"line": number, "key_id": key}, Input(strokes=strokes, simplified=simplified)


FORMAT = Format(
    noun="drawings",
    suffixes=(".ndjson",),
    keys={"line": int, "key_id": str},
    batch_size=256,
    read=read,
    columns=lambda service: fields(Response),
)
