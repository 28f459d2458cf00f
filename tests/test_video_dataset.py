"""Videos are read into clips, or rejected with a reason; data sets are split by recording."""

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

from ostinato import store
from ostinato.errors import DataError, ParamsError, RejectedVideoError
from ostinato.params import bind
from ostinato.sketches import dataset as sketches
from ostinato.task import Manifest, Part, Profile
from ostinato.video import dataset, sources
from ostinato.video.dataset import ClipDataset, loader
from ostinato.video.dataset.splits import SPLITS, assign_splits, unit_hash
from ostinato.video.formats import reading
from ostinato.video.formats.raw import RawVideo, read_manifest
from ostinato.video.formats.reading import REJECT_REASONS, Clip, Sampling
from tests import videos

ALL_FRAMES = Sampling(64, None, "uniform", 1, 24, 32, "grey", 10**6)
NO_AUGMENT: dict[str, Any] = {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0}
PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.25,
    "test": 0.25,
    "group": r"(.+_g\d+)_c\d+",
    "frames": 8,
    "frame_rate": None,
    "frame_sampling": "uniform",
    "clips": 1,
    "height": 12,
    "width": 16,
    "colour": "grey",
    "max_pixels": 10**6,
    "augment": NO_AUGMENT,
    "shard_size": 10,
    "workers": 2,
}


def read(video: Path | bytes, **changes: Any) -> list[Clip]:
    return reading.read(video, ALL_FRAMES._replace(**changes), np.random.default_rng(0))


def frame_numbers(clip: Clip) -> list[int]:
    """The numbers of the frames of `videos.counting` in a clip; lossy codecs change grey values."""
    means = clip.pixels.mean(axis=(1, 2, 3)) / 10
    assert np.abs(means - means.round()).max() < 0.3
    return [int(number) for number in means.round()]


@pytest.fixture(scope="module", params=videos.CODECS)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames, ten per second, in each container; with B-frames where the codec has them."""
    options = {".mp4": {"g": "6", "bf": "2"}, ".webm": {"auto-alt-ref": "1", "lag-in-frames": "16"}}
    path = tmp_path_factory.mktemp("counted") / f"v{request.param}"
    return videos.write(path, videos.counting(20), options=options.get(request.param))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [list(range(1, 21))]),
        ({"frames": 10}, [list(range(2, 21, 2))]),
        ({"frames": 4, "frame_sampling": "centred"}, [[9, 10, 11, 12]]),
        ({"frame_rate": 5.0}, [list(range(1, 21, 2))]),
        ({"frame_rate": 5.0, "frames": 2, "frame_sampling": "centred"}, [[9, 11]]),
        ({"frame_rate": 20.0, "frames": 4}, [[3, 8, 13, 18]]),
        ({"frames": 2, "clips": 2}, [[3, 8], [13, 18]]),
        ({"frames": 3, "clips": 2, "frame_sampling": "centred"}, [[4, 5, 6], [14, 15, 16]]),
    ],
)
def test_sampled_frames_are_the_same_in_every_container(
    counted: Path, changes: dict[str, Any], expected: list[list[int]]
) -> None:
    clips = read(counted, **changes)
    assert [frame_numbers(clip) for clip in clips] == expected
    assert all(clip.pixels.shape[1:] == (24, 32, 1) for clip in clips)
    for clip, frames in zip(clips, expected, strict=True):
        assert clip.seconds == pytest.approx((frames[-1] - frames[0]) / 10, abs=0.06)
    from_bytes = read(counted.read_bytes(), **changes)
    assert [clip.pixels.tobytes() for clip in from_bytes] == [
        clip.pixels.tobytes() for clip in clips
    ]


def test_random_sampling_takes_consecutive_frames_from_any_start() -> None:
    sampling = ALL_FRAMES._replace(frames=16, frame_sampling="random")
    times, starts = np.arange(20.0), set()
    for seed in range(40):
        found = reading.sample_times(times, sampling, np.random.default_rng(seed))[0]
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
def test_sampled_times_ascend_within_the_video_and_are_at_most_as_many_as_configured(
    steps: list[int], frames: int, rate: float | None, sample: Any, clips: int
) -> None:
    times = np.cumsum(steps) / 100
    sampling = ALL_FRAMES._replace(
        frames=frames, frame_rate=rate, frame_sampling=sample, clips=clips
    )
    found = reading.sample_times(times, sampling, np.random.default_rng(0))
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
def test_a_variable_frame_rate_is_resampled_to_the_frame_on_display(
    tmp_path: Path, ending: str
) -> None:
    times = [0, 10, 20, 30, 1000, 2000]
    path = videos.write(tmp_path / f"v{ending}", videos.counting(6), times=times)
    assert frame_numbers(read(path)[0]) == [1, 2, 3, 4, 5, 6]
    assert frame_numbers(read(path, frame_rate=2.0)[0]) == [1, 4, 5, 5, 6]


def test_numbered_images_are_ordered_by_number(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10, 11):
        write_image(tmp_path / f"frame{number}.png", 10 * number)
    assert frame_numbers(read(tmp_path)[0]) == [1, 2, 9, 10, 11]
    assert frame_numbers(read(tmp_path, frames=2, frame_sampling="centred")[0]) == [2, 9]
    assert frame_numbers(read(tmp_path, frame_rate=12.5)[0]) == [1, 9, 11]


def write_image(path: Path, grey: int, height: int = 24, width: int = 32) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream: Any = container.add_stream("png", 1)
        stream.height, stream.width, stream.pix_fmt = height, width, "gray"
        picture = np.full((height, width), grey, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "gray")))
        container.mux(stream.encode())


def test_frames_are_scaled_and_cropped_to_the_centre(tmp_path: Path) -> None:
    film = np.zeros((2, 40, 80), np.uint8)
    film[:, :, 20:60] = np.repeat(np.arange(40, dtype=np.uint8) * 6, 1)
    path = videos.write(tmp_path / "v.mkv", film)
    centre = read(path, height=40, width=40)[0].pixels[..., 0]
    assert np.array_equal(centre, film[:, :, 20:60])
    small = read(path, height=20, width=20)[0].pixels[0, :, :, 0]
    assert np.allclose(small, film[0, ::2, 20:60:2] + 3, atol=1)
    assert read(path, colour="rgb")[0].pixels.shape == (2, 24, 32, 3)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda film: np.rot90(film, -1, (1, 2))),  # a phone held upright
        ((-1, 0, 0, -1), lambda film: np.rot90(film, 2, (1, 2))),
        ((0, -1, 1, 0), lambda film: np.rot90(film, 1, (1, 2))),
        ((-1, 0, 0, 1), lambda film: film[:, :, ::-1]),
        ((0, 0, 0, 0), lambda film: film),  # not a rotation
    ],
)
def test_the_display_matrix_is_applied(
    matrix: tuple[int, ...], shown: Callable[[NDArray[Any]], NDArray[Any]], tmp_path: Path
) -> None:
    film = np.zeros((2, 48, 64), np.uint8)
    film[:, :24, :32], film[:, 24:, :32] = 240, 120
    path = videos.write(tmp_path / "v.mp4", film)
    path.write_bytes(videos.with_display_matrix(path.read_bytes(), matrix))
    expected = shown(film)
    (clip,) = read(path, height=expected.shape[1], width=expected.shape[2])
    assert np.abs(clip.pixels[..., 0] - expected.astype(float)).mean() < 3
    (small,) = read(path.read_bytes(), height=12, width=12)
    centre = shown(film[:, :, 8:56])[:, 2::4, 2::4]
    assert np.abs(small.pixels[..., 0] - centre.astype(float)).mean() < 6


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(path: Path) -> None:
    """Append a stream with frames of another size."""
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
    ("name", "damage", "reason"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "unreadable"),
        ("text.avi", lambda path: path.write_text("hello"), "unreadable"),
        ("head.mp4", cut_in_half, "unreadable"),  # the index is at the end
        ("half.webm", cut_in_half, "truncated"),
        ("half.mkv", cut_in_half, "truncated"),
        ("sound.mkv", soundtrack, "no frames"),
        ("sizes.mpg", other_size, "changes size"),
        ("cut.png", lambda path: path.write_bytes(videos.png(90, 90)[:60]), "corrupt"),
        ("bomb.png", lambda path: path.write_bytes(videos.png(20_000, 100)), "too large"),
    ],
)
def test_an_unusable_video_is_rejected_with_the_reason(
    tmp_path: Path, name: str, damage: Any, reason: str
) -> None:
    path = tmp_path / name
    if path.suffix in videos.CODECS:
        videos.write(path, videos.counting(20))
    damage(path)
    with pytest.raises(RejectedVideoError) as raised:
        read(path)
    assert raised.value.reason == reason
    assert reason in REJECT_REASONS


def test_an_unusable_folder_of_images_is_rejected(tmp_path: Path) -> None:
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
def test_a_video_with_too_large_frames_is_rejected(tmp_path: Path, ending: str) -> None:
    path = videos.write(tmp_path / f"v{ending}", videos.counting(3, 96, 128))
    assert len(read(path, max_pixels=96 * 128)[0].pixels) == 3
    for video in (path, path.read_bytes()):
        with pytest.raises(RejectedVideoError, match="too large"):
            read(video, max_pixels=96 * 128 - 1)


def test_a_decompression_bomb_is_rejected_by_its_header(tmp_path: Path) -> None:
    """Before its frames are decoded, which would take 17 GB and 120 MB."""
    gif = bytearray(videos.write(tmp_path / "v.gif", videos.counting(3)).read_bytes())
    gif[6:10] = b"\xff\xff\xff\xff"  # width and height of the canvas
    for content in (bytes(gif), videos.png(12_000, 10_000)):
        with pytest.raises(RejectedVideoError, match="too large"):
            read(content, max_pixels=10**7)


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".png"])
def test_a_playlist_with_the_suffix_of_a_video_is_not_followed(tmp_path: Path, ending: str) -> None:
    secret = videos.write(tmp_path / "secret.avi", videos.counting(3))
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{secret}\n",
        f"ffconcat version 1.0\nfile {secret.name}\n",
    ):
        (tmp_path / f"list{ending}").write_text(text)
        with pytest.raises(RejectedVideoError, match="unreadable"):
            read(tmp_path / f"list{ending}")


def raw_set(folder: Path, *, classes: int = 2, groups: int = 6, each: int = 2) -> Path:
    """Raw data of the source ``folder``, with the names of UCF101; 5 or 6 frames a video."""
    own = folder / "own"
    grey = itertools.count()
    for label in range(classes):
        for group, cut in np.ndindex(groups, each):
            film = np.full((5 + cut, 12, 16), next(grey), np.uint8)
            name = f"v_C{label}_g{group + 1:02}_c{cut + 1:02}.gif"
            videos.write(own / f"C{label}" / name, film)
    raw = folder / "raw"
    raw.mkdir()
    sources.folder(raw, folder, 0, path=str(own), ignore=[], test=None)
    return raw


def prepared(raw: Path, folder: Path, **changes: Any) -> ClipDataset:
    folder.mkdir(parents=True)
    bind(dataset.prepare, {**PREPARE, **changes})(raw, folder)
    return dataset.load(folder)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_set(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def data(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipDataset:
    return prepared(raw, tmp_path_factory.mktemp("prepared") / "data")


def test_no_recording_is_in_two_splits(data: ClipDataset) -> None:
    videos = {split: data.examples(split).videos for split in SPLITS}
    groups = {split: {v.rpartition("_c")[0] for v in found} for split, found in videos.items()}
    assert sum(map(len, videos.values())) == 24
    assert len(set().union(*groups.values())) == sum(map(len, groups.values())) == 12
    splits = Manifest.read(data.folder / "manifest.json").splits
    assert {split: splits[split]["groups"] for split in SPLITS} == {
        split: len(found) for split, found in groups.items()
    }


def raw_video(key: str, group: str | None = None) -> RawVideo:
    return RawVideo(path=f"{key}.avi", label="c", key=key, group=group, split=None)


@given(
    st.lists(st.text(max_size=12), min_size=1, unique=True), st.floats(0, 0.4), st.floats(0, 0.4)
)
def test_a_drawing_is_in_the_split_of_its_strokes(
    keys: list[str], validation: float, test: float
) -> None:
    fractions = {"train": 1 - validation - test, "validation": validation, "test": test}
    encoded = [key.encode() for key in keys]
    flat = np.frombuffer(b"".join(encoded), np.uint8)
    ends = np.cumsum([len(key) for key in encoded], dtype=np.int64)
    theirs = sketches.split_of(flat, ends, fractions)
    assigned = assign_splits([raw_video(key, key or None) for key in keys], None, validation, test)
    ours = {video.key: video.split for video in assigned}
    assert [ours[key] for key in keys] == [SPLITS[split] for split in theirs]


def test_the_hash_of_a_name_never_changes() -> None:
    """FNV-1a's published values, through SplitMix64's finaliser written with divisions."""
    for name, fnv in {"": 0xCBF29CE484222325, "a": 0xAF63DC4C8601EC8C}.items():
        for factor, bits in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
            fnv = (fnv ^ fnv // 2**bits) * factor % 2**64
        assert unit_hash(name) == (fnv ^ fnv // 2**31) // 2**11 / 2**53


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_recording_keeps_its_split_as_the_data_grow(
    few: int, more: int, validation: float, test: float
) -> None:
    def splits_of(count: int) -> dict[str, str]:
        videos = [raw_video(f"v_g{i // 3:02}_c{i % 3}") for i in range(count)]
        assigned = assign_splits(videos, r"(.+_g\d+)_c\d+", validation, test)
        return {video.key: video.split for video in assigned}

    assert splits_of(few).items() <= splits_of(few + more).items()


def test_the_splits_of_a_source_are_kept_and_validation_is_part_of_training(
    raw: Path, tmp_path: Path
) -> None:
    manifest = json.loads((raw / "manifest.json").read_text())
    for video in manifest["videos"]:
        video["split"] = "test" if "_g01_" in video["path"] else "train"
    changed = tmp_path / "raw"
    changed.mkdir()
    for label in manifest["classes"]:
        (changed / label).symlink_to(raw / label)
    store.write_json(changed / "manifest.json", manifest)
    data = prepared(changed, tmp_path / "data", validation=0.4)
    assert data.size("test") == 4
    assert all("_g01_" in key for key in data.examples("test").keys)
    assert data.size("validation") > 0

    manifest["videos"][0]["split"] = "train"
    store.write_json(changed / "manifest.json", manifest)
    with pytest.raises(DataError, match=r"its recording 'v_C0_g01' is in the splits \w+ and \w+"):
        prepared(changed, tmp_path / "leak")


def test_the_same_videos_give_the_same_bytes_on_any_number_of_threads(
    raw: Path, data: ClipDataset, tmp_path: Path
) -> None:
    again = prepared(raw, tmp_path / "again", workers=4)
    assert store.digest(again.folder) == store.digest(data.folder)


def test_tensorflow_datasets_reads_the_prepared_data_set(data: ClipDataset) -> None:
    builder = tfds.builder_from_directory(data.folder)
    stored_order = tfds.ReadConfig(interleave_cycle_length=1)
    ours = data.examples("train")
    theirs = list(tfds.as_numpy(builder.as_dataset("train", read_config=stored_order)))
    assert len(theirs) == builder.info.splits["train"].num_examples == data.size("train")
    for i, example in enumerate(theirs):
        assert np.array_equal(example["clip"], ours.clips[i, : ours.frames[i]])
        assert (
            builder.info.features["label"].names[example["label"]] == data.classes[ours.labels[i]]
        )
        assert example["key"].decode() == ours.keys[i] == ours.videos[i]


def test_all_clips_of_a_video_are_in_one_split(raw: Path, tmp_path: Path) -> None:
    data = prepared(raw, tmp_path / "data", clips=2, frames=2)
    for split in SPLITS:
        found = data.examples(split)
        assert len(found) == 2 * len(set(found.videos))
        assert {key.partition("#")[0] for key in found.keys} == set(found.videos)


Batch = tuple[dict[str, NDArray[Any]], NDArray[np.int32]]


def epoch(data: ClipDataset, split: str, seed: int | None, number: int) -> list[Batch]:
    found = data.batches(split, batch_size=5, seed=seed, epoch=number)
    return [({name: value.numpy() for name, value in x.items()}, y.numpy()) for x, y in iter(found)]


def concatenated(
    batches: list[Batch],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    return (
        np.concatenate([x["clip"] for x, _ in batches]),
        np.concatenate([x["frames"] for x, _ in batches]),
        np.concatenate([y for _, y in batches]),
    )


def test_without_a_seed_batches_are_the_examples_in_stored_order(data: ClipDataset) -> None:
    for split in SPLITS:
        clips, frames, labels = concatenated(epoch(data, split, None, 3))
        stored = data.examples(split)
        assert clips.dtype == np.float32
        assert np.array_equal(clips, stored.clips / np.float32(255))
        inputs = data.inputs(stored.clips, stored.frames)
        assert np.array_equal(inputs["clip"], clips)
        assert np.array_equal(frames, stored.frames)
        assert np.array_equal(labels, stored.labels)
        assert set(frames.tolist()) <= {5, 6}
        for clip, count in zip(clips, frames, strict=True):
            assert clip.shape == (8, 12, 16, 1)
            assert not clip[count:].any()
        padded = data.pad([c[:n] for c, n in zip(stored.clips, stored.frames, strict=True)])
        assert np.array_equal(padded["clip"], clips)
        assert np.array_equal(padded["frames"], frames)


def test_an_epoch_depends_on_seed_and_number_only_and_has_every_clip_once(
    data: ClipDataset,
) -> None:
    orders = []
    for seed, number in ((1, 0), (1, 0), (1, 1), (2, 0)):
        clips, _, labels = concatenated(epoch(data, "train", seed, number))
        orders.append(
            [(clip.tobytes(), int(label)) for clip, label in zip(clips, labels, strict=True)]
        )
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1


ORDER: dict[str, Any] = {"batch_size": 4, "seed": 1, "epoch": 2}


def test_only_training_clips_are_augmented_and_only_with_a_seed(raw: Path, tmp_path: Path) -> None:
    augment = {"flip": True, "crop": 0.3, "jitter": 0.5, "brightness": 0.5}
    data = prepared(raw, tmp_path / "data", augment=augment)

    def means(split: str, seed: int | None) -> list[float]:
        return sorted(concatenated(epoch(data, split, seed, 0))[0].mean(axis=(1, 2, 3, 4)).tolist())

    for split in ("validation", "test"):
        assert means(split, 1) == means(split, None)
    assert means("train", 1) != means("train", None)
    assert (
        concatenated(epoch(data, "train", 1, 0))[0].tobytes()
        == concatenated(epoch(data, "train", 1, 0))[0].tobytes()
    )
    ranks = [
        [x["clip"].numpy() for (x, _), _ in data.batches("train", **ORDER, part=Part(rank, 2))]
        for rank in range(2)
    ]
    for (whole, _), *parts in zip(data.batches("train", **ORDER), *ranks, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts[-len(whole["clip"]) :]), whole["clip"])


def augmented(clip: NDArray[np.float32], frames: list[int], **augment: Any) -> NDArray[np.float32]:
    uniform = tf.random.stateless_uniform((6, len(clip)), (3, 4))
    settings: Any = {**NO_AUGMENT, **augment}
    changed = loader.augment_clips(tf.constant(clip), tf.constant(frames), uniform, settings)
    return np.asarray(changed)


def test_each_augmentation_does_what_its_name_says() -> None:
    rng = np.random.default_rng(0)
    clip: Any = rng.random((40, 6, 7, 9, 3), np.float32)
    clip[:, 4:] = 0
    frames = [4] * 40
    assert np.array_equal(augmented(clip, frames), clip)

    mirrored = augmented(clip, frames, flip=True)
    flipped = [
        np.allclose(m, c[:, :, ::-1], atol=1e-6) for m, c in zip(mirrored, clip, strict=True)
    ]
    unchanged = [np.allclose(m, c, atol=1e-6) for m, c in zip(mirrored, clip, strict=True)]
    assert np.all(np.array(flipped) ^ np.array(unchanged))
    assert 8 < sum(flipped) < 32

    lighter = augmented(clip / 2, frames, brightness=0.5)[:, :4] / (clip[:, :4] / 2)
    assert np.ptp(lighter, axis=(1, 2, 3, 4)).max() < 1e-5
    assert 0.5 <= lighter.min() < 0.7
    assert 1.3 < lighter.max() <= 1.5
    assert augmented(clip, frames, brightness=1.0).max() == 1

    slope = np.zeros_like(clip) + np.arange(9, dtype=np.float32)[:, None]
    cropped = augmented(slope, frames, crop=0.5)
    assert np.allclose(np.diff(cropped, axis=3), 0.5, atol=1e-5)
    assert cropped[..., 0, :].min() >= 0
    assert np.ptp(cropped[:, 0, 0, 0, 0]) > 2

    counted = np.zeros((40, 6, 1, 1, 1), np.float32)
    counted[:, :4, 0, 0, 0] = np.arange(1, 5)
    jittered = augmented(counted, frames, jitter=0.9)[:, :, 0, 0, 0]
    assert np.all(np.diff(jittered[:, :4]) >= 0)
    assert set(np.unique(jittered[:, :4])) == {1, 2, 3, 4}
    assert not jittered[:, 4:].any()
    assert len({tuple(row) for row in jittered}) > 5


def test_rejected_videos_are_listed_and_limited(raw: Path, tmp_path: Path) -> None:
    manifest = json.loads((raw / "manifest.json").read_text())
    damaged = tmp_path / "raw"
    damaged.mkdir()
    for label in manifest["classes"]:
        (damaged / label).symlink_to(raw / label)
    (damaged / "C2").mkdir()
    (damaged / "C2" / "v_g01_c01.gif").write_text("hello")
    bad = {**manifest["videos"][0], "path": "C2/v_g01_c01.gif", "key": "bad"}
    store.write_json(damaged / "manifest.json", {**manifest, "videos": [*manifest["videos"], bad]})
    data = prepared(damaged, tmp_path / "data", tolerated_rejects=0.05)
    details = data.manifest.details
    assert details["rejects"] == {**dict.fromkeys(REJECT_REASONS, 0), "unreadable": 1}
    lines = (data.folder / "rejects.ndjson").read_text().splitlines()
    rejects = [json.loads(line) for line in lines]
    assert [(r["path"], r["reason"]) for r in rejects] == [(bad["path"], "unreadable")]
    assert sum(data.size(split) for split in SPLITS) == details["videos"] - 1 == 24
    with pytest.raises(DataError, match=r"1 of 25 videos .*\n  C2/v_g01_c01.gif: unreadable"):
        prepared(damaged, tmp_path / "strict")


def test_raw_data_without_a_complete_manifest_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest.json: no such file; run `dvc repro`"):
        read_manifest(tmp_path)
    store.write_json(tmp_path / "manifest.json", {"source": "folder", "videos": [{"path": "x"}]})
    with pytest.raises(DataError, match="an entry has no field 'class'"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "leave nothing for training"),
        (
            {"validation": 0.01},
            "the split validation has no clips: 24 videos of 12 recordings give",
        ),
        ({"group": r"(person\d+)_d\d"}, "matches no file name, such as v_C0_g01_c01; correct it"),
        ({"group": r"(person)?_c"}, "matches no file name"),
        ({"group": "("}, "not a regular expression"),
        ({"group": "g01"}, "expected one group in parentheses, found 0"),
    ],
)
def test_wrong_parameters_of_prepare_are_an_error(
    raw: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(raw, tmp_path / "data", **changes)


def test_a_misspelt_augmentation_is_an_error(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="augment"):
        prepared(raw, tmp_path / "data", augment={**NO_AUGMENT, "flipp": True})


def test_the_profile_describes_the_training_clips(data: ClipDataset) -> None:
    profile = Profile.read(data.folder / "profile.json")
    assert profile.examples == data.size("train") == len(profile.numbers["frames"])
    counts = profile.counts["class"]
    assert counts == data.manifest.details["class_counts"]["train"]
    clips = data.examples("train")
    real = [clip[:count] for clip, count in zip(clips.clips, clips.frames, strict=True)]
    brightness = sorted(round(float(clip.mean() / 255), 4) for clip in real)
    assert profile.numbers["brightness"] == pytest.approx(brightness, abs=1e-4)


def test_the_manifest_counts_the_clips_of_each_split(data: ClipDataset) -> None:
    assert data.manifest.examples == "clips"
    for split in SPLITS:
        counts = data.manifest.splits[split]
        assert counts["clips"] == data.size(split) == len(data.examples(split))
        assert sum(data.manifest.details["class_counts"][split].values()) == counts["clips"]


def test_an_unknown_split_and_an_empty_folder_are_errors(data: ClipDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'train'"):
        data.size("trian")
    with pytest.raises(DataError, match=r"manifest.json: no such file; run `dvc repro`"):
        dataset.load(tmp_path)
