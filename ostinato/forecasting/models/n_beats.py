"""N-BEATS: blocks of dense layers, each on the residual of the blocks before it; no recurrence.

Oreshkin et al. 2019, arXiv 1905.10437, generic blocks. Each block reads all covariates too, as in
N-BEATSx, Olivares et al. 2021, arXiv 2104.05522.
Inputs: ``past`` (batch, window, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

import keras

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs, quantile_model
from ostinato.training.trainer import fit
from ostinato.units import Count, DropoutRate, NumLayers, Units

__all__ = ["build", "fit"]


def build(
    data: SeriesDataset,
    *,
    blocks: NumLayers,
    num_layers: NumLayers,
    units: Units,
    dropout: DropoutRate,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: gives the features, the window, the season and the horizon.
        blocks: number of blocks, whose forecasts are added.
        num_layers: dense layers of a block.
        units: of a layer.
        dropout: dropout rate of the covariates.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
    """
    inputs, past = keras_inputs(data, fixed_window=True)
    residue, forecasts = past[..., 0], []
    covariates = [keras.layers.Flatten()(x) for name, x in inputs.items() if name != "past"]
    if data.past_features > 1:
        covariates.append(keras.layers.Flatten()(inputs["past"][..., 1:]))
    dropped = [keras.layers.Dropout(dropout)(x) for x in covariates]
    for block in range(blocks):
        x = keras.layers.Concatenate()([residue, *dropped]) if dropped else residue
        for _ in range(num_layers):
            x = keras.layers.Dense(units, "relu")(x)
        forecasts.append(keras.layers.Dense(data.horizon * quantiles, dtype="float32")(x))
        if block < blocks - 1:
            residue = residue - keras.layers.Dense(data.window)(x)
    x = keras.layers.Add()(forecasts) if blocks > 1 else forecasts[0]
    return quantile_model(
        inputs, keras.layers.Reshape((data.horizon, quantiles))(x), data, residual
    )
