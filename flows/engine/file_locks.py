"""Locks on files, which child processes inherit."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

inherited_locks: ContextVar[tuple[int, ...]] = ContextVar("inherited_locks", default=())


def try_lock(file: Path) -> int | None:
    """Lock a file.

    Returns:
        The descriptor of the locked file; None where another process holds the lock.
    """
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user has created it
        lock = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def hold_in_children(lock: int) -> Iterator[None]:
    """Pass a lock to the commands that start in the block; it is released when all have ended."""
    token = inherited_locks.set((*inherited_locks.get(), lock))
    try:
        yield
    finally:
        inherited_locks.reset(token)
        os.close(lock)
