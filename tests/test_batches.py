"""Batches that are read by position: each rank reads its examples, checked, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from ostinato import store
from ostinato.data import tfrecords
from ostinato.data.batches import OwnExamples, own, read_batches, select_part, transform
from ostinato.errors import DataError, StoreError
from ostinato.task import Part


@given(st.integers(1, 50), st.integers(1, 9))
def test_parts_follow_each_other_and_are_never_without_an_example(size: int, ranks: int) -> None:
    parts = [own(Part(rank, ranks), size) for rank in range(ranks)]
    ends = [size * (rank + 1) // ranks for rank in range(ranks)]
    for part, begin, end in zip(parts, [0, *ends], ends, strict=False):
        assert part == (slice(begin, end) if begin < end else slice(begin, begin + 1))
        assert 0 <= part.start < part.stop <= size


def content(number: int) -> bytes:
    return f"record {number} ".encode() * (1 + number % 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Records 0 to 299 in three files, one of which is empty."""
    folder = tmp_path_factory.mktemp("records")
    found = []
    for shard, numbers in enumerate((range(100), range(0), range(100, 300))):
        file = folder / f"toy-train.tfrecord-{shard:05d}-of-00003"
        records = [content(number) for number in numbers]
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records:
                writer.write(record)
        sizes = [len(record) for record in records]
        lengths = np.array([[size, 2 * size] for size in sizes], np.int64).reshape(-1, 2)
        tfrecords.write_index(file, sizes, lengths)
        assert tfrecords.sizes(file.read_bytes()) == sizes
        found.append(file)
    return found


def test_records_are_read_by_number(files: list[Path]) -> None:
    records = tfrecords.Records(files)
    assert len(records) == 300
    everything = list(tfrecords.read([str(file) for file in files]).as_numpy_iterator())
    assert records.read(np.arange(300)) == everything == [content(i) for i in range(300)]
    some = np.array([3, 4, 98, 99, 100, 250, 299])
    assert records.read(some) == [content(number) for number in some.tolist()]
    sizes = [len(content(number)) for number in some.tolist()]
    assert records.lengths(some).tolist() == [[size, 2 * size] for size in sizes]
    assert tfrecords.Records(files[::-1]).read(np.array([0])) == [content(100)]


@pytest.mark.parametrize("place", ["length", "content", "checksum"])
def test_a_damaged_record_is_an_error_that_names_it(
    place: str, files: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / files[0].name
    framed = bytearray(files[0].read_bytes())
    begin = sum(len(content(number)) + 16 for number in range(7))
    at = {"length": 1, "content": 20, "checksum": 12 + len(content(7))}[place]
    framed[begin + at] ^= 4
    file.write_bytes(framed)
    index = tfrecords.index_file(file)
    index.write_bytes(tfrecords.index_file(files[0]).read_bytes())
    records = tfrecords.Records([file])
    assert len(records.read(np.array([6, 8]))) == 2
    with pytest.raises(DataError, match=f"byte {begin}: the record is damaged"):
        records.read(np.array([6, 7]))
    with pytest.raises(tf.errors.DataLossError):
        list(tfrecords.read([str(file)]))
    file.write_bytes(framed[:-1])
    with pytest.raises(DataError, match="as its index says"):
        tfrecords.Records([file])
    index.unlink()
    with pytest.raises(DataError, match="no index of toy-train"):
        tfrecords.Records([file])


def test_a_short_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    assert store.read_spans(tmp_path / "short", np.array([0, 1, 3]), np.array([1, 2, 5])) == [
        b"1", b"2", b"45",
    ]  # fmt: skip
    with pytest.raises(StoreError, match="found 5 bytes; expected 6"):
        store.read_spans(tmp_path / "short", np.array([1, 3]), np.array([2, 6]))


def test_arrays_are_found_in_their_file(tmp_path: Path) -> None:
    arrays = {"one": np.arange(7, dtype=np.int16), "two": np.arange(9.0).reshape(3, 3)}
    store.write_arrays(tmp_path / "a.npz", arrays)
    stored = (tmp_path / "a.npz").read_bytes()
    for name, array in arrays.items():
        begin = store.array_begin(tmp_path / "a.npz", name)
        assert stored[begin : begin + array.nbytes] == array.tobytes()
    assert list(store.read_arrays(tmp_path / "a.npz", "two")) == ["two"]


def bytes_read() -> int:
    """The bytes that system calls of this process have read."""
    counters = Path("/proc/self/io").read_text().split()
    return int(counters[counters.index("rchar:") + 1])


def batches(files: list[Path], part: Part) -> tf.data.Dataset:
    """Random batches of ten records."""

    def windows() -> Iterator[Any]:
        order = np.random.default_rng(0).permutation(300).reshape(-1, 10)
        return (order[i : i + 4] for i in range(0, len(order), 4))

    def decode(mine: OwnExamples) -> Any:
        return mine.contents, mine.batch, mine.longest, mine.select(tf.range(mine.total))

    return read_batches(tfrecords.Records(files), windows, decode, part)


def test_all_ranks_know_the_whole_batch(files: list[Path]) -> None:
    whole = list(batches(files, Part()).as_numpy_iterator())
    order = np.random.default_rng(0).permutation(300).reshape(-1, 10)
    for number, (contents, batch, longest, rows) in enumerate(whole):
        assert contents.tolist() == [content(i) for i in order[number].tolist()]
        assert batch == number
        size = max(map(len, contents.tolist()))
        assert longest.tolist() == [size, 2 * size]
        assert rows.tolist() == list(range(10))
    for rank, rows_of_rank in enumerate(([0, 1, 2], [3, 4, 5], [6, 7, 8, 9])):
        found = list(batches(files, Part(rank, 3)).as_numpy_iterator())
        for ((contents, batch, longest, rows), total), one in zip(found, whole, strict=True):
            assert contents.tolist() == one[0][rows_of_rank].tolist()
            assert (batch, longest.tolist(), total) == (one[1], one[2].tolist(), 10)
            assert rows.tolist() == rows_of_rank


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts the reads of Linux")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_rank_reads_its_records_and_the_index(ranks: int, files: list[Path]) -> None:
    stored = sum(file.stat().st_size for file in files)
    index = sum(tfrecords.index_file(file).stat().st_size for file in files)
    batch = batches(files, Part(0, ranks))
    before = bytes_read()
    list(batch)
    assert stored / ranks * 0.8 < bytes_read() - before < stored / ranks * 1.2 + index + 4096


def test_batches_in_memory_are_cut_and_changed_like_those_on_disk() -> None:
    x, y = np.arange(14).reshape(7, 2), np.arange(7)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    vectors = tf.data.Dataset.from_tensor_slices(x).batch(5)
    part = Part(1, 2)
    for (own_x, own_y), total in select_part(pairs, part).take(1):
        np.testing.assert_array_equal(own_x, x[2:5])
        np.testing.assert_array_equal(own_y, y[2:5])
        assert total.numpy() == 5
    assert select_part(pairs, Part()) is pairs
    for found in (
        transform(select_part(pairs, part), lambda x, y: x + y[:, None], part),
        transform(select_part(vectors, part), lambda x: x + x[:, :1] // 2, part),
    ):
        sums, totals = zip(*found.as_numpy_iterator(), strict=True)
        np.testing.assert_array_equal(np.concatenate(sums), (x + y[:, None])[[2, 3, 4, 6]])
        assert totals == (5, 2)
