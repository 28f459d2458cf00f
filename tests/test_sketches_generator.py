"""Generated drawings: plausible, varied, and a function of the seed."""

from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from sklearn.svm import SVC

from ostinato.errors import SourceError
from ostinato.sketches.formats.strokes import simplify
from ostinato.sketches.sources.generator import CATEGORIES, drawing

SHARED = Path(__file__).parents[2] / "shared/data/quickdraw_dataset"
EACH = pytest.mark.parametrize("category", CATEGORIES)


def many(category: str, count: int = 40, seed: int = 0) -> list[list[NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    return [drawing(category, rng) for _ in range(count)]


def ink(strokes: list[NDArray[np.float64]]) -> float:
    """Total length of the strokes."""
    return sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in strokes)


def test_there_are_at_least_twenty_categories() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) >= 20
    assert {"house", "smiley face", "clock", "fish"} <= set(CATEGORIES)
    assert list(CATEGORIES) == sorted(CATEGORIES)


def test_the_categories_are_quickdraws() -> None:
    names = SHARED / "categories.txt"
    if not names.exists():
        pytest.skip("no real drawings beside the checkout")
    assert set(CATEGORIES) <= set(names.read_text().splitlines())


@EACH
def test_drawings_are_finite_and_of_plausible_size(category: str) -> None:
    for strokes in many(category):
        assert strokes
        assert all(s.ndim == 2 and s.shape[1] == 2 and len(s) >= 2 for s in strokes)
        points = np.concatenate(strokes)
        assert points.dtype == np.float64
        assert np.isfinite(points).all()
        assert points.min() >= 0
        assert 80 < np.ptp(points, axis=0).max() < 1_000
        assert ink(strokes) > 60


@EACH
def test_points_are_as_dense_as_those_of_a_pen(category: str) -> None:
    for strokes in many(category):
        assert max(np.hypot(*np.diff(s, axis=0).T).max() for s in strokes) < 20
        assert sum(map(len, strokes)) < 3_000


@EACH
def test_a_drawing_is_a_function_of_the_seed(category: str) -> None:
    first, again, other = (drawing(category, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert ink(first) != ink(other)


def test_the_generator_is_the_only_source_of_randomness() -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    one = many("fish", 5)
    assert before == str(np.random.get_state())  # noqa: NPY002
    for a, b in zip(one, many("fish", 5), strict=True):
        assert all(np.array_equal(s, t) for s, t in zip(a, b, strict=True))


@EACH
def test_drawings_differ_in_start_and_number_of_strokes(category: str) -> None:
    drawings = many(category, 100)
    starts = []
    for strokes in drawings:
        points = np.concatenate(strokes)
        starts.append((strokes[0][0] - points.min(0)) / np.ptp(points, axis=0).max())
    assert np.std(starts, axis=0).max() > 0.05
    assert len({len(strokes) for strokes in drawings}) > 1


def test_circles_are_drawn_in_both_directions() -> None:
    turns = []
    for strokes in many("circle", 100):
        x, y = strokes[0].T
        turns.append(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0)
    assert 0.1 < np.mean(turns) < 0.9


def test_an_unknown_category_is_an_error_with_near_misses() -> None:
    with pytest.raises(SourceError, match=r"no category 'smily face'.*smiley face"):
        drawing("smily face", np.random.default_rng(0))
    with pytest.raises(SourceError, match=r"no category '猫'.*apple.*zigzag"):
        drawing("猫", np.random.default_rng(0))


def directions(strokes: list[NDArray[np.int16]]) -> NDArray[np.float64]:
    """The ink in each cell of a blurred grid, in each of four directions."""
    steps = np.concatenate([np.repeat(np.diff(s, axis=0), 16, axis=0) for s in strokes])
    tracks = [np.linspace(s[:-1], s[1:], 16, axis=1).reshape(-1, 2) for s in strokes]
    positions = np.concatenate(tracks)
    angles = (np.arctan2(steps[:, 1], steps[:, 0]) + np.pi / 8) % np.pi
    grid, _ = np.histogramdd(
        np.column_stack([positions + (255 - positions.max(0)) / 2, angles]),
        bins=(16, 16, 4),
        range=((0, 256), (0, 256), (0, np.pi)),
        weights=np.hypot(*steps.T),
    )
    for axis in (0, 1):
        grid = grid + (np.roll(grid, 1, axis) + np.roll(grid, -1, axis)) / 2
    root = np.sqrt(grid.ravel())
    return np.asarray(root / np.linalg.norm(root))


def test_a_classifier_of_generated_drawings_recognises_real_ones() -> None:
    raw = SHARED / "full/raw"
    if not raw.exists():
        pytest.skip("no real drawings beside the checkout")
    generated = [directions(simplify(d)) for c in CATEGORIES for d in many(c, 60)]
    model = SVC(C=3, gamma="scale").fit(generated, np.repeat(CATEGORIES, 60))
    real, truth = [], []
    for category in CATEGORIES:
        for line in (raw / f"{category}.ndjson").read_bytes().splitlines():
            strokes = [np.array(stroke[:2], float).T for stroke in orjson.loads(line)["drawing"]]
            real.append(directions(simplify(strokes)))
            truth.append(category)
    assert np.mean(model.predict(real) == np.array(truth)) >= 0.75
