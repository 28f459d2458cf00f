"""Clips/s of `c3d` and `cnn_rnn`, in training and inference, against other implementations.

    python -m bench.video training --torch-python TORCH/bin/python
    python -m bench.video inference --torch-python TORCH/bin/python

Threads are those of the pipeline: one thread per operation in training (params.yaml), TensorFlow's
default in inference, as in the stage evaluate and in the served model. Each implementation runs
training steps (forward, backward, gradient clipping, Adam) or inference steps on the same batch of
clips in memory. Implementations alternate, in random order in each round; the first two rounds are
a warm-up. Printed are medians over the rounds, and medians of the ratio within a round. The other
implementations are:
- the same network in plain Keras: `c3d` with Keras' batch normalisation; `cnn_rnn` with one
  TimeDistributed per layer, with one TimeDistributed around the CNN, and with the frames folded
  into the batch;
- PyTorch (`bench/video_peer.py`), channels last, with glibc configured not to return memory to the
  system, and with each allocator of `--preload`.

`python -m bench run video` installs PyTorch. Without `--torch-python` it is left out.
"""

import argparse
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ostinato.training import runtime
from ostinato.training.machine import Machine
from ostinato.video.models import c3d, cnn_rnn

BENCHMARK = {
    "measures": "`c3d` and `cnn_rnn`, in clips/s, against Keras and PyTorch",
    "minutes": 10,
    "needs": "the argument training or inference",
    "peers": {"--torch-python": "torch"},
}

SIZES = {"batch": 32, "frames": 16, "height": 32, "width": 32, "classes": 10}
FILTERS = [16, 32, 64]
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}

Sides = dict[str, Callable[[], float]]
"""Implementations by name: functions that run one step and return its seconds."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=["training", "inference"])
    parser.add_argument("--torch-python", help="interpreter that has torch")
    parser.add_argument("--preload", action="append", default=[], help="allocator for PyTorch")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    machine = Machine(intra_op=1, inter_op=threads) if args.mode == "training" else Machine()
    with runtime.runtime(1, machine, precision="float32"):
        x, y = clips()
        peers = {"channels last, keeps its memory": KEEP_MEMORY}
        peers |= {f"channels last, {Path(p).name}": {"LD_PRELOAD": p} for p in args.preload}
        for name, models in {"c3d": spatial(), "cnn_rnn": recurrent()}.items():
            sides = {title: steps(model, x, y)[args.mode] for title, model in models.items()}
            for title, variables in peers.items() if args.torch_python else ():
                sides[f"PyTorch, {title}"] = peer(
                    [args.torch_python, "bench/video_peer.py", name, args.mode, str(threads)],
                    variables,
                )
            report(f"{name}, {args.mode}", race(sides, args.rounds))


def clips() -> tuple[Any, Any]:
    """A batch of noise; all frames are real."""
    random = np.random.default_rng(0)
    shape = tuple(SIZES[name] for name in ("batch", "frames", "height", "width"))
    x = {
        "clip": tf.constant(random.random((*shape, 1), np.float32)),
        "frames": tf.fill((SIZES["batch"],), SIZES["frames"]),
    }
    return x, tf.constant(random.integers(SIZES["classes"], size=SIZES["batch"]), tf.int32)


def spatial() -> dict[str, Any]:
    """C3D: ours, and in plain Keras."""
    ours = c3d.build(
        data(), filters=FILTERS, depths=[1] * len(FILTERS), kernel_size=3, units=64, dropout=0.0
    )
    x = clip = keras.Input((SIZES["frames"], SIZES["height"], SIZES["width"], 1), name="clip")
    for stage, width in enumerate(FILTERS):
        x = layers.Conv3D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling3D((2 if stage else 1, 2, 2))(x)
    x = keras.ops.mean(layers.Reshape((x.shape[1], -1))(x), axis=1)
    x = layers.Dense(64, activation="relu")(x)
    plain = keras.Model({"clip": clip}, layers.Dense(SIZES["classes"], activation="softmax")(x))
    return {"ours": ours, "Keras": plain}


def recurrent() -> dict[str, Any]:
    """A CNN on frames and a GRU: ours, and three implementations in plain Keras."""
    ours = cnn_rnn.build(
        data(),
        backbone=None,
        weights=None,
        filters=FILTERS,
        kernel_size=3,
        features=64,
        cell="gru",
        units=64,
        num_layers=1,
        dropout=0.0,
    )

    def cnn_layers() -> list[Any]:
        blocks: list[Any] = []
        for width in FILTERS:
            blocks += [layers.Conv2D(width, 3, padding="same", use_bias=False)]
            blocks += [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
        return [*blocks, layers.Flatten(), layers.Dense(64, activation="relu")]

    shape = (SIZES["frames"], SIZES["height"], SIZES["width"], 1)

    def classifier(clip: Any, x: Any) -> Any:
        p = layers.Dense(SIZES["classes"], activation="softmax")(layers.GRU(64)(x))
        return keras.Model({"clip": clip}, p)

    each = x = keras.Input(shape, name="clip")
    for layer in cnn_layers():
        x = layers.TimeDistributed(layer)(x)
    one = keras.Input(shape, name="clip")
    whole = layers.TimeDistributed(keras.Sequential([keras.Input(shape[1:]), *cnn_layers()]))(one)
    folded = keras.Input(shape, name="clip")
    frames = keras.ops.reshape(folded, (-1, *shape[1:]))
    for layer in cnn_layers():
        frames = layer(frames)
    return {
        "ours": ours,
        "Keras, each layer TimeDistributed": classifier(each, x),
        "Keras, one TimeDistributed": classifier(one, whole),
        "Keras, frames folded": classifier(folded, keras.ops.reshape(frames, (-1, shape[0], 64))),
    }


def data() -> Any:
    """The properties of a data set that models are built for."""
    return SimpleNamespace(**{**SIZES, "classes": range(SIZES["classes"])}, channels=1)


def steps(model: Any, x: Any, y: Any) -> Sides:
    """A training step and an inference step: functions that return their seconds."""
    optimizer = keras.optimizers.Adam(1e-3, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    inputs = {name: x[name] for name in (tensor.name for tensor in model.inputs)}

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            p = model(inputs, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, p))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function
    def infer() -> Any:
        return model(inputs, training=False)

    def timed(step: Any) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            step().numpy()
            return time.perf_counter() - began

        return run

    return {"training": timed(train), "inference": timed(infer)}


def peer(command: list[str], variables: dict[str, str]) -> Callable[[], float]:
    """A step of PyTorch, in a process that waits between rounds."""
    process = subprocess.Popen(
        [*command, *(str(SIZES[name]) for name in SIZES)],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = process.stdout
    assert seconds

    def step() -> float:
        print(file=process.stdin, flush=True)
        return float(seconds.readline())

    return step


def race(sides: Sides, rounds: int) -> dict[str, list[float]]:
    """Clips/s of each implementation in each round after the warm-up."""
    speeds = defaultdict(list)
    random = np.random.default_rng(1)
    for _ in range(rounds + 2):
        # In random order, because PyTorch's threads spin for a while after their step.
        for title in random.permutation(list(sides)).tolist():
            speeds[title].append(SIZES["batch"] / sides[title]())
    return {title: values[2:] for title, values in speeds.items()}


def report(name: str, speeds: dict[str, list[float]]) -> None:
    """Print medians, best rounds (the least disturbed by other processes), and ratios."""
    for title, values in speeds.items():
        ratio = np.median(np.divide(speeds["ours"], values))
        print(
            f"{name}: {np.median(values):7.0f} clips/s (best {max(values):.0f})  "
            f"ours is {ratio:5.2f} times as fast  {title}",
            flush=True,
        )


if __name__ == "__main__":
    main()
