"""The types of parameters: each is a unit with its bounds, written once in a signature.

`ostinato.params.bind` checks the values of params.yaml against them. `Shrunk` gives the value at
which a run is tiny but complete; the contract test uses it to try every run in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field

from ostinato import params


@dataclass(frozen=True)
class Shrunk:
    """The value of a parameter of this type in a tiny run."""

    to: int | float


@dataclass(frozen=True)
class LocationType:
    """Marks a parameter that names files (`ostinato.inputs`)."""


def type_arguments(hint: Any) -> Iterator[Any]:
    """All parts of a type, such as the marks within ``Annotated``."""
    for part in get_args(hint):
        yield part
        yield from type_arguments(part)


Units = Annotated[int, Field(ge=1, le=65_536), Shrunk(4)]
"""Width of a layer, in units or filters."""

KernelSize = Annotated[int, Field(ge=1, le=1_024)]
"""Extent of a convolution, in points or cells."""

Stride = Annotated[int, Field(ge=1, le=64)]
"""Stride of a convolution, in points."""

NumLayers = Annotated[int, Field(ge=1, le=128)]
"""Number of stacked layers."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A fraction or a probability, 0 to 1."""

SplitFraction = Annotated[float, Field(gt=0, lt=1)]
"""The part of a data set that a split gets: neither nothing nor all."""

DropoutRate = Annotated[float, Field(ge=0, lt=1)]
"""Probability of setting a value to zero in training; 0 turns it off."""

LearningRate = Annotated[float, Field(gt=0, le=10)]
"""Learning rate, per step."""

NonNegative = Annotated[float, Field(ge=0)]
"""Strength of a penalty, or a norm; 0 turns it off."""

Temperature = Annotated[float, Field(gt=0)]
"""Divisor of the logits before sampling: below 1 sharpens the distribution, above 1 flattens it."""

Epochs = Annotated[int, Field(ge=1), Shrunk(1)]
"""Passes over the training split."""

FrozenEpochs = Annotated[int, Field(ge=0), Shrunk(1)]
"""Epochs at the start in which a part of the model is not trained."""

RampEpochs = Annotated[int, Field(ge=0), Shrunk(1)]
"""Epochs over which a value rises from 0; 0: it is at its highest from the first epoch."""

Patience = Annotated[int, Field(ge=1)]
"""Epochs without improvement before training stops."""

Steps = Annotated[int, Field(ge=0), Shrunk(2)]
"""Optimiser steps."""

BatchSize = Annotated[int, Field(ge=1), Shrunk(8)]
"""Examples in a batch."""

Length = Annotated[int, Field(ge=1, le=100_000)]
"""Steps of a series: a window, a horizon, a season."""

Points = Annotated[int, Field(ge=2, le=100_000)]
"""Points of a drawing."""

Tokens = Annotated[int, Field(ge=1, le=100_000)]
"""Tokens of a text."""

Count = Annotated[int, Field(ge=1)]
"""A number of items, at least one."""

DeviceByLayer = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[int, Field(ge=0)]], Field(min_length=1)
]
"""Index of a device, from 0, by the name or pattern of layers."""

Seconds = Annotated[float, Field(gt=0)]
"""A duration in seconds."""

Languages = Annotated[list[str], Field(min_length=2, max_length=2)]
"""Source and target language of a translation, as codes such as ``en``."""

Name = Annotated[str, Field(pattern=f"^{params.NAME}$")]
"""Name of a data set, run, ensemble, gate or study: part of paths, commands and URLs."""

Location = Annotated[str, Field(min_length=1), LocationType()]
"""A URL, or the path of a file or folder: ``~`` is the home folder."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Seed of all randomness of a run."""
