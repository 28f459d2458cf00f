"""Strided 1D convolutions with batch normalisation, then stacked LSTMs on the shorter sequence.

After Géron 2019, Hands-On Machine Learning, ch. 15, exercise on SketchRNN's drawings. Here the
convolutions also shorten the mask. Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167)
ignores padding.

Input: (batch, point, 3), zero-padded. Output: probabilities (batch, class).
"""

import keras

from ostinato.layers import LSTM, MaskedConv1D
from ostinato.sketches.dataset.protocols import ModelData
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, NumLayers, Stride, Units

__all__ = ["build", "fit"]


def build(
    data: ModelData,
    *,
    filters: list[Units],
    kernel_sizes: list[KernelSize],
    strides: list[Stride],
    units: Units,
    num_layers: NumLayers,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: of strokes.
        filters: number of filters of each convolution.
        kernel_sizes: of each convolution, in points of its input.
        strides: of each convolution, in points of its input.
        units: of an LSTM.
        num_layers: number of LSTMs; the last one returns its final state.
        dropout: rate after the convolutions and after each LSTM.
    """
    inputs, x = points(data)
    for num_filters, kernel_size, stride in zip(filters, kernel_sizes, strides, strict=True):
        x = MaskedConv1D(num_filters, kernel_size, strides=stride, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        x = LSTM(units, return_sequences=depth < num_layers - 1)(x)
        x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
