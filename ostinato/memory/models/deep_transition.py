"""A deep transition: several dense layers between a state and the next one.

Pascanu et al. 2013, arXiv 1312.6026, the DT(S)-RNN: h(t) = tanh(V a(L) + b), where a(1) =
tanh(W x(t) + U h(t - 1) + b) and each further layer reads the one before; with ``shortcut``,
h(t - 1) is also added before the last tanh. Input: (batch, step, feature).
"""

from typing import Any

import keras
from keras import ops

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import cell_model, restore, save
from ostinato.memory.layers import fit_recurrent as fit
from ostinato.units import NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: ModelData, *, units: Units, transition_layers: NumLayers, shortcut: bool
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        units: of the state and of each layer.
        transition_layers: between two states; 1 gives the simple cell.
        shortcut: whether the last state is added to the sum of the next one, through weights that
            begin as the identity.
    """
    return cell_model(data, [DeepTransitionCell(units, transition_layers, shortcut)])


@keras.saving.register_keras_serializable(package="ostinato")
class DeepTransitionCell(keras.layers.SimpleRNNCell):
    """A simple cell with further dense layers before the next state."""

    def __init__(self, units: int, transition_layers: int, shortcut: bool, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.transition_layers, self.shortcut = transition_layers, shortcut

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        super().build(input_shape)
        square = (self.units, self.units)
        self.kernels = [
            self.add_weight(shape=square, initializer="orthogonal", name=f"transition_{n}")
            for n in range(1, self.transition_layers)
        ]
        self.biases = [
            self.add_weight(shape=square[:1], initializer="zeros", name=f"transition_bias_{n}")
            for n in range(1, self.transition_layers)
        ]
        if self.shortcut:
            self.shortcut_kernel = self.add_weight(
                shape=square, initializer=keras.initializers.Identity(), name="shortcut"
            )

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the state to the output and the state."""
        total = ops.matmul(sequence, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
        total = total + self.bias
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            total = ops.matmul(self.activation(total), kernel) + bias
        if self.shortcut:
            total = total + ops.matmul(states[0], self.shortcut_kernel)
        output = self.activation(total)
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = {"transition_layers": self.transition_layers, "shortcut": self.shortcut}
        return {**super().get_config(), **own}
