import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling
from ostinato.sketches.layers import Neighbours, Rasterise

ROWS, POINTS, FEATURES = 5, 13, 3


def ostinato(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, also where the mask says padding, and right-padded masks of lengths 1 to POINTS."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, POINTS, FEATURES)).astype("float32")
    lengths = np.array([1, 2, 6, POINTS - 1, POINTS])
    return x, np.arange(POINTS) < lengths[:, None]


def drawing(*strokes: list[tuple[float, float]]) -> np.ndarray:
    """Strokes of absolute points as (point, 3) float32: offsets, +1 where the pen lifts."""
    at = np.array([point for stroke in strokes for point in stroke], dtype="float32")
    offsets = np.diff(at, axis=0, prepend=np.zeros((1, 2), "float32"))
    pen = np.concatenate([[-1.0] * (len(stroke) - 1) + [1.0] for stroke in strokes])
    return np.column_stack([offsets, pen]).astype("float32")


def doodle(generator: np.random.Generator, strokes: int = 4) -> np.ndarray:
    walks = [
        np.cumsum(generator.normal(0, 20, size=(generator.integers(1, 9), 2)), axis=0)
        for _ in range(strokes)
    ]
    return drawing(*(list(map(tuple, walk)) for walk in walks))


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_a_masked_convolution_is_that_of_each_sequence_alone(
    kernel: int, stride: int, more: int
) -> None:
    x, mask = ostinato()
    x = np.pad(x, ((0, 0), (0, more), (0, 0)), constant_values=9)
    mask = np.pad(mask, ((0, 0), (0, more)))
    layer = MaskedConv1D(4, kernel, strides=stride, bias_initializer="normal")
    y, kept = layer(x, mask=mask).numpy(), layer.compute_mask(x, mask)
    weight, bias = (w.numpy() for w in layer.weights)
    before = (kernel - 1) // 2
    for row, length in enumerate(mask.sum(axis=1)):
        steps = -(-length // stride)
        assert kept[row].tolist() == [t < steps for t in range(y.shape[1])]
        for t in range(steps):
            expected = bias.copy()
            for k in range(kernel):
                point = t * stride - before + k
                if 0 <= point < length:
                    expected += x[row, point] @ weight[k]
            np.testing.assert_allclose(y[row, t], expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_without_stride_and_mask_it_is_keras_convolution(kernel: int) -> None:
    x, _ = ostinato()
    ours, plain = MaskedConv1D(4, kernel), keras.layers.Conv1D(4, kernel, padding="same")
    ours.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_shape_foretold_is_the_shape_made(stride: int) -> None:
    layer = MaskedConv1D(4, 5, strides=stride)
    for length in range(1, 12):
        made = layer(np.ones((2, length, FEATURES), "float32")).shape
        assert tuple(made) == layer.compute_output_shape((2, length, FEATURES))


@pytest.mark.parametrize(("pool", "reduce"), [("sum", np.sum), ("mean", np.mean), ("max", np.max)])
def test_pooling_sees_what_the_mask_leaves(pool: str, reduce: np.ufunc) -> None:
    x, mask = ostinato()
    expected = [reduce(row[some], axis=0) for row, some in zip(x, mask, strict=True)]
    np.testing.assert_allclose(MaskedPooling(pool)(x, mask=mask), expected, rtol=1e-5)
    np.testing.assert_allclose(MaskedPooling(pool)(x), reduce(x, axis=1), rtol=1e-5)


@pytest.mark.parametrize("pool", ["sum", "mean", "max"])
def test_pooling_nothing_gives_zeroes(pool: str) -> None:
    x, mask = ostinato()
    assert not np.any(MaskedPooling(pool)(x, mask=np.zeros_like(mask)))


def test_a_long_sum_survives_half_precision() -> None:
    x = np.full((1, 4000, 1), 0.125, "float32")
    y = MaskedPooling("sum", dtype="mixed_bfloat16")(x, mask=np.ones((1, 4000), bool))
    assert float(keras.ops.cast(y, "float32")[0, 0]) == 500


def test_an_unknown_pool_is_an_error() -> None:
    with pytest.raises(ValueError, match="sum, mean or max, found 'median'"):
        MaskedPooling("median")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("returned", ["ostinato", "last"])
@pytest.mark.parametrize("direction", ["forwards", "backwards", "both"])
def test_our_lstm_is_keras_lstm_and_so_is_its_gradient(
    masked: bool, returned: str, direction: str
) -> None:
    x, mask = ostinato()
    answers = []
    for kind in (LSTM, keras.layers.LSTM):
        layer = kind(
            4,
            return_sequences=returned == "ostinato",
            go_backwards=direction == "backwards",
            zero_output_for_mask=returned == "ostinato",
        )
        if direction == "both":
            layer = keras.layers.Bidirectional(layer)
        layer.build(x.shape)
        generator = np.random.default_rng(1)
        layer.set_weights([generator.normal(size=w.shape) for w in layer.weights])
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            y = layer(given, mask=mask if masked else None)
            loss = tf.reduce_sum(y * generator.normal(size=y.shape).astype("float32"))
        answers.append([y, *tape.gradient(loss, [given, *layer.trainable_weights])])
    for ours, plain in zip(*answers, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_our_lstm_begins_at_the_state_that_it_is_given() -> None:
    x, mask = ostinato()
    h, c = (np.full((ROWS, 4), value, "float32") for value in (0.5, -1.0))
    ours, plain = LSTM(4), keras.layers.LSTM(4)
    ours.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(ours.get_weights())
    answer, expected = (layer(x, mask=mask, initial_state=[h, c]) for layer in (ours, plain))
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def segments(strokes: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The lines of one drawing in pixels, one by one."""
    at = np.cumsum(strokes[:, :2].astype(float), axis=0)
    low, high = at.min(axis=0), at.max(axis=0)
    at = (at - (low + high) / 2) / max((high - low).max(), 1e-9) * size * 256 / 304 + size / 2
    starts = [i if i == 0 or strokes[i - 1, 2] > 0 else i - 1 for i in range(len(at))]
    return [(at[start], at[end]) for end, start in enumerate(starts)]


def slow_picture(strokes: np.ndarray, size: int) -> np.ndarray:
    """Distance to each line by ternary search, for each pixel in turn."""
    lines = segments(strokes, size)
    picture = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            pixel = np.array([x + 0.5, y + 0.5])
            nearest = np.inf
            for a, b in lines:
                low, high = 0.0, 1.0
                for _ in range(60):
                    left, right = low + (high - low) / 3, high - (high - low) / 3
                    if np.hypot(*(a + left * (b - a) - pixel)) < np.hypot(
                        *(a + right * (b - a) - pixel)
                    ):
                        high = right
                    else:
                        low = left
                nearest = min(nearest, float(np.hypot(*(a + low * (b - a) - pixel))))
            picture[y, x] = np.clip(size * 16 / 304 / 2 + 0.5 - nearest, 0, 1)
    return picture


def pillow_picture(strokes: np.ndarray, size: int, finer: int = 16) -> np.ndarray:
    """Pillow's lines and round caps, drawn ``finer`` times too large and averaged."""
    image = Image.new("L", (size * finer, size * finer))
    pen = ImageDraw.Draw(image)
    radius = size * 16 / 304 / 2 * finer
    for a, b in segments(strokes, size):
        (x0, y0), (x1, y1) = a * finer, b * finer
        pen.line((x0, y0, x1, y1), fill=255, width=round(2 * radius))
        for x, y in ((x0, y0), (x1, y1)):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    fine = np.asarray(image, dtype=float).reshape(size, finer, size, finer) / 255
    coarse: np.ndarray = fine.mean(axis=(1, 3))
    return coarse


def test_rasterise_is_the_distance_to_the_nearest_line() -> None:
    strokes = doodle(np.random.default_rng(1))
    picture = np.asarray(Rasterise(16)(strokes[None]))[0, :, :, 0]
    np.testing.assert_allclose(picture, slow_picture(strokes, 16), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_rasterise_draws_as_an_image_library_does(seed: int) -> None:
    strokes = doodle(np.random.default_rng(seed))
    picture = np.asarray(Rasterise(28)(strokes[None]))[0, :, :, 0]
    expected = pillow_picture(strokes, 28)
    assert np.abs(picture - expected).mean() < 0.02
    assert np.abs(picture - expected).max() < 0.35


@given(st.integers(0, 1000), st.floats(-300, 300), st.floats(-300, 300), st.floats(0.01, 100))
@settings(max_examples=30)
def test_neither_position_nor_scale_matters(
    seed: int, right: float, down: float, scale: float
) -> None:
    strokes = doodle(np.random.default_rng(seed))
    moved = strokes.copy()
    moved[0, :2] += right, down
    moved[:, :2] *= scale
    rasterise = Rasterise(28)
    np.testing.assert_allclose(rasterise(moved[None]), rasterise(strokes[None]), atol=5e-3)


def test_the_pen_in_the_air_draws_nothing() -> None:
    left, right = [(0.0, 0.0), (0.0, 100.0)], [(100.0, 0.0), (100.0, 100.0)]
    apart = np.asarray(Rasterise(28)(drawing(left, right)[None]))[0, :, :, 0]
    joined = np.asarray(Rasterise(28)(drawing(left + right)[None]))[0, :, :, 0]
    assert apart[:, 8:20].sum() == 0
    assert joined[:, 8:20].sum() > 10
    np.testing.assert_allclose(apart, apart[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(apart, apart[::-1], atol=1e-5)


def test_a_dot_is_drawn_and_padding_is_not() -> None:
    dot = np.asarray(Rasterise(28)(drawing([(40.0, 70.0)])[None]))[0, :, :, 0]
    assert (dot > 0).sum() == 4  # centred on the corner where four pixels meet
    assert not np.any(Rasterise(28)(np.zeros((2, 5, 3), "float32")))


def test_a_line_of_16_in_304_is_16_in_304_of_the_ink() -> None:
    across = np.asarray(Rasterise(28)(drawing([(0.0, 0.0), (255.0, 0.0)])[None]))[0, :, :, 0]
    np.testing.assert_allclose(across[:, 14].sum(), 28 * 16 / 304, atol=1e-3)


def test_blurring_moves_ink_and_neither_makes_nor_loses_it() -> None:
    picture = np.zeros((1, 28, 28, 1), "float32")
    picture[0, 10:18, 12] = 1
    layer = Neighbours(references=3, classes=2, neighbours=1, blur=1.0, smoothing=0.1)
    blurred = np.asarray(layer.blurred(picture)).reshape(28, 28)
    np.testing.assert_allclose(blurred.sum(), 8, rtol=1e-3)
    centre = np.arange(28) @ blurred.sum(axis=0) / blurred.sum()
    np.testing.assert_allclose(centre, 12, atol=1e-3)


def test_votes_are_the_nearest_by_cosine() -> None:
    generator = np.random.default_rng(0)
    kept = generator.random((20, 6, 6, 1)).astype("float32")
    labels = generator.integers(0, 3, size=20)
    asked = generator.random((7, 6, 6, 1)).astype("float32")
    layer = Neighbours(references=20, classes=3, neighbours=5, blur=0.0, smoothing=0.5)
    layer.build(kept.shape)
    layer.fill(kept, labels)
    stored = np.round(kept.reshape(20, -1) * 255)
    for row, picture in zip(np.asarray(layer(asked)), asked.reshape(7, -1), strict=True):
        cosine = [a @ picture / np.linalg.norm(a) / np.linalg.norm(picture) for a in stored]
        votes = np.full(3, 0.5 / 3)
        for i in np.argsort(cosine)[-5:]:
            votes[labels[i]] += cosine[i]
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-4)
