"""Batches of pairs of similar length, with about equally many tokens."""

from typing import Any

import numpy as np
from jaxtyping import Int64

from ostinato.data.batches import OwnExamples
from ostinato.translation.dataset.tokenizer import BOS, EOS, PAD, SIDES

JITTER = 0.1  # relative random change of a pair's length before sorting


def length_batches(
    lengths: Int64[np.ndarray, "side pair"],
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


def to_tensors(mine: OwnExamples) -> Any:
    """Parse, decode and pad the records of a batch: (x, y, weight) of `TranslationDataset.batches`.

    Args:
        mine: records of `writing.write`; their lengths are tokens of the source and of the target.
    """
    import tensorflow as tf

    schema = {f"{side}_tokens": tf.io.FixedLenFeature((), tf.string) for side in SIDES}
    parsed = tf.io.parse_example(mine.contents, schema)

    def decode(content: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
        """The tokens of a side with eos, padded to the longest text of the whole batch."""
        longest, sizes = tf.cast(longest, tf.int32), tf.strings.length(content) // 4
        rows = tf.io.decode_raw(content, tf.int32, fixed_length=4 * (longest + 1))
        return tf.where(tf.range(longest + 1) == sizes[:, None], EOS, rows)

    x, y = (decode(parsed[f"{side}_tokens"], mine.longest[i]) for i, side in enumerate(SIDES))
    bos = tf.fill((tf.shape(y)[0], 1), BOS)
    before = tf.concat([bos, tf.where(y == EOS, PAD, y)[:, :-1]], 1)
    weight = tf.cast(y != PAD, tf.float32)
    return {"source": x, "before": before}, y, weight
