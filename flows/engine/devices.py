"""The GPUs of this machine, and their reservation for commands."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.concurrency.sync import concurrency

from flows.engine.commands import POLL_INTERVAL_S, wait_or_stop
from flows.engine.file_locks import hold_in_children, try_lock

LIMIT = "gpu"  # Prefect's global concurrency limit for trainings on all machines
SLOT_TIMEOUT_S = 20.0  # of one attempt to get a slot from Prefect, which cannot be interrupted
LOCK_FOLDER = "OSTINATO_LOCK_FOLDER"  # variable: folder of the lock files; all flows must share it


@contextmanager
def reserve_devices(count: int = 1) -> Iterator[dict[str, str]]:
    """Reserve free GPUs of this machine; yield the variables that bind a command to them.

    Each GPU takes a slot of Prefect's global concurrency limit `gpu`, where that limit exists, and
    a lock of this machine. Without a GPU there are no variables.

    Args:
        count: number of GPUs, at most those of the machine.
    """
    names = list_gpus()
    count = min(count, len(names))
    if not count:
        yield {}
        return
    with ExitStack() as reserved:
        while True:
            try:
                slots = concurrency(LIMIT, occupy=count, timeout_seconds=SLOT_TIMEOUT_S)
                reserved.enter_context(slots)
                break
            except TimeoutError:
                wait_or_stop(POLL_INTERVAL_S)
        while True:
            with ExitStack() as locks:
                free: list[str] = []
                for name in names:
                    if len(free) < count and (lock := try_lock(lock_file(name))) is not None:
                        locks.enter_context(hold_in_children(lock))
                        free.append(name)
                if len(free) == count:
                    reserved.enter_context(locks.pop_all())
                    break
            wait_or_stop(POLL_INTERVAL_S)
        yield {"CUDA_VISIBLE_DEVICES": ",".join(free)}


def lock_file(gpu: str) -> Path:
    """The lock file of a GPU, in the folder OSTINATO_LOCK_FOLDER or the system's temporary one."""
    folder = os.environ.get(LOCK_FOLDER) or tempfile.gettempdir()
    return Path(folder, f"ostinato-gpu-{gpu}")


def list_gpus() -> list[str]:
    """The GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, or all."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    output = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU .*\(UUID: ([^)]+)\)", output.stdout, re.MULTILINE)
