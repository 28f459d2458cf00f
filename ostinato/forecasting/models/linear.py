"""A linear map from all inputs to the forecast: the baseline of the networks.

As good as many transformers on long horizons: Zeng et al. 2022, arXiv 2205.13504.
Inputs: ``past`` (batch, window, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

import keras

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs, quantile_model
from ostinato.training.trainer import fit
from ostinato.units import Count, NonNegative

__all__ = ["build", "fit"]


def build(
    data: SeriesDataset, *, quantiles: Count, residual: bool, weight_decay: NonNegative
) -> keras.Model:
    """Build the model.

    Args:
        data: gives the features, the window, the season and the horizon.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
        weight_decay: L2 penalty of the weights.
    """
    inputs, _ = keras_inputs(data, fixed_window=True)
    flat = [keras.layers.Flatten()(x) for x in inputs.values()]
    x = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    penalty = keras.regularizers.L2(weight_decay)
    x = keras.layers.Dense(
        data.horizon * quantiles,
        kernel_initializer="zeros",
        kernel_regularizer=penalty,
        dtype="float32",
    )(x)
    return quantile_model(
        inputs, keras.layers.Reshape((data.horizon, quantiles))(x), data, residual
    )
