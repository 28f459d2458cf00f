"""A temporal convolutional network: Bai et al. 2018, arXiv 1803.01271."""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ostinato.music.dataset.loader import Dataset
from ostinato.music.layers import (
    Network,
    OutputName,
    State,
    Writer,
    condition_size,
    fit,
    load,
    save,
)
from ostinato.units import DropoutRate, KernelSize, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


class CausalConv(keras.layers.Layer):
    """A dilated convolution over the frames so far.

    Args:
        inputs: number of input channels.
        filters: number of output channels.
        kernel_size: number of frames that it reads.
        dilation: distance of these frames.
    """

    def __init__(self, inputs: int, filters: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.inputs = kernel_size, dilation, inputs
        self.extent = dilation * (kernel_size - 1)
        self.dense = keras.layers.Dense(filters, kernel_initializer="he_normal")
        self.dense.build((None, inputs * kernel_size))
        self.built = True

    def call(self, x: Any) -> Any:
        """Map (batch, frame, input) to (batch, frame, filter)."""
        padded, length = tf.pad(x, [[0, 0], [self.extent, 0], [0, 0]]), tf.shape(x)[1]
        taps = [padded[:, i * self.dilation :][:, :length] for i in range(self.kernel_size)]
        return self.dense(tf.concat(taps, axis=2))

    def step(self, x: Any, buffer: Any) -> tuple[Any, Any]:
        """The output (batch, filter) of one more frame, and the frames that the next one reads."""
        window = tf.concat([buffer, x[:, None]], axis=1)
        taps = tf.reshape(window[:, :: self.dilation], (-1, self.inputs * self.kernel_size))
        return self.dense(taps), window[:, 1:]


class Convolutional(keras.layers.Layer):
    """A temporal convolutional network (Bai et al. 2018, arXiv 1803.01271).

    A level is two dilated causal convolutions with ReLU and dropout, added to their input. The
    dilation doubles with each level. The paper's weight normalisation is left out.

    Args:
        inputs: size of an input.
        filters: channels of a convolution.
        levels: number of levels.
        kernel_size: of the convolutions.
        dropout: rate after each convolution.
    """

    def __init__(
        self, inputs: int, filters: int, levels: int, kernel_size: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [inputs] + [filters] * levels
        self.convolutions = [
            [
                CausalConv(widths[level], filters, kernel_size, 2**level),
                CausalConv(filters, filters, kernel_size, 2**level),
            ]
            for level in range(levels)
        ]
        self.project = keras.layers.Dense(filters)
        self.project.build((None, inputs))
        self.dropouts = [keras.layers.Dropout(dropout) for _ in range(2 * levels)]
        self.size, self.built = filters, True

    def call(self, x: Any, training: bool = False) -> Any:
        """Features (batch, frame, filter) of inputs (batch, frame, input)."""
        for level, pair in enumerate(self.convolutions):
            found = x
            for number, convolution in enumerate(pair):
                found = tf.nn.relu(convolution(found))
                found = self.dropouts[2 * level + number](found, training=training)
            x = tf.nn.relu(found + (x if level else self.project(x)))
        return x

    def start(self, batch: Any) -> State:
        """Silence before the first frame."""
        return [
            tf.zeros((batch, each.extent, each.inputs), self.compute_dtype)
            for pair in self.convolutions
            for each in pair
        ]

    def step(self, x: Any, state: State) -> tuple[Any, State]:
        """The features of one more frame, and the state after it."""
        after = []
        for level, pair in enumerate(self.convolutions):
            found = x
            for number, convolution in enumerate(pair):
                found, buffer = convolution.step(found, state[2 * level + number])
                found = tf.nn.relu(found)
                after.append(buffer)
            x = tf.nn.relu(found + (x if level else self.project(x)))
        return x, after


def network(
    *,
    filters: int,
    levels: int,
    kernel_size: int,
    output: OutputName,
    nade_units: int,
    condition: int,
    dropout: float,
) -> Network:
    """The network of some settings; see `build`."""
    settings = dict(locals())
    trunk = partial(
        Convolutional, filters=filters, levels=levels, kernel_size=kernel_size, dropout=dropout
    )
    return Network(settings, trunk, output, nade_units, condition)


def build(
    data: Dataset,
    *,
    filters: Units,
    levels: NumLayers,
    kernel_size: KernelSize,
    output: OutputName,
    nade_units: Units,
    conditional: bool,
    dropout: DropoutRate,
) -> Network:
    """Build the model.

    Args:
        data: of pieces.
        filters: channels of a convolution.
        levels: pairs of convolutions; the dilation doubles with each.
        kernel_size: frames that a convolution reads.
        output: independent notes, or "nade": each note given those below it.
        nade_units: hidden units of the output "nade".
        conditional: whether the model knows the style and the key.
        dropout: rate after each convolution.
    """
    return network(
        filters=filters,
        levels=levels,
        kernel_size=kernel_size,
        output=output,
        nade_units=nade_units,
        condition=condition_size(data, conditional),
        dropout=dropout,
    )


def restore(folder: Path) -> Writer:
    """Read what `save` has written."""
    return Writer(load(network, folder))
