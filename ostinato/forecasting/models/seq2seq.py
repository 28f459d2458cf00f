"""An encoder, and a decoder that forecasts step by step with attention to the encoder's states.

Sutskever et al. 2014, arXiv 1409.3215; attention as in Luong et al. 2015, arXiv 1508.04025;
scheduled sampling: Bengio et al. 2015, arXiv 1506.03099. At each step the decoder reads its median
forecast of the step before; in training it reads, with some probability, the truth.
Inputs: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, quantile).
"""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from ostinato.data.batches import transform
from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import Quantiles, SeasonalNaive, keras_inputs, quantile_model
from ostinato.task import Part, Record, TrainingContext
from ostinato.training import trainer
from ostinato.units import (
    BatchSize,
    Count,
    DropoutRate,
    Epochs,
    Fraction,
    LearningRate,
    NonNegative,
    Patience,
    RampEpochs,
    Units,
)

__all__ = ["build", "fit"]


def build(
    data: SeriesDataset,
    *,
    units: Units,
    attention: bool,
    dropout: DropoutRate,
    quantiles: Count,
    residual: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: gives the features, the season and the horizon.
        units: of the encoder and of the decoder.
        attention: whether the decoder attends to the encoder's states.
        dropout: dropout rate of the encoder's states.
        quantiles: number of quantiles; 1 is the median.
        residual: whether to forecast the difference from the value a season ago.
    """
    inputs, past = keras_inputs(data)
    states, last = keras.layers.GRU(units, return_sequences=True, return_state=True)(past)
    states = keras.layers.Dropout(dropout)(states)
    decoder = Decoder(units, data.horizon, quantiles, attention, name="decoder")
    raw = decoder(states, last, inputs.get("future"))
    return quantile_model(inputs, raw, data, residual)


def fit(
    model: keras.Model,
    data: trainer.Data,
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
    scheduled_sampling: Fraction,
    scheduled_sampling_epochs: RampEpochs,
) -> list[Record]:
    """Train with `trainer.fit`, which has the other parameters, and with scheduled sampling.

    Args:
        model: of `build`.
        data: see `trainer.fit`.
        context: of the training.
        epochs: see `trainer.fit`.
        batch_size: see `trainer.fit`.
        loss: see `trainer.fit`.
        metrics: see `trainer.fit`.
        optimizer: see `trainer.fit`.
        learning_rate: see `trainer.fit`.
        schedule: see `trainer.fit`.
        warmup_fraction: see `trainer.fit`.
        clip_norm: see `trainer.fit`.
        monitor: see `trainer.fit`.
        patience: see `trainer.fit`.
        scheduled_sampling: probability, at its highest, that the decoder reads its own forecast
            instead of the truth; 0 is teacher forcing throughout.
        scheduled_sampling_epochs: epochs over which the probability rises from 0; 0: it is at its
            highest from the first epoch.
    """
    decoder = model.get_layer("decoder")
    naive = next((layer for layer in model.layers if isinstance(layer, SeasonalNaive)), None)
    inputs = {
        **{tensor.name: tensor for tensor in model.inputs},
        "truth": keras.Input((decoder.horizon, 1), name="truth"),
        "teacher_forcing": keras.Input((1,), name="teacher_forcing"),
    }
    baseline = 0.0 if naive is None else naive(inputs["past"])
    states, last, *future = decoder.input
    raw = decoder(
        states,
        last,
        future[0] if future else None,
        inputs["truth"] - baseline,
        inputs["teacher_forcing"],
    )
    quantiles = Quantiles(dtype="float32")(raw) + baseline
    return trainer.fit(
        keras.Model(inputs, quantiles),
        TeacherForcedData(data, scheduled_sampling, scheduled_sampling_epochs),
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


class TeacherForcedData:
    """A data set with two more inputs: the truth, and the probability that it is read."""

    def __init__(self, data: trainer.Data, sampling: float, ramp_epochs: int) -> None:
        self.data, self.sampling, self.ramp_epochs = data, sampling, ramp_epochs

    def size(self, split: str) -> int:
        """The number of windows of a split."""
        return self.data.size(split)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Batches (inputs, target, weight); ``teacher_forcing`` is (batch, 1), 0 in validation."""
        teacher_forcing = 1 - self.probability(epoch) if split == "train" else 0.0

        def add(inputs: Any, target: Any, weight: Any) -> Any:
            rows = tf.shape(target)[0]
            probability = tf.fill((rows, 1), tf.constant(teacher_forcing, tf.float32))
            return {**inputs, "truth": target, "teacher_forcing": probability}, target, weight

        options: dict[str, Any] = {"seed": seed, "epoch": epoch, "part": part}
        batches = self.data.batches(split, batch_size=batch_size, **options)
        return transform(batches, add, part)

    def probability(self, epoch: int) -> float:
        """The probability, in an epoch (from 1), that the decoder reads its own forecast."""
        risen = min(1.0, (epoch - 1) / self.ramp_epochs) if self.ramp_epochs else 1.0
        return self.sampling * risen


@keras.saving.register_keras_serializable(package="ostinato")
class Decoder(keras.layers.Layer):
    """A GRU over the steps of the horizon that reads its own forecast of the step before."""

    def __init__(
        self, units: int, horizon: int, quantiles: int, attention: bool, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units, self.horizon = units, horizon
        self.quantiles, self.attention = quantiles, attention
        self.cell = keras.layers.GRUCell(units)
        self.query = keras.layers.Dense(units, use_bias=False)
        self.combine = keras.layers.Dense(units, "tanh")
        self.project = keras.layers.Dense(quantiles)
        self.sampling_seed = keras.random.SeedGenerator(0)

    def build(self, states: Any, *_: Any) -> None:
        """Mark the layer as built; its parts build themselves."""

    def call(
        self,
        states: Any,
        last: Any,
        future: Any = None,
        truth: Any = None,
        teacher_forcing: Any = None,
    ) -> Any:
        """Decode the encoder's states to raw quantiles (batch, horizon, quantile).

        Args:
            states: of the encoder, (batch, time, unit).
            last: state of the encoder, (batch, unit).
            future: features of the horizon, (batch, horizon, feature).
            truth: of each step, (batch, horizon, 1).
            teacher_forcing: probability, (batch, 1), that the decoder reads the truth of the step
                before instead of its own median.
        """
        state, value, forecasts = last, ops.zeros_like(last[:, :1]), []
        for step in range(self.horizon):
            read = value if future is None else ops.concatenate([value, future[:, step]], axis=-1)
            hidden, (state,) = self.cell(read, [state])
            if self.attention:
                scores = ops.einsum("btu,bu->bt", states, self.query(hidden)) / self.units**0.5
                context = ops.einsum("bt,btu->bu", ops.softmax(scores), states)
                hidden = self.combine(ops.concatenate([hidden, context], axis=-1))
            forecasts.append(self.project(hidden))
            value = forecasts[-1][:, :1]  # the centre of the raw quantiles
            if truth is not None:
                drawn = keras.random.uniform(ops.shape(teacher_forcing), seed=self.sampling_seed)
                value = ops.where(drawn < teacher_forcing, truth[:, step], value)
        return ops.stack(forecasts, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            **super().get_config(),
            "units": self.units,
            "horizon": self.horizon,
            "quantiles": self.quantiles,
            "attention": self.attention,
        }
