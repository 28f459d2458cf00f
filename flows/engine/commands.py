"""What the flows share: commands on a leash, DVC's graph, one flow in a checkout, GPUs.

Locks are of the operating system and are inherited by the commands' leashes: that of a killed flow
is free when its last command has ended, at most 10 s later.
"""

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from flows.engine import supervisor
from flows.engine.file_locks import inherited_locks

MAX_LINE_CHARS = 10_000  # characters of a line; a longer one comes in pieces
POLL_S = 2.0  # seconds between two looks at what is busy
OnLine = Callable[[str], object]


class StoppedError(RuntimeError):
    """The flow ended while one of its commands ran."""


@dataclass(frozen=True)
class Output:
    """What a command said and how it ended."""

    code: int
    lines: list[str]  # of standard output and standard error, as they came


class _Supervision:
    """A pipe from a flow to its leashes: it ends with the flow, even with a killed one."""

    def __init__(self, outer: "_Supervision | None") -> None:
        self.collar, hand = os.pipe()
        # Not closed before: a thread may be about to start a command with that number.
        weakref.finalize(self, os.close, self.collar)
        self.hand = os.fdopen(hand, "wb")
        self.cut = threading.Event()
        self.commands: set[subprocess.Popen[str]] = set()
        self.inner: weakref.WeakSet[_Supervision] = weakref.WeakSet()
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


_supervision: ContextVar[_Supervision | None] = ContextVar("lifeline", default=None)


@contextmanager
def supervised() -> Iterator[None]:
    """When the block ends, stop the commands that it started, those of its tasks too."""
    line = _Supervision(_supervision.get())
    token = _supervision.set(line)
    try:
        yield
    finally:
        _supervision.reset(token)
        line.end()
        line.wait()


def wait_or_stop(seconds: float) -> None:
    """Wait, but no longer than the flow's `leashed` block.

    Raises:
        Stopped: the block has ended.
    """
    line = _supervision.get()
    if (line.cut if line else threading.Event()).wait(seconds):
        raise StoppedError("the flow was stopped")


def run(
    *argv: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run a command on a leash (flows/engine/supervisor.py), in the environment of this Python.

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
    with nullcontext() if _supervision.get() else supervised():
        line = _supervision.get()
        assert line
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, *argv],
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
            pass_fds=inherited_locks.get(),
        )
        assert process.stdout
        line.commands.add(process)
        timer = threading.Timer(timeout or 0, process.terminate)
        lines: list[str] = []
        try:
            if timeout:
                timer.start()
            while text := process.stdout.readline(MAX_LINE_CHARS):
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
            raise StoppedError(f"{' '.join(argv)}: stopped with its flow")
    if late:
        raise TimeoutError(f"{' '.join(argv)}: stopped after {timeout:g} s")
    return Output(process.returncode, lines)
