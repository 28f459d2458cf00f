"""Laws of the layers that several domains use: padding changes nothing, and Keras as reference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling

ROWS, POINTS, FEATURES = 5, 13, 3


def padded_sequences(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences with noise as padding, and their right-padded masks of lengths 1 to POINTS."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, POINTS, FEATURES)).astype("float32")
    lengths = np.array([1, 2, 6, POINTS - 1, POINTS])
    return x, np.arange(POINTS) < lengths[:, None]


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_a_masked_convolution_equals_that_of_each_sequence_alone(
    kernel: int, stride: int, padding: int
) -> None:
    x, mask = padded_sequences()
    x = np.pad(x, ((0, 0), (0, padding), (0, 0)), constant_values=9)
    mask = np.pad(mask, ((0, 0), (0, padding)))
    layer = MaskedConv1D(4, kernel, strides=stride, bias_initializer="normal")
    y, new_mask = layer(x, mask=mask).numpy(), layer.compute_mask(x, mask)
    weight, bias = (w.numpy() for w in layer.weights)
    before = (kernel - 1) // 2
    for row, length in enumerate(mask.sum(axis=1)):
        steps = -(-length // stride)
        assert new_mask[row].tolist() == [t < steps for t in range(y.shape[1])]
        for t in range(steps):
            expected = bias.copy()
            for k in range(kernel):
                point = t * stride - before + k
                if 0 <= point < length:
                    expected += x[row, point] @ weight[k]
            np.testing.assert_allclose(y[row, t], expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_without_stride_and_mask_it_equals_keras_convolution(kernel: int) -> None:
    x, _ = padded_sequences()
    ours, reference = MaskedConv1D(4, kernel), keras.layers.Conv1D(4, kernel, padding="same")
    ours.build(x.shape)
    reference.build(x.shape)
    reference.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), reference(x), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_compute_output_shape_is_the_shape_of_the_output(stride: int) -> None:
    layer = MaskedConv1D(4, 5, strides=stride)
    for length in range(1, 12):
        shape = layer(np.ones((2, length, FEATURES), "float32")).shape
        assert tuple(shape) == layer.compute_output_shape((2, length, FEATURES))


@pytest.mark.parametrize(("pool", "reduce"), [("sum", np.sum), ("mean", np.mean), ("max", np.max)])
def test_pooling_ignores_masked_points(pool: str, reduce: np.ufunc) -> None:
    x, mask = padded_sequences()
    expected = [reduce(row[valid], axis=0) for row, valid in zip(x, mask, strict=True)]
    np.testing.assert_allclose(MaskedPooling(pool)(x, mask=mask), expected, rtol=1e-5)
    np.testing.assert_allclose(MaskedPooling(pool)(x), reduce(x, axis=1), rtol=1e-5)


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_pooling_over_no_points_gives_zeros(pool: str) -> None:
    x, mask = padded_sequences()
    assert not np.any(MaskedPooling(pool)(x, mask=np.zeros_like(mask)))


def test_a_long_sum_is_exact_in_half_precision() -> None:
    x = np.full((1, 4000, 1), 0.125, "float32")
    y = MaskedPooling("sum", dtype="mixed_bfloat16")(x, mask=np.ones((1, 4000), bool))
    assert float(keras.ops.cast(y, "float32")[0, 0]) == 500


def test_an_unknown_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="sum, mean or max, found 'median'"):
        MaskedPooling("median")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("returned", ["sequences", "last"])
@pytest.mark.parametrize("direction", ["forward", "backward", "bidirectional"])
def test_the_lstm_and_its_gradient_equal_those_of_keras(
    masked: bool, returned: str, direction: str
) -> None:
    x, mask = padded_sequences()
    results = []
    for layer_type in (LSTM, keras.layers.LSTM):
        layer = layer_type(
            4,
            return_sequences=returned == "sequences",
            go_backwards=direction == "backward",
            zero_output_for_mask=returned == "sequences",
        )
        if direction == "bidirectional":
            layer = keras.layers.Bidirectional(layer)
        layer.build(x.shape)
        generator = np.random.default_rng(1)
        layer.set_weights([generator.normal(size=w.shape) for w in layer.weights])
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = layer(inputs, mask=mask if masked else None)
            loss = tf.reduce_sum(y * generator.normal(size=y.shape).astype("float32"))
        results.append([y, *tape.gradient(loss, [inputs, *layer.trainable_weights])])
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_the_lstm_starts_at_the_initial_state() -> None:
    x, mask = padded_sequences()
    h, c = (np.full((ROWS, 4), value, "float32") for value in (0.5, -1.0))
    ours, reference = LSTM(4), keras.layers.LSTM(4)
    ours.build(x.shape)
    reference.build(x.shape)
    reference.set_weights(ours.get_weights())
    output, expected = (layer(x, mask=mask, initial_state=[h, c]) for layer in (ours, reference))
    np.testing.assert_allclose(output, expected, atol=1e-6)
