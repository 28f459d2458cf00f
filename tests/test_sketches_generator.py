from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from sklearn.svm import SVC

from ostinato.sketches.dataset.strokes import simplify
from ostinato.sketches.sources.generator import CATEGORIES, drawing

SHARED = Path(__file__).parents[2] / "shared/data/quickdraw_dataset"
EACH = pytest.mark.parametrize("category", CATEGORIES)


def many(category: str, count: int = 40, seed: int = 0) -> list[list[NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    return [drawing(category, rng) for _ in range(count)]


def ink(strokes: list[NDArray[np.float64]]) -> float:
    """Length of the pen's way."""
    return sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in strokes)


def test_at_least_twenty_categories_with_the_promised_ones() -> None:
    assert len(set(CATEGORIES)) == len(CATEGORIES) >= 20
    assert {"house", "smiley face", "clock", "fish"} <= set(CATEGORIES)
    assert list(CATEGORIES) == sorted(CATEGORIES)


def test_names_are_quickdraws() -> None:
    names = SHARED / "categories.txt"
    if not names.exists():
        pytest.skip("the shared data are not here")
    assert set(CATEGORIES) <= set(names.read_text().splitlines())


@EACH
def test_every_drawing_is_ink_on_a_canvas(category: str) -> None:
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
def test_points_are_as_dense_as_a_pens_track(category: str) -> None:
    for strokes in many(category):
        assert max(np.hypot(*np.diff(s, axis=0).T).max() for s in strokes) < 20
        assert sum(map(len, strokes)) < 3_000


@EACH
def test_same_seed_same_drawing_and_another_seed_another(category: str) -> None:
    first, again, other = (drawing(category, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert ink(first) != ink(other)


def test_chance_comes_from_the_generator_alone() -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    one = many("fish", 5)
    assert before == str(np.random.get_state())  # noqa: NPY002
    for a, b in zip(one, many("fish", 5), strict=True):
        assert all(np.array_equal(s, t) for s, t in zip(a, b, strict=True))


@EACH
def test_people_differ_in_where_they_start_and_how_often_they_lift_the_pen(category: str) -> None:
    drawings = many(category, 100)
    starts = []
    for strokes in drawings:
        points = np.concatenate(strokes)
        starts.append((strokes[0][0] - points.min(0)) / np.ptp(points, axis=0).max())
    assert np.std(starts, axis=0).max() > 0.05
    assert len({len(strokes) for strokes in drawings}) > 1


def test_both_directions_of_a_circle_are_drawn() -> None:
    turns = []
    for strokes in many("circle", 100):
        x, y = strokes[0].T
        turns.append(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0)
    assert 0.1 < np.mean(turns) < 0.9


def test_an_unknown_category_names_its_near_misses() -> None:
    with pytest.raises(ValueError, match=r"cannot draw 'smily face'.*smiley face"):
        drawing("smily face", np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"cannot draw '猫'.*apple.*zigzag"):
        drawing("猫", np.random.default_rng(0))


def directions(strokes: list[NDArray[np.int16]]) -> NDArray[np.float64]:
    """How much ink lies in each cell of a blurred grid, in each of four directions."""
    steps = np.concatenate([np.repeat(np.diff(s, axis=0), 16, axis=0) for s in strokes])
    tracks = [np.linspace(s[:-1], s[1:], 16, axis=1).reshape(-1, 2) for s in strokes]
    places = np.concatenate(tracks)
    angles = (np.arctan2(steps[:, 1], steps[:, 0]) + np.pi / 8) % np.pi
    grid, _ = np.histogramdd(
        np.column_stack([places + (255 - places.max(0)) / 2, angles]),
        bins=(16, 16, 4),
        range=((0, 256), (0, 256), (0, np.pi)),
        weights=np.hypot(*steps.T),
    )
    for axis in (0, 1):
        grid = grid + (np.roll(grid, 1, axis) + np.roll(grid, -1, axis)) / 2
    root = np.sqrt(grid.ravel())
    return np.asarray(root / np.linalg.norm(root))


def test_what_is_learnt_from_made_drawings_recognises_real_ones() -> None:
    raw = SHARED / "full/raw"
    if not raw.exists():
        pytest.skip("the shared data are not here")
    made = [directions(simplify(d)) for c in CATEGORIES for d in many(c, 60)]
    model = SVC(C=3, gamma="scale").fit(made, np.repeat(CATEGORIES, 60))
    real, truth = [], []
    for category in CATEGORIES:
        for line in (raw / f"{category}.ndjson").read_bytes().splitlines():
            strokes = [np.array(stroke[:2], float).T for stroke in orjson.loads(line)["drawing"]]
            real.append(directions(simplify(strokes)))
            truth.append(category)
    assert np.mean(model.predict(real) == np.array(truth)) >= 0.75
