"""The progress of long work: a bar by rich in a terminal, elsewhere a line of the log now and then.

Short work shows nothing: a bar appears after `DELAY_S`, a line after `LINE_S`. Between two of them
an update only reads the clock, and rich is imported with the first bar.
"""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

LOG = logging.getLogger("ostinato")
DELAY_S = 0.5  # before a bar appears
REDRAW_S = 0.2  # between two states of a bar
LINE_S = 10.0  # before the first line, and between two lines


class Bar:
    """The progress of one piece of work, from the entry of the context to its end.

    One thread at a time may advance it. A bar that is made outside of the main thread shows
    nothing: a server answers there.

    Args:
        title: of the work, such as "reading".
        total: number of units to be done; None where it is not known.
        unit: plural name of what is counted, such as "drawings".
        start: number of units that were done before; the estimate of the time left omits them.
    """

    def __init__(self, title: str, total: int | None, *, unit: str, start: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._start = start
        self._display: Progress | None = None
        self._in_terminal = is_terminal()
        self._began = time.monotonic()
        first = DELAY_S if self._in_terminal else LINE_S
        shown = threading.current_thread() is threading.main_thread()
        self._due = self._began + first if shown else math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._display is not None:
            self._display.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more units as done.

        Args:
            count: of them.
            note: what to show beside the number, such as the loss.
        """
        self._done += count
        now = time.monotonic()
        if now < self._due:
            return
        text = self._state(now - self._began, note)
        if self._in_terminal:
            self._draw(text)
            self._due = now + REDRAW_S
        else:
            LOG.info("%s: %s", self._title, text)
            self._due = now + LINE_S

    def _state(self, seconds: float, note: str) -> str:
        """The number of units done, the note, and the time left where it can be estimated."""
        parts = [f"{self._done:,} {self._unit}", note]
        if self._total is not None:
            parts[0] = f"{self._done:,} of {self._total:,} {self._unit}"
            if done := self._done - self._start:
                left = seconds * max(0, self._total - self._done) / done
                parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(filter(None, parts))

    def _draw(self, text: str) -> None:
        if self._display is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._display = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(20),
                TextColumn("{task.fields[text]}", markup=False),
                console=Console(file=sys.stderr),
                auto_refresh=False,  # a thread would take time from the work
                transient=True,
            )
            self._display.add_task(self._title, total=self._total, text="")
            self._display.start()
        (task,) = self._display.task_ids
        self._display.update(task, completed=self._done, text=text, refresh=True)


def track(items: Iterable[T], title: str, *, unit: str, total: int | None = None) -> Iterator[T]:
    """Show the progress of an iteration.

    Args:
        items: to iterate over.
        title: of the work.
        unit: plural name of the items.
        total: number of items; None: their length, where they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(title, total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()


def is_terminal() -> bool:
    """Whether a person reads the error stream in a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
