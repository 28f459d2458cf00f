"""Keras layers for series, which are windows without padding.

They read the past (batch, time, feature), whose first feature is the scaled target, and what is
known of the future (batch, horizon, feature).
"""

from typing import Any

import keras
from keras import ops

__all__ = ["Attach", "Quantiles", "SeasonalNaive", "each_step", "forecaster", "window"]


def window(data: Any, *, fixed: bool = False) -> tuple[dict[str, Any], Any]:
    """The inputs of a model of series, by name, and all that is known of the past.

    Args:
        data: window, horizon, and the number of past, future and static features.
        fixed: whether the model reads windows of one length alone.

    Returns:
        ``past`` (batch, time, feature), ``future`` (batch, horizon, feature) and ``static``
        (batch, feature), the latter two where there are such features; and the past with the
        static features at every step, (batch, time, feature).
    """
    length = data.window if fixed else None
    given = {"past": keras.Input((length, data.past), name="past")}
    if data.future:
        given["future"] = keras.Input((data.horizon, data.future), name="future")
    if not data.static:
        return given, given["past"]
    given["static"] = keras.Input((data.static,), name="static")
    return given, Attach()(given["past"], given["static"])


def each_step(given: dict[str, Any], state: Any, data: Any, units: int, quantiles: int) -> Any:
    """A state of the past, (batch, unit), to raw quantiles (batch, horizon, quantile).

    Every step of the horizon has a projection of its own of the state, and shares one of what is
    known of that step.
    """
    x = keras.layers.Dense(data.horizon * units)(state)
    x = keras.layers.Reshape((data.horizon, units))(x)
    if "future" in given:
        x = x + keras.layers.Dense(units, use_bias=False)(given["future"])
    return keras.layers.Dense(quantiles, dtype="float32")(keras.layers.ReLU()(x))


def forecaster(given: dict[str, Any], raw: Any, data: Any, residual: bool) -> keras.Model:
    """The model from its inputs to quantiles that do not cross, (batch, horizon, quantile).

    Where ``residual``, ``raw`` are quantiles of the difference from the value a season ago.
    """
    quantiles = Quantiles(dtype="float32")(raw)
    if residual:
        quantiles = quantiles + SeasonalNaive(data.season, data.horizon)(given["past"])
    return keras.Model(given, quantiles)


@keras.saving.register_keras_serializable(package="ostinato")
class Attach(keras.layers.Layer):
    """A vector for the whole sequence, attached to each of its steps."""

    def call(self, sequence: Any, vector: Any) -> Any:
        """(batch, time, feature) and (batch, feature) to (batch, time, both)."""
        shape = (*ops.shape(sequence)[:2], vector.shape[-1])
        return ops.concatenate([sequence, ops.broadcast_to(vector[:, None], shape)], axis=-1)

    def compute_output_shape(self, sequence_shape: Any, vector_shape: Any) -> tuple[Any, ...]:
        """(batch, time, both)."""
        return (*sequence_shape[:2], sequence_shape[2] + vector_shape[1])


@keras.saving.register_keras_serializable(package="ostinato")
class SeasonalNaive(keras.layers.Layer):
    """The first feature of a season ago, over the horizon: a forecast without parameters."""

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
    """Any numbers to as many quantiles in increasing order: a centre, and gaps above 0."""

    def call(self, inputs: Any) -> Any:
        """(..., quantile) to the same."""
        count = inputs.shape[-1]
        if count == 1:
            return inputs
        # So that at the beginning, whatever their number, they are about a unit apart in all.
        above = ops.cumsum(ops.softplus(inputs[..., 1:]) * (2 / count), axis=-1)
        spread = ops.concatenate([ops.zeros_like(inputs[..., :1]), above], axis=-1)
        return inputs[..., :1] + spread - ops.mean(spread, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape
