"""Laws of the sources of video: drawings as film, the set that only order tells, folders, TFDS."""

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
from ostinato.video.dataset.reading import Sampling, read
from ostinato.video.sources import playing
from ostinato.video.sources.playing import ORDERS
from tests import videos

DOODLES: dict[str, Any] = {"categories": ["apple", "house"], "per_class": 3}
SKETCHES: dict[str, Any] = {
    "drawings": {"source": "doodles", "doodles": DOODLES},
    "frames": 6,
    "size": 24,
    "pen": 1.5,
}
WHOLE = Sampling(64, None, "uniform", 1, 24, 24, "grey", 10**6)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "out"


def fetched(source: str, out: Path, **block: Any) -> dict[str, Any]:
    """The manifest, after its own claims have been checked."""
    bind(getattr(sources, source), block)(out, out.parent / "scratch", 7)
    told: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    for entry in told["videos"]:
        path = out / entry["path"]
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        content = b"".join(file.read_bytes() for file in files)
        assert (entry["bytes"], entry["sha256"]) == (len(content), sha256(content).hexdigest())
        assert Path(entry["path"]).parts[0] == entry["class"]
    assert told["classes"] == sorted({entry["class"] for entry in told["videos"]})
    return told


def film(path: Path) -> NDArray[np.uint8]:
    return read(path, WHOLE, np.random.default_rng(0))[0].pixels[..., 0]


@pytest.mark.parametrize("frames", [4, 5, 6])
def test_no_frame_of_a_loop_wherever_it_stands_says_how_it_is_played(frames: int) -> None:
    """Over all places, parts and starts, each place in the clip shows the same frames."""
    parts = np.random.default_rng(0).integers(256, size=(frames, 3, 2 * frames), dtype=np.uint8)
    shown, pairs = {}, {}
    for order in ORDERS:
        clips = [
            playing.played(parts, order, still, start)
            for still in range(frames)
            for start in range(frames)
        ]
        shown[order] = [Counter(clip[at].tobytes() for clip in clips) for at in range(frames)]
        pairs[order] = Counter(b"".join([a, b]) for clip in clips for a, b in _neighbours(clip))
    for order in ORDERS:
        assert shown[order] == shown["forwards"]
        assert set(shown[order][0].values()) == {1}
    # And two frames say nearly all: those in turn differ between any two orders.
    for order in ORDERS:
        for other in set(ORDERS) - {order}:
            assert (pairs[order] & pairs[other]).total() <= pairs[order].total() / 2


def _neighbours(clip: NDArray[np.uint8]) -> list[tuple[bytes, bytes]]:
    return [(a.tobytes(), b.tobytes()) for a, b in itertools.pairwise(clip)]


def test_orders_are_what_they_are_called() -> None:
    ink = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 1, 6), np.uint8)
    grey = {order: playing.played(ink, order, 0, 0)[:, 0, 0].tolist() for order in ORDERS}
    assert grey["forwards"] == [0, 1, 2, 3, 4, 5]
    assert grey["backwards"] == [5, 4, 3, 2, 1, 0]
    assert grey["erased"] == [1, 3, 5, 4, 2, 0]
    dot = np.zeros((6, 1, 6), np.uint8)
    dot[:, 0, 0] = 1
    place = {order: playing.played(dot, order, 2, 0).argmax(axis=2)[:, 0] for order in ORDERS}
    assert place["right"].tolist() == [0, 1, 2, 3, 4, 5]
    assert place["left"].tolist() == [5, 4, 3, 2, 1, 0]
    assert {order: set(place[order]) for order in ORDERS[:3]} == {
        order: {2} for order in ORDERS[:3]
    }
    begun = playing.played(dot, "right", 2, 4).argmax(axis=2)[:, 0]
    assert begun.tolist() == [4, 5, 0, 1, 2, 3]


def strokes(seed: int) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.random((3, count)).cumsum(axis=1) * 50 for count in (5, 1, 9)]


def test_a_drawing_grows_in_equal_parts_to_the_whole() -> None:
    drawing = strokes(0)
    shown = playing.drawn(drawing, frames=8, size=40, pen=2.0, pace="ink")
    assert np.all(np.diff(shown.astype(int), axis=0) >= 0)
    assert np.array_equal(shown[-1], _slow(drawing, 40, 2.0))
    halves = playing.drawn(drawing, frames=2, size=40, pen=2.0, pace="ink")
    assert np.array_equal(halves, shown[[3, 7]])
    ink = np.diff(shown.sum(axis=(1, 2), dtype=np.int64), prepend=0)
    assert ink.max() < 3 * np.median(ink)


def _slow(drawing: list[NDArray[np.float64]], size: int, pen: float) -> NDArray[np.uint8]:
    """How far the pen covers each pixel, by its distance to every piece of the track."""
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


def test_in_time_a_pause_shows_no_new_ink() -> None:
    first = np.array([[0.0, 10, 20], [0, 0, 0], [0, 10, 20]])
    second = np.array([[0.0, 10, 20], [9, 9, 9], [80, 90, 100]])
    shown = playing.drawn([first, second], frames=10, size=16, pen=1.0, pace="time")
    ink = shown.sum(axis=(1, 2)).tolist()
    assert len({shown[at].tobytes() for at in range(1, 7)}) == 1
    assert ink[0] < ink[1] == ink[6] < ink[7] < ink[8] < ink[9]


def test_animated_sketches_are_the_drawings_of_the_source_by_their_keys(out: Path) -> None:
    told = fetched("animated_sketches", out, **SKETCHES, pace="ink")
    raw = out.parent / "raw"
    raw.mkdir()
    sketches.doodles(raw, raw, 7, categories=["apple", "house"], per_class=3)
    keys = {
        (path.stem, json.loads(line)["key_id"])
        for path in raw.glob("*.ndjson")
        for line in path.read_text().splitlines()
    }
    assert {(entry["class"], entry["key"]) for entry in told["videos"]} == keys
    assert all(entry["group"] == entry["key"] for entry in told["videos"])
    line = json.loads((raw / "apple.ndjson").read_text().splitlines()[0])
    drawing = [np.array(stroke) for stroke in line["drawing"]]
    shown = playing.drawn(drawing, frames=6, size=24, pen=1.5, pace="ink")
    assert np.array_equal(film(out / "apple" / f"{line['key_id']}.gif"), shown)
    assert not (out.parent / "scratch" / "drawings").exists()


def test_each_drawing_is_played_in_every_order_as_one_group(out: Path) -> None:
    told = fetched("order", out, **SKETCHES)
    groups: dict[str, set[str]] = {}
    for entry in told["videos"]:
        groups.setdefault(entry["group"], set()).add(entry["class"])
    assert set(map(frozenset, groups.values())) == {frozenset(ORDERS)}
    assert len(groups) == 6
    for key in groups:  # whatever the order, the frames are parts of the one drawing
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


def test_lines_that_are_no_drawings_are_counted(out: Path, tmp_path: Path) -> None:
    sound = {"word": "cat", "key_id": "1", "drawing": [[[0, 9], [3, 4], [0, 5]]]}
    broken: list[dict[str, Any]] = [
        {**sound, "drawing": []},
        {**sound, "drawing": [[[0, 9], [3]]]},
        {"word": "cat"},
    ]
    told = fetched(
        "animated_sketches", out, **drawings_in(tmp_path / "own", sound, "{", "", *broken, "7")
    )
    assert [entry["key"] for entry in told["videos"]] == ["1"]
    assert told["drawings"]["malformed"] == 5


def test_what_cannot_be_played_back_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.npz").write_bytes(b"")
    block = {
        "files": [str(tmp_path / "cat.npz")],
        "max_concurrency": 1,
        "timeout": 1.0,
        "retries": 1,
    }
    with pytest.raises(SourceError, match="sketchrnn gives npz, which cannot be played back"):
        fetched(
            "order", out, **{**SKETCHES, "drawings": {"source": "sketchrnn", "sketchrnn": block}}
        )
    with pytest.raises(ParamsError, match="did you mean 'doodles'"):
        fetched("order", out, **{**SKETCHES, "drawings": {"source": "doodle", "doodle": {}}})
    untimed = {"word": "cat", "key_id": "1", "drawing": [[[0, 9], [3, 4]]]}
    block = {**drawings_in(tmp_path / "own", untimed), "pace": "time"}
    with pytest.raises(SourceError, match="has no times; set `pace: ink`"):
        fetched("animated_sketches", out, **block)
    escaping = {**untimed, "key_id": "../../1"}
    with pytest.raises(Exception, match="not a plain file name"):
        fetched("animated_sketches", out, **drawings_in(tmp_path / "other", escaping))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Videos and numbered images as UCF101 and HMDB51 are laid out."""
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
    (root / "read.me").write_text("neither")
    return root


def test_a_folder_for_each_class_keeps_its_files(out: Path, own: Path) -> None:
    told = fetched("folder", out, path=str(own), test=None)
    expected = ["Run/v_Run_g01_c01.avi", "Run/v_Run_g01_c02.avi", "Swim/pool"]
    assert [entry["path"] for entry in told["videos"]] == [*expected, "Swim/v_Swim_g02_c01.AVI"]
    assert told["classes"] == ["Run", "Swim"]
    assert {entry["split"] for entry in told["videos"]} == {None}
    for path in own.rglob("*.[aApP]*"):
        if path.is_file():
            assert (out / path.relative_to(own)).read_bytes() == path.read_bytes()


def test_a_list_tells_the_test_videos(out: Path, own: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Run/v_Run_g01_c02.avi\nSwim/pool 2\n\n")
    told = fetched("folder", out, path=str(own), test=str(tmp_path / "list.txt"))
    assert [entry["split"] for entry in told["videos"]] == ["train", "test", "test", "train"]


@pytest.mark.parametrize(
    ("path", "test", "message"),
    [
        ("no/such", None, "no such folder"),
        (".", None, "holds no folders of videos"),
        ("own", "no/list.txt", "no such file"),
        ("own", "list.txt", "lists what .* does not hold: Run/gone.avi"),
    ],
)
def test_a_folder_that_is_not_as_told_is_an_error(
    out: Path, own: Path, tmp_path: Path, path: str, test: str | None, message: str
) -> None:
    (tmp_path / "list.txt").write_text("Run/gone.avi\n")
    (tmp_path / "no").mkdir()
    where = {".": tmp_path / "no"}.get(path, tmp_path / path)
    with pytest.raises(SourceError, match=message):
        fetched("folder", out, path=str(where), test=None if test is None else str(tmp_path / test))


def test_a_link_that_leads_out_of_the_folder_is_refused(out: Path, own: Path) -> None:
    (own / "Run" / "secret.avi").symlink_to(own.parent / "elsewhere.avi")
    (own.parent / "elsewhere.avi").write_bytes(b"secret")
    with pytest.raises(SourceError, match="leads out of"):
        fetched("folder", out, path=str(own), test=None)
    assert not list(out.rglob("secret*"))


@pytest.mark.parametrize("channels", [1, 3])
def test_videos_of_tensorflow_datasets_come_without_loss(
    out: Path, tmp_path: Path, channels: int
) -> None:
    import tensorflow_datasets as tfds

    shape = (5, 16, 24, channels)
    rng = np.random.default_rng(0)
    names = ("train",) if channels == 1 else ("train", "extra")  # one alone is no split
    stored = {name: rng.integers(256, size=(3, *shape), dtype=np.uint8) for name in names}
    features = {"clip_norm": tfds.features.Video(shape=(None, *shape[1:]))}
    if channels == 3:
        features["label"] = tfds.features.ClassLabel(names=["Run", "Swim"])
    splits = {
        name: iter([(i, {"clip_norm": clip, "label": i % 2}) for i, clip in enumerate(clips)])
        if channels == 3
        else iter([(i, {"clip_norm": clip}) for i, clip in enumerate(clips)])
        for name, clips in stored.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="little",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=tmp_path,
    )
    told = fetched("tfds", out, dataset="little", data_dir=str(tmp_path), per_class=2)
    label = "little" if channels == 1 else "Run"
    ending = "gif" if channels == 1 else "mkv"
    counts = Counter((entry["class"], entry["split"]) for entry in told["videos"])
    both = {("Run", None): 2, ("Run", "train"): 2, ("Swim", None): 1, ("Swim", "train"): 1}
    assert counts == ({("little", None): 2} if channels == 1 else both)
    whole = WHOLE._replace(height=16, colour="grey" if channels == 1 else "rgb")
    clip = read(out / label / f"train_000000.{ending}", whole, np.random.default_rng(0))[0]
    assert any(np.array_equal(clip.pixels, known) for known in stored["train"])


@pytest.mark.parametrize("dataset", ["ucf101", "moving_mnist"])
def test_known_video_sets_are_understood(out: Path, dataset: str) -> None:
    import tensorflow_datasets

    with (  # which knows the features, but no splits without a network
        tensorflow_datasets.testing.mock_data(),
        pytest.raises(SourceError, match=f"{dataset}: holds no videos"),
    ):
        fetched("tfds", out, dataset=dataset, data_dir=None, per_class=None)


def test_a_data_set_without_one_video_is_refused(out: Path) -> None:
    with pytest.raises(SourceError, match="expected one video and at most one label"):
        fetched("tfds", out, dataset="mnist", data_dir=None, per_class=None)
    with pytest.raises(SourceError, match="dataset: no_such"):
        fetched("tfds", out, dataset="no_such", data_dir=None, per_class=None)
