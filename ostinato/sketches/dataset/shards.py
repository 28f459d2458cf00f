"""Drawings as a tensorflow-datasets data set: written in shards, read into batches.

A record is a ``tf.train.Example`` with ``strokes`` (or ``image``) as raw bytes, ``label`` and
``key_id``, framed as a TFRecord. Compiled code encodes many at once, with their checksums.

The stored order is that of a hash of each drawing and its class. It mixes the classes without
holding them all in memory, brings duplicates side by side, and depends neither on the order of
the input nor on how many threads worked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato import store
from ostinato.sketches.dataset.profiles import SAMPLE, features
from ostinato.sketches.dataset.strokes import compiled

if TYPE_CHECKING:
    pass

NAME = "sketches"  # of the data set: its files begin with it
SPLITS = ("train", "validation", "test")
FIELD = {"strokes": "strokes", "bitmap": "image"}  # by kind: the feature with the content
SIDE = 28  # of a bitmap, in pixels
ROW = 6  # bytes of a stroke-3 row of int16
WINDOW = 32_768  # drawings that are shuffled and sorted by length together, about 12 MB


class Records(NamedTuple):
    """Drawings to be stored, a row each; the bytes of all in one array."""

    content: NDArray[np.uint8]  # (byte,): stroke-3 rows of int16, or pixels
    ends: NDArray[np.int64]  # (record,): where each ends in `content`
    keys: NDArray[np.uint8]  # (byte,): key_id in UTF-8
    key_ends: NDArray[np.int64]  # (record,): where each ends in `keys`
    labels: NDArray[np.int64]  # (record,)
    splits: NDArray[np.int64]  # (record,): index into SPLITS
    digests: NDArray[np.uint64]  # (record,): hash of class and content, the stored order


class Shard(NamedTuple):
    """What a part of the data set holds, in whole numbers: the parts add up exactly."""

    counts: NDArray[np.int64]  # (split, class): drawings
    sizes: NDArray[np.int64]  # (split,): bytes of the examples
    longest: int  # bytes of content
    content: int  # bytes of content of all drawings
    duplicates: int
    moments: NDArray[np.int64]  # (3,): number, sum, sum of squares of the training offsets
    sample: NDArray[np.float64]  # (drawing, feature): of the first training drawings


class Spill(NamedTuple):
    """Records put aside in a file, column after column, in the stored order."""

    path: Path
    lengths: list[int]  # of the columns
    classes: list[str]  # that their labels point into


def spill(records: Records, classes: list[str], path: Path) -> Spill:
    """Put records aside for `write` to merge."""
    ordered = _taken(records, np.argsort(records.digests, kind="stable"))
    with path.open("xb") as file:
        for column in ordered:
            file.write(column.data)
    return Spill(path, [len(column) for column in ordered], classes)


def write(
    folder: Path, spills: Sequence[Spill], classes: Sequence[str], kind: str, of: int, part: int
) -> Shard:
    """Write one of ``of`` equal ranges of the stored order: a shard for each split.

    Args:
        folder: gets the files.
        spills: what `spill` put aside. Of duplicates the first in this order stays.
        classes: all, in the order of the labels to be written.
        kind: "strokes" or "bitmap".
        of: how many ranges there are.
        part: which of them, from 0.
    """
    index = {name: label for label, name in enumerate(classes)}
    found = joined([_range(spilled, index, part, of) for spilled in spills])
    found = _taken(found, np.argsort(found.digests, kind="stable"))
    fresh = _fresh(found.content, found.ends, found.labels, found.digests)
    counts = np.zeros((len(SPLITS), len(classes)), np.int64)
    np.add.at(counts, (found.splits[fresh], found.labels[fresh]), 1)
    sizes = np.zeros(len(SPLITS), np.int64)
    moments = np.zeros(3, np.int64)
    for number, split in enumerate(SPLITS):
        records = _taken(found, np.flatnonzero(fresh & (found.splits == number)))
        framed = encode(records, FIELD[kind])
        sizes[number] = len(framed) - FRAME * len(records.ends)
        store.write_bytes(folder / shard_name(split, part, of), framed.tobytes())
        if split == "train":
            few = records.ends[:SAMPLE]
            sample = features(records.content[: few.max(initial=0)], few, kind)
        if split == "train" and kind == "strokes":
            offsets = records.content.view(np.int16).reshape(-1, 3)[:, :2].astype(np.int64)
            moments += [offsets.size, offsets.sum(), (offsets**2).sum()]
    lengths = np.diff(found.ends, prepend=0)[fresh]
    duplicates = len(fresh) - int(fresh.sum())
    longest = int(lengths.max(initial=0))
    return Shard(counts, sizes, longest, int(lengths.sum()), duplicates, moments, sample)


def describe(
    folder: Path, kind: str, classes: Sequence[str], shards: Sequence[Shard], about: dict[str, Any]
) -> None:
    """Write the metadata by which tensorflow-datasets reads the folder; it is whole then."""
    import tensorflow_datasets as tfds

    image = tfds.features.Tensor(shape=(SIDE, SIDE, 1), dtype=np.uint8, encoding="bytes")
    rows = tfds.features.Tensor(shape=(None, 3), dtype=np.int16, encoding="bytes")
    features = {
        FIELD[kind]: rows if kind == "strokes" else image,
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
        supervised_keys=(FIELD[kind], "label"),
        metadata=tfds.core.MetadataDict(about),
    )


def shard_name(split: str, part: int, of: int) -> str:
    """The name of a shard's file, as tensorflow-datasets wants it."""
    return f"{NAME}-{split}.tfrecord-{part:05d}-of-{of:05d}"


def joined(parts: Sequence[Records]) -> Records:
    """The records of all parts, one after the other."""
    columns = dict(zip(Records._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    counts = [len(records.ends) for records in parts]
    for name, target in (("ends", "content"), ("key_ends", "keys")):
        sizes = [len(getattr(records, target)) for records in parts]
        columns[name] += np.repeat(np.cumsum([0, *sizes[:-1]]), counts)
    return Records(**columns)


def _range(spilled: Spill, index: dict[str, int], part: int, of: int) -> Records:
    """The records whose digests lie in a range, labelled by the index."""
    kinds = (np.uint8, np.int64, np.uint8, np.int64, np.int64, np.int64, np.uint64)
    stored = np.memmap(spilled.path, np.uint8, "r")
    columns, at = [], 0
    for kind, length in zip(kinds, spilled.lengths, strict=True):
        size = length * np.dtype(kind).itemsize
        columns.append(np.frombuffer(stored[at : at + size], kind))
        at += size
    records = Records(*columns)
    first, last = 0, len(records.ends)
    if part:
        first = int(np.searchsorted(records.digests, np.uint64((part << 64) // of)))
    if part + 1 < of:
        last = int(np.searchsorted(records.digests, np.uint64((part + 1 << 64) // of)))
    classes = np.array([index[name] for name in spilled.classes], np.int64)
    records = _taken(records, np.arange(first, last))
    return records._replace(labels=classes[records.labels])


def _taken(records: Records, order: NDArray[np.int64]) -> Records:
    content, ends = pieces(records.content, _spans(records.ends)[order])
    keys, key_ends = pieces(records.keys, _spans(records.key_ends)[order])
    return Records(
        content,
        ends,
        keys,
        key_ends,
        records.labels[order],
        records.splits[order],
        records.digests[order],
    )


def _spans(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([ends - np.diff(ends, prepend=0), ends], axis=1)


@compiled
def pieces(flat, spans):  # type: ignore[no-untyped-def]
    """The pieces flat[begin:end] for each span, one after the other, and where each ends."""
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
    """A hash uint64 of each piece of bytes and its seed, the same everywhere and for ever.

    FNV-1a (Fowler, Noll and Vo 1991), finished as SplitMix64 is (Steele, Lea and Flood 2014) so
    that all bits are even.
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
def _fresh(content, ends, labels, digests):  # type: ignore[no-untyped-def]
    """Whether each record is the first of its class with its content, in order of digests."""
    fresh = np.ones(len(ends), np.bool_)
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
                fresh[i] = False
                break
            other -= 1
    return fresh


FRAME = 16  # bytes of a TFRecord beyond its data: length, its checksum, the data's checksum


def _castagnoli() -> NDArray[np.int64]:
    """Tables of CRC-32C for eight bytes at a time (Kounavis and Berry 2005)."""
    tables = np.empty((8, 256), np.int64)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = (tables[0] >> 1) ^ (tables[0] & 1) * 0x82F63B78
    for k in range(1, 8):
        tables[k] = tables[0][tables[k - 1] & 255] ^ (tables[k - 1] >> 8)
    return tables


CRC = _castagnoli()


def encode(records: Records, field: str) -> NDArray[np.uint8]:
    """The records as the bytes of a TFRecord file of ``tf.train.Example`` messages."""
    framed: NDArray[np.uint8] = _encoded(*records[:5], np.frombuffer(field.encode(), np.uint8))
    return framed


# Numbers of protocol buffers' fields, typed: numba compiles anew for every literal that it meets.
VALUE = KEY = FEATURE = FEATURES = BYTES = np.int64(1)
ENTRY_VALUE, INTEGERS = np.int64(2), np.int64(3)
NONE, WORD, LONG = np.int64(0), np.int64(4), np.int64(8)
LABEL, KEY_ID = np.frombuffer(b"label", np.uint8), np.frombuffer(b"key_id", np.uint8)


@compiled
def _encoded(content, ends, keys, key_ends, labels, field):  # type: ignore[no-untyped-def]
    # Written from the end to the beginning, so that every length is known when it is needed.
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
    """Wrap out[at:stop] as an entry of the map Features.feature; returns where it begins."""
    at = _head(out, at, VALUE, stop - at)  # of BytesList, or of Int64List, packed
    at = _head(out, at, kind, stop - at)  # Feature.bytes_list, or Feature.int64_list
    at = _head(out, at, ENTRY_VALUE, stop - at)
    at = _put(out, at, name, NONE, len(name))
    at = _head(out, at, KEY, len(name))
    return _head(out, at, FEATURE, stop - at)


@compiled
def _head(out, at, number, size):  # type: ignore[no-untyped-def]
    """Put the head of a protocol buffer's field of ``size`` bytes before ``at``."""
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
