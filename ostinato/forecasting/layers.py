"""Keras layers of the forecasters, and the functions that assemble their models.

Inputs are ``past`` (batch, time, feature), the scaled target first; ``future`` (batch, horizon,
feature) and ``static`` (batch, feature) where the data set has such features. Outputs are
quantiles (batch, horizon, quantile) in increasing order.
"""

from typing import Any

import keras
from keras import ops

from ostinato.forecasting.dataset import SeriesDataset

__all__ = ["Attach", "Quantiles", "SeasonalNaive", "keras_inputs", "quantile_model", "step_decoder"]


def keras_inputs(data: SeriesDataset, *, fixed_window: bool = False) -> tuple[dict[str, Any], Any]:
    """The inputs of a model by name, and the past with the static features at each step.

    Args:
        data: gives the window, the horizon and the numbers of features.
        fixed_window: whether the model reads windows of exactly the data set's length.

    Returns:
        Keras inputs, and a tensor (batch, time, feature).
    """
    length = data.window if fixed_window else None
    inputs = {"past": keras.Input((length, data.past_features), name="past")}
    if data.future_features:
        inputs["future"] = keras.Input((data.horizon, data.future_features), name="future")
    if not data.static_features:
        return inputs, inputs["past"]
    inputs["static"] = keras.Input((data.static_features,), name="static")
    return inputs, Attach()(inputs["past"], inputs["static"])


def step_decoder(
    inputs: dict[str, Any], state: Any, data: SeriesDataset, units: int, quantiles: int
) -> Any:
    """Decode a state of the past, (batch, unit), to raw quantiles (batch, horizon, quantile).

    Each step of the horizon has its own projection of the state; all steps share the projection
    of their future features.
    """
    x = keras.layers.Dense(data.horizon * units)(state)
    x = keras.layers.Reshape((data.horizon, units))(x)
    if "future" in inputs:
        x = x + keras.layers.Dense(units, use_bias=False)(inputs["future"])
    return keras.layers.Dense(quantiles, dtype="float32")(keras.layers.ReLU()(x))


def quantile_model(
    inputs: dict[str, Any], raw: Any, data: SeriesDataset, residual: bool
) -> keras.Model:
    """The model from its inputs to quantiles that do not cross, (batch, horizon, quantile).

    Args:
        inputs: by name.
        raw: quantiles that may cross, (batch, horizon, quantile).
        data: gives the season and the horizon.
        residual: whether ``raw`` are quantiles of the difference from the value a season ago.
    """
    quantiles = Quantiles(dtype="float32")(raw)
    if residual:
        quantiles = quantiles + SeasonalNaive(data.season, data.horizon)(inputs["past"])
    return keras.Model(inputs, quantiles)


@keras.saving.register_keras_serializable(package="ostinato")
class Attach(keras.layers.Layer):
    """Append a vector to each step of a sequence."""

    def call(self, sequence: Any, vector: Any) -> Any:
        """(batch, time, feature) and (batch, feature) to (batch, time, both)."""
        shape = (*ops.shape(sequence)[:2], vector.shape[-1])
        return ops.concatenate([sequence, ops.broadcast_to(vector[:, None], shape)], axis=-1)

    def compute_output_shape(self, sequence_shape: Any, vector_shape: Any) -> tuple[Any, ...]:
        """(batch, time, both)."""
        return (*sequence_shape[:2], sequence_shape[2] + vector_shape[1])


@keras.saving.register_keras_serializable(package="ostinato")
class SeasonalNaive(keras.layers.Layer):
    """Repeat the last season of the first feature over the horizon; all of a shorter window."""

    def __init__(self, season: int, horizon: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.season = season
        self.horizon = horizon

    def call(self, past: Any) -> Any:
        """(batch, time, feature) to (batch, horizon, 1)."""
        last = past[:, -self.season :, :1]
        return ops.take(last, ops.arange(self.horizon) % ops.shape(last)[1], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, horizon, 1)."""
        return (input_shape[0], self.horizon, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "season": self.season, "horizon": self.horizon}


@keras.saving.register_keras_serializable(package="ostinato")
class Quantiles(keras.layers.Layer):
    """Map numbers to as many quantiles in increasing order: a centre, and positive gaps."""

    def call(self, inputs: Any) -> Any:
        """(..., quantile) to (..., quantile)."""
        count = inputs.shape[-1]
        if count == 1:
            return inputs
        # Scaled so that before training the outermost quantiles are about a unit apart.
        above = ops.cumsum(ops.softplus(inputs[..., 1:]) * (2 / count), axis=-1)
        spread = ops.concatenate([ops.zeros_like(inputs[..., :1]), above], axis=-1)
        return inputs[..., :1] + spread - ops.mean(spread, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape
