"""Keras layers of more than one domain.

They keep one law: appending padding to a sequence changes nothing. Keras itself drops the mask at
a convolution (with a warning) and lets padding into its window, and pads strided "same"
convolutions by an amount that depends on the padded length; these layers do neither.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

__all__ = ["LSTM", "MaskedConv1D", "MaskedPooling"]


@keras.saving.register_keras_serializable(package="ostinato")
class MaskedConv1D(keras.layers.Conv1D):
    """A 1D convolution, "same" padded, that reads padding as zeroes and carries the mask along.

    Output ``t`` is centred on input ``stride * t`` whatever the padded length; a sequence of n
    points becomes one of ceil(n / stride). Arguments are those of ``keras.layers.Conv1D``.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "valid"})

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """(batch, point, feature) to (batch, ceil(point / stride), filter)."""
        if mask is not None:
            inputs = ops.where(mask[..., None], inputs, 0)
        reach = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return super().call(ops.pad(inputs, ((0, 0), (reach // 2, reach - reach // 2), (0, 0))))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, ceil(point / stride), filter)."""
        batch, length, _ = input_shape
        return (batch, None if length is None else -(-length // self.strides[0]), self.filters)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Every stride-th element: right-padded masks keep ceil(length / stride) points."""
        return None if mask is None else mask[:, :: self.strides[0]]


@keras.saving.register_keras_serializable(package="ostinato")
class LSTM(keras.layers.LSTM):
    """Keras' LSTM (its arguments, weights and answers), with a faster loop on CPU.

    Masks are right-padded, as for cuDNN; padded steps come out as zeroes. The loop does a step's
    recurrent product and gates alone: the products with inputs, and those of all weights'
    gradients, are done for all steps at once. A fifth less time than Keras' loop at 128 units.
    With a GPU, or an argument that the loop does not know, it is Keras' own.
    """

    def inner_loop(
        self, ostinato: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """(batch, point, feature) to last state, (batch, point, unit) and the states."""
        cell = self.cell
        plain = (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
            and not (cell.dropout or cell.recurrent_dropout)
            and not (self.unroll or self.stateful or self.return_state)
        )
        if not plain or tf.config.list_logical_devices("GPU"):
            return super().inner_loop(ostinato, initial_state, mask, training)
        if mask is None:
            mask = tf.ones(tf.shape(ostinato)[:2], tf.bool)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)

        def turned(x: Any) -> Any:
            return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)

        x = tf.transpose(ostinato, (1, 0, 2))
        weights = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
        states = _lstm(turned(x) if self.go_backwards else x, *weights, *initial_state)
        states = tf.where(tf.transpose(mask)[..., None], states, 0)
        rows = tf.range(tf.shape(lengths)[0])
        last = tf.gather_nd(states, tf.stack([tf.maximum(lengths - 1, 0), rows], axis=1))
        if self.go_backwards:  # Keras' order: the last point first, so the padding before all
            states = tf.reverse(turned(states), axis=[0])
        return last, tf.transpose(states, (1, 0, 2)), initial_state


@tf.custom_gradient
def _lstm(x: Any, kernel: Any, recurrent: Any, bias: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """States (point, batch, unit) of an LSTM on x (point, batch, feature), begun at h and c."""
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
        squashed = tf.tanh(c)
        h = o * squashed
        for k, gate in enumerate((i, f, g, o, squashed)):
            gates = gates.write(5 * t + k, gate)
        return t + 1, h, c, hs.write(t, h), cs.write(t + 1, c), gates

    begin = (0, h, c, array(steps, units), array(steps + 1, units).write(0, c))
    *_, hs, cs, gates = loop(lambda t, *_: t < steps, forward, (*begin, array(5 * steps, units)))
    states = hs.stack()

    def gradient(upstream: Any) -> tuple[Any, ...]:
        def backward(t: Any, dh: Any, dc: Any, dzs: Any) -> tuple[Any, ...]:
            i, f, g, o, squashed = (gates.read(5 * t + k) for k in range(5))
            dh = dh + upstream[t]
            dc = dc + dh * o * (1 - squashed * squashed)
            di, df, dg = dc * g * i * (1 - i), dc * cs.read(t) * f * (1 - f), dc * i * (1 - g * g)
            dz = tf.concat([di, df, dg, dh * squashed * o * (1 - o)], axis=1)
            return t - 1, tf.matmul(dz, recurrent, transpose_b=True), dc * f, dzs.write(t, dz)

        end = (steps - 1, tf.zeros_like(h), tf.zeros_like(c), array(steps, 4 * units))
        _, dh, dc, dzs = loop(lambda t, *_: t >= 0, backward, end)
        dz = tf.reshape(dzs.stack(), (-1, 4 * units))
        before = tf.reshape(tf.concat([h[None], states[:-1]], axis=0), (-1, units))
        return (
            tf.reshape(tf.matmul(dz, kernel, transpose_b=True), tf.shape(x)),
            tf.matmul(flat, dz, transpose_a=True),
            tf.matmul(before, dz, transpose_a=True),
            tf.reduce_sum(dz, axis=0),
            dh,
            dc,
        )

    return states, gradient


@keras.saving.register_keras_serializable(package="ostinato")
class MaskedPooling(keras.layers.Layer):
    """Sum, mean or maximum over the points that the mask leaves in; 0 where it leaves none."""

    def __init__(self, pool: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pool not in ("sum", "mean", "max"):
            raise ValueError(f"pool: expected sum, mean or max, found {pool!r}")
        self.pool = pool

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """(batch, point, feature) to (batch, feature)."""
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], "bool")
        some = mask[..., None]
        if self.pool == "max":
            highest = ops.max(ops.where(some, inputs, -float("inf")), axis=1)
            return ops.where(ops.any(some, axis=1), highest, 0)
        # Half precision would lose the small terms of a long sum.
        total = ops.sum(ops.where(some, ops.cast(inputs, "float32"), 0), axis=1)
        if self.pool == "mean":
            total = total / ops.maximum(ops.sum(ops.cast(some, "float32"), axis=1), 1)
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No points are left to mask."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, feature)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "pool": self.pool}
