"""Stacked recurrent layers: sequence to sequence, and the last one sequence to vector.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. Two directions:
Schuster and Paliwal 1997. Pooling all states in place of the last: Conneau et al. 2017,
arXiv 1705.02364.
Input (batch, point, 3), padded with zeroes; output (batch, class), probabilities.
"""

from typing import Any, Literal

import keras

from ostinato.layers import LSTM, MaskedPooling
from ostinato.sketches.layers import points
from ostinato.training.trainer import fit
from ostinato.units import Fraction, NonNegative, NumLayers, Units

__all__ = ["build", "fit"]

CELLS = {
    "simple": keras.layers.SimpleRNN,
    "lstm": LSTM,
    "gru": keras.layers.GRU,
}


def build(
    data: Any,
    *,
    cell: Literal["simple", "lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    bidirectional: bool,
    pooling: Literal["last", "mean", "max", "sum"],
    dropout: Fraction,
    weight_decay: NonNegative,
) -> keras.Model:
    """The model; every layer returns its sequence, the last only where ``pooling`` is not ``last``.

    Args:
        data: what the model reads: kind (strokes), classes.
        cell: kind of the recurrent layers.
        units: width of a layer, in each direction.
        num_layers: how many are stacked.
        bidirectional: whether each reads in both directions.
        pooling: what becomes of the last layer's states: the final one, or all pooled over points.
        dropout: share of each recurrent layer's outputs that is dropped.
        weight_decay: L2 penalty of the layers' input and recurrent kernels.
    """
    penalty = keras.regularizers.L2(weight_decay)
    given, x = points(data)
    for depth in range(num_layers):
        layer = CELLS[cell](
            units,
            return_sequences=depth < num_layers - 1 or pooling != "last",
            kernel_regularizer=penalty,
            recurrent_regularizer=penalty,
        )
        x = keras.layers.Bidirectional(layer)(x) if bidirectional else layer(x)
        x = keras.layers.Dropout(dropout)(x)
    if pooling != "last":
        x = MaskedPooling(pooling)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
