"""Sequences with their targets, and the description of the task that they belong to."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped
from pydantic import Field

from ostinato.task import Document

Target = Literal["class", "number", "bits"]
"""What a model answers: probabilities of classes, numbers, or the probabilities of bits."""

Delay = Annotated[int, Field(ge=0, le=100_000)]
"""Empty steps, or steps without a target; 0 for none."""


@dataclass(frozen=True)
class Examples:
    """Sequences of one length.

    Args:
        x: what the model reads.
        y: a class for each example, int32; numbers or bits, float32; with a step axis if the
            model answers at each step.
        weight: 1 at steps that have a target, else 0; None where there is one answer, at the end.
    """

    x: Float32[np.ndarray, "example step feature"]
    y: Shaped[np.ndarray, "example ..."]
    weight: Float32[np.ndarray, "example step"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> "Examples":
        weight = None if self.weight is None else self.weight[rows]
        return Examples(self.x[rows], self.y[rows], weight)

    def truth(self, outputs: int) -> Float64[np.ndarray, "row output"]:
        """The targets in rows, as `at_targets` has them; classes one-hot."""
        one_hot = self.y.dtype.kind == "i"
        values = np.eye(outputs)[self.y] if one_hot else self.y.astype(np.float64)
        found: Float64[np.ndarray, "row output"] = self.at_targets(values)
        return found

    def at_targets(self, values: Shaped[np.ndarray, "example ..."]) -> Any:
        """Values of all examples in rows, those of steps without a target left out."""
        return values if self.weight is None else values[self.weight > 0]

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """The arrays by name; ``weight`` only where there is one."""
        found = {"x": self.x, "y": self.y}
        return found if self.weight is None else {**found, "weight": self.weight}


@dataclass(frozen=True)
class RawManifest(Document):
    """manifest.json of a raw folder.

    Args:
        source: the function that wrote it.
        seed: of all that is random.
        target: a `Target`.
        classes: names; empty where the target is no class.
        ordered: whether the splits are consecutive examples, as those of one series have to be.
        task: the function of `tasks` that draws examples; empty where examples.npz holds them.
        settings: arguments of that function.
        length: ``length`` of the examples.
        min_length: shortest ``length`` in training.
        delay: ``delay`` of the examples.
        examples_per_epoch: training examples that are drawn for each epoch.
    """

    source: str
    seed: int
    target: str
    classes: list[str]
    ordered: bool = False
    task: str = ""
    settings: dict[str, Any] | None = None
    length: int = 0
    min_length: int = 0
    delay: int = 0
    examples_per_epoch: int = 0
