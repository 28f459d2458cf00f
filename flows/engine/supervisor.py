"""Run a command that cannot outlive who started it: ``python leash.py COMMAND ARGUMENT...``.

The command gets a process group of its own. When standard input ends (who holds the other end of
the pipe closed it or died, be it by SIGKILL) or on SIGTERM, the group gets SIGINT, as from Ctrl-C
in a terminal, and PATIENCE seconds later SIGKILL. What the command leaves behind is killed too;
on Linux also what left its group. The exit code is the command's, or 128 + the signal's number.

Only the standard library, and little of it: every command of a flow waits for this start.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 8.0
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux' prctl: orphans below become children of this


def main(*command: str) -> int:
    """Run ``command`` on the leash and give its exit code."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()  # a signal writes its number here
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the command must not inherit that it is ignored
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    deadline: float | None = None
    while not _ended(child.pid):
        patience = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([woken, 0] if deadline is None else [woken], [], [], patience)
        signals = os.read(woken, 1024) if woken in ready else b""
        if deadline is None:
            if signal.SIGTERM in signals or (0 in ready and not os.read(0, 1024)):
                deadline = time.monotonic() + PATIENCE
                _send(child.pid, signal.SIGINT)
        elif time.monotonic() >= deadline:
            break
    _send(child.pid, signal.SIGKILL)
    code = child.wait()
    _kill_rest()
    return code if code >= 0 else 128 - code


def _send(group: int, number: signal.Signals) -> None:
    """Signal the group; until the command is waited for, its number cannot become another's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
        os.killpg(group, number)


def _ended(command: int) -> bool:
    """Whether the command has ended; orphans that did are waited for, the command is not."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == command:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def _kill_rest() -> None:
    """Kill what is left below, from the top: the children of what is killed come to this."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    while listed.exists() and (children := listed.read_text().split()):
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
