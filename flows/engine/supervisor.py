"""Run a command that ends with the process that started it.

    python supervisor.py [--stdin=DESCRIPTOR] COMMAND ARGUMENT...

The command's standard input is empty, or what the inherited descriptor gives. The command gets a
process group of its own. When the supervisor's standard input ends (the starting process closed the
pipe or died, also by SIGKILL) or on SIGTERM, the group gets SIGINT, as from Ctrl-C in a terminal,
and GRACE_PERIOD_S later SIGKILL. Processes that the command leaves behind are killed too; on Linux
also those that left its group. The exit code is the command's, or 128 + the number of the signal
that ended it.

Imports little of the standard library and nothing else: each command of a flow pays for this start.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_PERIOD_S = 8.0  # between SIGINT and SIGKILL
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl (Linux): adopts the orphans of its descendants


def main(*command: str) -> int:
    """Run ``command`` and return its exit code."""
    stdin = subprocess.DEVNULL
    if command[0].startswith("--stdin="):
        stdin, command = int(command[0].removeprefix("--stdin=")), command[1:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    signals_read, signals_write = os.pipe()  # a signal writes its number here
    os.set_blocking(signals_write, False)
    signal.set_wakeup_fd(signals_write)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # A shell's `nohup COMMAND &` ignores these two, and a child would inherit that.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        child = subprocess.Popen(command, stdin=stdin, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    if stdin >= 0:
        os.close(stdin)
    deadline: float | None = None
    while not _ended(child.pid):
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        watched = [signals_read, 0] if deadline is None else [signals_read]
        ready, _, _ = select.select(watched, [], [], timeout)
        signals = os.read(signals_read, 1024) if signals_read in ready else b""
        if deadline is None:
            if signal.SIGTERM in signals or (0 in ready and not os.read(0, 1024)):
                deadline = time.monotonic() + GRACE_PERIOD_S
                _send(child.pid, signal.SIGINT)
        elif time.monotonic() >= deadline:
            break
    _send(child.pid, signal.SIGKILL)
    code = child.wait()
    _kill_rest()
    return code if code >= 0 else 128 - code


def _send(group: int, number: signal.Signals) -> None:
    """Send a signal to the group; its number stays reserved until the command is waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
        os.killpg(group, number)


def _ended(command: int) -> bool:
    """Whether the command has ended; waits for ended orphans, but not for the command."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == command:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def _kill_rest() -> None:
    """Kill all descendants from the top: this process adopts the children of a killed one."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    while listed.exists() and (children := listed.read_text().split()):
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
