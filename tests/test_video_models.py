"""Padding, batching and saving of video models and their layers; training in two phases."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from ostinato import models, params, store
from ostinato.errors import ParamsError
from ostinato.task import Part, TrainingContext
from ostinato.training import trainer
from ostinato.training.keras_model import restore, save
from ostinato.video.layers import FrameMask, FrameNormalisation, Pad, SelectFrame, Unpad
from ostinato.video.models import cnn_rnn

Inputs = dict[str, NDArray[Any]]

DATA = SimpleNamespace(classes=list("abc"), height=9, width=12, channels=1)
RNN: dict[str, Any] = {
    "backbone": None,
    "weights": None,
    "filters": [4, 6],
    "kernel_size": 3,
    "features": 5,
    "units": 4,
    "num_layers": 2,
    "dropout": 0.0,
}
BUILDS: dict[str, tuple[str, dict[str, Any]]] = {
    "c3d": (
        "c3d",
        {"filters": [4, 6, 4], "depths": [1, 2, 1], "kernel_size": 3, "units": 16, "dropout": 0.0},
    ),
    "cnn_lstm": ("cnn_rnn", {**RNN, "cell": "lstm"}),
    "cnn_gru": ("cnn_rnn", {**RNN, "cell": "gru"}),
    "conv_lstm": ("conv_lstm", {"filters": [3, 4], "kernel_size": 3, "units": 16, "dropout": 0.0}),
    "r2plus1d": (
        "r2plus1d",
        {"filters": [4, 6], "depths": [1, 1], "kernel_size": 3, "dropout": 0.0},
    ),
    "single_frame": (
        "single_frame",
        {"filters": [4, 6], "kernel_size": 3, "units": 16, "dropout": 0.0},
    ),
}
FRAMES = np.array([6, 3, 1, 5], np.int32)


def built(name: str) -> Any:
    keras.utils.set_random_seed(3)
    module, block = BUILDS[name]
    return params.bind(models.load("video", module).build, block)(DATA)


@pytest.fixture(scope="module", params=BUILDS)
def model(request: pytest.FixtureRequest) -> Any:
    return built(request.param)


def clips(seed: int = 0) -> Inputs:
    """Four clips of unequal length, padded to the longest."""
    clip = np.random.default_rng(seed).random((4, 6, 9, 12, 1), np.float32)
    clip[np.arange(6) >= FRAMES[:, None]] = 0
    return {"clip": clip, "frames": FRAMES}


def padded(x: Inputs) -> Inputs:
    return {**x, "clip": np.pad(x["clip"], ((0, 0), (0, 3), (0, 0), (0, 0), (0, 0)))}


def predictions(model: Any, x: Inputs) -> NDArray[Any]:
    return np.asarray(model(x, training=False))


def training_step(model: Any, x: Inputs) -> list[NDArray[Any]]:
    """Predictions, gradients and new moving averages of a training step; weights are unchanged."""
    before = [variable.numpy() for variable in model.variables]
    weights = [weight.value for weight in model.trainable_weights]
    labels = tf.constant([0, 1, 2, 0])
    with tf.GradientTape() as tape:
        p = model(x, training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, p))
    tensors = [p, *tape.gradient(loss, weights), *model.non_trainable_weights]
    arrays = [np.asarray(tensor) for tensor in tensors]
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return arrays


def test_padding_changes_no_prediction(model: Any) -> None:
    x = clips()
    np.testing.assert_allclose(predictions(model, padded(x)), predictions(model, x), atol=1e-6)


def test_padding_changes_no_gradient_and_no_moving_average(model: Any) -> None:
    one, other = training_step(model, clips()), training_step(model, padded(clips()))
    for expected, found in zip(one, other, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_prediction_does_not_depend_on_the_batch(model: Any) -> None:
    x = clips()
    whole = predictions(model, x)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    for i, frames in enumerate(FRAMES):
        alone = {"clip": x["clip"][i : i + 1, :frames], "frames": FRAMES[i : i + 1]}
        np.testing.assert_allclose(predictions(model, alone)[0], whole[i], atol=1e-5)


def test_only_the_single_frame_baseline_ignores_the_other_frames(model: Any, request: Any) -> None:
    name = request.node.callspec.params["model"]
    x = clips()
    backwards = {**x, "clip": x["clip"][:, ::-1]}
    same = {"clip": x["clip"][:1].copy(), "frames": FRAMES[:1]}
    same["clip"][:, [0, 1, 2, 4, 5]] += 0.5
    differs = np.abs(predictions(model, same) - predictions(model, x)[:1]).max()
    if name == "single_frame":
        assert differs < 1e-6
    else:
        assert differs > 1e-5
        assert np.abs(predictions(model, backwards) - predictions(model, x))[0].max() > 1e-6


def test_a_saved_model_predicts_the_same(model: Any, tmp_path: Path) -> None:
    save(model, tmp_path)
    restored = restore(tmp_path)
    np.testing.assert_allclose(restored(clips()), predictions(model, clips()), atol=1e-6)
    assert restored.parameters == model.count_params()
    assert len(restored.model.get_layer("map").output.shape) == 5


def test_a_factorised_convolution_has_as_many_weights_as_the_full_one() -> None:
    from ostinato.video.models.r2plus1d import factorised_conv

    inputs = keras.Input((None, 8, 8, 16))
    parts = keras.Model(inputs, factorised_conv(inputs, keras.ops.ones((1, 1), "bool"), 24, 3))
    kernels = [w for w in parts.trainable_weights if len(w.shape) == 5]
    assert [tuple(k.shape[:3]) for k in kernels] == [(1, 3, 3), (3, 1, 1)]
    found = sum(int(np.prod(k.shape)) for k in kernels)
    assert 0.98 < found / (3 * 3 * 3 * 16 * 24) <= 1


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_normalises_as_keras_batch_normalisation(training: bool) -> None:
    x = np.random.default_rng(1).normal(2, 3, (3, 4, 5, 6, 2)).astype(np.float32)
    ours, reference = FrameNormalisation(0.8), keras.layers.BatchNormalization(momentum=0.8)
    np.testing.assert_allclose(
        ours(x, mask=np.ones((3, 4), bool), training=training),
        reference(x, training=training),
        atol=1e-5,
    )
    n = x.size / 2
    mean, variance = (np.asarray(w) for w in reference.non_trainable_weights)
    found_mean, found = (np.asarray(w) for w in ours.non_trainable_weights)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-5)
    unbiased = 0.8 + (variance - 0.8) * n / (n - 1) if training else variance
    np.testing.assert_allclose(found, unbiased, rtol=1e-4)


def test_padding_frames_do_not_change_the_moments_and_are_zero() -> None:
    x, layer = clips(), FrameNormalisation()
    mask = np.arange(6) < FRAMES[:, None]
    noise = np.where(mask[..., None, None, None], x["clip"], 99)
    out = np.asarray(layer(noise, mask=mask, training=True))
    assert (out[~mask] == 0).all()
    real = noise[mask]
    expected = (real - real.mean()) / np.sqrt(real.var() + layer.epsilon)
    np.testing.assert_allclose(out[mask], expected, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * real.mean(), rtol=1e-4)
    inference = np.asarray(layer(noise, mask=mask, training=False))
    assert (inference[~mask] == 0).all()


def test_pad_is_the_inverse_of_unpad() -> None:
    x = clips()
    mask = FrameMask()(x["clip"], x["frames"])
    real = Unpad()(x["clip"], mask)
    assert len(real) == FRAMES.sum()
    np.testing.assert_array_equal(Pad()(real, mask), x["clip"])
    middle = np.asarray(SelectFrame()(x["clip"], x["frames"] // 2))
    np.testing.assert_array_equal(middle, [x["clip"][i, n // 2] for i, n in enumerate(FRAMES)])


def preprocess_input(x: Any) -> Any:
    """Preprocessing of `toy`: `Preprocess` looks for this name in the module of the network."""
    return x / 255


def toy(*, include_top: bool, weights: str, input_shape: tuple[int, ...], name: str) -> Any:
    """A network with the interface of keras.applications."""
    assert not include_top
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=3)(inputs)
    model = keras.Model(inputs, keras.layers.BatchNormalization()(x), name=name)
    if weights != "imagenet":
        model.load_weights(weights)
    return model


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights of the network ``Toy``, which is added to keras.applications."""
    monkeypatch.setattr(keras.applications, "Toy", toy, raising=False)
    file = tmp_path / "toy.weights.h5"
    model = toy(include_top=False, weights="imagenet", input_shape=(9, 12, 3), name="toy")
    model.set_weights([np.full(w.shape, 0.25 + i, w.dtype) for i, w in enumerate(model.weights)])
    model.save_weights(file)
    return file


class TwoBatches:
    """A data set of two batches, always the same; the class decides the brightness."""

    def size(self, split: str) -> int:
        return 8

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        y = np.arange(8, dtype=np.int32) % 3
        x = {
            "clip": np.concatenate([clips(i)["clip"] for i in (0, 1)]),
            "frames": np.tile(FRAMES, 2),
        }
        x["clip"] *= (1 + y[:, None, None, None, None]) / 3
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


FIT: dict[str, Any] = {
    "frozen_epochs": 2,
    "frozen_learning_rate": 0.01,
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "adam",
    "loss": "sparse_categorical_crossentropy",
    "metrics": [],
    "learning_rate": 0.01,
    "warmup_fraction": 0.0,
    "schedule": "constant",
    "clip_norm": 1.0,
    "monitor": "loss",
    "patience": 9,
}

Fitted = Callable[..., tuple[Any, list[Any], list[Any]]]


@pytest.fixture
def fitted(backbone: Path, tmp_path: Path) -> Fitted:
    """A function that trains a model with the backbone.

    Returns the model, its history, and the weights of the backbone before and after each epoch.
    """

    def fit(**changes: Any) -> tuple[Any, list[Any], list[Any]]:
        keras.utils.clear_session(
            free_memory=False
        )  # layer names start from scratch, as in a new process
        keras.utils.set_random_seed(3)
        block = {**RNN, "cell": "gru", "backbone": "Toy", "weights": str(backbone)}
        model = cnn_rnn.build(DATA, **block)
        weights = [model.get_layer("backbone").get_weights()]

        def on_epoch(record: Any) -> None:
            weights.append(model.get_layer("backbone").get_weights())

        history = cnn_rnn.fit(
            model,
            TwoBatches(),
            TrainingContext(tmp_path / "checkpoints", 5, on_epoch),
            **FIT | changes,
        )
        return model, history, weights

    return fit


def same(one: list[Any], other: list[Any]) -> bool:
    return all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_backbone_is_trained_in_the_second_phase_only(fitted: Fitted, tmp_path: Path) -> None:
    model, history, (file, *epochs) = fitted()
    assert (file[0] == 0.25).all(), "the weights of the file were not loaded"
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert same(file, epochs[0])
    assert same(file, epochs[1])
    assert not same(file, epochs[3])
    assert same(file[2:], epochs[3][2:]), "batch normalisation was trained"
    store.write_model(tmp_path / "model.keras", model)
    (tmp_path / "toy.weights.h5").rename(tmp_path / "unused.h5")  # not needed to load the model
    loaded = store.read_model(tmp_path / "model.keras")
    (tmp_path / "unused.h5").rename(tmp_path / "toy.weights.h5")
    np.testing.assert_array_equal(predictions(loaded, clips()), predictions(model, clips()))
    again, history_again, _ = fitted()  # resumes from the last checkpoint of each phase
    assert history_again == history
    assert same(model.get_weights(), again.get_weights())


def test_a_second_phase_that_does_not_improve_the_model_is_undone(fitted: Fitted) -> None:
    model, history, (file, *_) = fitted(learning_rate=10.0, clip_norm=0.0)
    assert trainer.best_epoch(history, "loss") <= 2
    assert same(model.get_layer("backbone").get_weights(), file)


@pytest.mark.parametrize(
    ("build", "fit", "message"),
    [
        ({"backbone": "MobileNetV22", "weights": "imagenet"}, {}, "did you mean 'MobileNetV2"),
        ({"backbone": "MobileNetV2"}, {}, "a backbone needs weights, `imagenet` or a file"),
        (
            {},
            {"frozen_epochs": 1},
            "fit.frozen_epochs: 1, but build.backbone is null; use 0",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_an_error(
    build: dict[str, Any], fit: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=message.replace("(", r"\(")):
        model = cnn_rnn.build(DATA, **{**RNN, "cell": "gru", **build})
        cnn_rnn.fit(model, TwoBatches(), TrainingContext(tmp_path, 5), **FIT | fit)


@pytest.mark.slow
def test_mobilenet_is_a_backbone_that_is_trained_in_the_second_phase(tmp_path: Path) -> None:
    data = SimpleNamespace(classes=list("abc"), height=32, width=40, channels=1)
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 40, 3)
    )
    network.save_weights(tmp_path / "mobile.weights.h5")
    block = {"backbone": "MobileNetV2", "weights": str(tmp_path / "mobile.weights.h5")}
    model = cnn_rnn.build(data, **{**RNN, "cell": "lstm", **block})
    clip = np.random.default_rng(0).random((2, 3, 32, 40, 1), np.float32)
    found = predictions(model, {"clip": clip, "frames": np.array([3, 3], np.int32)})
    features = network(np.repeat(clip[0], 3, axis=-1) * 2 - 1, training=False)
    inner = keras.Model(model.input, model.get_layer("map").output)
    maps = inner({"clip": clip, "frames": np.array([3, 3], np.int32)})
    np.testing.assert_allclose(maps[0], features, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)

    class OneBatch:
        """A data set of one batch of two clips."""

        def size(self, split: str) -> int:
            return 2

        def batches(
            self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
        ) -> Any:
            x = {"clip": clip, "frames": np.array([3, 2], np.int32)}
            return tf.data.Dataset.from_tensor_slices((x, np.array([0, 2], np.int32))).batch(2)

    weights = model.get_layer("backbone").weights
    history_of_weights = [[weight.numpy() for weight in weights]]

    def on_epoch(record: Any) -> None:
        history_of_weights.append([weight.numpy() for weight in weights])

    phases = FIT | {"frozen_epochs": 1, "epochs": 1}
    history = cnn_rnn.fit(
        model, OneBatch(), TrainingContext(tmp_path / "checkpoints", 5, on_epoch), **phases
    )
    file, frozen, trained = history_of_weights
    assert [record["epoch"] for record in history] == [1, 2]
    assert same(file, frozen)
    changed = [(a != b).any() for a, b in zip(file, trained, strict=True)]
    kinds = {w.path.split("/")[-1] for w, new in zip(weights, changed, strict=True) if new}
    assert kinds == {"kernel"}, "batch normalisation was trained, or no kernel was"
    store.write_model(tmp_path / "model.keras", model)
    (tmp_path / "mobile.weights.h5").unlink()
    x = {"clip": clip, "frames": np.array([3, 2], np.int32)}
    loaded = predictions(store.read_model(tmp_path / "model.keras"), x)
    np.testing.assert_allclose(loaded, predictions(model, x), atol=1e-5)
