"""A 2D convolutional network on each frame, then LSTMs or GRUs over what it sees.

After Donahue et al. 2015, arXiv 1411.4389 (LRCN); the last state decides, not the mean over all.
The network on the frames is a small one of its own, or one of keras.applications: first it stays
as it was trained elsewhere and what follows learns, then all of it learns, at a lower rate.
Input clip (batch, frame, height, width, channel) in 0 to 1, padded with zeroes, and frames
(batch,), how many are real; output (batch, class), probabilities.
"""

from dataclasses import replace
from typing import Any, Literal

import keras

from ostinato.errors import ParamsError
from ostinato.layers import LSTM
from ostinato.task import TrainingContext
from ostinato.training import trainer
from ostinato.units import (
    BatchSize,
    Epochs,
    Fraction,
    FrozenEpochs,
    KernelSize,
    LearningRate,
    NonNegative,
    NumLayers,
    Patience,
    Units,
)
from ostinato.video.layers import Pad, Pick, Unpad, clips, pictures, pretrained

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    backbone: str | None,
    weights: str | None,
    filters: list[Units],
    kernel_size: KernelSize,
    features: Units,
    cell: Literal["lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: classes, height, width, channels.
        backbone: a network of keras.applications, such as MobileNetV2, or none.
        weights: of the backbone: ``imagenet``, which is downloaded, or a file.
        filters: without a backbone, the width of each convolution; each halves the picture.
        kernel_size: extent of these convolutions, in pixels.
        features: what a picture is reduced to, by a dense layer.
        cell: of the recurrent layers.
        units: width of a recurrent layer.
        num_layers: number of recurrent layers; of the last, the state at the last real frame counts.
        dropout: share dropped before the first and after each recurrent layer.

    Raises:
        ParamsError: there is no such backbone, or no weights of it are named.
    """
    given, mask = clips(data)
    x = Unpad()(given["clip"], mask)
    x = pretrained(x, backbone, weights) if backbone else pictures(x, filters, kernel_size)
    x = Pad(name="map")(x, mask)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3] * x.shape[4]))(x)
    x = keras.layers.Dense(features, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    recurrent = {"lstm": LSTM, "gru": keras.layers.GRU}[cell]
    for _ in range(num_layers):
        x = recurrent(units, return_sequences=True)(x)
        x = keras.layers.Dropout(dropout)(x)
    # Padding comes last, so that no real frame's state has seen it.
    x = Pick()(x, given["frames"] - 1)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)


def fit(
    model: keras.Model,
    data: trainer.Data,
    context: TrainingContext,
    *,
    frozen_epochs: FrozenEpochs,
    frozen_learning_rate: LearningRate,
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
) -> list[trainer.Record]:
    """Train as ``training.fit``; before that, with the backbone as it is, what follows it.

    Args:
        model: from ``build``.
        data: as for ``training.fit``, which has the other arguments too.
        context: of this training.
        frozen_epochs: epochs of the first phase, in which the backbone does not learn; 0 without one.
        frozen_learning_rate: highest learning rate of the first phase.
        epochs: of the second phase, in which all of the model learns.
        batch_size: see there.
        loss: see there.
        metrics: see there.
        optimizer: see there.
        learning_rate: of the second phase.
        schedule: of each phase.
        warmup_fraction: of each phase.
        clip_norm: see there.
        monitor: see there; the best epoch of both phases is kept.
        patience: of each phase.

    Raises:
        ParamsError: frozen epochs, but no backbone; and as ``training.fit``.
    """

    def phase(name: str, before: list[trainer.Record], epochs: int, rate: float) -> Any:
        def numbered(record: trainer.Record) -> trainer.Record:
            return {**record, "epoch": len(before) + record["epoch"]}

        history = trainer.fit(
            model,
            data,
            replace(
                context,
                checkpoints=context.checkpoints / name,
                on_epoch=lambda record: context.on_epoch(numbered(record)),
            ),
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
        return before + [numbered(record) for record in history]

    if not frozen_epochs:
        return list(phase("all", [], epochs, learning_rate))
    backbones = [layer for layer in model.layers if layer.name == "backbone"]
    if not backbones:
        raise ParamsError(f"fit.frozen: {frozen_epochs} epochs, but build.backbone is null; use 0")
    learning = [layer for layer in backbones[0].layers if layer.trainable]
    for layer in learning:
        layer.trainable = False
    first = phase("frozen", [], frozen_epochs, frozen_learning_rate)
    kept = [weight.numpy() for weight in model.weights]
    for layer in learning:
        layer.trainable = True
    history: list[trainer.Record] = phase("all", first, epochs, learning_rate)
    if trainer.best_epoch(history, monitor) <= len(first):  # the second phase was of no use
        for weight, value in zip(model.weights, kept, strict=True):
            weight.assign(value)
    return history
