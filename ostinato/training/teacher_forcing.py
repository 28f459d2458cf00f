"""Train sequence-to-sequence models with teacher forcing, and with scheduled sampling."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato import store
from ostinato.data.batches import transform
from ostinato.errors import TrainingError
from ostinato.task import Part, TrainingContext
from ostinato.training import losses, ranks
from ostinato.training.schedules import Schedule
from ostinato.training.trainer import Data, Record, fit
from ostinato.units import BatchSize, Count, Epochs, Fraction, LearningRate, NonNegative, Patience

MONITOR = "validation_token_crossentropy"


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
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    average_checkpoints: Count,
    patience: Patience,
) -> list[Record]:
    """Train a sequence-to-sequence model with teacher forcing, then average the best checkpoints.

    Epochs are compared by ``validation_token_crossentropy``. See `ostinato.training.trainer.fit`
    for the training.

    Args:
        model: maps ``source`` and ``before`` (the true token before each position) to logits
            (batch, token, vocabulary).
        data: has the splits ``train`` and ``validation``, with batches ({source, before}, tokens,
            weight).
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: examples in a step, over all devices.
        label_smoothing: see `losses.token_crossentropy`.
        scheduled_sampling: probability in the last epoch that the model reads its own prediction
            instead of the true token. It rises linearly from 0 in the first epoch (Bengio et al.
            2015, arXiv 1506.03099). The predictions come from a pass over the true tokens
            (Duckworth et al. 2019, arXiv 1906.04331). 0 is pure teacher forcing.
        optimizer: a class of keras.optimizers in lower case, with Keras' default settings.
        learning_rate: highest learning rate.
        schedule: of the learning rate after the warm-up; see `ostinato.training.schedules`.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.
        average_checkpoints: number of best epochs whose weights are averaged (Vaswani et al. 2017,
            arXiv 1706.03762).
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch, with ``perplexity`` and ``validation_perplexity``.
    """
    records: list[Record] = []  # on rank 0

    def weights_file(record: Record) -> Path:
        return context.checkpoints / f"weights-{record['epoch']}.npz"

    def best_records() -> list[Record]:
        return sorted(records, key=lambda record: record[MONITOR])[:average_checkpoints]

    def on_epoch(record: Record) -> None:
        records.append(_with_perplexity(record))
        if records[-1] in best_records() and not weights_file(record).exists():
            weights = {str(i): w.numpy() for i, w in enumerate(model.trainable_weights)}
            store.write_arrays(weights_file(record), weights)
        for other in records:
            if other not in best_records():
                weights_file(other).unlink(missing_ok=True)
        context.on_epoch(records[-1])

    history = fit(
        ScheduledSamplingModel(model) if scheduled_sampling else model,
        ScheduledSamplingData(data, scheduled_sampling, epochs) if scheduled_sampling else data,
        replace(context, on_epoch=on_epoch),
        epochs=epochs,
        batch_size=batch_size,
        loss=partial(losses.token_crossentropy, label_smoothing=label_smoothing),
        metrics=["token_crossentropy", "token_accuracy"],
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        monitor=MONITOR,
        patience=patience,
    )
    records = [_with_perplexity(record) for record in history]
    checkpoints = [_weights(weights_file(record)) for record in best_records()]
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(np.mean([weights[str(i)] for weights in checkpoints], axis=0))
    return records


def _with_perplexity(record: Record) -> Record:
    renamed = {key: key.replace("token_crossentropy", "perplexity") for key in record}
    return {**record, **{new: np.exp(record[old]) for old, new in renamed.items() if new != old}}


def _weights(path: Path) -> dict[str, np.ndarray]:
    """The weights that rank 0 has written."""
    file = ranks.open_file(path)
    if file is None:
        raise TrainingError(f"{path}: no such file; delete the folder to train again")
    with file:
        return store.load_arrays(file)


class ScheduledSamplingData:
    """Data that adds the probability of scheduled sampling to the inputs.

    Args:
        data: batches ({source, before}, tokens, weight).
        probability: in the last epoch; it rises linearly from 0 in the first.
        epochs: of the training.
    """

    def __init__(self, data: Data, probability: float, epochs: int) -> None:
        self._data, self._probability, self._epochs = data, probability, epochs
        self.size = data.size

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """Batches with the input ``probability`` (batch, 1), which is 0 in the validation split."""
        share = (epoch - 1) / max(self._epochs - 1, 1) if split == "train" else 0.0
        probability = tf.constant(self._probability * share, tf.float32)

        def add_probability(x: Any, y: Any, weight: Any) -> Any:
            column = tf.fill((tf.shape(y)[0], 1), probability)
            return {**x, "probability": column}, y, weight

        options: dict[str, Any] = {"seed": seed, "epoch": epoch, "part": part}
        batches = self._data.batches(split, batch_size=batch_size, **options)
        return transform(batches, add_probability, part)


class ScheduledSamplingModel(keras.Model):
    """A model that reads its own predictions instead of true tokens, with a given probability.

    Args:
        model: maps ``source`` and ``before`` to logits (batch, token, vocabulary).
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(dtype=model.dtype_policy)
        self.model = model
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Logits (batch, token, vocabulary).

        Args:
            inputs: ``source`` (batch, token), ``before`` (batch, token), ``probability``
                (batch, 1).
            training: whether dropout is active; the predictions are made without dropout.
        """
        x = {name: inputs[name] for name in ("source", "before")}
        before, probability = x["before"], inputs["probability"]
        sampled = keras.random.uniform(tf.shape(before), seed=self.generator) < probability

        def mixed() -> Any:
            logits = tf.stop_gradient(self.model(x, training=False))
            # Token 0 is padding, which is never predicted.
            predicted = 1 + tf.argmax(logits[..., 1:], axis=-1, output_type=before.dtype)
            predicted = tf.concat([before[:, :1], predicted[:, :-1]], axis=1)
            return tf.where(sampled & (before != 0), predicted, before)

        before = tf.cond(tf.reduce_any(sampled), mixed, lambda: before)
        return self.model({**x, "before": before}, training=training)
