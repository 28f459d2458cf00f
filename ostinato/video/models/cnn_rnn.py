"""A 2D CNN on each frame, followed by recurrent layers over the frames.

LRCN, Donahue et al. 2015, arXiv 1411.4389, but the last state is classified instead of the mean
over all states. The CNN is small and trained from scratch, or a pretrained backbone of
keras.applications: in the first phase of training the backbone is frozen, in the second phase the
whole model is fine-tuned with a lower learning rate.
Inputs: clip (batch, frame, height, width, channel) in 0 to 1, right-padded with zero frames, and
frames (batch,), the number of real frames. Output: probabilities (batch, class).
"""

from dataclasses import replace
from typing import Literal

import keras

from ostinato.errors import ParamsError
from ostinato.layers import LSTM
from ostinato.task import TrainingContext
from ostinato.training import trainer
from ostinato.units import (
    BatchSize,
    DropoutRate,
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
from ostinato.video.layers import (
    ClipData,
    Pad,
    SelectFrame,
    Unpad,
    clip_inputs,
    cnn,
    pretrained_cnn,
)

__all__ = ["build", "fit"]


def build(
    data: ClipData,
    *,
    backbone: str | None,
    weights: str | None,
    filters: list[Units],
    kernel_size: KernelSize,
    features: Units,
    cell: Literal["lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        backbone: a network of keras.applications, such as MobileNetV2; null for a small CNN.
        weights: of the backbone: ``imagenet``, which is downloaded, or a file.
        filters: of the small CNN: number of filters of each convolution, followed by pooling.
        kernel_size: of these convolutions, in pixels.
        features: number of features of a frame, the output of a dense layer.
        cell: of the recurrent layers.
        units: of each recurrent layer.
        num_layers: number of recurrent layers; the last state of the last one is classified.
        dropout: dropout rate before the first and after each recurrent layer.

    Raises:
        ParamsError: the backbone is unknown, or it has no weights.
    """
    inputs, mask = clip_inputs(data)
    x = Unpad()(inputs["clip"], mask)
    x = pretrained_cnn(x, backbone, weights) if backbone else cnn(x, filters, kernel_size)
    x = Pad(name="map")(x, mask)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3] * x.shape[4]))(x)
    x = keras.layers.Dense(features, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    recurrent = {"lstm": LSTM, "gru": keras.layers.GRU}[cell]
    for _ in range(num_layers):
        x = recurrent(units, return_sequences=True)(x)
        x = keras.layers.Dropout(dropout)(x)
    # Padding frames come last, so the state of the last real frame does not depend on them.
    x = SelectFrame()(x, inputs["frames"] - 1)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)


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
    """Train in two phases of `trainer.fit`: with a frozen backbone, then the whole model.

    Args:
        model: from ``build``.
        data: the data set.
        context: of this training.
        frozen_epochs: epochs of the first phase, in which the backbone is frozen; 0 without one.
        frozen_learning_rate: peak learning rate of the first phase.
        epochs: of the second phase, in which the whole model is trained.
        batch_size: clips in a batch.
        loss: as for `trainer.fit`.
        metrics: as for `trainer.fit`.
        optimizer: as for `trainer.fit`.
        learning_rate: peak learning rate of the second phase.
        schedule: of each phase.
        warmup_fraction: of each phase.
        clip_norm: as for `trainer.fit`.
        monitor: as for `trainer.fit`; the best epoch of both phases is restored.
        patience: of each phase.

    Raises:
        ParamsError: frozen epochs without a backbone, or a parameter that `trainer.fit` rejects.
    """

    def phase(
        name: str, before: list[trainer.Record], epochs: int, learning_rate: float
    ) -> list[trainer.Record]:
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
        return phase("all", [], epochs, learning_rate)
    backbones = [layer for layer in model.layers if layer.name == "backbone"]
    if not backbones:
        raise ParamsError(f"fit.frozen_epochs: {frozen_epochs}, but build.backbone is null; use 0")
    trainable = [layer for layer in backbones[0].layers if layer.trainable]
    for layer in trainable:
        layer.trainable = False
    first = phase("frozen", [], frozen_epochs, frozen_learning_rate)
    best_frozen = [weight.numpy() for weight in model.weights]
    for layer in trainable:
        layer.trainable = True
    history = phase("all", first, epochs, learning_rate)
    if trainer.best_epoch(history, monitor) <= len(first):  # the second phase did not improve it
        for weight, value in zip(model.weights, best_frozen, strict=True):
            weight.assign(value)
    return history
