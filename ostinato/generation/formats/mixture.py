"""Stroke-5 rows as a mixture of Gaussians and pen states: likelihood, and drawing from it.

Graves 2013, arXiv 1308.0850; Ha and Eck 2017, arXiv 1704.03477. The outputs of a decoder at a row
are the logits of the pen states (down, lifted, end), and for each component a logit, the means of
dx and dy, their log deviations, and the correlation before tanh.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ostinato.generation.formats.drawings import END, START

MIN_LOG_DEVIATION = (
    -6.0
)  # of a Gaussian: the likelihood of offsets that repeat has no bound without it


def mixture_size(components: int) -> int:
    """The number of outputs of a decoder: of the components, and of the pen states."""
    return 6 * components + 3


def _split(outputs: Any) -> tuple[Any, ...]:
    """Pen logits, logits of the components, means, log deviations, and the odds of correlation."""
    components = (outputs.shape[-1] - 3) // 6
    pen, logits, mx, my, sx, sy, correlation = tf.split(outputs, [3, *[components] * 6], axis=-1)
    sx, sy = (tf.maximum(each, MIN_LOG_DEVIATION) for each in (sx, sy))
    return pen, logits, mx, my, sx, sy, correlation


def reconstruction_nats(rows: Any, outputs: Any, longest: int) -> Any:
    """The negative log likelihood of drawings: N_max times L_R of Ha and Eck 2017.

    The offsets of all points, in units of the data set's scale, and the pen states of all rows up
    to N_max. A drawing that has ended stays ended with probability 1, so rows after its first ended
    one add nothing; that one counts if it is one of the N_max rows.

    Args:
        rows: stroke-5 (batch, row, 5).
        outputs: of the decoder that has read the rows before (batch, row, output).
        longest: N_max.

    Returns:
        (batch,), in nats.
    """
    pen, logits, mx, my, sx, sy, odds = _split(tf.cast(outputs, tf.float32))
    drawn = 1 - rows[..., 4]
    before = tf.concat([tf.ones_like(drawn[:, :1]), drawn[:, :-1]], axis=1)
    position = tf.range(tf.shape(rows)[1])
    counts = before * tf.maximum(drawn, tf.cast(position < longest, tf.float32))
    x, y = (
        (rows[..., k : k + 1] - mean) * tf.exp(-s)
        for k, (mean, s) in enumerate(((mx, sx), (my, sy)))
    )
    # log(1 - tanh(a)^2) without cancellation
    log_rest = 2 * (np.log(2.0) - tf.abs(odds) - tf.nn.softplus(-2 * tf.abs(odds)))
    square = x * x + y * y - 2 * tf.tanh(odds) * x * y
    log_density = -square * tf.exp(-log_rest) / 2 - np.log(2 * np.pi) - sx - sy - log_rest / 2
    offsets = tf.reduce_logsumexp(tf.nn.log_softmax(logits) + log_density, axis=-1)
    states = tf.reduce_sum(tf.nn.log_softmax(pen) * rows[..., 2:], axis=-1)
    return -tf.reduce_sum(drawn * offsets + counts * states, axis=1)


def draw(outputs: Any, noise: Any, temperature: Any) -> Any:
    """Draw stroke-5 rows from the outputs of a decoder.

    Args:
        outputs: (batch, output).
        noise: two uniform numbers and two of the standard normal distribution (batch, 4).
        temperature: divides the logits, and multiplies the variances (batch,).
    """
    pen, logits, mx, my, sx, sy, odds = _split(tf.cast(outputs, tf.float32))
    heat = temperature[:, None]
    component = _choose(logits / heat, noise[:, 0])
    state = _choose(pen / heat, noise[:, 1])
    mx, my, sx, sy, odds = (
        tf.gather(each, component, axis=1, batch_dims=1) for each in (mx, my, sx, sy, odds)
    )
    root, correlation = tf.sqrt(temperature), tf.tanh(odds)
    one, two = noise[:, 2], noise[:, 3]
    dx = mx + tf.exp(sx) * root * one
    dy = my + tf.exp(sy) * root * (correlation * one + tf.sqrt(1 - correlation**2) * two)
    return tf.concat([tf.stack([dx, dy], axis=1), tf.one_hot(state, 3)], axis=1)


def _choose(logits: Any, uniform: Any) -> Any:
    """An index for each row of logits, by a uniform number."""
    bounds = tf.cumsum(tf.nn.softmax(logits), axis=1)
    below = tf.reduce_sum(tf.cast(bounds <= uniform[:, None], tf.int32), axis=1)
    return tf.minimum(below, logits.shape[1] - 1)


def roll_out(
    step: Callable[[Any, Any, Sequence[Any]], tuple[Any, Sequence[Any]]],
    state: Sequence[Any],
    noise: Any,
    temperature: Any,
    beginnings: Any,
    lengths: Any,
    scale: float,
) -> Any:
    """Draw in one graph: each row is drawn from what the decoder says after those before.

    Args:
        step: maps (t, rows (batch, 5), state) to the outputs (batch, output) and the next state.
        state: of the decoder.
        noise: for each row, see `draw` (batch, row, 4).
        temperature: (batch,).
        beginnings: rows that are given (batch, given, 5).
        lengths: number of given rows (batch,).
        scale: pixels of a unit: offsets are whole pixels, as those of the training drawings.

    Returns:
        stroke-5 rows (batch, row, 5), with ended rows after the end.
    """
    count, total = tf.shape(noise)[0], tf.shape(noise)[1]
    given = tf.shape(beginnings)[1]
    rows = tf.TensorArray(tf.float32, total, element_shape=(None, 5))

    def body(t: Any, row: Any, rows: Any, *state: Any) -> Any:
        outputs, after = step(t, row, state)
        drawn = draw(outputs, noise[:, t], temperature)
        drawn = tf.concat([tf.round(drawn[:, :2] * scale) / scale, drawn[:, 2:]], axis=1)
        forced = beginnings[:, tf.minimum(t, given - 1)]
        drawn = tf.where((t < lengths)[:, None], forced, drawn)
        # An end has no offset, and nothing comes after it.
        ended = (row[:, 4:] > 0) | (drawn[:, 4:] > 0)
        drawn = tf.where(ended, tf.convert_to_tensor(END), drawn)
        return t + 1, drawn, rows.write(t, drawn), *after

    def more(t: Any, row: Any, *_: Any) -> Any:
        return (t < total) & tf.reduce_any(row[:, 4] < 1)

    first = tf.tile(START[None], (count, 1))
    t, _, rows, *_ = tf.while_loop(
        more, body, (0, first, rows, *state), maximum_iterations=total, parallel_iterations=1
    )
    padding = tf.tile(END[None, None], (count, total - t, 1))
    found = tf.transpose(rows.gather(tf.range(t)), (1, 0, 2))
    return tf.concat([found, padding], axis=1)
