"""Training drawings that are changed anew in each epoch (Ha and Eck 2017, arXiv 1704.03477)."""

from typing import Any

import tensorflow as tf

from ostinato.generation.dataset.loader import Dataset
from ostinato.generation.formats.drawings import END
from ostinato.task import Part


class Augmented:
    """A data set whose training drawings are stretched, and lose points, anew in each epoch.

    Args:
        data: whose batches are changed.
        stretch: largest relative change of width and of height.
        drop: probability of a point within a stroke to be left out.
    """

    def __init__(self, data: Dataset, stretch: float, drop: float) -> None:
        self._data, self._stretch, self._drop = data, stretch, drop

    def size(self, split: str) -> int:
        """The number of drawings of a split."""
        return self._data.size(split)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        """Batches of `ostinato.generation.dataset.Dataset`."""
        found = self._data.batches(split, batch_size=batch_size, seed=seed, epoch=epoch, part=part)
        if split != "train" or seed is None:
            return found

        def change(number: Any, batch: Any) -> Any:
            (rows, labels), total = (batch, None) if part.ranks == 1 else batch
            key = (seed, (epoch << 32) + number)
            changed = augment(rows, self._stretch, self._drop, key, part, total), labels
            return changed if part.ranks == 1 else (changed, total)

        return found.enumerate().map(change)


def augment(
    rows: Any, stretch: float, drop: float, seed: Any, part: Part = Part(), total: Any = None
) -> Any:
    """Stretch drawings, and leave out points within strokes; the other points stay in place.

    Args:
        rows: stroke-5 (batch, row, 5).
        stretch: largest relative change of width and of height.
        drop: probability of a point that neither begins nor ends a stroke.
        seed: two integers.
        part: of a batch that the rows are.
        total: examples of the whole batch; None: as many as rows.
    """
    size, length = tf.unstack(tf.shape(rows)[:2])
    total = size if total is None else total
    first = total * part.rank // part.ranks

    def draw(shape: Any, key: Any) -> Any:
        """The rows' part of random numbers of the whole batch."""
        return tf.random.stateless_uniform(tf.stack([total, *shape]), key)[first : first + size]

    uniform = draw((1, 2), seed)
    positions = tf.cumsum(rows[..., :2] * (1 + stretch * (2 * uniform - 1)), axis=1)
    down = rows[..., 2] > 0
    before = tf.pad(down[:, :-1], ((0, 0), (1, 0)))
    chance = draw((length,), (seed[0], seed[1] + (1 << 31)))
    dropped = down & before & (chance < drop)
    order = tf.argsort(tf.cast(dropped, tf.int32), axis=1, stable=True)
    positions = tf.gather(positions, order, batch_dims=1)
    pens = tf.gather(rows[..., 2:], order, batch_dims=1)
    offsets = positions - tf.pad(positions[:, :-1], ((0, 0), (1, 0), (0, 0)))
    left = tf.shape(rows)[1] - tf.reduce_sum(tf.cast(dropped, tf.int32), axis=1)
    ended = (tf.range(tf.shape(rows)[1])[None] >= left[:, None]) | (pens[..., 2] > 0)
    drawn = (1 - tf.cast(ended, tf.float32))[..., None]
    kept = tf.concat([offsets, pens], axis=2)
    return kept * drawn + tf.constant(END) * (1 - drawn)
