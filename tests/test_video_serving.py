"""The served model of video: responses equal the evaluation; requests that are no video fail."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import errors, params, store
from ostinato.evaluation import classification
from ostinato.serving.classification import Response
from ostinato.training.keras_model import restore, save
from ostinato.video import dataset, serving, sources
from ostinato.video.evaluation import EvaluationSplit
from ostinato.video.models import cnn_rnn
from tests import videos

CLASSES = ["backwards", "erased", "forwards", "left", "right"]
DRAWINGS = {
    "source": "doodles",
    "doodles": {"categories": ["apple", "house"], "per_class": 4},
}
# Two clips per video and random frames, the hardest case to reproduce.
PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.2,
    "test": 0.4,
    "group": None,
    "frames": 3,
    "frame_rate": None,
    "frame_sampling": "random",
    "clips": 2,
    "height": 16,
    "width": 12,
    "colour": "grey",
    "max_pixels": 10_000,
    "augment": {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0},
    "shard_size": 100,
    "workers": 1,
}
BUILD: dict[str, Any] = {
    "backbone": None,
    "weights": None,
    "filters": [4],
    "kernel_size": 3,
    "features": 6,
    "cell": "gru",
    "units": 6,
    "num_layers": 1,
    "dropout": 0.0,
}

Predict = Callable[..., list[Response]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw and prepared videos, and served/ with the files of a model with random weights."""
    import keras

    keras.utils.set_random_seed(5)
    folder = tmp_path_factory.mktemp("files")
    for name in ("raw", "data", "served"):
        (folder / name).mkdir()
    sources.order(folder / "raw", folder, 3, drawings=DRAWINGS, frames=10, size=20, pen=1.5)
    params.bind(dataset.prepare, PREPARE)(folder / "raw", folder / "data")
    model = params.bind(cnn_rnn.build, BUILD)(dataset.load(folder / "data"))
    served = folder / "served"
    save(model, served / "model")
    about = {"domain": "video", "run": "r", "model": "cnn_rnn", "prepare": PREPARE}
    store.write_json(served / "about.json", about)
    (served / "manifest.json").write_bytes((folder / "data/manifest.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def evaluated(files: Path) -> dict[str, Any]:
    """The arrays of an evaluation."""
    data = dataset.load(files / "data")
    clips = data.examples("test")
    batches = EvaluationSplit(data, clips, 8).predict(
        restore(files / "served" / "model"), np.arange(len(clips)), "test"
    )
    predictions = classification.collect(batches, clips.labels, len(CLASSES), np.float32)
    return {"keys": clips.keys, **predictions.arrays()}


@pytest.fixture(scope="module")
def predict(files: Path) -> Predict:
    """The served model as a function of JSON inputs."""
    service = serving.load(files / "served")

    def predict(*inputs: Any, **options: Any) -> list[Response]:
        return service.predict([serving.Input.model_validate(x) for x in inputs], options)

    return predict


@pytest.fixture(scope="module")
def requests(files: Path, evaluated: dict[str, Any]) -> list[dict[str, Any]]:
    """The test clips as requests, in stored order."""
    found = serving.to_requests(files / "raw", files / "data", evaluated["keys"].tolist())
    return [found[key] for key in evaluated["keys"]]


def test_responses_to_raw_files_equal_the_evaluation(
    predict: Predict, requests: list[dict[str, Any]], evaluated: dict[str, Any]
) -> None:
    assert len(requests) > 10
    truth = [CLASSES[i] for i in evaluated["truth"]]
    responses = [response.model_dump() for response in predict(*requests)]
    found = serving.from_responses(responses, truth, CLASSES)
    np.testing.assert_allclose(found["probabilities"], evaluated["probabilities"], atol=1e-3)
    np.testing.assert_allclose(found["likelihood"], evaluated["likelihood"], atol=1e-5)
    np.testing.assert_array_equal(found["truth"], evaluated["truth"])
    np.testing.assert_array_equal(found["rank"], evaluated["rank"])


def test_the_response_to_a_whole_video_is_the_mean_of_its_clips(
    predict: Predict, requests: list[dict[str, Any]]
) -> None:
    one, two = ({**requests[0], "clip": number} for number in (0, 1))
    first, second, both = predict(one, two, {**one, "clip": None})
    for name, p in both.probabilities.items():
        expected = (first.probabilities[name] + second.probabilities[name]) / 2
        assert p == pytest.approx(expected, abs=1e-5)


def test_top_k_limits_the_ranked_classes(predict: Predict) -> None:
    (every,), (two,) = predict(serving.EXAMPLE), predict(serving.EXAMPLE, top_k=2)
    values = list(every.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert list(two.probabilities) == list(every.probabilities)[:2]
    assert (two.label, two.probability) == next(iter(every.probabilities.items()))
    assert predict() == []


def test_a_path_gives_the_response_of_its_content_and_only_inside_the_folder(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    inside = videos.write(folder / "deep" / "film.mp4", videos.counting(6))
    outside = videos.write(tmp_path / "secret.mp4", videos.counting(6))
    (folder / "link.mp4").symlink_to(outside)
    request = {"path": "deep/film.mp4", "key": "k"}
    with pytest.raises(errors.RequestError, match="this server reads no paths"):
        predict(request)
    monkeypatch.setenv(serving.VIDEO_FOLDER, str(folder))
    content = base64.b64encode(inside.read_bytes()).decode()
    by_path, by_absolute_path, by_content = predict(
        request, {"path": str(inside), "key": "k"}, {"video": content, "key": "k"}
    )
    assert by_path == by_absolute_path == by_content
    for path in ("../secret.mp4", str(outside), "link.mp4", "deep", "none.mp4", "/etc/passwd"):
        with pytest.raises(errors.RequestError, match=f"video 1: no file '{path}' in the folder"):
            predict(request, {"path": path})
    for path in ("a\0b", "loop", "\ud800", "x" * 100_000):
        (folder / "loop").unlink(missing_ok=True)
        (folder / "loop").symlink_to("loop")
        with pytest.raises(errors.RequestError, match="video 0: no file ") as raised:
            predict({"path": path})
        assert len(str(raised.value)) < 300
    predict({"video": content, "key": "\ud800"})
    monkeypatch.setattr(serving, "MAX_BYTES", 100)
    with pytest.raises(errors.RequestError, match="video 0: more than 0 MB"):
        predict(request)


GIF = base64.b64decode(serving.EXAMPLE["video"])
BOMB = GIF[:6] + (60_000).to_bytes(2, "little") * 2 + GIF[10:]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "expected either `video` or `path`"),
    "both": ({"video": "", "path": "x"}, "expected either `video` or `path`"),
    "no base64": ({"video": "R0lG*"}, "`video` is not base64"),
    "empty": ({"video": ""}, "unreadable"),
    "text": ({"video": base64.b64encode(b"no video at all").decode()}, "unreadable"),
    "bomb": ({"video": base64.b64encode(BOMB).decode()}, "too large"),
    "image": (
        {"video": base64.b64encode(videos.png(200, 60)).decode()},
        "too large: .*10000 pixels",
    ),
    "truncated": ({"video": base64.b64encode(GIF[:20]).decode()}, "truncated"),
    "playlist": (
        {"video": base64.b64encode(b"ffconcat version 1.0\nfile /etc/passwd\n").decode()},
        "unreadable",
    ),
    "clip": ({**serving.EXAMPLE, "clip": 5}, "no clip 5; it has 1, numbered from 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_input_that_is_no_video_is_an_error(predict: Predict, name: str) -> None:
    request, message = BAD[name]
    with pytest.raises(errors.RequestError, match=f"video 1: .*({message})"):
        predict(serving.EXAMPLE, request)


def test_a_too_large_file_is_rejected_before_it_is_decoded(
    predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_BYTES", 1 << 20)
    with pytest.raises(errors.RequestError, match="video 0: more than 1 MB"):
        predict({"video": "*" * (3 << 20)})


def test_responses_with_other_classes_are_comparable() -> None:
    responses = [{"probabilities": {"b": 0.7, "a": 0.3}}, {"probabilities": {"b": 0.4, "a": 0.6}}]
    found = serving.from_responses(responses, ["c", "a"], ["a", "b", "c"])
    np.testing.assert_array_equal(found["truth"], [2, 0])
    np.testing.assert_array_equal(found["rank"], [3, 1])
    np.testing.assert_allclose(found["likelihood"], [0, 0.6])
    np.testing.assert_allclose(found["probabilities"], [[0.3, 0.7, 0], [0.6, 0.4, 0]])


def test_folders_of_images_give_no_requests(files: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "film.gif").write_bytes(GIF)
    entries = [{"key": name, "path": name, "class": "c"} for name in ("images", "film.gif")]
    manifest = {"source": "folder", "classes": ["c"], "videos": entries}
    store.write_json(tmp_path / "manifest.json", manifest)
    keys = ["images", "film.gif", "film.gif#1", "x#0"]
    found = serving.to_requests(tmp_path, files / "data", keys)
    assert sorted(found) == ["film.gif", "film.gif#1"]
    assert (found["film.gif"]["clip"], found["film.gif#1"]["clip"]) == (None, 1)
    assert found["film.gif#1"]["key"] == "film.gif"


def test_a_hidden_frame_lowers_the_probability_by_its_activation(
    predict: Predict, requests: list[dict[str, Any]], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {**requests[0], "clip": None}
    (plain,), (found,) = predict(whole), predict(whole, explain_clips=4)
    assert "clips" not in plain.model_dump()
    assert isinstance(found, serving.Response)
    assert found.model_dump(exclude={"clips"}) == plain.model_dump()
    assert found.clips is not None
    assert [clip.clip for clip in found.clips] == [0, 1]
    service = serving.load(files / "served")
    label = CLASSES.index(found.label)
    for clip in found.clips:
        shape = (clip.frames, clip.height, clip.width, clip.channels)
        pixels = np.frombuffer(base64.b64decode(clip.pixels), np.uint8).reshape(shape)
        before = service.model(service.data.pad([pixels]))[0, label]
        assert clip.probability == pytest.approx(before, abs=1e-6)
        for frame in range(clip.frames):
            hidden = pixels.copy()
            hidden[frame] = pixels.mean(axis=0).round()
            after = service.model(service.data.pad([hidden]))[0, label]
            assert clip.activation[frame] == pytest.approx(before - after, abs=1e-5)
    monkeypatch.setattr(serving, "MAX_OCCLUSIONS", 2)
    (coarse,) = predict({**whole, "clip": 1}, explain_clips=1)
    assert isinstance(coarse, serving.Response)
    assert coarse.clips is not None
    (one,) = coarse.clips
    assert one.clip == 1
    assert one.activation[0] == one.activation[1]
    with pytest.raises(errors.RequestError, match=r"explain_clips: found 5; expected .* 0 to 4"):
        predict(whole, explain_clips=5)
    assert [serving.occlusions(n) for n in (1, 3)] == [[slice(0, 1)], [slice(0, 2), slice(2, 3)]]
