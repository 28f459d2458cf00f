"""SketchRNN: a variational autoencoder of drawings.

Ha and Eck 2017, arXiv 1704.03477: a bidirectional encoder, a latent vector, and a decoder with a
mixture of Gaussians and three pen states. Cells: LSTM; layer-normalised; HyperLSTM, Ha et al. 2016,
arXiv 1609.09106. The class as a condition is not in the paper's code.
"""

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
    encoder_units: Units,
    decoder_units: Units,
    latent_size: Units,
    mixtures: Units,
    conditioning: Literal["initial_state", "input", "both"],
    class_conditional: bool,
    recurrent_dropout: DropoutRate,
) -> RecurrentGenerator:
    """Build the model.

    Args:
        data: of drawings.
        cell: of encoder and decoder.
        encoder_units: of the encoder, in each direction.
        decoder_units: of the decoder.
        latent_size: of the latent vector.
        mixtures: Gaussians of a row.
        conditioning: how the latent vector (and the class) reach the decoder: by its initial state,
            by the input at every row, or both, as in the paper.
        class_conditional: whether encoder and decoder know the class.
        recurrent_dropout: rate at which candidates of the memory are dropped, at every row.
    """
    return RecurrentGenerator(
        cell=cell,
        encoder_units=encoder_units,
        decoder_units=decoder_units,
        latent_size=latent_size,
        mixtures=mixtures,
        conditioning=conditioning,
        classes=len(data.classes) if class_conditional else 0,
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
    kl_weight: NonNegative,
    kl_start: Fraction,
    kl_decay: Fraction,
    kl_tolerance: NonNegative,
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
    """Train the model; at the end it has the weights of its best epoch.

    Args:
        model: that `build` has returned.
        data: with the splits train and validation.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: drawings in a step, over all devices.
        kl_weight: of L_KL in the loss.
        kl_start: share of the weight at the first step.
        kl_decay: factor by which the missing share falls with each step.
        kl_tolerance: L_KL below this value does not count.
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
        A record for each epoch: ``loss``, ``reconstruction`` (L_R), ``kl`` (L_KL), and the same of
        the validation split, where the loss has the full ``kl_weight``.

    Raises:
        ParamsError: ``monitor`` is unknown.
        TrainingError: the loss is not finite.
    """
    step = VariationalStep(
        model,
        optimizer=optimizer,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
        kl_weight=kl_weight,
        kl_start=kl_start,
        kl_decay=kl_decay,
        kl_tolerance=kl_tolerance,
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
