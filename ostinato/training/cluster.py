"""The ranks of a training: read their addresses from the environment, wait until all are there.

A rank is one of the processes that share a training. Imports no TensorFlow.
"""

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from ostinato.errors import SettingError, TrainingError

TF_CONFIG = "TF_CONFIG"  # TensorFlow's own name
RANKS = "OSTINATO_RANKS"
SLURM = "slurm"  # the only value of RANKS
TIMEOUT = "OSTINATO_RANKS_TIMEOUT"
TIMEOUT_S = 600
POLL_S = 0.2  # between two attempts to reach rank 0
HANDSHAKE_TIMEOUT_S = 5.0  # that a process which has connected may take for its line
MAX_LINE = 100_000
ALL_CONNECTED = "all ranks are there"
LOOPBACK = {"localhost": "127.0.0.1", "127.0.0.1": "127.0.0.1", "[::1]": "::1"}
EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
)
RESUMES = "start all ranks again: training resumes after the last finished epoch"


@dataclass(frozen=True)
class Cluster:
    """The ranks of a training.

    Args:
        addresses: HOST:PORT of each rank, in order; empty for a training in one process.
        rank: of this process.
    """

    addresses: tuple[str, ...] = ()
    rank: int = 0

    @property
    def ranks(self) -> int:
        """How many there are."""
        return max(len(self.addresses), 1)

    def names(self, ranks: Sequence[int]) -> str:
        """Ranks with their addresses, for an error."""
        return " and ".join(f"rank {rank} ({self.addresses[rank]})" for rank in ranks)


def this_cluster(environment: Mapping[str, str]) -> Cluster:
    """The ranks that the environment describes, and this process among them.

    The ranks of TF_CONFIG are its chief, if there is one, and its workers. Slurm's variables count
    only with OSTINATO_RANKS=slurm: a job step may also start processes that train apart.

    Args:
        environment: the variables TF_CONFIG, OSTINATO_RANKS and those of Slurm.

    Raises:
        SettingError: a variable has another form.
    """
    text, launcher = environment.get(TF_CONFIG, ""), environment.get(RANKS, "")
    if launcher not in ("", SLURM):
        raise SettingError(f"{RANKS}: found {launcher!r}; expected {SLURM!r}, or no such variable")
    if text and launcher:
        raise SettingError(f"{TF_CONFIG} and {RANKS} are both set; unset one of them")
    cluster = _of_slurm(environment) if launcher else _of_tf_config(text or "{}")
    return cluster if cluster.ranks > 1 else Cluster()


def timeout_s(environment: Mapping[str, str] = os.environ) -> int:
    """For how many seconds ranks wait for each other at the start.

    Raises:
        SettingError: the variable OSTINATO_RANKS_TIMEOUT is no integer from 1.
    """
    return _integer(environment, TIMEOUT, 1) if environment.get(TIMEOUT) else TIMEOUT_S


def _of_tf_config(text: str) -> Cluster:
    def wrong(found: Any, expected: str) -> SettingError:
        return SettingError(f"{TF_CONFIG}: found {found}; expected {expected}, as in {EXAMPLE}")

    try:
        config = json.loads(text)
    except ValueError as error:
        raise wrong(f"no JSON ({error})", "an object") from None
    if not isinstance(config, dict):
        raise wrong(f"{type(config).__name__} {text!r}", "an object")
    jobs, task = config.get("cluster", {}), config.get("task", {})
    if not jobs:
        return Cluster()
    if not isinstance(jobs, dict) or not set(jobs) <= {"chief", "worker"}:
        raise wrong(f"the cluster {jobs!r}", "a cluster of a chief and workers")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list):
            raise wrong(f"{job} {addresses!r}", "a list of addresses")
        for address in addresses:
            if not isinstance(address, str) or not _is_address(address):
                raise wrong(f"the {job} address {address!r}", "HOST:PORT")
    if len(jobs.get("chief", [])) > 1:
        raise wrong(f"{len(jobs['chief'])} chiefs", "at most one")
    ranks = [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, [])))]
    addresses = tuple(jobs[job][i] for job, i in ranks)
    if repeated := {address for address in addresses if addresses.count(address) > 1}:
        raise wrong(f"{' and '.join(sorted(repeated))} more than once", "an address for each rank")
    if not isinstance(task, dict) or (task.get("type"), task.get("index")) not in ranks:
        raise wrong(f"the task {task!r}", f"a type and an index of {len(ranks)} ranks")
    return Cluster(addresses, ranks.index((task["type"], task["index"])))


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of a job step: ports from 20,000 on, by the job's number."""
    names = ("SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    if missing := [name for name in names if not environment.get(name)]:
        raise SettingError(f"{RANKS}={SLURM}: no {missing[0]}; start the ranks with srun")
    hosts = _expand(names[0], environment[names[0]], "nodes")
    tasks = [int(count) for count in _expand(names[1], environment[names[1]], "counts")]
    if len(hosts) != len(tasks):
        raise SettingError(
            f"{names[0]} has {len(hosts)} nodes, {names[1]} {len(tasks)}; start the ranks with srun"
        )
    rank, local, node, job = (
        _integer(environment, f"SLURM_{name}", 0)
        for name in ("PROCID", "LOCALID", "NODEID", "JOB_ID")
    )
    places = [
        (host, task) for host, count in zip(hosts, tasks, strict=True) for task in range(count)
    ]
    if node >= len(hosts) or rank >= len(places) or places[rank] != (hosts[node], local):
        raise SettingError(
            f"SLURM_PROCID: found rank {rank} as task {local} of node {node}; expected ranks in "
            "the order of the nodes; use srun --distribution=block"
        )
    port = 20_000 + job % 10_000
    return Cluster(tuple(f"{host}:{port + task}" for host, task in places), rank)


def _expand(name: str, text: str, form: str) -> list[str]:
    """A list of Slurm, such as ``n[1-3,07]`` or ``2(x3)``, with a word for each node."""
    part = {"nodes": r"[\w.-]+(?:\[\d[\d,-]*\])?", "counts": r"\d+(?:\(x\d+\))?"}[form]
    if not re.fullmatch(rf"{part}(,{part})*", text):
        raise SettingError(f"{name}: found {text!r}; expected a list of {form}, as Slurm writes it")
    words: list[str] = []
    for prefix, numbers, times in re.findall(r"([\w.-]+)(?:\[([\d,-]+)\]|\(x(\d+)\))?", text):
        for numbered in numbers.split(","):
            first, _, last = numbered.partition("-")
            span = range(int(first), int(last or first) + 1) if numbered else [""]
            words += [f"{prefix}{number:0{len(first)}}" if numbered else prefix for number in span]
        words += [prefix] * (int(times or 1) - 1)
    return words


def _integer(environment: Mapping[str, str], name: str, least: int) -> int:
    text = environment.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise SettingError(f"{name}: found {text!r}; expected an integer from {least}")
    return int(text)


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536)


def wait_for_ranks(cluster: Cluster, agreement: str, seconds: float) -> None:
    """Wait until all ranks are there: each tells rank 0, which answers when it has heard of all.

    TensorFlow starts afterwards: on its own it waits for a missing rank without end. Rank 0
    listens on its address for the time of the call.

    Args:
        cluster: the ranks.
        agreement: what must be equal on all ranks, such as the number of devices.
        seconds: to wait.

    Raises:
        TrainingError: ranks are missing, which it names, or they do not agree.
    """
    agreement = f"{agreement}, ranks {','.join(cluster.addresses)}"
    deadline = time.monotonic() + seconds
    if cluster.rank == 0:
        answer = _gather(cluster, agreement, deadline)
    else:
        answer = _report(cluster, agreement, deadline)
    if answer != ALL_CONNECTED:
        raise TrainingError(answer)


def _gather(cluster: Cluster, agreement: str, deadline: float) -> str:
    """Rank 0: collect the other ranks, and tell all of them the same answer."""
    host, _, port = cluster.addresses[0].rpartition(":")
    connections: dict[int, socket.socket] = {}
    answer = ALL_CONNECTED
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(host, int(port), cluster.ranks))
        except OSError as error:
            raise TrainingError(
                f"{cluster.names([0])} cannot listen on its port: {error.strerror}; choose another"
            ) from None
        while answer == ALL_CONNECTED:
            # A rank that has ended since may come again.
            connections = {r: one for r, one in connections.items() if not _is_closed(one)}
            if len(connections) == cluster.ranks - 1:
                break
            try:
                listener.settimeout(max(deadline - time.monotonic(), 0.001))
                connection = stack.enter_context(listener.accept()[0])
                connection.settimeout(HANDSHAKE_TIMEOUT_S)
                rank, other = json.loads(connection.makefile().readline(MAX_LINE))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    missing = [rank for rank in range(1, cluster.ranks) if rank not in connections]
                    answer = (
                        f"{cluster.names(missing)} did not come in time; start all ranks, open "
                        f"their ports, or set {TIMEOUT} (seconds) higher"
                    )
                continue
            except (OSError, ValueError, TypeError):
                continue  # no rank: a probe of the port
            if type(rank) is not int:
                continue
            if rank not in range(1, cluster.ranks):
                answer = (
                    f"a process says that it is rank {rank} of {cluster.ranks} ranks; set the same "
                    f"addresses in {TF_CONFIG} of all ranks"
                )
            elif rank in connections and not _is_closed(connections[rank]):
                answer = f"two processes say that they are rank {rank}; give each its own index"
            elif other != agreement:
                answer = (
                    f"{cluster.names([rank])} does not fit rank 0: {other!r}, not {agreement!r}; "
                    "start all ranks with the same settings and versions"
                )
            connections[rank] = connection
        for connection in connections.values():
            with suppress(OSError):  # the rank has ended
                connection.sendall(json.dumps(answer).encode() + b"\n")
    return answer


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """A server on loopback where the host is loopback, else on all interfaces."""
    dual = host not in LOOPBACK and socket.has_dualstack_ipv6()
    return socket.create_server(
        (LOOPBACK.get(host, ""), port),
        family=socket.AF_INET6 if dual or host == "[::1]" else socket.AF_INET,
        backlog=backlog,
        dualstack_ipv6=dual,
    )


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other end has closed a connection; it sends one line and then waits."""
    try:
        connection.setblocking(False)
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _report(cluster: Cluster, agreement: str, deadline: float) -> str:
    """Another rank: tell rank 0, and return its answer."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=left
            ) as connection:
                connection.sendall(json.dumps([cluster.rank, agreement]).encode() + b"\n")
                # Rank 0 answers at its own deadline, which may be a little later.
                connection.settimeout(left + HANDSHAKE_TIMEOUT_S)
                return str(json.loads(connection.makefile().readline(MAX_LINE)))
        except (OSError, ValueError):
            time.sleep(POLL_S)  # it does not listen yet, or has ended
    return (
        f"{cluster.names([0])} did not come in time; start all ranks, open their ports, or set "
        f"{TIMEOUT} (seconds) higher"
    )


def unreachable(cluster: Cluster, seconds: float = 2.0) -> list[int]:
    """The other ranks whose address refuses a connection: their processes have ended."""

    def refuses(address: str) -> bool:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
        except OSError:
            return True
        return False

    others = [rank for rank in range(cluster.ranks) if rank != cluster.rank]
    return [rank for rank in others if refuses(cluster.addresses[rank])]
