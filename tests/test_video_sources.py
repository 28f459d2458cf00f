"""Sources of videos: rendered drawings, orders of frames, folders, tensorflow-datasets."""

import itertools
import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ostinato import store
from ostinato.errors import ParamsError, SourceError
from ostinato.params import bind
from ostinato.sketches import sources as sketches
from ostinato.video import sources
from ostinato.video.formats.reading import Sampling, read
from ostinato.video.sources import rendering
from ostinato.video.sources.rendering import ORDERS
from tests import videos

DOODLES: dict[str, Any] = {"categories": ["apple", "house"], "per_class": 3}
SKETCHES: dict[str, Any] = {
    "drawings": {"source": "doodles", "doodles": DOODLES},
    "frames": 6,
    "size": 24,
    "pen": 1.5,
}
ALL_FRAMES = Sampling(64, None, "uniform", 1, 24, 24, "grey", 10**6)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "out"


def fetched(source: str, out: Path, **block: Any) -> dict[str, Any]:
    """Run a source and return its manifest, after a check of sizes, checksums and classes."""
    bind(getattr(sources, source), block)(out, out.parent / "scratch", 7)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    for entry in manifest["videos"]:
        path = out / entry["path"]
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        content = b"".join(file.read_bytes() for file in files)
        assert (entry["bytes"], entry["sha256"]) == (len(content), sha256(content).hexdigest())
        assert Path(entry["path"]).parts[0] == entry["class"]
    assert manifest["classes"] == sorted({entry["class"] for entry in manifest["videos"]})
    return manifest


def film(path: Path) -> NDArray[np.uint8]:
    return read(path, ALL_FRAMES, np.random.default_rng(0))[0].pixels[..., 0]


@pytest.mark.parametrize("frames", [4, 5, 6])
def test_single_frames_carry_no_information_on_the_order(frames: int) -> None:
    """Over all constants and starts, each index of a clip shows the same frames in all orders."""
    drawing = np.random.default_rng(0).integers(256, size=(frames, 3, 2 * frames), dtype=np.uint8)
    shown, pairs = {}, {}
    for order in ORDERS:
        clips = [
            rendering.play(drawing, order, constant, start)
            for constant in range(frames)
            for start in range(frames)
        ]
        shown[order] = [Counter(clip[at].tobytes() for clip in clips) for at in range(frames)]
        pairs[order] = Counter(b"".join([a, b]) for clip in clips for a, b in _neighbours(clip))
    for order in ORDERS:
        assert shown[order] == shown["forwards"]
        assert set(shown[order][0].values()) == {1}
    # Pairs of consecutive frames do carry it: at most half are equal in any two orders.
    for order in ORDERS:
        for other in set(ORDERS) - {order}:
            assert (pairs[order] & pairs[other]).total() <= pairs[order].total() / 2


def _neighbours(clip: NDArray[np.uint8]) -> list[tuple[bytes, bytes]]:
    return [(a.tobytes(), b.tobytes()) for a, b in itertools.pairwise(clip)]


def test_each_order_does_what_its_name_says() -> None:
    ink = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 1, 6), np.uint8)
    grey = {order: rendering.play(ink, order, 0, 0)[:, 0, 0].tolist() for order in ORDERS}
    assert grey["forwards"] == [0, 1, 2, 3, 4, 5]
    assert grey["backwards"] == [5, 4, 3, 2, 1, 0]
    assert grey["erased"] == [1, 3, 5, 4, 2, 0]
    dot = np.zeros((6, 1, 6), np.uint8)
    dot[:, 0, 0] = 1
    position = {order: rendering.play(dot, order, 2, 0).argmax(axis=2)[:, 0] for order in ORDERS}
    assert position["right"].tolist() == [0, 1, 2, 3, 4, 5]
    assert position["left"].tolist() == [5, 4, 3, 2, 1, 0]
    assert {order: set(position[order]) for order in ORDERS[:3]} == {
        order: {2} for order in ORDERS[:3]
    }
    begun = rendering.play(dot, "right", 2, 4).argmax(axis=2)[:, 0]
    assert begun.tolist() == [4, 5, 0, 1, 2, 3]


def strokes(seed: int) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.random((3, count)).cumsum(axis=1) * 50 for count in (5, 1, 9)]


def test_a_drawing_grows_by_equal_lengths_until_it_is_complete() -> None:
    drawing = strokes(0)
    shown = rendering.render(drawing, frames=8, size=40, pen=2.0, pace="ink")
    assert np.all(np.diff(shown.astype(int), axis=0) >= 0)
    assert np.array_equal(shown[-1], _slow(drawing, 40, 2.0))
    halves = rendering.render(drawing, frames=2, size=40, pen=2.0, pace="ink")
    assert np.array_equal(halves, shown[[3, 7]])
    ink = np.diff(shown.sum(axis=(1, 2), dtype=np.int64), prepend=0)
    assert ink.max() < 3 * np.median(ink)


def _slow(drawing: list[NDArray[np.float64]], size: int, pen: float) -> NDArray[np.uint8]:
    """Reference: coverage of each pixel by its distance to every line segment."""
    points = np.concatenate(drawing, axis=1)[:2]
    low, high = points.min(axis=1), points.max(axis=1)
    scale = (size - 2 - pen) / (high - low).max()
    picture = np.zeros((size, size))
    for stroke in drawing:
        track = (stroke[:2].T - (low + high) / 2) * scale + (size - 1) / 2
        for a, b in zip(track[[0, *range(len(track) - 1)]], track, strict=True):
            for y, x in np.ndindex(size, size):
                along = np.dot((x, y) - a, b - a) / max(np.dot(b - a, b - a), 1e-12)
                near = a + np.clip(along, 0, 1) * (b - a)
                cover = pen / 2 + 0.5 - np.hypot(*((x, y) - near))
                picture[y, x] = max(picture[y, x], min(cover, 1.0))
    return np.rint(255 * picture).astype(np.uint8)


def test_a_pause_adds_no_ink_at_the_pace_of_time() -> None:
    first = np.array([[0.0, 10, 20], [0, 0, 0], [0, 10, 20]])
    second = np.array([[0.0, 10, 20], [9, 9, 9], [80, 90, 100]])
    shown = rendering.render([first, second], frames=10, size=16, pen=1.0, pace="time")
    ink = shown.sum(axis=(1, 2)).tolist()
    assert len({shown[at].tobytes() for at in range(1, 7)}) == 1
    assert ink[0] < ink[1] == ink[6] < ink[7] < ink[8] < ink[9]


def test_animated_sketches_keep_the_keys_of_the_drawings(out: Path) -> None:
    manifest = fetched("animated_sketches", out, **SKETCHES, pace="ink")
    raw = out.parent / "raw"
    raw.mkdir()
    sketches.doodles(raw, raw, 7, categories=["apple", "house"], per_class=3)
    keys = {
        (path.stem, json.loads(line)["key_id"])
        for path in raw.glob("*.ndjson")
        for line in path.read_text().splitlines()
    }
    assert {(entry["class"], entry["key"]) for entry in manifest["videos"]} == keys
    assert all(entry["group"] == entry["key"] for entry in manifest["videos"])
    line = json.loads((raw / "apple.ndjson").read_text().splitlines()[0])
    drawing = [np.array(stroke) for stroke in line["drawing"]]
    shown = rendering.render(drawing, frames=6, size=24, pen=1.5, pace="ink")
    assert np.array_equal(film(out / "apple" / f"{line['key_id']}.gif"), shown)
    assert not (out.parent / "scratch" / "drawings").exists()


def test_each_drawing_is_played_in_every_order_and_is_one_group(out: Path) -> None:
    manifest = fetched("order", out, **SKETCHES)
    groups: dict[str, set[str]] = {}
    for entry in manifest["videos"]:
        groups.setdefault(entry["group"], set()).add(entry["class"])
    assert set(map(frozenset, groups.values())) == {frozenset(ORDERS)}
    assert len(groups) == 6
    for key in groups:  # all orders have the same frames
        forwards = film(out / "forwards" / f"{key}.gif")
        backwards = film(out / "backwards" / f"{key}.gif")
        ink = [sorted(clip.sum(axis=(1, 2)).tolist()) for clip in (forwards, backwards)]
        assert ink[0] == ink[1]


@pytest.mark.parametrize("source", ["animated_sketches", "order"])
def test_the_same_seed_gives_the_same_bytes(out: Path, source: str) -> None:
    block = {**SKETCHES, "pace": "ink"} if source == "animated_sketches" else SKETCHES
    fetched(source, out, **block)
    again = out.parent / "again" / "out"
    again.mkdir(parents=True)
    (again.parent / "scratch").mkdir()
    fetched(source, again, **block)
    assert store.digest(again) == store.digest(out)


def drawings_in(folder: Path, *lines: dict[str, Any] | str) -> dict[str, Any]:
    folder.mkdir()
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "cat.ndjson").write_text(text)
    block = {"path": str(folder), "form": "raw", "label": "file"}
    return {**SKETCHES, "drawings": {"source": "folder", "folder": block}, "pace": "ink"}


def test_malformed_lines_are_counted(out: Path, tmp_path: Path) -> None:
    valid = {"word": "cat", "key_id": "1", "drawing": [[[0, 9], [3, 4], [0, 5]]]}
    malformed: list[dict[str, Any]] = [
        {**valid, "drawing": []},
        {**valid, "drawing": [[[0, 9], [3]]]},
        {"word": "cat"},
    ]
    manifest = fetched(
        "animated_sketches", out, **drawings_in(tmp_path / "own", valid, "{", "", *malformed, "7")
    )
    assert [entry["key"] for entry in manifest["videos"]] == ["1"]
    assert manifest["drawings"]["malformed"] == 4  # and one without ink
    paths = [reject["path"] for reject in manifest["rejects"]]
    assert paths == [f"cat.ndjson:{line}" for line in (2, 5, 6, 7)]


def test_drawings_that_cannot_be_rendered_are_an_error(out: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.npz").write_bytes(b"")
    block = {
        "files": [str(tmp_path / "cat.npz")],
        "max_concurrency": 1,
        "timeout": 1.0,
        "retries": 1,
    }
    with pytest.raises(SourceError, match="sketchrnn provides npz, which has no strokes to render"):
        fetched(
            "order", out, **{**SKETCHES, "drawings": {"source": "sketchrnn", "sketchrnn": block}}
        )
    with pytest.raises(ParamsError, match="did you mean 'doodles'"):
        fetched("order", out, **{**SKETCHES, "drawings": {"source": "doodle", "doodle": {}}})
    untimed = {"word": "cat", "key_id": "1", "drawing": [[[0, 9], [3, 4]]]}
    block = {**drawings_in(tmp_path / "own", untimed), "pace": "time"}
    with pytest.raises(SourceError, match="has no times; set `pace: ink`"):
        fetched("animated_sketches", out, **block)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Videos and numbered images in the layout of UCF101 and HMDB51."""
    root = tmp_path / "own"
    for name in ("Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "Swim/v_Swim_g02_c01.AVI"):
        path = videos.write(root / name.lower(), videos.counting(3))
        path.parent.rename(root / "aside")
        (root / name).parent.mkdir(exist_ok=True)
        (root / "aside" / path.name).rename(root / name)
        (root / "aside").rmdir()
    (root / "Swim" / "pool").mkdir()
    for number in (1, 2, 10):
        (root / "Swim" / "pool" / f"{number}.png").write_bytes(videos.png(8, 8))
    (root / "Swim" / "notes.txt").write_text("not a video")
    (root / "read.me").write_text("not a class")
    return root


def test_the_files_of_a_folder_are_copied_unchanged(out: Path, own: Path) -> None:
    manifest = fetched("folder", out, path=str(own), ignore=[], test=None)
    expected = ["Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "Swim/pool"]
    assert [entry["path"] for entry in manifest["videos"]] == [*expected, "Swim/v_Swim_g02_c01.AVI"]
    assert manifest["classes"] == ["Run", "Swim"]
    assert {entry["split"] for entry in manifest["videos"]} == {None}
    for path in own.rglob("*.[aApP]*"):
        if path.is_file():
            assert (out / path.relative_to(own)).read_bytes() == path.read_bytes()


def test_a_list_names_the_test_videos(out: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Run/v_Run_g01_c02.avi\nSwim/pool 2\n\n")
    manifest = fetched("folder", out, path=str(own), ignore=[], test=str(tmp_path / "list.txt"))
    assert [entry["split"] for entry in manifest["videos"]] == ["train", "test", "test", "train"]


@pytest.mark.parametrize(
    ("path", "test", "message"),
    [
        ("no/such", None, "no such folder"),
        (".", None, "found no videos"),
        ("own", "no/list.txt", "no such file"),
        ("own", "list.txt", r"lists Run/gone.avi \(line 1\), which is not in"),
    ],
)
def test_a_missing_folder_list_or_video_is_an_error(
    out: Path, own: Path, tmp_path: Path, path: str, test: str | None, message: str
) -> None:
    (tmp_path / "list.txt").write_text("Run/gone.avi\n")
    (tmp_path / "no").mkdir()
    where = {".": tmp_path / "no"}.get(path, tmp_path / path)
    with pytest.raises(SourceError, match=message):
        fetched(
            "folder",
            out,
            path=str(where),
            ignore=[],
            test=None if test is None else str(tmp_path / test),
        )


def test_a_link_out_of_the_folder_is_an_error(out: Path, own: Path) -> None:
    (own / "Run" / "secret.avi").symlink_to(own.parent / "elsewhere.avi")
    (own.parent / "elsewhere.avi").write_bytes(b"secret")
    with pytest.raises(SourceError, match="links to a file outside"):
        fetched("folder", out, path=str(own), ignore=[], test=None)
    assert not list(out.rglob("secret*"))


@pytest.mark.parametrize("channels", [1, 3])
def test_videos_of_tensorflow_datasets_are_stored_without_loss(
    out: Path, tmp_path: Path, channels: int
) -> None:
    import tensorflow_datasets as tfds

    shape = (5, 16, 24, channels)
    rng = np.random.default_rng(0)
    names = ("train",) if channels == 1 else ("train", "extra")  # a single split is not kept
    stored = {name: rng.integers(256, size=(3, *shape), dtype=np.uint8) for name in names}
    features = {"clip": tfds.features.Video(shape=(None, *shape[1:]))}
    if channels == 3:
        features["label"] = tfds.features.ClassLabel(names=["Run", "Swim"])
    splits = {
        name: iter([(i, {"clip": clip, "label": i % 2}) for i, clip in enumerate(clips)])
        if channels == 3
        else iter([(i, {"clip": clip}) for i, clip in enumerate(clips)])
        for name, clips in stored.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="little",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=tmp_path,
    )
    manifest = fetched("tfds", out, dataset="little", data_dir=str(tmp_path), per_class=2)
    label = "little" if channels == 1 else "Run"
    ending = "gif" if channels == 1 else "mkv"
    counts = Counter((entry["class"], entry["split"]) for entry in manifest["videos"])
    both = {("Run", None): 2, ("Run", "train"): 2, ("Swim", None): 1, ("Swim", "train"): 1}
    assert counts == ({("little", None): 2} if channels == 1 else both)
    sampling = ALL_FRAMES._replace(height=16, colour="grey" if channels == 1 else "rgb")
    clip = read(out / label / f"train_000000.{ending}", sampling, np.random.default_rng(0))[0]
    assert any(np.array_equal(clip.pixels, known) for known in stored["train"])


@pytest.mark.parametrize("dataset", ["ucf101", "moving_mnist"])
def test_the_features_of_known_data_sets_are_recognised(out: Path, dataset: str) -> None:
    import tensorflow_datasets

    with (  # mock_data knows the features; without a network there are no splits
        tensorflow_datasets.testing.mock_data(),
        pytest.raises(SourceError, match=f"{dataset}: found no videos"),
    ):
        fetched("tfds", out, dataset=dataset, data_dir=None, per_class=None)


def test_a_data_set_without_a_video_feature_is_an_error(out: Path) -> None:
    with pytest.raises(SourceError, match="expected one video and at most one label"):
        fetched("tfds", out, dataset="mnist", data_dir=None, per_class=None)
    with pytest.raises(SourceError, match="dataset: no_such"):
        fetched("tfds", out, dataset="no_such", data_dir=None, per_class=None)
