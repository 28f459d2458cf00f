"""Laws of the models of clips, and of their layers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from ostinato import params, store
from ostinato.errors import ParamsError
from ostinato.task import TrainingContext
from ostinato.training import trainer
from ostinato.video.layers import FrameNormalisation, Pad, Pick, Real, Unpad
from ostinato.video.models import cnn_rnn

Inputs = dict[str, NDArray[Any]]

DATA = SimpleNamespace(classes=list("abc"), height=9, width=12, channels=1)
RNN: dict[str, Any] = {
    "backbone": None, "weights": None, "filters": [4, 6], "kernel_size": 3, "features": 5, "units": 4,
    "num_layers": 2, "dropout": 0.0,
}  # fmt: skip
BUILDS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn3d": (
        "cnn3d",
        {"filters": [4, 6, 4], "depths": [1, 2, 1], "kernel_size": 3, "units": 16, "dropout": 0.0},
    ),
    "cnn_lstm": ("cnn_rnn", {**RNN, "cell": "lstm"}),
    "cnn_gru": ("cnn_rnn", {**RNN, "cell": "gru"}),
    "conv_lstm": ("conv_lstm", {"filters": [3, 4], "kernel_size": 3, "units": 16, "dropout": 0.0}),
    "factorised3d": (
        "factorised3d",
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
    file, block = BUILDS[name]
    return params.bind(params.module("video", file).build, block)(DATA)


@pytest.fixture(scope="module", params=BUILDS)
def model(request: pytest.FixtureRequest) -> Any:
    return built(request.param)


def clips(seed: int = 0) -> Inputs:
    """Four clips of unequal length, padded to the longest."""
    clip = np.random.default_rng(seed).random((4, 6, 9, 12, 1), np.float32)
    clip[np.arange(6) >= FRAMES[:, None]] = 0
    return {"clip_norm": clip, "frames": FRAMES}


def longer(x: Inputs) -> Inputs:
    return {**x, "clip_norm": np.pad(x["clip"], ((0, 0), (0, 3), (0, 0), (0, 0), (0, 0)))}


def answers(model: Any, x: Inputs) -> NDArray[Any]:
    return np.asarray(model(x, training=False))


def trained(model: Any, x: Inputs) -> list[NDArray[Any]]:
    """What a step of training has of a batch: answers, gradients, moments to keep."""
    before = [variable.numpy() for variable in model.variables]
    weights = [weight.value for weight in model.trainable_weights]
    labels = tf.constant([0, 1, 2, 0])
    with tf.GradientTape() as tape:
        p = model(x, training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, p))
    found = [p, *tape.gradient(loss, weights), *model.non_trainable_weights]
    arrays = [np.asarray(tensor) for tensor in found]
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    return arrays


def test_padding_changes_nothing(model: Any) -> None:
    x = clips()
    np.testing.assert_allclose(answers(model, longer(x)), answers(model, x), atol=1e-6)


def test_padding_changes_nothing_that_is_learned(model: Any) -> None:
    one, other = trained(model, clips()), trained(model, longer(clips()))
    for whole, padded in zip(one, other, strict=True):
        np.testing.assert_allclose(padded, whole, atol=1e-5)


def test_company_changes_no_answer(model: Any) -> None:
    x = clips()
    whole = answers(model, x)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    for i, frames in enumerate(FRAMES):
        alone = {"clip_norm": x["clip_norm"][i : i + 1, :frames], "frames": FRAMES[i : i + 1]}
        np.testing.assert_allclose(answers(model, alone)[0], whole[i], atol=1e-5)


def test_only_the_control_ignores_all_frames_but_one(model: Any, request: Any) -> None:
    name = request.node.callspec.params["model"]
    x = clips()
    backwards = {**x, "clip_norm": x["clip_norm"][:, ::-1]}
    same = {"clip_norm": x["clip_norm"][:1].copy(), "frames": FRAMES[:1]}
    same["clip_norm"][:, [0, 1, 2, 4, 5]] += 0.5
    differs = np.abs(answers(model, same) - answers(model, x)[:1]).max()
    if name == "single_frame":
        assert differs < 1e-6
    else:
        assert differs > 1e-5
        assert np.abs(answers(model, backwards) - answers(model, x))[0].max() > 1e-6


def test_a_file_keeps_a_model(model: Any, tmp_path: Path) -> None:
    store.write_model(tmp_path / "model.keras", model)
    loaded = store.read_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(answers(loaded, clips()), answers(model, clips()))
    assert len(loaded.get_layer("map").output.shape) == 5


def test_both_parts_of_a_factorised_convolution_have_the_weights_of_the_whole() -> None:
    from ostinato.video.models.r2plus1d import factorised

    given = keras.Input((None, 8, 8, 16))
    parts = keras.Model(given, factorised(given, keras.ops.ones((1, 1), "bool"), 24, 3))
    kernels = [w for w in parts.trainable_weights if len(w.shape) == 5]
    assert [tuple(k.shape[:3]) for k in kernels] == [(1, 3, 3), (3, 1, 1)]
    found = sum(int(np.prod(k.shape)) for k in kernels)
    assert 0.98 < found / (3 * 3 * 3 * 16 * 24) <= 1


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_kernel_normalises_as_keras_does(training: bool) -> None:
    x = np.random.default_rng(1).normal(2, 3, (3, 4, 5, 6, 2)).astype(np.float32)
    ours, keras_own = FrameNormalisation(0.8), keras.layers.BatchNormalization(momentum=0.8)
    np.testing.assert_allclose(
        ours(x, mask=np.ones((3, 4), bool), training=trainer),
        keras_own(x, training=trainer),
        atol=1e-5,
    )
    n = x.size / 2
    mean, variance = (np.asarray(w) for w in keras_own.non_trainable_weights)
    found_mean, found = (np.asarray(w) for w in ours.non_trainable_weights)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-5)
    unbiased = 0.8 + (variance - 0.8) * n / (n - 1) if trainer else variance
    np.testing.assert_allclose(found, unbiased, rtol=1e-4)


def test_only_real_frames_are_normalised_and_counted() -> None:
    x, layer = clips(), FrameNormalisation()
    mask = np.arange(6) < FRAMES[:, None]
    noise = np.where(mask[..., None, None, None], x["clip"], 99)
    out = np.asarray(layer(noise, mask=mask, training=True))
    assert (out[~mask] == 0).all()
    real = noise[mask]
    expected = (real - real.mean()) / np.sqrt(real.var() + layer.epsilon)
    np.testing.assert_allclose(out[mask], expected, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * real.mean(), rtol=1e-4)
    still = np.asarray(layer(noise, mask=mask, training=False))
    assert (still[~mask] == 0).all()


def test_padding_that_is_taken_away_comes_back_as_zeroes() -> None:
    x = clips()
    mask = Real()(x["clip"], x["frames"])
    real = Unpad()(x["clip"], mask)
    assert len(real) == FRAMES.sum()
    np.testing.assert_array_equal(Pad()(real, mask), x["clip"])
    middle = np.asarray(Pick()(x["clip"], x["frames"] // 2))
    np.testing.assert_array_equal(middle, [x["clip_norm"][i, n // 2] for i, n in enumerate(FRAMES)])


def preprocess_input(x: Any) -> Any:
    """What keras.applications calls so; this file stands in for a module of theirs."""
    return x / 255


def toy(*, include_top: bool, weights: str, input_shape: tuple[int, ...], name: str) -> Any:
    """As a network of keras.applications: coloured pictures to features."""
    assert not include_top
    given = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=3)(given)
    model = keras.Model(given, keras.layers.BatchNormalization()(x), name=name)
    if weights != "imagenet":
        model.load_weights(weights)
    return model


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of weights of ``Toy``, which stands among keras.applications."""
    monkeypatch.setattr(keras.applications, "Toy", toy, raising=False)
    file = tmp_path / "toy.weights.h5"
    model = toy(include_top=False, weights="imagenet", input_shape=(9, 12, 3), name="toy")
    model.set_weights([np.full(w.shape, 0.25 + i, w.dtype) for i, w in enumerate(model.weights)])
    model.save_weights(file)
    return file


class Clips:
    """A data set of the same two batches, which brightness tells apart."""

    def size(self, split: str) -> int:
        return 8

    def batches(self, split: str, *, batch_size: int, seed: int | None, epoch: int) -> Any:
        y = np.arange(8, dtype=np.int32) % 3
        x = {
            "clip_norm": np.concatenate([clips(i)["clip"] for i in (0, 1)]),
            "frames": np.tile(FRAMES, 2),
        }
        x["clip"] *= (1 + y[:, None, None, None, None]) / 3
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


FIT: dict[str, Any] = {
    "frozen_epochs": 2, "frozen_learning_rate": 0.01, "epochs": 2, "batch_size": 4, "optimizer": "adam",
    "loss": "sparse_categorical_crossentropy", "metrics": [], "learning_rate": 0.01, "warmup_fraction": 0.0,
    "schedule": "constant", "clip_norm": 1.0, "monitor": "loss", "patience": 9,
}  # fmt: skip

Fitted = Callable[..., tuple[Any, list[Any], list[Any]]]


@pytest.fixture
def fitted(backbone: Path, tmp_path: Path) -> Fitted:
    """A model with the backbone, its history, and the backbone's weights after each epoch."""

    def fit(**changes: Any) -> tuple[Any, list[Any], list[Any]]:
        keras.utils.clear_session(free_memory=False)  # names begin afresh, as for a new process
        keras.utils.set_random_seed(3)
        block = {**RNN, "cell": "gru", "backbone": "Toy", "weights": str(backbone)}
        model = cnn_rnn.build(DATA, **block)
        seen = [model.get_layer("backbone").get_weights()]

        def on_epoch(record: Any) -> None:
            seen.append(model.get_layer("backbone").get_weights())

        history = cnn_rnn.fit(
            model, Clips(), TrainingContext(tmp_path / "kept", 5, on_epoch), **FIT | changes
        )
        return model, history, seen

    return fit


def same(one: list[Any], other: list[Any]) -> bool:
    return all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_backbone_learns_in_the_second_phase_alone(fitted: Fitted, tmp_path: Path) -> None:
    model, history, (file, *epochs) = fitted()
    assert (file[0] == 0.25).all(), "the file's weights are not there"
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert same(file, epochs[0])
    assert same(file, epochs[1])
    assert not same(file, epochs[3])
    assert same(file[2:], epochs[3][2:]), "batch normalisation has moved"
    store.write_model(tmp_path / "model.keras", model)
    loaded = store.read_model(tmp_path / "model.keras")  # without a look at the file of weights
    np.testing.assert_array_equal(answers(loaded, clips()), answers(model, clips()))
    again, history_again, _ = fitted()  # resumes at the end of both
    assert history_again == history
    assert same(model.get_weights(), again.get_weights())


def test_a_second_phase_of_no_use_is_undone(fitted: Fitted) -> None:
    model, history, (file, *_) = fitted(rate=10.0, clip=0.0)
    assert trainer.best_epoch(history, "loss") <= 2
    assert same(model.get_layer("backbone").get_weights(), file)


@pytest.mark.parametrize(
    ("build", "fit", "message"),
    [
        ({"backbone": "MobileNetV22", "weights": "imagenet"}, {}, "did you mean 'MobileNetV2"),
        ({"backbone": "MobileNetV2"}, {}, "a backbone needs some, `imagenet` or a file"),
        (
            {},
            {"frozen_epochs": 1},
            "fit.frozen_epochs: 1 epochs, but build.backbone is null; use 0",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    build: dict[str, Any], fit: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=message.replace("(", r"\(")):
        model = cnn_rnn.build(DATA, **{**RNN, "cell": "gru", **build})
        cnn_rnn.fit(model, Clips(), TrainingContext(tmp_path, 5), **FIT | fit)


@pytest.mark.slow
def test_a_network_of_keras_reads_clips_and_learns_in_the_second_phase(tmp_path: Path) -> None:
    data = SimpleNamespace(classes=list("abc"), height=32, width=40, channels=1)
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 40, 3)
    )
    network.save_weights(tmp_path / "mobile.weights.h5")
    block = {"backbone": "MobileNetV2", "weights": str(tmp_path / "mobile.weights.h5")}
    model = cnn_rnn.build(data, **{**RNN, "cell": "lstm", **block})
    clip = np.random.default_rng(0).random((2, 3, 32, 40, 1), np.float32)
    found = answers(model, {"clip_norm": clip, "frames": np.array([3, 3], np.int32)})
    features = network(np.repeat(clip[0], 3, axis=-1) * 2 - 1, training=False)
    inner = keras.Model(model.input, model.get_layer("map").output)
    maps = inner({"clip_norm": clip, "frames": np.array([3, 3], np.int32)})
    np.testing.assert_allclose(maps[0], features, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)

    class Two:
        def size(self, split: str) -> int:
            return 2

        def batches(self, split: str, *, batch_size: int, seed: int | None, epoch: int) -> Any:
            x = {"clip_norm": clip, "frames": np.array([3, 2], np.int32)}
            return tf.data.Dataset.from_tensor_slices((x, np.array([0, 2], np.int32))).batch(2)

    weights = model.get_layer("backbone").weights
    seen = [[weight.numpy() for weight in weights]]

    def on_epoch(record: Any) -> None:
        seen.append([weight.numpy() for weight in weights])

    phases = FIT | {"frozen_epochs": 1, "epochs": 1}
    history = cnn_rnn.fit(model, Two(), TrainingContext(tmp_path / "kept", 5, on_epoch), **phases)
    file, frozen, learned = seen
    assert [record["epoch"] for record in history] == [1, 2]
    assert same(file, frozen)
    changed = [(a != b).any() for a, b in zip(file, learned, strict=True)]
    kinds = {w.path.split("/")[-1] for w, new in zip(weights, changed, strict=True) if new}
    assert kinds == {"kernel"}, "normalisation has moved, or nothing has"
    store.write_model(tmp_path / "model.keras", model)
    (tmp_path / "mobile.weights.h5").unlink()
    x = {"clip_norm": clip, "frames": np.array([3, 2], np.int32)}
    loaded = answers(store.read_model(tmp_path / "model.keras"), x)
    np.testing.assert_allclose(loaded, answers(model, x), atol=1e-5)
