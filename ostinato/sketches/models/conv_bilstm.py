"""1D convolutions, bidirectional LSTMs and sum pooling: TensorFlow's drawing tutorial.

Tutorial "Recurrent Neural Networks for Drawing Classification", tensorflow.org, 2017, after Ha and
Eck 2017, arXiv 1704.03477. As in the tutorial, the convolutions are linear, with dropout before
each but the first. The pooling ignores padding.

Input: (batch, point, 3), zero-padded. Output: probabilities (batch, class).
"""

import keras

from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling
from ostinato.sketches.dataset.protocols import ModelData
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: ModelData,
    *,
    filters: list[Units],
    kernel_sizes: list[KernelSize],
    units: Units,
    num_layers: NumLayers,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: of strokes.
        filters: number of filters of each convolution.
        kernel_sizes: of each convolution, in points.
        units: of an LSTM, in each direction.
        num_layers: number of bidirectional LSTMs.
        dropout: rate before each convolution but the first, and after each LSTM.
    """
    inputs, x = points(data)
    for depth, (num_filters, kernel_size) in enumerate(zip(filters, kernel_sizes, strict=True)):
        if depth > 0:
            x = keras.layers.Dropout(dropout)(x)
        x = MaskedConv1D(num_filters, kernel_size)(x)
    for _ in range(num_layers):
        lstm = LSTM(units, return_sequences=True)
        x = keras.layers.Bidirectional(lstm)(x)
        x = keras.layers.Dropout(dropout)(x)
    x = MaskedPooling("sum")(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
