"""Drawings in ndjson files, as `ostinato.sketches.formats.quickdraw` reads them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ostinato.errors import DataError
from ostinato.serving.prediction.records import Format, Key, Record, fields, refused
from ostinato.sketches.formats import quickdraw
from ostinato.sketches.serving import Response, Scanned
from ostinato.task import Service

CHUNK_BYTES = 1 << 20  # of lines that the compiled scanner reads at once


def read(path: Path, service: Service, *, simplified: bool = False) -> Iterator[Record]:
    """The drawings of a file, one a line.

    Args:
        path: of the file.
        service: not used.
        simplified: whether coordinates are in 0 to 255 and simplified, as Google's.
    """
    if fault := quickdraw.layout_fault(path):
        raise DataError(fault)
    before = 0
    with path.open("rb") as file:
        while lines := file.readlines(CHUNK_BYTES):
            yield from _records(lines, before, simplified)
            before += len(lines)


def _records(lines: Sequence[bytes], before: int, simplified: bool) -> Iterator[Record]:
    """The records of some lines, in their order; blank lines are none."""
    parsed, rejects = quickdraw.parse(b"".join(lines))
    text = parsed.text.tobytes()
    first_strokes = np.concatenate([[0], parsed.drawings]).tolist()
    first_points = np.concatenate([[0], parsed.strokes])
    found = {}
    for index, (line, (start, end)) in enumerate(
        zip(parsed.lines.tolist(), parsed.keys.tolist(), strict=True)
    ):
        first, last = first_strokes[index], first_strokes[index + 1]
        begin = first_points[first]
        scanned = Scanned(
            parsed.points[begin : first_points[last]],
            first_points[first + 1 : last + 1] - begin,
            simplified,
        )
        key = {"line": before + line + 1, "key_id": text[start:end].decode()}
        place = f"line {before + line + 1}"
        found[line] = Record(place, len(lines[line]), partial(_as_it_is, key, scanned))
    for line, reason in rejects:
        found[line] = refused(f"line {before + line + 1}", reason, len(lines[line]))
    for line in sorted(found):
        yield found[line]


def _as_it_is(key: Key, scanned: Scanned) -> tuple[Key, Scanned]:
    return key, scanned


FORMAT = Format(
    noun="drawings",
    suffixes=(".ndjson",),
    keys={"line": int, "key_id": str},
    batch_size=256,
    read=read,
    columns=lambda service: fields(Response),
)
