"""A strided 1D convolution in front of GRUs, so that the GRUs read a long past in fewer steps.

After Géron 2019, Hands-On Machine Learning, ch. 15. The convolution is aligned to the origin: the
oldest steps, not the newest ones, are lost where the stride does not divide the window.
Inputs: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

import keras

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs, quantile_model, step_decoder
from ostinato.training.trainer import fit
from ostinato.units import Count, DropoutRate, KernelSize, NumLayers, Stride, Units

__all__ = ["build", "fit"]


def build(
    data: SeriesDataset,
    *,
    filters: Units,
    kernel_size: KernelSize,
    stride: Stride,
    units: Units,
    num_layers: NumLayers,
    head_units: Units,
    dropout: DropoutRate,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: gives the features, the season and the horizon.
        filters: of the convolution.
        kernel_size: of the convolution, in steps.
        stride: of the convolution, in steps.
        units: of a GRU.
        num_layers: number of GRUs; the last one returns its final state.
        head_units: of each step of the horizon.
        dropout: dropout rate after the convolution and each GRU.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
    """
    inputs, x = keras_inputs(data)
    x = keras.layers.Conv1D(
        filters, kernel_size, strides=stride, padding="causal", activation="relu"
    )(x[:, ::-1])[:, ::-1]
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        x = keras.layers.GRU(units, return_sequences=depth < num_layers - 1)(x)
        x = keras.layers.Dropout(dropout)(x)
    return quantile_model(
        inputs, step_decoder(inputs, x, data, head_units, quantiles), data, residual
    )
