"""Laws of clips: what is read of a video, what is refused, and data sets split by recording."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ostinato import params, store
from ostinato.data import drift
from ostinato.errors import DataError, ParamsError, RejectedVideoError
from ostinato.params import bind
from ostinato.sketches import dataset as sketches
from ostinato.video import dataset, sources
from ostinato.video.dataset import batches, reading
from ostinato.video.dataset.reading import REASONS, Clip, Sampling
from tests import videos

EACH = Sampling(64, None, "uniform", 1, 24, 32, "grey", 10**6)
NONE: dict[str, Any] = {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0}
PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.25,
    "test": 0.25,
    "group": r"(.+_g\d+)_c\d+",
    "frames": 8,
    "learning_rate": None,
    "sample": "uniform",
    "clips": 1,
    "height": 12,
    "width": 16,
    "colour": "grey",
    "largest": 10**6,
    "augment": NONE,
    "shard_size": 10,
    "workers": 2,
}


def read(video: Path | bytes, **changes: Any) -> list[Clip]:
    return reading.read(video, EACH._replace(**changes), np.random.default_rng(0))


def numbers(clip: Clip) -> list[int]:
    """Which of the frames of `videos.counting` a clip shows, as far as a codec keeps greys."""
    means = clip.pixels.mean(axis=(1, 2, 3)) / 10
    assert np.abs(means - means.round()).max() < 0.3
    return [int(number) for number in means.round()]


@pytest.fixture(scope="module", params=videos.CODECS)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames, ten a second, in each container; with frames that look ahead where can be."""
    ahead = {".mp4": {"g": "6", "bf": "2"}, ".webm": {"auto-alt-ref": "1", "lag-in-frames": "16"}}
    path = tmp_path_factory.mktemp("counted") / f"v{request.param}"
    return videos.write(path, videos.counting(20), options=ahead.get(request.param))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [list(range(1, 21))]),
        ({"frames": 10}, [list(range(2, 21, 2))]),
        ({"frames": 4, "sample": "centred"}, [[9, 10, 11, 12]]),
        ({"learning_rate": 5.0}, [list(range(1, 21, 2))]),
        ({"learning_rate": 5.0, "frames": 2, "sample": "centred"}, [[9, 11]]),
        ({"learning_rate": 20.0, "frames": 4}, [[3, 8, 13, 18]]),
        ({"frames": 2, "clips": 2}, [[3, 8], [13, 18]]),
        ({"frames": 3, "clips": 2, "sample": "centred"}, [[4, 5, 6], [14, 15, 16]]),
    ],
)
def test_the_frames_asked_for_are_read_of_any_container(
    counted: Path, changes: dict[str, Any], expected: list[list[int]]
) -> None:
    clips = read(counted, **changes)
    assert [numbers(clip) for clip in clips] == expected
    assert all(clip.pixels.shape[1:] == (24, 32, 1) for clip in clips)
    for clip, frames in zip(clips, expected, strict=True):
        assert clip.seconds == pytest.approx((frames[-1] - frames[0]) / 10, abs=0.06)
    held = read(counted.read_bytes(), **changes)
    assert [clip.pixels.tobytes() for clip in held] == [clip.pixels.tobytes() for clip in clips]


def test_random_frames_follow_each_other_and_come_from_anywhere() -> None:
    few, times, starts = EACH._replace(frames=16, sample="random"), np.arange(20.0), set()
    for seed in range(40):
        found = reading.wanted(times, few, np.random.default_rng(seed))[0]
        assert np.array_equal(found, found[0] + np.arange(16))
        starts.add(int(found[0]))
    assert starts == {0, 1, 2, 3, 4}


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=40),
    st.integers(1, 12),
    st.none() | st.floats(0.5, 50),
    st.sampled_from(["uniform", "centred", "random"]),
    st.integers(1, 4),
)
def test_instants_ascend_within_the_video_and_are_no_more_than_asked_for(
    steps: list[int], frames: int, rate: float | None, sample: Any, clips: int
) -> None:
    times = np.cumsum(steps) / 100
    asked = EACH._replace(frames=frames, rate=rate, sample=sample, clips=clips)
    found = reading.wanted(times, asked, np.random.default_rng(0))
    assert 1 <= len(found) <= clips
    assert all(1 <= len(part) <= frames for part in found)
    instants = np.concatenate(found)
    assert np.all(np.diff(instants) > 0)
    assert times[0] <= instants[0]
    assert instants[-1] <= times[-1] + 1e-6
    if rate is None:
        assert set(instants) <= set(times)
    elif sample != "uniform":
        for part in found:
            assert np.allclose(np.diff(part), 1 / rate)


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_of_a_variable_rate_what_is_shown_at_each_instant_counts(
    tmp_path: Path, ending: str
) -> None:
    times = [0, 10, 20, 30, 1000, 2000]
    path = videos.write(tmp_path / f"v{ending}", videos.counting(6), times=times)
    assert numbers(read(path)[0]) == [1, 2, 3, 4, 5, 6]
    assert numbers(read(path, rate=2.0)[0]) == [1, 4, 5, 5, 6]


def test_numbered_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11):
        write_image(tmp_path / f"frame{number}.png", 10 * number)
    assert numbers(read(tmp_path)[0]) == [1, 2, 9, 10, 11]
    assert numbers(read(tmp_path, frames=2, sample="centred")[0]) == [2, 9]
    assert numbers(read(tmp_path, rate=12.5)[0]) == [1, 9, 11]


def write_image(path: Path, grey: int, height: int = 24, width: int = 32) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream: Any = container.add_stream("png", 1)
        stream.height, stream.width, stream.pix_fmt = height, width, "gray"
        picture = np.full((height, width), grey, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "gray")))
        container.mux(stream.encode())


def test_pictures_are_scaled_and_their_middle_is_kept(tmp_path: Path) -> None:
    film = np.zeros((2, 40, 80), np.uint8)
    film[:, :, 20:60] = np.repeat(np.arange(40, dtype=np.uint8) * 6, 1)
    path = videos.write(tmp_path / "v.mkv", film)
    middle = read(path, height=40, width=40)[0].pixels[..., 0]
    assert np.array_equal(middle, film[:, :, 20:60])
    small = read(path, height=20, width=20)[0].pixels[0, :, :, 0]
    assert np.allclose(small, film[0, ::2, 20:60:2] + 3, atol=1)
    assert read(path, colour="rgb")[0].pixels.shape == (2, 24, 32, 3)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda film: np.rot90(film, -1, (1, 2))),  # a telephone held upright
        ((-1, 0, 0, -1), lambda film: np.rot90(film, 2, (1, 2))),
        ((0, -1, 1, 0), lambda film: np.rot90(film, 1, (1, 2))),
        ((-1, 0, 0, 1), lambda film: film[:, :, ::-1]),
        ((0, 0, 0, 0), lambda film: film),  # senseless
    ],
)
def test_a_video_is_read_as_players_turn_it(
    matrix: tuple[int, ...], shown: Callable[[NDArray[Any]], NDArray[Any]], tmp_path: Path
) -> None:
    film = np.zeros((2, 48, 64), np.uint8)
    film[:, :24, :32], film[:, 24:, :32] = 240, 120
    path = videos.write(tmp_path / "v.mp4", film)
    path.write_bytes(videos.turned(path.read_bytes(), matrix))
    expected = shown(film)
    (clip,) = read(path, height=expected.shape[1], width=expected.shape[2])
    assert np.abs(clip.pixels[..., 0] - expected.astype(float)).mean() < 3
    (small,) = read(path.read_bytes(), height=12, width=12)
    middle = shown(film[:, :, 8:56])[:, 2::4, 2::4]
    assert np.abs(small.pixels[..., 0] - middle.astype(float)).mean() < 6


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(path: Path) -> None:
    """A second stream of pictures of another size behind the first."""
    film = np.zeros((5, 48, 64), np.uint8)
    parts = []
    for size in (film, film[:, :32, :32]):
        written = io.BytesIO()
        with av.open(written, "w", format="mpegts") as container:
            stream: Any = container.add_stream("mpeg2video", 25)
            stream.height, stream.width = size.shape[1:]
            stream.pix_fmt = "yuv420p"
            for picture in size:
                frame = av.VideoFrame.from_ndarray(picture, "gray").reformat(format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append(written.getvalue())
    path.write_bytes(b"".join(parts))


def soundtrack(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", 8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "unreadable"),
        ("text.avi", lambda path: path.write_text("hello"), "unreadable"),
        ("head.mp4", damaged, "unreadable"),  # what tells of the frames stands at the end
        ("half.webm", damaged, "truncated"),
        ("half.mkv", damaged, "truncated"),
        ("sound.mkv", soundtrack, "no frames"),
        ("sizes.mpg", other_size, "changes size"),
        ("cut.png", lambda path: path.write_bytes(videos.png(90, 90)[:60]), "corrupt"),
        ("bomb.png", lambda path: path.write_bytes(videos.png(20_000, 100)), "too large"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, name: str, spoil: Any, reason: str
) -> None:
    path = tmp_path / name
    if path.suffix in videos.CODECS:
        videos.write(path, videos.counting(20))
    spoil(path)
    with pytest.raises(RejectedVideoError) as found:
        read(path)
    assert found.value.reason == reason
    assert reason in REASONS


def test_a_folder_of_images_is_refused_as_a_video_is(tmp_path: Path) -> None:
    with pytest.raises(RejectedVideoError, match="no frames"):
        read(tmp_path)
    write_image(tmp_path / "1.png", 9)
    write_image(tmp_path / "2.png", 9, height=25)
    with pytest.raises(RejectedVideoError, match="changes size"):
        read(tmp_path)
    (tmp_path / "2.png").write_bytes(videos.png(20_000, 100))
    with pytest.raises(RejectedVideoError, match="too large"):
        read(tmp_path)


@pytest.mark.parametrize("ending", [".avi", ".gif", ".mov", ".mp4", ".webm"])
def test_a_video_larger_than_allowed_is_refused(tmp_path: Path, ending: str) -> None:
    path = videos.write(tmp_path / f"v{ending}", videos.counting(3, 96, 128))
    assert len(read(path, largest=96 * 128)[0].pixels) == 3
    for video in (path, path.read_bytes()):
        with pytest.raises(RejectedVideoError, match="too large"):
            read(video, largest=96 * 128 - 1)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    """Before its pictures are decoded: these would take 17 GB, and 120 MB."""
    gif = bytearray(videos.write(tmp_path / "v.gif", videos.counting(3)).read_bytes())
    gif[6:10] = b"\xff\xff\xff\xff"  # width and height of the screen
    for content in (bytes(gif), videos.png(12_000, 10_000)):
        with pytest.raises(RejectedVideoError, match="too large"):
            read(content, largest=10**7)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".png"])
def test_a_playlist_in_disguise_is_not_followed(tmp_path: Path, ending: str) -> None:
    secret = videos.write(tmp_path / "secret.avi", videos.counting(3))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{secret}\n",
        f"ffconcat version 1.0\nfile {secret.name}\n",
    ):
        (tmp_path / f"list{ending}").write_text(text)
        with pytest.raises(RejectedVideoError, match="unreadable"):
            read(tmp_path / f"list{ending}")


def raw_set(folder: Path, *, classes: int = 2, groups: int = 6, each: int = 2) -> Path:
    """A folder source's raw data, of videos named as UCF101's; the last has fewer frames."""
    own = folder / "own"
    grey = itertools.count()
    for label in range(classes):
        for group, cut in np.ndindex(groups, each):
            film = np.full((5 + cut, 12, 16), next(grey), np.uint8)
            name = f"v_C{label}_g{group + 1:02}_c{cut + 1:02}.gif"
            videos.write(own / f"C{label}" / name, film)
    raw = folder / "raw"
    raw.mkdir()
    sources.folder(raw, folder, 0, path=str(own), test=None)
    return raw


def prepared(raw: Path, folder: Path, **changes: Any) -> batches.Data:
    folder.mkdir(parents=True)
    bind(dataset.prepare, {**PREPARE, **changes})(raw, folder)
    return dataset.load(folder)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_set(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def data(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> batches.Data:
    return prepared(raw, tmp_path_factory.mktemp("prepared") / "data")


SPLITS = ("train", "validation", "test")


def test_no_recording_stands_in_two_splits(data: batches.Data) -> None:
    videos = {split: data.examples(split).videos for split in SPLITS}
    groups = {split: {v.rpartition("_c")[0] for v in found} for split, found in videos.items()}
    assert sum(map(len, videos.values())) == 24
    assert len(set().union(*groups.values())) == sum(map(len, groups.values())) == 12
    told = json.loads((data.folder / "manifest.json").read_text())
    assert {split: told["splits"][split]["groups"] for split in SPLITS} == {
        split: len(found) for split, found in groups.items()
    }


@given(
    st.lists(st.text(max_size=12), min_size=1, unique=True), st.floats(0, 0.4), st.floats(0, 0.4)
)
def test_a_drawing_falls_into_the_split_of_its_strokes(
    keys: list[str], validation: float, test: float
) -> None:
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    encoded = [key.encode() for key in keys]
    flat = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum([len(key) for key in encoded], dtype=np.int64)
    theirs = sketches.split_of(flat, ends, shares)
    entries = [
        {"path": key, "class": "c", "key": key, "group": key or None, "split": None} for key in keys
    ]
    ours = {v["key"]: v["split"] for v in dataset._split(entries, None, validation, test)}
    assert [ours[key] for key in keys] == [SPLITS[split] for split in theirs]


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_recording_keeps_its_split_as_the_data_grow(
    few: int, more: int, validation: float, test: float
) -> None:
    def homes(count: int) -> dict[str, str]:
        entries = [
            {"path": f"{name}.avi", "class": "c", "key": name, "group": None, "split": None}
            for name in (f"v_g{i // 3:02}_c{i % 3}" for i in range(count))
        ]
        split = dataset._split(entries, r"(.+_g\d+)_c\d+", validation, test)
        return {video["key"]: video["split"] for video in split}

    assert homes(few).items() <= homes(few + more).items()


def test_given_splits_are_kept_and_validation_is_taken_from_training(
    raw: Path, tmp_path: Path
) -> None:
    about = json.loads((raw / "manifest.json").read_text())
    for video in about["videos"]:
        video["split"] = "test" if "_g01_" in video["path"] else "train"
    changed = tmp_path / "raw"
    changed.mkdir()
    for label in about["classes"]:
        (changed / label).symlink_to(raw / label)
    store.write_json(changed / "manifest.json", about)
    data = prepared(changed, tmp_path / "data", validation=0.4)
    assert data.size("test") == 4
    assert all("_g01_" in key for key in data.examples("test").keys)
    assert data.size("validation") > 0

    about["videos"][0]["split"] = "train"
    store.write_json(changed / "manifest.json", about)
    with pytest.raises(DataError, match=r"its recording 'v_C0_g01' stands in \w+ and in \w+"):
        prepared(changed, tmp_path / "leak")


def test_the_same_videos_give_the_same_bytes_on_any_number_of_threads(
    raw: Path, data: batches.Data, tmp_path: Path
) -> None:
    again = prepared(raw, tmp_path / "again", workers=4)
    assert store.digest(again.folder) == store.digest(data.folder)


def test_tensorflow_datasets_reads_what_was_prepared(data: batches.Data) -> None:
    builder = tfds.builder_from_directory(data.folder)
    order = tfds.ReadConfig(interleave_cycle_length=1)
    ours = data.examples("train")
    theirs = list(tfds.as_numpy(builder.as_dataset("train", read_config=order)))
    assert len(theirs) == builder.info.splits["train"].num_examples == data.size("train")
    for i, example in enumerate(theirs):
        assert np.array_equal(example["clip"], ours.clips[i, : ours.frames[i]])
        assert (
            builder.info.features["label"].names[example["label"]] == data.classes[ours.labels[i]]
        )
        assert example["key"].decode() == ours.keys[i] == ours.videos[i]


def test_a_video_gives_several_clips_of_one_split(raw: Path, tmp_path: Path) -> None:
    data = prepared(raw, tmp_path / "data", clips=2, frames=2)
    for split in SPLITS:
        found = data.examples(split)
        assert len(found) == 2 * len(set(found.videos))
        assert {key.partition("#")[0] for key in found.keys} == set(found.videos)


Batch = tuple[dict[str, NDArray[Any]], NDArray[np.int32]]


def epoch(data: batches.Data, split: str, seed: int | None, number: int) -> list[Batch]:
    found = data.batches(split, batch_size=5, seed=seed, epoch=number)
    return [({name: value.numpy() for name, value in x.items()}, y.numpy()) for x, y in iter(found)]


def whole(batches: list[Batch]) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    return (
        np.concatenate([x["clip"] for x, _ in batches]),
        np.concatenate([x["frames"] for x, _ in batches]),
        np.concatenate([y for _, y in batches]),
    )


def test_without_a_seed_batches_are_the_examples_in_their_order(data: batches.Data) -> None:
    for split in SPLITS:
        clips, frames, labels = whole(epoch(data, split, None, 3))
        known = data.examples(split)
        assert clips.dtype == np.float32
        assert np.array_equal(clips, known.clips / np.float32(255))
        assert np.array_equal(frames, known.frames)
        assert np.array_equal(labels, known.labels)
        assert set(frames.tolist()) <= {5, 6}
        for clip, count in zip(clips, frames, strict=True):
            assert clip.shape == (8, 12, 16, 1)
            assert not clip[count:].any()
        padded = data.pad([c[:n] for c, n in zip(known.clips, known.frames, strict=True)])
        assert np.array_equal(padded["clip"], clips)
        assert np.array_equal(padded["frames"], frames)


def test_an_epoch_is_a_function_of_seed_and_number_and_holds_every_clip_once(
    data: batches.Data,
) -> None:
    orders = []
    for seed, number in ((1, 0), (1, 0), (1, 1), (2, 0)):
        clips, _, labels = whole(epoch(data, "train", seed, number))
        orders.append(
            [(clip.tobytes(), int(label)) for clip, label in zip(clips, labels, strict=True)]
        )
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_only_training_is_varied_and_only_with_a_seed(raw: Path, tmp_path: Path) -> None:
    some = {"flip": True, "crop": 0.3, "jitter": 0.5, "brightness": 0.5}
    data = prepared(raw, tmp_path / "data", augment=some)

    def means(split: str, seed: int | None) -> list[float]:
        return sorted(whole(epoch(data, split, seed, 0))[0].mean(axis=(1, 2, 3, 4)).tolist())

    for split in ("validation", "test"):
        assert means(split, 1) == means(split, None)
    assert means("train", 1) != means("train", None)
    assert (
        whole(epoch(data, "train", 1, 0))[0].tobytes()
        == whole(epoch(data, "train", 1, 0))[0].tobytes()
    )


def varied(clip: NDArray[np.float32], frames: list[int], **augment: Any) -> NDArray[np.float32]:
    chance = tf.random.stateless_uniform((6, len(clip)), (3, 4))
    changed: Any = {**NONE, **augment}
    found = batches._varied(tf.constant(clip), tf.constant(frames), chance, changed)
    return np.asarray(found)


def test_variations_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    clip: Any = rng.random((40, 6, 7, 9, 3), np.float32)
    clip[:, 4:] = 0
    frames = [4] * 40
    assert np.array_equal(varied(clip, frames), clip)

    mirrored = varied(clip, frames, flip=True)
    turned = [np.allclose(m, c[:, :, ::-1], atol=1e-6) for m, c in zip(mirrored, clip, strict=True)]
    kept = [np.allclose(m, c, atol=1e-6) for m, c in zip(mirrored, clip, strict=True)]
    assert np.all(np.array(turned) ^ np.array(kept))
    assert 8 < sum(turned) < 32

    lighter = varied(clip / 2, frames, brightness=0.5)[:, :4] / (clip[:, :4] / 2)
    assert np.ptp(lighter, axis=(1, 2, 3, 4)).max() < 1e-5
    assert 0.5 <= lighter.min() < 0.7
    assert 1.3 < lighter.max() <= 1.5
    assert varied(clip, frames, brightness=1.0).max() == 1

    slope = np.zeros_like(clip) + np.arange(9, dtype=np.float32)[:, None]
    cropped = varied(slope, frames, crop=0.5)
    assert np.allclose(np.diff(cropped, axis=3), 0.5, atol=1e-5)
    assert cropped[..., 0, :].min() >= 0
    assert np.ptp(cropped[:, 0, 0, 0, 0]) > 2

    counted = np.zeros((40, 6, 1, 1, 1), np.float32)
    counted[:, :4, 0, 0, 0] = np.arange(1, 5)
    jittered = varied(counted, frames, jitter=0.9)[:, :, 0, 0, 0]
    assert np.all(np.diff(jittered[:, :4]) >= 0)
    assert set(np.unique(jittered[:, :4])) == {1, 2, 3, 4}
    assert not jittered[:, 4:].any()
    assert len({tuple(row) for row in jittered}) > 5


def test_rejects_are_kept_with_their_reasons_and_refused_where_they_are_many(
    raw: Path, tmp_path: Path
) -> None:
    about = json.loads((raw / "manifest.json").read_text())
    spoiled = tmp_path / "raw"
    spoiled.mkdir()
    for label in about["classes"]:
        (spoiled / label).symlink_to(raw / label)
    (spoiled / "C2").mkdir()
    (spoiled / "C2" / "v_g01_c01.gif").write_text("hello")
    bad = {**about["videos"][0], "path": "C2/v_g01_c01.gif", "key": "bad"}
    store.write_json(spoiled / "manifest.json", {**about, "videos": [*about["videos"], bad]})
    data = prepared(spoiled, tmp_path / "data", tolerated_rejects=0.05)
    told = json.loads((data.folder / "manifest.json").read_text())
    assert told["rejects"] == {**dict.fromkeys(REASONS, 0), "unreadable": 1}
    kept = [json.loads(line) for line in (data.folder / "rejects.ndjson").read_text().splitlines()]
    assert [(reject["path"], reject["reason"]) for reject in kept] == [(bad["path"], "unreadable")]
    assert sum(data.size(split) for split in SPLITS) == told["videos"] - 1 == 24
    with pytest.raises(DataError, match=r"1 of 25 videos .*\n  C2/v_g01_c01.gif: unreadable"):
        prepared(spoiled, tmp_path / "strict")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"validation": 0.0}, "no clip falls into validation"),
        ({"group": "("}, "not a regular expression"),
        ({"group": "g01"}, "expected one group in parentheses"),
    ],
)
def test_data_that_cannot_be_prepared_are_an_error(
    raw: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(raw, tmp_path / "data", **changes)


def test_a_misspelt_variation_is_an_error(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="augment"):
        prepared(raw, tmp_path / "data", augment={**NONE, "flipp": True})


def test_the_profile_is_what_drift_compares(data: batches.Data) -> None:
    profile = json.loads((data.folder / "profile.json").read_text())
    assert profile["examples"] == data.size("train") == len(profile["numbers"]["frames"])
    block = params.load()["drift"]
    assert not drift.compare(profile, profile, **block)["drifted"].any()
    clips = data.examples("train")
    real = [clip[:count] for clip, count in zip(clips.clips, clips.frames, strict=True)]
    brightness = sorted(round(float(clip.mean() / 255), 4) for clip in real)
    assert profile["numbers"]["brightness"] == pytest.approx(brightness, abs=1e-4)


def test_an_unknown_split_and_an_empty_folder_are_errors(
    data: batches.Data, tmp_path: Path
) -> None:
    with pytest.raises(KeyError, match="did you mean 'train'"):
        data.size("trian")
    with pytest.raises(FileNotFoundError, match="holds no prepared data"):
        dataset.load(tmp_path)
