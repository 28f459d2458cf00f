"""Stacked recurrent layers, with the remedies against forgetting that act on the usual cells.

Simple: Elman 1990. LSTM: Hochreiter and Schmidhuber 1997; its forget gate: Gers et al. 2000. GRU:
Cho et al. 2014, arXiv 1406.1078. Initialisers: identity (IRNN), Le et al. 2015, arXiv 1504.00941;
chrono, Tallec and Ollivier 2018, arXiv 1804.11188; orthogonal, Saxe et al. 2013, arXiv 1312.6120.
Layer normalisation: Ba et al. 2016, arXiv 1607.06450. Recurrent dropout: Gal and Ghahramani 2016,
arXiv 1512.05287. Truncated backpropagation: Williams and Peng 1990. Regularised information flow:
Pascanu et al. 2013, arXiv 1211.5063. Input: (batch, step, feature).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from jaxtyping import Float
from keras import ops

from ostinato import store
from ostinato.errors import ParamsError
from ostinato.layers import LSTM
from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.formats import cells
from ostinato.memory.formats.reservoir import recurrent_weights
from ostinato.memory.layers import (
    NORMS,
    LearnedState,
    MemoryModel,
    recurrent_model,
    save,
    sequence_input,
    state_sizes,
)
from ostinato.memory.layers import fit_recurrent as fit
from ostinato.training import keras_model
from ostinato.units import DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]

Cell = Literal["simple", "lstm", "gru"]
Initializer = Literal["glorot", "orthogonal", "identity", "reservoir"]
LAYERS = {"simple": keras.layers.SimpleRNN, "lstm": LSTM, "gru": keras.layers.GRU}
RADIUS, CONNECTIVITY = 0.95, 0.1  # of a reservoir as initialiser


def build(
    data: ModelData,
    *,
    cell: Cell,
    units: Units,
    num_layers: NumLayers,
    activation: Literal["tanh", "relu"],
    recurrent_initializer: Initializer,
    gate_bias: Literal["zeros", "forget", "chrono"],
    initial_state: Literal["zeros", "learned"],
    layer_normalization: bool,
    residual: bool,
    bidirectional: bool,
    dropout: DropoutRate,
    recurrent_dropout: DropoutRate,
    unroll: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        cell: of the recurrent layers.
        units: of a layer, in each direction.
        num_layers: number of recurrent layers.
        activation: of the state, or of the candidate.
        recurrent_initializer: of each gate's recurrent weights: glorot (uniform), orthogonal,
            identity (with input weights of standard deviation 0.001), or reservoir (sparse, with a
            spectral radius of 0.95).
        gate_bias: zeros; forget: 1 for the gate that keeps the state; or chrono: it keeps the state
            for times that are spread from 1 to the longest sequence.
        initial_state: zeros, or learned.
        layer_normalization: whether the sums of a cell are normalised, those of the inputs and of
            the state each.
        residual: whether a layer is added to its input, where they have the same width.
        bidirectional: whether each layer reads in both directions.
        dropout: rate of the inputs of a layer.
        recurrent_dropout: rate of the states, with one mask for all steps.
        unroll: whether the graph has a copy of the cell for each step: static, against the loop of
            a dynamic graph.

    Raises:
        ParamsError: parameters do not fit each other or the data.
    """
    if cell == "simple" and gate_bias != "zeros":
        raise ParamsError("gate_bias: the simple cell has no gates; set gate_bias: zeros")
    if bidirectional and initial_state == "learned":
        raise ParamsError("initial_state: expected zeros with bidirectional: true")
    inputs = sequence_input(data, fixed=unroll)
    layers: list[Any] = []
    starts: list[list[LearnedState]] = []
    for number in range(num_layers):
        arguments = {
            "activation": activation,
            "kernel_initializer": keras.initializers.RandomNormal(stddev=0.001)
            if recurrent_initializer == "identity"
            else "glorot_uniform",
            "recurrent_initializer": GateInitializer(recurrent_initializer),
            "bias_initializer": GateBias(cell, gate_bias, data.steps),
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
        }
        if cell == "lstm":
            arguments["unit_forget_bias"] = False  # gate_bias sets it
        sequences = data.per_step or number < num_layers - 1
        options = {"return_sequences": sequences, "unroll": unroll}
        if layer_normalization:
            layer = keras.layers.RNN(NORMALIZED[cell](units, **arguments), **options)
        else:
            layer = LAYERS[cell](units, **arguments, **options)
        if bidirectional:
            layer = keras.layers.Bidirectional(layer)
        layers.append(layer)
        learned = initial_state == "learned"
        starts.append([LearnedState(size) for size in state_sizes(layer)] if learned else [])
    return recurrent_model(data, inputs, layers, starts, residual=residual)


def restore(folder: Path) -> "RecurrentModel":
    """Read a model that `save` wrote."""
    return RecurrentModel(
        store.read_model(folder / keras_model.FILE), store.read_arrays(folder / NORMS)
    )


class RecurrentModel(MemoryModel):
    """A recurrent network, and the values of its gates."""

    def traces(
        self, x: Float[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step row"]]:
        """The gates, cells and states of the first layer, while it reads a sequence.

        Empty for a layer that is normalised, bidirectional, not tanh, or starts at a learned state.
        """
        layer = self.model.layers[1]
        name = next((name for name, cls in LAYERS.items() if isinstance(layer, cls)), "")
        if not name or layer.cell.activation is not keras.activations.tanh:
            return {}
        zeros = [np.zeros(size) for size in state_sizes(layer)]
        weights = [weight.astype(np.float64) for weight in layer.get_weights()]
        return cells.read(name, x, weights, zeros)


@keras.saving.register_keras_serializable(package="ostinato")
class GateInitializer(keras.initializers.Initializer):
    """Initialise the recurrent weights (unit, gates * unit) gate by gate.

    Args:
        kind: glorot, orthogonal, identity or reservoir.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The weights."""
        units, gates = shape[0], shape[1] // shape[0]
        return ops.concatenate([self._gate(units, dtype) for _ in range(gates)], axis=1)

    def _gate(self, units: int, dtype: Any) -> Any:
        if self.kind == "identity":
            return ops.eye(units, dtype=dtype)
        if self.kind == "reservoir":
            drawn = keras.random.randint((), 0, 2**31 - 1)
            generator = np.random.default_rng(int(ops.convert_to_numpy(drawn)))
            weights = recurrent_weights(units, RADIUS, max(CONNECTIVITY, 2 / units), generator)
            return ops.convert_to_tensor(weights, dtype)
        # Without a seed of its own, an initialiser would draw the same gate again.
        initializer = {
            "glorot": keras.initializers.GlorotUniform,
            "orthogonal": keras.initializers.Orthogonal,
        }[self.kind]
        return initializer()((units, units), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {"kind": self.kind}


@keras.saving.register_keras_serializable(package="ostinato")
class GateBias(keras.initializers.Initializer):
    """Initialise the bias so that gates keep the state.

    Args:
        cell: lstm or gru; simple for zeros.
        kind: zeros, forget or chrono.
        steps: of the longest sequence.
    """

    def __init__(self, cell: str, kind: str, steps: int) -> None:
        self.cell, self.kind, self.steps = cell, kind, steps

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The bias: (4 * unit,) of an LSTM, (2, 3 * unit) of a GRU, (unit,) of a simple cell."""
        if self.kind == "zeros":
            return ops.zeros(shape, dtype)
        units = shape[-1] // {"lstm": 4, "gru": 3}[self.cell]
        keep = ops.ones((units,), dtype)
        if self.kind == "chrono":
            keep = ops.log(keras.random.uniform((units,), 1.0, max(self.steps - 1.0, 1.001)))
        zero = ops.zeros((units,), dtype)
        if self.cell == "lstm":
            write = -keep if self.kind == "chrono" else zero
            return ops.concatenate([write, keep, zero, zero])
        gates = ops.concatenate([keep, zero, zero])
        return ops.stack([gates, ops.zeros_like(gates)]) if len(shape) == 2 else gates

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {"cell": self.cell, "kind": self.kind, "steps": self.steps}


def _one(masks: Any) -> Any:
    """A mask of Keras' cells, which may have one for each gate."""
    return masks[0] if isinstance(masks, list | tuple) else masks


class _Normalized:
    """The layer normalisations of a cell: of the sums of its inputs and of its state."""

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        super().build(input_shape)  # type: ignore[misc]
        width = self.kernel.shape[1]  # type: ignore[attr-defined]
        self.input_norm, self.state_norm = (keras.layers.LayerNormalization() for _ in range(2))
        for norm in (self.input_norm, self.state_norm):
            norm.build((None, width))

    def sums(self, inputs: Any, state: Any, training: bool) -> tuple[Any, Any]:
        """The normalised sums of the inputs and of the state."""
        cell: Any = self
        if training and cell.dropout:
            inputs = inputs * _one(cell.get_dropout_mask(inputs))
        if training and cell.recurrent_dropout:
            state = state * _one(cell.get_recurrent_dropout_mask(state))
        return (
            self.input_norm(ops.matmul(inputs, cell.kernel)),
            self.state_norm(ops.matmul(state, cell.recurrent_kernel)),
        )


@keras.saving.register_keras_serializable(package="ostinato")
class NormalizedSimpleCell(_Normalized, keras.layers.SimpleRNNCell):
    """The simple cell with layer normalisation."""

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        x, h = self.sums(sequence, states[0], training)
        output = self.activation(x + h + self.bias)
        return output, [output]


@keras.saving.register_keras_serializable(package="ostinato")
class NormalizedLSTMCell(_Normalized, keras.layers.LSTMCell):
    """The LSTM cell with layer normalisation."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        x, h = self.sums(inputs, states[0], training)
        i, f, g, o = ops.split(x + h + self.bias, 4, axis=1)
        cell = ops.sigmoid(f) * states[1] + ops.sigmoid(i) * self.activation(g)
        output = ops.sigmoid(o) * self.activation(cell)
        return output, [output, cell]


@keras.saving.register_keras_serializable(package="ostinato")
class NormalizedGRUCell(_Normalized, keras.layers.GRUCell):
    """The GRU cell with layer normalisation."""

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        x, h = self.sums(inputs, states[0], training)
        xz, xr, xh = ops.split(x + self.bias[0], 3, axis=1)
        hz, hr, hh = ops.split(h + self.bias[1], 3, axis=1)
        keep, reset = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
        output = keep * states[0] + (1 - keep) * self.activation(xh + reset * hh)
        return output, [output]


NORMALIZED = {
    "simple": NormalizedSimpleCell,
    "lstm": NormalizedLSTMCell,
    "gru": NormalizedGRUCell,
}
