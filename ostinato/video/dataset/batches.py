"""A prepared data set of clips, read into batches or into memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from typing_extensions import TypedDict

from ostinato import store
from ostinato.params import near
from ostinato.units import Fraction
from ostinato.video.dataset.reading import Sampling

if TYPE_CHECKING:
    import tensorflow as tf

NAME = "video"  # of the data set: its files begin with it
SPLITS = ("train", "validation", "test")
BUFFER = 1 << 26  # bytes of clips that are shuffled together


class Augment(TypedDict):
    """How training clips are varied; the same for all frames of one."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    flip: bool  # half of them are mirrored, left to right
    crop: Fraction  # of height and width, at most, that is cut off; the rest is scaled up again
    jitter: Fraction  # of the time, at most, that is cut off; the rest is played slower
    brightness: Fraction  # by which it is made lighter or darker, at most


@dataclass(frozen=True)
class Clips:
    """Clips in memory; those shorter than the longest end with frames of zeros."""

    clips: NDArray[np.uint8]  # (clip, frame, height, width, channel)
    frames: NDArray[np.int32]  # (clip,): how many are real
    labels: NDArray[np.int32]  # (clip,)
    keys: NDArray[np.str_]  # (clip,)
    videos: NDArray[np.str_]  # (clip,): key of the video that it was cut from

    def __len__(self) -> int:
        return len(self.clips)


class Data:
    """A prepared data set, read from its folder as it is needed.

    Attributes:
        classes: the names of the classes; a label is an index into them.
        sampling: how clips are cut from a video, for `reading.read`.
        frames: of a clip, at most.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        augment: how training clips are varied.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = store.read_json(folder / "manifest.json")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder}: holds no prepared data (no manifest.json)"
            ) from None
        self.folder = folder
        self.classes = tuple(manifest["classes"])
        self.sampling = Sampling(**manifest["sampling"])
        self.frames = self.sampling.frames
        self.height, self.width = self.sampling.height, self.sampling.width
        self.channels = 1 if self.sampling.colour == "grey" else 3
        self.augment: Augment = manifest["augment"]
        self._splits = manifest["splits"]
        self._parts: int = manifest["shards"]

    def size(self, split: str) -> int:
        """How many clips a split holds."""
        if split not in self._splits:
            raise KeyError(f"no split {split!r}; {near(split, self._splits)}")
        return int(self._splits[split]["clips"])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> "tf.data.Dataset":
        """Batches (x, y); every clip once, the last batch may be smaller.

        Shards are read in random order, and their clips shuffled in a buffer; those of the
        training split are varied as ``augment`` says. The same arguments give the same batches,
        bit for bit.

        Args:
            split: train, validation or test.
            batch_size: clips in a batch.
            seed: of order and variation; None gives the stored order, and clips as they are.
            epoch: gives others with the same seed.

        Returns:
            x: clip float32 (batch, frame, height, width, channel) in 0 to 1, all with the data
            set's frames, shorter ones ending with frames of zeros; and frames int32 (batch,), how
            many are real. y: int32 (batch,).
        """
        import tensorflow as tf

        parts = np.arange(self._parts)
        if seed is not None:
            rng = np.random.default_rng([seed, epoch])
            parts = rng.permutation(self._parts)
        clips = tf.data.TFRecordDataset(self._files(split, parts), buffer_size=1 << 20)
        if seed is not None:
            size = self.frames * self.height * self.width * self.channels
            kept = min(self.size(split), max(batch_size, BUFFER // size))
            clips = clips.shuffle(kept, int(rng.integers(1 << 62)), reshuffle_each_iteration=False)

        def tensors(number: tf.Tensor, records: tf.Tensor) -> Any:
            parsed = tf.io.parse_example(records, self._spec("clip"))
            pixels, frames = self._decoded(parsed["clip"])
            clip = tf.cast(pixels, tf.float32) / 255
            if seed is not None and split == "train":
                chance = tf.random.stateless_uniform(
                    (6, tf.shape(clip)[0]), (seed, (epoch << 20) + number)
                )
                clip = _varied(clip, frames, chance, self.augment)
            return {"clip": clip, "frames": frames}, tf.cast(parsed["label"], tf.int32)

        numbered = clips.batch(batch_size).enumerate()
        return numbered.map(tensors, tf.data.AUTOTUNE).prefetch(4)

    def examples(self, split: str, limit: int | None = None) -> Clips:
        """The clips of a split in memory, or the first ``limit``, a fair sample of it."""
        import tensorflow as tf

        records = tf.data.TFRecordDataset(self._files(split, range(self._parts)))
        count = self.size(split) if limit is None else min(limit, self.size(split))
        shape = (count, self.frames, self.height, self.width, self.channels)
        clips, frames = np.empty(shape, np.uint8), np.empty(count, np.int32)
        labels, keys, videos = np.empty(count, np.int32), [], []
        at = 0
        for found in records.take(count).batch(256):
            parsed = tf.io.parse_example(found, self._spec("clip", "key", "video"))
            pixels, lengths = self._decoded(parsed["clip"])
            rows = slice(at, at := at + len(lengths))
            clips[rows], frames[rows] = pixels.numpy(), lengths.numpy()
            labels[rows] = parsed["label"].numpy()
            keys += [key.decode() for key in parsed["key"].numpy().tolist()]
            videos += [key.decode() for key in parsed["video"].numpy().tolist()]
        return Clips(clips, frames, labels, np.array(keys, np.str_), np.array(videos, np.str_))

    def pad(self, clips: list[NDArray[np.uint8]]) -> dict[str, NDArray[Any]]:
        """Clips, each (frame, height, width, channel), as a batch's x."""
        x = np.zeros((len(clips), self.frames, self.height, self.width, self.channels), np.float32)
        for padded, clip in zip(x, clips, strict=True):
            padded[: len(clip)] = clip / np.float32(255)
        return {"clip": x, "frames": np.array([len(clip) for clip in clips], np.int32)}

    def _files(self, split: str, parts: Any) -> list[str]:
        self.size(split)  # names near misses
        return [str(self.folder / shard_name(split, part, self._parts)) for part in parts]

    def _spec(self, *names: str) -> dict[str, Any]:
        import tensorflow as tf

        spec = {name: tf.io.FixedLenFeature((), tf.string) for name in names}
        return {**spec, "label": tf.io.FixedLenFeature((), tf.int64)}

    def _decoded(self, content: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        """The bytes of clips as uint8 (batch, frame, height, width, channel), and their frames."""
        import tensorflow as tf

        frame = self.height * self.width * self.channels
        flat = tf.io.decode_raw(content, tf.uint8, fixed_length=self.frames * frame)
        shape = (-1, self.frames, self.height, self.width, self.channels)
        return tf.reshape(flat, shape), tf.strings.length(content) // frame


def _varied(
    clip: "tf.Tensor", frames: "tf.Tensor", chance: "tf.Tensor", augment: Augment
) -> "tf.Tensor":
    """Clips mirrored, cropped, stretched in time and made lighter or darker.

    ``chance`` float32 (6, batch), even in 0 to 1, decides; ``frames`` int32 (batch,).
    """
    import tensorflow as tf

    _, count, height, width, _ = clip.shape
    mirrored, down, across, early, short, light = tf.unstack(chance)
    if augment["jitter"]:
        # Frame i comes from the share (i + 1/2) / frames of what is left of the time.
        real = tf.cast(frames, tf.float32)
        cut = augment["jitter"] * short * real
        place = tf.range(count, dtype=tf.float32)[None] + 0.5
        source = (cut * early)[:, None] + place * ((real - cut) / real)[:, None]
        index = tf.cast(source, tf.int32)
        index = tf.where(place < real[:, None], tf.minimum(index, frames[:, None] - 1), count - 1)
        clip = tf.gather(clip, index, batch_dims=1)
    if augment["flip"] or augment["crop"]:
        flip = tf.logical_and(mirrored < 0.5, augment["flip"])
        rows = _lens(height, down, augment["crop"], tf.zeros_like(flip))
        columns = _lens(width, across, augment["crop"], flip)
        clip = tf.einsum("brh,bfhwc,bsw->bfrsc", rows, clip, columns)
    if augment["brightness"]:
        factor = 1 + augment["brightness"] * (2 * light - 1)
        clip = tf.clip_by_value(clip * factor[:, None, None, None, None], 0, 1)
    return clip


def _lens(size: int, start: "tf.Tensor", cut: float, flip: "tf.Tensor") -> "tf.Tensor":
    """What makes ``size`` pixels of a stretch of them, linearly: float32 (batch, new, old).

    The stretch is shorter by the share ``cut``; it begins at the share ``start`` (batch,) of that,
    and is turned round where ``flip`` (batch,).
    """
    import tensorflow as tf

    pixel = tf.range(size, dtype=tf.float32)
    at = cut * (size - 1) * start[:, None] + (1 - cut) * pixel
    at = tf.where(flip[:, None], at[:, ::-1], at)
    return tf.nn.relu(1 - tf.abs(at[:, :, None] - pixel))


def shard_name(split: str, part: int, of: int) -> str:
    """The name of a shard's file, as tensorflow-datasets wants it."""
    return f"{NAME}-{split}.tfrecord-{part:05d}-of-{of:05d}"
