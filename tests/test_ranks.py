"""Laws of a training that several processes share, on ports of loopback.

A cluster is started once and trains several cases (`tests/rank.py`).
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ostinato import store
from ostinato.errors import SettingError, TrainingError
from ostinato.training.cluster import Cluster, this_cluster, wait_for_ranks
from tests.rank import HALF, STALLED

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600  # for a cluster, on a busy machine
ENDS_S = 30  # for the other ranks, when one has ended


# The environment


def config(task: object = {"type": "worker", "index": 1}, **jobs: object) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": task})}


def test_tf_config_names_the_ranks() -> None:
    assert this_cluster({}) == this_cluster({"TF_CONFIG": "{}"}) == Cluster()
    assert this_cluster(config({"type": "worker", "index": 0}, worker=["a:1"])) == Cluster()
    assert this_cluster(config(worker=["a:1", "b:2"])) == Cluster(("a:1", "b:2"), 1)
    chief = config({"type": "worker", "index": 0}, worker=["b:2"], chief=["a:1"])
    assert this_cluster(chief) == Cluster(("a:1", "b:2"), 1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TF_CONFIG": "worker"}, "TF_CONFIG: found no JSON"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG: found list"),
        (config(ps=["a:1"]), "a cluster of a chief and workers"),
        (config(worker="a:1"), "found worker 'a:1'; expected a list"),
        (config(worker=["a:1", "b"]), "the worker address 'b'; expected HOST:PORT"),
        (config(worker=["a:1", "b:0"]), "the worker address 'b:0'"),
        (config(worker=["a:1", 2]), "the worker address 2"),
        (config(worker=["a:1", "a:1"]), "a:1 more than once"),
        (config(worker=["a:1"], chief=["b:1", "c:1"]), "2 chiefs"),
        (config({}, worker=["a:1", "b:1"]), "the task {}"),
        (config({"type": "worker", "index": 2}, worker=["a:1", "b:1"]), "'index': 2"),
        (config([], worker=["a:1", "b:1"]), "the task"),
        ({"OSTINATO_RANKS": "mpi"}, "OSTINATO_RANKS: found 'mpi'; expected 'slurm'"),
        ({"OSTINATO_RANKS": "slurm"}, "no SLURM_STEP_NODELIST; start the ranks with srun"),
        ({"OSTINATO_RANKS": "slurm", "TF_CONFIG": "{}"}, "both set"),
    ],
)
def test_malformed_ranks_are_an_error_that_says_what_is_wrong(
    variables: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingError) as error:
        this_cluster(variables)
    assert message in str(error.value)


def slurm(**changed: str) -> dict[str, str]:
    return {
        "OSTINATO_RANKS": "slurm",
        "SLURM_STEP_NODELIST": "n[9-10,012],x",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
        "SLURM_JOB_ID": "1234567",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "1",
        **changed,
    }


def test_slurms_variables_name_the_ranks_in_the_order_of_its_nodes() -> None:
    hosts = ("n9:24567", "n9:24568", "n10:24567", "n10:24568", "n012:24567", "x:24567")
    assert this_cluster(slurm()) == Cluster(hosts, 3)
    with pytest.raises(SettingError, match="use srun --distribution=block"):
        this_cluster(slurm(SLURM_NODEID="2"))
    with pytest.raises(SettingError, match="has 4 nodes, SLURM_STEP_TASKS_PER_NODE 1"):
        this_cluster(slurm(SLURM_STEP_TASKS_PER_NODE="2"))
    with pytest.raises(SettingError, match="SLURM_STEP_NODELIST: found 'n\\[1'"):
        this_cluster(slurm(SLURM_STEP_NODELIST="n[1"))
    with pytest.raises(SettingError, match="SLURM_PROCID: found 'one'"):
        this_cluster(slurm(SLURM_PROCID="one"))


# The meeting


def addresses(ranks: int) -> tuple[str, ...]:
    """Free ports of loopback."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(ranks)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in found)


def meeting(*agreements: str | None, seconds: float = 10.0) -> list[str]:
    """What each rank that comes ends with; None for one that does not come."""
    hosts = addresses(len(agreements))
    ends = [""] * len(agreements)

    def come(rank: int, agreement: str) -> None:
        try:
            wait_for_ranks(Cluster(hosts, rank), agreement, seconds)
            ends[rank] = "met"
        except TrainingError as error:
            for number, host in enumerate(hosts):
                error = TrainingError(str(error).replace(host, f"host {number}"))
            ends[rank] = str(error)

    threads = [
        threading.Thread(target=come, args=(rank, agreement))
        for rank, agreement in enumerate(agreements)
        if agreement is not None
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


def test_ranks_meet_or_all_know_why_not() -> None:
    assert meeting("x", "x", "x") == ["met"] * 3
    first, second, _ = meeting("x", "x", None, seconds=0.5)
    assert first == second
    assert first.startswith("rank 2 (host 2) did not come in time; start all ranks")
    _, second, third = meeting(None, "x", "x", seconds=0.3)
    assert second == third
    assert second.startswith("rank 0 (host 0) did not come in time; start all ranks")
    ends = meeting("2 GPU", "2 CPU")
    assert ends[0] == ends[1]
    assert ends[0].startswith("rank 1 (host 1) does not fit rank 0: '2 CPU")


def test_a_probe_of_the_port_is_no_rank() -> None:
    hosts = addresses(2)
    first = threading.Thread(target=wait_for_ranks, args=(Cluster(hosts, 0), "x", 20))
    first.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b'[[1], "x"]\n'):
        with connected(hosts[0]) as probe:
            probe.sendall(greeting)
    wait_for_ranks(Cluster(hosts, 1), "x", 20)
    first.join(20)
    assert not first.is_alive()


def test_a_rank_that_ends_before_all_are_there_may_come_again() -> None:
    hosts = addresses(3)
    ends: list[str] = []

    def lead() -> None:
        wait_for_ranks(Cluster(hosts, 0), "x", 20)
        ends.append("met")

    first = threading.Thread(target=lead)
    first.start()
    greeting = json.dumps([1, f"x, ranks {','.join(hosts)}"]).encode() + b"\n"
    for _ in range(2):
        with connected(hosts[0]) as rank:
            rank.sendall(greeting)
            time.sleep(0.05)
            # It is killed: its connection is reset.
            rank.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    others = [
        threading.Thread(target=wait_for_ranks, args=(Cluster(hosts, rank), "x", 20))
        for rank in (1, 2)
    ]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join(20)
        assert not thread.is_alive()
    assert ends == ["met"]


def test_a_rank_of_another_cluster_is_an_error() -> None:
    hosts = addresses(2)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(wait_for_ranks, Cluster(hosts, 0), "x", 20)
        with connected(hosts[0]) as other:
            other.sendall(b'[7, "x"]\n')
            with pytest.raises(TrainingError, match="rank 7 of 2 ranks; set the same addresses"):
                first.result()


def test_ranks_meet_by_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as held:
            port = held.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 on this machine")
    cluster = Cluster((f"[::1]:{port}", "[::1]:1"))
    with ThreadPoolExecutor() as pool:
        ranks = [pool.submit(wait_for_ranks, replace(cluster, rank=i), "x", 20) for i in (0, 1)]
        assert [rank.result() for rank in ranks] == [None, None]


def connected(address: str) -> socket.socket:
    """A connection to rank 0, as soon as it listens."""
    host, port = address.split(":")
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.01)


# Trainings


class Ranks:
    """The processes of a cluster, which are killed at the end."""

    def __init__(self, folder: Path, ranks: int, devices: int, *cases: str) -> None:
        self.hosts = addresses(ranks)
        self.folder, self.processes = folder, []
        self.logs = [folder / f"log-{cases[0]}-{devices}x{ranks}-{i}.txt" for i in range(ranks)]
        for index, log in enumerate(self.logs):
            task = {"type": "worker", "index": index}
            environment = {
                **os.environ,
                **(config(task, worker=list(self.hosts)) if ranks > 1 else {}),
                "OSTINATO_DEVICES": str(devices),
                "LOGICAL_DEVICES": str(devices),
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "PYTHONUNBUFFERED": "1",
                "OSTINATO_FOLDERS": str(folder),
            }
            with log.open("w") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.rank", str(folder), *cases],
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def text(self, rank: int) -> str:
        return self.logs[rank].read_text()

    def wait(self, seconds: float = PATIENCE_S) -> list[int]:
        """The exit codes."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(deadline - time.monotonic(), 0)) for process in self.processes]

    def succeed(self) -> None:
        codes = self.wait()
        assert codes == [0] * len(codes), "\n".join(map(self.text, range(len(codes))))


def result(folder: Path, name: str) -> dict[str, np.ndarray]:
    return store.read_arrays(folder / f"{name}.npz")


def assert_equal(folder: Path, case: str, ranks: int, devices: int, alone: str) -> None:
    """All ranks have the same bits, and what one process has, within rounding."""
    found = [result(folder, f"{case}-{devices}x{ranks}-{rank}") for rank in range(ranks)]
    expected = result(folder, alone)
    for name, array in expected.items():
        for other in found:
            np.testing.assert_array_equal(other[name], found[0][name], err_msg=f"{case} {name}")
        np.testing.assert_allclose(
            found[0][name], array, rtol=1e-5, atol=1e-6, err_msg=f"{case} {name}"
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one_process(folder: Path) -> None:
    """The results of one process, with as many replicas where the draws depend on them."""
    cases = ["padding:1", "few:1", "seq2seq:1", "gan:2", "variational:2"]
    with Ranks(folder, 1, 6, *cases, *(f"dropout:{devices}" for devices in (2, 4, 6))) as alone:
        alone.succeed()


@pytest.fixture(scope="module")
def killed(folder: Path) -> list[str]:
    """Logs of two ranks: the second is killed in its second epoch. The others have ended."""
    with Ranks(folder, 3, 1, "killed") as ranks:
        deadline = time.monotonic() + PATIENCE_S
        while STALLED not in ranks.text(1):
            assert time.monotonic() < deadline, "\n".join(map(ranks.text, range(3)))
            time.sleep(0.05)
        ranks.processes[1].kill()
        deadline = time.monotonic() + ENDS_S
        while not all("TrainingError" in ranks.text(rank) for rank in (0, 2)):
            assert time.monotonic() < deadline, "\n".join(map(ranks.text, range(3)))
            time.sleep(0.05)
        assert ranks.wait() == [1, -9, 1]
        return [ranks.text(rank).replace(ranks.hosts[1], "ADDRESS 1") for rank in range(3)]


@pytest.mark.slow
def test_a_killed_rank_ends_the_others_with_an_error_that_names_it(killed: list[str]) -> None:
    for rank in (0, 2):
        last = killed[rank].splitlines()[-1]
        assert last.startswith(
            "TrainingError: a rank of this training has ended: rank 1 (ADDRESS 1)"
        )
        assert "training resumes after the last finished epoch" in last


@pytest.mark.slow
@pytest.mark.usefixtures("one_process", "killed")
def test_two_ranks_train_as_one_process_does(folder: Path) -> None:
    (folder / "unwritable-1x2").write_text("")
    cases = ["dropout@killed-1x3", "padding", "few", "seq2seq", "gan", "variational", "unwritable"]
    with Ranks(folder, 2, 1, *cases) as ranks:
        assert ranks.wait() == [1, 1], "\n".join(map(ranks.text, range(2)))
        texts = [ranks.text(rank).replace(ranks.hosts[0], "ADDRESS 0") for rank in range(2)]
    assert "; ranks now: 2, when it was written: 3" in texts[0]
    assert "epoch 3/3  loss" in texts[0]
    assert "epoch 3/3  loss" not in texts[1]
    assert "unwritable-1x2" in texts[0].splitlines()[-1]
    assert "a rank of this training has ended: rank 0 (ADDRESS 0)" in texts[1].splitlines()[-1]
    assert "Error: " in texts[1].splitlines()[-1]  # of rank 0
    assert_equal(folder, "padding", 2, 1, "padding-1x1-0")
    assert_equal(folder, "few", 2, 1, "few-1x1-0")
    assert_equal(folder, "seq2seq", 2, 1, "seq2seq-1x1-0")
    assert_equal(folder, "gan", 2, 1, "gan-2x1-0")
    assert_equal(folder, "variational", 2, 1, "variational-2x1-0")


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_three_ranks_of_two_devices_train_as_one_process_does(folder: Path) -> None:
    with Ranks(folder, 3, 2, "dropout", "few") as ranks:
        ranks.succeed()
    assert_equal(folder, "dropout", 3, 2, "dropout-6x1-0")
    assert_equal(folder, "few", 3, 2, "few-1x1-0")


@pytest.mark.long
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(("ranks", "devices"), [(2, 1), (2, 2)])
def test_ranks_draw_as_one_process_with_as_many_devices_does(
    folder: Path, ranks: int, devices: int
) -> None:
    with Ranks(folder, ranks, devices, "dropout") as started:
        started.succeed()
    assert_equal(folder, "dropout", ranks, devices, f"dropout-{ranks * devices}x1-0")


@pytest.mark.long
@pytest.mark.usefixtures("one_process")
def test_three_ranks_resume_the_training_of_two(folder: Path) -> None:
    """Without dropout, whose draws depend on the number of devices, the result is the same."""
    with Ranks(folder, 2, 1, "padding") as two:
        two.succeed()
    with Ranks(folder, 3, 1, f"padding@{HALF}") as three:
        three.succeed()
        assert "after epoch 2" in three.text(0)
        assert "; ranks now: 3, when it was written: 2" in three.text(0)
    assert_equal(folder, "padding", 3, 1, "padding-1x1-0")
