"""The server against `mlflow models serve`: latency, throughput, a swap, and memory.

    python -m bench.serving [--rounds 3] [--seconds 10] [--requests 10000]
                            [--minutes 0] [--rate 100]

It runs in a checkout in which `dvc repro` has made two runs on drawings. Both are versions of one
registered model, in a store of their own. Both servers run at the same time on the same model and
get the same requests in turn, from a client on the same machine:

- latency: 100 requests/s at fixed times, one drawing each; from the time when a request is due;
- throughput: 16 clients that ask as soon as they are answered, ROUNDS times SECONDS for each side,
  with the processor time of a request, which the load of the machine changes less;
- swap: REQUESTS by 16 clients; in the middle the alias moves to the other run. Each answer must
  equal that of the version that it names, computed without a server;
- memory: the resident memory of the server under RATE requests/s, for MINUTES.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import uvloop

from ostinato import store
from ostinato.serving.packaging import pack
from ostinato.study import Study
from ostinato.training.imports import import_keras_quietly

BENCHMARK = {
    "measures": "the server against `mlflow models serve`: latency, throughput, a swap, memory",
    "minutes": 5,
    "needs": "a checkout in which `dvc repro` has made two runs on drawings",
}

RUNS = ("sketches-conv-bilstm", "sketches-nearest")
DRAWINGS = 300
CLIENTS = 16
RATE = 100  # requests/s
START_S = 600
IDLE_S = 4  # of a connection, before the servers close it
TOLERANCE = 1e-4  # of a probability: sums round differently in a batch

Ask = Callable[[int], Awaitable[tuple[int, bytes]]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--rate", type=float, default=RATE)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary, store.private_folder() as files:
        folder = Path(temporary)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
        requests, expected = prepare(files, folder)
        bodies = [json.dumps({"inputs": [one]}).encode() for one in requests]
        ours = [sys.executable, "-m", "ostinato", "serve", "bench@live", "--poll-s", "2"]
        theirs = [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
            *("-m", str(folder / RUNS[0])),
        ]
        with (
            server(theirs, "/ping", folder / "theirs.log") as theirs_at,
            server(ours, "/health/ready", folder / "ours.log") as ours_at,
        ):
            paths = {
                "ostinato": (*ours_at, "/v1/models/bench@live:predict"),
                "mlflow": (*theirs_at, "/invocations"),
            }
            uvloop.run(measure(paths, bodies, expected, args))
            print(f"server's log:\n{(folder / 'ours.log').read_text()[-1500:]}")


async def measure(
    paths: Mapping[str, tuple[int, int, str]],
    bodies: Sequence[bytes],
    expected: Mapping[str, Sequence[Mapping[str, float]]],
    args: argparse.Namespace,
) -> None:
    clients = {name: Client(*place, bodies) for name, place in paths.items()}
    ours = clients["ostinato"]
    rates: dict[str, list[float]] = {name: [] for name in clients}
    for number in range(args.rounds):
        before = processor_seconds(ours.process)
        seconds, failures = await open_loop(ours.ask, RATE, args.seconds)
        own = (processor_seconds(ours.process) - before) / len(seconds) * 1000
        low, high = np.percentile(np.array(seconds) * 1000, [50, 99])
        print(
            f"round {number + 1}: latency at {RATE} requests/s: p50 {low:.1f} ms, "
            f"p99 {high:.1f} ms, {failures} failed, {own:.1f} ms of processor each",
            flush=True,
        )
        spent = {}
        for name, client in clients.items():
            before = processor_seconds(client.process)
            count = await closed_loop(client.ask, args.seconds)
            rates[name].append(count / args.seconds)
            spent[name] = (processor_seconds(client.process) - before) / count * 1000
        ratio = rates["ostinato"][-1] / rates["mlflow"][-1]
        shown = ", ".join(
            f"{name} {rate[-1]:.0f}/s ({spent[name]:.1f} ms of processor each)"
            for name, rate in rates.items()
        )
        print(f"round {number + 1}: {CLIENTS} clients: {shown}, ratio {ratio:.1f}", flush=True)
    ratios = [a / b for a, b in zip(rates["ostinato"], rates["mlflow"], strict=True)]
    if ratios:
        print(f"throughput against mlflow models serve: {statistics.median(ratios):.1f} times")
    if args.requests:
        await swap(ours, expected, args.requests)
        await asyncio.to_thread(move, "1")
        await asyncio.sleep(20)
    if args.minutes:
        await hold(ours, args.minutes, args.rate)


class Connection(asyncio.Protocol):
    """A connection of HTTP/1.1 with one request at a time."""

    def __init__(self) -> None:
        self.received, self.closed = b"", False
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("closed before an answer"))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, content = self.received.partition(b"\r\n\r\n")
        if found and self.answer:
            head = head.lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(content) == length:
                self.received = b""
                self.answer.set_result((int(head.split()[1]), content))

    async def ask(self, message: bytes) -> tuple[int, bytes]:
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self.answer


class Client:
    """Asks a server over connections that stay open."""

    def __init__(self, port: int, process: int, path: str, bodies: Sequence[bytes]) -> None:
        self.port, self.process = port, process
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self.messages = [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies
        ]
        self.idle: list[tuple[Connection, float]] = []

    async def ask(self, number: int) -> tuple[int, bytes]:
        """Send a body; return status and answer."""
        while self.idle:
            connection, since = self.idle.pop()
            if time.monotonic() < since + IDLE_S and not connection.closed:
                break
            connection.transport.close()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
        found = await connection.ask(self.messages[number % len(self.messages)])
        self.idle.append((connection, time.monotonic()))
        return found


async def open_loop(ask: Ask, rate: float, seconds: float) -> tuple[list[float], int]:
    """Ask at fixed times; return the seconds from each of them to its answer, and the failures."""
    found, failures = list[float](), 0
    start = time.perf_counter() + 0.1  # uvloop's own time has milliseconds

    async def one(number: int, due: float) -> None:
        nonlocal failures
        status, _ = await ask(number)
        failures += status != 200
        found.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(one(number, due))
    return found, failures


async def closed_loop(ask: Ask, seconds: float) -> int:
    """Ask by `CLIENTS` clients without pause; return the number of answers."""
    end, count = time.perf_counter() + seconds, 0

    async def client(first: int) -> None:
        nonlocal count
        number = first
        while time.perf_counter() < end:
            status, content = await ask(number)
            if status != 200:
                sys.exit(f"status {status}: {content[:300]!r}")
            number, count = number + CLIENTS, count + 1

    await asyncio.gather(*(client(first) for first in range(CLIENTS)))
    return count


async def swap(
    client: Client, expected: Mapping[str, Sequence[Mapping[str, float]]], requests: int
) -> None:
    """Move the alias while clients ask; count the answers of each version, lost and wrong ones."""
    numbers = iter(range(requests))
    seen, lost, wrong = Counter[str](), 0, 0

    async def one() -> None:
        nonlocal lost, wrong
        for number in numbers:
            if number == requests // 2:
                await asyncio.to_thread(move, "2")
            status, content = await client.ask(number)
            if status != 200:
                lost += 1
                continue
            answer = json.loads(content)
            seen[answer["version"]] += 1
            own = expected[answer["version"]][number % DRAWINGS]
            found = answer["responses"][0]["probabilities"]
            differ = max(abs(found[name] - p) for name, p in own.items())
            wrong += found.keys() != own.keys() or differ > TOLERANCE

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    versions = ", ".join(f"{count} by version {version}" for version, count in sorted(seen.items()))
    print(f"swap: {requests} requests: {versions}, {lost} lost, {wrong} wrong", flush=True)


async def hold(client: Client, minutes: float, rate: float) -> None:
    """Ask at a fixed rate, and print the server's memory once a minute."""
    for minute in range(int(minutes) + 1):
        print(f"minute {minute}: {resident(client.port) / 1e6:.0f} MB resident", flush=True)
        if minute < minutes:
            seconds, failures = await open_loop(client.ask, rate, 60)
            high = np.percentile(np.array(seconds) * 1000, 99)
            print(f"  p99 {high:.1f} ms, {failures} failed", flush=True)


def resident(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return float(next(x.split()[1] for x in lines if x.startswith("process_resident_memory")))


def processor_seconds(process: int) -> float:
    """The processor time of a process and its children."""
    own = psutil.Process(process)
    return sum(sum(p.cpu_times()[:2]) for p in (own, *own.children(recursive=True)))


def prepare(files: Path, folder: Path) -> tuple[list[Any], dict[str, list[Mapping[str, float]]]]:
    """Register both runs; return requests, and the answers to them by version."""
    import_keras_quietly()
    from mlflow import MlflowClient
    from mlflow.models import Model

    from ostinato.sketches import serving
    from ostinato.tracking import registry

    study = Study.load(Path("params.yaml"))
    client, expected = MlflowClient(), dict[str, list[Mapping[str, float]]]()
    client.create_registered_model("bench", {"domain": "sketches"})
    raw, prepared = study.raw_folder("sketches"), study.data_folder("sketches")
    keys = store.read_arrays(study.result_folder(RUNS[0]) / "predictions.npz")["keys"]
    requests = list(serving.to_requests(raw, prepared, keys.tolist()).values())[:DRAWINGS]
    for number, run in enumerate(RUNS, start=1):
        parts = files / run
        parts.mkdir()
        pack(study, run, serving.SERVING.example, parts)
        service = serving.load(parts)
        inputs = [serving.Input.model_validate(one) for one in requests]
        answers = [service.predict([one], serving.SERVING.options)[0] for one in inputs]
        expected[str(number)] = [answer.probabilities for answer in answers]
        registry.save("sketches", parts, folder / run, Model())
        client.create_model_version("bench", (folder / run).as_uri())
    move("1")
    return requests, expected


def move(version: str) -> None:
    """Point the alias to a version."""
    from mlflow import MlflowClient

    MlflowClient().set_registered_model_alias("bench", "live", version)


@contextlib.contextmanager
def server(command: Sequence[str], path: str, log: Path) -> Iterator[tuple[int, int]]:
    """Start a server on a free port; yield port and process when a path answers with 200."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    print("+", *command, flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    try:
        for _ in range(START_S):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}"),
            ):
                break
            if process.poll() is not None:
                sys.exit(log.read_text()[-4000:])
            time.sleep(1)
        else:
            sys.exit(f"{command} did not start within {START_S} s:\n{log.read_text()[-4000:]}")
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
