"""Stacked recurrent layers, with independent notes or RNN-NADE's output.

Bai et al. 2018, arXiv 1803.01271, section 5; Boulanger-Lewandowski et al. 2012, arXiv 1206.6392.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ostinato.music.dataset.loader import Dataset
from ostinato.music.layers import (
    Cell,
    Network,
    OutputName,
    Recurrent,
    Writer,
    condition_size,
    fit,
    load,
    save,
)
from ostinato.units import DropoutRate, Units

__all__ = ["build", "fit", "restore", "save"]


def network(
    *,
    cell: Cell,
    units: list[int],
    output: OutputName,
    nade_units: int,
    condition: int,
    dropout: float,
) -> Network:
    """The network of some settings; see `build`."""
    settings = dict(locals())
    trunk = partial(Recurrent, cell=cell, units=units, dropout=dropout)
    return Network(settings, trunk, output, nade_units, condition)


def build(
    data: Dataset,
    *,
    cell: Cell,
    units: Annotated[list[Units], Field(min_length=1)],
    output: OutputName,
    nade_units: Units,
    conditional: bool,
    dropout: DropoutRate,
) -> Network:
    """Build the model.

    Args:
        data: of pieces.
        cell: simple, lstm or gru.
        units: of each layer.
        output: independent notes, or "nade": each note given those below it.
        nade_units: hidden units of the output "nade".
        conditional: whether the model knows the style and the key.
        dropout: rate after each layer.
    """
    return network(
        cell=cell,
        units=units,
        output=output,
        nade_units=nade_units,
        condition=condition_size(data, conditional),
        dropout=dropout,
    )


def restore(folder: Path) -> Writer:
    """Read what `save` has written."""
    return Writer(load(network, folder))
