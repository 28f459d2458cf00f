"""Figures: the same bytes for the same data, legible at 345 classes, no style left behind."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from ostinato import store
from ostinato.data import figures as data_figures
from ostinato.evaluation import classification, figures
from ostinato.forecasting import figures as forecasting_figures
from ostinato.sketches import figures as sketches_figures

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [2.0, 1.0, 0.5],
        "accuracy": [0.3, 0.6, 0.8],
        "validation_loss": [2.1, 1.2, 1.3],
        "validation_accuracy": [0.25, 0.5, 0.45],
        "learning_rate": [1e-3, 1e-3, 5e-4],
        "gradient_norm": [1.0, 1.0, 1.0],
    }
)
RUNS = pd.DataFrame(
    {
        "run": ["one", "two", "three"],
        "score": [0.7, 0.9, 0.8],
        "low": [0.68, 0.88, 0.79],
        "high": [0.73, 0.93, 0.82],
        "inference_ms": [0.2, 5.0, 40.0],
        "parameters": [10_000, 2_000_000, 300_000],
    }
)
PREFIXES = pd.DataFrame(
    {"fraction": [0.25, 1.0], "top1": [0.3, 0.9], "low": [0.25, 0.88], "high": [0.35, 0.92]}
)
DRIFT = pd.DataFrame(
    {
        "feature": ["points", "category", "new"],
        "psi": [0.01, 0.5, np.nan],
        "ks": [0.05, np.nan, np.nan],
        "drifted": [False, True, True],
    }
)
SAMPLES: dict[str, Any] = {"points": [3, 7, 9, 40], "strokes": [1, 1, 2], "aspect": [0.2, 0.9]}
SHARES = pd.DataFrame(
    {"category": [f"class {i}" for i in range(30)], "then": 1 / 30, "now": np.arange(30) / 435}
)
STROKES = np.array([[10, 10, 0], [90, 0, 1], [-50, 5, 0], [0, 60, 1]], np.int16)
IMAGE = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28, 1)


def counts(classes: int, wrong: float = 0.3) -> np.ndarray:
    random = np.random.default_rng(classes)
    truth = random.integers(classes, size=20 * classes)
    slip = random.random(len(truth)) < wrong
    return classification.confusion_matrix(
        truth, np.where(slip, (truth * 7 + 3) % classes, truth), classes
    )


def names(classes: int) -> list[str]:
    return [f"a rather long name {number}" for number in range(classes)]


def each(classes: int) -> pd.DataFrame:
    return classification.per_class(counts(classes), names(classes))


def calibration() -> Figure:
    confidence = np.linspace(0.3, 1, 200)
    table = classification.reliability(confidence, np.arange(200) % 3 > 0, 10)
    return figures.calibration(table, classification.expected_calibration_error(table))


STEPS = np.arange(7.0)
PANEL = forecasting_figures.Panel(
    title="rail@2019-03-01",
    past=STEPS,
    truth=STEPS,
    forecast=STEPS + 1,
    intervals={0.95: (STEPS - 2, STEPS + 2), 0.8: (STEPS - 1, STEPS + 1)},
)
LEVELS = pd.DataFrame({"level": [0.1, 0.9], "raw": [0.2, 0.8], "conformal": [0.1, 0.9]})
BY_STEP = pd.DataFrame({"step": [1, 2, 3], "mae": [1.0, 2.0, 2.5], "naive": [3.0, 3.0, 3.0]})

DRAWN: dict[str, Callable[[], Figure]] = {
    "learning": lambda: figures.learning_curves(HISTORY, 2),
    "confusion": lambda: figures.confusion(counts(24), names(24)),
    "confusion_large": lambda: figures.confusion(counts(345), names(345)),
    "per_class": lambda: figures.per_class(each(24)),
    "per_class_large": lambda: figures.per_class(each(345)),
    "calibration": calibration,
    "early_recognition": lambda: sketches_figures.early_recognition(PREFIXES, 100),
    "gallery": lambda: sketches_figures.gallery([STROKES] * 8, ["a\nas b\n99%"] * 8, "errors"),
    "comparison": lambda: figures.comparison(RUNS, "top-1", False),
    "forecasts": lambda: forecasting_figures.forecasts([PANEL] * 5, "5 of 90 forecasts"),
    "horizon": lambda: forecasting_figures.horizon(BY_STEP),
    "held": lambda: forecasting_figures.interval_coverage(LEVELS),
    "residuals": lambda: forecasting_figures.residuals(np.arange(60.0).reshape(20, 3), "Errors"),
    "drift": lambda: data_figures.drift(DRIFT, 0.2, 0.15),
    "distributions": lambda: data_figures.distributions(SAMPLES, {**SAMPLES, "points": [9, 9, 9]}),
    "shares": lambda: data_figures.category_shift(SHARES, "category"),
}


@cache
def drawn(name: str) -> Figure:
    """Each figure, drawn once."""
    return DRAWN[name]()


@pytest.mark.parametrize("name", DRAWN)
def test_equal_data_give_equal_bytes_under_any_global_style(name: str, tmp_path: Path) -> None:
    store.write_figure(tmp_path / "one.png", drawn(name))
    before: dict[Any, Any] = {"font.size": 23.0, "axes.facecolor": "red", "xtick.labelsize": 4.0}
    with mpl.rc_context(before):
        figure = DRAWN[name]()
        assert {key: mpl.rcParams[key] for key in before} == before
    store.write_figure(tmp_path / "two.png", figure)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", DRAWN)
def test_texts_are_inside_legible_and_do_not_overlap(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, texts = drawn(name), []
    draw = Text.draw

    def record(text: Text, renderer: Any) -> None:
        if text.get_text() and text.get_visible():
            texts.append(text)
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", record)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == figures.WIDTH
    assert len(texts) > 5
    assert min(float(text.get_fontsize()) for text in texts) >= 7.5
    x0, y0, x1, y1 = np.array([text.get_window_extent().extents for text in texts]).T
    assert x0.min() > -2
    assert y0.min() > -2
    assert x1.max() < figure.bbox.x1 + 2
    assert y1.max() < figure.bbox.y1 + 2
    across = np.minimum(x1, x1[:, None]) - np.maximum(x0, x0[:, None])
    along = np.minimum(y1, y1[:, None]) - np.maximum(y0, y0[:, None])
    for one, other in np.argwhere(np.triu((across > 1) & (along > 1), 1)):
        raise AssertionError(f"{texts[one]} and {texts[other]} overlap")


def test_a_large_confusion_matrix_shows_the_most_confused_pairs_first() -> None:
    matrix = 10 * np.eye(345, dtype=int)
    matrix[7, 300], matrix[300, 7], matrix[12, 5] = 9, 2, 4
    figure = figures.confusion(matrix, names(345))
    top, bottom = figure.axes
    labels = [label.get_text() for label in bottom.get_yticklabels()]
    assert labels[0] == "a rather long name 7 as a rather long name 300"
    assert labels[1] == "a rather long name 12 as a rather long name 5"
    assert "9 of 19  (reverse 2 of 12)" in {text.get_text() for text in bottom.texts}
    shown = top.images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(np.asarray(shown).sum(axis=1), 1)
    assert [label.get_text()[19:] for label in top.get_yticklabels()] == ["5", "7", "12", "300"]
    assert "100% of all 15" in bottom.get_title(loc="left")


@pytest.mark.parametrize("classes", [2, 24, 345])
def test_a_model_without_errors_and_classes_without_examples_are_drawn(classes: int) -> None:
    matrix = np.diag(np.arange(classes))
    figures.confusion(matrix, names(classes))
    figures.per_class(classification.per_class(matrix, names(classes)))
    sketches_figures.gallery([], [], "No errors")


def test_the_best_epoch_is_marked() -> None:
    figure = figures.learning_curves(HISTORY, 2)
    loss, accuracy, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss, validation 1.2 at epoch 2",
        "Accuracy, validation 0.5 at epoch 2",
        "Learning rate",
    ]
    stars = [np.asarray(axes.lines[-1].get_xydata()).tolist() for axes in (loss, accuracy)]
    assert stars == [[[2, 1.2]], [[2, 0.5]]]
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), HISTORY["learning_rate"])


def test_one_epoch_without_a_learning_rate_is_drawn() -> None:
    figures.learning_curves(HISTORY.head(1).assign(learning_rate=0.0), 1)
    figures.learning_curves(HISTORY.drop(columns="learning_rate"), None)


def test_a_history_without_validation_is_an_error() -> None:
    with pytest.raises(ValueError, match="its validation_ column, found epoch, loss"):
        figures.learning_curves(HISTORY[["epoch", "loss"]], None)


def test_the_gallery_shows_strokes_as_lines_and_images_as_pixels() -> None:
    figure = sketches_figures.gallery([STROKES, IMAGE], ["one", "two"], "both")
    drawing: Any = figure.axes[0].collections[0]
    segments = drawing.get_segments()
    assert [segment.tolist() for segment in segments] == [
        [[10, 10], [100, 10]],
        [[50, 15], [50, 75]],
    ]
    low, high = figure.axes[0].get_ylim()
    assert low > high  # y points down, as in the drawing
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), IMAGE[..., 0])


def test_runs_are_sorted_by_score_with_their_intervals() -> None:
    axes = figures.comparison(RUNS, "top-1", False).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["two", "three", "one"]
    assert axes.texts[0].get_text() == "0.900  [0.880, 0.930]"
