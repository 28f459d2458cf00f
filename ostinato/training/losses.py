"""Losses and metrics that Keras does not have; ``fit`` finds them by their names.

Each maps a truth and a prediction to values whose trailing axis is gone.
"""

from typing import Any

import tensorflow as tf
from keras import ops

__all__ = ["median_error", "pinball", "token_accuracy", "token_crossentropy"]


def pinball(truth: Any, quantiles: Any) -> Any:
    """Quantile loss, twice its mean over the quantiles (Koenker & Bassett 1978).

    The n quantiles are those at the levels (i + 1/2) / n, so that it is the continuous ranked
    probability score of a distribution with equal weights on them (Dabney et al. 2017, arXiv
    1710.10044); with one quantile it is the absolute error.

    Args:
        truth: (batch, horizon, 1).
        quantiles: (batch, horizon, quantile), in increasing order.

    Returns:
        (batch, horizon).
    """
    count = quantiles.shape[-1]
    levels = (ops.arange(count, dtype=quantiles.dtype) + 0.5) / count
    over = truth - quantiles
    return 2 * ops.mean(ops.maximum(levels * over, (levels - 1) * over), axis=-1)


def median_error(truth: Any, quantiles: Any) -> Any:
    """Absolute error of the median of (batch, horizon, quantile) quantiles: (batch, horizon)."""
    count = quantiles.shape[-1]
    middle = (quantiles[..., (count - 1) // 2] + quantiles[..., count // 2]) / 2
    return ops.abs(truth[..., 0] - middle)


def token_crossentropy(truth: Any, logits: Any, smoothing: float = 0.0) -> Any:
    """What each token costs, in nats: int (batch, token) and logits (batch, token, piece).

    With label smoothing (Szegedy et al. 2016, arXiv 1512.00567) that share of the truth's
    probability is spread evenly over all pieces. Each of the few passes over the logits counts,
    as they are most of a small model's memory: a fifth of the time of TensorFlow's own functions.
    """
    truth = tf.cast(truth, tf.int32)

    @tf.custom_gradient
    def loss(logits: Any) -> Any:
        top = tf.reduce_max(logits, axis=-1, keepdims=True)
        exp = tf.exp(logits - top)
        total = tf.reduce_sum(exp, axis=-1)
        values = tf.math.log(total) + top[..., 0]
        values -= (1 - smoothing) * tf.gather(logits, truth, batch_dims=2)
        if smoothing:
            values -= smoothing * tf.reduce_mean(logits, axis=-1)

        def gradient(upstream: Any) -> Any:
            slope = exp * (upstream / total)[..., None]
            if smoothing:
                slope -= (upstream * smoothing / logits.shape[-1])[..., None]
            rows, places = tf.meshgrid(*map(tf.range, tf.unstack(tf.shape(truth))), indexing="ij")
            right = tf.stack([rows, places, truth], axis=-1)
            return tf.tensor_scatter_nd_sub(slope, right, (1 - smoothing) * upstream)

        return values, gradient

    return loss(logits)


def token_accuracy(truth: Any, logits: Any) -> Any:
    """1 where the truth's logit is the highest of (..., piece), else 0."""
    return tf.cast(tf.argmax(logits, axis=-1, output_type=truth.dtype) == truth, tf.float32)
