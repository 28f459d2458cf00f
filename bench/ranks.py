"""Data-parallel training: what two ranks gain on this machine, and what eight would on a network.

    python -m bench run ranks

Each model trains in one process with two threads, and in two ranks (processes) of one thread, with
the same batches. The sides take turns in every round; the first round warms up. Printed are medians
over the rounds: examples/s of both sides, the median ratio in the same round, and the bytes on the
loopback device for each step beside the bytes of the gradient. Nothing else should use loopback.

Then follows a calculation for `--ranks` machines. A ring all-reduce sends 2 (n-1)/n times the
gradient from each machine, in 2 (n-1) messages one after the other:

    seconds = 2 (n-1)/n * bytes / bandwidth + 2 (n-1) * latency

A step makes one such sum of the gradient, and two of a few numbers (the batch's weight, the
metrics), which cost the latency alone. Communication takes as long as the computation where a
machine's part of a batch has the printed number of examples; below it, communication takes over.
Nothing is assumed to overlap. The computation is the speed of one process here: a machine that
computes ten times as fast needs ten times as many examples.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.training import PAPER
from ostinato.task import Part

BENCHMARK = {
    "measures": (
        "training in two ranks against one process: speed, bytes sent; a calculation for 8 machines"
    ),
    "minutes": 20,
}
LATENCY_S = 50e-6  # between two machines of one switch, with TCP
GIGABITS = (10, 100)


@dataclass(frozen=True)
class Setup:
    """A model, and batches of one shape.

    Args:
        build: parameters of the model.
        batch_size: examples of a step, over all ranks.
        length: of each example: points of a drawing, tokens of a sentence.
        vocab_size: of a translation model; 0 for drawings.
    """

    build: Mapping[str, Any]
    batch_size: int
    length: int
    vocab_size: int = 0


BASE = {"units": 512, "num_heads": 8, "feedforward_units": 2048, "num_layers": 6}
TINY = {"units": 128, "num_heads": 4, "feedforward_units": 512, "num_layers": 4}
DROPOUT = {"dropout": 0.1, "word_dropout": 0.0}
SETUPS = {
    "conv_bilstm, small": Setup(
        {**PAPER, "filters": [16, 24, 32], "units": 32, "num_layers": 1}, 128, 50
    ),
    "conv_bilstm, paper size": Setup(PAPER, 128, 50),
    "transformer, small": Setup({**TINY, **DROPOUT}, 64, 15, 6_000),
    "transformer, paper size": Setup({**BASE, **DROPOUT}, 16, 25, 37_000),
}
TOY = {
    "conv_bilstm, toy": Setup({**PAPER, "filters": [2, 2, 2], "units": 2, "num_layers": 1}, 4, 5),
}


class Random:
    """The same random batch at each step.

    Args:
        setup: its shape.
        steps: of an epoch.
    """

    classes = tuple(map(str, range(345)))  # of QuickDraw
    kind = "strokes"
    shared_vocabulary = True

    def __init__(self, setup: Setup, steps: int) -> None:
        generator, shape = np.random.default_rng(1), (setup.batch_size, setup.length)
        self.setup, self.steps = setup, steps
        self.vocab_sizes = (setup.vocab_size, setup.vocab_size)
        if setup.vocab_size:
            source, before, y = generator.integers(4, setup.vocab_size, (3, *shape), np.int32)
            weight = np.ones(shape, np.float32)
            self.batch: Any = ({"source": source, "before": before}, y, weight)
        else:
            x = generator.normal(size=(*shape, 3)).astype(np.float32)
            self.batch = (x, generator.integers(345, size=shape[0], dtype=np.int32))

    def size(self, split: str) -> int:
        """The number of examples."""
        return self.setup.batch_size * (self.steps if split == "train" else 1)

    def batches(self, split: str, *, part: Part = Part(), **order: Any) -> Any:
        """The batches; one for validation."""
        import tensorflow as tf

        total, batch = self.setup.batch_size, self.batch
        if part.ranks > 1:
            first, last = (total * (part.rank + i) // part.ranks for i in (0, 1))
            mine = tf.nest.map_structure(lambda array: array[first:last], batch)
            batch = (mine, np.int32(total))
        data = tf.data.Dataset.from_tensors(batch)
        return data.repeat(self.size(split) // total)


def train(name: str, steps: int, rounds: int, folder: Path) -> None:
    """One rank, or the only process: after each epoch, print its speed and wait for a line."""
    from ostinato.sketches.models import conv_bilstm
    from ostinato.task import Record, TrainingContext
    from ostinato.training import losses, trainer
    from ostinato.training.machine import this_machine
    from ostinato.training.runtime import runtime
    from ostinato.translation.models import transformer

    setup = (SETUPS | TOY)[name]
    data: Any = Random(setup, steps)
    loss: Any = losses.token_crossentropy if setup.vocab_size else "sparse_categorical_crossentropy"

    def on_epoch(record: Record) -> None:
        print(json.dumps([record["sequences_per_second"], parameters]), flush=True)
        sys.stdin.readline()

    with runtime(1, this_machine(), precision="float32"):
        model = (transformer if setup.vocab_size else conv_bilstm).build(data, **setup.build)
        parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        trainer.fit(
            model,
            data,
            TrainingContext(folder, 1, on_epoch),
            epochs=rounds + 1,
            batch_size=setup.batch_size,
            loss=loss,
            metrics=[],
            optimizer="adam",
            learning_rate=1e-5,
            schedule="constant",
            warmup_fraction=0.0,
            clip_norm=9.0,
            monitor="loss",
            patience=rounds + 1,
        )


def start(
    stack: ExitStack, arguments: Sequence[str], folder: Path, ranks: int
) -> Callable[[], list[float]]:
    """Start a side; the returned function runs a round: examples/s and parameters."""
    with ExitStack() as ports:
        sockets = [
            ports.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(ranks)
        ]
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": str(2 // ranks)}
    processes = []
    for rank in range(ranks):
        task = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": rank}}
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.ranks", *arguments, str(folder / str(ranks))],
            env={
                **os.environ,
                **threads,
                "TF_CONFIG": json.dumps(task),
                "OSTINATO_FOLDERS": str(folder),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        processes.append(process)
    first = processes[0]
    begun = False

    def run_round() -> list[float]:
        nonlocal begun
        if begun:
            print(file=first.stdin, flush=True)
        begun = True
        assert first.stdout
        line = first.stdout.readline()
        if not line:
            raise SystemExit(f"bench: {ranks} ranks of {arguments} have ended early")
        return list(json.loads(line))

    return run_round


def loopback_bytes() -> int:
    """Bytes that the loopback device has sent since the machine started."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (counts,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("lo:"))
    return int(counts[8])


def seconds_of(bytes_sent: float, ranks: int, gigabits: float, latency_s: float) -> float:
    """The ring all-reduces of a step: the gradient, and two of a few numbers."""
    transfer = 2 * (ranks - 1) / ranks * bytes_sent / (gigabits * 1e9 / 8)
    return transfer + 3 * 2 * (ranks - 1) * latency_s


def measure(name: str, steps: int, rounds: int) -> tuple[float, int]:
    """Print the speed and the bytes of a model; return examples/s of one process, and weights."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arguments = ["--side", name, "--steps", str(steps), "--rounds", str(rounds), "--folder"]
        one, two = (start(stack, arguments, Path(folder), ranks) for ranks in (1, 2))
        for _ in range(rounds + 1):
            found["one"].append(one()[0])
            before = loopback_bytes()
            speed, parameters = two()
            found["bytes"].append((loopback_bytes() - before) / steps)
            found["two"].append(speed)
    one_, two_, sent = (np.array(found[side][1:]) for side in ("one", "two", "bytes"))
    gradient = 4 * int(parameters)
    print(
        f"{name}: {int(parameters):,} weights; one process {np.median(one_):.1f} examples/s, two "
        f"ranks {np.median(two_):.1f} (ratio {np.median(two_ / one_):.2f}); {np.median(sent):,.0f} "
        f"bytes a step, {np.median(sent) / gradient:.2f} gradients of {gradient:,} bytes"
    )
    return float(np.median(one_)), int(parameters)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or one process of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=8, help="machines of the calculation")
    parser.add_argument("--latency", type=float, default=LATENCY_S, help="seconds of a message")
    parser.add_argument("--only", help="the models whose names begin so")
    parser.add_argument("--toy", action="store_true", help="a tiny model, to try this script")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.side:
        train(args.side, args.steps, args.rounds, args.folder)
        return
    for name, setup in (TOY if args.toy else SETUPS).items():
        if not name.startswith(args.only or ""):
            continue
        speed, parameters = measure(name, args.steps, args.rounds)
        for gigabits in GIGABITS:
            seconds = seconds_of(4 * parameters, args.ranks, gigabits, args.latency)
            part = setup.batch_size / args.ranks / speed
            print(
                f"    calculated, {args.ranks} machines, {gigabits} Gbit/s: {seconds * 1000:.2f} "
                f"ms of communication a step; as long as the computation of {seconds * speed:.1f} "
                f"examples on each machine; the batch of {setup.batch_size} would be "
                f"{setup.batch_size / speed / (part + seconds):.1f} times as fast, a batch of as "
                f"many on each machine {args.ranks / (1 + seconds * speed / setup.batch_size):.1f}"
            )


if __name__ == "__main__":
    main()
