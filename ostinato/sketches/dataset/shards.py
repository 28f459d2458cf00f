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
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt8

from ostinato import store
from ostinato.data import tfrecords
from ostinato.data.profile import SAMPLE
from ostinato.sketches.dataset import keys
from ostinato.sketches.dataset.profile import features
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.formats.records import (
    FRAME_BYTES,
    Records,
    digests,
    encode,
    gather,
    is_first,
)

NAME = "sketches"  # of the data set: the prefix of its files
SPLITS = ("train", "validation", "test")
FEATURE_NAME: Mapping[Kind, str] = {"strokes": "strokes", "bitmap": "image"}
SIDE = 28  # height and width of a bitmap in pixels
ROW_BYTES = 6  # of a stroke-3 row of int16


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

    def write(self, file: Path) -> None:
        """Write the statistics."""
        store.write_arrays(file, {name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` has written."""
        arrays = store.read_arrays(file)
        numbers: dict[str, Any] = {k: int(value) for k, value in arrays.items() if not value.ndim}
        return cls(**{**arrays, **numbers})


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
    with path.open("wb") as file:
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
) -> None:
    """Write one of ``num_parts`` equal ranges of the stored order: a shard for each split.

    Args:
        folder: gets the files, the hashes of the keys (`key_file`) and last the statistics
            (`statistics_file`).
        spills: of all records. The first of identical drawings in this order is kept.
        classes: all classes, in the order of the labels.
        kind: of the drawings.
        num_parts: number of ranges.
        part: number of this range, from 0.
    """
    index = {name: label for label, name in enumerate(classes)}
    found = join([_read_range(spilled, index, part, num_parts) for spilled in spills])
    found = _take(found, np.argsort(found.digests, kind="stable"))
    first = is_first(found.content, found.ends, found.labels, found.digests)
    counts = np.zeros((len(SPLITS), len(classes)), np.int64)
    np.add.at(counts, (found.splits[first], found.labels[first]), 1)
    sizes = np.zeros(len(SPLITS), np.int64)
    moments = np.zeros(3, np.int64)
    for number, split in enumerate(SPLITS):
        records = _take(found, np.flatnonzero(first & (found.splits == number)))
        framed = encode(records, FEATURE_NAME[kind])
        sizes[number] = len(framed) - FRAME_BYTES * len(records.ends)
        file, content = folder / shard_name(split, part, num_parts), framed.tobytes()
        store.write_bytes(file, content)
        lengths = np.diff(records.ends, prepend=0)[:, None]
        tfrecords.write_index(file, tfrecords.sizes(content), lengths)
        if split == "train":
            ends = records.ends[:SAMPLE]
            sample = features(records.content[: ends.max(initial=0)], ends, kind)
        if split == "train" and kind == "strokes":
            offsets = records.content.view(np.int16).reshape(-1, 3)[:, :2].astype(np.int64)
            moments += [offsets.size, offsets.sum(), (offsets**2).sum()]
    lengths = np.diff(found.ends, prepend=0)[first]
    hashes = digests(found.keys, found.key_ends, np.zeros(len(found.ends), np.uint64))
    keys.write(key_file(folder, part), hashes[first])
    shard = Shard(
        counts=counts,
        sizes=sizes,
        longest=int(lengths.max(initial=0)),
        content=int(lengths.sum()),
        duplicates=len(first) - int(first.sum()),
        moments=moments,
        sample=sample,
    )
    shard.write(statistics_file(folder, part))


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
                file = folder / shard_name(split, part, len(shards))
                file.unlink()
                tfrecords.index_file(file).unlink()
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


def statistics_file(folder: Path, part: int) -> Path:
    """The file with the `Shard` of a part."""
    return folder / f"{part:05d}.npz"


def key_file(folder: Path, part: int) -> Path:
    """The file with the hashes of the keys of a part."""
    return folder / f"{part:05d}.keys.npy"


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
    content, ends = _slice(records.content, records.ends, first, last)
    own_keys, key_ends = _slice(records.keys, records.key_ends, first, last)
    chosen = slice(first, last)
    return Records(
        content,
        ends,
        own_keys,
        key_ends,
        labels[records.labels[chosen]],
        records.splits[chosen].copy(),
        records.digests[chosen].copy(),
    )


def _slice(
    flat: UInt8[np.ndarray, " byte"], ends: Int64[np.ndarray, " record"], first: int, last: int
) -> tuple[UInt8[np.ndarray, " byte"], Int64[np.ndarray, " record"]]:
    """The bytes of neighbouring records, and the end of each in them; nothing else is read.

    They are copies: a file is mapped into memory as long as anything refers to it.
    """
    begin = int(ends[first - 1]) if first else 0
    chosen = ends[first:last] - begin
    size = int(chosen[-1]) if len(chosen) else 0
    return flat[begin : begin + size].copy(), chosen


def _take(records: Records, order: Integer[np.ndarray, " taken"]) -> Records:
    """The records with these indices, in this order."""
    content, ends = gather(records.content, _spans(records.ends)[order])
    own_keys, key_ends = gather(records.keys, _spans(records.key_ends)[order])
    return Records(
        content,
        ends,
        own_keys,
        key_ends,
        records.labels[order],
        records.splits[order],
        records.digests[order],
    )


def _spans(ends: Int64[np.ndarray, " record"]) -> Int64[np.ndarray, "record 2"]:
    return np.stack([ends - np.diff(ends, prepend=0), ends], axis=1)
