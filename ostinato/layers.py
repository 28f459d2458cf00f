"""Keras layers that several domains use.

Their law: appending padding to a sequence changes nothing. Keras' convolutions break it: they drop
the mask (with a warning), read padding as data, and pad strided "same" convolutions by an amount
that depends on the padded length.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

__all__ = ["LSTM", "MaskedConv1D", "MaskedPooling"]


@keras.saving.register_keras_serializable(package="ostinato")
class MaskedConv1D(keras.layers.Conv1D):
    """A "same" padded 1D convolution that reads masked points as zeros and propagates the mask.

    Output ``t`` is centred on input ``stride * t``, whatever the padded length; a sequence of n
    points becomes one of ceil(n / stride). Arguments are those of ``keras.layers.Conv1D``.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "valid"})

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Map (batch, point, feature) to (batch, ceil(point / stride), filter)."""
        if mask is not None:
            inputs = ops.where(mask[..., None], inputs, 0)
        extent = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return super().call(ops.pad(inputs, ((0, 0), (extent // 2, extent - extent // 2), (0, 0))))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape (batch, ceil(point / stride), filter)."""
        batch, length, _ = input_shape
        return (batch, None if length is None else -(-length // self.strides[0]), self.filters)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Every stride-th element: of a right-padded mask, ceil(length / stride) points remain."""
        return None if mask is None else mask[:, :: self.strides[0]]


@keras.saving.register_keras_serializable(package="ostinato")
class LSTM(keras.layers.LSTM):
    """Keras' LSTM (same arguments, weights and outputs) with a faster loop on CPU.

    Masks must be right-padded, as for cuDNN; the outputs of masked steps are zeros. The loop
    computes only the recurrent product and the gates of a step. The products with the inputs, and
    the gradients of the weights, are computed for all steps in one matrix product each. It takes a
    fifth less time than Keras' loop at 128 units. Keras' loop runs where there is a GPU, or with an
    argument that this loop does not support.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """Map (batch, point, feature) to the last output, all outputs, and the states.

        The last output is (batch, unit), all outputs are (batch, point, unit). Keras calls this
        method with these argument names.
        """
        cell = self.cell
        supported = (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
            and not (cell.dropout or cell.recurrent_dropout)
            and not (self.unroll or self.stateful or self.return_state)
        )
        if not supported or tf.config.list_logical_devices("GPU"):
            return super().inner_loop(sequences, initial_state, mask, training)
        if mask is None:
            mask = tf.ones(tf.shape(sequences)[:2], tf.bool)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)

        def reverse(x: Any) -> Any:
            return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)

        x = tf.transpose(sequences, (1, 0, 2))
        weights = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
        states = _lstm(reverse(x) if self.go_backwards else x, *weights, *initial_state)
        states = tf.where(tf.transpose(mask)[..., None], states, 0)
        rows = tf.range(tf.shape(lengths)[0])
        last = tf.gather_nd(states, tf.stack([tf.maximum(lengths - 1, 0), rows], axis=1))
        if self.go_backwards:  # Keras' order: the padding, then the last point first
            states = tf.reverse(reverse(states), axis=[0])
        return last, tf.transpose(states, (1, 0, 2)), initial_state


@tf.custom_gradient
def _lstm(x: Any, kernel: Any, recurrent: Any, bias: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """The states of an LSTM, with a gradient of its own.

    Args:
        x: inputs (point, batch, feature).
        kernel: weights of the inputs (feature, 4 * unit), for the gates i, f, g, o.
        recurrent: weights of the state (unit, 4 * unit).
        bias: (4 * unit,).
        h: initial state (batch, unit).
        c: initial cell state (batch, unit).

    Returns:
        (point, batch, unit).
    """
    steps, batch, features = tf.shape(x)[0], tf.shape(x)[1], x.shape[2]
    units = recurrent.shape[0]
    flat = tf.reshape(x, (-1, features))
    projected = tf.nn.bias_add(tf.matmul(flat, kernel), bias)

    def array(size: Any, width: int) -> Any:
        shape = tf.TensorShape([None, width])
        return tf.TensorArray(x.dtype, size, element_shape=shape, clear_after_read=False)

    def loop(condition: Any, body: Any, state: tuple[Any, ...]) -> Any:
        return tf.while_loop(
            condition, body, state, maximum_iterations=steps, parallel_iterations=1
        )

    def forward(t: Any, h: Any, c: Any, hs: Any, cs: Any, gates: Any) -> tuple[Any, ...]:
        z = projected[t * batch : (t + 1) * batch] + tf.matmul(h, recurrent)
        i, f, g, o = tf.split(z, 4, axis=1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        tanh_c = tf.tanh(c)
        h = o * tanh_c
        for k, gate in enumerate((i, f, g, o, tanh_c)):
            gates = gates.write(5 * t + k, gate)
        return t + 1, h, c, hs.write(t, h), cs.write(t + 1, c), gates

    start = (0, h, c, array(steps, units), array(steps + 1, units).write(0, c))
    *_, hs, cs, gates = loop(lambda t, *_: t < steps, forward, (*start, array(5 * steps, units)))
    states = hs.stack()

    def gradient(upstream: Any) -> tuple[Any, ...]:
        def backward(t: Any, dh: Any, dc: Any, dzs: Any) -> tuple[Any, ...]:
            i, f, g, o, tanh_c = (gates.read(5 * t + k) for k in range(5))
            dh = dh + upstream[t]
            dc = dc + dh * o * (1 - tanh_c * tanh_c)
            di, df, dg = dc * g * i * (1 - i), dc * cs.read(t) * f * (1 - f), dc * i * (1 - g * g)
            dz = tf.concat([di, df, dg, dh * tanh_c * o * (1 - o)], axis=1)
            return t - 1, tf.matmul(dz, recurrent, transpose_b=True), dc * f, dzs.write(t, dz)

        end = (steps - 1, tf.zeros_like(h), tf.zeros_like(c), array(steps, 4 * units))
        _, dh, dc, dzs = loop(lambda t, *_: t >= 0, backward, end)
        dz = tf.reshape(dzs.stack(), (-1, 4 * units))
        previous = tf.reshape(tf.concat([h[None], states[:-1]], axis=0), (-1, units))
        return (
            tf.reshape(tf.matmul(dz, kernel, transpose_b=True), tf.shape(x)),
            tf.matmul(flat, dz, transpose_a=True),
            tf.matmul(previous, dz, transpose_a=True),
            tf.reduce_sum(dz, axis=0),
            dh,
            dc,
        )

    return states, gradient


@keras.saving.register_keras_serializable(package="ostinato")
class MaskedPooling(keras.layers.Layer):
    """Sum, mean or maximum over the points that are not masked; 0 where all are masked."""

    def __init__(self, pool: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pool not in ("sum", "mean", "max"):
            raise ValueError(f"pool: expected sum, mean or max, found {pool!r}")
        self.pool = pool

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Map (batch, point, feature) to (batch, feature)."""
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], "bool")
        valid = mask[..., None]
        if self.pool == "max":
            highest = ops.max(ops.where(valid, inputs, -float("inf")), axis=1)
            return ops.where(ops.any(valid, axis=1), highest, 0)
        # Half precision drops the small terms of a long sum.
        total = ops.sum(ops.where(valid, ops.cast(inputs, "float32"), 0), axis=1)
        if self.pool == "mean":
            total = total / ops.maximum(ops.sum(ops.cast(valid, "float32"), axis=1), 1)
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: the output has no points to mask."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape (batch, feature)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "pool": self.pool}
