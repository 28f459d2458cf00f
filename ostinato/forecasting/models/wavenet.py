"""Dilated causal convolutions with gates, residual and skip connections, as in WaveNet.

Van den Oord et al. 2016, arXiv 1609.03499; for series: Borovykh et al. 2017, arXiv 1703.04691.
The head reads the skip connections of the last step; they see the last
1 + (kernel_size - 1) (2^depth - 1) steps.
Inputs: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

import keras

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs, quantile_model, step_decoder
from ostinato.training.trainer import fit
from ostinato.units import Count, DropoutRate, KernelSize, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: SeriesDataset,
    *,
    filters: Units,
    kernel_size: KernelSize,
    depth: NumLayers,
    head_units: Units,
    dropout: DropoutRate,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: gives the features, the season and the horizon.
        filters: of each convolution.
        kernel_size: of each convolution, in dilated steps.
        depth: number of convolutions; the dilation doubles with each, from 1.
        head_units: of each step of the horizon.
        dropout: dropout rate before the head.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
    """
    inputs, x = keras_inputs(data)
    x = keras.layers.Dense(filters)(x)
    skips = []
    for level in range(depth):
        filter_and_gate = keras.layers.Conv1D(
            2 * filters, kernel_size, dilation_rate=2**level, padding="causal"
        )(x)
        gated = keras.ops.tanh(filter_and_gate[..., :filters])
        gated = gated * keras.ops.sigmoid(filter_and_gate[..., filters:])
        skips.append(keras.layers.Dense(filters)(gated[:, -1]))
        if level < depth - 1:
            x = x + keras.layers.Dense(filters)(gated)
    x = keras.layers.ReLU()(keras.layers.Add()(skips) if len(skips) > 1 else skips[0])
    x = keras.layers.Dropout(dropout)(x)
    return quantile_model(
        inputs, step_decoder(inputs, x, data, head_units, quantiles), data, residual
    )
