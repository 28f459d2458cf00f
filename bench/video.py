"""Clips/s of `cnn3d` and `cnn_rnn`, in training and at inference, against their peers.

    python -m bench.video training --torch-python TORCH/bin/python
    python -m bench.video inference --torch-python TORCH/bin/python

Threads are those of the pipeline: one within an operation in training (params.yaml), TensorFlow's
own choice at inference, as in the stage evaluate and in the served model. A side is a step of
training (forward, backward, clipping, Adam) or of inference on one batch of clips, the same for
all, from memory; sides take turns, in another order each round, and the first two rounds warm up.
Medians over the rounds, and the medians of ours over each other side in the same round. Against
ours:
- the same network in plain Keras: `cnn3d` with Keras' own batch normalisation; `cnn_rnn` with each
  layer in a TimeDistributed, with the whole network of a frame in one, and with the frames folded
  into the batch;
- PyTorch (`bench/video_peer.py`), channels last, with glibc told to keep its memory, and with each
  library of `--preload`.

An environment for PyTorch: `python3.11 -m venv TORCH && TORCH/bin/pip install torch==2.13.0 numpy`.
Without `--torch-python` its side is left out.
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
from ostinato.video.models import c3d, cnn_rnn

SIZES = {"batch_size": 32, "frames": 16, "height": 32, "width": 32, "classes": 10}
FILTERS = [16, 32, 64]
KEPT = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}

Sides = dict[str, Callable[[], float]]


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
    within, at_once = (1, threads) if args.mode == "training" else (None, None)
    with runtime.runtime(1, precision="float32", devices=1, intra_op=within, inter_op=at_once):
        x, y = clips()
        peers = {"channels last, keeps its memory": KEPT}
        peers |= {f"channels last, {Path(p).name}": {"LD_PRELOAD": p} for p in args.preload}
        for name, models in {"cnn3d": spatial(), "cnn_rnn": recurrent()}.items():
            sides = {title: steps(model, x, y)[args.mode] for title, model in models.items()}
            for title, variables in peers.items() if args.torch_python else ():
                sides[f"PyTorch, {title}"] = peer(
                    [args.torch_python, "bench/video_peer.py", name, args.mode, str(threads)],
                    variables,
                )
            report(f"{name}, {args.mode}", race(sides, args.rounds))


def clips() -> tuple[Any, Any]:
    """A batch of noise, all frames real."""
    random = np.random.default_rng(0)
    shape = tuple(SIZES[name] for name in ("batch", "frames", "height", "width"))
    x = {
        "clip_norm": tf.constant(random.random((*shape, 1), np.float32)),
        "frames": tf.fill((SIZES["batch"],), SIZES["frames"]),
    }
    return x, tf.constant(random.integers(SIZES["classes"], size=SIZES["batch"]), tf.int32)


def spatial() -> dict[str, Any]:
    """3D networks: ours, and in plain Keras."""
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
    plain = keras.Model(
        {"clip_norm": clip}, layers.Dense(SIZES["classes"], activation="softmax")(x)
    )
    return {"ours": ours, "Keras": plain}


def recurrent() -> dict[str, Any]:
    """Networks of frames under a GRU: ours, and the obvious ones in Keras."""
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

    def stack() -> list[Any]:
        found: list[Any] = []
        for width in FILTERS:
            found += [layers.Conv2D(width, 3, padding="same", use_bias=False)]
            found += [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
        return [*found, layers.Flatten(), layers.Dense(64, activation="relu")]

    shape = (SIZES["frames"], SIZES["height"], SIZES["width"], 1)

    def ended(clip: Any, x: Any) -> Any:
        p = layers.Dense(SIZES["classes"], activation="softmax")(layers.GRU(64)(x))
        return keras.Model({"clip_norm": clip}, p)

    each = x = keras.Input(shape, name="clip")
    for layer in stack():
        x = layers.TimeDistributed(layer)(x)
    one = keras.Input(shape, name="clip")
    whole = layers.TimeDistributed(keras.Sequential([keras.Input(shape[1:]), *stack()]))(one)
    folded = keras.Input(shape, name="clip")
    frames = keras.ops.reshape(folded, (-1, *shape[1:]))
    for layer in stack():
        frames = layer(frames)
    return {
        "ours": ours,
        "Keras, each layer TimeDistributed": ended(each, x),
        "Keras, one TimeDistributed": ended(one, whole),
        "Keras, frames folded": ended(folded, keras.ops.reshape(frames, (-1, shape[0], 64))),
    }


def data() -> Any:
    """What our models read."""
    return SimpleNamespace(**{**SIZES, "classes": range(SIZES["classes"])}, channels=1)


def steps(model: Any, x: Any, y: Any) -> Sides:
    """A step of training and one of inference: functions that return the seconds they took."""
    optimizer = keras.optimizers.Adam(1e-3, global_clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    given = {name: x[name] for name in (tensor.name for tensor in model.inputs)}

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            p = model(given, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, p))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    @tf.function
    def infer() -> Any:
        return model(given, training=False)

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
    answers = process.stdout
    assert answers

    def step() -> float:
        print(file=process.stdin, flush=True)
        return float(answers.readline())

    return step


def race(sides: Sides, rounds: int) -> dict[str, list[float]]:
    """Clips/s of every side in every round but the first two."""
    speeds = defaultdict(list)
    random = np.random.default_rng(1)
    for _ in range(rounds + 2):
        # In another order each time: PyTorch's threads spin for a while after their step.
        for title in random.permutation(list(sides)).tolist():
            speeds[title].append(SIZES["batch"] / sides[title]())
    return {title: found[2:] for title, found in speeds.items()}


def report(name: str, speeds: dict[str, list[float]]) -> None:
    """Print medians, the best rounds (what others on the machine disturb least), and ratios."""
    for title, found in speeds.items():
        ratio = np.median(np.divide(speeds["ours"], found))
        print(
            f"{name}: {np.median(found):7.0f} clips/s (best {max(found):.0f})  "
            f"ours is {ratio:5.2f} times as fast  {title}",
            flush=True,
        )


if __name__ == "__main__":
    main()
