"""The GPUs of this machine, and their reservation for commands.

A flow that a worker of the pool `gpu` has started is on a machine that must have a GPU.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from prefect import get_client
from prefect.concurrency.sync import concurrency

from flows.engine.commands import POLL_INTERVAL_S, wait_or_stop
from flows.engine.file_locks import hold_in_children, try_lock
from ostinato.policies import RetryPolicy
from ostinato.training import machine

GPU_POOL = "gpu"  # Prefect's work pool of machines that have GPUs
LIMIT = "gpu"  # Prefect's global concurrency limit for trainings on all machines
SLOT_TIMEOUT_S = 20.0  # of one attempt to get a slot from Prefect, which cannot be interrupted
LOCK_FOLDER = "OSTINATO_LOCK_FOLDER"  # variable: folder of the lock files; all flows must share it


@contextmanager
def reserve_for(policy: RetryPolicy) -> Iterator[dict[str, str]]:
    """Reserve the devices of a stage; yield the variables that bind its command to them.

    On a worker of the pool `gpu` the command of a stage with ``gpu: true`` fails where it sees no
    GPU: its variables say so (`ostinato.training.machine.GPU`).
    """
    if policy.gpu is False:
        yield {}
        return
    required = policy.gpu is True and on_gpu_worker()
    with reserve_devices(machine.this_machine().devices) as bound:
        yield {**bound, machine.GPU: machine.REQUIRED} if required else bound


def on_gpu_worker() -> bool:
    """Whether a worker of the pool `gpu` has started this process."""
    run = os.environ.get("PREFECT__FLOW_RUN_ID")  # set by Prefect's workers
    if not run:
        return False
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run)).work_pool_name == GPU_POOL


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
