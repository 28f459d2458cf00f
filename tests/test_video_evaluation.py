"""Evaluation of video classifiers: use of time, whole videos, Grad-CAM, per-example results."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ostinato import store
from ostinato.errors import EvaluationError
from ostinato.evaluation import classification, comparison
from ostinato.evaluation.classification import TOP1
from ostinato.evaluation.grad_cam import grad_cam
from ostinato.study import Study
from ostinato.task import Evaluation, PerExample, Reporting
from ostinato.training.keras_model import KerasModel
from ostinato.video import evaluation, figures, reporting
from ostinato.video.dataset import ClipDataset, Clips
from ostinato.video.metrics import METRICS, SHUFFLING_DROP, TOP1_SHUFFLED, TOP1_VIDEO
from stages import report

PARAMETERS: dict[str, Any] = {
    "resamples": 200,
    "prefix_frames": [1, 3],
    "max_examples": 1000,
    "num_plots": 2,
    "batch_size": 16,
    "timed_requests": 1,
}
FRAMES = 5


class ColourDataset(ClipDataset):
    """Clips whose first frame has the colour of the class, the others a random colour.

    There are two clips per video.
    """

    def __init__(self) -> None:
        self.classes = ("red", "green", "blue")
        self.frames, self.height, self.width, self.channels = FRAMES, 2, 3, 3
        random = np.random.default_rng(0)
        labels = np.repeat(random.integers(3, size=60), 2).astype(np.int32)
        colours = random.integers(3, size=(120, FRAMES))
        colours[:, 0] = labels
        pixels = np.eye(3, dtype=np.uint8)[colours] * 255
        frames = random.integers(2, FRAMES + 1, size=120).astype(np.int32)
        pixels[np.arange(FRAMES) >= frames[:, None]] = 0
        clips = np.broadcast_to(pixels[:, :, None, None], (120, FRAMES, 2, 3, 3)).copy()
        keys = np.array([f"v{i // 2}#{i % 2}" for i in range(120)])
        self.clips = Clips(clips, frames, labels, keys, np.array([k[:-2] for k in keys]))

    def examples(self, split: str, max_examples: int | None = None) -> Clips:
        return self.clips


def classifier(reads: str) -> KerasModel:
    """A model without weights that reads the colour of the first frame, or the mean colour."""
    clip = keras.Input((None, 2, 3, 3), name="clip")
    frames = keras.Input((), dtype="int32", name="frames")
    x = keras.layers.Identity(name="map")(clip)
    x = {"first": x[:, :1], "mean": x}[reads]
    logits = 5 * keras.ops.sum(x, axis=(1, 2, 3)) / 6
    zero = keras.ops.cast(frames, "float32")[:, None] * 0  # so that the model has both inputs
    return KerasModel(
        keras.Model({"clip": clip, "frames": frames}, keras.layers.Softmax()(logits + zero))
    )


@pytest.fixture(scope="module")
def data() -> ColourDataset:
    return ColourDataset()


@pytest.fixture(scope="module")
def first(data: ColourDataset) -> Evaluation:
    return evaluation.evaluate(classifier("first"), data, 7, **PARAMETERS)


@pytest.fixture(scope="module")
def mean(data: ColourDataset) -> Evaluation:
    return evaluation.evaluate(classifier("mean"), data, 7, **PARAMETERS | {"batch_size": 50})


def test_shuffling_frames_hurts_only_models_that_use_their_order(
    first: Evaluation, mean: Evaluation
) -> None:
    drop = SHUFFLING_DROP.name
    assert first.metrics["top1"] == first.metrics["top1_at_1"] == first.metrics["top1_at_3"] == 1
    assert first.value(f"{drop}_low") > 0.1
    expected = first.value("top1") - first.value(TOP1_SHUFFLED.name)
    assert first.metrics[drop] == pytest.approx(expected)
    assert [mean.metrics[f"{drop}{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    np.testing.assert_array_equal(mean.arrays["rank"], mean.arrays["rank_shuffled"])
    assert mean.value("top1_at_1") == 1 > mean.value("top1_at_3") >= mean.value("top1")


def test_a_video_is_predicted_by_the_mean_of_its_clips(mean: Evaluation) -> None:
    videos = mean.arrays["videos"]
    means = pd.DataFrame(mean.arrays["probabilities"].astype(float)).groupby(videos).mean()
    truth = pd.Series(mean.arrays["truth"]).groupby(videos).first()
    rank = classification.ranks(means.to_numpy(), truth.to_numpy())
    assert mean.metrics["videos"] == 60
    assert mean.metrics[TOP1_VIDEO.name] == pytest.approx(np.mean(rank == 1), abs=1 / 60)


def test_the_clips_of_a_video_are_one_cluster(mean: Evaluation) -> None:
    clusters, videos = evaluation.per_example(mean.arrays).clusters, mean.arrays["videos"]
    same_cluster = clusters[:, None] == clusters
    np.testing.assert_array_equal(same_cluster, videos[:, None] == videos)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_statistics_of_clips_aggregate_to_the_metric(metric: Any, mean: Evaluation) -> None:
    results = evaluation.per_example(mean.arrays)
    assert results.value(metric) == pytest.approx(mean.metrics[metric.name], rel=1e-12)
    assert results.keys.tolist() == mean.arrays["keys"].tolist()


def test_the_interval_of_top1_is_that_of_the_shared_bootstrap(mean: Evaluation) -> None:
    found = comparison.metric_interval(
        evaluation.per_example(mean.arrays), TOP1, resamples=200, seed=7
    )
    assert found == (mean.metrics["top1_low"], mean.metrics["top1_high"])
    assert found[0] < mean.value("top1") < found[1]


def test_an_output_that_is_no_distribution_is_an_error(data: ColourDataset) -> None:
    model = classifier("mean").model
    broken = KerasModel(keras.Model(model.input, model.output * 2))
    with pytest.raises(EvaluationError, match="not a distribution"):
        evaluation.evaluate(broken, data, 7, **PARAMETERS)


def test_a_model_without_gradients_is_evaluated_without_grad_cam(
    data: ColourDataset, first: Evaluation
) -> None:
    def by_first_frame(inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        colours = inputs["clip"][:, 0].mean(axis=(1, 2))
        return np.asarray(colours / colours.sum(axis=1, keepdims=True))

    class Rule:
        parameters = 0
        __call__ = staticmethod(by_first_frame)

    found = evaluation.evaluate(Rule(), data, 7, **PARAMETERS)
    assert found.metrics["top1"] == 1
    assert found.metrics["parameters"] == 0
    assert {*first.figures} - {*found.figures} == {"grad_cam"}


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_shuffling_keeps_every_real_frame_and_moves_no_padding(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    clips = np.zeros((3, 9, 1, 1, 1), np.uint8)
    frames = np.array([count, 9, 1], np.int32)
    for row, n in enumerate(frames):
        clips[row, :n, 0, 0, 0] = np.arange(1, n + 1)
    orders = random.permuted(np.tile(np.arange(9), (5, 1)), axis=1)
    rows = np.array([4, 0, 2])
    shuffled, unchanged = evaluation.shuffled_frames(orders)(rows, clips, frames)
    np.testing.assert_array_equal(unchanged, frames)
    for one, other, n in zip(shuffled[..., 0, 0, 0], clips[..., 0, 0, 0], frames, strict=True):
        assert sorted(one[:n]) == sorted(other[:n])
        assert not one[n:].any()


def test_grad_cam_marks_the_evidence_for_a_class() -> None:
    clip = np.full((2, 4, 2, 3, 3), 10, np.uint8)
    clip[0, 2, 1, 0, 0] = 255  # red, the class of the first heat map
    clip[0, 1, 0, 2, 1] = 255  # green, another class
    clip[1, 0, 0, 1, 1] = 255
    x: dict[str, NDArray[Any]] = {
        "clip": clip.astype(np.float32) / 255,
        "frames": np.array([4, 3], np.int32),
    }
    heat = grad_cam(classifier("mean").model, x, np.array([0, 1]))
    assert [h.shape for h in heat] == [(4, 2, 3), (3, 2, 3)]
    assert heat[0].argmax() == np.ravel_multi_index((2, 1, 0), heat[0].shape)
    assert heat[1].argmax() == np.ravel_multi_index((0, 0, 1), heat[1].shape)
    assert max(h.max() for h in heat) == pytest.approx(1)


def test_the_same_clips_give_the_same_contact_sheet(data: ColourDataset, tmp_path: Path) -> None:
    clips = [data.clips.clips[0], data.clips.clips[1][:2]]
    heat = [np.ones((len(clip), 2, 3)) for clip in clips]
    one, other = (figures.contact_sheet(clips, ["a", "b"], "t", heat) for _ in range(2))
    shown = [axes for axes in one.axes if axes.images]
    assert len(shown) == len(clips[0]) + len(clips[1])
    for name, figure in (("one", one), ("other", other)):
        store.write_figure(tmp_path / name, figure)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_report_names_metrics_and_figures_of_an_evaluation(mean: Evaluation) -> None:
    spec: Reporting = reporting.REPORT
    assert {metric.name for metric in spec.metrics} <= set(mean.metrics)
    assert set(spec.figures) - {"learning_curves"} == set(mean.figures)


def results_of(keys: list[str], correct: list[int]) -> PerExample:
    statistics = np.stack([np.array(correct, float), np.ones(len(correct))], axis=1)
    return PerExample(np.array(keys), np.arange(len(keys)), {"top1": statistics})


def test_runs_on_the_same_drawings_are_compared_side_by_side() -> None:
    shared = [str(i) for i in range(40)]
    results = {
        "strokes": results_of([*shared, "x"], [1] * 41),
        "bitmap": results_of([*shared, "x"], [1] * 20 + [0] * 21),
        "film": results_of(shared, [1] * 30 + [0] * 10),
        "order": results_of(["0/left"], [1]),
        "weather": PerExample(np.array(["0"]), np.array([0]), {"mae": np.ones((1, 2))}),
    }
    models = {
        "strokes": "sketches/rnn",
        "bitmap": "sketches/bitmap_cnn",
        "film": "video/c3d",
        "order": "video/c3d",
        "weather": "forecasting/linear",
    }
    text = "\n".join(reporting.further_section(results, models, resamples=200, seed=3))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| strokes", "| film", "| bitmap"]
    assert rows[1][1] == "ostinato/video/models/c3d.py"
    assert [row[2].split()[0] for row in rows] == ["1.000", "0.750", "0.500"]
    assert rows[1][3].startswith("-0.250 [-0.")
    assert "these 40 drawings" in text
    without = {name: results[name] for name in ("film", "order", "weather")}
    assert list(reporting.further_section(without, models, resamples=200, seed=3)) == []


def test_the_report_of_a_study_has_the_comparison_of_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {
        "strokes": {"data": "drawings", "domain": "sketches", "model": "rnn"},
        "film": {"data": "clips", "domain": "video", "model": "c3d"},
    }
    evaluation_parameters = {"sketches": {"resamples": 200}, "video": {"resamples": 200}}
    values = {"root": ".", "at": "", "seed": 5, "evaluation": evaluation_parameters}
    values |= {"data": {}, "runs": runs, "ensembles": {}}
    store.write_text(Path("params.yaml"), json.dumps(values))
    study, sections = Study.load("params.yaml"), []
    for name, run in runs.items():
        rank = np.where(np.arange(40) < (30 if name == "film" else 40), 1, 2).astype(np.int32)
        arrays: dict[str, NDArray[Any]] = {
            "keys": np.arange(40).astype(str),
            "videos": np.arange(40).astype(str),
            "rank": rank,
            "likelihood": np.ones(40),
        }
        folder = Path("results", name)
        store.write_arrays(folder / "predictions.npz", arrays)
        result = report.Result(name, run["model"], folder, {}, {}, 1, 1.0)
        sections.append(report.Section(study, run["domain"], run["data"], [result]))
    text = "\n".join(report.further_sections(sections))
    assert "| film | ostinato/video/models/c3d.py | 0.750" in text
    assert "these 40 drawings" in text
    assert list(report.further_sections(sections[:1])) == []
