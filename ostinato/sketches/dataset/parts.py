"""Parts of a work that several processes share through a folder.

A part writes a file when it is done. Each process makes the parts that nobody else is making, so
any number of processes on machines with a common disk end the work together, and one that starts
after a killed one makes only what is missing. The lock of a killed process is free at once.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ostinato.errors import MissingFileError
from ostinato.progress import track

POLL_S = 0.2  # between two looks at parts that other processes make


def complete(
    results: Sequence[Path],
    make: Callable[[int], None],
    locks: Path,
    *,
    threads: int,
    title: str,
    unit: str,
) -> None:
    """Make all missing parts, together with the processes that call this for the same folder.

    Args:
        results: the file of each part.
        make: makes a part, by its number; it writes the part's file last, atomically.
        locks: folder for a lock of each part.
        threads: of this process.
        title: of the work, for its progress.
        unit: plural name of the parts.

    Raises:
        MissingFileError: another process has joined the parts and removed their folder.
    """
    from filelock import FileLock, Timeout  # serving, which imports this package, has none

    def attempt(number: int) -> None:
        result = results[number]
        if result.exists():
            return
        if not result.parent.exists():  # a lock would create its folder again
            raise MissingFileError(f"{result.parent}: another process has joined the parts")
        try:
            with FileLock(locks / f"{result.parent.name}-{result.name}.lock", timeout=0):
                if not result.exists():
                    make(number)
        except Timeout:
            pass  # another process makes it

    missing = list(range(len(results)))
    with ThreadPoolExecutor(threads) as pool:
        while missing:
            attempts = pool.map(attempt, missing)
            for _ in track(attempts, title, unit=unit, total=len(missing)):
                pass
            missing = [number for number in missing if not results[number].exists()]
            if missing:
                time.sleep(POLL_S)
