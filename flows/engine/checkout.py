"""The lock of the checkout: one flow at a time works in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from prefect import runtime
from prefect.logging import get_run_logger

from flows.engine.commands import POLL_INTERVAL_S, supervised, wait_or_stop
from flows.engine.file_locks import hold_in_children, try_lock
from ostinato.errors import FlowError

LOCK = Path(".dvc", "tmp", "flow")
_in_checkout: ContextVar[bool] = ContextVar("in_checkout", default=False)


@contextmanager
def checkout() -> Iterator[None]:
    """Lock the checkout for this flow; wait for the flow that holds the lock.

    A subflow shares the lock of its caller. Commands that start in the block are `supervised`.

    Raises:
        FlowError: the working directory is no checkout with DVC.
    """
    if _in_checkout.get():
        with supervised():
            yield
        return
    if not Path(".dvc").is_dir():
        raise FlowError(
            f"{Path.cwd()} is no checkout: it has no folder .dvc; change to the root of a checkout"
        )
    LOCK.parent.mkdir(exist_ok=True)
    waiting = False
    while (lock := try_lock(LOCK)) is None:
        if not waiting:
            get_run_logger().info(f"Waiting for {LOCK.read_text()}, which works in this checkout")
        waiting = True
        wait_or_stop(POLL_INTERVAL_S)
    token = _in_checkout.set(True)
    try:
        with suppress(OSError):  # the lock file of another user: only the note is missing
            os.ftruncate(lock, 0)
            os.write(lock, f"flow run {runtime.flow_run.name} (process {os.getpid()})".encode())
        with hold_in_children(lock), supervised():
            yield
    finally:
        _in_checkout.reset(token)
