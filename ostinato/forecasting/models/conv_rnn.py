"""A strided 1D convolution in front of GRUs: a long past, read in fewer steps.

After Géron 2019, Hands-On Machine Learning, ch. 15. A convolution without padding drops from the
oldest end what does not fill a stride, so that the newest steps are always read.
Input: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any

import keras

from ostinato.forecasting.layers import each_step, forecaster, window
from ostinato.training.trainer import fit
from ostinato.units import Count, Fraction, KernelSize, NumLayers, Stride, Units

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    filters: Units,
    kernel_size: KernelSize,
    stride: Stride,
    units: Units,
    num_layers: NumLayers,
    head_units: Units,
    dropout: Fraction,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: its features, season and horizon.
        filters: width of the convolution.
        kernel_size: its extent, in steps.
        stride: steps that become one.
        units: width of a GRU.
        num_layers: number of GRUs; the last gives its final state.
        head_units: width of each step of the horizon.
        dropout: share dropped after the convolution and each GRU.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
    """
    given, x = window(data)
    x = keras.layers.Conv1D(
        filters, kernel_size, strides=stride, padding="causal", activation="relu"
    )(x[:, ::-1])[:, ::-1]
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        x = keras.layers.GRU(units, return_sequences=depth < num_layers - 1)(x)
        x = keras.layers.Dropout(dropout)(x)
    return forecaster(given, each_step(given, x, data, head_units, quantiles), data, residual)
