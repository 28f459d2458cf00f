"""Batch prediction against asking the server one by one, and its memory.

    python -m bench.predict [--drawings 16000] [--rounds 3] [--memory 10000,100000,1000000]

It runs in a checkout in which `dvc repro` has made RUN, a run on drawings, and answers drawings of
the test split:

- speed: in each round the server gets 300 requests of one drawing each, one after the other over
  one connection; then `ostinato predict` answers DRAWINGS from a file. Both load the model once,
  before; the rate of the command has reading, answering and writing in it. The processor time of a
  drawing is shown too, which the load of the machine changes less;
- memory: the peak of the resident memory of a new process that answers each number of drawings,
  copies of those above under other keys, by a model that only looks at the drawing (RUN would need
  hours for a million): it shows what the command itself holds.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving import Client, processor_seconds, server
from ostinato import store
from ostinato.serving import classification
from ostinato.serving.loading import Interface, Loaded, source
from ostinato.serving.prediction.predict import predict
from ostinato.sketches import serving
from ostinato.study import Study
from ostinato.task import Json
from ostinato.training.imports import import_keras_quietly

BENCHMARK = {
    "measures": "`ostinato predict` against a request for each drawing: drawings/s, memory",
    "minutes": 15,
    "needs": "a checkout in which `dvc repro` has made a run on drawings",
}

ASKED = 300  # drawings that the server gets in a round


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="sketches-conv-bilstm")
    parser.add_argument("--drawings", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="10000,100000,1000000", metavar="COUNT,...")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.peak:
        print(json.dumps(peak(args.peak)))
        return
    import_keras_quietly()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        requests = requests_of(args.run)
        if args.rounds:
            speed(args, requests, folder)
        counts = [int(count) for count in filter(None, args.memory.split(","))]
        peaks = []
        for count in counts:
            file = folder / f"{count}.ndjson"
            size = write(requests, count, file)
            command = [sys.executable, "-m", "bench.predict", "--peak", str(file)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            file.unlink()
            peaks.append(found["mib"])
            print(
                f"{count:,} drawings, {size / 1e6:,.0f} MB: {found['mib']:,.0f} MiB at the peak, "
                f"{found['rows']:,} rows, {count / found['seconds']:,.0f} drawings/s",
                flush=True,
            )
        if len(peaks) > 1:
            print(f"memory, {counts[-1]:,} against {counts[-2]:,}: {peaks[-1] / peaks[-2]:.2f}")


def requests_of(run: str) -> list[dict[str, Json]]:
    """Drawings of the test split."""
    study = Study.load(Path("params.yaml"))
    data = study.result(run)["data"]
    keys = store.read_arrays(study.result_folder(run) / "predictions.npz")["keys"].tolist()
    found = serving.to_requests(study.raw_folder(data), study.data_folder(data), keys)
    return list(found.values())


def write(requests: Sequence[Mapping[str, Json]], count: int, file: Path) -> int:
    """Write drawings under different keys; return the bytes."""
    lines = [json.dumps(each["strokes"]) for each in requests]
    with file.open("w") as out:
        for number in range(count):
            out.write(f'{{"key_id": "{number}", "drawing": {lines[number % len(lines)]}}}\n')
    return file.stat().st_size


def speed(args: Any, requests: Sequence[Mapping[str, Json]], folder: Path) -> None:
    """Ask the server and run the command in turn; print the rates."""
    bodies = [json.dumps({"inputs": [each]}).encode() for each in requests]
    drawings = folder / "speed.ndjson"
    write(requests, args.drawings, drawings)
    simplified = bool(requests[0].get("simplified"))
    result = f"results/{args.run}"
    found = Preloaded(result)
    rates: dict[str, list[float]] = {"server": [], "predict": []}
    spent: dict[str, list[float]] = {"server": [], "predict": []}
    command = [sys.executable, "-m", "ostinato", "serve", result]
    with server(command, "/health/ready", folder / "server.log") as (port, process):
        for number in range(args.rounds):
            path = f"/v1/models/{args.run}:predict"
            before = processor_seconds(process)
            rates["server"].append(asyncio.run(one_by_one(Client(port, process, path, bodies))))
            spent["server"].append((processor_seconds(process) - before) / ASKED * 1000)
            start, before = time.perf_counter(), time.process_time()
            summary = predict(
                found, drawings, folder / f"{number}.parquet", options={"simplified": simplified}
            )
            rates["predict"].append(summary.answered / (time.perf_counter() - start))
            spent["predict"].append((time.process_time() - before) / summary.answered * 1000)
            shown = ", ".join(
                f"{name} {rate[-1]:,.0f} drawings/s ({spent[name][-1]:.1f} ms of processor each)"
                for name, rate in rates.items()
            )
            ratio = rates["predict"][-1] / rates["server"][-1]
            print(f"round {number + 1}: {shown}, ratio {ratio:.1f}", flush=True)
    for what, top, bottom in (
        ("rate", rates["predict"], rates["server"]),
        ("processor time", spent["server"], spent["predict"]),
    ):
        ratio = statistics.median(a / b for a, b in zip(top, bottom, strict=True))
        print(f"predict against the server one by one, {what}: {ratio:.1f} times")


async def one_by_one(client: Client) -> float:
    """The rate at which a client gets answers that asks for one after the other."""
    start = time.perf_counter()
    for number in range(ASKED):
        status, content = await client.ask(number)
        if status != 200:
            sys.exit(f"status {status}: {content[:300]!r}")
    return ASKED / (time.perf_counter() - start)


class Preloaded:
    """The source of a result that is loaded once."""

    def __init__(self, result: str) -> None:
        found = source(result)
        self.name, self.domain, self.interface = found.name, found.domain, found.interface
        self._version = found.current()
        self._loaded = found.load(self._version)
        drawing = self.interface.Input.model_validate(self._loaded.example)
        self._loaded.service.predict([drawing] * 256, self.interface.options)

    def current(self) -> str:
        return self._version

    def load(self, version: str) -> Loaded:
        return self._loaded


class Looks:
    """A model that only counts the points of a drawing."""

    name, domain, interface = "looks", "sketches", Interface.of("sketches")

    def current(self) -> str:
        return "1"

    def load(self, version: str) -> Loaded:
        return Loaded("1", self, {})

    def predict(
        self, inputs: Sequence[Any], options: Mapping[str, Json]
    ) -> list[classification.Response]:
        classes = [f"class {number}" for number in range(10)]
        found = []
        for each in inputs:
            p = np.full(10, 0.01)
            p[sum(len(stroke[0]) for stroke in each.strokes) % 10] = 0.91
            found.append(classification.response(p, classes, 0))
        return found


def peak(file: Path) -> dict[str, float]:
    """Answer a file; return the peak of the resident memory, the rows and the seconds."""
    start = time.perf_counter()
    summary = predict(Looks(), file, file.with_suffix(".parquet"), options={})
    seconds = time.perf_counter() - start
    file.with_suffix(".parquet").unlink()
    return {"mib": peak_mib(), "rows": summary.rows, "seconds": seconds}


def peak_mib() -> float:
    """The peak of this process alone: `getrusage` has that of the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
