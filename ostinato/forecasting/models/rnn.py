"""Stacked recurrent layers on the past, the last state to all steps of the horizon at once.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. Several steps at
once from one vector: Géron 2022, Hands-On Machine Learning, ch. 15.
Input: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any, Literal

import keras

from ostinato.forecasting.layers import each_step, forecaster, window
from ostinato.layers import LSTM
from ostinato.training.trainer import fit
from ostinato.units import Count, Fraction, NonNegative, NumLayers, Units

__all__ = ["build", "fit"]

CELLS = {"simple": keras.layers.SimpleRNN, "lstm": LSTM, "gru": keras.layers.GRU}


def build(
    data: Any,
    *,
    cell: Literal["simple", "lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    head_units: Units,
    dropout: Fraction,
    weight_decay: NonNegative,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """The model; every layer but the last returns its sequence.

    Args:
        data: what the model reads: its features, season and horizon.
        cell: kind of the recurrent layers.
        units: width of a layer.
        num_layers: how many are stacked.
        head_units: width of each step of the horizon.
        dropout: share of each layer's outputs that is dropped.
        weight_decay: L2 penalty of the layers' input and recurrent kernels.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
    """
    given, x = window(data)
    penalty = keras.regularizers.L2(weight_decay)
    for depth in range(num_layers):
        x = CELLS[cell](
            units,
            return_sequences=depth < num_layers - 1,
            kernel_regularizer=penalty,
            recurrent_regularizer=penalty,
        )(x)
        x = keras.layers.Dropout(dropout)(x)
    return forecaster(given, each_step(given, x, data, head_units, quantiles), data, residual)
