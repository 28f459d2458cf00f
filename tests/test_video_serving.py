"""The registered model of video: a file in, and out what evaluation said; what is none is told."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import errors, params, store
from ostinato.evaluation import classification
from ostinato.video import dataset, evaluation, serving, sources
from ostinato.video.models import cnn_rnn
from tests import videos

CLASSES = ["backwards", "erased", "forwards", "left", "right"]
DRAWINGS = {
    "source": "doodles",
    "doodles": {"categories": ["apple", "house"], "per_class": 4},
}
# Two clips of each video, of frames chosen by chance: the hardest to answer again.
PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0, "validation": 0.2, "test": 0.4, "group": None, "frames": 3,
    "learning_rate": None, "sample": "random", "clips": 2, "height": 16, "width": 12, "colour": "grey",
    "largest": 10_000, "shard_size": 100, "workers": 1,
    "augment": {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0},
}  # fmt: skip
BUILD: dict[str, Any] = {
    "backbone": None, "weights": None, "filters": [4], "kernel_size": 3, "features": 6, "cell": "gru",
    "units": 6, "num_layers": 1, "dropout": 0.0,
}  # fmt: skip

Ask = Callable[..., list[serving.Answer]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw and prepared videos, and parts/ of a registered model with random weights."""
    import keras

    keras.utils.set_random_seed(5)
    folder = tmp_path_factory.mktemp("made")
    for name in ("raw", "data", "parts"):
        (folder / name).mkdir()
    sources.order(folder / "raw", folder, 3, drawings=DRAWINGS, frames=10, size=20, pen=1.5)
    params.bind(dataset.prepare, PREPARE)(folder / "raw", folder / "data")
    model = params.bind(cnn_rnn.build, BUILD)(dataset.load(folder / "data"))
    store.write_model(folder / "parts" / "model.keras", model)
    store.write_json(folder / "parts" / "about.json", {"domain": "video", "model": "cnn_rnn"})
    (folder / "parts" / "manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def evaluated(made: Path) -> dict[str, Any]:
    """The arrays that evaluation writes."""
    data = dataset.load(made / "data")
    split = data.examples("test")
    call = evaluation.compiled(store.read_model(made / "parts" / "model.keras"))
    every = np.arange(len(split))
    found = [p for _, p, _ in evaluation.outputs(call, data, split, every, 8, "test")]
    p = np.concatenate(found)
    return {
        "keys": split.keys, "truth": split.labels, "probabilities": p.astype(np.float16),
        "rank": classification.ranks(p, split.labels),
    }  # fmt: skip


@pytest.fixture(scope="module")
def answer(made: Path) -> Ask:
    model = serving.load(made / "parts")

    def ask(*asked: Any, best: int = 0) -> list[serving.Answer]:
        return model([serving.Video.model_validate(video) for video in asked], best)

    return ask


@pytest.fixture(scope="module")
def asked(made: Path, evaluated: dict[str, Any]) -> list[dict[str, Any]]:
    """The test clips as questions, in the order of the split."""
    found = serving.questions(made / "raw", made / "data", evaluated["keys"].tolist())
    return [found[key] for key in evaluated["keys"]]


def test_raw_files_are_answered_as_in_evaluation(
    answer: Ask, asked: list[dict[str, Any]], evaluated: dict[str, Any]
) -> None:
    assert len(asked) > 10
    names = [CLASSES[i] for i in evaluated["truth"]]
    found = serving.arrays([a.model_dump() for a in answer(*asked)], names, CLASSES)
    np.testing.assert_allclose(found["probabilities"], evaluated["probabilities"], atol=1e-3)
    np.testing.assert_array_equal(found["truth"], evaluated["truth"])
    np.testing.assert_array_equal(found["rank"], evaluated["rank"])


def test_a_whole_video_is_the_mean_of_its_clips(answer: Ask, asked: list[dict[str, Any]]) -> None:
    one, two = ({**asked[0], "clip_norm": number} for number in (0, 1))
    first, second, both = answer(one, two, {**one, "clip_norm": None})
    for name, p in both.probabilities.items():
        expected = (first.probabilities[name] + second.probabilities[name]) / 2
        assert p == pytest.approx(expected, abs=1e-5)


def test_the_likeliest_come_first_and_only_as_many_as_asked(answer: Ask) -> None:
    (whole,), (two,) = answer(serving.EXAMPLE), answer(serving.EXAMPLE, best=2)
    values = list(whole.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert list(two.probabilities) == list(whole.probabilities)[:2]
    assert (two.label, two.probability) == next(iter(whole.probabilities.items()))
    assert answer() == []


def test_a_path_is_answered_as_its_bytes_and_only_in_its_folder(
    answer: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    inside = videos.write(folder / "deep" / "film.mp4", videos.counting(6))
    outside = videos.write(tmp_path / "secret.mp4", videos.counting(6))
    (folder / "link.mp4").symlink_to(outside)
    question = {"path": "deep/film.mp4", "key": "k"}
    with pytest.raises(errors.RequestError, match="paths are not served here"):
        answer(question)
    monkeypatch.setenv(serving.FOLDER, str(folder))
    content = base64.b64encode(inside.read_bytes()).decode()
    by_path, by_absolute, by_bytes = answer(
        question, {"path": str(inside), "key": "k"}, {"video": content, "key": "k"}
    )
    assert by_path == by_absolute == by_bytes
    for path in ("../secret.mp4", str(outside), "link.mp4", "deep", "none.mp4", "/etc/passwd"):
        with pytest.raises(errors.RequestError, match=f"video 1: no file '{path}' in the folder"):
            answer(question, {"path": path})
    monkeypatch.setattr(serving, "LARGEST", 100)
    with pytest.raises(errors.RequestError, match="video 0: more than 0 MB"):
        answer(question)


GIF = base64.b64decode(serving.EXAMPLE["video"])
BOMB = GIF[:6] + (60_000).to_bytes(2, "little") * 2 + GIF[10:]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "expected either `video` or `path`"),
    "both": ({"video": "", "path": "x"}, "expected either `video` or `path`"),
    "no base64": ({"video": "R0lG*"}, "`video` is not base64"),
    "empty": ({"video": ""}, "unreadable"),
    "text": ({"video": base64.b64encode(b"no video at all").decode()}, "unreadable"),
    "bomb": ({"video": base64.b64encode(BOMB).decode()}, "too large"),
    "picture": (
        {"video": base64.b64encode(videos.png(200, 60)).decode()},
        "too large: .*10000 pixels",
    ),
    "cut off": ({"video": base64.b64encode(GIF[:20]).decode()}, "unreadable|corrupt|no frames"),
    "playlist": (
        {"video": base64.b64encode(b"ffconcat version 1.0\nfile /etc/passwd\n").decode()},
        "unreadable",
    ),
    "clip_norm": ({**serving.EXAMPLE, "clip_norm": 5}, "clip 5 is not one of its 1, from 0 on"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_video_is_said(answer: Ask, what: str) -> None:
    question, message = BAD[what]
    with pytest.raises(errors.RequestError, match=f"video 1: .*({message})"):
        answer(serving.EXAMPLE, question)


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded(
    answer: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "LARGEST", 1 << 20)
    with pytest.raises(errors.RequestError, match="video 0: more than 1 MB"):
        answer({"video": "*" * (3 << 20)})


def test_a_champion_of_other_classes_can_be_compared() -> None:
    answers = [{"probabilities": {"b": 0.7, "a": 0.3}}, {"probabilities": {"b": 0.4, "a": 0.6}}]
    found = serving.arrays(answers, ["c", "a"], ["a", "b", "c"])
    np.testing.assert_array_equal(found["truth"], [2, 0])
    np.testing.assert_array_equal(found["rank"], [3, 1])
    np.testing.assert_allclose(found["probabilities"], [[0.3, 0.7, 0], [0.6, 0.4, 0]])


def test_folders_of_images_are_not_asked(made: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "film.gif").write_bytes(GIF)
    entries = [{"key": name, "path": name} for name in ("images", "film.gif")]
    store.write_json(tmp_path / "manifest.json", {"videos": entries})
    found = serving.questions(tmp_path, made / "data", ["images", "film.gif", "film.gif#1", "x#0"])
    assert sorted(found) == ["film.gif", "film.gif#1"]
    assert (found["film.gif"]["clip"], found["film.gif#1"]["clip"]) == (None, 1)
    assert found["film.gif#1"]["key"] == "film.gif"
