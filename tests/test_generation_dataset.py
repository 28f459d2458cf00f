"""Prepared drawings for generators: nothing leaks, nothing is cut, the judge is another's pupil."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ostinato import errors, store
from ostinato.data.batches import batch_indices
from ostinato.generation import dataset
from ostinato.generation.dataset import Dataset
from ostinato.generation.formats.drawings import (
    BOX,
    fitted,
    from_stroke5,
    prefix,
    strokes_of,
    to_stroke5,
)
from ostinato.task import Part

PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.15,
    "test": 0.15,
    "max_points": 30,
    "only_recognised": False,
    "workers": 1,
    "classifier_fraction": 0.5,
    "classifier_filters": [4, 4, 4],
    "classifier_units": 4,
    "classifier_dropout": 0.1,
    "classifier_epochs": 1,
    "classifier_batch_size": 32,
    "classifier_learning_rate": 0.01,
    "classifier_seed": 1,
}


def write_raw(folder: Path, classes: list[str], per_class: int) -> Path:
    """Drawings of Google's simplified form; every tenth has 40 points or more."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    files = []
    for name in classes:
        lines = []
        for number in range(per_class):
            size = int(rng.integers(40, 60) if number % 10 == 9 else rng.integers(4, 15))
            strokes = [rng.integers(0, 256, (2, size)).tolist() for _ in range(1)]
            key = f"{name}{number}"
            lines.append(orjson.dumps({"word": name, "key_id": key, "drawing": strokes}))
        path = folder / f"{name}.ndjson"
        path.write_bytes(b"\n".join(lines) + b"\n")
        files.append({"path": path.name, "category": name, "bytes": path.stat().st_size})
    manifest = {"source": "folder", "format": "ndjson", "form": "simplified", "files": files}
    store.write_json(folder / "manifest.json", manifest | {"categories": classes})
    return folder


def prepared(folder: Path, classes: list[str], per_class: int = 80, **changed: Any) -> Dataset:
    raw = write_raw(folder / "raw", classes, per_class)
    (folder / "data").mkdir()
    dataset.prepare(raw, folder / "data", **(PREPARE | changed))
    return dataset.load(folder / "data")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("generation"), ["cat", "fish"])


def test_long_drawings_are_left_out_and_counted_and_none_is_cut(data: Dataset) -> None:
    details = data.manifest.details
    assert details["too_long"] == 16
    kept = sum(data.size(split) for split in ("train", "validation", "test"))
    assert kept + details["classifier"]["drawings"] == 160 - 16
    longest = max(data.examples(split).lengths.max() for split in data.manifest.splits)
    assert longest < 15
    assert data.longest == data.examples("train").lengths.max()


def test_no_drawing_is_in_two_splits_and_the_classifier_has_its_own(data: Dataset) -> None:
    keys = [data.examples(split).keys.tolist() for split in ("train", "validation", "test")]
    everything = [key for split in keys for key in split]
    assert len(set(everything)) == len(everything)
    judging = data.manifest.details["classifier"]["drawings"]
    assert 0.3 < len(keys[0]) / (len(keys[0]) + judging) < 0.7


def test_a_drawing_stays_with_its_reader_when_the_data_grow(data: Dataset, tmp_path: Path) -> None:
    more = prepared(tmp_path, ["cat", "fish"], per_class=100)
    for split in ("train", "validation", "test"):
        assert set(data.examples(split).keys.tolist()) <= set(more.examples(split).keys.tolist())


def test_the_classifier_judges_a_drawing_alone_as_among_others(data: Dataset) -> None:
    assert data.classifier is not None
    drawings = data.examples("test")
    probabilities, features = data.classifier(drawings)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    for i in range(3):
        alone = data.classifier([drawings[i]])
        np.testing.assert_allclose(alone[0][0], probabilities[i], atol=1e-5)
        np.testing.assert_allclose(alone[1][0], features[i], atol=1e-4)


def test_the_same_parameters_prepare_the_same_bytes(data: Dataset, tmp_path: Path) -> None:
    again = prepared(tmp_path, ["cat", "fish"])
    names = {file.name for file in data.folder.iterdir()}
    assert {"classifier.keras", "manifest.json", "profile.json", "train.npz"} <= names
    assert names == {file.name for file in again.folder.iterdir()}
    for name in names:
        assert (again.folder / name).read_bytes() == (data.folder / name).read_bytes(), name


def test_one_class_needs_no_classifier(tmp_path: Path) -> None:
    data = prepared(tmp_path, ["cat"])
    assert data.classifier is None
    assert data.manifest.details["classifier"] == {}
    assert data.size("train") > 40


def test_too_few_points_allowed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        errors.DataError, match=r"no drawing is left in the split train.*max_points"
    ):
        prepared(tmp_path, ["cat", "fish"], max_points=2)


def test_each_epoch_has_each_drawing_once_in_batches_of_similar_lengths(data: Dataset) -> None:
    train = data.examples("train")
    found = list(data.batches("train", batch_size=8, seed=1, epoch=1).as_numpy_iterator())
    lengths = np.concatenate([(1 - rows[..., 4]).sum(axis=1) for rows, _ in found])
    assert sorted(lengths.tolist()) == sorted(train.lengths.tolist())
    by_length = batch_indices(train.lengths, 8, 1, 1)
    for (rows, labels), part in zip(found, by_length, strict=True):
        expected = to_stroke5([train[i] for i in part], data.scale)
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        np.testing.assert_array_equal(labels, train.labels[part])
    again = list(data.batches("train", batch_size=8, seed=1, epoch=1).as_numpy_iterator())
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(found, again, strict=True))
    spread = np.mean([np.ptp((1 - rows[..., 4]).sum(axis=1)) for rows, _ in found])
    assert spread < np.ptp(train.lengths) / 2


def test_ranks_change_their_drawings_as_one_rank_changes_all(data: Dataset) -> None:
    from ostinato.generation.dataset.augmentation import Augmented

    changed = Augmented(data, 0.2, 0.3)
    order: dict[str, Any] = {"batch_size": 9, "seed": 1, "epoch": 1}
    whole = list(changed.batches("train", **order).as_numpy_iterator())
    ranks = [changed.batches("train", **order, part=Part(r, 2)).as_numpy_iterator() for r in (0, 1)]
    for (rows, labels), *parts in zip(whole, *ranks, strict=True):
        counted = [own for own, _ in parts][-len(rows) :]  # the last rank has a single drawing
        np.testing.assert_array_equal(np.concatenate([own for own, _ in counted]), rows)
        np.testing.assert_array_equal(np.concatenate([own for _, own in counted]), labels)
        assert {int(total) for _, total in parts} == {len(labels)}


def test_a_rank_reads_its_drawings_only(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    read, spans = 0, store.read_spans

    def counted(path: Path, begins: np.ndarray, ends: np.ndarray) -> list[bytes]:
        nonlocal read
        read += int((ends - begins).sum())
        return spans(path, begins, ends)

    monkeypatch.setattr(store, "read_spans", counted)
    points = data.examples("train").points
    for ranks in (1, 3):
        read = 0
        part = Part(ranks - 1, ranks)
        list(data.batches("train", batch_size=9, seed=1, epoch=1, part=part))
        assert points.nbytes / ranks * 0.7 < read < points.nbytes / ranks * 1.3


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    lengths = np.arange(100)
    one, two, other = (batch_indices(lengths, 7, 1, epoch) for epoch in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    for found in (one, batch_indices(lengths, 7, None, 0)):
        assert sorted(np.concatenate(found).tolist()) == list(range(100))


def test_stroke_5_is_the_inverse_of_stroke_3(data: Dataset) -> None:
    drawings = list(data.examples("test"))
    for rows, back in zip(drawings, from_stroke5(to_stroke5(drawings, 3.0), 3.0), strict=True):
        np.testing.assert_allclose(back, rows, atol=1e-4)
    exact = to_stroke5(drawings, 3.0, length=max(map(len, drawings)))
    assert len(from_stroke5(exact, 3.0)[0]) == len(drawings[0])


def test_fitted_drawings_fill_the_box() -> None:
    rows = np.array([[50, 7, 0], [10, 0, 0], [0, -3, 1], [2, 2, 0]], np.int16)
    found = fitted(rows)
    points = np.cumsum(found[:, :2], axis=0)
    assert points.min() == 0
    assert points.max() == BOX
    np.testing.assert_array_equal(found[:, 2], [0, 0, 1, 1])
    np.testing.assert_array_equal(fitted(found), found)
    assert fitted(rows[:0]).shape == (0, 3)
    np.testing.assert_array_equal(fitted(rows[:1]), [[0, 0, 1]])


def test_strokes_and_prefixes() -> None:
    rows = np.array([[1, 2, 0], [3, 0, 1], [5, 5, 0], [1, 1, 1]], np.int16)
    assert strokes_of(rows) == [[[1, 4], [2, 2]], [[9, 10], [7, 8]]]
    np.testing.assert_array_equal(prefix(rows, 0.5), rows[:2])
    assert len(prefix(rows, 0.01)) == 1
