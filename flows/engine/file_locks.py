"""TODO."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

inherited_locks: ContextVar[tuple[int, ...]] = ContextVar("locks", default=())


def try_lock(file: Path) -> int | None:
    """Lock a file: its descriptor, or None where another has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def hold_in_children(lock: int) -> Iterator[None]:
    """Hand a lock on to the commands that start here; it is free when all of them have ended."""
    token = inherited_locks.set((*inherited_locks.get(), lock))
    try:
        yield
    finally:
        inherited_locks.reset(token)
        os.close(lock)
