"""A prepared data set of pieces in memory, and batches of similar lengths."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer, Shaped, UInt8

from ostinato import store
from ostinato.data.batches import batch_indices, select_part
from ostinato.errors import DataError
from ostinato.music.formats.keys import KEYS
from ostinato.music.formats.roll import Roll, unpack
from ostinato.params import near
from ostinato.task import Manifest, Part

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Pieces:
    """Pieces in memory, 11 bytes a frame; ``pieces[i]`` is the roll of the i-th one.

    Args:
        frames: of all pieces, in bits.
        ends: end of each piece in ``frames``.
        styles: index of the style of each piece.
        musical_keys: index of the key of each piece in `KEYS`; -1: none.
        keys: the name of each piece.
    """

    frames: UInt8[np.ndarray, "frame 11"]
    ends: Int64[np.ndarray, " piece"]
    styles: Int32[np.ndarray, " piece"]
    musical_keys: Int32[np.ndarray, " piece"]
    keys: Shaped[np.ndarray, " piece"]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> Roll:
        last = range(len(self))[i]
        return unpack(self.frames[self.ends[last - 1] if last else 0 : self.ends[last]])

    def __iter__(self) -> Iterator[Roll]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Int64[np.ndarray, " piece"]:
        """The number of frames of each piece."""
        return np.diff(self.ends, prepend=0)


class Dataset:
    """A prepared data set.

    Attributes:
        folder: that `prepare` has written.
        manifest: of the data set.
        styles: their names.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.styles: tuple[str, ...] = tuple(manifest.classes)
        self._splits: dict[str, Pieces] = {}

    def size(self, split: str) -> int:
        """The number of pieces of a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")
        return self.manifest.size(split)

    def examples(self, split: str) -> Pieces:
        """The pieces of a split, in the stored order."""
        self.size(split)
        if split not in self._splits:
            self._splits[split] = Pieces(**store.read_arrays(self.folder / f"{split}.npz"))
        return self._splits[split]

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> "tf.data.Dataset":
        """Batches ({before, frames, mask, condition}, frames, mask) of whole pieces.

        Args:
            split: train, validation or test.
            batch_size: pieces in a batch; the last one may be smaller.
            seed: of the order; None: sorted by length.
            epoch: determines the order together with the seed.
            part: of every batch; see `ostinato.task.Dataset.batches`. All pieces are in memory.

        Returns:
            frames float32 (batch, frame, 88), padded with silence; before: the frame before each,
            silence before the first one; mask float32 (batch, frame): 1 where there is a frame;
            condition float32 (batch, style + key), see `conditions`.
        """
        import tensorflow as tf

        pieces = self.examples(split)
        frames = tf.constant(unpack(pieces.frames).view(np.uint8))
        ends, lengths = tf.constant(pieces.ends), tf.constant(pieces.lengths)
        known = tf.constant(conditions(pieces.styles, pieces.musical_keys, len(self.styles)))

        def read(chosen: tf.Tensor) -> tf.Tensor:
            size = tf.gather(lengths, chosen)
            position = tf.range(tf.reduce_max(size))[None]
            there = position < size[:, None]
            place = tf.where(there, (tf.gather(ends, chosen) - size)[:, None] + position, 0)
            mask = tf.cast(there, tf.float32)
            roll = tf.cast(tf.gather(frames, place), tf.float32) * mask[..., None]
            before = tf.pad(roll[:, :-1], [[0, 0], [1, 0], [0, 0]])
            condition = tf.gather(known, chosen)
            x = {"before": before, "frames": roll, "mask": mask, "condition": condition}
            return x, roll, mask

        parts = batch_indices(pieces.lengths, batch_size, seed, epoch)
        rows = tf.RaggedTensor.from_row_lengths(
            np.concatenate(parts), [len(part) for part in parts]
        )
        batches = tf.data.Dataset.from_tensor_slices(rows).map(read, num_parallel_calls=2)
        return select_part(batches, part).prefetch(4)


def conditions(
    styles: Integer[np.ndarray, " piece"],
    musical_keys: Integer[np.ndarray, " piece"],
    count: int,
) -> Float32[np.ndarray, "piece condition"]:
    """What a conditional model is told of pieces: a 1 for the style, a 1 for the key.

    Args:
        styles: their indices; -1: not told.
        musical_keys: indices in `KEYS`; -1: not told.
        count: number of styles.
    """
    columns = [(styles, count), (musical_keys, len(KEYS))]
    parts = [np.asarray(each)[:, None] == np.arange(size) for each, size in columns]
    return np.concatenate(parts, axis=1).astype(np.float32)


def load(folder: Path) -> Dataset:
    """Open a data set that `prepare` has written.

    Raises:
        DataError: the folder has no manifest of this version.
    """
    return Dataset(folder, Manifest.read(folder / "manifest.json"))
