"""TODO."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ostinato import store
from ostinato.task import TrainingContext
from ostinato.training import losses
from ostinato.training.trainer import Data, Record, fit
from ostinato.units import BatchSize, Count, Epochs, Fraction, LearningRate, NonNegative, Patience


def fit_seq2seq(
    model: keras.Model,
    data: Data,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    label_smoothing: Fraction,
    scheduled_sampling: Fraction,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Literal["constant", "cosine", "inverse_sqrt"],
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    average_checkpoints: Count,
    patience: Patience,
) -> list[Record]:
    """Train, as ``fit`` does, a model that tells a text's next token; its weights are then a mean.

    Args:
        model: maps ``source`` and ``before``, the truth before each token, to logits (batch,
            token, piece).
        data: see ``fit``, as for all that is not told here.
        context: of this training.
        epochs: see there.
        batch_size: see there.
        label_smoothing: of the labels; see ``losses.token_crossentropy``.
        scheduled_sampling: chance, in the last epoch, that the model reads a guess of its own instead of a
            token of the truth; it rises from 0 in the first (Bengio et al. 2015, arXiv
            1506.03099). The guesses are those of a pass over the truth (Duckworth et al. 2019,
            arXiv 1906.04331).
        optimizer: see there.
        learning_rate: see there.
        schedule: see there.
        warmup_fraction: see there.
        clip_norm: see there.
        average_checkpoints: epochs whose weights are averaged (Vaswani et al. 2017, arXiv 1706.03762): those
            of the lowest ``validation_token_crossentropy``.
        patience: see there.

    Returns:
        A record for every epoch, with ``perplexity`` and ``validation_perplexity``.
    """
    monitor, records = "validation_token_crossentropy", list[Record]()

    def kept(record: Record) -> Path:
        return context.checkpoints / f"weights-{record['epoch']}.npz"

    def best() -> list[Record]:
        return sorted(records, key=lambda record: record[monitor])[:average_checkpoints]

    def told(record: Record) -> None:
        ends = {key: key.replace("token_crossentropy", "perplexity") for key in record}
        perplexities = {end: np.exp(record[key]) for key, end in ends.items() if key != end}
        records.append({**record, **perplexities})
        if records[-1] in best() and not kept(record).exists():
            weights = {str(i): w.numpy() for i, w in enumerate(model.trainable_weights)}
            store.write_arrays(kept(record), weights)
        for other in records:
            if other not in best():
                kept(other).unlink(missing_ok=True)
        context.on_epoch(records[-1])

    fit(
        ScheduledSamplingModel(model) if scheduled_sampling else model,
        ScheduledSamplingData(data, scheduled_sampling, epochs) if scheduled_sampling else data,
        replace(context, on_epoch=told),
        epochs=epochs,
        batch_size=batch_size,
        loss=partial(losses.token_crossentropy, smoothing=label_smoothing),
        metrics=["token_crossentropy", "token_accuracy"],
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        monitor=monitor,
        patience=patience,
    )
    chosen = [store.read_arrays(kept(record)) for record in best()]
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(np.mean([weights[str(i)] for weights in chosen], axis=0))
    return records


class ScheduledSamplingData:
    """Data of texts, with the chance of a guess among the inputs."""

    def __init__(self, data: Data, chance: float, epochs: int) -> None:
        self.data, self.chance, self.epochs = data, chance, epochs
        self.size = data.size

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> tf.data.Dataset:
        """Batches (x, y, weight); x has ``chance`` (batch, 1)."""
        done = (epoch - 1) / max(self.epochs - 1, 1) if split == "train" else 0.0
        chance = tf.constant(self.chance * done, tf.float32)

        def chanced(x: Any, y: Any, weight: Any) -> Any:
            return {**x, "chance": tf.fill((tf.shape(y)[0], 1), chance)}, y, weight

        return self.data.batches(split, batch_size=batch_size, seed=seed, epoch=epoch).map(chanced)


class ScheduledSamplingModel(keras.Model):
    """A model that reads, by ``chance``, its own guesses instead of the truth."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(dtype=model.dtype_policy)
        self.model = model
        self.draws = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Source, before and chance (batch, 1) to logits (batch, token, piece)."""
        x = {name: inputs[name] for name in ("source", "before")}
        before, chance = x["before"], inputs["chance"]
        drawn = keras.random.uniform(tf.shape(before), seed=self.draws) < chance

        def mixed() -> Any:
            logits = tf.stop_gradient(self.model(x, training=False))
            guesses = 1 + tf.argmax(logits[..., 1:], axis=-1, output_type=before.dtype)  # not pad
            guesses = tf.concat([before[:, :1], guesses[:, :-1]], axis=1)
            return tf.where(drawn & (before != 0), guesses, before)

        before = tf.cond(tf.reduce_any(drawn), mixed, lambda: before)
        return self.model({**x, "before": before}, training=training)
