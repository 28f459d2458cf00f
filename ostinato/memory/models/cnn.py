"""Strided convolutions over time and a dense layer: the convolutional network of MNIST-1D.

Greydanus 2020, arXiv 2011.14439. It reads sequences of one number of steps, with one answer at the
end. Input: (batch, step, feature).
"""

import keras

from ostinato.errors import ParamsError
from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import dense_answer, fit, restore, save, sequence_input
from ostinato.units import DropoutRate, KernelSize, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: ModelData,
    *,
    filters: Units,
    kernel_size: KernelSize,
    num_layers: NumLayers,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: of sequences with one number of steps and one answer.
        filters: of each convolution.
        kernel_size: of each convolution, in steps; its stride is 2.
        num_layers: number of convolutions.
        dropout: rate before the last layer.

    Raises:
        ParamsError: the number of steps varies, or there is an answer at each step.
    """
    if data.per_step:
        raise ParamsError("cnn: this task has an answer at each step; choose the model tcn")
    inputs = sequence_input(data, fixed=True)
    x = inputs
    for _ in range(num_layers):
        x = keras.layers.Conv1D(filters, kernel_size, strides=2, padding="same", activation="relu")(
            x
        )
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    return keras.Model(inputs, dense_answer(data)(x))
