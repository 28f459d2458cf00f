"""Memory tasks: what is asked follows from what is read, and data sets repeat."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ostinato import store
from ostinato.errors import DataError, SourceError
from ostinato.memory import dataset, sources
from ostinato.memory.formats import digits, dynamics, tasks
from ostinato.memory.formats.examples import RawManifest
from ostinato.task import Profile

SETTINGS: dict[str, dict[str, Any]] = {
    "adding": {},
    "copy": {"bits": 3},
    "repeat_copy": {"bits": 3, "repeats": 4},
    "associative_recall": {"bits": 3, "item_length": 2},
    "temporal_order": {},
    "parity": {},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OSTINATO_FOLDERS", str(tmp_path))
    return tmp_path


def draw(name: str, length: int, delay: int, count: int = 30) -> Any:
    function = tasks.task(name)
    random = np.random.default_rng(1)
    return function(random, count, length=length, delay=delay, **SETTINGS[name])


def made(folder: Path, source: str, given: dict[str, Any], **changed: Any) -> dataset.Dataset:
    raw, prepared = folder / "raw", folder / "data"
    for each in (raw, prepared, folder / "scratch"):
        each.mkdir(exist_ok=True)
    getattr(sources, source)(raw, folder / "scratch", 7, **given)
    usual = {"validation": 0.2, "test": 0.3, "curriculum_epochs": 0, "lengths": [], "delays": []}
    dataset.prepare(raw, prepared, **{**usual, **changed})
    return dataset.load(prepared)


# Tasks


def test_the_answer_of_adding_is_the_sum_of_the_two_marked_numbers() -> None:
    found = draw("adding", 9, 4)
    assert found.x.shape == (30, 13, 2)
    assert (found.x[..., 1].sum(axis=1) == 2).all()
    np.testing.assert_allclose(found.y[:, 0], (found.x[..., 0] * found.x[..., 1]).sum(axis=1))
    assert not found.x[:, 9:].any()
    many = draw("adding", 9, 0, 20_000)
    assert np.var(many.y) == pytest.approx(1 / 6, rel=0.03)
    marked = many.x[..., 1].mean(axis=0)
    np.testing.assert_allclose(marked, 2 / 9, atol=0.02)


def test_copies_are_asked_for_after_the_delay() -> None:
    found = draw("copy", 5, 2)
    assert found.x.shape == (30, 5 + 1 + 2 + 5, 4)
    np.testing.assert_array_equal(found.y[:, 8:], found.x[:, :5, :3])
    assert found.weight is not None
    assert found.weight.sum(axis=1).tolist() == [5] * 30
    assert not found.x[:, 6:].any()
    assert (found.x[:, 5] == [0, 0, 0, 1]).all()


def test_repeated_copies_end_with_a_mark() -> None:
    found = draw("repeat_copy", 2, 0)
    assert found.weight is not None
    times = np.rint(4 * found.x[:, 2, 3]).astype(int)
    assert set(times) == {1, 2, 3, 4}
    for n, count in enumerate(times):
        answer = found.y[n, 3:]
        np.testing.assert_array_equal(
            answer[: 2 * count, :3], np.tile(found.x[n, :2, :3], (count, 1))
        )
        assert answer[:, 3].tolist() == [step == 2 * count for step in range(9)]
        assert found.weight[n].tolist() == [0] * 3 + [step <= 2 * count for step in range(9)]


def test_the_item_after_the_query_is_recalled() -> None:
    found = draw("associative_recall", 4, 1)
    x = found.x
    assert x.shape == (30, 4 * 3 + 4 + 1 + 2, 5)
    for n in range(30):
        items = [x[n, 3 * i + 1 : 3 * i + 3, :3] for i in range(4)]
        query, answer = x[n, 13:15, :3], found.y[n, -2:]
        assert any((items[i] == query).all() and (items[i + 1] == answer).all() for i in range(3))
    assert (x[:, [0, 3, 6, 9], 3] == 1).all()
    assert (x[:, [12, 15], 4] == 1).all()
    with pytest.raises(DataError, match="2 or more"):
        draw("associative_recall", 1, 0)


def test_the_order_of_two_symbols_is_the_class() -> None:
    found = draw("temporal_order", 40, 3)
    text = ["".join(tasks.SYMBOLS[i] for i in row.argmax(axis=1)[:40]) for row in found.x]
    order = ["".join(symbol for symbol in line if symbol in "XY") for line in text]
    assert order == [tasks.CLASSES["temporal_order"][label] for label in found.y]
    assert all(line[0] == "E" and line[-1] == "B" for line in text)
    assert all(4 <= min(line.find(s) % 99 for s in "XY") < 8 for line in text)


def test_parity_counts_ones() -> None:
    found = draw("parity", 8, 0)
    assert (found.x.sum(axis=(1, 2)) % 2 == found.y).all()
    with pytest.raises(DataError, match="parity"):
        tasks.task("paritty")


# Series and digits


def test_a_moving_average_follows_its_equation() -> None:
    u, y = dynamics.narma(300, order=10, seed=3)
    assert 0 <= u.min() < u.max() < 0.5
    for t in range(20, 300):
        past = [y[t - 1 - i] for i in range(10)]
        value = 0.3 * past[0] + 0.05 * past[0] * sum(past) + 1.5 * u[t - 9] * u[t] + 0.1
        assert y[t] == pytest.approx(value)
    assert np.isfinite(dynamics.narma(500, order=20, seed=3)[1]).all()


def test_series_follow_their_differential_equations() -> None:
    x = dynamics.mackey_glass(400, tau=17, substeps=100, seed=3)
    slope = (x[2:] - x[:-2]) / 2
    delayed = x[:-17]
    expected = 0.2 * delayed / (1 + delayed**10) - 0.1 * x[17:]
    np.testing.assert_allclose(slope[16:], expected[:-1], atol=0.004)
    states = dynamics.lorenz(500, dt=0.005, seed=3)
    x, y, z = states.T
    slopes = np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)
    np.testing.assert_allclose((states[2:] - states[:-2]) / 0.01, slopes[1:-1], atol=0.5)
    coarse = dynamics.lorenz(100, dt=0.02, seed=3)
    assert coarse.shape == (100, 3)
    assert 2 < np.abs(coarse[:, 0]).max() < 25


def test_digits_of_one_dimension_have_the_statistics_of_their_paper() -> None:
    x, labels = digits.mnist1d(500, seed=1)
    assert x.shape == (500, 40)
    assert np.bincount(labels).tolist() == [50] * 10
    assert not np.array_equal(labels[:50], np.sort(labels[:50]))
    again, _ = digits.mnist1d(500, seed=1)
    np.testing.assert_array_equal(x, again)
    templates = digits._templates()
    assert not templates[:, 0].any()
    np.testing.assert_allclose(templates[:, -1], 0, atol=1e-12)
    np.testing.assert_allclose(templates.std(axis=1), 1 / 6)


def test_the_authors_digits_are_read_and_other_files_are_refused(folder: Path) -> None:
    path = folder / "mnist1d.npz"
    random = np.random.default_rng(1)
    arrays = {
        "x": random.normal(size=(40, 40)),
        "y": np.arange(40) % 10,
        "x_test": random.normal(size=(10, 40)),
        "y_test": np.arange(10),
    }
    store.write_arrays(path, arrays)
    data = made(folder, "mnist1d_file", {"path": str(path), "shuffled": False})
    np.testing.assert_allclose(data.examples("test").x[..., 0], arrays["x_test"], rtol=1e-6)
    assert data.size("train") + data.size("validation") == 40
    for wrong in ({"y": np.arange(39)}, {"y": np.full(40, 12)}, {"x": np.full((40, 40), np.nan)}):
        store.write_arrays(path, {**arrays, **wrong})
        with pytest.raises(SourceError, match=r"mnist1d\.npz"):
            made(folder, "mnist1d_file", {"path": str(path), "shuffled": False})
    store.write_arrays(path, {"x": arrays["x"]})
    with pytest.raises(SourceError, match="x_test"):
        made(folder, "mnist1d_file", {"path": str(path), "shuffled": False})
    path.write_bytes(b"no archive")
    with pytest.raises(SourceError, match=r"expected an \.npz"):
        made(folder, "mnist1d_file", {"path": str(path), "shuffled": False})
    with pytest.raises(SourceError, match="no such file"):
        made(folder, "mnist1d_file", {"path": str(folder / "none.npz"), "shuffled": False})


# Data sets


def test_pixels_are_the_rows_one_after_another_and_one_permutation_changes_all(
    folder: Path,
) -> None:
    rows = made(folder, "digits", {"steps": "rows", "permuted": False, "delay": 0}).examples("test")
    data = made(folder, "digits", {"steps": "pixels", "permuted": False, "delay": 0})
    pixels = data.examples("test")
    assert rows.x.shape[1:] == (8, 8)
    assert 0 <= rows.x.min() < rows.x.max() <= 1
    np.testing.assert_array_equal(pixels.x.reshape(rows.x.shape), rows.x)
    mixed = made(folder, "digits", {"steps": "pixels", "permuted": True, "delay": 3}).examples(
        "test"
    )
    assert not mixed.x[:, 64:].any()
    assert mixed.x.shape[1] == 67
    assert not np.array_equal(mixed.x[:, :64], pixels.x)
    np.testing.assert_array_equal(np.sort(mixed.x[:, :64], axis=1), np.sort(pixels.x, axis=1))
    sizes = {split: data.size(split) for split in ("train", "validation", "test")}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == pytest.approx(0.3 * 1797, rel=0.1)
    profile = Profile.read(folder / "data" / "profile.json")
    assert sum(profile.counts["label"].values()) == profile.examples == sizes["train"]


def test_windows_of_a_series_follow_one_another_and_each_step_has_one_target(
    folder: Path,
) -> None:
    given = {"steps": 1000, "tau": 17, "horizon": 2, "window": 100, "washout": 20}
    data = made(folder, "mackey_glass", given)
    series = dynamics.mackey_glass(1002, tau=17, substeps=10, seed=7).astype(np.float32)
    splits = [data.examples(split) for split in ("train", "validation", "test")]
    x, y = (np.concatenate([getattr(s, name)[..., 0] for s in splits]) for name in "xy")
    weight = np.concatenate([s.weight for s in splits if s.weight is not None])
    for n in range(len(x)):
        np.testing.assert_array_equal(x[n], series[80 * n : 80 * n + 100])
        np.testing.assert_array_equal(y[n], series[80 * n + 2 : 80 * n + 102])
    assert weight.sum(axis=1).tolist() == [80] * len(x)
    assert [len(s) for s in splits] == [6, 2, 4]
    with pytest.raises(SourceError, match="three windows"):
        made(folder, "mackey_glass", {**given, "window": 900})
    with pytest.raises(SourceError, match="washout"):
        made(folder, "mackey_glass", {**given, "washout": 100})
    lorenz = {"steps": 400, "dt": 0.02, "horizon": 1, "window": 100, "washout": 20}
    assert made(folder, "lorenz", lorenz).outputs == 3
    assert (
        made(folder, "narma", {"steps": 400, "order": 10, "window": 100, "washout": 20}).outputs
        == 1
    )


COPY = {"length": 9, "min_length": 2, "delay": 1, "bits": 3, "examples_per_epoch": 50}


def all_batches(data: dataset.Dataset, split: str, **given: Any) -> list[Any]:
    return list(data.batches(split, **{"batch_size": 8, **given}).as_numpy_iterator())


def test_examples_of_a_task_without_end_are_drawn_from_seed_and_epoch(folder: Path) -> None:
    data = made(folder, "copy", COPY)
    one = all_batches(data, "train", seed=1, epoch=1)
    assert [len(x) for x, _, _ in one] == [8] * 6 + [2]
    assert len({x.shape[1] for x, _, _ in one}) > 1
    for x, y, weight in one:
        length = (x.shape[1] - 2) // 2
        np.testing.assert_array_equal(y[:, length + 2 :], x[:, :length, :3])
        assert weight.sum() == len(x) * length
    again = all_batches(data, "train", seed=1, epoch=1)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one, again, strict=True))
    other = all_batches(data, "train", seed=1, epoch=2)
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
    test = data.examples("test")
    assert test.x.shape == (15, 2 * 9 + 2, 4)
    stored = all_batches(data, "test", seed=None, epoch=0)
    np.testing.assert_array_equal(np.concatenate([x for x, _, _ in stored]), test.x)
    with pytest.raises(DataError, match="drawn for each epoch"):
        data.examples("train")
    with pytest.raises(DataError, match="no split"):
        data.size("tset")


def test_a_curriculum_begins_with_short_examples(folder: Path) -> None:
    data = made(
        folder, "copy", {**COPY, "length": 42, "examples_per_epoch": 400}, curriculum_epochs=4
    )

    def longest(epoch: int) -> Any:
        return max(
            (x.shape[1] - 2) // 2 for x, _, _ in all_batches(data, "train", seed=1, epoch=epoch)
        )

    assert [longest(epoch) <= 2 + 10 * epoch for epoch in (1, 2, 3, 4)] == [True] * 4
    assert longest(1) < longest(2) < longest(4) + 5
    assert longest(9) > 32


def test_settings_that_leave_nothing_to_learn_are_errors(folder: Path) -> None:
    with pytest.raises(SourceError, match="min_length"):
        made(folder, "copy", {**COPY, "min_length": 10})
    with pytest.raises(DataError, match="no example in the split test"):
        made(folder, "copy", COPY, test=0.001)
    digits = {"steps": "rows", "permuted": False, "delay": 0}
    with pytest.raises(DataError, match="lengths"):
        made(folder, "digits", digits, lengths=[9])
    series = {"steps": 1000, "tau": 17, "horizon": 1, "window": 100, "washout": 20}
    with pytest.raises(DataError, match="delays"):
        made(folder, "mackey_glass", series, delays=[9])


@pytest.mark.parametrize("name", SETTINGS)
def test_every_task_without_end_is_a_source(name: str, folder: Path) -> None:
    given = {"length": 12, "min_length": 10, "delay": 0, "examples_per_epoch": 20}
    data = made(folder, name, {**given, **SETTINGS[name]})
    manifest = RawManifest.read(folder / "raw" / "manifest.json")
    assert manifest.settings == SETTINGS[name]
    example = data.examples("test")
    assert example.x.shape[2] == data.features
    assert (data.per_step, data.target) == (example.weight is not None, tasks.TARGETS[name])
