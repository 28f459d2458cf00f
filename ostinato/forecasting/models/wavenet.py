"""Dilated causal convolutions with gates, residual and skip connections, as in WaveNet.

Van den Oord et al. 2016, arXiv 1609.03499; for series: Borovykh et al. 2017, arXiv 1703.04691.
The forecast is made from the skip connections at the last step, which see kernel * 2^depth steps.
Input: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any

import keras

from ostinato.forecasting.layers import each_step, forecaster, window
from ostinato.training.trainer import fit
from ostinato.units import Count, Fraction, KernelSize, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    filters: Units,
    kernel_size: KernelSize,
    depth: NumLayers,
    head_units: Units,
    dropout: Fraction,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: its features, season and horizon.
        filters: width of every convolution.
        kernel_size: their extent, in steps that are dilated.
        depth: how many; the dilation doubles from 1.
        head_units: width of each step of the horizon.
        dropout: share dropped before the forecast.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
    """
    given, x = window(data)
    x = keras.layers.Dense(filters)(x)
    skips = []
    for level in range(depth):
        both = keras.layers.Conv1D(
            2 * filters, kernel_size, dilation_rate=2**level, padding="causal"
        )(x)
        gated = keras.ops.tanh(both[..., :filters]) * keras.ops.sigmoid(both[..., filters:])
        skips.append(keras.layers.Dense(filters)(gated[:, -1]))
        if level < depth - 1:
            x = x + keras.layers.Dense(filters)(gated)
    x = keras.layers.ReLU()(keras.layers.Add()(skips) if len(skips) > 1 else skips[0])
    x = keras.layers.Dropout(dropout)(x)
    return forecaster(given, each_step(given, x, data, head_units, quantiles), data, residual)
