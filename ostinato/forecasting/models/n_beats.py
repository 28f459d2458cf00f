"""N-BEATS: blocks of dense layers, each on what the ones before left unexplained; no recurrence.

Oreshkin et al. 2019, arXiv 1905.10437, generic blocks; what is known besides the target goes into
each block, as in N-BEATSx, Olivares et al. 2021, arXiv 2104.05522.
Input: ``past`` (batch, window, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any

import keras

from ostinato.forecasting.layers import forecaster, window
from ostinato.training.trainer import fit
from ostinato.units import Count, Fraction, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    blocks: NumLayers,
    num_layers: NumLayers,
    units: Units,
    dropout: Fraction,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: its features, window, season and horizon.
        blocks: how many there are; their forecasts are added.
        num_layers: dense layers in a block.
        units: width of a layer.
        dropout: share dropped of what is known besides the target.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
    """
    given, past = window(data, fixed=True)
    left, forecasts = past[..., 0], []
    others = [keras.layers.Flatten()(x) for name, x in given.items() if name != "past"]
    if data.past > 1:
        others.append(keras.layers.Flatten()(given["past"][..., 1:]))
    known = [keras.layers.Dropout(dropout)(x) for x in others]
    for block in range(blocks):
        x = keras.layers.Concatenate()([left, *known]) if known else left
        for _ in range(num_layers):
            x = keras.layers.Dense(units, "relu")(x)
        forecasts.append(keras.layers.Dense(data.horizon * quantiles, dtype="float32")(x))
        if block < blocks - 1:
            left = left - keras.layers.Dense(data.window)(x)
    x = keras.layers.Add()(forecasts) if blocks > 1 else forecasts[0]
    return forecaster(given, keras.layers.Reshape((data.horizon, quantiles))(x), data, residual)
