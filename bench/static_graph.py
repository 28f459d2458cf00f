"""A static against a dynamic graph: a recurrent network with and without `unroll`, by length.

    python -m bench run static_graph [--lengths 10,30,100,300,1000] [--units 64] [--steps 20]

Each case trains in a process of its own. Built: the seconds until the first training step is done,
which include tracing and the optimisation of the graph. The memory is the peak of the process
without that of importing TensorFlow. Both graphs compute the same loss.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCHMARK = {
    "measures": "unrolled against looped recurrent layers: build time, memory, step time by length",
    "minutes": 10,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="10,30,100,300,1000", help="steps of a sequence")
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.case:
        print(json.dumps(measure(*json.loads(args.case))))
        return
    for length in map(int, args.lengths.split(",")):
        losses = []
        for unroll in (False, True):
            case = json.dumps([length, unroll, args.units, args.batch_size, args.steps])
            command = [sys.executable, "-m", "bench.static_graph", "--case", case]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path.cwd()
            )
            found = json.loads(done.stdout.splitlines()[-1])
            losses.append(found["loss"])
            print(
                f"{length} steps, {'static' if unroll else 'dynamic'}: built in "
                f"{found['built']:.1f} s, {found['step_ms']:.1f} ms/step, {found['mib']:.0f} MiB, "
                f"loss {found['loss']:.6f}",
                flush=True,
            )
        if abs(losses[0] - losses[1]) > 1e-4 * abs(losses[0]):
            raise SystemExit(f"the losses differ: {losses}")


def measure(length: int, unroll: bool, units: int, batch_size: int, steps: int) -> dict[str, Any]:
    """Train on one batch of random numbers."""
    from ostinato.training.imports import import_keras_quietly

    import_keras_quietly()
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    x = tf.constant(random.normal(size=(batch_size, length, 2)), tf.float32)
    y = tf.reduce_mean(x, axis=(1, 2))[:, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    inputs = keras.Input((length, 2))
    states = keras.layers.GRU(units, unroll=unroll)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(states))
    optimizer = keras.optimizers.Adam(0.001)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    train()
    built = time.perf_counter() - start
    middle = time.perf_counter()
    for _ in range(steps):
        loss = train()
    step_ms = 1e3 * (time.perf_counter() - middle) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = (peak - before) / 1024
    return {"built": built, "step_ms": step_ms, "mib": mib, "loss": float(loss)}


if __name__ == "__main__":
    main()
