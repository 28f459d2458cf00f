"""The progress of a batch prediction: a bar on a terminal, else a line now and then."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Self

from tqdm import tqdm

from ostinato.serving.prediction.records import Located

INTERVAL_S = 10.0  # between two lines
BAR = "{desc} {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"

log = logging.getLogger(__name__)


class Progress:
    """Counts inputs; the time that is left follows from the bytes of the files.

    Args:
        noun: for the inputs.
        sizes: of the files, in bytes.
        file: number of the first one that is read.
        count: inputs before it that an earlier run has read.
    """

    def __init__(self, noun: str, sizes: Sequence[int], file: int, count: int) -> None:
        self.noun, self._count, self._rejected = noun, count, 0
        self._begins = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self._first = self._read = self._begins[file]
        self._former, self._start = count, time.monotonic()
        self._last = self._start
        self._bar = tqdm(
            total=self._begins[-1],
            initial=self._first,
            desc=noun,
            bar_format=BAR,
            disable=None,
            file=sys.stderr,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def add(self, window: Sequence[Located], rejected: int) -> None:
        """Count the records of a window."""
        self._count += len(window)
        self._rejected += rejected
        for located in window:  # the size of a packed file says less than its records have
            begin, end = self._begins[located.next.file : located.next.file + 2]
            self._read = min(max(self._read, begin) + located.record.size, end)
        now = time.monotonic()
        seconds = now - self._start
        rate = (self._count - self._former) / max(seconds, 1e-9)
        text = f"{self._count:,}, {rate:,.0f}/s, {self._rejected:,} rejected"
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(self._read - self._bar.n)
        elif now - self._last >= INTERVAL_S:
            self._last = now
            read, total = self._read - self._first, self._begins[-1]
            left = f", {(total - self._read) / read * seconds:,.0f} s left" if read else ""
            share = self._read / total if total else 1.0
            log.info(f"{self.noun}: {share:.0%}: {text}{left}")
