"""Laws of the training loop, on small ostinato made here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato import errors, store
from ostinato.errors import ParamsError
from ostinato.task import TrainingContext
from ostinato.training import runtime, trainer
from ostinato.training.trainer import Record

ROOT = Path(__file__).parents[1]
CLASSES = 4
FIT: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 16,
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
    "optimizer": "adam",
    "learning_rate": 0.05,
    "schedule": "cosine",
    "warmup_fraction": 0.1,
    "clip_norm": 0.5,
    "monitor": "validation_loss",
    "patience": 10,
}


class Waves:
    """Sequences of a class' frequency, of several lengths, padded with zeros to a batch's longest.

    ``odd`` names an (epoch, batch) that holds a NaN, ``stall`` one that never comes.
    """

    def __init__(self, size: int = 97, *, pad: int = 0) -> None:
        generator = np.random.default_rng(5)
        self.pad = pad
        self.odd: tuple[int, int] | None = None
        self.stall: tuple[int, int] | None = None
        self.weights: np.ndarray | None = None
        self.x: dict[str, list[np.ndarray]] = {}
        self.y: dict[str, np.ndarray] = {}
        for split, count in (("train", size), ("validation", 41)):
            self.y[split] = generator.integers(CLASSES, size=count).astype(np.int32)
            lengths = generator.integers(6, 15, size=count)
            self.x[split] = [
                np.sin(np.arange(length)[:, None] * (label + 1) * 0.5 + np.arange(1, 4)).astype(
                    np.float32
                )
                + generator.normal(scale=0.2, size=(length, 3)).astype(np.float32)
                for length, label in zip(lengths, self.y[split], strict=True)
            ]

    def size(self, split: str) -> int:
        return len(self.y[split])

    def arrays(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> list[tuple[np.ndarray, ...]]:
        order = np.arange(self.size(split))
        if seed is not None:
            np.random.default_rng((seed, epoch)).shuffle(order)
        made: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [self.x[split][i] for i in chosen]
            x = np.zeros((len(rows), max(map(len, rows)) + self.pad, 3), np.float32)
            for target, row in zip(x, rows, strict=True):
                target[: len(row)] = row
            if split == "train" and self.odd == (epoch, len(made) + 1):
                x[0, 0, 0] = np.nan
            extra = () if self.weights is None or split != "train" else (self.weights[chosen],)
            made.append((x, self.y[split][chosen], *extra))
        return made

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> tf.data.Dataset:
        made = self.arrays(split, batch_size=batch_size, seed=seed, epoch=epoch)

        def each() -> Any:
            for index, items in enumerate(made, 1):
                if split == "train" and self.stall == (epoch, index):
                    print("stalled", flush=True)
                    time.sleep(600)
                yield items

        spec = tuple(
            tf.TensorSpec([None, *[None] * (a.ndim == 3), *a.shape[2:]], a.dtype) for a in made[0]
        )
        return tf.data.Dataset.from_generator(each, output_signature=spec)


def recurrent(dropout: float = 0.0, penalty: float = 0.0) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.Masking(),
            keras.layers.LSTM(
                8, dropout=dropout, kernel_regularizer=keras.regularizers.L2(penalty)
            ),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(CLASSES, activation="softmax", dtype="float32"),
        ]
    )


def pooled(dropout: float = 0.0) -> keras.Model:
    """The quickest model that has a mask."""
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.Masking(),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(CLASSES, activation="softmax", dtype="float32"),
        ]
    )


def runtime_of(seed: int = 1, **changed: Any) -> Any:
    usual = {"precision": "float32", "devices": 1, "intra_op": None, "inter_op": None}
    return runtime.runtime(seed, **{**usual, **changed})


def train(
    folder: Path,
    data: Any = None,
    build: Callable[[], keras.Model] = pooled,
    *,
    after: list[list[np.ndarray]] | None = None,
    seen: list[Record] | None = None,
    seed: int = 1,
    **changed: Any,
) -> tuple[keras.Model, list[Record]]:
    """A model and its history; ``changed`` holds arguments of machine and of fit.

    ``after`` receives the weights after every epoch, ``seen`` the records.
    """
    place = {k: changed.pop(k) for k in ("precision", "devices") if k in changed}
    with runtime_of(**place):
        model = build()

        def on_epoch(record: Record) -> None:
            if after is not None:
                after.append(weights(model))
            if seen is not None:
                seen.append(record)

        data = Waves() if data is None else data
        return model, trainer.fit(
            model, data, TrainingContext(folder, seed, on_epoch), **{**FIT, **changed}
        )


def weights(model: keras.Model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.weights]


def measured(history: list[Record]) -> list[Record]:
    """The history without its times."""
    times = ("seconds", "sequences_per_second")
    return [{k: v for k, v in record.items() if k not in times} for record in history]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def child(code: str, **options: Any) -> subprocess.Popen[str]:
    """Another process with the names of this file at hand."""
    return subprocess.Popen(
        [sys.executable, "-c", f"from tests.test_training import *\n{code}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        **options,
    )


DROPOUT = 0.3


def test_a_training_killed_in_mid_epoch_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    code = (
        f"folder = Path({str(tmp_path)!r})\n"
        "data = Waves()\n"
        "data.stall = {stall}\n"
        "model, history = train(folder / 'state', data, lambda: recurrent(DROPOUT))\n"
        "arrays = {{str(i): w for i, w in enumerate(weights(model))}}\n"
        "store.write_arrays(folder / 'w.npz', arrays)\n"
        "store.write_json(folder / 'history.json', measured(history))\n"
    )
    victim = child(code.format(stall=(3, 4)))
    assert victim.stdout is not None
    printed = ""
    for line in victim.stdout:
        printed += line
        if line == "stalled\n":
            break
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL, printed
    assert "epoch 2/4" in printed
    assert "epoch 3/4" not in printed
    assert not (tmp_path / "w.npz").exists()

    printed, _ = child(code.format(stall=None)).communicate(timeout=300)
    assert "goes on after epoch 2" in printed, printed
    assert "epoch 1/4" not in printed
    assert "epoch 3/4" in printed
    whole, expected = train(tmp_path / "whole", build=lambda: recurrent(DROPOUT))
    assert same(list(store.read_arrays(tmp_path / "w.npz").values()), weights(whole))
    assert json.loads((tmp_path / "history.json").read_text()) == measured(expected)


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    ends = [
        weights(train(tmp_path / str(i), build=lambda: pooled(DROPOUT), seed=seed, epochs=2)[0])
        for i, seed in enumerate((1, 1, 2))
    ]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = train(tmp_path / "whole", build=lambda: pooled(DROPOUT))
    write, calls = np.lib.format.write_array, 0

    def crash(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 50:  # a checkpoint of this model has 19 arrays, so this is in the third
            raise OSError("no space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "write_array", crash)
    with pytest.raises(OSError, match="no space"):
        train(tmp_path / "crashed", build=lambda: pooled(DROPOUT))
    monkeypatch.undo()
    seen: list[Record] = []
    model, history = train(tmp_path / "crashed", build=lambda: pooled(DROPOUT), seen=seen)
    assert same(weights(model), weights(whole))
    assert measured(history) == measured(expected)
    assert seen == history  # a listener of the second process misses no epoch
    assert [path.name for path in (tmp_path / "crashed").iterdir()] == ["epoch.npz"]


def test_a_finished_training_does_not_train_again(tmp_path: Path) -> None:
    first, history = train(tmp_path, epochs=2)
    data = Waves()
    data.odd = (3, 1)
    second, again = train(tmp_path, data, epochs=2)
    assert again == history
    assert same(weights(first), weights(second))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)

    def wider() -> keras.Model:
        return keras.Sequential(
            [keras.Input((None, 3)), keras.layers.Dense(9), keras.layers.GlobalMaxPooling1D()]
        )

    with pytest.raises(errors.TrainingError, match=r"of another model.*\[3, 8\].*\[3, 9\]"):
        train(tmp_path, build=wider)
    (tmp_path / "epoch.npz").write_bytes(b"torn")
    with pytest.raises(errors.TrainingError, match="unreadable"):
        train(tmp_path)


def test_two_devices_compute_the_losses_of_one(tmp_path: Path) -> None:
    """With masks, a penalty and clipping; 97 = 3 x 32 + 1 leaves one device without a sequence."""
    code = (
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "both = dict(devices=2, batch=32, epochs=2)\n"
        "_, full = train(folder / 'full', build=lambda: recurrent(0.0, 0.01), **both)\n"
        "_, half = train(folder / 'half', precision='mixed_float16', **both)\n"
        "store.write_json(folder / 'two.json', [full, half])\n"
        "def dropped():\n"
        "    with runtime_of(devices=2) as strategy:\n"
        "        model = recurrent(0.5)\n"
        "        training._reseed(model, 1, 1)\n"
        "        ones = tf.ones((8, 8))\n"
        "        drop = tf.function(lambda: model.layers[2](ones, training=True))\n"
        "        return strategy.experimental_local_results(strategy.run(drop))\n"
        "one, other = dropped()\n"
        "assert not np.array_equal(one, other), 'both devices drop the same'\n"
        "try:\n"
        "    train(folder / 'three', devices=3)\n"
        "except training.TrainingError as error:\n"
        "    print(error)\n"
    )
    printed, _ = child(code).communicate(timeout=300)
    assert "3 asked for, 2 CPU there" in printed, printed
    full, half = json.loads((tmp_path / "two.json").read_text())
    _, one = train(tmp_path / "1", build=lambda: recurrent(0.0, 0.01), batch_size=32, epochs=2)
    assert max(record["gradient_norm"] for record in one) > FIT["clip"]
    for here, there in zip(one, full, strict=True):
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            assert there[name] == pytest.approx(here[name], abs=1e-5)
        assert there["gradient_norm"] == pytest.approx(here["gradient_norm"], rel=1e-4)
    _, one = train(tmp_path / "2", batch_size=32, epochs=2)
    for here, there in zip(one, half, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], abs=0.01)


def test_it_trains_as_keras_does(tmp_path: Path) -> None:
    """Keras' own loop is the slow, independent one: a batch at a time by ``train_on_batch``."""
    after: list[list[np.ndarray]] = []
    options: dict[str, Any] = {"schedule": "constant", "warmup_fraction": 0.0, "epochs": 2}
    train(tmp_path, build=lambda: recurrent(0.0, 0.01), after=after, **options)
    with runtime_of():
        peer = recurrent(0.0, 0.01)
        peer.compile(keras.optimizers.Adam(FIT["rate"], global_clipnorm=FIT["clip"]), FIT["loss"])
        for epoch in (1, 2):
            for x, y in Waves().arrays("train", batch_size=FIT["batch"], seed=1, epoch=epoch):
                peer.train_on_batch(x, y)
    for one, other in zip(after[-1], weights(peer), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    _, short = train(tmp_path / "short", build=recurrent, epochs=2)
    _, long = train(tmp_path / "long", Waves(pad=9), recurrent, epochs=2)
    for one, other in zip(short, long, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-5)


class Tags:
    """Tokens 1 to 4 (0 is padding), each with its own tag: a loss value for every time."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def size(self, split: str) -> int:
        return 20

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> tf.data.Dataset:
        generator = np.random.default_rng(3)
        x = np.zeros((20, 8 + self.pad), np.int32)
        for row in x:
            row[: generator.integers(3, 9)] = 1
        x[x > 0] = generator.integers(1, 5, size=int((x > 0).sum()))
        y = np.where(x > 0, x - 1, 3)
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


def test_masked_times_are_out_of_the_mean(tmp_path: Path) -> None:
    def build() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(5, 4, mask_zero=True),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )

    # batches of 20 and of 7: a mean of means of batches would differ, as lengths do
    model, history = train(
        tmp_path / "a", Tags(0), build, batch_size=20, learning_rate=1e-9, epochs=1
    )
    for pad, batch in ((0, 7), (6, 20)):
        _, other = train(
            tmp_path / f"{pad}", Tags(pad), build, batch_size=batch, learning_rate=1e-9, epochs=1
        )
        assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], abs=1e-5)
        assert other[-1]["accuracy"] == pytest.approx(history[-1]["accuracy"], abs=1e-9)
    x, y = next(iter(Tags(0).batches("train", batch_size=20, seed=1, epoch=1)))
    probabilities = np.take_along_axis(model(x).numpy(), y.numpy()[..., None], -1)[..., 0]
    assert history[-1]["loss"] == pytest.approx(-np.log(probabilities[x.numpy() > 0]).mean())


def test_a_sequence_of_weight_zero_might_as_well_not_be_there(tmp_path: Path) -> None:
    heavy, light = Waves(), Waves()
    heavy.weights = np.ones(97, np.float32)
    heavy.weights[::3] = 0
    kept = np.flatnonzero(heavy.weights)
    light.x["train"] = [light.x["train"][i] for i in kept]
    light.y["train"] = light.y["train"][kept]
    _, one = train(tmp_path / "one", heavy, batch_size=97, optimizer="sgd")
    _, other = train(tmp_path / "other", light, batch_size=97, optimizer="sgd")
    for a, b in zip(one, other, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["accuracy"] == pytest.approx(b["accuracy"])


def test_a_clipped_step_is_as_long_as_rate_times_clip(tmp_path: Path) -> None:
    one: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 97,
        "optimizer": "sgd",
        "schedule": "constant",
        "warmup_fraction": 0.0,
    }
    with runtime_of():
        start = pooled()
        x, y = Waves().arrays("train", batch_size=97, seed=1, epoch=1)[0]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, start(x)))
        norm = float(tf.linalg.global_norm(tape.gradient(loss, start.trainable_weights)))
    model, history = train(tmp_path / "a", learning_rate=2.0, clip_norm=norm / 4, **one)
    moved = [a - b for a, b in zip(weights(model), weights(start), strict=True)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(2.0 * norm / 4, rel=1e-4)
    assert history[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert history[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    model, _ = train(tmp_path / "b", learning_rate=2.0, clip_norm=0.0, **one)
    moved = [a - b for a, b in zip(weights(model), weights(start), strict=True)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(2.0 * norm, rel=1e-4)


@pytest.mark.parametrize(("monitor", "better"), [("loss", np.argmin), ("accuracy", np.argmax)])
def test_patience_stops_and_the_best_weights_come_back(
    tmp_path: Path, monitor: str, better: Callable[..., int]
) -> None:
    after: list[list[np.ndarray]] = []
    monitor = f"validation_{monitor}"
    options: dict[str, Any] = {
        "epochs": 30,
        "patience": 2,
        "learning_rate": 0.3,
        "monitor": monitor,
    }
    model, history = train(tmp_path, after=after, schedule="constant", **options)
    best = int(better([record[monitor] for record in history]))
    assert len(history) == best + 1 + 2 < 30
    assert same(weights(model), after[best])
    assert not same(weights(model), after[-1])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "inverse_sqrt"])
def test_the_rate_follows_its_schedule(tmp_path: Path, schedule: str) -> None:
    _, history = train(tmp_path, schedule=schedule, warmup_fraction=0.3, batch_size=97)
    for record in history:
        share = (record["epoch"] - 0.5) / FIT["epochs"]  # the middle of the epoch's only batch
        falling = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + np.cos(np.pi * (share - 0.3) / 0.7)),
            "inverse_sqrt": np.sqrt(0.3 / share),
        }[schedule]
        expected = FIT["rate"] * (share / 0.3 if share < 0.3 else falling)
        assert record["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_its_place_and_keeps_the_epochs_before(
    tmp_path: Path,
) -> None:
    data = Waves()
    data.odd = (2, 3)
    with pytest.raises(errors.TrainingError, match=r"epoch 2, step 3: .*not finite.*try"):
        train(tmp_path, data)
    data.odd = None
    _, whole = train(tmp_path / "whole", data)
    _, resumed = train(tmp_path, data)
    assert measured(resumed) == measured(whole)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    before = keras.config.dtype_policy().name
    model, history = train(tmp_path, build=recurrent, precision=precision)
    assert model.layers[1].compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert history[-1]["validation_loss"] < 0.9 * history[0]["validation_loss"]
    assert keras.config.dtype_policy().name == before


def test_batch_normalisation_keeps_its_statistics(tmp_path: Path) -> None:
    def build() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((None, 3)),
                keras.layers.BatchNormalization(momentum=0.5),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )

    model, _ = train(tmp_path, build=build, epochs=1, batch_size=97)
    x, _ = Waves().arrays("train", batch_size=97, seed=1, epoch=1)[0]
    mean = model.layers[0].moving_mean.numpy()
    np.testing.assert_allclose(mean, 0.5 * x.mean((0, 1)), atol=1e-6)


def test_a_weight_that_does_not_reach_the_loss_is_named(tmp_path: Path) -> None:
    def build() -> keras.Model:
        x = keras.Input((None, 3))
        pool = keras.layers.GlobalMaxPooling1D()(keras.layers.Dense(4, name="lost")(x))
        y = keras.layers.Dense(CLASSES, activation="softmax")(keras.ops.stop_gradient(pool))
        return keras.Model(x, y)

    with pytest.raises(errors.TrainingError, match="lost/kernel"):
        train(tmp_path, build=build)


def test_nested_inputs_reach_the_model(tmp_path: Path) -> None:
    class Pairs(Waves):
        def batches(self, split: str, **options: Any) -> tf.data.Dataset:
            return super().batches(split, **options).map(lambda x, y: ({"a": x, "b": x[:, 0]}, y))

    def build() -> keras.Model:
        a, b = keras.Input((None, 3), name="a"), keras.Input((3,), name="b")
        joined = keras.layers.Concatenate()([keras.layers.GlobalMaxPooling1D()(a), b])
        outputs = keras.layers.Dense(CLASSES, activation="softmax")(joined)
        return keras.Model({"a": a, "b": b}, outputs)

    _, history = train(tmp_path, Pairs(), build)
    assert history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize(
    ("argument", "value", "hint"),
    [
        ("loss", "sparse_categorical_crosentropy", "did you mean 'sparse_categorical_crossentropy"),
        ("metrics", ["acuracy"], "unknown 'acuracy'.*accuracy"),
        ("monitor", "validation_los", "did you mean 'validation_loss'"),
        ("optimizer", "adamm", "did you mean 'adam"),
        ("warmup", 0.0, "needs a warm-up"),
    ],
)
def test_an_unknown_name_is_answered_with_near_misses(
    tmp_path: Path, argument: str, value: Any, hint: str
) -> None:
    with pytest.raises(ParamsError, match=rf"fit\.{argument}: .*{hint}"):
        train(tmp_path, **{"schedule": "inverse_sqrt", argument: value})
    assert not list(tmp_path.iterdir())


def test_threads_are_set_before_tensorflow_starts_or_not_at_all() -> None:
    tf.constant(0) + 1
    present = tf.config.threading.get_intra_op_parallelism_threads()
    with pytest.raises(errors.TrainingError, match=r"runtime\.intra_op: TensorFlow has started"):
        runtime_of(intra_op=present + 1).__enter__()
    with pytest.raises(errors.TrainingError, match="2 asked for, 1 CPU there"):
        runtime_of(devices=2).__enter__()


def test_a_log_has_one_line_an_epoch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, history = train(tmp_path)
    printed, bar = capfd.readouterr()
    lines = printed.splitlines()
    assert len(lines) == len(history)
    assert all(line.startswith(f"epoch {i}/4  loss ") for i, line in enumerate(lines, 1))
    assert "ostinato/s" in lines[0]
    assert "ostinato/s" not in bar
