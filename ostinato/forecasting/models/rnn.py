"""Stacked recurrent layers over the past; the last state forecasts all steps of the horizon.

LSTM: Hochreiter and Schmidhuber 1997. GRU: Cho et al. 2014, arXiv 1406.1078. Direct forecasts of
several steps: Géron 2022, Hands-On Machine Learning, ch. 15.
Inputs: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Literal

import keras

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs, quantile_model, step_decoder
from ostinato.layers import LSTM
from ostinato.training.trainer import fit
from ostinato.units import Count, DropoutRate, NonNegative, NumLayers, Units

__all__ = ["build", "fit"]

CELLS = {"simple": keras.layers.SimpleRNN, "lstm": LSTM, "gru": keras.layers.GRU}


def build(
    data: SeriesDataset,
    *,
    cell: Literal["simple", "lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    head_units: Units,
    dropout: DropoutRate,
    weight_decay: NonNegative,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """Build the model; every layer but the last returns its sequence.

    Args:
        data: gives the features, the season and the horizon.
        cell: of the recurrent layers.
        units: of a layer.
        num_layers: number of recurrent layers.
        head_units: of each step of the horizon.
        dropout: dropout rate after each layer.
        weight_decay: L2 penalty of the layers' input and recurrent kernels.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
    """
    inputs, x = keras_inputs(data)
    penalty = keras.regularizers.L2(weight_decay)
    for depth in range(num_layers):
        x = CELLS[cell](
            units,
            return_sequences=depth < num_layers - 1,
            kernel_regularizer=penalty,
            recurrent_regularizer=penalty,
        )(x)
        x = keras.layers.Dropout(dropout)(x)
    return quantile_model(
        inputs, step_decoder(inputs, x, data, head_units, quantiles), data, residual
    )
