"""Stacked recurrent layers.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. Bidirectional:
Schuster and Paliwal 1997. Pooling of all states: Conneau et al. 2017, arXiv 1705.02364.

Input: (batch, point, 3), zero-padded. Output: probabilities (batch, class).
"""

from typing import Literal

import keras

from ostinato.layers import LSTM, MaskedPooling
from ostinato.sketches.dataset.protocols import ModelData
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, NonNegative, NumLayers, Units

__all__ = ["build", "fit"]

CELLS = {
    "simple": keras.layers.SimpleRNN,
    "lstm": LSTM,
    "gru": keras.layers.GRU,
}


def build(
    data: ModelData,
    *,
    cell: Literal["simple", "lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    bidirectional: bool,
    pooling: Literal["last", "mean", "max", "sum"],
    dropout: DropoutRate,
    weight_decay: NonNegative,
) -> keras.Model:
    """Build the model.

    Args:
        data: of strokes.
        cell: of the recurrent layers.
        units: of a layer, in each direction.
        num_layers: number of recurrent layers.
        bidirectional: whether each layer reads in both directions.
        pooling: of the last layer's states over points, or "last": its final state.
        dropout: rate after each recurrent layer.
        weight_decay: L2 penalty of the input and recurrent kernels.
    """
    regularizer = keras.regularizers.L2(weight_decay)
    inputs, x = points(data)
    for depth in range(num_layers):
        layer = CELLS[cell](
            units,
            return_sequences=depth < num_layers - 1 or pooling != "last",
            kernel_regularizer=regularizer,
            recurrent_regularizer=regularizer,
        )
        x = keras.layers.Bidirectional(layer)(x) if bidirectional else layer(x)
        x = keras.layers.Dropout(dropout)(x)
    if pooling != "last":
        x = MaskedPooling(pooling)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
