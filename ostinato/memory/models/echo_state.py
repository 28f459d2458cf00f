"""An echo state network: a random reservoir, and a readout by ridge regression.

Jaeger 2001, GMD report 148; leaky units: Jaeger et al. 2007; practice: Lukosevicius 2012. Nothing
is trained by a gradient: the readout solves the normal equations, which are summed over batches.
Input: (batch, step, feature).
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float, Float32
from pydantic import Field

from ostinato import store
from ostinato.memory.dataset.loader import Dataset, ModelData
from ostinato.memory.formats.examples import Examples
from ostinato.memory.formats.reservoir import NormalEquations, Reservoir, reservoir
from ostinato.task import Record, TrainingContext
from ostinato.units import BatchSize, Epochs, Fraction, NonNegative, Seed, Units

__all__ = ["EchoState", "build", "fit", "restore", "save"]

FILE = "echo_state.npz"
PROBABILITY = 1e-6  # the least one of a class
Leak = Annotated[float, Field(gt=0, le=1)]


class EchoState:
    """An echo state network as a function of NumPy arrays.

    Args:
        reservoir: with fixed weights.
        readout: weights of a constant, the inputs if they are read, and the states.
        per_step: whether there is an answer at each step.
        target: class, bits or number.
    """

    steps = None  # reads sequences of any number of steps
    gradient_norms: Mapping[str, Float32[np.ndarray, " step"]] = {}

    def __init__(
        self,
        reservoir: Reservoir,
        readout: Float[np.ndarray, "column output"],
        per_step: bool,
        target: str,
    ) -> None:
        self.reservoir, self.readout = reservoir, readout
        self.per_step, self.target = per_step, target

    @property
    def parameters(self) -> int:
        """The number of learned values: those of the readout."""
        return int(self.readout.size)

    def regressors(
        self, x: Float[np.ndarray, "batch step feature"]
    ) -> Float[np.ndarray, "batch ... column"]:
        """What the readout reads besides the constant: the states, and the inputs if it does."""
        states = self.reservoir.run(x)
        if len(self.readout) > states.shape[2] + 1:
            states = np.concatenate([x.astype(np.float64), states], axis=2)
        return states if self.per_step else states[:, -1]

    def __call__(
        self, x: Float[np.ndarray, "batch step feature"]
    ) -> Float32[np.ndarray, "batch ..."]:
        """The answers; those of classes are clipped to 0 to 1 and sum to 1."""
        found = self.regressors(np.asarray(x)) @ self.readout[1:] + self.readout[0]
        if self.target == "class":
            found = np.clip(found, PROBABILITY, 1)
            found /= found.sum(axis=-1, keepdims=True)
        elif self.target == "bits":
            found = np.clip(found, 0, 1)
        return np.asarray(found, np.float32)

    def traces(
        self, x: Float[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step unit"]]:
        """The states while a sequence is read."""
        return {"state": self.reservoir.run(x[None])[0]}


def build(
    data: ModelData,
    *,
    units: Units,
    spectral_radius: NonNegative,
    connectivity: Fraction,
    input_scale: NonNegative,
    input_connectivity: Fraction,
    bias_scale: NonNegative,
    leak: Leak,
    read_input: bool,
    reservoir_seed: Seed,
) -> EchoState:
    """Build the network; its readout answers zeros.

    Args:
        data: the data set.
        units: of the reservoir.
        spectral_radius: largest absolute eigenvalue of the recurrent weights; the higher it is, the
            longer the reservoir remembers.
        connectivity: fraction of the recurrent weights that are not zero.
        input_scale: of the input weights, -1 or 1 before.
        input_connectivity: fraction of the input weights that are not zero.
        bias_scale: of the biases, uniform in -1 to 1 before.
        leak: share of a state that is renewed in a step; 1: units do not leak.
        read_input: whether the readout reads the inputs, too.
        reservoir_seed: of all weights that are not learned.
    """
    drawn = reservoir(
        units,
        data.features,
        spectral_radius=spectral_radius,
        connectivity=connectivity,
        input_scale=input_scale,
        input_connectivity=input_connectivity,
        bias_scale=bias_scale,
        leak=leak,
        seed=reservoir_seed,
    )
    columns = 1 + units + (data.features if read_input else 0)
    return EchoState(drawn, np.zeros((columns, data.outputs)), data.per_step, data.target)


def fit(
    model: EchoState,
    data: Dataset,
    context: TrainingContext,
    *,
    passes: Epochs,
    batch_size: BatchSize,
    ridge: NonNegative,
) -> list[Record]:
    """Solve for the readout; return one record, as of one epoch.

    Args:
        model: of ``build``.
        data: the data set.
        context: of this training; its seed draws the examples of a task without end.
        passes: over the training split; more than one only where its examples are drawn anew.
        batch_size: examples that are read at once.
        ridge: weight of the squares of the readout's weights, against a sum of squared errors.
    """
    start = time.perf_counter()
    equations = NormalEquations(len(model.readout) - 1, data.outputs)
    read = 0
    for epoch in range(1, passes + 1):
        batches = data.batches("train", batch_size=batch_size, seed=context.seed, epoch=epoch)
        for x, y, *weights in batches.as_numpy_iterator():
            batch = Examples(x, y, *weights)
            equations.add(batch.at_targets(model.regressors(x)), batch.truth(data.outputs))
            read += len(x)
    model.readout = equations.solve(ridge)
    seconds = time.perf_counter() - start
    validation = data.examples("validation")
    errors = validation.at_targets(model(validation.x)) - validation.truth(data.outputs)
    record: Record = {
        "epoch": 1,
        "validation_loss": float(np.mean(errors**2)),
        "seconds": seconds,
        "sequences_per_second": read / seconds,
    }
    context.on_epoch(record)
    return [record]


def save(model: EchoState, folder: Path) -> None:
    """Write the network."""
    parts = model.reservoir
    arrays = {
        "input": parts.input,
        "recurrent": parts.recurrent,
        "bias": parts.bias,
        "leak": np.array(parts.leak),
        "readout": model.readout,
        "per_step": np.array(model.per_step),
        "target": np.array(model.target),
    }
    store.write_arrays(folder / FILE, arrays)


def restore(folder: Path) -> EchoState:
    """Read what `save` wrote."""
    arrays = store.read_arrays(folder / FILE)
    drawn = Reservoir(arrays["input"], arrays["recurrent"], arrays["bias"], float(arrays["leak"]))
    return EchoState(drawn, arrays["readout"], bool(arrays["per_step"]), str(arrays["target"]))
