"""The attention of a model while it generates given sequences, in TensorFlow."""

from typing import Any

from ostinato.decoding.interface import State, Step, Tensor
from ostinato.decoding.loop import growing_shape


def align(step: Step, state: State, shared: State, tokens: Tensor, bos: int) -> Tensor | None:
    """Compute the attention for each token of given sequences (forced decoding).

    Args:
        step: see `Step`.
        state: the initial state, a nest of tensors (batch, ...).
        shared: a nest of tensors (batch, ...).
        tokens: int32 (batch, hypothesis, position), as in `DecodeResult`.
        bos: token that precedes each sequence.

    Returns:
        float32 (batch, hypothesis, position, source); None if the step function returns no
        attention.
    """
    import tensorflow as tf

    shape = tf.shape(tokens)
    inputs = tf.pad(tokens[..., :-1], ((0, 0), (0, 0), (1, 0)), constant_values=bos)
    state = tf.nest.map_structure(lambda leaf: tf.repeat(leaf[:, None], shape[1], axis=1), state)
    if step(inputs[..., 0], state, shared)[1] is None:
        return None

    def body(t: Tensor, rows: Any, state: State) -> tuple[Any, ...]:
        _, attention, state = step(inputs[..., t], state, shared)
        return t + 1, rows.write(t, tf.cast(attention, tf.float32)), state

    initial = (tf.constant(0), tf.TensorArray(tf.float32, shape[2]), state)
    shapes = (tf.TensorShape([]), None, tf.nest.map_structure(growing_shape, state))
    _, rows, _ = tf.while_loop(lambda t, *_: t < shape[2], body, initial, shape_invariants=shapes)
    return tf.transpose(rows.stack(), (1, 2, 0, 3))
