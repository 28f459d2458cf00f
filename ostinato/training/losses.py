"""Losses and metrics that Keras does not have, and the direction of every metric of training.

Each function maps a truth and a prediction to values without the trailing axis. A ``fit`` block of
params.yaml refers to them by name.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import ops

from ostinato.errors import ParamsError
from ostinato.params import near

FUNCTIONS = ("median_error", "pinball", "token_accuracy", "token_crossentropy")
"""The losses and metrics of this module."""

HIGHER_IS_BETTER = {
    "loss": False,
    "accuracy": True,
    "perplexity": False,
    # of this module
    "median_error": False,
    "pinball": False,
    "token_accuracy": True,
    "token_crossentropy": False,
    # of keras.metrics
    "binary_accuracy": True,
    "binary_crossentropy": False,
    "binary_focal_crossentropy": False,
    "categorical_accuracy": True,
    "categorical_crossentropy": False,
    "categorical_focal_crossentropy": False,
    "categorical_hinge": False,
    "concordance_correlation": True,
    "hinge": False,
    "huber": False,
    "kl_divergence": False,
    "log_cosh": False,
    "mean_absolute_error": False,
    "mean_absolute_percentage_error": False,
    "mean_squared_error": False,
    "mean_squared_logarithmic_error": False,
    "pearson_correlation": True,
    "poisson": False,
    "sparse_categorical_accuracy": True,
    "sparse_categorical_crossentropy": False,
    "sparse_top_k_categorical_accuracy": True,
    "squared_hinge": False,
    "top_k_categorical_accuracy": True,
}
"""The direction of each metric that a record of training may have."""


def higher_is_better(name: str, function: Callable[..., Any] | None = None) -> bool:
    """The direction of a metric.

    Args:
        name: with or without ``validation_``.
        function: of a metric that is not in `HIGHER_IS_BETTER`; its attribute
            ``higher_is_better`` is used.

    Raises:
        ParamsError: neither says it.
    """
    metric = name.removeprefix("validation_")
    direction = HIGHER_IS_BETTER.get(metric, getattr(function, "higher_is_better", None))
    if direction is None:
        raise ParamsError(
            f"{name!r}: whether a higher value is better is unknown; "
            f"{near(metric, HIGHER_IS_BETTER)}, or set the attribute higher_is_better of the "
            "metric's function"
        )
    return bool(direction)


def pinball(truth: Any, quantiles: Any) -> Any:
    """Quantile loss (Koenker & Bassett 1978), twice its mean over the quantiles.

    The n quantiles are those at the levels (i + 1/2) / n. With these levels the loss is the
    continuous ranked probability score of the distribution that gives equal weight to each quantile
    (Dabney et al. 2017, arXiv 1710.10044); with one quantile it is the absolute error.

    Args:
        truth: (batch, horizon, 1).
        quantiles: (batch, horizon, quantile), in increasing order.

    Returns:
        (batch, horizon).
    """
    count = quantiles.shape[-1]
    levels = (ops.arange(count, dtype=quantiles.dtype) + 0.5) / count
    difference = truth - quantiles
    return 2 * ops.mean(ops.maximum(levels * difference, (levels - 1) * difference), axis=-1)


def median_error(truth: Any, quantiles: Any) -> Any:
    """Absolute error of the median of the quantiles.

    Args:
        truth: (batch, horizon, 1).
        quantiles: (batch, horizon, quantile), in increasing order.

    Returns:
        (batch, horizon).
    """
    count = quantiles.shape[-1]
    median = (quantiles[..., (count - 1) // 2] + quantiles[..., count // 2]) / 2
    return ops.abs(truth[..., 0] - median)


def token_crossentropy(truth: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Negative log-likelihood of each token, in nats.

    It takes a fifth of the time of TensorFlow's own functions: the logits are most of the memory of
    a small model, so each pass over them counts, and this function makes few.

    Args:
        truth: integers (batch, token).
        logits: (batch, token, vocabulary).
        label_smoothing: share of the truth's probability that is spread evenly over the
            vocabulary (Szegedy et al. 2016, arXiv 1512.00567).

    Returns:
        (batch, token).
    """
    truth = tf.cast(truth, tf.int32)

    @tf.custom_gradient
    def loss(logits: Any) -> Any:
        top = tf.reduce_max(logits, axis=-1, keepdims=True)
        exp = tf.exp(logits - top)
        total = tf.reduce_sum(exp, axis=-1)
        values = tf.math.log(total) + top[..., 0]
        values -= (1 - label_smoothing) * tf.gather(logits, truth, batch_dims=2)
        if label_smoothing:
            values -= label_smoothing * tf.reduce_mean(logits, axis=-1)

        def gradient(upstream: Any) -> Any:
            slope = exp * (upstream / total)[..., None]
            if label_smoothing:
                slope -= (upstream * label_smoothing / logits.shape[-1])[..., None]
            rows, columns = tf.meshgrid(*map(tf.range, tf.unstack(tf.shape(truth))), indexing="ij")
            indices = tf.stack([rows, columns, truth], axis=-1)
            return tf.tensor_scatter_nd_sub(slope, indices, (1 - label_smoothing) * upstream)

        return values, gradient

    return loss(logits)


def token_accuracy(truth: Any, logits: Any) -> Any:
    """1 where the truth has the highest logit, else 0.

    Args:
        truth: integers (batch, token).
        logits: (batch, token, vocabulary).

    Returns:
        (batch, token), float32.
    """
    return tf.cast(tf.argmax(logits, axis=-1, output_type=truth.dtype) == truth, tf.float32)
