"""A prepared data set, read into batches of similar lengths, or into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ostinato import store
from ostinato.params import near
from ostinato.sketches.dataset.shards import FIELD, ROW, SIDE, shard_name

if TYPE_CHECKING:
    import tensorflow as tf

WINDOW = 32_768  # drawings that are shuffled and sorted by length together, about 12 MB
JITTER = 0.1  # share of a drawing's length by which its place among the sorted ones is moved


@dataclass(frozen=True)
class Drawings:
    """Drawings in memory; ``drawings[i]`` is the i-th one's stroke-3 rows (point, 3)."""

    points: NDArray[np.int16]  # (point, 3) of all
    ends: NDArray[np.int64]  # (drawing,): where each ends in `points`
    labels: NDArray[np.int32]  # (drawing,)
    keys: NDArray[np.str_]  # (drawing,)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> NDArray[np.int16]:
        last = range(len(self))[i]
        return self.points[self.ends[last - 1] if last else 0 : self.ends[last]]

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True)
class Bitmaps:
    """Bitmaps in memory; ``bitmaps[i]`` is the i-th one's pixels (height, width, channel)."""

    pixels: NDArray[np.uint8]  # (drawing, height, width, channel)
    labels: NDArray[np.int32]  # (drawing,)
    keys: NDArray[np.str_]  # (drawing,)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        return np.asarray(self.pixels[i])


class Data:
    """A prepared data set, read from its folder as it is needed.

    Attributes:
        kind: "strokes" or "bitmap".
        classes: the names of the classes; a label is an index into them.
        scale: deviation of the training split's offsets, in pixels; batches are divided by it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = store.read_json(folder / "manifest.json")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder}: holds no prepared data (no manifest.json)"
            ) from None
        self.folder = folder
        self.kind: str = manifest["kind"]
        self.classes = tuple(manifest["classes"])
        self.scale: float = manifest["scale"]
        self._splits = manifest["splits"]
        self._parts: int = manifest["shards"]

    def size(self, split: str) -> int:
        """How many drawings a split holds; 0 where its share was 0."""
        if split not in self._splits:
            raise KeyError(f"no split {split!r}; {near(split, self._splits)}")
        return int(self._splits[split]["drawings"])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> "tf.data.Dataset":
        """Batches (x, y) of similar lengths; every drawing once, the last batch may be smaller.

        Shards are read in random order, windows of them shuffled and sorted by length (with some
        jitter), cut into batches, and the batches shuffled. The same arguments give the same
        batches, bit for bit.

        Args:
            split: train, validation or test.
            batch_size: drawings in a batch.
            seed: of the order; None gives the stored order, each window sorted by length.
            epoch: gives another order with the same seed.

        Returns:
            x float32 (batch, point, 3): dx and dy over the scale, and 1 where the pen lifts after
            the point, else -1; padded on the right with rows of zeros, which no point has. For
            bitmaps float32 (batch, height, width, 1) in 0 to 1. y int32 (batch,).
        """
        import tensorflow as tf

        parts = np.arange(self._parts)
        if seed is not None:
            parts = np.random.default_rng([seed, epoch]).permutation(self._parts)
        window = max(1, WINDOW // batch_size) * batch_size

        def cut(number: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
            content, labels = self._parsed(records)
            total = tf.size(labels)
            starts = tf.range(0, total, batch_size)
            lengths = tf.cast(tf.strings.length(content), tf.float32)
            if seed is not None:
                jitter, rank = tf.unstack(
                    tf.random.stateless_uniform((2, total), (seed, (epoch << 20) + number))
                )
                # All lengths equal (bitmaps): the jitter alone shuffles.
                lengths *= 1 + JITTER * jitter
                starts = tf.gather(starts, tf.argsort(rank[: tf.size(starts)], stable=True))
            order = tf.argsort(lengths, stable=True)

            def one(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                chosen = order[start : start + batch_size]
                return tf.gather(content, chosen), tf.gather(labels, chosen)

            return tf.data.Dataset.from_tensor_slices(starts).map(one)

        records = tf.data.TFRecordDataset(self._files(split, parts), buffer_size=1 << 20)
        windows = records.batch(window).prefetch(1).enumerate()
        return windows.flat_map(cut).map(self._tensors, tf.data.AUTOTUNE).prefetch(4)

    def examples(self, split: str, limit: int | None = None) -> Drawings | Bitmaps:
        """The drawings of a split in memory, or the first ``limit``, a fair sample of it."""
        import tensorflow as tf

        records = tf.data.TFRecordDataset(self._files(split, range(self._parts)))
        count = self.size(split) if limit is None else min(limit, self.size(split))
        contents, labels, keys = [], [], []
        for found in records.take(count).batch(4096).as_numpy_iterator():
            parsed = tf.io.parse_example(
                found, {**self._spec(), "key_id": tf.io.FixedLenFeature((), tf.string)}
            )
            contents += parsed[FIELD[self.kind]].numpy().tolist()
            labels += parsed["label"].numpy().tolist()
            keys += [key.decode() for key in parsed["key_id"].numpy().tolist()]
        flat = np.frombuffer(bytearray().join(contents), np.uint8)
        known, names = np.array(labels, np.int32), np.array(keys, np.str_)
        if self.kind == "bitmap":
            return Bitmaps(flat.reshape(-1, SIDE, SIDE, 1), known, names)
        ends = np.cumsum([len(content) // ROW for content in contents], dtype=np.int64)
        return Drawings(flat.view(np.int16).reshape(-1, 3), ends, known, names)

    def pad(self, drawings: Sequence[NDArray[np.int16]]) -> NDArray[np.float32]:
        """Stroke-3 rows, each (point, 3), as a batch's x: float32 (batch, point, 3)."""
        longest = max(map(len, drawings), default=0)
        x = np.zeros((len(drawings), longest, 3), np.float32)
        for padded, rows in zip(x, drawings, strict=True):
            padded[: len(rows)] = rows
            padded[: len(rows), :2] /= np.float32(self.scale)
            padded[: len(rows), 2] = padded[: len(rows), 2] * 2 - 1
        return x

    def _files(self, split: str, parts: Any) -> list[str]:
        if not self.size(split):
            raise ValueError(f"{self.folder}: the {split} split is empty")
        return [str(self.folder / shard_name(split, part, self._parts)) for part in parts]

    def _spec(self) -> dict[str, Any]:
        import tensorflow as tf

        return {
            FIELD[self.kind]: tf.io.FixedLenFeature((), tf.string),
            "label": tf.io.FixedLenFeature((), tf.int64),
        }

    def _parsed(self, records: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        import tensorflow as tf

        parsed = tf.io.parse_example(records, self._spec())
        return parsed[FIELD[self.kind]], tf.cast(parsed["label"], tf.int32)

    def _tensors(
        self, content: "tf.Tensor", labels: "tf.Tensor"
    ) -> tuple["tf.Tensor", "tf.Tensor"]:
        """The bytes of a batch as x, all decoded and padded at once."""
        import tensorflow as tf

        if self.kind == "bitmap":
            pixels = tf.io.decode_raw(content, tf.uint8, fixed_length=SIDE * SIDE)
            return tf.reshape(tf.cast(pixels, tf.float32) / 255, (-1, SIDE, SIDE, 1)), labels
        sizes = tf.strings.length(content)
        longest = tf.reduce_max(sizes)
        rows = tf.io.decode_raw(content, tf.int16, fixed_length=longest)
        rows = tf.cast(tf.reshape(rows, (-1, longest // ROW, 3)), tf.float32)
        real = tf.sequence_mask(sizes // ROW, longest // ROW, tf.float32)[:, :, None]
        return tf.concat([rows[:, :, :2] / self.scale, (rows[:, :, 2:] * 2 - 1) * real], -1), labels
