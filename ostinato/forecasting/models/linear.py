"""A linear map from all that is known to the forecast: what the networks have to beat.

As good as many transformers on long horizons: Zeng et al. 2022, arXiv 2205.13504.
Input: ``past`` (batch, window, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any

import keras

from ostinato.forecasting.layers import forecaster, window
from ostinato.training.trainer import fit
from ostinato.units import Count, NonNegative

__all__ = ["build", "fit"]


def build(data: Any, *, quantiles: Count, residual: bool, weight_decay: NonNegative) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: its features, window, season and horizon.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
        weight_decay: L2 penalty of the weights.
    """
    given, _ = window(data, fixed=True)
    flat = [keras.layers.Flatten()(x) for x in given.values()]
    x = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    penalty = keras.regularizers.L2(weight_decay)
    x = keras.layers.Dense(
        data.horizon * quantiles,
        kernel_initializer="zeros",
        kernel_regularizer=penalty,
        dtype="float32",
    )(x)
    return forecaster(given, keras.layers.Reshape((data.horizon, quantiles))(x), data, residual)
