"""Training speed of `conv_bilstm` at the paper's size, in drawings per second, against its peers.

    python -m bench.training --drawings FOLDER --torch-python TORCH/bin/python

Our side is `ostinato.training.trainer.fit` on the batches of the data set, everything included. It
runs against:

- the same model in plain Keras (`Model.fit`), all drawings padded to the longest;
- PyTorch on the same batches (`bench/torch_peer.py`) with its default allocator, with glibc told to
  keep its memory, and with each library of `--preload` (tcmalloc, jemalloc).

All sides use the same number of threads and take turns in every round. The first round warms up.
The report has medians over the rounds, and the median ratio of our speed to each side's in the same
round.

FOLDER holds ndjson files of simplified drawings (default: generated ones, which are shorter than
people's). `python -m bench run training` installs PyTorch. Without `--torch-python` it is left out.
"""

import argparse
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float, Integer

from ostinato import store
from ostinato.sketches import dataset, sources
from ostinato.sketches.models import conv_bilstm
from ostinato.task import Record, TrainingContext
from ostinato.training import trainer
from ostinato.training.machine import Machine
from ostinato.training.runtime import runtime

BENCHMARK = {
    "measures": (
        "training `conv_bilstm` at the tutorial's size, in drawings/s, against Keras and PyTorch"
    ),
    "minutes": 30,
    "peers": {"--torch-python": "torch"},
}

PAPER: dict[str, Any] = {
    "filters": [48, 64, 96],
    "kernel_sizes": [5, 5, 3],
    "units": 128,
    "num_layers": 3,
    "dropout": 0.3,
}
TOY: dict[str, Any] = {**PAPER, "filters": [4, 4, 4], "units": 4, "num_layers": 1}
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
PADDED_BATCHES = 2  # of the padded side in a round: all its batches cost the same

Side = Callable[[], float]
"""One round of a side: its speed in drawings per second."""

Batches = list[tuple[Float[np.ndarray, "batch point 3"], Integer[np.ndarray, " batch"]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark with the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drawings", type=Path, help="folder of simplified ndjson")
    parser.add_argument("--per-class", type=int, default=100, help="generated drawings per class")
    parser.add_argument("--torch-python", help="interpreter that has torch")
    parser.add_argument("--preload", action="append", default=[], help="allocator for PyTorch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--toy", action="store_true", help="a tiny model, to try this script")
    args = parser.parse_args(arguments)
    model_params, threads = TOY if args.toy else PAPER, len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = stack.enter_context(store.temporary_folder())
        stack.enter_context(runtime(1, Machine(intra_op=1, inter_op=threads), precision="float32"))
        data = prepare(folder, args.drawings, args.per_class)
        stream = data.batches("train", batch_size=args.batch_size, seed=1, epoch=1)
        batches: Batches = list(stream.as_numpy_iterator())
        model = conv_bilstm.build(data, **model_params)
        num_classes = model.output_shape[-1]
        print(f"{data.size('train')} drawings in {num_classes} classes, {describe(batches)}")
        sides = {"plain Keras, padded to the longest": keras_side(model, batches, args.batch_size)}
        if args.torch_python:
            file = folder / "batches.npz"
            arrays = {f"x{i}": x for i, (x, _) in enumerate(batches)}
            store.write_arrays(file, arrays | {f"y{i}": y for i, (_, y) in enumerate(batches)})
            allocators = {"default allocator": {}, "keeps its memory": KEEP_MEMORY}
            allocators |= {Path(name).name: {"LD_PRELOAD": name} for name in args.preload}
            command = [args.torch_python, "bench/torch_peer.py", str(file)]
            command += [str(num_classes), str(threads)]
            for name, variables in allocators.items():
                process = stack.enter_context(start(command, variables))
                side = torch_side(process, data.size("train"))
                sides[f"PyTorch, length buckets, {name}"] = side
        report(race(model, data, folder / "checkpoints", args.batch_size, args.rounds, sides))


def prepare(folder: Path, drawings: Path | None, per_class: int) -> Any:
    """A data set of the drawings, prepared as the pipeline does."""
    raw, scratch, prepared = (folder / name for name in ("raw", "scratch", "prepared"))
    for path in (raw, scratch, prepared):
        path.mkdir()
    if drawings:
        sources.folder(raw, scratch, 1, path=str(drawings), form="simplified", label="file")
    else:
        sources.doodles(raw, scratch, 1, categories="all", per_class=per_class)
    dataset.prepare(
        raw,
        prepared,
        tolerated_rejects=0.01,
        validation=0.05,
        test=0.0,
        max_points=10_000,
        only_recognised=False,
        shard_size=100_000,
        workers=1,
    )
    return dataset.load(prepared)


def race(
    model: keras.Model,
    data: Any,
    checkpoints: Path,
    batch_size: int,
    rounds: int,
    sides: dict[str, Side],
) -> dict[str, list[float]]:
    """Drawings per second of every side in every round but the first.

    Our training runs all rounds; after each of its epochs the other sides run one round.
    """
    speeds = defaultdict(list)

    def on_epoch(record: Record) -> None:
        speeds["ours"].append(float(record["sequences_per_second"]))
        for name, side in sides.items():
            speeds[name].append(side())

    trainer.fit(
        model,
        data,
        TrainingContext(checkpoints, 1, on_epoch),
        epochs=rounds + 1,
        batch_size=batch_size,
        loss="sparse_categorical_crossentropy",
        metrics=[],
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        warmup_fraction=0.0,
        clip_norm=9.0,
        monitor="loss",
        patience=rounds + 1,
    )
    return {name: values[1:] for name, values in speeds.items()}


def keras_side(model: keras.Model, batches: Batches, batch_size: int) -> Side:
    """Plain Keras on batches that are padded to the longest drawing."""
    longest = max(x.shape[1] for x, _ in batches)
    examples = [(row, label) for x, y in batches for row, label in zip(x, y, strict=True)]
    examples = examples[: batch_size * PADDED_BATCHES]
    x = np.zeros((len(examples), longest, 3), np.float32)
    for target, (row, _) in zip(x, examples, strict=True):
        target[: len(row)] = row
    y = np.array([label for _, label in examples])

    def keras_layer(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Bidirectional):
            lstm = keras.layers.LSTM.from_config(layer.forward_layer.get_config())
            return keras.layers.Bidirectional(lstm)
        return layer.__class__.from_config(layer.get_config())

    plain = keras.models.clone_model(model, clone_function=keras_layer)
    optimizer = keras.optimizers.Adam(1e-3, global_clipnorm=9.0)
    plain.compile(optimizer, "sparse_categorical_crossentropy")

    def run_round() -> float:
        start = time.perf_counter()
        plain.fit(x, y, batch_size=batch_size, verbose=0)
        return len(x) / (time.perf_counter() - start)

    return run_round


def describe(batches: Batches) -> str:
    """Mean length of the drawings, and the share of points in the batches that is not padding."""
    points = sum(int(x.any(axis=-1).sum()) for x, _ in batches)
    drawings = sum(len(x) for x, _ in batches)
    full = points / sum(x.shape[0] * x.shape[1] for x, _ in batches)
    return f"{points / drawings:.0f} points on average, batches {full:.0%} full"


def start(command: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    """A process that waits for a line on its standard input before every round."""
    return subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def torch_side(process: subprocess.Popen[str], num_drawings: int) -> Side:
    """PyTorch on all batches, in the process of `bench/torch_peer.py`."""
    replies = process.stdout
    assert replies

    def run_round() -> float:
        print(file=process.stdin, flush=True)
        return num_drawings / float(replies.readline())

    return run_round


def report(speeds: dict[str, list[float]]) -> None:
    """Print each side's median, best round (the least disturbed one) and ratio."""
    for name, values in speeds.items():
        ratio = np.median(np.divide(speeds["ours"], values))
        print(
            f"{np.median(values):8.0f} drawings/s (best {max(values):.0f})  "
            f"ours is {ratio:5.2f} times as fast  {name}"
        )


if __name__ == "__main__":
    main()
