"""The ranks of a training on other machines: a flow run for each; all start together, or none.

A rank that has a worker and its GPUs tells the caller, fetches its data, tells its address, and
waits for the variable TF_CONFIG. The caller sends it when it has the addresses of all ranks. These
messages are inputs of the rank's flow run, which Prefect deletes with the run: labels would be
read, changed and written back by the server, so two writers could lose one's change.
"""

import ipaddress
import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from flows.engine import commands, devices
from ostinato.errors import FlowError, SettingError
from ostinato.training import cluster

HOST = "OSTINATO_RANK_HOST"  # variable of a worker: the address at which other ranks reach it
PORTS = range(20_000, 30_000)  # below those that Linux takes for outgoing connections
PORT_ATTEMPTS = 100
MEET_S = 3600.0  # that a rank waits for the data of the others
POLL_INTERVAL_S = 1.0  # between two looks for the addresses of the other ranks
# Keys of the inputs of a rank's flow run.
TAKEN, ADDRESS, CONFIG = "rank-taken", "rank-address", "rank-config"
WORKER = "prefect.worker.name"  # label of a flow run


# The rank


def tell_taken(run: UUID) -> None:
    """Tell the caller that this rank has its worker and its devices."""
    with get_client(sync_client=True) as client:
        client.create_flow_run_input(run, TAKEN, "true")


def exchange_addresses(run: UUID, seconds: float = MEET_S) -> str:
    """Tell the caller the address of this rank, and wait until all ranks have given theirs.

    The rank's port is free again when this returns.

    Args:
        run: this flow run.
        seconds: to wait; a caller that was killed says nothing.

    Returns:
        The value of TF_CONFIG.

    Raises:
        FlowError: the others have not come in time.
    """
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client, free_port() as port:
        address = f"{own_host(str(client.api_url))}:{port}"
        client.create_flow_run_input(run, ADDRESS, address)
        get_run_logger().info(f"This rank listens on {address}; waiting for the other ranks")
        while (config := _messages(client, run).get(CONFIG)) is None:
            if time.monotonic() > deadline:
                raise FlowError(
                    f"The other ranks had not fetched their data within {seconds:g} s, or their "
                    "caller has ended; what was fetched stays: start the training again"
                )
            commands.wait_or_stop(POLL_INTERVAL_S)
        return config


def own_host(server: str, environment: Mapping[str, str] = os.environ) -> str:
    """The address at which the other ranks reach this machine.

    OSTINATO_RANK_HOST, or the address from which this machine reaches Prefect's server: a loopback
    address where all workers and the server are on one machine.

    Args:
        server: address of Prefect's API.
        environment: with the variable.

    Raises:
        SettingError: the variable is no host.
        FlowError: the machine has no address towards the server.
    """
    if host := environment.get(HOST, "").strip():
        if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host):
            raise SettingError(
                f"{HOST}: found {host!r}; expected a host name or an IP address without a port, "
                "such as 10.0.0.7 or [fd00::7]"
            )
        return host
    url = httpx.URL(server)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((url.host, url.port or 443))  # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise FlowError(
            f"This machine has no IPv4 address towards Prefect's server {url.host}: "
            f"{error.strerror}; set {HOST} to its address in the network of the ranks"
        ) from None


@contextmanager
def free_port() -> Iterator[int]:
    """A port on which nothing listens, reserved until the block ends."""
    for port in random.sample(PORTS, PORT_ATTEMPTS):
        with socket.socket() as held:
            try:
                held.bind(("", port))
            except OSError:
                continue
            yield port
            return
    raise FlowError(
        f"{PORT_ATTEMPTS} ports of {PORTS.start} to {PORTS.stop - 1} were tried, and none is free"
    )


# The caller


class Gang:
    """The ranks of one training as their caller sees them, until they have started.

    Args:
        client: of Prefect's server.
        seconds: that the first rank which has a worker waits for the others to have theirs.
    """

    def __init__(self, client: SyncPrefectClient, seconds: float) -> None:
        self.client, self.seconds = client, seconds
        self.addresses: dict[int, str] = {}
        self.started = False
        self._since: float | None = None

    def start_if_complete(self, runs: Sequence[FlowRun]) -> None:
        """Send TF_CONFIG to all ranks once all have given their addresses.

        Args:
            runs: the flow runs of the ranks, in order, as they are now.

        Raises:
            FlowError: some ranks have no worker in time, or cannot reach each other.
        """
        messages = [_messages(self.client, run.id) for run in runs]
        taken = {rank for rank, one in enumerate(messages) if TAKEN in one}
        if taken and self._since is None:
            self._since = time.monotonic()
        if len(taken) < len(runs):
            if self._since is not None and time.monotonic() - self._since > self.seconds:
                raise FlowError(self._incomplete(runs, taken))
            return
        self.addresses = {i: one[ADDRESS] for i, one in enumerate(messages) if ADDRESS in one}
        if len(self.addresses) == len(runs):
            self._check_hosts(runs)
            for rank, run in enumerate(runs):
                config = tf_config(list(self.addresses.values()), rank)
                self.client.create_flow_run_input(run.id, CONFIG, config)
            self.started = True

    def describe(self, rank: int, run: FlowRun) -> str:
        """A rank with its worker, address and state."""
        state = run.state
        address = f" ({self.addresses[rank]})" if rank in self.addresses else ""
        message = f": {state.message}" if state and state.message else ""
        return f"rank {rank} on {worker_of(run)}{address}: {state and state.name}{message}"

    def _check_hosts(self, runs: Sequence[FlowRun]) -> None:
        """Loopback addresses are those of one machine."""
        loopback = {rank for rank, address in self.addresses.items() if is_loopback(address)}
        if loopback and len(loopback) < len(runs):
            ranks = [f"rank {rank} on {worker_of(runs[rank])}" for rank in sorted(loopback)]
            raise FlowError(
                f"{' and '.join(ranks)} gave a loopback address, which the other ranks cannot "
                f"reach; give these workers the variable {HOST}, the address of their machine"
            )

    def _incomplete(self, runs: Sequence[FlowRun], taken: set[int]) -> str:
        pool = str(runs[0].work_pool_name)
        online = [
            worker.name
            for worker in self.client.read_workers_for_work_pool(pool)
            if worker.status == WorkerStatus.ONLINE
        ]
        lines = [f"{len(taken)} of {len(runs)} ranks had a worker within {self.seconds:g} s"]
        for rank, run in enumerate(runs):
            state = str(run.state and run.state.name)
            if rank in taken:
                lines.append(f"rank {rank}: on {worker_of(run)}")
            elif run.state and run.state.is_running():
                lines.append(f"rank {rank}: waits on {worker_of(run)} for its code or a free GPU")
            elif run.state and run.state.is_pending():
                lines.append(f"rank {rank}: starts on {worker_of(run)}")
            else:
                lines.append(f"rank {rank}: no worker took it ({state})")
        lines += [
            f"Online workers of the pool {pool}: {', '.join(sorted(online)) or 'none'}",
            f"Limits: {self._limits(pool, str(runs[0].work_queue_name))}",
            f"Start more workers (prefect worker start --pool {pool}), raise the limits (python -m "
            f"flows.deploy --gpus N; --limit of a worker), or set {cluster.TIMEOUT} (seconds)",
        ]
        return "\n".join(lines)

    def _limits(self, pool: str, queue: str) -> str:
        limits = {f"pool {pool}": self.client.read_work_pool(pool).concurrency_limit}
        for found in self.client.read_work_queues(work_pool_name=pool):
            if found.name == queue:
                limits[f"queue {queue}"] = found.concurrency_limit
        try:
            found_limit = self.client.read_global_concurrency_limit_by_name(devices.LIMIT)
            limits[f"GPUs (limit {devices.LIMIT})"] = found_limit.limit
        except ObjectNotFound:
            pass
        return ", ".join(f"{name} {'none' if n is None else n}" for name, n in limits.items())


def tf_config(addresses: Sequence[str], rank: int) -> str:
    """The value of TF_CONFIG for a rank."""
    return json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": rank}}
    )


def is_loopback(address: str) -> bool:
    """Whether only the machine itself reaches an address HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name


def worker_of(run: FlowRun) -> str:
    """The worker that has taken a flow run, for a message."""
    name = run.labels.get(WORKER)
    return f"worker {name}" if name else "no worker"


def _messages(client: SyncPrefectClient, run: UUID) -> dict[str, str]:
    found = client.filter_flow_run_input(run, key_prefix="rank-", limit=10, exclude_keys=set())
    return {message.key: message.value for message in found}
