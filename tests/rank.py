"""One process of a training that `tests/test_ranks.py` starts, with the cases to train in order.

``python -m tests.rank FOLDER CASE...`` writes FOLDER/CASE-RANK.npz: the weights and the history.
TF_CONFIG says which rank it is, OSTINATO_DEVICES how many logical devices each rank has.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato import store
from ostinato.task import Part, TrainingContext
from ostinato.training import teacher_forcing, trainer
from ostinato.training.machine import Machine, this_machine
from ostinato.training.runtime import runtime
from stages.entry import command

FIT: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "metrics": ["accuracy"],
    "loss": "sparse_categorical_crossentropy",
    "optimizer": "adam",
    "learning_rate": 0.02,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "clip_norm": 0.1,
    "monitor": "validation_loss",
    "patience": 9,
}
STALLED = "stalled"


class Sequences:
    """Random sequences of two classes in batches of similar length, padded with zeros.

    With 25 training examples in batches of 8 the last batch has one example.

    Args:
        sizes: of the splits.
        own_padding: each rank pads its part to its own longest sequence.
        stall: (rank, epoch, batch) that never comes.
        change: of each batch (x, y).
    """

    def __init__(
        self,
        sizes: tuple[int, int] = (25, 9),
        *,
        own_padding: bool = False,
        stall: tuple[int, int, int] | None = None,
        change: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        generator = np.random.default_rng(5)
        self.own_padding, self.stall = own_padding, stall
        self.change = change
        self.rows, self.labels = {}, {}
        for split, size in zip(("train", "validation"), sizes, strict=True):
            labels = generator.integers(2, size=size).astype(np.int32)
            lengths = generator.integers(2, 12, size=size)
            self.labels[split] = labels
            self.rows[split] = [
                generator.normal(label, 1, (length, 3)).astype(np.float32)
                for length, label in zip(lengths, labels, strict=True)
            ]

    def size(self, split: str) -> int:
        return len(self.labels[split])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        rows, labels = self.rows[split], self.labels[split]
        order = np.argsort([len(row) for row in rows], kind="stable")
        chosen = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        if seed is not None:
            np.random.default_rng((seed, epoch)).shuffle(chosen)

        def generate() -> Iterator[Any]:
            for number, indices in enumerate(chosen, 1):
                if split == "train" and self.stall == (part.rank, epoch, number):
                    print(STALLED, flush=True)
                    time.sleep(600)
                total = len(indices)
                first, last = (total * (part.rank + i) // part.ranks for i in (0, 1))
                mine = indices[first:last] if last > first else indices[:1]
                longest = max(len(rows[i]) for i in (mine if self.own_padding else indices))
                x = np.zeros((len(mine), longest, 3), np.float32)
                for target, i in zip(x, mine, strict=True):
                    target[: len(rows[i])] = rows[i]
                batch = x, labels[mine]
                yield batch if part.ranks == 1 else (batch, np.int32(total))

        spec: Any = (tf.TensorSpec([None, None, 3]), tf.TensorSpec([None], tf.int32))
        if part.ranks > 1:
            spec = spec, tf.TensorSpec([], tf.int32)
        data = tf.data.Dataset.from_generator(generate, output_signature=spec)
        if not self.change:
            return data
        change = self.change
        if part.ranks == 1:
            return data.map(change)
        return data.map(lambda batch, total: (change(*batch), total))


def pooled(dropout: float = 0.0) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Masking(),
            layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(dropout),
            layers.Dense(2, activation="softmax"),
        ]
    )


def recurrent() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Masking(),
            layers.LSTM(4),
            layers.Dense(2, activation="softmax"),
        ]
    )


def stroke5(x: Any, y: Any) -> Any:
    """Drawings of x: padding ends a drawing, the sign of the third column lifts the pen."""
    pen = tf.where(x[..., 2] > 0, 0, 1)
    pen = tf.where(tf.reduce_any(x != 0, axis=-1), pen, 2)
    return tf.concat([x[..., :2], tf.one_hot(pen, 3)], axis=-1), y


def tokens(x: Any, y: Any) -> Any:
    """Ten words, of which the padding has no weight."""
    words = tf.where(x[..., 0] == 0, 0, tf.cast(4 + tf.math.floormod(x[..., 0] * 4, 6), tf.int32))
    before = tf.concat([tf.ones_like(words[:, :1]), words[:, :-1]], axis=1)
    weight = tf.cast(words != 0, tf.float32)
    return {"source": words[:, ::-1], "before": before}, words, weight


def translator() -> keras.Model:
    layers = keras.layers
    source, before = (keras.Input((None,), dtype="int32", name=n) for n in ("source", "before"))
    both = layers.Add()([layers.Embedding(10, 4)(source), layers.Embedding(10, 4)(before)])
    return keras.Model({"source": source, "before": before}, layers.Dense(10)(both))


def supervised(build: Callable[[], keras.Model], data: Any, **changed: Any) -> Any:
    def case(context: TrainingContext) -> tuple[Any, Any]:
        model = build()
        return [model], trainer.fit(model, data, context, **{**FIT, **changed})

    return case


def gan(context: TrainingContext) -> tuple[Any, Any]:
    from tests.toys import gan as toy

    data = Sequences(change=lambda x, y: x[:, 0, :1])
    model = toy.build(data, units=4)
    history = toy.fit(model, data, context, epochs=3, batch_size=8, learning_rate=0.01)
    return [model.generator, model.discriminator], history


def variational(context: TrainingContext) -> tuple[Any, Any]:
    from ostinato.generation.layers import RecurrentGenerator, VariationalStep

    network = RecurrentGenerator(
        cell="lstm",
        encoder_units=3,
        decoder_units=4,
        latent_size=2,
        conditioning="both",
        recurrent_dropout=0.2,
        mixtures=2,
        classes=2,
        scale=10.0,
        longest=12,
    )
    step = VariationalStep(
        network, optimizer="adam", learning_rate=0.01, clip_norm=0.5, kl_weight=0.5
    )
    options = {name: FIT[name] for name in ("batch_size", "schedule", "warmup_fraction", "monitor")}
    data = Sequences(change=stroke5)
    return [network], trainer.train(step, data, context, epochs=2, patience=9, **options)


def seq2seq(context: TrainingContext) -> tuple[Any, Any]:
    model = translator()
    options = {
        name: FIT[name] for name in ("epochs", "batch_size", "optimizer", "schedule", "patience")
    }
    history = teacher_forcing.fit_seq2seq(
        model,
        Sequences(change=tokens),
        context,
        label_smoothing=0.1,
        scheduled_sampling=0.0,
        learning_rate=0.02,
        warmup_fraction=0.1,
        clip_norm=0.5,
        average_checkpoints=2,
        **options,
    )
    return [model], history


CASES: dict[str, Callable[[TrainingContext], tuple[Any, Any]]] = {
    "dropout": supervised(lambda: pooled(0.4), Sequences()),
    "killed": supervised(lambda: pooled(0.4), Sequences(stall=(1, 2, 2))),
    "padding": supervised(recurrent, Sequences(own_padding=True)),
    "few": supervised(pooled, Sequences((5, 2)), epochs=2),
    "unwritable": supervised(pooled, Sequences((5, 2))),
    "gan": gan,
    "variational": variational,
    "seq2seq": seq2seq,
}
HALF = "half"  # the checkpoint of the case "padding" after its second epoch


def train(folder: Path, case: str, machine: Machine, checkpoints: Path) -> None:
    """Train a case, and write what this rank has at the end."""

    def on_epoch(record: trainer.Record) -> None:
        if case == "padding" and record["epoch"] == 2 and checkpoints.name != HALF:
            shutil.copytree(checkpoints, folder / HALF, dirs_exist_ok=True)

    with runtime(1, machine, precision="float32"):
        models, history = CASES[case](TrainingContext(checkpoints, 1, on_epoch))
        weights = [weight.numpy() for model in models for weight in model.weights]
    names = [name for name in history[0] if not name.startswith("se")]  # no times
    arrays = {str(i): weight for i, weight in enumerate(weights)}
    arrays["history"] = np.array([[record[name] for name in names] for record in history])
    result = folder / f"{case}-{machine.devices}x{machine.cluster.ranks}-{machine.cluster.rank}.npz"
    store.write_arrays(result, arrays)


def main(folder: str, *cases: str) -> None:
    """Train the cases one after the other; CASE:N trains on N devices, CASE@FOLDER resumes."""
    machine = this_machine()
    devices = [tf.config.LogicalDeviceConfiguration()] * int(os.environ["LOGICAL_DEVICES"])
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, devices)
    for each in cases:
        case, _, number = each.partition(":")
        case, _, resumed = case.partition("@")
        used = Machine(int(number or machine.devices), 1, 1, machine.cluster)
        checkpoints = Path(folder, resumed or f"{case}-{used.devices}x{used.cluster.ranks}")
        train(Path(folder), case, used, checkpoints)


if __name__ == "__main__":
    command(main)
