"""Laws of the layers of drawings, with slow and with independent implementations as references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ostinato.sketches.layers import Neighbours, Rasterise


def drawing(*strokes: list[tuple[float, float]]) -> np.ndarray:
    """Strokes of absolute points as (point, 3) float32: offsets, and +1 where the pen lifts."""
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


def segments(strokes: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The line segments of one drawing, in pixels."""
    at = np.cumsum(strokes[:, :2].astype(float), axis=0)
    low, high = at.min(axis=0), at.max(axis=0)
    at = (at - (low + high) / 2) / max((high - low).max(), 1e-9) * size * 256 / 304 + size / 2
    starts = [i if i == 0 or strokes[i - 1, 2] > 0 else i - 1 for i in range(len(at))]
    return [(at[start], at[end]) for end, start in enumerate(starts)]


def slow_picture(strokes: np.ndarray, size: int) -> np.ndarray:
    """The picture from the distance of each pixel to each line, by ternary search."""
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
    """Lines with round caps by Pillow, drawn ``finer`` times larger and averaged."""
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


def test_rasterise_measures_the_distance_to_the_nearest_line() -> None:
    strokes = doodle(np.random.default_rng(1))
    picture = np.asarray(Rasterise(16)(strokes[None]))[0, :, :, 0]
    np.testing.assert_allclose(picture, slow_picture(strokes, 16), atol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_rasterise_draws_as_pillow_does(seed: int) -> None:
    strokes = doodle(np.random.default_rng(seed))
    picture = np.asarray(Rasterise(28)(strokes[None]))[0, :, :, 0]
    expected = pillow_picture(strokes, 28)
    assert np.abs(picture - expected).mean() < 0.02
    assert np.abs(picture - expected).max() < 0.35


@given(st.integers(0, 1000), st.floats(-300, 300), st.floats(-300, 300), st.floats(0.01, 100))
@settings(max_examples=30)
def test_the_picture_depends_on_neither_position_nor_scale(
    seed: int, right: float, down: float, scale: float
) -> None:
    strokes = doodle(np.random.default_rng(seed))
    moved = strokes.copy()
    moved[0, :2] += right, down
    moved[:, :2] *= scale
    rasterise = Rasterise(28)
    np.testing.assert_allclose(rasterise(moved[None]), rasterise(strokes[None]), atol=5e-3)


def test_a_lifted_pen_draws_nothing() -> None:
    left, right = [(0.0, 0.0), (0.0, 100.0)], [(100.0, 0.0), (100.0, 100.0)]
    apart = np.asarray(Rasterise(28)(drawing(left, right)[None]))[0, :, :, 0]
    joined = np.asarray(Rasterise(28)(drawing(left + right)[None]))[0, :, :, 0]
    assert apart[:, 8:20].sum() == 0
    assert joined[:, 8:20].sum() > 10
    np.testing.assert_allclose(apart, apart[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(apart, apart[::-1], atol=1e-5)


def test_a_dot_is_drawn_and_padding_is_not() -> None:
    dot = np.asarray(Rasterise(28)(drawing([(40.0, 70.0)])[None]))[0, :, :, 0]
    assert (dot > 0).sum() == 4  # centred on the corner of four pixels
    assert not np.any(Rasterise(28)(np.zeros((2, 5, 3), "float32")))


def test_a_line_is_16_of_304_units_wide() -> None:
    across = np.asarray(Rasterise(28)(drawing([(0.0, 0.0), (255.0, 0.0)])[None]))[0, :, :, 0]
    np.testing.assert_allclose(across[:, 14].sum(), 28 * 16 / 304, atol=1e-3)


def test_blurring_preserves_the_sum_and_the_centre() -> None:
    picture = np.zeros((1, 28, 28, 1), "float32")
    picture[0, 10:18, 12] = 1
    layer = Neighbours(3, 2, 1, 1.0, 0.1)  # references, classes, neighbours, blur, votes
    blurred = np.asarray(layer.blurred(picture)).reshape(28, 28)
    np.testing.assert_allclose(blurred.sum(), 8, rtol=1e-3)
    centre = np.arange(28) @ blurred.sum(axis=0) / blurred.sum()
    np.testing.assert_allclose(centre, 12, atol=1e-3)


def test_the_nearest_by_cosine_vote() -> None:
    generator = np.random.default_rng(0)
    references = generator.random((20, 6, 6, 1)).astype("float32")
    labels = generator.integers(0, 3, size=20)
    pictures = generator.random((7, 6, 6, 1)).astype("float32")
    layer = Neighbours(20, 3, 5, 0.0, 0.5)  # references, classes, neighbours, blur, votes
    layer.build(references.shape)
    layer.fill(references, labels)
    stored = np.round(references.reshape(20, -1) * 255)
    for row, picture in zip(np.asarray(layer(pictures)), pictures.reshape(7, -1), strict=True):
        cosine = [a @ picture / np.linalg.norm(a) / np.linalg.norm(picture) for a in stored]
        votes = np.full(3, 0.5 / 3)
        for i in np.argsort(cosine)[-5:]:
            votes[labels[i]] += cosine[i]
        np.testing.assert_allclose(row, votes / votes.sum(), rtol=1e-4)
