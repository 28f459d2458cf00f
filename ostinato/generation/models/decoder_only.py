"""The decoder of SketchRNN alone, which knows no latent vector (Ha and Eck 2017, section 3.3)."""

from typing import Literal

from ostinato.generation.dataset.augmentation import Augmented
from ostinato.generation.dataset.loader import Dataset
from ostinato.generation.layers import (
    CellName,
    RecurrentGenerator,
    VariationalStep,
    restore,
    save,
)
from ostinato.task import Record, TrainingContext
from ostinato.training.schedules import Schedule
from ostinato.training.trainer import train
from ostinato.units import (
    BatchSize,
    DropoutRate,
    Epochs,
    Fraction,
    LearningRate,
    NonNegative,
    Patience,
    Units,
)

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: Dataset,
    *,
    cell: CellName,
    decoder_units: Units,
    mixtures: Units,
    conditioning: Literal["none", "initial_state", "input", "both"],
    recurrent_dropout: DropoutRate,
) -> RecurrentGenerator:
    """Build the model.

    Args:
        data: of drawings.
        cell: of the decoder.
        decoder_units: of the decoder.
        mixtures: Gaussians of a row.
        conditioning: how the class reaches the decoder: by its initial state, by the input at every
            row, or both; none: it does not know the class, as in the paper.
        recurrent_dropout: rate at which candidates of the memory are dropped, at every row.
    """
    return RecurrentGenerator(
        cell=cell,
        encoder_units=0,
        decoder_units=decoder_units,
        latent_size=0,
        mixtures=mixtures,
        conditioning=conditioning,
        classes=0 if conditioning == "none" else len(data.classes),
        recurrent_dropout=recurrent_dropout,
        scale=data.scale,
        longest=data.longest,
    )


def fit(
    model: RecurrentGenerator,
    data: Dataset,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    stretch: Fraction,
    point_drop: Fraction,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train the model by maximum likelihood; at the end it has the weights of its best epoch.

    Args:
        model: that `build` has returned.
        data: with the splits train and validation.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: drawings in a step, over all devices.
        stretch: largest relative change of a training drawing's width and height.
        point_drop: probability of a point within a stroke to be left out.
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: the highest one.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch: ``loss``, which is ``reconstruction`` (L_R), and the same of the
        validation split.

    Raises:
        ParamsError: ``monitor`` is unknown.
        TrainingError: the loss is not finite.
    """
    step = VariationalStep(
        model, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm
    )
    return train(
        step,
        Augmented(data, stretch, point_drop),
        context,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        monitor=monitor,
        patience=patience,
    )
