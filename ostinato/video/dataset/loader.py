"""Read a prepared data set of clips: batches for training, arrays for evaluation."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8
from pydantic import ConfigDict
from typing_extensions import TypedDict

from ostinato.data import tfrecords
from ostinato.data.batches import OwnExamples, WindowOfBatches, read_batches
from ostinato.errors import DataError
from ostinato.params import near
from ostinato.task import Manifest, Part
from ostinato.units import Fraction
from ostinato.video.formats.reading import Sampling

DATASET_NAME = "video"  # the prefix of the shards' names
SHUFFLE_BYTES = 1 << 26  # of the clips that are shuffled together

Tensor = Any
"""A tf.Tensor; TensorFlow is imported only where it is used."""

Inputs = dict[str, Shaped[np.ndarray, "clip *_"]]
"""A batch as models read it: ``clip`` float32 (clip, frame, height, width, channel) in 0 to 1,
right-padded with zero frames, and ``frames`` int32 (clip,), the number of frames that are real."""


class Augment(TypedDict):
    """Augmentation of training clips; equal for all frames of a clip.

    Attributes:
        flip: mirror half of the clips, left to right.
        crop: maximum fraction of height and width that is cropped; the rest is scaled up.
        jitter: maximum fraction of the duration that is cropped; the rest is played slower.
        brightness: maximum relative change of brightness.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    flip: bool
    crop: Fraction
    jitter: Fraction
    brightness: Fraction


@dataclass(frozen=True)
class Clips:
    """The clips of a split in memory.

    Args:
        clips: right-padded with zero frames.
        frames: number of real frames.
        labels: index of the class.
        keys: names of the clips.
        videos: key of the video that each clip was cut from.
    """

    clips: UInt8[np.ndarray, "clip frame height width channel"]
    frames: Int32[np.ndarray, " clip"]
    labels: Int32[np.ndarray, " clip"]
    keys: Shaped[np.ndarray, " clip"]
    videos: Shaped[np.ndarray, " clip"]

    def __len__(self) -> int:
        return len(self.clips)


class ClipDataset:
    """A prepared data set, read from its folder on demand.

    Attributes:
        folder: of the data set.
        manifest: its manifest.
        classes: names of the classes, in the order of the labels.
        sampling: how videos are cut into clips, for `reading.read`.
        frames: maximum number of frames of a clip.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        augment: augmentation of training clips.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.json")
        self.classes = tuple(self.manifest.classes)
        details = self.manifest.details
        self.sampling = Sampling(**details["sampling"])
        self.augment: Augment = details["augment"]
        self._shards: int = details["shards"]
        self.frames = self.sampling.frames
        self.height, self.width = self.sampling.height, self.sampling.width
        self.channels = self.sampling.channels

    def size(self, split: str) -> int:
        """The number of clips of a split.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")
        return self.manifest.size(split)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Iterable[Any]:
        """Batches (x, y) of a split, a tf.data.Dataset; the last batch may be smaller.

        Shards are read in random order and their clips shuffled within a window; training clips
        are augmented. The same arguments give the same batches, bit for bit.

        Args:
            split: train, validation or test.
            batch_size: clips in a batch.
            seed: of shuffling and augmentation; None for the stored order without augmentation.
            epoch: from 1; with the seed it determines all that is random.
            part: of every batch; see `ostinato.task.Dataset.batches`.

        Returns:
            Pairs of x, with the arrays of `Inputs` as tensors, padded to the data set's maximum
            number of frames, and the labels y, int32 (clip,).
        """
        import tensorflow as tf

        shards = np.arange(self._shards)
        clips = tf.data.Dataset.range(self.size(split))
        if seed is not None:
            rng = np.random.default_rng([seed, epoch])
            shards = rng.permutation(self._shards)
            clip_bytes = self.frames * self.height * self.width * self.channels
            buffer = min(self.size(split), max(batch_size, SHUFFLE_BYTES // clip_bytes))
            clips = clips.shuffle(
                buffer, int(rng.integers(1 << 62)), reshuffle_each_iteration=False
            )
        records = tfrecords.Records([Path(f) for f in self._files(split, shards.tolist())])

        def windows() -> Iterator[WindowOfBatches]:
            order = next(clips.batch(self.size(split)).as_numpy_iterator())
            for start in range(0, len(order), batch_size):
                yield [order[start : start + batch_size]]

        def decode(mine: OwnExamples) -> Any:
            parsed = tf.io.parse_example(mine.contents, self._schema("clip"))
            pixels, frames = self._decode_clips(parsed["clip"])
            clip = tf.cast(pixels, tf.float32) / 255
            if seed is not None and split == "train":
                uniform = tf.random.stateless_uniform(
                    (6, mine.total), (seed, (epoch << 20) + mine.batch)
                )
                uniform = mine.select(tf.transpose(uniform))
                clip = augment_clips(clip, frames, tf.transpose(uniform), self.augment)
            return {"clip": clip, "frames": frames}, tf.cast(parsed["label"], tf.int32)

        batches: Iterable[Any] = read_batches(records, windows, decode, part)
        return batches

    def examples(self, split: str, max_examples: int | None = None) -> Clips:
        """Read a split into memory.

        Args:
            split: train, validation or test.
            max_examples: number of clips, the first in stored order, which is random; None for all.
        """
        import tensorflow as tf

        records = tfrecords.read(self._files(split, range(self._shards)))
        size = self.size(split)
        count = size if max_examples is None else min(max_examples, size)
        shape = (count, self.frames, self.height, self.width, self.channels)
        clips, frames = np.empty(shape, np.uint8), np.empty(count, np.int32)
        labels, keys, videos = np.empty(count, np.int32), [], []
        end = 0
        for serialised in records.take(count).batch(256):
            parsed = tf.io.parse_example(serialised, self._schema("clip", "key", "video"))
            pixels, lengths = self._decode_clips(parsed["clip"])
            start, end = end, end + len(lengths)
            clips[start:end], frames[start:end] = pixels.numpy(), lengths.numpy()
            labels[start:end] = parsed["label"].numpy()
            keys += [key.decode() for key in parsed["key"].numpy().tolist()]
            videos += [key.decode() for key in parsed["video"].numpy().tolist()]
        return Clips(clips, frames, labels, np.array(keys, np.str_), np.array(videos, np.str_))

    def inputs(
        self,
        clips: UInt8[np.ndarray, "clip frame height width channel"],
        frames: Shaped[np.ndarray, " clip"],
    ) -> Inputs:
        """Padded clips as a batch that a model reads, with the values of training."""
        return {"clip": clips.astype(np.float32) / 255, "frames": frames.astype(np.int32)}

    def pad(self, clips: Sequence[UInt8[np.ndarray, "_ height width channel"]]) -> Inputs:
        """Clips of different length as a batch that a model reads, with the values of training."""
        shape = (len(clips), self.frames, self.height, self.width, self.channels)
        x: Float32[np.ndarray, "clip frame height width channel"] = np.zeros(shape, np.float32)
        for padded, clip in zip(x, clips, strict=True):
            padded[: len(clip)] = clip / np.float32(255)
        return {"clip": x, "frames": np.array([len(clip) for clip in clips], np.int32)}

    def _files(self, split: str, shards: Iterable[int]) -> list[str]:
        self.size(split)  # raises for an unknown split
        return [str(self.folder / shard_name(split, shard, self._shards)) for shard in shards]

    def _schema(self, *names: str) -> dict[str, Any]:
        """The features to parse: the label, and those of type string that are named."""
        import tensorflow as tf

        schema = {name: tf.io.FixedLenFeature((), tf.string) for name in names}
        return {**schema, "label": tf.io.FixedLenFeature((), tf.int64)}

    def _decode_clips(self, content: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes of clips to uint8 (clip, frame, height, width, channel) and their frame counts."""
        import tensorflow as tf

        frame = self.height * self.width * self.channels
        flat = tf.io.decode_raw(content, tf.uint8, fixed_length=self.frames * frame)
        shape = (-1, self.frames, self.height, self.width, self.channels)
        return tf.reshape(flat, shape), tf.strings.length(content) // frame


def load(folder: Path) -> ClipDataset:
    """Open a prepared data set.

    Raises:
        DataError: the folder has no manifest.json, or one of another version.
    """
    return ClipDataset(folder)


def augment_clips(clip: Tensor, frames: Tensor, uniform: Tensor, augment: Augment) -> Tensor:
    """Flip, crop, stretch in time and brighten clips at random.

    Args:
        clip: float32 (clip, frame, height, width, channel) in 0 to 1, right-padded.
        frames: int32 (clip,), number of real frames.
        uniform: float32 (6, clip), random numbers, uniform in 0 to 1.
        augment: the strength of each augmentation.
    """
    import tensorflow as tf

    _, count, height, width, _ = clip.shape
    flip_draw, row_draw, column_draw, start_draw, cut_draw, light_draw = tf.unstack(uniform)
    if augment["jitter"]:
        # Frame i is taken at the fraction (i + 1/2) / frames of the remaining duration.
        real = tf.cast(frames, tf.float32)
        cut = augment["jitter"] * cut_draw * real
        centre = tf.range(count, dtype=tf.float32)[None] + 0.5
        source = (cut * start_draw)[:, None] + centre * ((real - cut) / real)[:, None]
        index = tf.cast(source, tf.int32)
        index = tf.where(centre < real[:, None], tf.minimum(index, frames[:, None] - 1), count - 1)
        clip = tf.gather(clip, index, batch_dims=1)
    if augment["flip"] or augment["crop"]:
        flip = tf.logical_and(flip_draw < 0.5, augment["flip"])
        rows = _crop_matrix(height, row_draw, augment["crop"], tf.zeros_like(flip))
        columns = _crop_matrix(width, column_draw, augment["crop"], flip)
        clip = tf.einsum("brh,bfhwc,bsw->bfrsc", rows, clip, columns)
    if augment["brightness"]:
        factor = 1 + augment["brightness"] * (2 * light_draw - 1)
        clip = tf.clip_by_value(clip * factor[:, None, None, None, None], 0, 1)
    return clip


def _crop_matrix(size: int, start: Tensor, crop: float, flip: Tensor) -> Tensor:
    """The matrices that crop an axis and interpolate it linearly to its old size.

    Args:
        size: of the axis, in pixels.
        start: float32 (clip,), the fraction of the crop that is removed at the beginning.
        crop: fraction of the axis that is removed.
        flip: bool (clip,), whether the axis is reversed.

    Returns:
        float32 (clip, new pixel, old pixel).
    """
    import tensorflow as tf

    pixel = tf.range(size, dtype=tf.float32)
    source = crop * (size - 1) * start[:, None] + (1 - crop) * pixel
    source = tf.where(flip[:, None], source[:, ::-1], source)
    return tf.nn.relu(1 - tf.abs(source[:, :, None] - pixel))


def shard_name(split: str, shard: int, shards: int) -> str:
    """The name of a shard's file, as tensorflow-datasets expects it."""
    return f"{DATASET_NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
