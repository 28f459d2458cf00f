"""Ranks of a remote training start together and end together; an error says which one failed."""

import contextlib
import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.engine import commands, gang, remote_training
from flows.reproduce import check_ranks
from ostinato.errors import FlowError, ParamsError, SettingError
from ostinato.training.cluster import this_cluster

PREFECT = "http://127.0.0.1:4200/api"


class Server:
    """What the caller uses of Prefect's server. `step` changes it at each wait of the caller."""

    def __init__(self, ranks: int, step: Callable[["Server", int], None]) -> None:
        self.runs = [
            FlowRun(
                id=uuid4(),
                flow_id=uuid4(),
                state=Scheduled(),
                labels={gang.WORKER: f"w{rank}"},
                work_pool_name="gpu",
                work_queue_name="default",
            )
            for rank in range(ranks)
        ]
        self.inputs: dict[UUID, dict[str, str]] = {run.id: {} for run in self.runs}
        self.cancelled: list[int] = []
        self.api_url = PREFECT
        self.online, self.waits, self.step = ["w0", "w1"], 0, step

    def wait(self, seconds: float) -> None:
        self.waits += 1
        assert self.waits < 100
        self.step(self, self.waits)

    def put(self, rank: int, state: State[Any], **inputs: str) -> None:
        self.runs[rank] = self.runs[rank].model_copy(update={"state": state})
        names = {"taken": gang.TAKEN, "address": gang.ADDRESS}
        self.inputs[self.runs[rank].id] |= {names[key]: text for key, text in inputs.items()}

    def read_flow_run(self, run: UUID) -> FlowRun:
        return next(found for found in self.runs if found.id == run)

    def set_flow_run_state(self, run: UUID, state: State[Any], force: bool = False) -> None:
        rank = [found.id for found in self.runs].index(run)
        if state.is_cancelling():
            self.cancelled.append(rank)
        else:
            self.put(rank, state)

    def create_flow_run_input(self, run: UUID, key: str, value: str) -> None:
        assert key not in self.inputs[run], "a message is sent once"
        self.inputs[run][key] = value

    def filter_flow_run_input(self, run: UUID, **_: Any) -> list[Any]:
        return [SimpleNamespace(key=key, value=text) for key, text in self.inputs[run].items()]

    def read_workers_for_work_pool(self, pool: str) -> list[Any]:
        return [SimpleNamespace(name=name, status=WorkerStatus.ONLINE) for name in self.online]

    def read_work_pool(self, pool: str) -> Any:
        return SimpleNamespace(concurrency_limit=None)

    def read_work_queues(self, work_pool_name: str) -> list[Any]:
        return [SimpleNamespace(name="default", concurrency_limit=2)]

    def read_global_concurrency_limit_by_name(self, name: str) -> Any:
        raise ObjectNotFound(Exception())


def wait_for_end(monkeypatch: pytest.MonkeyPatch, server: Server) -> FlowRun:
    monkeypatch.setattr(commands, "wait_or_stop", server.wait)
    monkeypatch.setattr(remote_training, "SETTLE_S", 0.0)
    monkeypatch.setattr(remote_training, "CANCEL_INTERVAL_S", 0.01)
    client: Any = server
    with remote_training.cancelled_at_end(client) as runs:
        runs += server.runs
        return remote_training._wait_for_end(client, "train@a", "train/gpu", runs)


def come(server: Server, *ranks: int) -> None:
    for rank in ranks:
        server.put(rank, Running(), taken="true", address=f"10.0.0.{rank + 1}:20001")


def test_all_ranks_get_the_addresses_when_the_last_one_has_told_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        if wait == 1:
            come(server, 2)
        if wait == 2:
            come(server, 0)
            server.put(1, Running(), taken="true")  # fetches its data
        if wait == 3:
            assert not any(gang.CONFIG in inputs for inputs in server.inputs.values())
            come(server, 1)
        if wait == 5:
            server.put(1, Completed())
        if wait == 6:
            for rank in range(3):
                server.put(rank, Completed())

    server = Server(3, step)
    assert wait_for_end(monkeypatch, server) == server.runs[0]
    assert server.cancelled == []
    for rank, run in enumerate(server.runs):
        cluster = this_cluster({"TF_CONFIG": server.inputs[run.id][gang.CONFIG]})
        assert cluster.rank == rank
        assert cluster.addresses == ("10.0.0.1:20001", "10.0.0.2:20001", "10.0.0.3:20001")


def test_too_few_workers_are_an_error_that_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        if wait == 2:
            come(server, 0)
            server.put(1, Running())
            server.put(2, Pending())
        if wait > 2:
            time.sleep(0.06)

    monkeypatch.setenv("OSTINATO_RANKS_TIMEOUT", "1")
    monkeypatch.setattr(remote_training, "PENDING_S", 0.0)
    server = Server(4, step)
    with pytest.raises(FlowError) as raised:
        wait_for_end(monkeypatch, server)
    text = str(raised.value)
    assert "1 of 4 ranks had a worker within 1 s" in text
    assert "rank 0: on worker w0" in text
    assert "rank 1: waits on worker w1 for its code or a free GPU" in text
    assert "rank 2: starts on worker w2" in text
    assert "rank 3: no worker took it (Scheduled)" in text
    assert "Online workers of the pool gpu: w0, w1" in text
    assert "Limits: pool gpu none, queue default 2\n" in text
    assert server.cancelled == [0, 1, 2, 3]


def test_ranks_that_no_worker_has_taken_wait_as_long_as_one_is_online(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        time.sleep(0.03)
        if wait == 5:
            server.online = []

    monkeypatch.setattr(remote_training, "HEARTBEAT_TIMEOUT_S", 0.1)
    server = Server(2, step)
    with pytest.raises(FlowError, match="prefect worker start --pool gpu"):
        wait_for_end(monkeypatch, server)
    assert server.waits >= 5
    assert server.cancelled == [0, 1]


def test_a_failed_rank_cancels_the_others_and_is_named_with_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        if wait == 1:
            come(server, 0, 1, 2)
        if wait == 3:
            server.put(1, Failed(message="TrainingError: the disk is full"))

    server = Server(3, step)
    with pytest.raises(FlowError) as raised:
        wait_for_end(monkeypatch, server)
    assert "rank 1 on worker w1 (10.0.0.2:20001): Failed: TrainingError: the disk is full" in str(
        raised.value
    )
    assert server.cancelled == [0, 2]


def test_a_lost_worker_is_a_crashed_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(server: Server, wait: int) -> None:
        if wait == 1:
            come(server, 0, 1)
        server.runs[0].labels[remote_training.HEARTBEAT] = wait
        time.sleep(0.03)

    monkeypatch.setattr(remote_training, "HEARTBEAT_TIMEOUT_S", 0.2)
    server = Server(2, step)
    with pytest.raises(FlowError, match=r"rank 1 on worker w1 .*: Crashed: The worker has sent no"):
        wait_for_end(monkeypatch, server)
    assert server.cancelled == [0]
    assert isinstance(server.runs[1].state, State)
    assert server.runs[1].state.type == Crashed().type


def test_a_cancelled_caller_cancels_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(server: Server, wait: int) -> None:
        come(server, 0)
        if wait == 2:
            raise commands.StoppedError("the flow was stopped")

    server = Server(2, step)
    with pytest.raises(commands.StoppedError):
        wait_for_end(monkeypatch, server)
    assert server.cancelled == [0, 1]


def test_a_rank_whose_process_starts_is_cancelled_once_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        come(server, 0)
        server.put(1, Pending())
        if wait == 2:
            raise commands.StoppedError("the flow was stopped")

    server = Server(2, step)
    read, reads = server.read_flow_run, []

    def read_flow_run(run: UUID) -> FlowRun:
        if 0 in server.cancelled:
            reads.append(run)
            assert 1 not in server.cancelled
            if len(reads) == 3:
                server.put(1, Running())
        return read(run)

    monkeypatch.setattr(server, "read_flow_run", read_flow_run)
    with pytest.raises(commands.StoppedError):
        wait_for_end(monkeypatch, server)
    assert server.cancelled == [0, 1]
    assert len(reads) == 3


def test_rank_0_alone_finds_the_result_in_a_run_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(server: Server, wait: int) -> None:
        if wait == 1:
            come(server, 0, 1)
        if wait == 2:
            server.put(0, Completed())

    server = Server(2, step)
    assert wait_for_end(monkeypatch, server) == server.runs[0]
    assert server.cancelled == [1]


def test_a_loopback_address_among_others_is_an_error_that_names_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(server: Server, wait: int) -> None:
        come(server, 0)
        server.put(1, Running(), taken="true", address="127.0.0.1:20001")

    with pytest.raises(FlowError, match=r"rank 1 on worker w1 gave a loopback.*OSTINATO_RANK_HOST"):
        wait_for_end(monkeypatch, Server(2, step))


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:2", True),
        ("localhost:2", True),
        ("[::1]:2", True),
        ("10.0.0.1:2", False),
        ("node1:2", False),
        ("[fd00::7]:2", False),
    ],
)
def test_loopback_addresses(address: str, loopback: bool) -> None:
    assert gang.is_loopback(address) == loopback


def test_the_host_of_a_rank_is_the_variable_or_the_address_towards_prefect() -> None:
    assert gang.own_host(PREFECT, {}) == "127.0.0.1"
    for host in ("node-1.example", "10.0.0.7", "[fd00::7]"):
        assert gang.own_host(PREFECT, {gang.HOST: host}) == host
        config = gang.tf_config([f"{host}:2222", "other:2222"], 0)
        assert this_cluster({"TF_CONFIG": config}).addresses[0] == f"{host}:2222"
    for host in ("node:2222", "http://node", "a b", "fd00::7"):
        with pytest.raises(SettingError, match="OSTINATO_RANK_HOST: found"):
            gang.own_host(PREFECT, {gang.HOST: host})
    with pytest.raises(FlowError, match="set OSTINATO_RANK_HOST"):
        gang.own_host("http://[::1]:4200/api", {})


def test_a_port_is_reserved_until_the_block_ends() -> None:
    with gang.free_port() as port, socket.socket() as other:
        assert port in gang.PORTS
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_rank_holds_its_port_until_it_has_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(1, lambda server, wait: None)
    (run,) = server.runs
    told = server.inputs[run.id]

    def wait(seconds: float) -> None:
        port = int(told[gang.ADDRESS].rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", port))
        told[gang.CONFIG] = "config"

    client = contextlib.nullcontext(server)
    monkeypatch.setattr(gang, "get_client", lambda sync_client: client)
    monkeypatch.setattr(gang, "get_run_logger", lambda: SimpleNamespace(info=lambda text: None))
    monkeypatch.setattr(commands, "wait_or_stop", wait)
    gang.tell_taken(run.id)
    assert gang.exchange_addresses(run.id) == "config"
    assert told[gang.ADDRESS].startswith("127.0.0.1:")
    told.clear()
    with pytest.raises(FlowError, match="their caller has ended"):
        gang.exchange_addresses(run.id, seconds=-1)


def test_ranks_need_a_deployment() -> None:
    check_ranks(1, None)
    check_ranks(2, "train/gpu")
    with pytest.raises(ParamsError, match="ranks: found 2 without train_on"):
        check_ranks(2, None)


def test_the_parameters_of_a_single_run_are_those_of_older_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[tuple[str, Any]] = []

    def run_deployment(name: str, parameters: Any, flow_run_name: str, timeout: int) -> FlowRun:
        sent.append((flow_run_name, json.loads(json.dumps(parameters))))
        return FlowRun(id=uuid4(), flow_id=uuid4())

    logger = SimpleNamespace(info=lambda text: None)
    monkeypatch.setattr(remote_training, "run_deployment", run_deployment)
    monkeypatch.setattr(remote_training, "get_run_logger", lambda: logger)
    assert len(list(remote_training._start("train@a", "train/gpu", "refs/x", 1, ["b"]))) == 1
    assert sent == [("train@a", {"stage": "train@a", "snapshot": "refs/x"})]
    sent.clear()
    assert len(list(remote_training._start("train@a", "train/gpu", "refs/x", 2, ["b"]))) == 2
    assert [name for name, _ in sent] == ["train@a rank 0 of 2", "train@a rank 1 of 2"]
    assert [parameters["rank"] for _, parameters in sent] == [0, 1]
    assert all(parameters["needs"] == ["b"] for _, parameters in sent)
