"""Connections that skip steps: the state reads that of the step before and that of d steps before.

h(t) = tanh(W x(t) + U h(t - 1) + V h(t - d) + b). Lin et al. 1996; El Hihi and Bengio 1996. A
gradient reaches t steps back in t / d steps. Input: (batch, step, feature).
"""

from typing import Any

import keras
from keras import ops

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import cell_model, restore, save
from ostinato.memory.layers import fit_recurrent as fit
from ostinato.units import Length, Units

__all__ = ["build", "fit", "restore", "save"]


def build(data: ModelData, *, units: Units, skip: Length) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        units: of the recurrent layer.
        skip: steps that the further connection reaches back.
    """
    return cell_model(data, [SkipCell(units, skip)])


@keras.saving.register_keras_serializable(package="ostinato")
class SkipCell(keras.layers.SimpleRNNCell):
    """A simple cell that also reads its state of ``skip`` steps ago.

    Its states are the last output, and the last ``skip`` outputs, the oldest first.
    """

    def __init__(self, units: int, skip: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.skip = skip
        self.state_size = [units, units * skip]

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        super().build(input_shape)
        self.skip_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="orthogonal", name="skip_kernel"
        )

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        last, buffer = states
        total = ops.matmul(sequence, self.kernel) + ops.matmul(last, self.recurrent_kernel)
        total = total + ops.matmul(buffer[:, : self.units], self.skip_kernel) + self.bias
        output = self.activation(total)
        return output, [output, ops.concatenate([buffer[:, self.units :], output], axis=1)]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """Zeros."""
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in self.state_size]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "skip": self.skip}
