"""Read raw parallel text: one pair at a time, in constant memory.

A line or a translation unit that cannot be read, and a catalog that cannot be read, is a `Reject`
with its place and reason; the rest is read. A ``DataError`` that names the file is raised where
no pair of the file can be trusted: files of unequal length, truncated archives, malformed XML, or
no text in the requested languages.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ostinato.translation.formats.catalogs import read_catalogs
from ostinato.translation.formats.lines import read_moses, read_tsv
from ostinato.translation.formats.raw import Pair, RawManifest, Reject
from ostinato.translation.formats.tmx import read_tmx

FEEDBACK = "feedback.ndjson"
"""A file of pairs [source, target] that users have sent."""

READERS = {"moses": read_moses, "tsv": read_tsv, "tmx": read_tmx, "gettext": read_catalogs}


def read_pairs(raw: Path, manifest: RawManifest) -> Iterator[Pair | Reject]:
    """Read all pairs of a raw folder, in the order of its files.

    Raises:
        DataError: a file cannot be read; names file and line.
    """
    yield from READERS[manifest.format](raw, manifest)
    if (raw / FEEDBACK).exists():  # of the source `feedback`
        with (raw / FEEDBACK).open(encoding="utf-8") as lines:
            for line in lines:
                yield Pair("feedback", *json.loads(line))
