"""What models and evaluation need of a data set of drawings."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float32, Integer, Shaped

Kind = Literal["strokes", "bitmap"]
"""Drawings are stroke-3 rows, or bitmaps of 28 x 28 pixels."""


class ModelData(Protocol):
    """What ``build`` reads of a data set: the shapes of the model."""

    @property
    def kind(self) -> Kind:
        """What the drawings are."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes; a label is an index into them."""

    def size(self, split: str) -> int:
        """The number of drawings of a split."""


class Examples(Protocol):
    """The drawings of a split in memory, in the stored order."""

    @property
    def labels(self) -> Integer[np.ndarray, " drawing"]:
        """The class index of each drawing."""

    @property
    def keys(self) -> Shaped[np.ndarray, " drawing"]:
        """The ``key_id`` of each drawing."""

    def __len__(self) -> int:
        """The number of drawings."""

    def __getitem__(self, i: int, /) -> Any:
        """A drawing: int16 (point, 3), or uint8 (height, width, 1)."""


class EvaluationData(Protocol):
    """What ``evaluate`` reads of a data set."""

    @property
    def kind(self) -> Kind:
        """What the drawings are."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes; a label is an index into them."""

    def examples(self, split: str) -> Examples:
        """The drawings of a split."""

    def inputs(
        self, drawings: Sequence[Shaped[np.ndarray, "..."]]
    ) -> Float32[np.ndarray, "drawing ..."]:
        """Drawings as the models read them."""
