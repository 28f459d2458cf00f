"""A prepared data set: batches of similar lengths, or the drawings of a split in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64, Shaped, UInt8

from ostinato.data import tfrecords
from ostinato.data.batches import OwnExamples, WindowOfBatches, read_batches
from ostinato.errors import DataError
from ostinato.params import near
from ostinato.sketches.dataset.protocols import Kind
from ostinato.sketches.dataset.shards import (
    FEATURE_NAME,
    ROW_BYTES,
    SIDE,
    SPLITS,
    shard_name,
)
from ostinato.task import Manifest, Part

if TYPE_CHECKING:
    import tensorflow as tf

WINDOW = 32_768  # drawings that are shuffled and sorted by length together, about 12 MB
JITTER = 0.1  # of a drawing's length: noise that is added before sorting by length


@dataclass(frozen=True)
class Drawings:
    """Drawings in memory; ``drawings[i]`` is the stroke-3 rows (point, 3) of the i-th one.

    Args:
        points: of all drawings.
        ends: end of each drawing in ``points``.
        labels: class indices.
        keys: ``key_id`` of each drawing.
    """

    points: Int16[np.ndarray, "point 3"]
    ends: Int64[np.ndarray, " drawing"]
    labels: Int32[np.ndarray, " drawing"]
    keys: Shaped[np.ndarray, " drawing"]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> Int16[np.ndarray, "_ 3"]:
        last = range(len(self))[i]
        return self.points[self.ends[last - 1] if last else 0 : self.ends[last]]

    def __iter__(self) -> Iterator[Int16[np.ndarray, "_ 3"]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Bitmaps:
    """Bitmaps in memory; ``bitmaps[i]`` is the pixels (height, width, channel) of the i-th one.

    Args:
        pixels: 0 (no ink) to 255.
        labels: class indices.
        keys: ``key_id`` of each bitmap.
    """

    pixels: UInt8[np.ndarray, "drawing height width channel"]
    labels: Int32[np.ndarray, " drawing"]
    keys: Shaped[np.ndarray, " drawing"]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> UInt8[np.ndarray, "height width channel"]:
        return np.asarray(self.pixels[i])


class Dataset:
    """A prepared data set, read from its folder when needed.

    Attributes:
        folder: that `prepare` has written.
        manifest: of the data set.
        kind: "strokes" or "bitmap".
        classes: the names of the classes; a label is an index into them.
        scale: standard deviation of the training split's offsets in pixels, by which batches are
            divided; 1 for bitmaps.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.kind = cast(Kind, manifest.details["kind"])
        self.classes = tuple(manifest.classes)
        self.scale = float(manifest.details["scale"])
        self._parts = int(manifest.details["shards"])

    def size(self, split: str) -> int:
        """The number of drawings of a split.

        Raises:
            DataError: the split is empty, because its fraction was 0, or there is no such split.
        """
        if split in SPLITS and split not in self.manifest.splits:
            raise DataError(
                f"{self.folder}: the {split} split is empty; raise `{split}` in the data set's "
                "block `prepare`"
            )
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")
        return self.manifest.size(split)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> "tf.data.Dataset":
        """Batches (x, y) of similar lengths; each drawing once, the last batch may be smaller.

        Shards are read in random order; windows of drawings are shuffled and sorted by length
        (with jitter), cut into batches, and the batches of a window are shuffled. The same
        arguments give the same batches, bit for bit.

        Args:
            split: train, validation or test.
            batch_size: drawings in a batch.
            seed: of the order; None for the stored order, in which each window is sorted by length.
            epoch: determines the order together with the seed.
            part: of every batch; see `ostinato.task.Dataset.batches`.

        Returns:
            x float32 (batch, point, 3): dx and dy divided by the scale, and 1 if the pen lifts
            after the point, else -1; padded on the right with rows of zeros, which no point has.
            For bitmaps float32 (batch, height, width, 1) in 0 to 1. y int32 (batch,).
        """
        shards = np.arange(self._parts)
        if seed is not None:
            shards = np.random.default_rng([seed, epoch]).permutation(self._parts)
        records = tfrecords.Records([Path(file) for file in self._files(split, shards)])
        window = max(1, WINDOW // batch_size) * batch_size

        def windows() -> Iterator[WindowOfBatches]:
            for number, start in enumerate(range(0, len(records), window)):
                numbers = np.arange(start, min(start + window, len(records)))
                lengths = records.lengths(numbers)[:, 0]
                draw = None if seed is None else (seed, (epoch << 20) + number)
                yield [numbers[chosen] for chosen in _cut(lengths, batch_size, draw)]

        return read_batches(records, windows, self._tensors, part)

    def examples(self, split: str, max_examples: int | None = None) -> Drawings | Bitmaps:
        """The drawings of a split in memory, in the stored order.

        Args:
            split: train, validation or test.
            max_examples: only the first ones; None for all.
        """
        import tensorflow as tf

        records = tfrecords.read(self._files(split, range(self._parts)))
        count = self.size(split) if max_examples is None else min(max_examples, self.size(split))
        contents, labels, keys = [], [], []
        for found in records.take(count).batch(4096).as_numpy_iterator():
            parsed = tf.io.parse_example(
                found, {**self._spec(), "key_id": tf.io.FixedLenFeature((), tf.string)}
            )
            contents += parsed[FEATURE_NAME[self.kind]].numpy().tolist()
            labels += parsed["label"].numpy().tolist()
            keys += [key.decode() for key in parsed["key_id"].numpy().tolist()]
        flat = np.frombuffer(bytearray().join(contents), np.uint8)
        label_array, key_array = np.array(labels, np.int32), np.array(keys, np.str_)
        if self.kind == "bitmap":
            return Bitmaps(flat.reshape(-1, SIDE, SIDE, 1), label_array, key_array)
        ends = np.cumsum([len(content) // ROW_BYTES for content in contents], dtype=np.int64)
        return Drawings(flat.view(np.int16).reshape(-1, 3), ends, label_array, key_array)

    def inputs(
        self, drawings: Sequence[Shaped[np.ndarray, "..."]]
    ) -> Float32[np.ndarray, "drawing ..."]:
        """Drawings, as `examples` has them, as the x of a batch (see `batches`)."""
        if self.kind == "bitmap":
            return np.stack(drawings).astype(np.float32) / np.float32(255)
        longest = max(map(len, drawings), default=0)
        x = np.zeros((len(drawings), longest, 3), np.float32)
        for padded, rows in zip(x, drawings, strict=True):
            padded[: len(rows)] = rows
            padded[: len(rows), :2] /= np.float32(self.scale)
            padded[: len(rows), 2] = padded[: len(rows), 2] * 2 - 1
        return x

    def _files(self, split: str, parts: Any) -> list[str]:
        if not self.size(split):
            raise DataError(f"{self.folder}: the {split} split is empty; fetch more drawings")
        return [str(self.folder / shard_name(split, part, self._parts)) for part in parts]

    def _spec(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            FEATURE_NAME[self.kind]: tf.io.FixedLenFeature((), tf.string),
            "label": tf.io.FixedLenFeature((), tf.int64),
        }

    def _tensors(self, mine: OwnExamples) -> tuple["tf.Tensor", "tf.Tensor"]:
        """Parse, decode and pad the records of a batch: (x, y)."""
        import tensorflow as tf

        parsed = tf.io.parse_example(mine.contents, self._spec())
        content, labels = parsed[FEATURE_NAME[self.kind]], tf.cast(parsed["label"], tf.int32)
        if self.kind == "bitmap":
            pixels = tf.io.decode_raw(content, tf.uint8, fixed_length=SIDE * SIDE)
            return tf.reshape(tf.cast(pixels, tf.float32) / 255, (-1, SIDE, SIDE, 1)), labels
        sizes, longest = tf.strings.length(content), tf.cast(mine.longest[0], tf.int32)
        rows = tf.io.decode_raw(content, tf.int16, fixed_length=longest)
        rows = tf.cast(tf.reshape(rows, (-1, longest // ROW_BYTES, 3)), tf.float32)
        real = tf.sequence_mask(sizes // ROW_BYTES, longest // ROW_BYTES, tf.float32)[:, :, None]
        return tf.concat([rows[:, :, :2] / self.scale, (rows[:, :, 2:] * 2 - 1) * real], -1), labels


def _cut(
    lengths: Int64[np.ndarray, " drawing"], batch_size: int, draw: tuple[int, int] | None
) -> list[Int64[np.ndarray, " batch"]]:
    """Cut drawings into batches of similar lengths.

    Args:
        lengths: in bytes of content.
        batch_size: drawings in a batch.
        draw: two numbers that determine the jitter and the order of the batches; None: neither.
    """
    import tensorflow as tf

    keys, starts = lengths.astype(np.float32), np.arange(0, len(lengths), batch_size)
    if draw is not None:
        with tf.device("CPU"):
            drawn = tf.random.stateless_uniform((2, len(lengths)), np.array(draw, np.int64))
        jitter, rank = drawn.numpy()
        # If all lengths are equal (bitmaps), the jitter shuffles.
        keys *= 1 + np.float32(JITTER) * jitter
        starts = starts[np.argsort(rank[: len(starts)], kind="stable")]
    order = np.argsort(keys, kind="stable")
    return [order[start : start + batch_size] for start in starts.tolist()]


def load(folder: Path) -> Dataset:
    """Open a data set that `prepare` has written.

    Raises:
        DataError: the folder has no manifest of this version.
    """
    return Dataset(folder, Manifest.read(folder / "manifest.json"))
