"""The progress of a batch prediction, by the bytes of its files."""

from collections.abc import Sequence
from typing import Self

from ostinato.progress import Bar
from ostinato.serving.prediction.records import Located


class Progress:
    """Counts inputs; the time that is left follows from the bytes of the files.

    Args:
        noun: for the inputs.
        sizes: of the files, in bytes.
        file: number of the first one that is read.
        count: inputs before it that an earlier run has read.
    """

    def __init__(self, noun: str, sizes: Sequence[int], file: int, count: int) -> None:
        self._noun, self._count, self._rejected = noun, count, 0
        self._begins = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self._read = self._begins[file]
        self._bar = Bar("predicting", self._begins[-1], unit="bytes", start=self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def add(self, window: Sequence[Located], rejected: int) -> None:
        """Count the records of a window."""
        before = self._read
        self._count += len(window)
        self._rejected += rejected
        for located in window:  # the size of a packed file says less than its records have
            begin, end = self._begins[located.next.file : located.next.file + 2]
            self._read = min(max(self._read, begin) + located.record.size, end)
        note = f"{self._count:,} {self._noun}, {self._rejected:,} rejected"
        self._bar.advance(self._read - before, note)
