"""The decoding loop in TensorFlow: finished sequences leave the batch."""

from collections.abc import Callable
from typing import Any

from ostinato.decoding.interface import Constraints, State, Tensor

COMPACT_BELOW = 7 / 8  # share of unfinished sequences below which the batch is compacted


def decode_loop(
    body: Callable[[Tensor, State, State, Any], tuple[State, Any]],
    unfinished: Callable[[State], Tensor],
    inputs: State,
    state: State,
    outputs: Any,
) -> Any:
    """Run ``body`` until all sequences are finished; return the outputs.

    Whenever enough sequences are finished, their outputs are written to the result and they are
    removed from the batch.

    Args:
        body: ``body(t, inputs, state, outputs) -> (state, outputs)``, one time step.
        unfinished: ``unfinished(state)``, bool (batch,).
        inputs: a nest (batch, ...) that does not change, except that rows are removed.
        state: a nest (batch, ...).
        outputs: a nest (batch, ...).
    """
    import tensorflow as tf

    def full(t: Tensor, state: State, outputs: Any) -> Tensor:
        alive = tf.cast(unfinished(state), tf.float32)
        return tf.reduce_sum(alive) > COMPACT_BELOW * tf.cast(tf.size(alive), tf.float32)

    def run_and_compact(
        rows: Tensor, result: Any, t: Tensor, state: State, outputs: Any, inputs: State
    ) -> tuple[Any, ...]:
        initial = (t, state, outputs)
        t, state, outputs = tf.while_loop(
            full,
            lambda t, state, outputs: (t + 1, *body(t, inputs, state, outputs)),
            initial,
            shape_invariants=tf.nest.map_structure(growing_shape, initial),
        )
        result = tf.nest.map_structure(
            lambda whole, part: tf.tensor_scatter_nd_update(whole, rows[:, None], part),
            result,
            outputs,
        )
        remaining = tf.where(unfinished(state))[:, 0]
        rows, state, outputs, inputs = tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, remaining), (rows, state, outputs, inputs)
        )
        return rows, result, t, state, outputs, inputs

    rows = tf.range(tf.shape(outputs[0])[0])
    initial = (rows, outputs, tf.constant(0), state, outputs, inputs)
    _, result, *_ = tf.while_loop(
        lambda rows, *_: tf.size(rows) > 0,
        run_and_compact,
        initial,
        shape_invariants=tf.nest.map_structure(growing_shape, initial),
    )
    return result


def growing_shape(leaf: Tensor) -> Any:
    """The shape invariant of a tensor of which all axes but that of features may change."""
    import tensorflow as tf

    shape = leaf.shape.as_list()
    return tf.TensorShape([None] * len(shape[:2]) + [None] * len(shape[2:-1]) + shape[2:][-1:])


def batched_constraints(constraints: Constraints) -> tuple[dict[str, Tensor], Tensor]:
    """The constraints that have a row for each sequence, and the maximum length with eos."""
    import tensorflow as tf

    arrays = {
        name: tf.cast(getattr(constraints, name), tf.int32) for name in ("min_length", "max_length")
    }
    batch = tf.shape(arrays["max_length"])[0]
    if constraints.prefix is not None:
        arrays["prefix"] = tf.cast(constraints.prefix, tf.int32)
    if constraints.allowed is not None:
        allowed = tf.cast(constraints.allowed, tf.bool)
        arrays["allowed"] = tf.broadcast_to(allowed, (batch, tf.shape(allowed)[1]))
    return arrays, tf.maximum(tf.reduce_max(arrays["max_length"]), 0) + 1
