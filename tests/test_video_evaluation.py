"""Laws of the scores of clips: who uses time, whole videos, activation, and the report's table."""

from pathlib import Path
from types import SimpleNamespace
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
from ostinato.evaluation import classification
from ostinato.task import Evaluation
from ostinato.video import evaluation, figures, reporting
from ostinato.video.dataset.batches import Clips

BLOCK: dict[str, Any] = {
    "resamples": 200, "seen": [1, 3], "limit": 1000, "gallery": 2, "batch_size": 16, "timed_requests": 1,
}  # fmt: skip
FRAMES = 5


class Data:
    """Clips whose first frame is of its class's colour, the others of any; two clips a video."""

    classes = ("red", "green", "blue")
    frames, height, width, channels = FRAMES, 2, 3, 3

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        labels = np.repeat(random.integers(3, size=60), 2).astype(np.int32)
        colours = random.integers(3, size=(120, FRAMES))
        colours[:, 0] = labels
        lit = np.eye(3, dtype=np.uint8)[colours] * 255
        frames = random.integers(2, FRAMES + 1, size=120).astype(np.int32)
        lit[np.arange(FRAMES) >= frames[:, None]] = 0
        clips = np.broadcast_to(lit[:, :, None, None], (120, FRAMES, 2, 3, 3)).copy()
        keys = np.array([f"v{i // 2}#{i % 2}" for i in range(120)])
        self.clips = Clips(clips, frames, labels, keys, np.array([k[:-2] for k in keys]))

    def examples(self, split: str, limit: int | None) -> Clips:
        return self.clips


def model(reads: str) -> Any:
    """A recogniser by hand: of the colour of the first frame, or of the mean over all frames."""
    clip = keras.Input((None, 2, 3, 3), name="clip")
    frames = keras.Input((), dtype="int32", name="frames")
    x = keras.layers.Identity(name="map")(clip)
    seen = {"first": x[:, :1], "mean": x}[reads]
    logits = 5 * keras.ops.sum(seen, axis=(1, 2, 3)) / 6
    some = keras.ops.cast(frames, "float32")[:, None] * 0  # a model reads both of its inputs
    return keras.Model({"clip_norm": clip, "frames": frames}, keras.layers.Softmax()(logits + some))


@pytest.fixture(scope="module")
def data() -> Data:
    return Data()


@pytest.fixture(scope="module")
def first(data: Data) -> Evaluation:
    return evaluation.evaluate(model("first"), data, 7, **BLOCK)


@pytest.fixture(scope="module")
def mean(data: Data) -> Evaluation:
    return evaluation.evaluate(model("mean"), data, 7, **BLOCK | {"batch_size": 50})


def test_shuffled_frames_tell_who_uses_time(first: Evaluation, mean: Evaluation) -> None:
    assert first.metrics["top1"] == first.metrics["top1_at_1"] == first.metrics["top1_at_3"] == 1
    assert first.metrics["time_low"] > 0.1
    lost = first.metrics["top1"] - first.metrics["top1_shuffled"]
    assert first.metrics["time"] == pytest.approx(lost)
    assert mean.metrics["time"] == mean.metrics["time_low"] == mean.metrics["time_high"] == 0
    np.testing.assert_array_equal(mean.arrays["rank"], mean.arrays["rank_shuffled"])
    assert mean.metrics["top1_at_1"] == 1 > mean.metrics["top1_at_3"] >= mean.metrics["top1"]


def test_a_video_is_the_mean_of_its_clips(data: Data, mean: Evaluation) -> None:
    table = pd.DataFrame(mean.arrays["probabilities"].astype(float))
    means = table.groupby(mean.arrays["videos"]).mean()
    truth = pd.Series(mean.arrays["truth"]).groupby(mean.arrays["videos"]).first()
    rank = classification.ranks(means.to_numpy(), truth.to_numpy())
    assert mean.metrics["videos"] == 60
    assert mean.metrics["top1_video"] == pytest.approx(np.mean(rank == 1), abs=1 / 60)
    groups = evaluation.clusters(mean.arrays)
    for one, other in zip(groups, mean.arrays["videos"], strict=True):
        assert (groups[mean.arrays["videos"] == other] == one).all()


@pytest.mark.parametrize("metric", ["top1", "top5", "log_loss"])
def test_outcomes_average_to_the_score(metric: str, mean: Evaluation) -> None:
    sign = -1 if metric in evaluation.LOSSES else 1
    found = sign * evaluation.outcomes(metric, mean.arrays).mean()
    assert found == pytest.approx(mean.metrics[metric], rel=1e-3)


def test_an_unknown_metric_is_said(mean: Evaluation) -> None:
    with pytest.raises(EvaluationError, match="'top2' is no mean over clips; did you mean 'top"):
        evaluation.outcomes("top2", mean.arrays)


def test_scores_that_are_no_probabilities_are_refused(data: Data) -> None:
    broken = model("mean")
    broken = keras.Model(broken.input, broken.output * 2)
    with pytest.raises(EvaluationError, match="no distribution"):
        evaluation.evaluate(broken, data, 7, **BLOCK)


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_shuffling_keeps_every_real_frame_and_moves_no_padding(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    clips = np.zeros((3, 9, 1, 1, 1), np.uint8)
    frames = np.array([count, 9, 1], np.int32)
    for row, n in enumerate(frames):
        clips[row, :n, 0, 0, 0] = np.arange(1, n + 1)
    orders = random.permuted(np.tile(np.arange(9), (5, 1)), axis=1)
    rows = np.array([4, 0, 2])
    found, same = evaluation.mixed(orders)(rows, clips, frames)
    np.testing.assert_array_equal(same, frames)
    for one, other, n in zip(found[..., 0, 0, 0], clips[..., 0, 0, 0], frames, strict=True):
        assert sorted(one[:n]) == sorted(other[:n])
        assert not one[n:].any()


def test_activation_is_where_and_when_the_evidence_is() -> None:
    clip = np.full((2, 4, 2, 3, 3), 10, np.uint8)
    clip[0, 2, 1, 0, 0] = 255  # red, which the first is asked for
    clip[0, 1, 0, 2, 1] = 255  # green, which is not
    clip[1, 0, 0, 1, 1] = 255
    x: dict[str, NDArray[Any]] = {
        "clip_norm": clip.astype(np.float32) / 255,
        "frames": np.array([4, 3], np.int32),
    }
    heat = evaluation.activation(model("mean"), x, np.array([0, 1]))
    assert [h.shape for h in heat] == [(4, 2, 3), (3, 2, 3)]
    assert heat[0].argmax() == np.ravel_multi_index((2, 1, 0), heat[0].shape)
    assert heat[1].argmax() == np.ravel_multi_index((0, 0, 1), heat[1].shape)
    assert max(h.max() for h in heat) == pytest.approx(1)


def test_the_same_clips_give_the_same_contact_sheet(data: Data, tmp_path: Path) -> None:
    clips: list[NDArray[Any]] = [data.clips.clips[0], data.clips.clips[1][:2]]
    heat = [np.ones((len(clip), 2, 3)) for clip in clips]
    one, other = (figures.contact_sheet(clips, ["a", "b"], "t", heat) for _ in range(2))
    shown = [axes for axes in one.axes if axes.images]
    assert len(shown) == len(clips[0]) + len(clips[1])
    for name, figure in (("one", one), ("other", other)):
        store.write_figure(tmp_path / name, figure)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def run(domain: str, keys: list[str], right: list[int]) -> Any:
    answers = pd.DataFrame({"right": np.array(right, float)}, keys)
    return SimpleNamespace(run={"domain": domain, "model": "m"}, answers=answers)


def test_the_same_drawings_stand_side_by_side_and_others_do_not() -> None:
    shared = [str(i) for i in range(40)]
    results = {
        "strokes": run("sketches", [*shared, "x"], [1] * 41),
        "bitmap": run("sketches", [*shared, "x"], [1] * 20 + [0] * 21),
        "film": run("video", shared, [1] * 30 + [0] * 10),
        "order": run("video", ["0/left"], [1]),
        "weather": SimpleNamespace(run={"domain": "forecasting"}, answers=pd.DataFrame({"e": [1]})),
    }
    text = "\n".join(reporting.beside(results, {"resamples": 200}, 3))
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| strokes", "| film", "| bitmap"]
    assert [row[2].split()[0] for row in rows] == ["1.000", "0.750", "0.500"]
    assert rows[1][3].startswith("-0.250 [-0.")
    assert "on these 40 drawings" in text
    without = {name: results[name] for name in ("film", "order", "weather")}
    assert list(reporting.beside(without, {"resamples": 200}, 3)) == []
