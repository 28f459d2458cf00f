"""Training speed of `conv_bilstm` at the paper's size, in ostinato/s, against its peers.

    python -m bench.training --drawings FOLDER --torch-python TORCH/bin/python

Ours is `ostinato.training.trainer.fit` on the batches of `examples.load`, everything included. Against it:
- the same model in plain Keras (`Model.fit`), all drawings padded to the longest;
- PyTorch on the very batches of ours (`bench/torch_peer.py`), with its default allocator; with
  glibc told to keep its memory; and with each library of `--preload` (tcmalloc, jemalloc).
All sides use as many threads and take turns, round by round; the first round warms up. Medians
over the rounds, and the medians of ours over each other side in the same round.

FOLDER holds ndjson files of simplified drawings (default: embedded ones, shorter than people's).
An environment for PyTorch: `python3.11 -m venv TORCH && TORCH/bin/pip install torch==2.13.0 numpy`.
Without `--torch-python` its side is left out.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ostinato import store
from ostinato.sketches import dataset, sources
from ostinato.sketches.models import conv_bilstm
from ostinato.task import TrainingContext
from ostinato.training import runtime, trainer

PAPER: dict[str, Any] = {
    "filters": [48, 64, 96],
    "kernel_sizes": [5, 5, 3],
    "units": 128,
    "num_layers": 3,
    "dropout": 0.3,
}
KEPT = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
PADDED = 2  # batches of the padded side in a round: all of them cost the same


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drawings", type=Path, help="folder of simplified ndjson")
    parser.add_argument("--torch-python", help="interpreter that has torch")
    parser.add_argument("--preload", action="append", default=[], help="allocator for PyTorch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory() as folder,
        runtime.runtime(1, precision="float32", devices=1, intra_op=1, inter_op=threads),
    ):
        data = prepared(Path(folder), args.drawings)
        sides = {"plain Keras, padded to the longest": padded(data, args.batch)}
        if args.torch_python:
            file = Path(folder, "batches.npz")
            shape = bucketed(file, data, args.batch)
            print(f"{data.size('train')} drawings in {len(data.classes)} classes, {shape}")
            peers = {"default allocator": {}, "keeps its memory": KEPT}
            peers |= {Path(library).name: {"LD_PRELOAD": library} for library in args.preload}
            for name, variables in peers.items():
                command = [args.torch_python, "bench/torch_peer.py", str(file)]
                command += [str(len(data.classes)), str(threads)]
                sides[f"PyTorch, length buckets, {name}"] = peer(command, variables, data)
        report(race(data, Path(folder, "checkpoints"), args.batch, args.rounds, sides))


def prepared(folder: Path, drawings: Path | None) -> Any:
    """The drawings as the pipeline prepares them."""
    raw, scratch, ready = (folder / name for name in ("raw", "scratch", "ready"))
    for path in (raw, scratch, ready):
        path.mkdir()
    if drawings:
        sources.folder(raw, scratch, 1, path=str(drawings), form="simplified", label="file")
    else:
        sources.doodles(raw, scratch, 1, categories="all", per_class=100)
    dataset.prepare(
        raw,
        ready,
        tolerated_rejects=0.01,
        validation=0.05,
        test=0.0,
        max_points=10_000,
        only_recognised=False,
        shard_size=100_000,
        workers=1,
    )
    return dataset.load(ready)


def race(
    data: Any, checkpoints: Path, batch: int, rounds: int, sides: dict[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Sequences/s of every side in every round but the first; ours trains, the others cut in."""
    speeds = defaultdict(list)

    def on_epoch(record: trainer.Record) -> None:
        speeds["ours"].append(float(record["sequences_per_second"]))
        for name, side in sides.items():
            speeds[name].append(side())

    trainer.fit(
        conv_bilstm.build(data, **PAPER),
        data,
        TrainingContext(checkpoints, 1, on_epoch),
        epochs=rounds + 1,
        batch_size=batch,
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
    return {name: found[1:] for name, found in speeds.items()}


def padded(data: Any, batch: int) -> Callable[[], float]:
    """A round of plain Keras on batches as long as the longest drawing."""
    drawings = data.examples("train")
    longest = max(range(len(drawings)), key=lambda i: len(drawings[i]))
    chosen = [longest, *range(batch * PADDED - 1)]
    x, y = data.pad([drawings[i] for i in chosen]), drawings.labels[chosen]

    def plain(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Bidirectional):
            lstm = keras.layers.LSTM.from_config(layer.forward_layer.get_config())
            return keras.layers.Bidirectional(lstm)
        return layer.__class__.from_config(layer.get_config())

    model = keras.models.clone_model(conv_bilstm.build(data, **PAPER), clone_function=plain)
    optimizer = keras.optimizers.Adam(1e-3, global_clipnorm=9.0)
    model.compile(optimizer, "sparse_categorical_crossentropy")

    def epoch() -> float:
        began = time.perf_counter()
        model.fit(x, y, batch_size=batch, verbose=0)
        return len(x) / (time.perf_counter() - began)

    return epoch


def bucketed(file: Path, data: Any, batch: int) -> str:
    """Write an epoch's batches for PyTorch; says how they look."""
    batches = list(data.batches("train", batch_size=batch, seed=1, epoch=1).as_numpy_iterator())
    arrays = {f"x{i}": x for i, (x, _) in enumerate(batches)}
    store.write_arrays(file, arrays | {f"y{i}": y for i, (_, y) in enumerate(batches)})
    points = sum(int(x.any(axis=-1).sum()) for x, _ in batches)
    full = points / sum(x.shape[0] * x.shape[1] for x, _ in batches)
    return f"{points / data.size('train'):.0f} points on average, batches {full:.0%} full"


def peer(command: list[str], variables: dict[str, str], data: Any) -> Callable[[], float]:
    """A round of PyTorch, in a process that waits between rounds."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answers = process.stdout
    assert answers

    def epoch() -> float:
        print(file=process.stdin, flush=True)
        return float(data.size("train")) / float(answers.readline())

    return epoch


def report(speeds: dict[str, list[float]]) -> None:
    """Print medians, the best rounds (what others on the machine disturb least), and ratios."""
    for name, found in speeds.items():
        ratio = np.median(np.divide(speeds["ours"], found))
        print(
            f"{np.median(found):8.0f} ostinato/s (best {max(found):.0f})  "
            f"ours is {ratio:5.2f} times as fast  {name}"
        )


if __name__ == "__main__":
    main()
