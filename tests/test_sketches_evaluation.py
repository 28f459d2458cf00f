"""Evaluation of a classifier whose outputs are computed independently."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ostinato import params, store
from ostinato.errors import EvaluationError, ParamsError
from ostinato.evaluation import classification
from ostinato.evaluation.comparison import metric_interval
from ostinato.sketches import evaluation
from ostinato.sketches.dataset import Bitmaps, Drawings
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.metrics import METRICS
from ostinato.task import Evaluation
from ostinato.training.keras_model import KerasModel

CLASSES = ("circle", "fish", "square", "star")
SCALE = 32.0
SETTINGS: dict[str, Any] = {
    "resamples": 200,
    "bins": 10,
    "prefix_fractions": [0.25, 0.5, 1.0],
    "max_examples": 1_000,
    "num_plots": 6,
    "batch_size": 16,
    "timed_requests": 3,
}


class ToyData:
    """Random drawings or bitmaps: the part of a data set that evaluation uses."""

    classes = CLASSES

    def __init__(self, kind: Kind = "strokes", samples: int = 90) -> None:
        random = np.random.default_rng(samples)
        self.kind: Kind = kind
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
        assert split in ("validation", "test")
        return self.all

    def inputs(self, drawings: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        if self.kind == "bitmap":
            return np.stack(drawings).astype(np.float32) / np.float32(255)
        x = np.zeros((len(drawings), max(map(len, drawings)), 3), np.float32)
        for padded, rows in zip(x, drawings, strict=True):
            padded[: len(rows)] = rows / (SCALE, SCALE, 0.5) - (0, 0, 1)
        return x


@cache
def model(kind: Kind = "strokes") -> Any:
    """A linear classifier with fixed weights on the mean of the points, or of some pixels."""
    import keras

    if kind == "bitmap":
        x = inputs = keras.Input((28, 28, 1))
        x = keras.layers.AveragePooling2D(14)(x)
        x = keras.layers.Flatten()(x)
    else:
        inputs = keras.Input((None, 3))
        x = keras.layers.Masking(0.0)(inputs)
        x = keras.layers.GlobalAveragePooling1D()(x)
    weights = keras.initializers.RandomNormal(stddev=8, seed=1)
    x = keras.layers.Dense(4, activation="softmax", kernel_initializer=weights)(x)
    return keras.Model(inputs, x)


@cache
def evaluated(kind: Kind = "strokes") -> Evaluation:
    return evaluate(kind)


def evaluate(kind: Kind = "strokes", **changed: Any) -> Evaluation:
    return evaluation.evaluate(KerasModel(model(kind)), ToyData(kind), 1, **SETTINGS | changed)


def slow(data: ToyData) -> NDArray[np.float32]:
    """Probabilities (example, class), one drawing at a time, in the stored order."""
    known = data.all
    if isinstance(known, Bitmaps):
        x = list(known.pixels[:, None] / np.float32(255))
    else:
        x = [data.inputs([known[i]]) for i in range(len(known))]
    return np.concatenate([model(data.kind)(one).numpy() for one in x])


@pytest.mark.parametrize("kind", ["strokes", "bitmap"])
def test_batches_by_length_equal_single_predictions(kind: Kind) -> None:
    data, found = ToyData(kind), evaluated(kind)
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
    assert found.value("top1_low") < found.value("top1") < found.value("top1_high")


def test_the_batch_size_changes_no_metric() -> None:
    other = evaluate(batch_size=1_000)
    for name, value in evaluated().metrics.items():
        assert other.metrics[name] == pytest.approx(value, rel=1e-5), name


def test_evaluation_is_reproducible_except_for_the_speed(tmp_path: Path) -> None:
    again = evaluate()
    assert again.metrics == evaluated().metrics
    for name, table in evaluated().tables.items():
        assert table.equals(again.tables[name]), name
    for name, array in evaluated().arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name])
    for name, figure in evaluated().figures.items():
        other = again.figures[name]
        assert isinstance(figure, Figure)
        assert isinstance(other, Figure)
        store.write_figure(tmp_path / "one.png", figure)
        store.write_figure(tmp_path / "two.png", other)
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes(), name
    assert min(again.speed.values()) > 0


def test_metrics_follow_from_the_stored_arrays(tmp_path: Path) -> None:
    store.write_arrays(tmp_path / "predictions.npz", evaluated().arrays)
    store.write_json(tmp_path / "metrics.json", evaluated().metrics)
    arrays = store.read_arrays(tmp_path / "predictions.npz")
    assert arrays["probabilities"].dtype == np.float16
    results = evaluation.per_example(arrays)
    assert results.statistics.keys() == METRICS.keys()
    assert len(set(results.clusters)) == len(results.keys)
    for name, metric in METRICS.items():
        assert results.value(metric) == pytest.approx(evaluated().metrics[name], rel=1e-12)
    interval = metric_interval(results, METRICS["top1"], resamples=SETTINGS["resamples"], seed=1)
    assert interval == (evaluated().metrics["top1_low"], evaluated().metrics["top1_high"])


def test_tables_add_up() -> None:
    tables, total = evaluated().tables, evaluated().metrics["samples"]
    cells = tables["confusion"]
    assert cells["count"].sum() == total
    assert (cells["count"] > 0).all()
    right = cells[cells["truth"] == cells["prediction"]]["count"].sum()
    assert right / total == evaluated().metrics["top1"]
    assert tables["calibration"]["samples"].sum() == total
    assert tables["per_class"]["support"].sum() == tables["per_class"]["predicted"].sum() == total
    assert tuple(tables["per_class"]["class"]) == CLASSES


def test_the_whole_prefix_has_the_accuracy_of_whole_drawings() -> None:
    assert evaluated().metrics["top1_at_100"] == evaluated().metrics["top1"]
    assert list(evaluated().tables["early_recognition"]["fraction"]) == SETTINGS["prefix_fractions"]
    assert {"top1_at_25", "top1_at_50"} < set(evaluated().metrics)


def test_a_prefix_is_classified_as_a_drawing_that_ends_there() -> None:
    data = ToyData()
    assert isinstance(data.all, Drawings)
    parts = [evaluation.prefix(data.all[i], 0.5) for i in range(len(data.all))]
    labels = data.all.labels
    p = np.concatenate([model()(data.inputs([part])).numpy() for part in parts])
    assert evaluated().metrics["top1_at_50"] == (p.argmax(axis=1) == labels).mean()


def test_early_recognition_uses_at_most_max_examples() -> None:
    found = evaluate(max_examples=7)
    for top1 in found.tables["early_recognition"]["top1"]:
        assert 7 * top1 == pytest.approx(round(7 * top1))
    assert found.metrics["top1"] == evaluated().metrics["top1"]
    figure = found.figures["early_recognition"]
    assert isinstance(figure, Figure)
    assert "(7 drawings)" in figure.axes[0].get_title(loc="left")


def test_bitmaps_have_no_early_recognition() -> None:
    found = evaluated("bitmap")
    assert "early_recognition" not in {*found.tables, *found.figures}
    assert not [name for name in found.metrics if name.startswith("top1_at")]


def test_the_gallery_shows_the_most_confident_errors_first() -> None:
    p, truth = slow(ToyData()), ToyData().all.labels
    wrong = np.flatnonzero(p.argmax(axis=1) != truth)
    most_confident = wrong[np.argsort(-p.max(axis=1)[wrong], kind="stable")][:6]
    figure = evaluated().figures["mistakes"]
    assert isinstance(figure, Figure)
    captions = [axes.get_title() for axes in figure.axes]
    assert captions == [
        f"{CLASSES[truth[i]]}\nas {CLASSES[p[i].argmax()]}\n{p[i].max():.0%}"
        for i in most_confident
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
def test_a_prefix_is_aligned_and_scaled_as_a_whole_drawing(
    rows: NDArray[np.int16], fraction: float
) -> None:
    part = evaluation.prefix(rows, fraction)
    assert part.dtype == np.int16
    assert len(part) == max(1, round(fraction * len(rows)))
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
def test_the_whole_prefix_is_the_drawing(rows: NDArray[np.int16]) -> None:
    np.testing.assert_array_equal(evaluation.prefix(rows, 1.0), rows)


@settings(max_examples=50)
@given(drawings, st.floats(0.1, 0.9))
def test_a_prefix_is_independent_of_the_rest(rows: NDArray[np.int16], fraction: float) -> None:
    count = max(1, round(fraction * len(rows)))
    points = rows[:, :2].cumsum(axis=0)
    points[count:] = points[count:][:, ::-1]  # another end, in the same box
    other = rows.copy()
    other[:, :2] = np.diff(points, axis=0, prepend=0)
    assume(points.max() == 255 and (points.min(axis=0) == 0).all())
    np.testing.assert_array_equal(
        evaluation.prefix(rows, fraction), evaluation.prefix(other, fraction)
    )


@pytest.mark.parametrize(
    ("activation", "units", "message"),
    [("linear", 4, "not a distribution"), ("softmax", 5, r"expected \(16, 4\)")],
)
def test_outputs_that_are_no_distribution_are_an_error(
    activation: str, units: int, message: str
) -> None:
    import keras

    inputs = keras.Input((None, 3))
    x = keras.layers.GlobalAveragePooling1D()(inputs)
    wrong = keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(KerasModel(wrong), ToyData(), 1, **SETTINGS)


def test_a_diverged_model_is_an_error() -> None:
    import keras

    broken = keras.models.clone_model(model())
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    with pytest.raises(EvaluationError, match="did training diverge"):
        evaluation.evaluate(KerasModel(broken), ToyData(), 1, **SETTINGS)


def test_the_parameters_bind() -> None:
    params.bind(evaluation.evaluate, SETTINGS)
    with pytest.raises(ParamsError, match="prefix_fractions"):
        params.bind(evaluation.evaluate, {**SETTINGS, "prefix_fractions": [1.5]})
