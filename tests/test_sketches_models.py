"""Laws of the models of drawings, besides those of the contract test."""

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato.errors import ParamsError
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.models import bitmap_cnn, conv_bilstm, conv_rnn, nearest, rnn
from ostinato.task import Manifest, Part, Record, TrainingContext
from ostinato.training import keras_model

CLASSES = ("circle", "line", "zigzag")
STACKED = {"units": 4, "num_layers": 2, "dropout": 0.1, "weight_decay": 1e-4}


class Doodles:
    """A data set of three classes that differ in their curvature, with ``each`` drawings each."""

    classes = CLASSES
    manifest = Manifest("toy", "drawings", {})

    def __init__(self, kind: Kind = "strokes", each: int = 6) -> None:
        self.kind: Kind = kind
        self.labels = np.tile(np.arange(len(CLASSES), dtype="int32"), each)
        generator = np.random.default_rng(7)
        longest = 12
        self.x = np.zeros((len(self.labels), longest, 3), "float32")
        for row, label in zip(self.x, self.labels, strict=True):
            length = generator.integers(2, longest)
            turn = np.arange(length) * (2 * np.pi / length, 0, 2.5)[label]
            row[:length, 0], row[:length, 1] = np.cos(turn), np.sin(turn)
            row[:length, :2] += generator.normal(0, 0.1, size=(length, 2))
            row[:length, 2] = np.where(generator.random(length) < 0.2, 1, -1)
        if kind == "bitmap":
            self.x = generator.random((len(self.labels), 28, 28, 1)).astype("float32")

    def size(self, split: str) -> int:
        return len(self.labels)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        return tf.data.Dataset.from_tensor_slices((self.x, self.labels)).batch(batch_size)


def recurrent(cell: str, bidirectional: bool, pooling: str) -> tuple[ModuleType, dict[str, Any]]:
    return rnn, {**STACKED, "cell": cell, "bidirectional": bidirectional, "pooling": pooling}


MODELS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    **{f"{cell}, last": recurrent(cell, False, "last") for cell in ("simple", "lstm", "gru")},
    **{f"bi-gru, {pool}": recurrent("gru", True, pool) for pool in ("last", "mean", "max", "sum")},
    "conv_bilstm": (
        conv_bilstm,
        {"filters": [4, 6], "kernel_sizes": [5, 4], "units": 4, "num_layers": 2, "dropout": 0.1},
    ),
    "conv_rnn": (
        conv_rnn,
        {
            "filters": [4, 6],
            "kernel_sizes": [5, 4],
            "strides": [2, 3],
            "units": 4,
            "num_layers": 2,
            "dropout": 0.1,
        },
    ),
    "bitmap_cnn": (bitmap_cnn, {"filters": [4, 6], "kernel_size": 3, "units": 4, "dropout": 0.1}),
    "nearest": (nearest, {"references": 12, "neighbours": 3, "blur": 1.0, "prior_votes": 0.1}),
}
POINTS_ONLY = [name for name in MODELS if name not in ("bitmap_cnn", "nearest")]


def built(name: str, data: Doodles) -> keras.Model:
    """The model with weights that differ from their initial values, biases and averages too."""
    module, block = MODELS[name]
    keras.utils.set_random_seed(3)
    model = module.build(data, **block)
    if module is nearest:
        nearest.fit(model, data, TrainingContext(Path(), 0), batch_size=4)
        return model
    generator = np.random.default_rng(5)
    for weight in model.weights:
        if "seed" not in weight.path:
            value = weight.numpy() + generator.normal(0, 0.1, weight.shape)
            weight.assign(np.abs(value) if "variance" in weight.path else value)
    return model


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> keras.Model:
    return built(request.param, Doodles())


def test_padding_changes_no_output(model: keras.Model) -> None:
    x = Doodles().x
    expected = model(x).numpy()
    for more in (1, 2, 7):
        padded = np.pad(x, ((0, 0), (0, more), (0, 0)))
        np.testing.assert_allclose(model(padded), expected, atol=1e-5)


def test_outputs_are_independent_of_the_batch(model: keras.Model) -> None:
    x = Doodles().x
    expected = model(x).numpy()
    np.testing.assert_allclose(model(x[::-1])[::-1], expected, atol=1e-5)
    for row, output in zip(x[:4], expected, strict=False):
        ink = row[row.any(axis=1)]
        np.testing.assert_allclose(model(ink[None])[0], output, atol=1e-5)


def test_outputs_are_probabilities_that_differ(model: keras.Model) -> None:
    y = model(Doodles().x).numpy()
    assert y.dtype == np.float32
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(y, axis=0).max() > 1e-3


def test_a_restored_model_has_the_same_outputs(model: keras.Model, tmp_path: Path) -> None:
    x = Doodles().x
    keras_model.save(model, tmp_path / "model")
    restored = keras_model.restore(tmp_path / "model")
    np.testing.assert_allclose(restored(x), model(x), atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_has_nearly_the_same_outputs(
    model: keras.Model, precision: str, request: pytest.FixtureRequest
) -> None:
    data = Doodles()
    module, block = MODELS[request.node.callspec.params["model"]]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        half = module.build(data, **block)
    finally:
        keras.config.set_dtype_policy(policy)
    half.set_weights(model.get_weights())
    y = half(data.x)
    assert y.dtype == tf.float32
    np.testing.assert_allclose(y, model(data.x), atol=0.1)


@pytest.mark.parametrize("name", POINTS_ONLY)
def test_padding_changes_no_gradient_and_no_moving_average(name: str) -> None:
    data = Doodles()
    results = []
    for more in (0, 9):
        model = built(name, data)
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        x = np.pad(data.x, ((0, 0), (0, more), (0, 0)))
        with tf.GradientTape() as tape:
            y = model(x, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(data.labels, y))
        gradient = tape.gradient(loss, model.trainable_weights)
        assert all(g is not None for g in gradient)
        averages = [w.numpy() for w in model.non_trainable_weights if "moving" in w.path]
        results.append([*[np.asarray(g) for g in gradient], *averages])
    for short, long in zip(*results, strict=True):
        np.testing.assert_allclose(long, short, atol=1e-4)


@pytest.mark.parametrize("name", POINTS_ONLY)
def test_bitmaps_are_an_error_of_a_recurrent_model(name: str) -> None:
    module, block = MODELS[name]
    with pytest.raises(ParamsError, match="bitmap_cnn"):
        module.build(Doodles("bitmap"), **block)


@pytest.mark.parametrize("name", ["bitmap_cnn", "nearest"])
def test_models_of_bitmaps_read_bitmaps_directly(name: str, tmp_path: Path) -> None:
    data = Doodles("bitmap")
    model = built(name, data)
    np.testing.assert_allclose(model(data.x).numpy().sum(axis=1), 1, atol=1e-5)
    keras_model.save(model, tmp_path / "model")
    restored = keras_model.restore(tmp_path / "model")
    np.testing.assert_allclose(restored(data.x), model(data.x), atol=1e-6)


@pytest.mark.parametrize("name", ["bitmap_cnn", "nearest"])
def test_models_of_bitmaps_ignore_order_and_direction(name: str) -> None:
    points = np.cumsum(np.random.default_rng(0).normal(size=(2, 9, 2)), axis=1)

    def strokes(*lines: np.ndarray) -> np.ndarray:
        offsets = np.diff(np.concatenate(lines), axis=0, prepend=np.zeros((1, 2)))
        lifted = np.concatenate([[-1.0] * (len(line) - 1) + [1.0] for line in lines])
        return np.column_stack([offsets, lifted]).astype("float32")

    model = built(name, Doodles())
    there, back = strokes(points[0], points[1]), strokes(points[1][::-1], points[0])
    np.testing.assert_allclose(model(there[None]), model(back[None]), atol=1e-4)


def test_the_directions_of_a_bidirectional_layer_mirror_each_other() -> None:
    """With the weights of both directions equal, reversing a sequence swaps the two halves."""
    layer = keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True))
    x = np.random.default_rng(0).normal(size=(1, 6, 3)).astype("float32")
    layer.build(x.shape)
    half = len(layer.weights) // 2
    for forward, backward in zip(layer.weights[:half], layer.weights[half:], strict=True):
        backward.assign(forward)
    y, reverse = layer(x).numpy(), layer(x[:, ::-1]).numpy()[:, ::-1]
    np.testing.assert_allclose(reverse, np.roll(y, 4, axis=-1), atol=1e-6)


def test_recurrent_layers_are_compatible_with_cudnn() -> None:
    for name in POINTS_ONLY:
        for layer in built(name, Doodles()).layers:
            for part in (
                getattr(layer, "forward_layer", layer),
                getattr(layer, "backward_layer", layer),
            ):
                if isinstance(part, keras.layers.LSTM | keras.layers.GRU):
                    assert part.activation is keras.activations.tanh
                    assert part.recurrent_activation is keras.activations.sigmoid
                    assert part.recurrent_dropout == 0
                    assert part.use_bias
                    assert not part.unroll
                    assert getattr(part, "reset_after", True)


def test_the_weight_decay_penalty_is_the_sum_of_squares_of_the_kernels() -> None:
    model = built("lstm, last", Doodles())
    kernels = [w.numpy() for w in model.weights if w.path.endswith("kernel") and "lstm" in w.path]
    assert len(kernels) == 4
    expected = 1e-4 * sum(float(np.square(k).sum()) for k in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["strokes", "bitmap"])
def test_nearest_recalls_its_references(kind: Kind) -> None:
    data = Doodles(kind)
    model = nearest.build(data, references=1000, neighbours=1, blur=1.0, prior_votes=0.1)
    reported: list[Record] = []
    records = nearest.fit(model, data, TrainingContext(Path(), 0, reported.append), batch_size=5)
    assert records == reported
    assert records[0]["accuracy"] == 1
    assert (model(data.x).numpy().argmax(axis=1) == data.labels).all()
    expected = keras.losses.sparse_categorical_crossentropy(data.labels, model(data.x))
    np.testing.assert_allclose(records[0]["loss"], np.mean(expected), rtol=1e-4)


def test_nearest_needs_prior_votes() -> None:
    with pytest.raises(ParamsError, match="prior_votes"):
        nearest.build(Doodles(), references=1, neighbours=1, blur=1.0, prior_votes=0.0)


def test_references_are_balanced_over_the_classes() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 3, 0, 20])
    kept = [nearest.balanced(labels, 23, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for choice in kept:
        assert choice.sum() == 23
        assert np.bincount(labels[choice])[1] == 3
        assert sorted(np.bincount(labels[choice])[[0, 3]]) == [10, 10]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert (kept[0] != kept[2]).any()
