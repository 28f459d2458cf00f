"""Learning rate schedules, as functions of the finished share of a training."""

from typing import Literal

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from ostinato.errors import ParamsError

Schedule = Literal["constant", "cosine", "cosine_restarts", "cyclical", "inverse_sqrt"]
"""After the warm-up, the learning rate stays at its peak (constant), falls to zero along half a
cosine (Loshchilov & Hutter 2017, arXiv 1608.03983), does so three times, each time over twice as
many steps (cosine_restarts: the warm restarts of the same paper), rises and falls linearly between
a tenth of its peak and its peak, four times (cyclical: the triangular policy of Smith 2017, arXiv
1506.01186), or falls with the inverse square root of the finished share of the training
(inverse_sqrt; Vaswani et al. 2017, arXiv 1706.03762)."""

RESTARTS, CYCLES, LOWEST = 3, 4, 0.1


def check(schedule: Schedule, warmup_fraction: float) -> None:
    """Check that the schedule and the warm-up fit together.

    Raises:
        ParamsError: inverse_sqrt without a warm-up.
    """
    if schedule == "inverse_sqrt" and not warmup_fraction:
        raise ParamsError(
            "fit.warmup_fraction: the schedule inverse_sqrt needs a warm-up; use a value above 0"
        )


def factor(
    schedule: Schedule, warmup_fraction: float, progress: Float[tf.Tensor, ""]
) -> Float[tf.Tensor, ""]:
    """The learning rate relative to its peak, 0 to 1.

    Args:
        schedule: its shape after the warm-up.
        warmup_fraction: the share of the training in which it rises linearly from 0 to 1.
        progress: the finished share of the training, 0 to 1.
    """
    rising = progress / warmup_fraction if warmup_fraction else tf.ones_like(progress)
    if schedule == "constant":
        return tf.minimum(rising, 1.0)
    if schedule == "inverse_sqrt":
        return tf.minimum(rising, tf.math.rsqrt(rising))
    falling = tf.maximum(progress - warmup_fraction, 0.0) / max(1.0 - warmup_fraction, 1e-9)
    if schedule == "cyclical":
        place = 1 - tf.abs(2 * tf.math.floormod(falling * CYCLES, 1.0) - 1)
        return tf.minimum(rising, LOWEST + (1 - LOWEST) * place)
    if schedule == "cosine_restarts":  # cycle n begins after 2^n - 1 of 2^RESTARTS - 1 parts
        parts = tf.minimum(falling, 1 - 1e-6) * (2**RESTARTS - 1)
        cycle = tf.floor(tf.math.log(parts + 1) / np.log(2))
        falling = (parts + 1) / 2**cycle - 1
    return tf.minimum(rising, 0.5 + 0.5 * tf.cos(np.pi * falling))
