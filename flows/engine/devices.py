"""TODO."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.concurrency.sync import concurrency

from flows.engine.commands import POLL_S, wait_or_stop
from flows.engine.file_locks import hold_in_children, try_lock

SLOT_TIMEOUT_S = 20.0  # seconds of one try for a slot of Prefect, which cannot be interrupted


@contextmanager
def reserve_devices(count: int = 1) -> Iterator[dict[str, str]]:
    """Variables that bind a command to free GPUs of this machine; none where there is no GPU.

    Holds a slot of Prefect's global concurrency limit `gpu` for each, where that limit exists, and
    a lock of this machine.

    Args:
        count: how many; no more than there are.
    """
    names = list_gpus()
    count = min(count, len(names))
    if not count:
        yield {}
        return
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(concurrency("gpu", occupy=count, timeout_seconds=SLOT_TIMEOUT_S))
                break
            except TimeoutError:
                wait_or_stop(POLL_S)
        while True:
            with ExitStack() as attempt:
                free: list[str] = []
                for name in names:
                    file = Path(tempfile.gettempdir(), f"ostinato-gpu-{name}")
                    if len(free) < count and (lock := try_lock(file)) is not None:
                        attempt.enter_context(hold_in_children(lock))
                        free.append(name)
                if len(free) == count:
                    held.enter_context(attempt.pop_all())
                    break
            wait_or_stop(POLL_S)
        yield {"CUDA_VISIBLE_DEVICES": ",".join(free)}


def list_gpus() -> list[str]:
    """The GPUs that this process may use: those that the environment names, or all."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU .*\(UUID: ([^)]+)\)", listed.stdout, re.MULTILINE)
