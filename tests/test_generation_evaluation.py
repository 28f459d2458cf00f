"""The evaluation of generators: distances of sets, temperature, arrays, figures, missing parts."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import store
from ostinato.generation import evaluation, metrics
from ostinato.generation.evaluation import Some
from ostinato.generation.formats.drawings import seed_of
from ostinato.generation.formats.latent import spherical
from ostinato.generation.formats.svg import to_svg
from ostinato.generation.reporting import REPORT
from ostinato.task import Evaluation
from stages.evaluate import write

Array = np.ndarray[Any, Any]
SHAPES = {  # points of each class
    "line": [(0, 0), (100, 0)],
    "square": [(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)],
    "zigzag": [(0, 0), (20, 90), (40, 0), (60, 90), (80, 0), (100, 90), (120, 0), (140, 90)],
}
SETTINGS: dict[str, Any] = {
    "resamples": 50, "temperatures": [0.1, 0.5, 1.0], "samples_per_class": 4, "max_examples": 20,
    "completion_fractions": [0.25, 0.5], "num_plots": 2, "timed_requests": 2,
}  # fmt: skip


def rows(label: int, random: np.random.Generator, noise: float = 4.0) -> Array:
    points = np.array(list(SHAPES.values())[label], float)
    points += random.normal(0, noise, points.shape)
    found = np.zeros((len(points), 3), np.int16)
    found[:, :2] = np.diff(np.rint(points), axis=0, prepend=0)
    found[-1, 2] = 1
    return found


class ToyData:
    """Drawings of up to three classes; the classifier counts points."""

    def __init__(self, classes: int) -> None:
        self.classes = list(SHAPES)[:classes]
        self.classifier = count_points if classes > 1 else None
        self.splits = {}
        for number, split in enumerate(("train", "validation", "test")):
            random = np.random.default_rng(number)
            labels = np.repeat(np.arange(classes, dtype=np.int32), 8)
            keys = np.array([f"{split} {i}" for i in range(len(labels))])
            self.splits[split] = Some(
                [rows(label, random) for label in labels.tolist()], labels, keys
            )

    def examples(self, split: str) -> Some:
        return self.splits[split]


def count_points(drawings: Sequence[Array]) -> tuple[Array, Array]:
    sizes = np.array([len(each) for each in drawings], np.float32)
    assert sizes.min() > 1, "the classifier cannot read an empty drawing"
    known = np.array([len(points) for points in SHAPES.values()])
    label = np.abs(sizes[:, None] - known).argmin(axis=1)
    features = np.stack([sizes, [np.abs(each[:, :2]).sum() / 99 for each in drawings]], axis=1)
    return np.eye(3, dtype=np.float32)[label], features.astype(np.float32)


class ToyGenerator:
    """Draws the shape of the class where the temperature is right, else one point or nothing."""

    parameters = 7

    def __init__(self, latent_size: int, right: float, density: bool = True) -> None:
        self.latent_size, self.right, self.density = latent_size, right, density

    def draw(
        self, labels: Array, seeds: Sequence[int], temperature: Array, *,
        latent: Array | None = None, beginnings: Sequence[Array] | None = None,
    ) -> list[Array]:  # fmt: skip
        assert len(labels) == len(seeds) == len(temperature)
        drawn = []
        for number, (label, seed) in enumerate(zip(labels, seeds, strict=True)):
            whole = rows(label, np.random.default_rng(seed))
            if abs(temperature[number] - self.right) > 0.01:
                whole = whole[: seed % 2]
            begun = whole[:0] if beginnings is None else beginnings[number]
            drawn.append(np.concatenate([begun, whole[len(begun) :]]))
        return drawn

    def measure(self, drawings: Sequence[Array], labels: Array, seeds: Any) -> tuple[Any, Any]:
        loss = np.array([len(each) / 10 for each in drawings])
        return loss if self.density else None, loss / 2 if self.latent_size else None

    def encode(self, drawings: Sequence[Array], labels: Array) -> Array:
        return np.array([each[:2, 0] for each in drawings], np.float32)


@cache
def evaluated(classes: int = 3, latent_size: int = 2, density: bool = True) -> Evaluation:
    generator = ToyGenerator(latent_size, 0.5, density)
    return evaluation.evaluate(generator, ToyData(classes), 1, **SETTINGS)


def test_the_temperature_is_chosen_on_the_validation_split() -> None:
    found = evaluated()
    assert found.metrics["temperature"] == found.serving["temperature"] == 0.5
    table = found.tables["by_temperature"].set_index("temperature")
    assert table["samples"].to_dict() == {0.1: 0.0, 0.5: 1.0, 1.0: 0.0}
    assert table["empty"].to_dict() == {0.1: 1.0, 0.5: 0.0, 1.0: 1.0}
    assert found.metrics["recognised_samples"] == found.metrics["recognised_reconstructions"] == 1
    assert found.value("recognised_completions") > found.value("recognised_unfinished")
    assert found.metrics["recognised_test_drawings"] == 1


@pytest.mark.parametrize(
    ("classes", "latent_size", "density"), [(3, 2, True), (3, 0, False), (1, 2, True)]
)
def test_metrics_follow_from_the_stored_arrays(
    classes: int, latent_size: int, density: bool, tmp_path: Path
) -> None:
    found = evaluated(classes, latent_size, density)
    store.write_arrays(tmp_path / "predictions.npz", found.arrays)
    results = evaluation.per_example(store.read_arrays(tmp_path / "predictions.npz"))
    assert len(results.keys) == found.metrics["samples"] == 8 * classes
    for name, metric in metrics.METRICS.items():
        assert found.value(name) == pytest.approx(results.value(metric), nan_ok=True)
        assert {f"{name}_low", f"{name}_high", f"validation_{name}"} <= set(found.metrics)
    assert {metric.name for metric in REPORT.metrics} <= set(found.metrics)


def test_a_model_without_encoder_and_density_says_why_metrics_are_missing() -> None:
    found = evaluated(3, 0, False)
    assert not {"reconstruction_label", "reconstruction_loss", "kl"} & set(found.arrays)
    reasons = {name: found.undefined[name] for name in ("kl", "recognised_reconstructions")}
    assert set(reasons.values()) == {"the model has no encoder"}
    assert found.undefined["reconstruction_loss"] == "the model has no density"
    assert found.value("recognised_completions") == 1
    assert found.tables["by_temperature"]["reconstructions"].isna().all()
    assert {"learning_curves", "reconstructions", "interpolations"} == (
        set(REPORT.figures) - set(found.figures)
    )


def test_one_class_has_losses_and_variety_but_no_recognition() -> None:
    found = evaluated(1)
    assert found.metrics["temperature"] == 0.5, "the variety of the samples decides"
    names = ["recognised_completions", "recognised_samples", "frechet_distance"]
    assert {found.undefined[name] for name in names} == {
        "a data set of one class has no classifier"
    }
    assert found.value("reconstruction_loss") == pytest.approx(0.2)
    assert found.value("diversity") > 0
    assert "completion_label" not in found.arrays
    assert len(found.arrays["completion_points"]) == 8


def test_a_generator_that_draws_nothing_is_evaluated() -> None:
    found = evaluation.evaluate(ToyGenerator(0, 99.0), ToyData(3), 1, **SETTINGS)
    assert found.metrics["recognised_samples"] == 0
    assert (found.tables["by_temperature"]["empty"] == 1).all()
    assert found.metrics["diversity"] is found.metrics["novelty"] is None


def test_figures_are_matplotlibs_and_svg(tmp_path: Path) -> None:
    found = evaluated()
    assert set(REPORT.figures) - {"learning_curves"} == set(found.figures)
    replay = {"replay": found.figures["replay"], "completion": found.figures["completion"]}
    write(Evaluation({}, figures=replay), tmp_path)
    files = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert files["replay.svg"].startswith(b"<svg ")
    assert files["completion.png"].startswith(b"\x89PNG")


def test_the_frechet_distance_of_gaussians_has_a_closed_form() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(x, x + np.array([3, 0, 4])) == pytest.approx(25)
    mean, deviation = x.mean(axis=0), x.std(axis=0, ddof=1)
    stretched = mean + (x - mean) * 3  # the covariances commute: the roots are subtracted
    assert metrics.frechet_distance(x, stretched) == pytest.approx(4 * np.square(deviation).sum())
    y = random.normal(size=(150, 3)) @ random.normal(size=(3, 3))
    product = np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(product).real).sum()
    expected = np.square(mean - y.mean(axis=0)).sum() + np.square(deviation).sum()
    expected += y.var(axis=0, ddof=1).sum() - 2 * root
    assert metrics.frechet_distance(x, y) == pytest.approx(expected)
    assert metrics.frechet_distance(y, x) == pytest.approx(expected)


def test_copies_have_no_novelty_and_test_drawings_all_of_it() -> None:
    data = ToyData(3)
    train, test = data.examples("train"), data.examples("test")
    _, real = metrics.nearest(list(test), test.labels, list(train), train.labels)
    index, copies = metrics.nearest(list(train), train.labels, list(train), train.labels)
    assert (copies == 0).all()
    assert (train.labels[index] == train.labels).all()
    assert metrics.novelty(copies, real) == 0
    assert metrics.novelty(real, real) == 1
    index, _ = metrics.nearest(list(test), test.labels, list(train)[:8], train.labels[:8])
    assert (index[8:] == -1).all(), "there is no training drawing of the class"


def test_distances_equal_slow_ones() -> None:
    test = ToyData(2).examples("test")
    ink = metrics.bitmaps(list(test))
    distance = [np.sqrt(sum((a - b) ** 2)) for a in ink[:8] for b in ink[:8]]
    assert metrics.spread(list(test), test.labels)[0] == pytest.approx(sum(distance) / 56, rel=1e-4)
    assert metrics.diversity({0: 3.0, 1: 1.0}, {0: 2.0, 5: 1.0}) == 1.5


def test_a_bitmap_has_ink_along_the_lines_alone() -> None:
    two = np.array([[0, 0, 0], [255, 0, 1], [-255, 255, 0], [255, 0, 1]], np.int16)
    moved = two.copy()
    moved[0, :2] = 7, 9
    ink = metrics.bitmaps([two, np.zeros((0, 3), np.int16), moved])
    rows_of_ink = ink[0].reshape(metrics.SIDE, metrics.SIDE)
    np.testing.assert_allclose(rows_of_ink[0], rows_of_ink[0, 0], rtol=1e-5)
    assert rows_of_ink[5:-5].max() < 1e-4, "the pen was lifted between the lines"
    assert ink[1].max() == 0
    np.testing.assert_array_equal(ink[0], ink[2], err_msg="the place of a drawing matters")


def test_points_on_an_arc_keep_its_radius() -> None:
    one, other = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    found = spherical(one, other, np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 3, rtol=1e-6)
    np.testing.assert_allclose(found[[0, -1]], [one, other], atol=1e-6)
    np.testing.assert_allclose(spherical(one, 2 * one, np.array([0.5])), [1.5 * one])


def test_the_seed_of_a_drawing_does_not_change() -> None:
    assert [seed_of("1"), seed_of("4503626191994880")] == [120362236, 920467361]


STROKES = [[[0, 100, 100], [0, 0, 50]], [[50], [20]], [[10, 90], [40, 40], [0, 5]]]


def test_an_svg_shows_every_stroke_within_the_picture() -> None:
    root = ET.fromstring(to_svg(STROKES, size=120))
    paths = [node.attrib["d"] for node in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 3
    assert paths[1].endswith("h0"), "a dot"
    numbers = np.array(paths[0].replace("M", "").replace("L", " ").split(), float).reshape(-1, 2)
    np.testing.assert_allclose(numbers, [[8, 34], [112, 34], [112, 86]])
    assert "animation" not in to_svg(STROKES)
    assert "<path" not in to_svg([], animate_seconds=1.0)


def test_a_replay_draws_the_strokes_in_their_order_within_its_time() -> None:
    text = to_svg(STROKES, animate_seconds=2.0)
    nodes = list(ET.fromstring(text).iter("{http://www.w3.org/2000/svg}path"))
    end = 0.0
    for node in nodes:
        style = dict(part.split(":") for part in node.attrib["style"].split(";"))
        begin = float(style["animation-delay"][:-1])
        assert begin > end
        end = begin + float(style["animation-duration"][:-1])
    assert end == pytest.approx(2, abs=0.01)
    assert "prefers-reduced-motion" in text
    assert "script" not in text
