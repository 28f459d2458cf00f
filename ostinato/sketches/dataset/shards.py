"""Write drawings as the shards of a tensorflow-datasets (TFDS) data set.

A record is a ``tf.train.Example`` with ``strokes`` (or ``image``) as raw bytes, ``label`` and
``key_id``, framed as a TFRecord. Compiled code encodes all records of a shard at once, with their
checksums.

The stored order is that of a hash of each drawing and its class. It mixes the classes without
holding all drawings in memory, puts duplicates next to each other, and depends neither on the
order of the input nor on the number of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt8, UInt64

from ostinato import store
from ostinato.data.profile import SAMPLE
from ostinato.sketches.dataset.profile import features
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.formats.strokes import compiled

NAME = "sketches"  # of the data set: the prefix of its files
SPLITS = ("train", "validation", "test")
FEATURE_NAME: Mapping[Kind, str] = {"strokes": "strokes", "bitmap": "image"}
SIDE = 28  # height and width of a bitmap in pixels
ROW_BYTES = 6  # of a stroke-3 row of int16


class Records(NamedTuple):
    """Drawings to be stored, a row for each; the bytes of all drawings in one array."""

    content: UInt8[np.ndarray, " byte"]
    """Stroke-3 rows of int16, or pixels."""
    ends: Int64[np.ndarray, " record"]
    """The end of each record in ``content``."""
    keys: UInt8[np.ndarray, " key_byte"]
    """``key_id`` in UTF-8."""
    key_ends: Int64[np.ndarray, " record"]
    """The end of each key in ``keys``."""
    labels: Int64[np.ndarray, " record"]
    splits: Int64[np.ndarray, " record"]
    """Index into `SPLITS`."""
    digests: UInt64[np.ndarray, " record"]
    """Hash of class and content: the stored order."""


@dataclass(frozen=True)
class Shard:
    """Statistics of a part of the data set, in integers, so that sums over parts are exact.

    Args:
        counts: drawings by split and class.
        sizes: bytes of the examples by split.
        longest: most bytes of content of a drawing.
        content: bytes of content of all drawings.
        duplicates: drawings that were left out because an identical one was stored.
        moments: number, sum and sum of squares of the training offsets.
        sample: `features` of the first training drawings.
    """

    counts: Int64[np.ndarray, "split class"]
    sizes: Int64[np.ndarray, " split"]
    longest: int
    content: int
    duplicates: int
    moments: Int64[np.ndarray, "3"]
    sample: Float64[np.ndarray, "drawing feature"]


class Spill(NamedTuple):
    """Records in a temporary file, column after column, in the stored order."""

    path: Path
    lengths: list[int]
    """Of the columns."""
    classes: list[str]
    """The names that their labels index."""


def spill(records: Records, classes: list[str], path: Path) -> Spill:
    """Write records to a temporary file, for `write` to merge."""
    ordered = _take(records, np.argsort(records.digests, kind="stable"))
    with path.open("xb") as file:
        for column in ordered:
            file.write(column.data)
    return Spill(path, [len(column) for column in ordered], classes)


def write(
    folder: Path,
    spills: Sequence[Spill],
    classes: Sequence[str],
    kind: Kind,
    num_parts: int,
    part: int,
) -> Shard:
    """Write one of ``num_parts`` equal ranges of the stored order: a shard for each split.

    Args:
        folder: gets the files.
        spills: of all records. The first of identical drawings in this order is kept.
        classes: all classes, in the order of the labels.
        kind: of the drawings.
        num_parts: number of ranges.
        part: number of this range, from 0.
    """
    index = {name: label for label, name in enumerate(classes)}
    found = join([_read_range(spilled, index, part, num_parts) for spilled in spills])
    found = _take(found, np.argsort(found.digests, kind="stable"))
    first = _is_first(found.content, found.ends, found.labels, found.digests)
    counts = np.zeros((len(SPLITS), len(classes)), np.int64)
    np.add.at(counts, (found.splits[first], found.labels[first]), 1)
    sizes = np.zeros(len(SPLITS), np.int64)
    moments = np.zeros(3, np.int64)
    for number, split in enumerate(SPLITS):
        records = _take(found, np.flatnonzero(first & (found.splits == number)))
        framed = encode(records, FEATURE_NAME[kind])
        sizes[number] = len(framed) - FRAME_BYTES * len(records.ends)
        store.write_bytes(folder / shard_name(split, part, num_parts), framed.tobytes())
        if split == "train":
            ends = records.ends[:SAMPLE]
            sample = features(records.content[: ends.max(initial=0)], ends, kind)
        if split == "train" and kind == "strokes":
            offsets = records.content.view(np.int16).reshape(-1, 3)[:, :2].astype(np.int64)
            moments += [offsets.size, offsets.sum(), (offsets**2).sum()]
    lengths = np.diff(found.ends, prepend=0)[first]
    return Shard(
        counts=counts,
        sizes=sizes,
        longest=int(lengths.max(initial=0)),
        content=int(lengths.sum()),
        duplicates=len(first) - int(first.sum()),
        moments=moments,
        sample=sample,
    )


def write_metadata(
    folder: Path,
    kind: Kind,
    classes: Sequence[str],
    shards: Sequence[Shard],
    metadata: Mapping[str, Any],
) -> None:
    """Write the metadata with which TFDS reads the folder, and delete the files of empty splits.

    Args:
        folder: that `write` has filled.
        kind: of the drawings.
        classes: in the order of the labels.
        shards: in the order of their numbers.
        metadata: of the data set, as TFDS's own.
    """
    import tensorflow_datasets as tfds

    image = tfds.features.Tensor(shape=(SIDE, SIDE, 1), dtype=np.uint8, encoding="bytes")
    rows = tfds.features.Tensor(shape=(None, 3), dtype=np.int16, encoding="bytes")
    features = {
        FEATURE_NAME[kind]: rows if kind == "strokes" else image,
        "label": tfds.features.ClassLabel(names=classes),
        "key_id": tfds.features.Text(),
    }
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix="tfrecord"
    )
    splits = []
    for number, split in enumerate(SPLITS):
        lengths = [int(shard.counts[number].sum()) for shard in shards]
        if sum(lengths):
            size = sum(int(shard.sizes[number]) for shard in shards)
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=size,
                    filename_template=template.replace(split=split),
                )
            )
        else:
            for part in range(len(shards)):
                (folder / shard_name(split, part, len(shards))).unlink()
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        filename_template=template,
        check_data=False,
        description="Drawings as stroke-3 rows in a box of 256 pixels: offsets and pen lifts."
        if kind == "strokes"
        else "Bitmaps of drawings.",
        supervised_keys=(FEATURE_NAME[kind], "label"),
        metadata=tfds.core.MetadataDict(metadata),
    )


def shard_name(split: str, part: int, num_parts: int) -> str:
    """The name of a shard's file, in the form that TFDS requires."""
    return f"{NAME}-{split}.tfrecord-{part:05d}-of-{num_parts:05d}"


def join(parts: Sequence[Records]) -> Records:
    """The records of all parts, in order."""
    columns = dict(zip(Records._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    counts = [len(records.ends) for records in parts]
    for name, target in (("ends", "content"), ("key_ends", "keys")):
        sizes = [len(getattr(records, target)) for records in parts]
        columns[name] += np.repeat(np.cumsum([0, *sizes[:-1]]), counts)
    return Records(**columns)


def _read_range(spilled: Spill, index: Mapping[str, int], part: int, num_parts: int) -> Records:
    """The records of a spill whose digests are in a range; ``index`` gives the labels."""
    dtypes = (np.uint8, np.int64, np.uint8, np.int64, np.int64, np.int64, np.uint64)
    stored = np.memmap(spilled.path, np.uint8, "r")
    columns: list[Any] = []
    start = 0
    for dtype, length in zip(dtypes, spilled.lengths, strict=True):
        size = length * np.dtype(dtype).itemsize
        columns.append(np.frombuffer(stored[start : start + size], dtype))
        start += size
    records = Records(*columns)
    first, last = 0, len(records.ends)
    if part:
        first = int(np.searchsorted(records.digests, np.uint64((part << 64) // num_parts)))
    if part + 1 < num_parts:
        last = int(np.searchsorted(records.digests, np.uint64((part + 1 << 64) // num_parts)))
    labels = np.array([index[name] for name in spilled.classes], np.int64)
    records = _take(records, np.arange(first, last))
    return records._replace(labels=labels[records.labels])


def _take(records: Records, order: Integer[np.ndarray, " taken"]) -> Records:
    """The records with these indices, in this order."""
    content, ends = gather(records.content, _spans(records.ends)[order])
    keys, key_ends = gather(records.keys, _spans(records.key_ends)[order])
    return Records(
        content,
        ends,
        keys,
        key_ends,
        records.labels[order],
        records.splits[order],
        records.digests[order],
    )


def _spans(ends: Int64[np.ndarray, " record"]) -> Int64[np.ndarray, "record 2"]:
    return np.stack([ends - np.diff(ends, prepend=0), ends], axis=1)


@compiled
def gather(flat, spans):  # type: ignore[no-untyped-def]
    """The parts flat[begin:end] of all spans (span, 2), concatenated, and the end of each."""
    ends = np.empty(len(spans), np.int64)
    size = 0
    for i in range(len(spans)):
        size += spans[i, 1] - spans[i, 0]
        ends[i] = size
    joined = np.empty(size, flat.dtype)
    at = 0
    for i in range(len(spans)):
        for j in range(spans[i, 0], spans[i, 1]):
            joined[at] = flat[j]
            at += 1
    return joined, ends


@compiled
def digests(flat, ends, seeds):  # type: ignore[no-untyped-def]
    """A hash uint64 of each part flat[..., end] and its seed. It must never change.

    FNV-1a (Fowler, Noll and Vo 1991), then the finaliser of SplitMix64 (Steele, Lea and Flood
    2014), so that all bits are uniform.
    """
    hashes = np.empty(len(ends), np.uint64)
    begin = 0
    for i in range(len(ends)):
        h = np.uint64(0xCBF29CE484222325) ^ seeds[i]
        for j in range(begin, ends[i]):
            h = (h ^ np.uint64(flat[j])) * np.uint64(0x100000001B3)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes[i] = h ^ (h >> np.uint64(31))
        begin = ends[i]
    return hashes


@compiled
def _is_first(content, ends, labels, digests):  # type: ignore[no-untyped-def]
    """Whether each record, in order of digests, is the first of its class with its content."""
    first = np.ones(len(ends), np.bool_)
    for i in range(1, len(ends)):
        other = i - 1
        while other >= 0 and digests[other] == digests[i]:
            size = ends[i] - ends[i - 1]
            begin = ends[other - 1] if other else 0
            same = labels[other] == labels[i] and ends[other] - begin == size
            at = 0
            while same and at < size:
                same = content[begin + at] == content[ends[i - 1] + at]
                at += 1
            if same:
                first[i] = False
                break
            other -= 1
    return first


FRAME_BYTES = 16  # of a TFRecord besides its data: length, its checksum, the data's checksum


def _castagnoli() -> Int64[np.ndarray, "8 256"]:
    """Tables of CRC-32C for eight bytes at a time (Kounavis and Berry 2005)."""
    tables = np.empty((8, 256), np.int64)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = (tables[0] >> 1) ^ (tables[0] & 1) * 0x82F63B78
    for k in range(1, 8):
        tables[k] = tables[0][tables[k - 1] & 255] ^ (tables[k - 1] >> 8)
    return tables


CRC = _castagnoli()


def encode(records: Records, field: str) -> UInt8[np.ndarray, " byte"]:
    """The records as the bytes of a TFRecord file of ``tf.train.Example`` messages."""
    framed: UInt8[np.ndarray, " byte"] = _encoded(
        *records[:5], np.frombuffer(field.encode(), np.uint8)
    )
    return framed


# Field numbers of protocol buffers, typed: numba compiles again for each literal that it meets.
VALUE = KEY = FEATURE = FEATURES = BYTES = np.int64(1)
ENTRY_VALUE, INTEGERS = np.int64(2), np.int64(3)
NONE, WORD, LONG = np.int64(0), np.int64(4), np.int64(8)
LABEL, KEY_ID = np.frombuffer(b"label", np.uint8), np.frombuffer(b"key_id", np.uint8)


@compiled
def _encoded(content, ends, keys, key_ends, labels, field):  # type: ignore[no-untyped-def]
    """The TFRecord file of records; written backwards, so each length is known when needed."""
    out = np.empty(len(content) + len(keys) + (128 + len(field)) * len(ends), np.uint8)
    at = len(out)
    for i in range(len(ends) - 1, -1, -1):
        stop = at = at - 4
        at = _put(out, at, content, ends[i - 1] if i else 0, ends[i])
        at = _feature(out, at, stop, BYTES, field)
        end = at
        at = _varint(out, at, labels[i])
        at = _feature(out, at, end, INTEGERS, LABEL)
        end = at
        at = _put(out, at, keys, key_ends[i - 1] if i else 0, key_ends[i])
        at = _feature(out, at, end, BYTES, KEY_ID)
        at = _head(out, at, FEATURES, stop - at)
        _fixed(out, stop, _checksum(out, at, stop), WORD)
        _fixed(out, at - 12, stop - at, LONG)
        _fixed(out, at - 4, _checksum(out, at - 12, at - 4), WORD)
        at -= 12
    return out[at:].copy()


@compiled
def _feature(out, at, stop, kind, name):  # type: ignore[no-untyped-def]
    """Wrap out[at:stop] as an entry of the map Features.feature; return where the entry begins."""
    at = _head(out, at, VALUE, stop - at)  # of BytesList, or of Int64List, packed
    at = _head(out, at, kind, stop - at)  # Feature.bytes_list, or Feature.int64_list
    at = _head(out, at, ENTRY_VALUE, stop - at)
    at = _put(out, at, name, NONE, len(name))
    at = _head(out, at, KEY, len(name))
    return _head(out, at, FEATURE, stop - at)


@compiled
def _head(out, at, number, size):  # type: ignore[no-untyped-def]
    """Write the head of a protocol buffer's field of ``size`` bytes before ``at``."""
    at = _varint(out, at, size) - 1
    out[at] = number << 3 | 2
    return at


@compiled
def _varint(out, at, value):  # type: ignore[no-untyped-def]
    size, rest = 1, value >> 7
    while rest:
        size, rest = size + 1, rest >> 7
    for i in range(size):
        out[at - size + i] = (value >> (7 * i)) & 127 | (128 if i < size - 1 else 0)
    return at - size


@compiled
def _put(out, at, source, begin, end):  # type: ignore[no-untyped-def]
    for i in range(end - begin):
        out[at - (end - begin) + i] = source[begin + i]
    return at - (end - begin)


@compiled
def _fixed(out, at, value, size):  # type: ignore[no-untyped-def]
    for i in range(size):
        out[at + i] = (value >> (8 * i)) & 255


@compiled
def _checksum(out, begin, end):  # type: ignore[no-untyped-def]
    """TFRecord's masked CRC-32C."""
    crc = np.int64(0xFFFFFFFF)
    while end - begin >= 8:
        crc ^= (
            np.int64(out[begin])
            | np.int64(out[begin + 1]) << 8
            | np.int64(out[begin + 2]) << 16
            | np.int64(out[begin + 3]) << 24
        )
        crc = (
            CRC[7, crc & 255]
            ^ CRC[6, (crc >> 8) & 255]
            ^ CRC[5, (crc >> 16) & 255]
            ^ CRC[4, crc >> 24]
            ^ CRC[3, out[begin + 4]]
            ^ CRC[2, out[begin + 5]]
            ^ CRC[1, out[begin + 6]]
            ^ CRC[0, out[begin + 7]]
        )
        begin += 8
    for i in range(begin, end):
        crc = CRC[0, (crc ^ out[i]) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
