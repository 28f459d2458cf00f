"""Scores of a recogniser whose every answer is known beforehand."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ostinato.sketches.dataset.batches import Bitmaps, Drawings

from ostinato import errors, params, store
from ostinato.errors import EvaluationError
from ostinato.evaluation import classification
from ostinato.sketches import evaluation
from ostinato.task import Evaluation

CLASSES = ("circle", "fish", "square", "star")
SCALE = 32.0
SETTINGS: dict[str, Any] = {
    "resamples": 200,
    "bins": 10,
    "shares": [0.25, 0.5, 1.0],
    "limit": 1_000,
    "gallery": 6,
    "batch_size": 16,
    "timed_requests": 3,
}


class Made:
    """Drawings, or bitmaps, and nothing else of a data set."""

    classes = CLASSES

    def __init__(self, kind: str = "strokes", samples: int = 90) -> None:
        random = np.random.default_rng(samples)
        self.kind = kind
        labels = random.integers(4, size=samples).astype(np.int32)
        keys = np.array([f"key {number}" for number in range(samples)])
        self.all: Drawings | Bitmaps
        if kind == "bitmap":
            pixels = random.integers(256, size=(samples, 28, 28, 1)).astype(np.uint8)
            self.all = Bitmaps(pixels, labels, keys)
            return
        lengths = random.integers(2, 40, size=samples)
        points = random.integers(-20, 20, size=(lengths.sum(), 3)).astype(np.int16)
        points[:, 2] = random.random(len(points)) < 0.2
        points[lengths.cumsum() - 1, 2] = 1
        self.all = Drawings(points, lengths.cumsum(), labels, keys)

    def examples(self, split: str) -> Any:
        assert split == "test"
        return self.all

    def pad(self, drawings: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
        x = np.zeros((len(drawings), max(map(len, drawings)), 3), np.float32)
        for padded, rows in zip(x, drawings, strict=True):
            padded[: len(rows)] = rows / (SCALE, SCALE, 0.5) - (0, 0, 1)
        return x


@cache
def model(kind: str = "strokes") -> Any:
    """Fixed weights on the mean of all real points, or on the mean of some pixels."""
    import keras

    if kind == "bitmap":
        x = given = keras.Input((28, 28, 1))
        x = keras.layers.AveragePooling2D(14)(x)
        x = keras.layers.Flatten()(x)
    else:
        given = keras.Input((None, 3))
        x = keras.layers.Masking(0.0)(given)
        x = keras.layers.GlobalAveragePooling1D()(x)
    weights = keras.initializers.RandomNormal(stddev=8, seed=1)
    x = keras.layers.Dense(4, activation="softmax", kernel_initializer=weights)(x)
    return keras.Model(given, x)


@cache
def scored(kind: str = "strokes") -> Evaluation:
    return evaluation.evaluate(model(kind), Made(kind), 1, **SETTINGS)


def slow(data: Made) -> NDArray[np.float32]:
    """Probabilities (example, class), one drawing at a time, in the stored order."""
    known = data.all
    if isinstance(known, Bitmaps):
        x = list(known.pixels[:, None] / np.float32(255))
    else:
        x = [data.pad([known[i]]) for i in range(len(known))]
    return np.concatenate([model(data.kind)(one).numpy() for one in x])


@pytest.mark.parametrize("kind", ["strokes", "bitmap"])
def test_batches_by_length_give_what_one_drawing_at_a_time_gives(kind: str) -> None:
    data, found = Made(kind), scored(kind)
    p, truth = slow(data), data.all.labels
    np.testing.assert_allclose(found.arrays["probabilities"], p, atol=1e-3)
    np.testing.assert_array_equal(found.arrays["truth"], truth)
    np.testing.assert_array_equal(found.arrays["keys"], data.all.keys)
    np.testing.assert_array_equal(found.arrays["rank"], classification.ranks(p, truth))
    assert found.metrics["samples"] == 90
    assert found.metrics["top1"] == (p.argmax(axis=1) == truth).mean()
    assert found.metrics["log_loss"] == pytest.approx(
        classification.log_loss(classification.likelihoods(p, truth)), rel=1e-4
    )
    assert found.metrics["parameters"] == model(kind).count_params()
    assert found.metrics["top1_low"] < found.metrics["top1"] < found.metrics["top1_high"]


def test_the_size_of_a_batch_changes_no_score() -> None:
    other = evaluation.evaluate(model(), Made(), 1, **{**SETTINGS, "batch_size": 1_000})
    for name, value in scored().metrics.items():
        assert other.metrics[name] == pytest.approx(value, rel=1e-5), name


def test_scoring_twice_gives_the_same_but_for_the_time(tmp_path: Path) -> None:
    again = evaluation.evaluate(model(), Made(), 1, **SETTINGS)
    assert again.metrics == scored().metrics
    for name, table in scored().tables.items():
        assert table.equals(again.tables[name]), name
    for name, array in scored().arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    for name, figure in scored().figures.items():
        store.write_figure(tmp_path / "one.png", figure)
        store.write_figure(tmp_path / "two.png", again.figures[name])
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes(), name
    assert min(again.speed.values()) > 0


def test_results_can_be_stored_and_read_again(tmp_path: Path) -> None:
    store.write_arrays(tmp_path / "predictions.npz", scored().arrays)
    store.write_json(tmp_path / "metrics.json", scored().metrics)
    arrays = store.read_arrays(tmp_path / "predictions.npz")
    assert arrays["probabilities"].dtype == np.float16
    assert classification.top(arrays["rank"], 1) == scored().metrics["top1"]


def test_tables_add_up() -> None:
    tables, total = scored().tables, scored().metrics["samples"]
    cells = tables["confusion"]
    assert cells["count"].sum() == total
    assert (cells["count"] > 0).all()
    right = cells[cells["truth"] == cells["prediction"]]["count"].sum()
    assert right / total == scored().metrics["top1"]
    assert tables["calibration"]["samples"].sum() == total
    assert tables["per_class"]["support"].sum() == tables["per_class"]["predicted"].sum() == total
    assert tuple(tables["per_class"]["class"]) == CLASSES


def test_the_whole_of_every_drawing_gives_the_plain_top1() -> None:
    assert scored().metrics["top1_at_100"] == scored().metrics["top1"]
    assert list(scored().tables["progress"]["share"]) == SETTINGS["shares"]
    assert {"top1_at_25", "top1_at_50"} < set(scored().metrics)


def test_a_part_of_a_drawing_is_scored_as_a_drawing_that_ends_there() -> None:
    data = Made()
    assert isinstance(data.all, Drawings)
    parts = [evaluation.begun(data.all[i], 0.5) for i in range(len(data.all))]
    labels = data.all.labels
    p = np.concatenate([model()(data.pad([part])).numpy() for part in parts])
    assert scored().metrics["top1_at_50"] == (p.argmax(axis=1) == labels).mean()


def test_progress_is_measured_on_no_more_drawings_than_the_limit() -> None:
    found = evaluation.evaluate(model(), Made(), 1, **{**SETTINGS, "limit": 7})
    for top1 in found.tables["progress"]["top1"]:
        assert 7 * top1 == pytest.approx(round(7 * top1))
    assert found.metrics["top1"] == scored().metrics["top1"]
    assert "(7 drawings)" in found.figures["progress"].axes[0].get_title(loc="left")


def test_bitmaps_have_no_progress() -> None:
    found = scored("bitmap")
    assert "progress" not in {*found.tables, *found.figures}
    assert not [name for name in found.metrics if name.startswith("top1_at")]


def test_the_gallery_shows_the_surest_mistakes_surest_first() -> None:
    p, truth = slow(Made()), Made().all.labels
    wrong = np.flatnonzero(p.argmax(axis=1) != truth)
    surest = wrong[np.argsort(-p.max(axis=1)[wrong], kind="stable")][:6]
    captions = [axes.get_title() for axes in scored().figures["mistakes"].axes]
    assert captions == [
        f"{CLASSES[truth[i]]}\nas {CLASSES[p[i].argmax()]}\n{p[i].max():.0%}" for i in surest
    ]


drawings = st.integers(0, 10_000).map(
    lambda seed: boxed(np.random.default_rng(seed).integers(0, 256, size=(2 + seed % 40, 2)))
)


def boxed(points: NDArray[Any]) -> NDArray[np.int16]:
    """Stroke-3 rows of points that fill the box from 0 to 255."""
    points = points - points.min(axis=0)
    points = np.rint(points * (255 / max(points.max(), 1))).astype(np.int16)
    rows = np.zeros((len(points), 3), np.int16)
    rows[:, :2] = np.diff(points, axis=0, prepend=np.int16(0))
    rows[::3, 2] = 1
    rows[-1, 2] = 1
    return rows


@settings(max_examples=50)
@given(drawings, st.floats(0, 1))
def test_a_part_of_a_drawing_is_placed_and_scaled_as_a_whole_one(
    rows: NDArray[np.int16], share: float
) -> None:
    part = evaluation.begun(rows, share)
    assert part.dtype == np.int16
    assert len(part) == max(1, round(share * len(rows)))
    assert part[-1, 2] == 1
    np.testing.assert_array_equal(part[:-1, 2], rows[: len(part) - 1, 2])
    points, before = part[:, :2].cumsum(axis=0), rows[: len(part), :2].cumsum(axis=0)
    np.testing.assert_array_equal(points.min(axis=0), [0, 0])
    extent = np.ptp(before, axis=0).max()
    if extent:
        assert points.max() == 255
        np.testing.assert_allclose(points, (before - before.min(axis=0)) * (255 / extent), atol=0.5)


@settings(max_examples=50)
@given(drawings)
def test_the_whole_of_a_drawing_is_that_drawing(rows: NDArray[np.int16]) -> None:
    np.testing.assert_array_equal(evaluation.begun(rows, 1.0), rows)


@settings(max_examples=50)
@given(drawings, st.floats(0.1, 0.9))
def test_a_part_of_a_drawing_knows_nothing_of_the_rest(
    rows: NDArray[np.int16], share: float
) -> None:
    count = max(1, round(share * len(rows)))
    points = rows[:, :2].cumsum(axis=0)
    points[count:] = points[count:][:, ::-1]  # another end, in the same box
    other = rows.copy()
    other[:, :2] = np.diff(points, axis=0, prepend=0)
    assume(points.max() == 255 and (points.min(axis=0) == 0).all())
    np.testing.assert_array_equal(evaluation.begun(rows, share), evaluation.begun(other, share))


@pytest.mark.parametrize(
    ("activation", "units", "message"),
    [("linear", 4, "no distribution"), ("softmax", 5, "not .batch, 4.")],
)
def test_what_is_not_a_distribution_over_the_classes_is_an_error(
    activation: str, units: int, message: str
) -> None:
    import keras

    given = keras.Input((None, 3))
    x = keras.layers.GlobalAveragePooling1D()(given)
    wrong = keras.Model(given, keras.layers.Dense(units, activation=activation)(x))
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(wrong, Made(), 1, **SETTINGS)


def test_a_model_that_diverged_is_an_error() -> None:
    import keras

    broken = keras.models.clone_model(model())
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    with pytest.raises(EvaluationError, match="did training diverge"):
        evaluation.evaluate(broken, Made(), 1, **SETTINGS)


def test_its_parameters_bind() -> None:
    params.bind(evaluation.evaluate, SETTINGS)
    with pytest.raises(errors.ParamsError, match="shares"):
        params.bind(evaluation.evaluate, {**SETTINGS, "shares": [1.5]})
