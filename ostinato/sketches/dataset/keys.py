"""The hashes of all keys, in files, and those that occur more than once."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from ostinato import store

RANGE = 1 << 21  # hashes that are in memory together, about

Hashes = UInt64[np.ndarray, " key"]


def write(file: Path, hashes: Hashes) -> None:
    """Write hashes, sorted."""
    content = BytesIO()
    np.lib.format.write_array(content, np.sort(hashes), allow_pickle=False)
    store.write_bytes(file, content.getvalue())


def repeated(files: Sequence[Path], count: int) -> Hashes:
    """The hashes that occur more than once, sorted.

    Args:
        files: that `write` has written.
        count: of all hashes.
    """
    ranges = -(-count // RANGE)
    found = [np.empty(0, np.uint64)]
    for number in range(ranges):
        hashes = np.sort(np.concatenate(list(_read_range(files, number, ranges))))
        found.append(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]))
    return np.concatenate(found)


def _read_range(files: Sequence[Path], number: int, ranges: int) -> Iterator[Hashes]:
    """The hashes of each file that are in one of equal ranges of all values."""
    for file in files:
        hashes = np.load(file, mmap_mode="r" if file.stat().st_size > 4096 else None)
        first, last = 0, len(hashes)
        if number:
            first = int(np.searchsorted(hashes, np.uint64((number << 64) // ranges)))
        if number + 1 < ranges:
            last = int(np.searchsorted(hashes, np.uint64((number + 1 << 64) // ranges)))
        yield np.array(hashes[first:last])
