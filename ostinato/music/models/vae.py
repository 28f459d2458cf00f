"""A variational autoencoder of pieces: MusicVAE in small (Roberts et al. 2018, arXiv 1803.05428).

An LSTM in both directions reads the piece; the decoder reads the latent vector at each frame, as
SketchRNN's does, in place of MusicVAE's hierarchy. Its nats are the negative evidence lower bound
with the latent vector's divergence: an upper bound of those of the other models.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

from ostinato.layers import LSTM
from ostinato.music.dataset.loader import Dataset
from ostinato.music.layers import (
    Network,
    OutputName,
    Recurrent,
    Semitones,
    Writer,
    condition_size,
    load,
    save,
)
from ostinato.music.layers import fit as fit_network
from ostinato.task import Record, TrainingContext
from ostinato.training.schedules import Schedule
from ostinato.units import (
    BatchSize,
    Count,
    DropoutRate,
    Epochs,
    Fraction,
    LearningRate,
    NonNegative,
    Patience,
    Units,
)

__all__ = ["build", "fit", "restore", "save"]


class Encoder(keras.layers.Layer):
    """A piece as the mean and log-variance of a latent vector, by LSTMs in both directions."""

    def __init__(self, inputs: int, units: int, latent_size: int) -> None:
        super().__init__()
        self.both = keras.layers.Bidirectional(LSTM(units))
        self.both.build((None, None, inputs))
        self.mean, self.log_variance = (
            keras.layers.Dense(latent_size, dtype="float32", kernel_initializer=small)
            for small in ("glorot_uniform", "zeros")
        )
        for layer in (self.mean, self.log_variance):
            layer.build((None, 2 * units))
        self.built = True

    def call(self, x: Any, mask: Any) -> tuple[Any, Any]:
        """Mean and log-variance (batch, latent) of inputs (batch, frame, input)."""
        features = self.both(x, mask=mask > 0)
        return self.mean(features), self.log_variance(features)


def network(
    *,
    encoder_units: int,
    decoder_units: int,
    latent_size: int,
    output: OutputName,
    nade_units: int,
    condition: int,
    dropout: float,
) -> Network:
    """The network of some settings; see `build`."""
    settings = dict(locals())
    return Network(
        settings,
        partial(Recurrent, cell="lstm", units=[decoder_units], dropout=dropout),
        output,
        nade_units,
        condition,
        partial(Encoder, units=encoder_units, latent_size=latent_size),
        latent_size,
    )


def build(
    data: Dataset,
    *,
    encoder_units: Units,
    decoder_units: Units,
    latent_size: Units,
    output: OutputName,
    nade_units: Units,
    conditional: bool,
    dropout: DropoutRate,
) -> Network:
    """Build the model.

    Args:
        data: of pieces.
        encoder_units: of the encoder's LSTM, in each direction.
        decoder_units: of the decoder's LSTM.
        latent_size: of the latent vector.
        output: independent notes, or "nade": each note given those below it.
        nade_units: hidden units of the output "nade".
        conditional: whether the model knows the style and the key.
        dropout: rate after the decoder's LSTM.
    """
    return network(
        encoder_units=encoder_units,
        decoder_units=decoder_units,
        latent_size=latent_size,
        output=output,
        nade_units=nade_units,
        condition=condition_size(data, conditional),
        dropout=dropout,
    )


def fit(
    model: Network,
    data: Dataset,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    max_frames: Count,
    max_transposition: Semitones,
    kl_weight: NonNegative,
    kl_tolerance: NonNegative,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    patience: Patience,
) -> Sequence[Record]:
    """Train the model; see `ostinato.music.layers.fit`.

    Args:
        model: that `build` has returned.
        data: with the splits train and validation.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: pieces in a step, over all devices.
        max_frames: of a piece in a step.
        max_transposition: semitones by which a training piece is moved at random.
        kl_weight: of the divergence in the loss; below 1 the latent vector says more.
        kl_tolerance: nats of a piece's divergence that do not count ("free bits").
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: the highest one.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        patience: epochs without improvement before training stops.
    """
    model.kl_weight, model.kl_tolerance = kl_weight, kl_tolerance
    return fit_network(
        model,
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        max_frames=max_frames,
        max_transposition=max_transposition,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        patience=patience,
    )


def restore(folder: Path) -> Writer:
    """Read what `save` has written."""
    return Writer(load(network, folder))
