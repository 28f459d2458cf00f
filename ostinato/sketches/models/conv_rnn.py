"""Strided 1D convolutions with batch normalisation, then stacked LSTMs on the shortened sequence.

After Géron 2019, Hands-On Machine Learning, ch. 15, exercise on SketchRNN's drawings; here the
mask goes along: a stride of s shortens the sequence and its mask by s. Batch normalisation, of
the points that the mask leaves in: Ioffe and Szegedy 2015, arXiv 1502.03167.
Input (batch, point, 3), padded with zeroes; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.layers import LSTM, MaskedConv1D
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, NumLayers, Stride, Units

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    filters: list[Units],
    kernel_sizes: list[KernelSize],
    strides: list[Stride],
    units: Units,
    num_layers: NumLayers,
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: kind (strokes), classes.
        filters: width of each convolution.
        kernel_sizes: extent of each convolution, in points of its input.
        strides: step of each convolution, in points of its input.
        units: width of an LSTM.
        num_layers: number of LSTMs; the last gives its final state.
        dropout: share dropped after the convolutions and after each LSTM.
    """
    given, x = points(data)
    for width, kernel, stride in zip(filters, kernel_sizes, strides, strict=True):
        x = MaskedConv1D(width, kernel, strides=stride, use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        x = LSTM(units, return_sequences=depth < num_layers - 1)(x)
        x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
