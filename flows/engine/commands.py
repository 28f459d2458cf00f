"""Commands that end with their flow.

Each command runs below a supervisor (`flows.engine.supervisor`), which stops it when the flow ends,
also when the flow is killed.
"""

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flows.engine import supervisor
from flows.engine.file_locks import inherited_locks
from ostinato.errors import FlowError

MAX_LINE_CHARS = 10_000  # a longer line of output is split
POLL_INTERVAL_S = 2.0  # between two checks of a resource that is in use
OnLine = Callable[[str], object]


class StoppedError(FlowError):
    """The flow ended while one of its commands ran."""


class TimedOutError(FlowError, TimeoutError):
    """A command was stopped because it took too long."""


@dataclass(frozen=True)
class Output:
    """The exit code and the output of a command."""

    code: int
    lines: list[str]  # of standard output and standard error, in the order of their arrival


class _Supervision:
    """A pipe from a flow to its supervisors: it is closed when the flow ends or is killed."""

    def __init__(self, outer: "_Supervision | None") -> None:
        self.read_end, write_end = os.pipe()
        # Closed only with the object: a thread may be about to start a command with this number.
        weakref.finalize(self, os.close, self.read_end)
        self.write_end = os.fdopen(write_end, "wb")
        self.stopped = threading.Event()
        self.commands: set[subprocess.Popen[str]] = set()
        self.inner: weakref.WeakSet[_Supervision] = weakref.WeakSet()
        if outer:
            outer.inner.add(self)
            if outer.stopped.is_set():
                self.stop()

    def stop(self) -> None:
        """Stop all commands."""
        self.stopped.set()
        self.write_end.close()
        for supervision in list(self.inner):
            supervision.stop()

    def wait(self) -> None:
        """Wait until all commands have ended."""
        for process in self.commands.copy():
            process.wait()
        for supervision in list(self.inner):
            supervision.wait()


_supervision: ContextVar[_Supervision | None] = ContextVar("supervision", default=None)


@contextmanager
def supervised() -> Iterator[None]:
    """Stop all commands that start in the block, also in its tasks, when the block ends."""
    supervision = _Supervision(_supervision.get())
    token = _supervision.set(supervision)
    try:
        yield
    finally:
        _supervision.reset(token)
        supervision.stop()
        supervision.wait()


def wait_or_stop(seconds: float) -> None:
    """Sleep, at most until the flow's `supervised` block ends.

    Raises:
        StoppedError: the block has ended.
    """
    supervision = _supervision.get()
    if (supervision.stopped if supervision else threading.Event()).wait(seconds):
        raise StoppedError("the flow was stopped")


def run(
    *argv: str,
    on_line: OnLine | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
) -> Output:
    """Run a command below a supervisor, in the environment of this Python.

    The command has ended when this returns or raises. In a task, the flow must be in a block
    `supervised` or `checkout`, so that the command stops when the flow is cancelled. The command
    handles SIGINT and SIGQUIT by default, also where this process ignores them.

    Args:
        argv: the command and its arguments.
        on_line: called with each line of output; an exception stops the command and propagates.
        env: variables in addition to those of this process.
        timeout: seconds until the command is stopped.
        cwd: its working directory; None: that of this process.

    Raises:
        StoppedError: the flow has ended.
        TimedOutError: the command was stopped after ``timeout``.
    """
    with nullcontext() if _supervision.get() else supervised():
        command = Command(*argv, env=env, cwd=cwd)
        timer = threading.Timer(timeout or 0, command.interrupt)
        lines: list[str] = []
        try:
            if timeout:
                timer.start()
            for line in command.lines():
                lines.append(line)
                if on_line:
                    on_line(line)
            timed_out = timer.finished.is_set()
        finally:
            timer.cancel()
            command.stop()
        command.check_flow()
    if timed_out:
        raise TimedOutError(f"{' '.join(argv)}: stopped after {timeout:g} s")
    return Output(command.code, lines)


class Command:
    """A running command below a supervisor, in a block `supervised`; see `run`.

    Args:
        argv: the command and its arguments.
        env: variables in addition to those of this process.
        cwd: its working directory; None: that of this process.
        takes_input: whether it reads what `write` writes; otherwise its standard input is empty.
    """

    def __init__(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        takes_input: bool = False,
    ) -> None:
        supervision = _supervision.get()
        assert supervision
        self._argv, self._supervision = argv, supervision
        self._input: BinaryIO | None = None
        options, descriptors = [], inherited_locks.get()
        if takes_input:
            read_end, write_end = os.pipe()
            self._input = os.fdopen(write_end, "wb", buffering=0)
            options, descriptors = [f"--stdin={read_end}"], (*descriptors, read_end)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *options, *argv],
                cwd=cwd,
                stdin=supervision.read_end,
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
                pass_fds=descriptors,
            )
        except BaseException:
            if self._input:
                self._input.close()
            raise
        finally:
            if takes_input:
                os.close(read_end)
        supervision.commands.add(self._process)

    def lines(self) -> Iterator[str]:
        """The next lines of output until the command has ended."""
        assert self._process.stdout
        while text := self._process.stdout.readline(MAX_LINE_CHARS):
            yield text.rstrip("\n")
        self._process.wait()

    def write(self, line: str) -> None:
        """Write a line to standard input; nothing happens where the command has ended."""
        assert self._input
        with suppress(BrokenPipeError):
            self._input.write(f"{line}\n".encode())

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._process.poll() is not None

    @property
    def code(self) -> int:
        """The exit code of the ended command."""
        return int(self._process.returncode)

    def interrupt(self) -> None:
        """Begin to stop the command."""
        self._process.terminate()

    def stop(self) -> None:
        """Stop the command and wait until it has ended."""
        self.interrupt()
        self._process.communicate()
        if self._input:
            self._input.close()
        self._supervision.commands.discard(self._process)

    def check_flow(self) -> None:
        """Check that the flow goes on.

        Raises:
            StoppedError: it has ended, and so has the command.
        """
        if self._supervision.stopped.is_set():
            raise StoppedError(f"{' '.join(self._argv)}: stopped with its flow")
