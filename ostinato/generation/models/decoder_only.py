"""The decoder of SketchRNN alone, which knows no latent vector (Ha and Eck 2017, section 3.3)."""

from typing import Literal

from ostinato.generation.dataset.loader import Dataset
from ostinato.generation.layers import (
    CellName,
    RecurrentGenerator,
    fit,
    restore,
    save,
)
from ostinato.units import (
    DropoutRate,
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
