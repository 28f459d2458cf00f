"""Training pieces, cut to windows and transposed at random."""

from typing import Any

import tensorflow as tf

from ostinato.data.batches import select_part
from ostinato.music.formats.keys import KEYS
from ostinato.music.formats.roll import NOTES
from ostinato.task import Part
from ostinato.training.trainer import Data


class Windows:
    """Data whose training pieces are cut to random windows and transposed.

    Args:
        data: batches of whole pieces.
        max_frames: of a window.
        max_transposition: in semitones.
    """

    def __init__(self, data: Data, max_frames: int, max_transposition: int) -> None:
        self._data, self._max_frames, self._semitones = data, max_frames, max_transposition
        self.size = data.size

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Batches as those of the data; without a seed, unchanged."""
        # Changed as a whole: what is drawn for a piece does not depend on the number of ranks.
        batches = self._data.batches(split, batch_size=batch_size, seed=seed, epoch=epoch)
        if seed is None:
            return select_part(batches, part)

        def change(number: Any, batch: Any) -> Any:
            x, _, _ = batch
            place = tf.stack([tf.cast(seed, tf.int64), epoch * 2**20 + number])
            mask, size = x["mask"], tf.shape(x["mask"])
            lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
            total = tf.minimum(size[1], self._max_frames)
            uniform = tf.random.stateless_uniform((size[0], 2), place)
            room = tf.cast(tf.maximum(lengths - total, 0) + 1, tf.float32)
            first = tf.cast(uniform[:, 0] * room, tf.int32)[:, None]
            rows = tf.minimum(first + tf.range(total), size[1] - 1)
            span = tf.cast(2 * self._semitones + 1, tf.float32)
            semitones = tf.cast(uniform[:, 1] * span, tf.int32) - self._semitones
            moved = {
                name: move(tf.gather(x[name], rows, batch_dims=1), semitones)
                for name in ("before", "frames")
            }
            mask = tf.gather(mask, rows, batch_dims=1)
            condition = move_key(x["condition"], semitones)
            return {**x, **moved, "mask": mask, "condition": condition}, moved["frames"], mask

        return select_part(batches.enumerate().map(change), part)


def move(frames: Any, semitones: Any) -> Any:
    """Transpose frames (batch, frame, 88) by semitones (batch,); notes off the piano are lost."""
    source = tf.range(NOTES) - semitones[:, None]
    inside = tf.cast((source >= 0) & (source < NOTES), frames.dtype)[:, None]
    source = tf.clip_by_value(source, 0, NOTES - 1)
    return tf.gather(frames, source, axis=2, batch_dims=1) * inside


def move_key(condition: Any, semitones: Any) -> Any:
    """The conditions (batch, style + key) of transposed pieces."""
    style, key = condition[:, : -len(KEYS)], condition[:, -len(KEYS) :]
    source = (tf.range(12) - semitones[:, None]) % 12
    halves = [tf.gather(half, source, axis=1, batch_dims=1) for half in tf.split(key, 2, axis=1)]
    return tf.concat([style, *halves], axis=1)
