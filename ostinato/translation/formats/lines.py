"""Readers of text with a pair in each line: line-aligned files, and tab-separated tables."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ostinato.errors import DataError
from ostinato.translation.formats.opening import open_file, read_lines
from ostinato.translation.formats.raw import Pair, RawManifest, Reject


def read_moses(raw: Path, manifest: RawManifest) -> Iterator[Pair | Reject]:
    """Pairs of two files whose lines are translations of each other, for each split."""
    names = {(file.split, file.language): file.path for file in manifest.files}
    for split in dict.fromkeys(split for split, _ in names):
        first, second = (names[split, language] for language in manifest.languages)
        with open_file(raw / first, first) as one, open_file(raw / second, second) as two:
            lines = zip_longest(read_lines(one, first), read_lines(two, second))
            number = 0
            for number, (source, target) in enumerate(lines, 1):
                if source is None or target is None:
                    for _ in lines:  # the checksum of a damaged archive is at its end
                        pass
                    short, long = (first, second) if source is None else (second, first)
                    raise DataError(
                        f"{long}, line {number}: {short} has only {number - 1} lines; fetch both "
                        "files again, or cut them to the lines that belong together"
                    )
                if isinstance(source, Reject):
                    yield source
                elif isinstance(target, Reject):
                    yield target
                else:
                    yield Pair(split, source, target)
            if not number:
                raise DataError(f"{first}, {second}: found no line; expected a text in each line")


def read_tsv(raw: Path, manifest: RawManifest) -> Iterator[Pair | Reject]:
    """Pairs of two columns of a tab-separated table; a blank line is an empty pair."""
    (file,), (first, second) = manifest.files, manifest.columns or [1, 2]
    number = 0
    with open_file(raw / file.path, file.path) as table:
        for number, line in enumerate(read_lines(table, file.path), 1):
            if isinstance(line, Reject):
                yield line
                continue
            cells = line.split("\t")
            if not line.strip():
                yield Pair(file.split, "", "")
            elif len(cells) < max(first, second):
                yield Reject(
                    file.path,
                    number,
                    f"found {len(cells)} columns; expected at least {max(first, second)}, "
                    "separated by tabs",
                )
            else:
                yield Pair(file.split, cells[first - 1], cells[second - 1])
    if not number:
        raise DataError(f"{file.path}: found no line; expected a pair in each line")
