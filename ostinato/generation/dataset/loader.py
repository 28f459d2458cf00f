"""A prepared data set of drawings in memory, and batches of similar lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int16, Int32, Int64, Shaped

from ostinato import store
from ostinato.data.batches import (
    OwnExamples,
    WindowOfBatches,
    batch_indices,
    read_batches,
    transform,
)
from ostinato.errors import DataError
from ostinato.generation.dataset import classifier
from ostinato.generation.dataset.classifier import Classifier
from ostinato.params import near
from ostinato.task import Manifest, Part

if TYPE_CHECKING:
    import tensorflow as tf

WINDOW = 64  # batches that are read together
POINT_BYTES = 6  # of a stroke-3 row of int16


@dataclass(frozen=True)
class Drawings:
    """Drawings in memory; ``drawings[i]`` is the stroke-3 rows (point, 3) of the i-th one.

    Args:
        points: of all drawings, in pixels.
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

    @property
    def lengths(self) -> Int64[np.ndarray, " drawing"]:
        """The number of points of each drawing."""
        return np.diff(self.ends, prepend=0)


class Dataset:
    """A prepared data set, about 300 bytes of memory for each drawing.

    Attributes:
        folder: that `prepare` has written.
        manifest: of the data set.
        classes: the names of the classes; a label is an index into them.
        scale: standard deviation of the offsets in pixels, by which batches are divided.
        longest: points of the longest training drawing, N_max of the paper.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.classes = tuple(manifest.classes)
        self.scale = float(manifest.details["scale"])
        self.longest = int(manifest.details["longest"])
        self._splits: dict[str, Drawings] = {}

    def size(self, split: str) -> int:
        """The number of drawings of a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")
        return self.manifest.size(split)

    def examples(self, split: str) -> Drawings:
        """The drawings of a split, in the stored order."""
        self.size(split)
        if split not in self._splits:
            arrays = store.read_arrays(self.folder / f"{split}.npz")
            self._splits[split] = Drawings(**arrays)
        return self._splits[split]

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier that judges drawings; None where there is one class only."""
        file = self.folder / classifier.FILE
        return classifier.restore(file, self.scale) if file.exists() else None

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> "tf.data.Dataset":
        """Batches (rows, labels) of similar lengths; each drawing once.

        Args:
            split: train, validation or test.
            batch_size: drawings in a batch; the last one may be smaller.
            seed: of the order; None: sorted by length.
            epoch: determines the order together with the seed.
            part: of every batch; see `ostinato.task.Dataset.batches`.

        Returns:
            rows float32 (batch, row, 5): stroke-5 with offsets divided by the scale, and ended rows
            as padding: one at least. labels int32 (batch,).
        """
        import tensorflow as tf

        def to_rows(points: tf.Tensor, drawn: tf.Tensor, labels: tf.Tensor) -> Any:
            offsets, lift = points[..., :2] / self.scale, points[..., 2:]
            states = tf.concat([drawn - lift, lift, 1 - drawn], axis=2)
            return tf.concat([offsets, states], axis=2), labels

        self.size(split)
        stored = StoredDrawings(self.folder / f"{split}.npz")
        batches = batch_indices(stored.points, batch_size, seed, epoch)
        return transform(padded(stored, batches, 1, part), to_rows, part)


class StoredDrawings:
    """The drawings of a split's file, read by their number (`ostinato.data.batches.Examples`).

    Attributes:
        points: number of points of each drawing.
        labels: class indices.
    """

    def __init__(self, file: Path) -> None:
        arrays = store.read_arrays(file, "ends", "labels")
        self.points, self.labels = np.diff(arrays["ends"], prepend=0), arrays["labels"]
        self._file = file
        self._ends = store.array_begin(file, "points") + arrays["ends"] * POINT_BYTES

    def lengths(self, numbers: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, "batch 1"]:
        """The number of points of drawings."""
        return np.asarray(self.points[numbers, None])

    def read(self, numbers: Int64[np.ndarray, " batch"]) -> list[bytes]:
        """The points of drawings, in bytes; the numbers rise."""
        ends = self._ends[numbers]
        return store.read_spans(self._file, ends - self.points[numbers] * POINT_BYTES, ends)


class DrawingsInMemory:
    """As `StoredDrawings`, of drawings in memory."""

    def __init__(self, drawings: Drawings) -> None:
        self.points, self.labels, self._drawings = drawings.lengths, drawings.labels, drawings

    def lengths(self, numbers: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, "batch 1"]:
        """The number of points of drawings."""
        return np.asarray(self.points[numbers, None])

    def read(self, numbers: Int64[np.ndarray, " batch"]) -> list[bytes]:
        """The points of drawings, in bytes."""
        return [self._drawings[i].tobytes() for i in numbers.tolist()]


def padded(
    drawings: StoredDrawings | DrawingsInMemory,
    batches: Sequence[Int64[np.ndarray, " batch"]],
    more: int,
    part: Part,
) -> "tf.data.Dataset":
    """Batches of drawings, read in a graph.

    Args:
        drawings: to read.
        batches: the drawings of each batch.
        more: rows of padding after the longest drawing of a batch.
        part: of every batch that is read.

    Returns:
        stroke-3 rows float32 (batch, point, 3), padded with zeros; 1 where there is a point (batch,
        point, 1); labels int32 (batch,).
    """
    import tensorflow as tf

    labels = tf.constant(drawings.labels)

    def windows() -> Iterator[WindowOfBatches]:
        return (batches[i : i + WINDOW] for i in range(0, len(batches), WINDOW))

    def decode(mine: OwnExamples) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = tf.strings.length(mine.contents) // POINT_BYTES
        longest = tf.cast(mine.longest[0], tf.int32) + more
        rows = tf.io.decode_raw(mine.contents, tf.int16, fixed_length=longest * POINT_BYTES)
        rows = tf.cast(tf.reshape(rows, (-1, longest, 3)), tf.float32)
        drawn = tf.sequence_mask(size, longest, tf.float32)[..., None]
        return rows, drawn, tf.gather(labels, mine.numbers)

    return read_batches(drawings, windows, decode, part)


def load(folder: Path) -> Dataset:
    """Open a data set that `prepare` has written.

    Raises:
        DataError: the folder has no manifest of this version.
    """
    return Dataset(folder, Manifest.read(folder / "manifest.json"))
