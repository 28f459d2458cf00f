"""Preparing and loading drawings: lossless, without leaks between splits, reproducible."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import errors, store
from ostinato.sketches import dataset
from ostinato.sketches.dataset import Bitmaps, Drawings, keys, loader, raw_files, shards
from ostinato.sketches.formats import records, strokes
from ostinato.task import Manifest

Lines = list[bytes]
CLASSES = ("cat", "fish", "sea turtle")
ROOT = Path(__file__).parents[1]


def drawn(word: str, index: int, **changed: Any) -> bytes:
    """An ndjson line whose drawing depends on word and index."""
    rng = np.random.default_rng([index, *word.encode()])
    ink = [
        rng.integers(0, 256, (2, rng.integers(2, 40))).tolist() for _ in range(rng.integers(1, 4))
    ]
    value = {"word": word, "recognized": index % 5 > 0, "key_id": f"{word}{index}", "drawing": ink}
    return orjson.dumps(value | changed)


def raw(
    folder: Path, files: dict[str, Lines], form: str = "simplified", words: bool = False
) -> Path:
    """A raw folder, as a source writes it."""
    folder.mkdir()
    entries = []
    for name, lines in files.items():
        path = folder / f"{name}.ndjson"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        size = path.stat().st_size
        entries.append({"path": path.name, "category": None if words else name, "bytes": size})
    manifest = {"source": "folder", "format": "ndjson", "form": form, "files": entries}
    store.write_json(
        folder / "manifest.json", manifest | {"categories": [] if words else list(files)}
    )
    return folder


ARGUMENTS: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.2,
    "test": 0.2,
    "max_points": 150,
    "only_recognised": False,
    "shard_size": 100,
    "workers": 2,
}


def prepared(source: Path, folder: Path, **changed: Any) -> Path:
    folder.mkdir()
    dataset.prepare(source, folder, **ARGUMENTS | changed)
    return folder


def manifest(folder: Path) -> Manifest:
    return Manifest.read(folder / "manifest.json")


def members(folder: Path) -> dict[str, set[str]]:
    """The keys of each split."""
    data = dataset.load(folder)
    return {split: set(data.examples(split).keys) for split in manifest(folder).splits}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {word: [drawn(word, i) for i in range(200)] for word in CLASSES}
    return raw(tmp_path_factory.mktemp("source") / "raw", files)


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    return prepared(source, source.parent / "data")


def raw_lines(source: Path) -> dict[str, dict[str, Any]]:
    lines = [line for file in source.glob("*.ndjson") for line in file.read_bytes().splitlines()]
    return {drawing["key_id"]: drawing for drawing in map(orjson.loads, lines)}


def test_preparing_simplified_drawings_is_lossless(source: Path, folder: Path) -> None:
    wanted = raw_lines(source)
    data = dataset.load(folder)
    seen = 0
    for split in shards.SPLITS:
        found = data.examples(split)
        assert isinstance(found, Drawings)
        for i, key in enumerate(found.keys):
            back = strokes.from_stroke3(found[i])
            assert [track.T.tolist() for track in back] == wanted[key]["drawing"]
            assert data.classes[found.labels[i]] == wanted[key]["word"]
        assert len(found) == data.size(split) == manifest(folder).size(split)
        seen += len(found)
    assert seen == len(wanted) == manifest(folder).details["drawings"]


def test_tensorflow_datasets_reads_the_data_set(folder: Path) -> None:
    builder = tfds.builder_from_directory(folder)
    data = dataset.load(folder)
    assert manifest(folder).details["shards"] > 1
    assert builder.info.features["label"].names == list(data.classes)
    assert builder.info.metadata["scale"] == data.scale
    for split in shards.SPLITS:
        info = builder.info.splits[split]
        assert info.num_examples == data.size(split)
        assert info.num_shards == manifest(folder).details["shards"]
        found = data.examples(split)
        read = {e["key_id"].decode(): e for e in tfds.as_numpy(builder.as_dataset(split))}
        assert len(read) == len(found)
        for i, key in enumerate(found.keys):
            np.testing.assert_array_equal(read[key]["strokes"], found[i])
            assert read[key]["label"] == found.labels[i]


def test_the_files_equal_those_that_tensorflow_writes(folder: Path, tmp_path: Path) -> None:
    ours = sorted(folder.glob("*.tfrecord-*"))[0]
    size = 0
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in tf.data.TFRecordDataset(str(ours)).as_numpy_iterator():
            message = tf.train.Example.FromString(record)
            writer.write(message.SerializeToString(deterministic=True))
            size += len(record)
    assert (tmp_path / "theirs").read_bytes() == ours.read_bytes()
    assert size > 1000


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_equal_input_gives_equal_bytes_for_any_number_of_workers(
    source: Path, folder: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The size of the chunks has no influence either.
    monkeypatch.setattr(raw_files, "CHUNK_BYTES", 1000 * workers)
    again = prepared(source, tmp_path / "again", workers=workers)
    assert bytes_of(again) == bytes_of(folder)


def files_of(scratch: Path) -> dict[str, int]:
    """When each finished part of a prepare was written."""
    found = [*scratch.glob("read/*.json"), *scratch.glob("shards/*.npz")]
    return {file.name: file.stat().st_mtime_ns for file in found}


def test_a_killed_prepare_continues_with_the_missing_shards(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "CHUNK_BYTES", 20_000)
    scratch, write = tmp_path / "scratch", shards.write

    def killed(*arguments: Any) -> None:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(shards, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "killed", scratch=scratch, workers=1)
    finished = files_of(scratch)
    monkeypatch.setattr(shards, "write", write)
    again = prepared(source, tmp_path / "again", scratch=scratch)
    assert bytes_of(again) == bytes_of(folder)
    assert len(finished) > 3
    assert "00001.npz" not in finished
    assert finished.items() < files_of(scratch).items()


def test_processes_share_the_shards_and_each_is_made_once(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_files, "CHUNK_BYTES", 5_000)
    write, read = shards.write, raw_files._read_lines
    made: Counter[Any] = Counter()

    def counted(*arguments: Any) -> None:
        made[arguments[-1]] += 1
        write(*arguments)

    def counted_read(*arguments: Any) -> Any:
        made[arguments[-2:]] += 1
        return read(*arguments)

    monkeypatch.setattr(shards, "write", counted)
    monkeypatch.setattr(raw_files, "_read_lines", counted_read)
    scratch = tmp_path / "scratch"
    (scratch / "read").mkdir(parents=True)
    (scratch / "shards").mkdir()
    with ThreadPoolExecutor(2) as pool:
        # Locks of files exclude threads as they exclude processes: each has a lock of its own.
        helper = pool.submit(dataset.prepare, source, None, scratch, **ARGUMENTS)
        data = pool.submit(prepared, source, tmp_path / "data", scratch=scratch).result()
        helper.result()
    assert bytes_of(data) == bytes_of(folder)
    assert len(made) > 20
    assert set(made.values()) == {1}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 40).map(lambda n: n << 58 | n), max_size=9), min_size=1, max_size=5
    ),
    st.integers(1, 9),
)
def test_repeated_keys_are_found_in_ranges(files: list[list[int]], size: int) -> None:
    with (
        store.private_folder() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(keys, "RANGE", size)
        paths = [folder / str(number) for number in range(len(files))]
        for path, hashes in zip(paths, files, strict=True):
            keys.write(path, np.array(hashes, np.uint64))
        counted = Counter(hash for hashes in files for hash in hashes)
        found = keys.repeated(paths, counted.total())
    assert found.tolist() == sorted(hash for hash, count in counted.items() if count > 1)


def test_the_scale_is_the_standard_deviation_of_the_training_offsets(folder: Path) -> None:
    data = dataset.load(folder)
    found = data.examples("train")
    assert isinstance(found, Drawings)
    assert data.scale == pytest.approx(found.points[:, :2].std(dtype=np.float64), rel=1e-12)


@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=50, unique=True),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
)
def test_a_drawing_changes_its_split_only_if_the_fractions_change(
    keys: list[str], validation: float, test: float, more: float
) -> None:
    def splits(keys: list[str], validation: float, test: float) -> dict[str, int]:
        flat, ends = raw_files.concatenate([key.encode() for key in keys])
        shares = {"validation": validation, "test": test}
        return dict(zip(keys, dataset.split_of(flat, ends, shares).tolist(), strict=True))

    before = splits(keys, validation, test)
    assert splits([*keys[::-1], "new"], validation, test).items() >= before.items()
    after = splits(keys, validation + more, test)
    assert all(before[key] == after[key] or (before[key], after[key]) == (0, 1) for key in keys)


def test_splits_have_their_fractions() -> None:
    keys, ends = raw_files.concatenate([str(i).encode() for i in range(20_000)])
    found = np.bincount(dataset.split_of(keys, ends, {"validation": 0.1, "test": 0.3})) / 20_000
    np.testing.assert_allclose(found, [0.6, 0.1, 0.3], atol=0.01)


def test_drawings_keep_their_split_when_the_data_grow(source: Path, tmp_path: Path) -> None:
    few = {word: [drawn(word, i) for i in range(0, 200, 3)] for word in CLASSES[:2]}
    small = members(prepared(raw(tmp_path / "raw", few), tmp_path / "data"))
    large = members(prepared(source, tmp_path / "large", shard_size=30))
    for split in shards.SPLITS:
        assert len(small[split]) > 0
        assert small[split] <= large[split]


def test_duplicates_within_a_class_are_removed(tmp_path: Path) -> None:
    lines = [drawn("cat", i) for i in range(50)]
    again = [
        orjson.dumps(orjson.loads(line) | {"key_id": f"again{i}"}) for i, line in enumerate(lines)
    ]
    same = [drawn("cat", 3, key_id=f"third{i}") for i in range(40)]
    other = [drawn("cat", i, key_id=f"fish{i}") for i in range(50)]  # under another name
    files = {"cat": lines + again + same, "fish": other}
    folder = prepared(raw(tmp_path / "raw", files), tmp_path / "data")
    splits = members(folder)
    assert sum(map(len, splits.values())) == 100
    assert set().union(*splits.values()) == {f"cat{i}" for i in range(50)} | {
        f"fish{i}" for i in range(50)
    }
    assert manifest(folder).details["duplicates"] == 90


def test_excluded_drawings_are_counted_and_malformed_lines_recorded(tmp_path: Path) -> None:
    fish = [drawn("fish", i) for i in range(60)]
    lines = [drawn("cat", i) for i in range(60)]
    lines[10:10] = [b'{"word":"cat"', b"", drawn("cat", 0, key_id="dot", drawing=[[[7], [7]]])]
    lines += [drawn("cat", 1, drawing=[[[1, 900], [1, 2]]]), drawn("cat", 2, drawing=[])]
    lines += [b"\xff" * 500, drawn("cat", 61, drawing=[[list(range(200)), list(range(200))]])]
    source = raw(tmp_path / "raw", {"cat": lines, "fish": fish})
    folder = prepared(source, tmp_path / "data", tolerated_rejects=0.1, only_recognised=True)
    rejects = [orjson.loads(line) for line in (folder / "rejects.ndjson").read_bytes().splitlines()]
    assert [(r["file"], r["line"]) for r in rejects] == [
        ("cat.ndjson", 11), ("cat.ndjson", 64), ("cat.ndjson", 66),
    ]  # fmt: skip
    for reject in rejects:
        text = lines[reject["line"] - 1]
        assert reject["text"] == text[:200].decode(errors="replace")
    assert "not JSON" in rejects[0]["reason"]
    assert "0 to 255" in rejects[1]["reason"]
    found = manifest(folder).details
    counted = {key: found[key] for key in raw_files.COUNTS}
    assert counted == {
        "lines": 126, "malformed": 3, "without_ink": 2, "unrecognised": 24, "cut": 1, "kept": 97,
    }  # fmt: skip
    assert found["drawings"] == 97
    assert found["longest"] == 150
    totals = Counter[str]()
    for counts in found["files"].values():
        totals.update(counts)
    assert dict(totals) == counted


def test_a_long_drawing_is_cut_and_ends_with_a_pen_lift(tmp_path: Path) -> None:
    line = drawn("cat", 0, drawing=[[list(range(200)), [0] * 200]])
    source = raw(tmp_path / "raw", {"cat": [line]})
    folder = prepared(source, tmp_path / "data", validation=0.0, test=0.0, max_points=7)
    found = dataset.load(folder).examples("train")
    assert found[0].tolist() == [[0, 0, 0]] + [[1, 0, 0]] * 5 + [[1, 0, 1]]
    assert manifest(folder).details["cut"] == 1


def test_too_many_malformed_lines_are_an_error_naming_the_worst_file(tmp_path: Path) -> None:
    cat = [drawn("cat", i) for i in range(99)] + [b"{}"]
    fish = [drawn("fish", i) for i in range(8)] + [b"oh", b"no"]
    source = raw(tmp_path / "raw", {"cat": cat, "fish": fish})
    with pytest.raises(errors.DataError) as error:
        prepared(source, tmp_path / "data", tolerated_rejects=0.02)
    assert "3 of 110 lines" in str(error.value)
    assert "20.0% of fish.ndjson" in str(error.value)
    assert "fish.ndjson:9: not JSON" in str(error.value)
    assert not (tmp_path / "data" / "dataset_info.json").exists()
    prepared(source, tmp_path / "more", tolerated_rejects=0.03)


def test_a_category_without_drawings_and_an_empty_split_are_errors(tmp_path: Path) -> None:
    source = raw(
        tmp_path / "raw", {"cat": [drawn("cat", 1)], "fish": [drawn("fish", 1, drawing=[])]}
    )
    with pytest.raises(errors.DataError, match="no drawing is left of 'fish'"):
        prepared(source, tmp_path / "data")
    source = raw(tmp_path / "one", {"cat": [drawn("cat", 1)]})
    with pytest.raises(errors.DataError, match="no drawing falls into"):
        prepared(source, tmp_path / "other")
    with pytest.raises(errors.DataError, match="leave nothing to train on"):
        prepared(source, tmp_path / "third", validation=0.5, test=0.5)


def test_the_word_is_the_class_if_files_have_no_category(tmp_path: Path) -> None:
    lines = [drawn(word, i) for i in range(40) for word in ("zebra", "ant", "sea turtle", "café")]
    source = raw(tmp_path / "raw", {"mixed": lines, "more": [drawn("bee", i) for i in range(40)]},
                 words=True)  # fmt: skip
    folder = prepared(source, tmp_path / "data")
    data = dataset.load(folder)
    assert data.classes == ("ant", "bee", "café", "sea turtle", "zebra")
    found = data.examples("train")
    for label, key in zip(found.labels, found.keys, strict=True):
        assert key.startswith(data.classes[label])
    nameless = raw(tmp_path / "nameless", {"a": [b'{"key_id":"1","drawing":[[[1,2],[1,2]]]}']},
                   words=True)  # fmt: skip
    with pytest.raises(errors.DataError, match="no field 'word'"):
        prepared(nameless, tmp_path / "none")


def test_raw_drawings_are_simplified(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tracks = [[(rng.random((2, 30)) * 700).round(3).tolist() for _ in range(2)] for _ in range(30)]
    lines = [
        drawn("cat", i, drawing=[[x, y, list(range(30))] for x, y in pair])
        for i, pair in enumerate(tracks)
    ]
    source = raw(tmp_path / "raw", {"cat": lines}, form="raw")
    folder = prepared(source, tmp_path / "data", validation=0.0, test=0.0, max_points=10_000)
    found = dataset.load(folder).examples("train")
    for i, key in enumerate(found.keys):
        pair = [np.array(track).T for track in tracks[int(key.removeprefix("cat"))]]
        simple = strokes.simplify(pair)
        np.testing.assert_array_equal(found[i], strokes.to_stroke3(simple))


def test_sketchrnn_keeps_its_splits_and_is_scaled_to_the_box(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def drawings(count: int) -> np.ndarray:
        found = np.empty(count, object)
        for i in range(count):
            rows = rng.integers(-90, 90, (rng.integers(2, 9), 3)).astype(np.int16)
            rows[:, 2] = rng.random(len(rows)) < 0.3
            found[i] = rows
        return found

    (tmp_path / "raw").mkdir()
    parts = {"train": drawings(9), "valid": drawings(3), "test": drawings(2)}
    parts["train"][4] = np.zeros((3, 3), np.int16)  # no ink
    np.savez(tmp_path / "raw" / "cat.npz", **parts)  # type: ignore[arg-type]
    file = {"path": "cat.npz", "category": "cat", "bytes": 1}
    about = {"source": "sketchrnn", "format": "npz", "form": None, "categories": ["cat"]}
    store.write_json(tmp_path / "raw" / "manifest.json", about | {"files": [file]})
    folder = prepared(tmp_path / "raw", tmp_path / "data")
    data = dataset.load(folder)
    assert manifest(folder).details["without_ink"] == 1
    for split, theirs in zip(shards.SPLITS, ("train", "valid", "test"), strict=True):
        found = data.examples(split)
        assert set(found.keys) == {
            f"cat/{theirs}/{i}" for i in range(len(parts[theirs])) if parts[theirs][i].any()
        }
        for i, key in enumerate(found.keys):
            rows = parts[theirs][int(key.rpartition("/")[2])]
            assert len(found[i]) == len(rows)
            points = np.concatenate(strokes.from_stroke3(found[i]))
            assert points.min() == 0
            assert points.max() == 255
            expected = np.cumsum(rows[:, :2], axis=0, dtype=float)
            expected = (expected - expected.min(axis=0)) * 255 / np.ptp(expected, axis=0).max()
            assert np.abs(points - expected).max() <= 0.5
            np.testing.assert_array_equal(found[i][:-1, 2], rows[:-1, 2])


def collected(folder: Path, split: str, **changed: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    arguments: dict[str, Any] = {"batch_size": 16, "seed": 1, "epoch": 0}
    batches = dataset.load(folder).batches(split, **arguments | changed)
    return [(x, y) for x, y in batches.as_numpy_iterator()]


@pytest.mark.parametrize("window", [64, 1 << 15])
@pytest.mark.parametrize("seed", [None, 7])
def test_an_epoch_has_each_drawing_once_in_full_batches_but_one(
    folder: Path, window: int, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "WINDOW", window)
    data = dataset.load(folder)
    found = data.examples("train")
    assert isinstance(found, Drawings)
    each = zip(found, found.labels.tolist(), strict=True)
    wanted = Counter((data.inputs([rows]).tobytes(), label) for rows, label in each)
    seen = Counter[tuple[bytes, int]]()
    sizes = []
    for x, y in collected(folder, "train", seed=seed, epoch=3):
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        real = x.any(axis=2)
        assert (real == (x[:, :, 2] != 0)).all(), "the pen channel of a point is 1 or -1"
        lengths = real.sum(axis=1)
        assert (real == (np.arange(x.shape[1]) < lengths[:, None])).all(), "padding is on the right"
        assert lengths.max() == x.shape[1], "a batch is as long as its longest drawing"
        seen.update((x[i, :n].tobytes(), int(y[i])) for i, n in enumerate(lengths))
        sizes.append(len(y))
    assert seen == wanted
    assert sorted(sizes)[1:] == [16] * (len(sizes) - 1)


def test_batches_are_a_function_of_seed_and_epoch(folder: Path) -> None:
    def bits(**changed: Any) -> list[tuple[bytes, bytes]]:
        return [(x.tobytes(), y.tobytes()) for x, y in collected(folder, "train", **changed)]

    first = bits()
    assert bits() == first
    for other in (bits(epoch=1), bits(seed=2), bits(seed=None)):
        assert sorted(other) != sorted(first), "different batches"
    assert bits(seed=None, epoch=1) == bits(seed=None)


def test_batches_contain_little_padding(folder: Path) -> None:
    batches = collected(folder, "train")
    real = sum(int((x[:, :, 2] != 0).sum()) for x, _ in batches)
    assert real / sum(x.shape[0] * x.shape[1] for x, _ in batches) > 0.8


def test_inputs_are_scaled_and_padded(folder: Path) -> None:
    data = dataset.load(folder)
    found = data.examples("validation", 5)
    assert isinstance(found, Drawings)
    x = data.inputs(list(found))
    assert x.shape == (5, max(map(len, found)), 3)
    rows = x[2, : len(found[2])]
    np.testing.assert_array_equal(np.rint(rows[:, :2] * data.scale), found[2][:, :2])
    np.testing.assert_array_equal(rows[:, 2], np.where(found[2][:, 2], 1, -1))
    assert not x[2, len(found[2]) :].any()


def test_preparing_bitmaps_is_lossless(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), np.uint8)
    images[7] = 0  # no ink
    images[9] = images[8]
    labels = [i % 2 for i in range(60)]
    labels[9] = labels[8]
    stored = tfds.dataset_builders.store_as_tfds_dataset(
        name="bitmaps",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(names=["ant", "bee"]),
                "key_id": tfds.features.Text(),
            }
        ),
        split_datasets={
            "train": (
                (str(i), {"image": images[i], "label": labels[i], "key_id": str(i)})
                for i in range(60)
            )
        },
        data_dir=tmp_path / "raw",
    )
    location = Path(stored.data_dir).relative_to(tmp_path / "raw").as_posix()
    about = {"source": "tfds", "format": "tfds", "form": None, "categories": ["ant", "bee"]}
    store.write_json(tmp_path / "raw" / "manifest.json", about | {"files": [], "dataset": location})
    folder = prepared(tmp_path / "raw", tmp_path / "data")
    data = dataset.load(folder)
    assert data.kind == "bitmap"
    assert data.scale == 1
    details = manifest(folder).details
    assert details["without_ink"] == details["duplicates"] == 1
    keys = members(folder)
    assert set().union(*keys.values()) >= {str(i) for i in range(60)} - {"7", "8", "9"}
    assert sum(map(len, keys.values())) == 58
    found = data.examples("train")
    assert isinstance(found, Bitmaps)
    for i, key in enumerate(found.keys):
        np.testing.assert_array_equal(found[i], images[int(key)])
        assert found.labels[i] == labels[int(key)]
    (x, y), *_ = collected(folder, "train", seed=None, batch_size=100)
    np.testing.assert_array_equal(x, found.pixels / np.float32(255))
    np.testing.assert_array_equal(y, found.labels)
    info = tfds.builder_from_directory(folder)
    read = {e["key_id"].decode(): e["image"] for e in tfds.as_numpy(info.as_dataset("train"))}
    assert all((read[key] == images[int(key)]).all() for key in found.keys)


def test_an_unknown_split_is_an_error_with_near_misses(folder: Path) -> None:
    with pytest.raises(errors.DataError, match="did you mean 'train'"):
        dataset.load(folder).size("training")


def test_a_split_whose_fraction_is_0_is_an_error_that_says_so(tmp_path: Path) -> None:
    source = raw(tmp_path / "raw", {"cat": [drawn("cat", i) for i in range(9)]})
    data = dataset.load(prepared(source, tmp_path / "data", validation=0.0, test=0.0))
    for split in ("validation", "test"):
        with pytest.raises(errors.DataError, match=f"{split} split is empty; raise `{split}`"):
            data.size(split)


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.DataError, match="no such file"):
        dataset.load(tmp_path)


def test_a_killed_prepare_leaves_no_manifest(tmp_path: Path) -> None:
    files = {word: [drawn(word, i) for i in range(3000)] for word in CLASSES}
    source = raw(tmp_path / "raw", files)
    (tmp_path / "data").mkdir()
    code = (
        "import sys; from pathlib import Path; from ostinato.sketches import dataset;"
        "dataset.prepare(Path(sys.argv[1]), Path(sys.argv[2]), tolerated_rejects=0.0,"
        "validation=0.2, test=0.2, max_points=100, only_recognised=False, shard_size=1, workers=1)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(tmp_path / "data")], cwd=ROOT
    )
    while not list((tmp_path / "data").rglob("*.tfrecord-*")):
        assert child.poll() is None
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "data" / "dataset_info.json").exists()
    with pytest.raises(errors.DataError, match="no such file"):
        dataset.load(tmp_path / "data")


def test_the_hash_equals_its_reference_implementation() -> None:
    flat, ends = raw_files.concatenate([b"", b"a", b"5201136883597312"])
    found = records.digests(flat, ends, np.zeros(3, np.uint64))

    def slow(text: bytes) -> int:
        h = 0xCBF29CE484222325
        for byte in text:
            h = (h ^ byte) * 0x100000001B3 % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            h = (h ^ (h >> shift)) * factor % 2**64
        return h ^ (h >> 31)

    assert found.tolist() == [slow(b""), slow(b"a"), slow(b"5201136883597312")]
