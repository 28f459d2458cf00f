"""Batches of pairs of similar length, with about equally many tokens."""

from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from ostinato.translation.dataset.tokenizer import BOS, EOS, PAD

JITTER = 0.1  # relative random change of a pair's length before sorting


def length_batches(
    lengths: Int32[np.ndarray, "side pair"],
    max_tokens: float,
    seed: int | None,
    epoch: int,
    window: int,
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, "batch 2"]]:
    """Sort pairs by length and cut them into batches.

    Args:
        lengths: number of tokens with eos.
        max_tokens: maximum number of tokens of a batch on either side, with padding. A pair that
            is longer is a batch by itself.
        seed: of the jitter and of the order of the batches; None turns both off.
        epoch: a different order for each epoch.
        window: index of this set of pairs in the epoch.

    Returns:
        The order of the pairs, and the range (begin, end) of each batch in it.
    """
    longer = lengths.max(axis=0).astype(np.float64)
    rng = np.random.default_rng([0 if seed is None else seed, epoch, window])
    keys = longer if seed is None else longer * (1 + JITTER * rng.random(len(longer)))
    order = np.argsort(keys, kind="stable")
    # The maximum so far, as the jitter makes lengths rise only roughly.
    longest = np.maximum.accumulate(longer[order])
    batches, begin = [], 0
    while begin < len(order):
        counts = np.arange(1, len(order) - begin + 1)[: int(max_tokens)]
        fits = np.searchsorted(
            counts * longest[begin : begin + len(counts)], max_tokens, side="right"
        )
        end = begin + max(1, int(fits))
        batches.append((begin, end))
        begin = end
    ranges = np.array(batches, np.int64).reshape(-1, 2)
    return order, ranges if seed is None else rng.permutation(ranges)


def to_tensors(source: Any, target: Any) -> Any:
    """Decode and pad the bytes of a batch: (x, y, weight) of `TranslationDataset.batches`.

    Args:
        source: string tensor (batch,), the int32 tokens of each source.
        target: the same of each target.
    """
    import tensorflow as tf

    def decode(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        sizes = tf.strings.length(content)
        longest = tf.maximum(tf.reduce_max(sizes), 4)
        rows = tf.io.decode_raw(content, tf.int32, fixed_length=longest)
        return rows, sizes // 4

    def append_eos(rows: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """Put eos after the last token and trim to the longest row."""
        rows = tf.pad(rows, ((0, 0), (0, 1)))[:, : tf.reduce_max(sizes) + 1]
        return tf.where(tf.range(tf.shape(rows)[1]) == sizes[:, None], EOS, rows)

    x, y = append_eos(*decode(source)), append_eos(*decode(target))
    bos = tf.fill((tf.shape(y)[0], 1), BOS)
    before = tf.concat([bos, tf.where(y == EOS, PAD, y)[:, :-1]], 1)
    weight = tf.cast(y != PAD, tf.float32)
    return {"source": x, "before": before}, y, weight
