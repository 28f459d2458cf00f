"""An encoder and a decoder that forecasts step by step, with attention to the past.

Sutskever et al. 2014, arXiv 1409.3215; attention as in Luong et al. 2015, arXiv 1508.04025;
scheduled sampling: Bengio et al. 2015, arXiv 1506.03099. The decoder reads its own median, or in
training, by chance, the truth.
Input: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from ostinato.forecasting.layers import SeasonalNaive, forecaster, window
from ostinato.task import TrainingContext
from ostinato.training import trainer
from ostinato.units import (
    BatchSize,
    Count,
    Epochs,
    Fraction,
    LearningRate,
    NonNegative,
    Patience,
    Units,
)

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    units: Units,
    attention: bool,
    dropout: Fraction,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: its features, season and horizon.
        units: width of encoder and decoder.
        attention: whether the decoder looks back at the encoder's states.
        dropout: share of the encoder's states that is dropped.
        quantiles: how many are forecast; one is the median.
        residual: whether it forecasts the difference from the value a season ago.
    """
    given, past = window(data)
    states, last = keras.layers.GRU(units, return_sequences=True, return_state=True)(past)
    states = keras.layers.Dropout(dropout)(states)
    decoder = Decoder(units, data.horizon, quantiles, attention, name="decoder")
    raw = decoder(states, last, given.get("future"))
    return forecaster(given, raw, data, residual)


def fit(
    model: keras.Model,
    data: Any,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    loss: str,
    metrics: list[str],
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Literal["constant", "cosine", "inverse_sqrt"],
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    monitor: str,
    patience: Patience,
    forcing: Fraction,
    sampling: Epochs,
) -> list[dict[str, Any]]:
    """Train as ``training.fit``, with the truth at the decoder's input by chance.

    Args:
        model: from ``build``.
        data: as for ``training.fit``, which has the other arguments too.
        context: of this training.
        epochs: see there.
        batch_size: see there.
        loss: see there.
        metrics: see there.
        optimizer: see there.
        learning_rate: see there.
        schedule: see there.
        warmup_fraction: see there.
        clip_norm: see there.
        monitor: see there.
        patience: see there.
        forcing: chance of the truth in the first epoch; 1 is teacher forcing.
        sampling: epochs over which it falls to 0; more than ``epochs`` keep some of it.
    """
    residual = any(isinstance(layer, SeasonalNaive) for layer in model.layers)
    taught = {
        **{tensor.name: tensor for tensor in model.inputs},
        "truth": keras.Input((data.horizon, 1), name="truth"),
        "chance": keras.Input((1,), name="chance"),
    }
    decoder = model.get_layer("decoder")
    naive = SeasonalNaive(data.season, data.horizon)(taught["past"]) if residual else 0.0
    states, last, *future = decoder.input
    truth, chance = taught["truth"] - naive, taught["chance"]
    raw = decoder(states, last, future[0] if future else None, truth, chance)
    teaching = forecaster(taught, raw, data, residual)

    class Taught:
        """The data, with the truth and its chance among the inputs."""

        size = data.size

        def batches(self, split: str, *, batch_size: int, seed: int | None, epoch: int) -> Any:
            chance = 0.0 if split != "train" else forcing * max(0.0, 1 - (epoch - 1) / sampling)

            def teach(x: Any, y: Any, weight: Any) -> Any:
                chances = tf.fill((tf.shape(y)[0], 1), tf.constant(chance, tf.float32))
                return {**x, "truth": y, "chance": chances}, y, weight

            return data.batches(split, batch_size=batch_size, seed=seed, epoch=epoch).map(teach)

    return trainer.fit(
        teaching,
        Taught(),
        context,
        epochs=epochs,
        batch_size=batch_size,
        loss=loss,
        metrics=metrics,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        monitor=monitor,
        patience=patience,
    )


@keras.saving.register_keras_serializable(package="ostinato")
class Decoder(keras.layers.Layer):
    """A GRU over the steps of the horizon that reads what it forecast for the step before."""

    def __init__(
        self, units: int, horizon: int, quantiles: int, attention: bool, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units, self.horizon = units, horizon
        self.quantiles, self.attention = quantiles, attention
        self.cell = keras.layers.GRUCell(units)
        self.query = keras.layers.Dense(units, use_bias=False)
        self.mixed = keras.layers.Dense(units, "tanh")
        self.answer = keras.layers.Dense(quantiles)
        self.chances = keras.random.SeedGenerator(0)

    def build(self, states: Any, *_: Any) -> None:
        """Make the weights of all parts."""

    def call(
        self,
        states: Any,
        last: Any,
        future: Any = None,
        truth: Any = None,
        chance: Any = None,
    ) -> Any:
        """States (batch, time, unit) and the last one to raw quantiles (batch, horizon, quantile).

        ``future`` is (batch, horizon, feature); ``truth`` (batch, horizon, 1) takes the place of
        the own median at the input with the ``chance`` (batch, 1) of each example.
        """
        state, value, answers = last, ops.zeros_like(last[:, :1]), []
        for step in range(self.horizon):
            read = value if future is None else ops.concatenate([value, future[:, step]], axis=-1)
            hidden, (state,) = self.cell(read, [state])
            if self.attention:
                scores = ops.einsum("btu,bu->bt", states, self.query(hidden)) / self.units**0.5
                context = ops.einsum("bt,btu->bu", ops.softmax(scores), states)
                hidden = self.mixed(ops.concatenate([hidden, context], axis=-1))
            answers.append(self.answer(hidden))
            value = answers[-1][:, :1]  # of the raw quantiles, the centre
            if truth is not None:
                drawn = keras.random.uniform(ops.shape(chance), seed=self.chances)
                value = ops.where(drawn < chance, truth[:, step], value)
        return ops.stack(answers, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            **super().get_config(),
            "units": self.units,
            "horizon": self.horizon,
            "quantiles": self.quantiles,
            "attention": self.attention,
        }
