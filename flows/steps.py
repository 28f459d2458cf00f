"""What the flows share: commands on a leash, DVC's graph, one flow in a checkout, GPUs.

Locks are of the operating system and are inherited by the commands' leashes: that of a killed flow
is free when its last command has ended, at most 10 s later.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger

from flows import leash
from sequences import params

LONGEST = 10_000  # characters of a line; a longer one comes in pieces
POLL = 2.0  # seconds between two looks at what is busy
SLOT = 20.0  # seconds of one try for a slot of Prefect, which cannot be interrupted

OnLine = Callable[[str], object]


class Stopped(RuntimeError):
    """The flow ended while one of its commands ran."""


@dataclass(frozen=True)
class Output:
    """What a command said and how it ended."""

    code: int
    lines: list[str]  # of standard output and standard error, as they came


class _Lifeline:
    """A pipe from a flow to its leashes: it ends with the flow, even with a killed one."""

    def __init__(self, outer: "_Lifeline | None") -> None:
        self.collar, hand = os.pipe()
        # Not closed before: a thread may be about to start a command with that number.
        weakref.finalize(self, os.close, self.collar)
        self.hand = os.fdopen(hand, "wb")
        self.cut = threading.Event()
        self.commands: set[subprocess.Popen[str]] = set()
        self.inner: weakref.WeakSet[_Lifeline] = weakref.WeakSet()
        if outer:
            outer.inner.add(self)
            if outer.cut.is_set():
                self.end()

    def end(self) -> None:
        """Tell all commands to stop."""
        self.cut.set()
        self.hand.close()
        for line in list(self.inner):
            line.end()

    def wait(self) -> None:
        """Wait until all commands have ended."""
        for process in self.commands.copy():
            process.wait()
        for line in list(self.inner):
            line.wait()


_lifeline: ContextVar[_Lifeline | None] = ContextVar("lifeline", default=None)
_locks: ContextVar[tuple[int, ...]] = ContextVar("locks", default=())


@contextmanager
def leashed() -> Iterator[None]:
    """When the block ends, stop the commands that it started, those of its tasks too."""
    line = _Lifeline(_lifeline.get())
    token = _lifeline.set(line)
    try:
        yield
    finally:
        _lifeline.reset(token)
        line.end()
        line.wait()


def pause(seconds: float) -> None:
    """Wait, but no longer than the flow's `leashed` block.

    Raises:
        Stopped: the block has ended.
    """
    line = _lifeline.get()
    if (line.cut if line else threading.Event()).wait(seconds):
        raise Stopped("the flow was stopped")


def command(
    *argv: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run a command on a leash (flows/leash.py), in the environment of this Python.

    It has ended when this returns or raises. In a task, the flow must be within `leashed` or
    `checkout`, so that the command stops when the flow is cancelled.

    Args:
        argv: the command and its arguments.
        on_line: takes each line as it comes; an exception from it stops the command and goes on.
        env: variables beside those of this process.
        timeout: seconds after which it is stopped.

    Raises:
        Stopped: the flow has ended.
        TimeoutError: the command was stopped after ``timeout``.
    """
    with nullcontext() if _lifeline.get() else leashed():
        line = _lifeline.get()
        assert line
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, *argv],
            stdin=line.collar,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
                "PYTHONUNBUFFERED": "1",
                **(env or {}),
            },
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=_locks.get(),
        )
        assert process.stdout
        line.commands.add(process)
        timer = threading.Timer(timeout or 0, process.terminate)
        lines: list[str] = []
        try:
            if timeout:
                timer.start()
            while text := process.stdout.readline(LONGEST):
                lines.append(text.rstrip("\n"))
                if on_line:
                    on_line(lines[-1])
            process.wait()
            late = timer.finished.is_set()
        finally:
            timer.cancel()
            process.terminate()
            process.communicate()
            line.commands.discard(process)
        if line.cut.is_set():
            raise Stopped(f"{' '.join(argv)}: stopped with its flow")
    if late:
        raise TimeoutError(f"{' '.join(argv)}: stopped after {timeout:g} s")
    return Output(process.returncode, lines)


def dvc(
    *arguments: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run `dvc` as `command` does; where another process works on the same files, wait for it."""
    delay = POLL
    while True:
        output = command(
            "dvc", "--wait-for-lock", *arguments, on_line=on_line, env=env, timeout=timeout
        )
        errors = [line for line in output.lines if line.startswith("ERROR: ")]
        # Its option is for its short lock of the checkout, not for that of a stage's files.
        if not output.code or not errors or "is busy, it is being blocked by" not in errors[-1]:
            return output
        pause(delay)
        delay = min(2 * delay, 30.0)


def study() -> dict[str, Any]:
    """The content of params.yaml, after `stages.check` has checked the whole file.

    Raises:
        ParamsError: lists all that is wrong in it.
    """
    output = command(sys.executable, "-m", "stages.check")
    text = "\n".join(output.lines)
    if output.code and "ParamsError: " in text:
        raise params.ParamsError(text.partition("ParamsError: ")[2])
    if output.code:
        raise RuntimeError(f"`python -m stages.check` ended with code {output.code}:\n{text}")
    return params.load()


def graph() -> dict[str, set[str]]:
    """Each stage of dvc.yaml and the stages that it needs."""
    stages: dict[str, set[str]] = {}
    for line in _told("dag", "--dot"):
        match re.findall(r'"([^"]+)"', line):
            case [stage]:
                stages.setdefault(stage, set())
            case [needed, stage]:
                stages.setdefault(needed, set())
                stages.setdefault(stage, set()).add(needed)
    return stages


def stale(*stages: str) -> set[str]:
    """Those of all stages, or of these, that are not as dvc.lock has them."""
    lines = _told("status", "--json", *stages)
    return set(json.loads(next(line for line in reversed(lines) if line.startswith("{"))))


def _told(*arguments: str) -> list[str]:
    output = dvc(*arguments)
    if output.code:
        said = "\n".join(output.lines[-20:])
        raise RuntimeError(f"`dvc {' '.join(arguments)}` ended with code {output.code}:\n{said}")
    return output.lines


@contextmanager
def checkout() -> Iterator[None]:
    """Be the one flow that works in this checkout, or wait for the one that does.

    A flow that it calls is in the checkout too. Commands are `leashed`.
    """
    if _in_checkout.get():
        with leashed():
            yield
        return
    if not Path(".dvc").is_dir():
        raise FileNotFoundError(f"{Path.cwd()} is no checkout with DVC: there is no folder .dvc")
    file = Path(".dvc", "tmp", "flow")
    file.parent.mkdir(exist_ok=True)
    waits = False
    while (lock := _lock(file)) is None:
        if not waits:
            get_run_logger().info(f"Waits for {file.read_text()}, which works in this checkout")
        waits = True
        pause(POLL)
    token = _in_checkout.set(True)
    try:
        os.truncate(lock, 0)
        os.write(lock, f"flow run {runtime.flow_run.name} (process {os.getpid()})".encode())
        with _inherited(lock), leashed():
            yield
    finally:
        _in_checkout.reset(token)


_in_checkout: ContextVar[bool] = ContextVar("in_checkout", default=False)


@contextmanager
def device(count: int = 1) -> Iterator[dict[str, str]]:
    """Variables that bind a command to free GPUs of this machine; none where there is no GPU.

    Holds a slot of Prefect's global concurrency limit `gpu` for each, where that limit exists, and
    a lock of this machine.

    Args:
        count: how many; no more than there are.
    """
    names = gpus()
    count = min(count, len(names))
    if not count:
        yield {}
        return
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(concurrency("gpu", occupy=count, timeout_seconds=SLOT))
                break
            except TimeoutError:
                pause(POLL)
        while True:
            with ExitStack() as attempt:
                free: list[str] = []
                for name in names:
                    file = Path(tempfile.gettempdir(), f"ostinato-gpu-{name}")
                    if len(free) < count and (lock := _lock(file)) is not None:
                        attempt.enter_context(_inherited(lock))
                        free.append(name)
                if len(free) == count:
                    held.enter_context(attempt.pop_all())
                    break
            pause(POLL)
        yield {"CUDA_VISIBLE_DEVICES": ",".join(free)}


def gpus() -> list[str]:
    """The GPUs that this process may use: those that the environment names, or all."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU .*\(UUID: ([^)]+)\)", listed.stdout, re.MULTILINE)


def _lock(file: Path) -> int | None:
    """Lock a file: its descriptor, or None where another has it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def _inherited(lock: int) -> Iterator[None]:
    """Hand a lock on to the commands that start here; it is free when all of them have ended."""
    token = _locks.set((*_locks.get(), lock))
    try:
        yield
    finally:
        _locks.reset(token)
        os.close(lock)
