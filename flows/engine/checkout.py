"""TODO."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect import runtime
from prefect.logging import get_run_logger

from flows.engine.commands import POLL_S, supervised, wait_or_stop
from flows.engine.file_locks import hold_in_children, try_lock


@contextmanager
def checkout() -> Iterator[None]:
    """Be the one flow that works in this checkout, or wait for the one that does.

    A flow that it calls is in the checkout too. Commands are `leashed`.
    """
    if _in_checkout.get():
        with supervised():
            yield
        return
    if not Path(".dvc").is_dir():
        raise FileNotFoundError(f"{Path.cwd()} is no checkout with DVC: there is no folder .dvc")
    file = Path(".dvc", "tmp", "flow")
    file.parent.mkdir(exist_ok=True)
    waits = False
    while (lock := try_lock(file)) is None:
        if not waits:
            get_run_logger().info(f"Waits for {file.read_text()}, which works in this checkout")
        waits = True
        wait_or_stop(POLL_S)
    token = _in_checkout.set(True)
    try:
        os.truncate(lock, 0)
        os.write(lock, f"flow run {runtime.flow_run.name} (process {os.getpid()})".encode())
        with hold_in_children(lock), supervised():
            yield
    finally:
        _in_checkout.reset(token)


_in_checkout: ContextVar[bool] = ContextVar("in_checkout", default=False)
