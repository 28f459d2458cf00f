"""Laws of the training loop, on small generated sequences."""

import importlib
import json
import logging
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

from ostinato import store
from ostinato.errors import ParamsError, TrainingError
from ostinato.task import Part, TrainingContext
from ostinato.training import imports, keras_model, losses, runtime, schedules, trainer
from ostinato.training.machine import Machine
from ostinato.training.steps import Sums, SupervisedStep, batch_length, minimise, part_of_batch
from ostinato.training.trainer import Record, best_epoch

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
    """Sine waves with a frequency for each class, padded with zeros to the longest of a batch.

    ``nan_at`` is the (epoch, batch) that contains a NaN, ``stall_at`` one that never arrives.
    """

    def __init__(self, size: int = 97, *, pad: int = 0) -> None:
        generator = np.random.default_rng(5)
        self.pad = pad
        self.nan_at: tuple[int, int] | None = None
        self.stall_at: tuple[int, int] | None = None
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
        batches: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [self.x[split][i] for i in chosen]
            x = np.zeros((len(rows), max(map(len, rows)) + self.pad, 3), np.float32)
            for target, row in zip(x, rows, strict=True):
                target[: len(row)] = row
            if split == "train" and self.nan_at == (epoch, len(batches) + 1):
                x[0, 0, 0] = np.nan
            extra = () if self.weights is None or split != "train" else (self.weights[chosen],)
            batches.append((x, self.y[split][chosen], *extra))
        return batches

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        batches = self.arrays(split, batch_size=batch_size, seed=seed, epoch=epoch)

        def generate() -> Any:
            for index, batch in enumerate(batches, 1):
                if split == "train" and self.stall_at == (epoch, index):
                    print("stalled", flush=True)
                    time.sleep(600)
                yield batch

        spec = tuple(
            tf.TensorSpec([None, *[None] * (a.ndim == 3), *a.shape[2:]], a.dtype)
            for a in batches[0]
        )
        return tf.data.Dataset.from_generator(generate, output_signature=spec)


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
    """The fastest model that uses a mask."""
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
    precision = changed.pop("precision", "float32")
    return runtime.runtime(seed, Machine(**changed), precision=precision)


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
    """A trained model and its history; ``changed`` has arguments of runtime and of fit.

    ``after`` receives the weights after every epoch, ``seen`` the records.
    """
    of_runtime = {k: changed.pop(k) for k in ("precision", "devices") if k in changed}
    with runtime_of(**of_runtime):
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


def without_times(history: list[Record]) -> list[Record]:
    """The history without its times."""
    times = ("seconds", "sequences_per_second")
    return [{k: v for k, v in record.items() if k not in times} for record in history]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def child(code: str, **options: Any) -> subprocess.Popen[str]:
    """Another process that has imported the names of this file and prints log messages."""
    setup = (
        "from ostinato.training.imports import import_keras_quietly\n"
        "import_keras_quietly()\n"
        "from tests.test_training import *\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
        "logging.getLogger('tensorflow').setLevel(logging.ERROR)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", setup + code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        **options,
    )


DROPOUT = 0.3


def test_a_killed_training_resumes_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    code = (
        f"folder = Path({str(tmp_path)!r})\n"
        "data = Waves()\n"
        "data.stall_at = {stall}\n"
        "model, history = train(folder / 'state', data, lambda: recurrent(DROPOUT))\n"
        "arrays = {{str(i): w for i, w in enumerate(weights(model))}}\n"
        "store.write_arrays(folder / 'w.npz', arrays)\n"
        "store.write_json(folder / 'history.json', without_times(history))\n"
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
    assert "resuming after epoch 2" in printed, printed
    assert "epoch 1/4" not in printed
    assert "epoch 3/4" in printed
    whole, expected = train(tmp_path / "whole", build=lambda: recurrent(DROPOUT))
    assert equal(list(store.read_arrays(tmp_path / "w.npz").values()), weights(whole))
    assert json.loads((tmp_path / "history.json").read_text()) == without_times(expected)


def test_the_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    ends = [
        weights(train(tmp_path / str(i), build=lambda: pooled(DROPOUT), seed=seed, epochs=2)[0])
        for i, seed in enumerate((1, 1, 2))
    ]
    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


def test_a_crash_while_a_checkpoint_is_written_keeps_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = train(tmp_path / "whole", build=lambda: pooled(DROPOUT))
    write, num_calls = np.lib.format.write_array, 0

    def crash(*arguments: Any, **options: Any) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 50:  # a checkpoint of this model has 19 arrays, so this is in the third
            raise OSError("no space left on device")
        write(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "write_array", crash)
    with pytest.raises(OSError, match="no space"):
        train(tmp_path / "crashed", build=lambda: pooled(DROPOUT))
    monkeypatch.undo()
    seen: list[Record] = []
    model, history = train(tmp_path / "crashed", build=lambda: pooled(DROPOUT), seen=seen)
    assert equal(weights(model), weights(whole))
    assert without_times(history) == without_times(expected)
    assert seen == history  # on_epoch of the second process receives all epochs
    assert [path.name for path in (tmp_path / "crashed").iterdir()] == ["epoch.npz"]


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    first, history = train(tmp_path, epochs=2)
    data = Waves()
    data.nan_at = (3, 1)
    second, again = train(tmp_path, data, epochs=2)
    assert again == history
    assert equal(weights(first), weights(second))


def test_a_checkpoint_of_another_model_is_an_error(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)

    def wider() -> keras.Model:
        return keras.Sequential(
            [keras.Input((None, 3)), keras.layers.Dense(9), keras.layers.GlobalMaxPooling1D()]
        )

    with pytest.raises(TrainingError, match=r"of another model.*\[3, 8\].*\[3, 9\]"):
        train(tmp_path, build=wider)
    (tmp_path / "epoch.npz").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="unreadable"):
        train(tmp_path)


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of trainings on two devices, made by another process.

    The last batch of 97 examples leaves one device without an example.
    """
    folder = tmp_path_factory.mktemp("two")
    code = (
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "two = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, two)\n"
        f"folder = Path({str(folder)!r})\n"
        "both = dict(devices=2, batch_size=32, epochs=2)\n"
        "_, full = train(folder / 'full', build=lambda: recurrent(0.0, 0.01), **both)\n"
        "_, half = train(folder / 'half', precision='mixed_float16', **both)\n"
        "store.write_json(folder / 'two.json', [full, half])\n"
        "for monitor, build in WITHOUT_DROPOUT.items():\n"
        "    found, _ = train_step(folder / monitor, build, monitor=monitor, **both)\n"
        "    arrays = {str(i): w for i, w in enumerate(found)}\n"
        "    store.write_arrays(folder / f'{monitor}.npz', arrays)\n"
        "def dropouts():\n"
        "    with runtime_of(devices=2) as strategy:\n"
        "        model = recurrent(0.5)\n"
        "        runtime.reseed([model], 1, 1)\n"
        "        ones = tf.ones((8, 8))\n"
        "        drop = tf.function(lambda: model.layers[2](ones, training=True))\n"
        "        return strategy.experimental_local_results(strategy.run(drop))\n"
        "one, other = dropouts()\n"
        "assert not np.array_equal(one, other), 'both devices drop the same units'\n"
        "try:\n"
        "    train(folder / 'three', devices=3)\n"
        "except TrainingError as error:\n"
        "    print(error)\n"
    )
    printed, _ = child(code).communicate(timeout=600)
    assert "3 requested, 2 CPU available" in printed, printed
    return folder


def test_two_devices_compute_the_losses_of_one_device(tmp_path: Path, two_devices: Path) -> None:
    """With masks, a penalty and clipping."""
    full, half = json.loads((two_devices / "two.json").read_text())
    _, one = train(tmp_path / "1", build=lambda: recurrent(0.0, 0.01), batch_size=32, epochs=2)
    assert max(record["gradient_norm"] for record in one) > FIT["clip_norm"]
    for here, there in zip(one, full, strict=True):
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
            assert there[name] == pytest.approx(here[name], abs=1e-5)
        assert there["gradient_norm"] == pytest.approx(here["gradient_norm"], rel=1e-4)
    _, one = train(tmp_path / "2", batch_size=32, epochs=2)
    for here, there in zip(one, half, strict=True):
        assert there["loss"] == pytest.approx(here["loss"], abs=0.01)


def test_the_weights_are_those_of_keras_train_on_batch(tmp_path: Path) -> None:
    after: list[list[np.ndarray]] = []
    options: dict[str, Any] = {"schedule": "constant", "warmup_fraction": 0.0, "epochs": 2}
    train(tmp_path, build=lambda: recurrent(0.0, 0.01), after=after, **options)
    with runtime_of():
        peer = recurrent(0.0, 0.01)
        peer.compile(
            keras.optimizers.Adam(FIT["learning_rate"], global_clipnorm=FIT["clip_norm"]),
            FIT["loss"],
        )
        for epoch in (1, 2):
            for x, y in Waves().arrays("train", batch_size=FIT["batch_size"], seed=1, epoch=epoch):
                peer.train_on_batch(x, y)
    for one, other in zip(after[-1], weights(peer), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_padding_does_not_change_the_losses(tmp_path: Path) -> None:
    _, short = train(tmp_path / "short", build=recurrent, epochs=2)
    _, long = train(tmp_path / "long", Waves(pad=9), recurrent, epochs=2)
    for one, other in zip(short, long, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-5)


class Tags:
    """Tokens 1 to 4 (0 is padding), each with a tag: a value of the loss for every token."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def size(self, split: str) -> int:
        return 20

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        generator = np.random.default_rng(3)
        x = np.zeros((20, 8 + self.pad), np.int32)
        for row in x:
            row[: generator.integers(3, 9)] = 1
        x[x > 0] = generator.integers(1, 5, size=int((x > 0).sum()))
        y = np.where(x > 0, x - 1, 3)
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


def test_masked_tokens_do_not_count_in_the_means(tmp_path: Path) -> None:
    def build() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                keras.layers.Embedding(5, 4, mask_zero=True),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )

    # Batches of 20 and of 7: a mean over batch means would differ, as lengths differ.
    model, history = train(
        tmp_path / "a", Tags(0), build, batch_size=20, learning_rate=1e-9, epochs=1
    )
    for pad, batch_size in ((0, 7), (6, 20)):
        options: dict[str, Any] = {"batch_size": batch_size, "learning_rate": 1e-9, "epochs": 1}
        _, other = train(tmp_path / f"{pad}", Tags(pad), build, **options)
        assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], abs=1e-5)
        assert other[-1]["accuracy"] == pytest.approx(history[-1]["accuracy"], abs=1e-9)
    x, y = next(iter(Tags(0).batches("train", batch_size=20, seed=1, epoch=1)))
    probabilities = np.take_along_axis(model(x).numpy(), y.numpy()[..., None], -1)[..., 0]
    assert history[-1]["loss"] == pytest.approx(-np.log(probabilities[x.numpy() > 0]).mean())


def test_an_example_of_weight_zero_does_not_count(tmp_path: Path) -> None:
    heavy, light = Waves(), Waves()
    heavy.weights = np.ones(97, np.float32)
    heavy.weights[::3] = 0
    remaining = np.flatnonzero(heavy.weights)
    light.x["train"] = [light.x["train"][i] for i in remaining]
    light.y["train"] = light.y["train"][remaining]
    _, one = train(tmp_path / "one", heavy, batch_size=97, optimizer="sgd")
    _, other = train(tmp_path / "other", light, batch_size=97, optimizer="sgd")
    for a, b in zip(one, other, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["accuracy"] == pytest.approx(b["accuracy"])


def test_a_clipped_step_has_the_length_learning_rate_times_clip_norm(tmp_path: Path) -> None:
    one_step: dict[str, Any] = {
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
    model, history = train(tmp_path / "a", learning_rate=2.0, clip_norm=norm / 4, **one_step)
    moved = [a - b for a, b in zip(weights(model), weights(start), strict=True)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(2.0 * norm / 4, rel=1e-4)
    assert history[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert history[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    model, _ = train(tmp_path / "b", learning_rate=2.0, clip_norm=0.0, **one_step)
    moved = [a - b for a, b in zip(weights(model), weights(start), strict=True)]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(2.0 * norm, rel=1e-4)


@pytest.mark.parametrize(("monitor", "better"), [("loss", np.argmin), ("accuracy", np.argmax)])
def test_early_stopping_restores_the_best_weights(
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
    assert equal(weights(model), after[best])
    assert not equal(weights(model), after[-1])


def test_warm_restarts_double_and_cyclical_rates_are_triangles() -> None:
    def factors(schedule: Any, shares: Any, warmup: float = 0.0) -> Any:
        return [
            float(schedules.factor(schedule, warmup, tf.constant(share, tf.float32)))
            for share in shares
        ]

    # Cycles of 1, 2 and 4 sevenths: peaks, middles and ends.
    peaks, middles, ends = [0, 1 / 7, 3 / 7], [0.5 / 7, 2 / 7, 5 / 7], [1 / 7, 3 / 7, 1]
    after = [share + 1e-5 for share in peaks]
    np.testing.assert_allclose(factors("cosine_restarts", after), 1, atol=1e-3)
    np.testing.assert_allclose(factors("cosine_restarts", middles), 0.5, atol=1e-3)
    before = [share - 1e-5 for share in ends]
    np.testing.assert_allclose(factors("cosine_restarts", before), 0, atol=1e-3)
    shares = np.arange(9) / 8
    expected = [0.1, 1, 0.1, 1, 0.1, 1, 0.1, 1, 0.1]
    np.testing.assert_allclose(factors("cyclical", shares), expected, atol=1e-5)
    np.testing.assert_allclose(factors("cyclical", [0.1, 0.6], 0.2), [0.1, 0.1], atol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "inverse_sqrt"])
def test_the_learning_rate_follows_its_schedule(tmp_path: Path, schedule: str) -> None:
    _, history = train(tmp_path, schedule=schedule, warmup_fraction=0.3, batch_size=97)
    for record in history:
        share = (record["epoch"] - 0.5) / FIT["epochs"]  # the middle of the only batch
        falling = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + np.cos(np.pi * (share - 0.3) / 0.7)),
            "inverse_sqrt": np.sqrt(0.3 / share),
        }[schedule]
        expected = FIT["learning_rate"] * (share / 0.3 if share < 0.3 else falling)
        assert record["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_step(
    tmp_path: Path,
) -> None:
    data = Waves()
    data.nan_at = (2, 3)
    with pytest.raises(
        TrainingError,
        match=r"epoch 2, step 3: loss.*not finite.*learning_rate.*warmup_fraction.*clip_norm",
    ):
        train(tmp_path, data)
    data.nan_at = None
    _, whole = train(tmp_path / "whole", data)
    _, resumed = train(tmp_path, data)
    assert without_times(resumed) == without_times(whole)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(tmp_path: Path, precision: str) -> None:
    before = keras.config.dtype_policy().name
    model, history = train(tmp_path, build=recurrent, precision=precision)
    assert model.layers[1].compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert history[-1]["validation_loss"] < 0.9 * history[0]["validation_loss"]
    assert keras.config.dtype_policy().name == before


def test_batch_normalisation_updates_its_moving_statistics(tmp_path: Path) -> None:
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


def test_a_weight_that_the_loss_does_not_depend_on_is_an_error_that_names_it(
    tmp_path: Path,
) -> None:
    def build() -> keras.Model:
        x = keras.Input((None, 3))
        pool = keras.layers.GlobalMaxPooling1D()(keras.layers.Dense(4, name="unused")(x))
        y = keras.layers.Dense(CLASSES, activation="softmax")(keras.ops.stop_gradient(pool))
        return keras.Model(x, y)

    with pytest.raises(TrainingError, match="unused/kernel"):
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
        ("warmup_fraction", 0.0, "needs a warm-up"),
    ],
)
def test_an_unknown_name_is_an_error_with_near_misses(
    tmp_path: Path, argument: str, value: Any, hint: str
) -> None:
    with pytest.raises(ParamsError, match=rf"fit\.{argument}: .*{hint}"):
        train(tmp_path, **{"schedule": "inverse_sqrt", argument: value})
    assert not list(tmp_path.iterdir())


def test_threads_cannot_change_after_tensorflow_has_started() -> None:
    tf.constant(0) + 1
    current = tf.config.threading.get_intra_op_parallelism_threads()
    with pytest.raises(TrainingError, match="TF_NUM_INTRAOP_THREADS: TensorFlow has started"):
        runtime_of(intra_op=current + 1).__enter__()
    with pytest.raises(TrainingError, match="2 requested, 1 CPU available"):
        runtime_of(devices=2).__enter__()


def test_the_log_has_one_line_for_each_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "ostinato"):
        _, history = train(tmp_path)
    lines = [r.getMessage() for r in caplog.records if r.name == "ostinato"]
    assert len(lines) == len(history)
    assert all(line.startswith(f"epoch {i}/4  loss ") for i, line in enumerate(lines, 1))
    assert "examples/s" in lines[0]
    printed, bar = capfd.readouterr()
    assert printed == ""
    assert "examples/s" not in bar  # no progress bar without a terminal


def test_autotuning_of_the_data_is_off() -> None:
    batches = trainer._batches(Waves(), "train", 16, seed=1, epoch=1)
    assert not batches.options().autotune.enabled


# Directions of metrics


def test_every_metric_has_a_direction() -> None:
    """A metric of a new version of Keras fails here until its direction is listed."""
    functions = {n for n, f in vars(keras.metrics).items() if n.islower() and callable(f)}
    functions -= {"get", "serialize", "deserialize"}
    trainers = {"loss", "accuracy", "perplexity", *losses.FUNCTIONS}
    assert functions | trainers == set(losses.HIGHER_IS_BETTER)


@pytest.mark.parametrize(
    "name", ["sparse_categorical_crossentropy", "sparse_categorical_accuracy", "hinge", "huber"]
)
def test_a_perfect_prediction_is_better_than_a_wrong_one(name: str) -> None:
    sparse = name.startswith("sparse")
    truth = np.array([0, 1]) if sparse else np.array([[1.0, -1.0], [-1.0, 1.0]])
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.1, 0.9], [0.9, 0.1]])
    if not sparse:
        right, wrong = 2 * right - 1, 2 * wrong - 1
    function = getattr(keras.metrics, name)
    better, worse = (float(np.mean(function(truth, x))) for x in (right, wrong))
    assert (better > worse) == losses.HIGHER_IS_BETTER[name]


def test_the_best_epoch_is_the_first_of_equals() -> None:
    history = [{"validation_loss": v, "accuracy": 1 - v} for v in (3.0, 1.0, 1.0, 2.0)]
    assert best_epoch(history, "validation_loss") == best_epoch(history, "accuracy") == 2
    assert best_epoch(history, "validation_loss", {"loss": True}) == 1
    assert best_epoch([], "loss") == 0


def test_a_metric_of_unknown_direction_is_an_error() -> None:
    with pytest.raises(ParamsError, match=r"'validation_acuracy'.*did you mean 'accuracy'"):
        best_epoch([], "validation_acuracy")

    @keras.saving.register_keras_serializable(package="tests", name="margin")
    def margin(truth: Any, prediction: Any) -> Any:
        return keras.ops.max(prediction, axis=-1)

    options: dict[str, Any] = {**FIT, "metrics": ["tests>margin"]}
    options = {
        k: options[k] for k in ("loss", "metrics", "optimizer", "learning_rate", "clip_norm")
    }
    with pytest.raises(ParamsError, match=r"'tests>margin'.*attribute higher_is_better"):
        SupervisedStep(pooled(), **options)
    margin.higher_is_better = True
    assert SupervisedStep(pooled(), **options).metrics["tests>margin"]


# Other steps


class Frames(Waves):
    """Batches without a target: the first frame of each sequence, (batch, 3)."""

    def batches(self, split: str, **options: Any) -> tf.data.Dataset:
        return super().batches(split, **options).map(lambda x, y: x[:, 0])


class AutoencoderStep:
    """Learn to reconstruct the input: one optimiser, no target."""

    metrics, diagnostics = {"loss": False}, ("gradient_norm",)

    def __init__(self, model: keras.Model) -> None:
        self.model, self.optimizer = model, keras.optimizers.Adam(0.02)
        self.optimizer.build(model.trainable_variables)
        self.models, self.optimizers = (model,), (self.optimizer,)

    def train(self, batch: Any) -> Sums:
        with tf.GradientTape() as tape:
            loss, sums = self.measure(batch, training=True)
        norm = minimise(tape, loss, self.optimizer, self.model.trainable_weights, 1.0)
        return {**sums, "gradient_norm": norm}

    def test(self, batch: Any) -> Sums:
        return self.measure(batch, training=False)[1]

    def measure(self, batch: Any, training: bool) -> tuple[tf.Tensor, Sums]:
        x, share = part_of_batch(batch)
        loss = share * tf.reduce_mean(tf.square(self.model(x, training=training) - x))
        examples = tf.cast(batch_length(batch), tf.float32)
        return loss, {"loss": (loss * examples, share * examples)}


class AdversarialStep:
    """A generator against a discriminator, with an optimiser each (Goodfellow et al. 2014)."""

    metrics, diagnostics = {"generator_loss": False, "discriminator_loss": False}, ()

    def __init__(self, generator: keras.Model, discriminator: keras.Model) -> None:
        self.models = (generator, discriminator)
        self.optimizers = (keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.05))
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            optimizer.build(model.trainable_variables)

    def train(self, batch: Any) -> Sums:
        with tf.GradientTape(persistent=True) as tape:
            found, sums = self.measure(batch)
        for loss, model, optimizer in zip(found, self.models, self.optimizers, strict=True):
            minimise(tape, loss, optimizer, model.trainable_weights, 0.0)
        return sums

    def test(self, batch: Any) -> Sums:
        return self.measure(batch)[1]

    def measure(self, batch: Any) -> tuple[list[tf.Tensor], Sums]:
        x, share = part_of_batch(batch)
        generator, discriminator = self.models
        generated, real = discriminator(generator(x[:, ::-1])), discriminator(x)
        values = [
            share * tf.reduce_mean(tf.nn.softplus(-generated)),
            share * tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(generated)),
        ]
        examples = tf.cast(batch_length(batch), tf.float32)
        means = [(loss * examples, share * examples) for loss in values]
        return values, dict(zip(self.metrics, means, strict=True))


def dense(units: int, dropout: float = 0.0) -> keras.Model:
    layers = keras.layers
    first, last = layers.Dense(4, "tanh"), layers.Dense(units)
    return keras.Sequential([keras.Input((3,)), first, layers.Dropout(dropout), last])


def autoencoder() -> AutoencoderStep:
    return AutoencoderStep(dense(3, DROPOUT))


def adversarial() -> AdversarialStep:
    return AdversarialStep(dense(3), dense(1))


def train_step(
    folder: Path, build: Callable[[], Any], data: Any = None, devices: int = 1, **changed: Any
) -> tuple[list[np.ndarray], list[Record]]:
    """The weights and the history of a training with another step."""
    options: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 16,
        "schedule": "cosine",
        "warmup_fraction": 0.1,
        "monitor": "validation_loss",
        "patience": 10,
    }
    with runtime_of(devices=devices):
        step = build()
        context = TrainingContext(folder, 1)
        data = Frames() if data is None else data
        history = trainer.train(step, data, context, **{**options, **changed})
        return [w for model in step.models for w in weights(model)], history


WITHOUT_DROPOUT: dict[str, Callable[[], Any]] = {
    "validation_loss": lambda: AutoencoderStep(dense(3)),
    "validation_generator_loss": adversarial,
}
BUILDS: dict[str, Callable[[], Any]] = {
    "validation_loss": autoencoder,
    "validation_generator_loss": adversarial,
}


@pytest.mark.parametrize("monitor", BUILDS)
def test_a_step_of_another_kind_resumes_with_the_same_weights(tmp_path: Path, monitor: str) -> None:
    build = BUILDS[monitor]
    whole, expected = train_step(tmp_path / "whole", build, monitor=monitor)
    data = Frames()
    data.nan_at = (3, 2)
    with pytest.raises(TrainingError, match=r"epoch 3, step 2: .*loss.* not finite"):
        train_step(tmp_path / "crashed", build, data, monitor=monitor)
    resumed, history = train_step(tmp_path / "crashed", build, monitor=monitor)
    assert equal(resumed, whole)
    assert without_times(history) == without_times(expected)
    names = list(build().metrics)
    assert [k for k in history[0] if k.startswith("validation_")] == [
        f"validation_{n}" for n in names
    ]


def test_an_autoencoder_learns_and_reports_its_diagnostics(tmp_path: Path) -> None:
    _, history = train_step(tmp_path, autoencoder)
    assert history[-1]["validation_loss"] < 0.8 * history[0]["validation_loss"]
    assert all(record["gradient_norm"] > 0 for record in history)


def test_two_optimisers_keep_their_own_learning_rates(tmp_path: Path) -> None:
    with runtime_of():
        step = adversarial()
        trainer.train(
            step,
            Frames(),
            TrainingContext(tmp_path, 1),
            epochs=1,
            batch_size=97,
            schedule="cosine",
            warmup_fraction=0.0,
            monitor="generator_loss",
            patience=1,
        )
    factor = float(schedules.factor("cosine", 0.0, tf.constant(0.5)))  # the middle of one batch
    rates = [float(optimizer.learning_rate.numpy()) for optimizer in step.optimizers]
    assert rates == pytest.approx([0.01 * factor, 0.05 * factor])


def test_two_devices_train_another_step_as_one_device_does(
    tmp_path: Path, two_devices: Path
) -> None:
    for monitor, build in WITHOUT_DROPOUT.items():
        options: dict[str, Any] = {"monitor": monitor, "batch_size": 32, "epochs": 2}
        one, _ = train_step(tmp_path / monitor, build, **options)
        two = store.read_arrays(two_devices / f"{monitor}.npz").values()
        for here, there in zip(one, two, strict=True):
            np.testing.assert_allclose(there, here, atol=1e-5)


# Saved models


def test_a_restored_model_gives_the_same_outputs_for_any_batch(tmp_path: Path) -> None:
    with runtime_of():
        model = recurrent(DROPOUT)
    keras_model.save(model, tmp_path / "one")
    keras_model.save(model, tmp_path / "other")
    files = [tmp_path / name / "model.keras" for name in ("one", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()
    restored: Any = keras_model.restore(tmp_path / "one")
    assert restored.parameters == sum(weight.size for weight in weights(restored.model))
    generator = np.random.default_rng(0)
    for shape in ((1, 5, 3), (7, 9, 3)):
        x = generator.normal(size=shape).astype(np.float32)
        outputs = restored(x)
        assert isinstance(outputs, np.ndarray)
        np.testing.assert_allclose(outputs, model(x, training=False), atol=1e-6)
    assert restored._graph.experimental_get_tracing_count() == 1


def test_a_model_with_named_inputs_ignores_other_arrays() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((None,), dtype="int32", name="b")
    total = keras.ops.sum(b, axis=-1, keepdims=True)
    model = keras.Model(
        {"b": b, "a": a}, {"sum": total, "product": a * keras.ops.cast(total, "float32")}
    )
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.full((2, 4), 2, np.int32)}
    outputs = keras_model.KerasModel(model)({**arrays, "keys": np.array(["x", "y"])})
    np.testing.assert_array_equal(outputs["sum"], [[8], [8]])
    np.testing.assert_array_equal(outputs["product"], np.full((2, 3), 8))


# Imports


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != imports.LOG_LEVEL}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_keras_is_imported_without_log_lines_and_packages_that_it_does_not_need() -> None:
    found = run_python(
        "import sys\n"
        "from ostinato.training.imports import OPTIONAL, import_keras_quietly\n"
        "assert 'tensorflow' not in sys.modules\n"
        "import_keras_quietly()\n"
        "import keras\n"
        "assert not set(OPTIONAL) & set(sys.modules), sorted(sys.modules)\n"
        "import_keras_quietly()\n"
        "import sklearn.base, matplotlib.pyplot\n"
        "from sklearn.linear_model import LinearRegression\n"
        "assert LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0]).coef_[0] > 1.9\n"
        "try:\n"
        "    keras.wrappers.SKLearnClassifier(keras.Sequential())\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    assert "scikit-learn" in found.stdout


def test_only_packages_that_are_not_imported_are_hidden() -> None:
    module = "wsgiref.handlers"
    sys.modules.pop(module, None)  # another test may have imported it
    with imports._not_installed("json", module):
        assert importlib.import_module("json") is json
        with pytest.raises(ModuleNotFoundError, match="wsgiref"):
            importlib.import_module(module)
    assert importlib.import_module(module).__name__ == module


def test_an_import_that_fails_prints_what_was_held_back(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'no driver\\n')\nraise ImportError('torn library')\n"
    )
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ostinato.training.imports import import_keras_quietly\n"
        "try:\n"
        "    import_keras_quietly()\n"
        "finally:\n"
        "    assert 'sklearn' not in sys.modules\n"
    )
    found = run_python(code)
    assert "no driver" in found.stderr
    assert "ImportError: torn library" in found.stderr
    assert "AssertionError" not in found.stderr


# Benchmark


def test_the_benchmark_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.training", "--toy", "--per-class", "8"]
    command += ["--batch-size", "64", "--rounds", "1"]
    found = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "times as fast  plain Keras" in found.stdout, found.stderr
