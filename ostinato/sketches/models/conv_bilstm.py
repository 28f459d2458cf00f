"""TensorFlow's drawing tutorial: 1D convolutions, bidirectional LSTMs, a sum over the points.

Tutorial "Recurrent Neural Networks for Drawing Classification", tensorflow.org, 2017, after
Ha and Eck 2017, arXiv 1704.03477. As there, the convolutions are linear and their inputs but the
first are dropped out; the sum runs over the points that the mask leaves in.
Input (batch, point, 3), padded with zeroes; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    filters: list[Units],
    kernel_sizes: list[KernelSize],
    units: Units,
    num_layers: NumLayers,
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: kind (strokes), classes.
        filters: width of each convolution.
        kernel_sizes: extent of each convolution, in points.
        units: width of an LSTM, in each direction.
        num_layers: number of bidirectional LSTMs.
        dropout: share dropped before each convolution but the first, and after each LSTM.
    """
    given, x = points(data)
    for depth, (width, kernel) in enumerate(zip(filters, kernel_sizes, strict=True)):
        if depth > 0:
            x = keras.layers.Dropout(dropout)(x)
        x = MaskedConv1D(width, kernel)(x)
    for _ in range(num_layers):
        lstm = LSTM(units, return_sequences=True)
        x = keras.layers.Bidirectional(lstm)(x)
        x = keras.layers.Dropout(dropout)(x)
    x = MaskedPooling("sum")(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
