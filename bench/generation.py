"""SketchRNN: training against PyTorch, and drawing in one graph against loops in Python.

    python -m bench.generation [--data PREPARED] [--steps 40] [--rounds 5] [--python TORCH/python]
        [--units 128,256] [--latent 32] [--dropout 0.1] [--drawings 1000] [--threads 2]

Runs in a checkout in which `dvc repro recipes/generation/dvc.yaml` has prepared the drawings, or on
the prepared data set --data.

- training: in each round both sides train on the same batches (of 100 drawings, of similar lengths)
  from the same initial weights, so that the losses can be compared; the noise of the latent vector
  and of the dropout is each side's own. PyTorch (bench/generation_peer.py) gets a glibc that keeps
  freed memory, which makes it faster. With --dropout 0 its loops are those of nn.LSTM.
- drawing: --drawings by one graph; by Keras layers with the same weights that a loop in Python
  calls for each row of all drawings; and by the same loop for one drawing after the other (of 10
  drawings, the rate is theirs). All get the same random numbers; the drawings must be equal up to
  rounding.

The sides take turns; the first round is a warm-up. Prints medians, and medians of the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato.generation import dataset
from ostinato.generation.formats.drawings import START, from_stroke5
from ostinato.generation.formats.mixture import draw
from ostinato.generation.layers import Generator, RecurrentGenerator, VariationalStep
from ostinato.generation.models import sketch_rnn
from ostinato.task import Manifest
from ostinato.training import runtime
from ostinato.training.machine import Machine

BENCHMARK = {
    "measures": (
        "SketchRNN: training against PyTorch in drawings/s and loss; drawing in one graph against "
        "loops in Python"
    ),
    "minutes": 10,
    "needs": "prepared drawings of recipes/generation, or --data",
    "peers": {"--python": "torch"},
}

BATCH_SIZE = 100
FIT: dict[str, float] = {
    "learning_rate": 0.001,
    "clip_norm": 1.0,
    "kl_weight": 0.5,
    "kl_tolerance": 0.2,
}
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("recipes/generation/data/generation")
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", help="interpreter that has torch; default: no PyTorch")
    parser.add_argument("--units", default="128,256", help="of encoder and decoder")
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.1, help="recurrent")
    parser.add_argument("--drawings", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--toy", action="store_true", help="random drawings, to try this script")
    args = parser.parse_args()
    data = Toy() if args.toy else dataset.load(args.data)
    encoder_units, decoder_units = map(int, args.units.split(","))
    with runtime.runtime(
        1, Machine(intra_op=args.threads, inter_op=args.threads), precision="float32"
    ):
        network = sketch_rnn.build(
            data,
            cell="lstm",
            encoder_units=encoder_units,
            decoder_units=decoder_units,
            latent_size=args.latent,
            mixtures=20,
            conditioning="both",
            class_conditional=True,
            recurrent_dropout=args.dropout,
        )
        drawing(Generator(network), data, args.drawings, args.rounds)
        training(network, data, args)


class Toy(dataset.Dataset):
    """Random drawings."""

    def __init__(self) -> None:
        details = {"scale": 40.0, "longest": 20}
        splits = {"train": {"drawings": 200}}
        super().__init__(Path(), Manifest("toy", "drawings", splits, ["a", "b"], details))

    def examples(self, split: str) -> dataset.Drawings:
        """The drawings, whatever the split."""
        random = np.random.default_rng(1)
        ends = np.cumsum(random.integers(5, 21, self.size("train")))
        points = random.integers(-40, 40, (ends[-1], 3)).astype(np.int16)
        points[:, 2] = random.random(ends[-1]) < 0.2
        labels = np.arange(len(ends), dtype=np.int32) % 2
        return dataset.Drawings(points, ends, labels, labels.astype(str))


def training(network: RecurrentGenerator, data: dataset.Dataset, args: Any) -> None:
    """Train by turns; print rates and losses."""
    found = data.batches("train", batch_size=BATCH_SIZE, seed=1, epoch=1)
    batches = list(found.repeat().take(args.steps).as_numpy_iterator())
    count = sum(len(labels) for _, labels in batches)
    step = VariationalStep(network, optimizer="adam", **FIT)
    update = tf.function(
        lambda batch: tf.distribute.get_strategy().run(step.train, args=(batch,)),
        input_signature=[(tf.TensorSpec((None, None, 5)), tf.TensorSpec((None,), tf.int32))],
    )
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if args.python:
            file = Path(folder, "inputs.npz")
            write_inputs(file, network, batches)
            peer = subprocess.Popen(
                [args.python, "bench/generation_peer.py", str(file), str(args.threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **KEEP_MEMORY},
            )  # fmt: skip
        seconds: dict[str, list[float]] = {"ostinato": [], "PyTorch": []}
        for number in range(args.rounds + 1):
            start = time.perf_counter()
            sums = [update(batch) for batch in batches]
            means = [
                float(np.mean([float(s[name][0] / s[name][1]) for s in sums]))
                for name in ("reconstruction", "kl")
            ]
            sides: dict[str, list[float]] = {"ostinato": [time.perf_counter() - start, *means]}
            if peer and peer.stdin and peer.stdout:
                peer.stdin.write("\n")
                peer.stdin.flush()
                sides["PyTorch"] = json.loads(peer.stdout.readline())
            for name, (spent, reconstruction, kl) in sides.items():
                if number:
                    seconds[name].append(spent)
                print(
                    f"round {number}: {name} {count / spent:,.0f} drawings/s, "
                    f"L_R {reconstruction:.4f}, L_KL {kl:.4f}, loss "
                    f"{reconstruction + FIT['kl_weight'] * max(kl, FIT['kl_tolerance']):.4f}",
                    flush=True,
                )
        if peer and peer.stdin:
            peer.stdin.close()
            peer.wait()
            pairs = zip(seconds["PyTorch"], seconds["ostinato"], strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            print(f"training against PyTorch: {ratio:.2f} times")


def write_inputs(file: Path, network: RecurrentGenerator, batches: list[Any]) -> None:
    """The initial weights, the batches and the settings, for the peer."""
    arrays: dict[str, Any] = {
        "w " + w.path.replace("/", "."): np.asarray(w) for w in network.weights
    }
    settings = {**network.settings, **FIT, "steps": len(batches)}
    for i, (rows, labels) in enumerate(batches):
        arrays |= {f"rows {i}": rows, f"labels {i}": labels}
    np.savez(file, **arrays, settings=np.array(json.dumps(settings)))


def drawing(generator: Generator, data: dataset.Dataset, count: int, rounds: int) -> None:
    """Draw by turns; print rates."""
    labels = np.arange(count) % len(data.classes)
    seeds, heat = list(range(count)), np.full(count, 0.5, np.float32)
    few = min(10, count)
    loop = KerasLoop(generator.network)

    def by_loop(numbers: np.ndarray) -> list[np.ndarray]:
        latent, noise = generator._noise([seeds[i] for i in numbers], data.longest)
        return loop.draw(labels[numbers], latent, noise, heat[numbers])

    sides = {
        "one graph": lambda: generator.draw(labels, seeds, heat),
        "a loop over rows, all drawings at once": lambda: by_loop(np.arange(count)),
        "a loop over rows, drawing by drawing": lambda: [
            by_loop(np.array([i]))[0] for i in range(few)
        ],
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        results = {}
        for name, side in sides.items():
            start = time.perf_counter()
            results[name] = side()
            rate = len(results[name]) / (time.perf_counter() - start)
            if number:
                rates[name].append(rate)
        graph, *others = results.values()
        for other in others:
            same = np.mean([np.array_equal(a, b) for a, b in zip(graph, other, strict=False)])
            assert same > 0.9, f"only {same:.0%} of the drawings are equal"
    for name, each in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["one graph"], each, strict=True))
        print(f"{name}: {statistics.median(each):,.0f} drawings/s; one graph: {ratio:.1f} times")


class KerasLoop:
    """The decoder as layers of Keras, called row by row from Python."""

    def __init__(self, network: RecurrentGenerator) -> None:
        own = network.cell
        self.network = network
        self.cell = keras.layers.LSTMCell(own.units)
        self.cell.build((None, 5 + network.latent_size + network.classes))
        kernel = np.concatenate([np.asarray(own.kernel), np.asarray(network.constant.kernel)])
        bias = np.asarray(own.bias).copy()
        bias[own.units : 2 * own.units] += 1
        self.cell.set_weights([kernel, np.asarray(own.recurrent), bias])

    def draw(self, labels: Any, latent: Any, noise: Any, heat: Any) -> list[np.ndarray]:
        """Draw rows until all drawings have ended."""
        network, scale = self.network, self.network.scale
        condition = np.concatenate([latent, np.eye(network.classes)[labels]], 1).astype(np.float32)
        h, c = np.split(network.initial(condition).numpy(), 2, axis=1)
        state: Any = [h, c]
        row, ended, found = np.tile(START, (len(labels), 1)), np.zeros(len(labels), bool), []
        for t in range(noise.shape[1]):
            output, state = self.cell(np.concatenate([row, condition], 1), state)
            outputs = network.outputs(output)
            row = draw(outputs, noise[:, t].astype(np.float32), heat).numpy()
            row[:, :2] = np.rint(row[:, :2] * np.float32(scale)) / np.float32(scale)
            ended |= row[:, 4] > 0
            row[ended] = (0, 0, 0, 0, 1)
            found.append(row)
            if ended.all():
                break
        drawn = from_stroke5(np.stack(found, axis=1), scale)
        return [np.rint(rows).astype(np.int16) for rows in drawn]


if __name__ == "__main__":
    main()
