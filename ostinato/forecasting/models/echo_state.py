"""An echo state network: a random reservoir reads the past, a ridge regression forecasts.

Jaeger 2001, GMD report 148; leaky units: Jaeger et al. 2007. Nothing is trained by a gradient: the
readout solves the normal equations, which are summed over batches. Its regressors are the last
state, the last step, and the future and static features.
Inputs: ``past`` (batch, time, feature), ``future`` (batch, horizon, feature), ``static``; output
(batch, horizon, 1): the mean.
"""

import time
from typing import Annotated, Any

import keras
import numpy as np
from keras import ops
from pydantic import Field

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs
from ostinato.memory.formats.reservoir import NormalEquations, reservoir
from ostinato.task import Record, TrainingContext
from ostinato.training.trainer import Data
from ostinato.units import BatchSize, Fraction, NonNegative, Seed, Units

__all__ = ["build", "fit"]

Leak = Annotated[float, Field(gt=0, le=1)]


def build(
    data: SeriesDataset,
    *,
    units: Units,
    spectral_radius: NonNegative,
    connectivity: Fraction,
    input_scale: NonNegative,
    bias_scale: NonNegative,
    leak: Leak,
    reservoir_seed: Seed,
) -> keras.Model:
    """Build the model; its readout forecasts zeros.

    Args:
        data: gives the features and the horizon.
        units: of the reservoir.
        spectral_radius: largest absolute eigenvalue of the recurrent weights.
        connectivity: fraction of the recurrent weights that are not zero.
        input_scale: of the input weights, -1 or 1 before.
        bias_scale: of the biases, uniform in -1 to 1 before.
        leak: share of a state that is renewed in a step; 1: units do not leak.
        reservoir_seed: of all weights that are not learned.
    """
    inputs, past = keras_inputs(data)
    cell = ReservoirCell(units, leak)
    layer = keras.layers.RNN(cell, trainable=False, name="reservoir")
    state = layer(past)
    drawn = reservoir(
        units,
        past.shape[-1],
        spectral_radius=spectral_radius,
        connectivity=connectivity,
        input_scale=input_scale,
        input_connectivity=1.0,
        bias_scale=bias_scale,
        leak=leak,
        seed=reservoir_seed,
    )
    layer.set_weights([drawn.input.T, drawn.recurrent.T, drawn.bias])
    rows = [state, past[:, -1]]
    if "future" in inputs:
        rows.append(keras.layers.Flatten()(inputs["future"]))
    regressors = keras.layers.Concatenate(name="regressors")(rows)
    readout = keras.layers.Dense(
        data.horizon, kernel_initializer="zeros", dtype="float32", name="readout"
    )
    return keras.Model(inputs, keras.layers.Reshape((data.horizon, 1))(readout(regressors)))


def fit(
    model: keras.Model,
    data: Data,
    context: TrainingContext,
    *,
    batch_size: BatchSize,
    ridge: NonNegative,
) -> list[Record]:
    """Solve for the readout; return one record, as of one epoch.

    Args:
        model: of `build`.
        data: with a training and a validation split.
        context: of the training.
        batch_size: windows in a batch.
        ridge: weight of the squares of the readout's weights, for each training window.
    """
    start = time.perf_counter()
    regressors = keras.Model(model.inputs, model.get_layer("regressors").output)
    readout = model.get_layer("readout")
    equations = NormalEquations(regressors.output.shape[-1], model.output.shape[1])
    for x, y, weight in data.batches("train", batch_size=batch_size, seed=None, epoch=0):
        # A window counts if all of its horizon was observed.
        whole = np.asarray(weight).reshape(len(y), -1).min(axis=1) > 0
        rows = ops.convert_to_numpy(regressors(x)).astype(np.float64)
        equations.add(rows[whole], np.asarray(y, np.float64)[whole, :, 0])
    weights = equations.solve(ridge * data.size("train"))
    readout.set_weights([weights[1:], weights[0]])
    seconds = time.perf_counter() - start
    record: Record = {"epoch": 1}
    for prefix, split in (("", "train"), ("validation_", "validation")):
        total = count = 0.0
        for x, y, weight in data.batches(split, batch_size=batch_size, seed=None, epoch=0):
            error = np.abs(y - model(x))[..., 0]
            total, count = total + float(np.sum(error * weight)), count + float(np.sum(weight))
        record[f"{prefix}loss"] = record[f"{prefix}median_error"] = total / count
    record |= {"learning_rate": 0.0, "gradient_norm": 0.0, "seconds": seconds}
    record["sequences_per_second"] = data.size("train") / seconds
    context.on_epoch(record)
    return [record]


@keras.saving.register_keras_serializable(package="ostinato")
class ReservoirCell(keras.layers.SimpleRNNCell):
    """A leaky unit: its state moves towards its new value by a share, ``leak``."""

    def __init__(self, units: int, leak: float, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.leak = leak

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the state to the output and the state."""
        fresh, _ = super().call(sequence, states, training=training)
        output = states[0] + self.leak * (fresh - states[0])
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "leak": self.leak}
