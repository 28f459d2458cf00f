"""A model on one device, and its layers on two devices with micro-batches: step time and memory.

    python -m bench.placement

Two models: a stack of LSTMs (`rnn` of drawings) and the `transformer` of translation, on random
batches. Each row is a process of its own, as devices and threads cannot be changed later:

- one device with 1 and with 2 threads, without placement;
- one device with micro-batches, which shows what the micro-batches cost;
- two logical CPU devices, each with half of the layers, and 1 to 8 micro-batches.

The rows take turns in each round. Columns, medians over the rounds: milliseconds of a training
step; the expected time (that of one device and thread, divided by the K devices, times 1 + (K -
1) / M for M micro-batches); the ratio to one device with 2 threads in the same round; seconds
until the first step has run (tracing and compiling). The part (K - 1) / (M + K - 1) of the
expected time is the pipeline's bubble (Huang et al. 2019). Memory by device: weights, the
optimiser's variables, and the values that the forward pass of the batch keeps for the backward
pass; then the peak of the process.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

BENCHMARK = {
    "measures": (
        "training a deep LSTM and a transformer with layers on two devices: step time, memory"
    ),
    "minutes": 15,
}

SIZES: dict[str, dict[str, int]] = {
    "paper": {"layers": 4, "units": 256, "length": 60, "batch": 64, "vocabulary": 4000},
    "toy": {"layers": 2, "units": 8, "length": 6, "batch": 8, "vocabulary": 20},
}
# name of the model -> the first layers on device 1
SECOND_HALF = {
    "lstm": lambda layers: {f"lstm_{layers // 2}": 1},
    "transformer": lambda layers: {
        "target_embedding": 0,
        "decoder_*": 1,
        "memory": 1,
        "output_norm": 1,
        "*": 0,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12, help="that are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=SECOND_HALF, default=list(SECOND_HALF))
    parser.add_argument("--micro-batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--toy", action="store_true", help="a tiny size, which means nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a row, as JSON: for this process
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(**json.loads(args.measure))))
        return
    for name in args.models:
        report(name, "toy" if args.toy else "paper", args.steps, args.micro_batches, args.rounds)


def report(name: str, size: str, steps: int, micro_batches: list[int], rounds: int) -> None:
    """Measure the rows of a model in turns, and print the medians over the rounds."""
    print(f"{name}: {SIZES[size]}", flush=True)
    rows: list[tuple[int, int, int | None]] = [(1, 1, None), (1, 2, None)]
    rows += [(1, 2, count) for count in micro_batches if count > 1]
    rows += [(2, 2, count) for count in micro_batches]
    found: dict[Any, list[dict[str, Any]]] = {row: [] for row in rows}
    for _ in range(rounds):
        for devices, threads, count in rows:
            row = {"name": name, "size": size, "steps": steps, "devices": devices}
            row |= {"threads": threads, "micro_batches": count}
            command = [sys.executable, "-m", "bench.placement", "--measure", json.dumps(row)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[devices, threads, count].append(json.loads(done.stdout.splitlines()[-1]))
    alone = statistics.median(one["step"] for one in found[rows[0]])
    for (devices, threads, count), measured in found.items():
        expected = ""
        if devices > 1 and count:
            expected = f", expected {1e3 * alone / devices * (1 + (devices - 1) / count):.0f}"
        memory = "; ".join(
            f"{device} {', '.join(f'{kind} {value / 1e6:.1f}' for kind, value in kinds.items())}"
            for device, kinds in measured[0]["memory"].items()
        )
        step, first, peak = (
            statistics.median(one[key] for one in measured) for key in ("step", "first", "peak")
        )
        ratios = [
            one["step"] / plain["step"] for one, plain in zip(measured, found[rows[1]], strict=True)
        ]
        print(
            f"  {devices} device(s), {threads} thread(s), {count or 'no'} micro-batches: "
            f"{1e3 * step:.0f} ms{expected}, {statistics.median(ratios):.2f} times that of one "
            f"device; first step {first:.0f} s; MB: {memory}; process {peak / 1e6:.0f}",
            flush=True,
        )


def measure(
    name: str, size: str, steps: int, devices: int, threads: int, micro_batches: int | None
) -> dict[str, Any]:
    """The figures of one row."""
    from ostinato.training.imports import import_keras_quietly

    import_keras_quietly()
    import tensorflow as tf

    from ostinato.task import Placement
    from ostinato.training.machine import Machine
    from ostinato.training.placement import PipelinedStep, one_copy, place, usage
    from ostinato.training.runtime import runtime
    from ostinato.training.steps import SupervisedStep

    machine = one_copy(Machine(devices=devices, intra_op=1, inter_op=threads))
    with runtime(1, machine, precision="float32"):
        shape = SIZES[size]
        model, batch, loss = (lstm if name == "lstm" else transformer)(**shape)
        options: dict[str, Any] = {
            "loss": loss,
            "metrics": [],
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "clip_norm": 1.0,
        }
        if micro_batches is None:
            step = SupervisedStep(model, **options)
        else:
            layers = SECOND_HALF[name](shape["layers"]) if devices > 1 else {"*": 0}
            placement = Placement(layers=layers, micro_batches=micro_batches)
            model = place(model, placement, devices)
            step = PipelinedStep(model, placement, shape["batch"], **options)
        run = tf.function(step.train, autograph=False)
        start = time.perf_counter()
        run(batch)["loss"][0].numpy()
        first = time.perf_counter() - start
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            run(batch)["loss"][0].numpy()
            seconds.append(time.perf_counter() - start)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kept = activations(model, batch)
        memory = {
            device: {
                "weights": used.weights,
                "optimiser": used.optimizer,
                "activations": kept[device],
            }
            for device, used in usage(model, step.optimizers[0]).items()
        }
        return {
            "step": statistics.median(seconds),
            "first": first,
            "memory": memory,
            "peak": peak,
        }


def activations(model: Any, batch: Any) -> dict[str, int]:
    """Bytes that the forward pass keeps for the backward pass, by device.

    Counted outside of a graph, where each value is an object of Python.
    """
    import tensorflow as tf

    def values() -> dict[int, Any]:
        gc.collect()
        return {id(x): x for x in gc.get_objects() if isinstance(x, tf.Tensor)}

    before = values()
    with tf.GradientTape() as tape:
        outputs = model(batch[0], training=True)
    found: dict[str, int] = defaultdict(int)
    for key, value in values().items():
        if key not in before and value.dtype.size:  # a list of tensors has no size of its own
            device = value.backing_device.rpartition("/device:")[2]
            found[device] += value.shape.num_elements() * value.dtype.size
    del tape, outputs
    return found


def lstm(layers: int, units: int, length: int, batch: int, **_: int) -> tuple[Any, Any, str]:
    """A stack of LSTMs, a batch of random drawings, and the loss."""
    import numpy as np
    import tensorflow as tf

    from ostinato.sketches.models import rnn

    data: Any = SimpleNamespace(kind="strokes", classes=list("abcdefghij"))
    model = rnn.build(
        data,
        cell="lstm",
        units=units,
        num_layers=layers,
        bidirectional=False,
        pooling="last",
        dropout=0.2,
        weight_decay=0.0,
    )
    generator = np.random.default_rng(1)
    x = generator.normal(size=(batch, length, 3)).astype("float32")
    y = generator.integers(10, size=batch).astype("int32")
    return model, (tf.constant(x), tf.constant(y)), "sparse_categorical_crossentropy"


def transformer(
    layers: int, units: int, length: int, batch: int, vocabulary: int
) -> tuple[Any, Any, str]:
    """The transformer, a batch of random pairs, and the loss."""
    import numpy as np
    import tensorflow as tf

    from ostinato.translation.models import transformer as module

    data: Any = SimpleNamespace(vocab_sizes=(vocabulary, vocabulary), shared_vocabulary=False)
    model = module.build(
        data,
        units=units,
        num_heads=4,
        feedforward_units=4 * units,
        num_layers=layers,
        dropout=0.1,
        word_dropout=0.0,
    )
    tokens = np.random.default_rng(1).integers(4, vocabulary, size=(3, batch, length // 2))
    source, before, y = (tf.constant(part.astype("int32")) for part in tokens)
    return model, ({"source": source, "before": before}, y), "token_crossentropy"


if __name__ == "__main__":
    main()
