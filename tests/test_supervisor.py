"""A supervised command ends with the process that started it, and its output is complete."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

import pytest

from flows.engine import commands, devices, file_locks
from tests import servers

ROOT = Path(__file__).parent.parent


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not count."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    return False


def pids(folder: Path, count: int, within: float = 120) -> list[int]:
    """The ids that ``count`` processes have written to files of a folder; waits for all."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = [file.read_text().strip() for file in folder.glob("*.pid")]
        if len(found) == count and all(found):
            return [int(pid) for pid in found]
        time.sleep(0.05)
    raise AssertionError(f"{list(folder.iterdir())}")


def gone(numbers: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, numbers))


# A command, its child, a process that ignores SIGINT, one outside the group, and an orphan there.
FAMILY = """
echo $$ > {0}/command.pid
(echo $BASHPID > {0}/child.pid; exec sleep 60) &
(trap '' INT; echo $BASHPID > {0}/deaf.pid; sleep 60; sleep 60) &
setsid sh -c 'echo $$ > {0}/away.pid; exec sleep 60' &
(setsid sh -c 'echo $$ > {0}/orphan.pid; exec sleep 60' &)
wait
"""


def test_the_output_of_a_command_is_complete_and_split_into_lines() -> None:
    seen: list[str] = []
    output = commands.run(
        "sh", "-c", r"echo one; echo two >&2; printf 'three\377'; exit 3", on_line=seen.append
    )
    assert output == commands.Output(3, ["one", "two", "three\N{REPLACEMENT CHARACTER}"])
    assert seen == output.lines
    long = commands.run(sys.executable, "-c", "print('x' * 25_000)").lines
    assert "".join(long) == "x" * 25_000
    assert max(map(len, long)) <= commands.MAX_LINE_CHARS
    assert commands.run("sh", "-c", "echo $WORD", env={"WORD": "given"}).lines == ["given"]


def test_a_line_arrives_when_it_is_printed() -> None:
    times: list[float] = []
    code = "import time; print(1); time.sleep(1); print(2)"
    commands.run(sys.executable, "-c", code, on_line=lambda _: times.append(time.monotonic()))
    assert times[1] - times[0] > 0.5


def test_the_exit_code_is_that_of_the_command() -> None:
    assert commands.run("true").code == 0
    assert commands.run("sh", "-c", "kill -TERM $$").code == 128 + signal.SIGTERM
    missing = commands.run("no-such-command")
    assert missing.code == 127
    assert "no-such-command: No such file" in missing.lines[-1]


def test_processes_that_a_command_leaves_behind_are_killed(tmp_path: Path) -> None:
    started = time.monotonic()
    script = FAMILY.format(tmp_path).replace("wait", "sleep 1; echo done")
    assert commands.run("bash", "-c", script).lines == ["done"]
    assert time.monotonic() - started < 8
    assert gone(pids(tmp_path, 5), 0)


def test_a_command_can_clean_up_when_it_is_stopped() -> None:
    code = """
import time
try:
    print("started"); time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1); print("cleaned up")
"""
    seen: list[str] = []
    with pytest.raises(TimeoutError, match=r"stopped after 2 s"):
        commands.run(sys.executable, "-c", code, timeout=2, on_line=seen.append)
    assert seen == ["started", "cleaned up"]


# A process that ignores SIGINT, as below the shell's `nohup COMMAND &`, starts a child in two ways.
IGNORING = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from flows.engine import commands
from tests import servers
sleep = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"]
try:
    commands.run(*sleep, timeout=2)
except TimeoutError:
    print("timeout")
child = servers.start(sleep, stdout=-1)
child.stdout.readline()
child.send_signal(signal.SIGINT)
print("code", child.wait(20))
"""


def test_children_of_a_process_that_ignores_sigint_are_interrupted_by_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", IGNORING], env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["timeout", f"code {-signal.SIGINT}"], done.stderr
    assert time.monotonic() - started < 15, "a command needed SIGKILL"


def test_an_error_of_the_callback_stops_the_command(tmp_path: Path) -> None:
    def on_line(line: str) -> None:
        raise LookupError(line)

    script = f"echo $$ > {tmp_path}/one.pid; echo hopeless; sleep 60"
    with pytest.raises(LookupError, match="hopeless"):
        commands.run("sh", "-c", script, on_line=on_line)
    assert gone(pids(tmp_path, 1), 0)


def test_commands_in_threads_end_with_the_block(tmp_path: Path) -> None:
    stopped: list[BaseException] = []

    def run(name: str) -> None:
        try:
            commands.run("sh", "-c", f"echo $$ > {tmp_path}/{name}.pid; sleep 60")
        except commands.StoppedError as error:
            stopped.append(error)

    def nested() -> None:
        with commands.supervised():
            run("nested")

    threads = []
    with pytest.raises(KeyboardInterrupt), commands.supervised():
        for target in (lambda: run("direct"), nested):
            threads.append(threading.Thread(target=copy_context().run, args=[target]))
            threads[-1].start()
        found = pids(tmp_path, 2)
        raise KeyboardInterrupt
    assert gone(found, 0), "the block waits for its commands"
    for thread in threads:
        thread.join(5)
    assert len(stopped) == 2
    with pytest.raises(KeyboardInterrupt), commands.supervised():
        late = copy_context()
        raise KeyboardInterrupt
    with pytest.raises(commands.StoppedError):
        late.run(commands.run, "sleep", "60")
    with pytest.raises(commands.StoppedError):
        late.run(commands.wait_or_stop, 60)


def test_the_commands_of_a_killed_flow_end_and_hold_the_lock_of_the_checkout_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    code = """
import sys
from flows.engine import checkout, commands
with checkout.checkout():
    commands.run("bash", "-c", sys.argv[1])
"""
    script = f"trap '' INT\n{FAMILY.format(tmp_path)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    flow = servers.start([sys.executable, "-c", code, script], cwd=tmp_path, env=environment)
    found = pids(tmp_path, 5)
    flow.kill()
    flow.wait()
    killed = time.monotonic()
    monkeypatch.chdir(tmp_path)
    lock = Path(".dvc", "tmp", "flow")
    assert f"(process {flow.pid})" in lock.read_text()
    while (free := file_locks.try_lock(lock)) is None:
        assert time.monotonic() - killed < 10
        time.sleep(0.05)
    os.close(free)
    assert not any(map(alive, found))
    assert time.monotonic() - killed > 1, "the lock was held while the commands ran"


def test_a_lock_file_of_another_user_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the system's temporary folder, a file of another user cannot be opened for writing."""
    first = file_locks.try_lock(tmp_path / "lock")
    assert first is not None
    opened = os.open

    def of_another_user(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", of_another_user)
    assert file_locks.try_lock(tmp_path / "lock") is None
    os.close(first)
    second = file_locks.try_lock(tmp_path / "lock")
    assert second is not None
    os.close(second)


@pytest.mark.parametrize("limit", [None, 1])
def test_two_trainings_do_not_share_a_gpu(
    limit: int | None, prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    monkeypatch.setattr(devices, "LIMIT", f"gpu-{limit}")  # `gpu` is that of other tests
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv(devices.LOCK_FOLDER, str(tmp_path))
    if limit:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(devices.LIMIT, limit)
    used: list[str] = []
    most: list[int] = []

    def train() -> None:
        with devices.reserve_devices() as env:
            used.append(env["CUDA_VISIBLE_DEVICES"])
            most.append(len(used))
            assert len(set(used)) == len(used)
            output = commands.run("sh", "-c", "sleep 0.5; echo $CUDA_VISIBLE_DEVICES", env=env)
            assert output.lines == [env["CUDA_VISIBLE_DEVICES"]]
            used.remove(env["CUDA_VISIBLE_DEVICES"])

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: train(), range(3)))
    assert max(most) == (limit or 2)
    if limit:
        with get_client(sync_client=True) as client:
            client.delete_global_concurrency_limit_by_name(devices.LIMIT)
    with devices.reserve_devices(5) as env:
        assert env == {"CUDA_VISIBLE_DEVICES": "4,7"}, "no more than the machine has"


def test_without_a_gpu_no_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with devices.reserve_devices() as env:
        assert env == {}


def test_a_command_reads_what_is_written_to_it() -> None:
    with commands.supervised():
        command = commands.Command("cat", takes_input=True)
        try:
            lines = command.lines()
            for line in ("one", "two \N{GREEK SMALL LETTER PI}"):
                command.write(line)
                assert next(lines) == line
            ended = [command.ended]
            command.interrupt()
            assert list(lines) == []
            assert [*ended, command.ended] == [False, True]
            command.write("to nobody")
        finally:
            command.stop()


def test_a_command_that_reads_ends_with_its_flow() -> None:
    with commands.supervised():
        command = commands.Command("cat", takes_input=True)
    assert command.ended
    with pytest.raises(commands.StoppedError):
        command.check_flow()
    command.stop()
