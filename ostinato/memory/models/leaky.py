"""Leaky units: each state is a running mean, with a time constant of its own.

h(t) = (1 - a) h(t - 1) + a tanh(W x(t) + U h(t - 1) + b). Mozer 1992; Jaeger et al. 2007; Bengio et
al. 2012, arXiv 1212.0901. The leak a is the inverse of the time constant in steps; these are spread
from 1 to the longest one by a geometric series, and fixed or learned.
Input: (batch, step, feature).
"""

from typing import Annotated, Any

import keras
import numpy as np
from keras import ops
from pydantic import Field

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import cell_model, restore, save
from ostinato.memory.layers import fit_recurrent as fit
from ostinato.units import Units

__all__ = ["build", "fit", "restore", "save"]

TimeConstant = Annotated[float, Field(ge=1)]


def build(
    data: ModelData, *, units: Units, longest_time_constant: TimeConstant, learned: bool
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        units: of the recurrent layer.
        longest_time_constant: in steps; 1 gives the simple cell.
        learned: whether the time constants are trained.
    """
    return cell_model(data, [LeakyCell(units, longest_time_constant, learned)])


@keras.saving.register_keras_serializable(package="ostinato")
class LeakyCell(keras.layers.SimpleRNNCell):
    """A simple cell whose state moves towards its new value by a share, the leak.

    Args:
        units: of the state.
        longest_time_constant: in steps.
        learned: whether the leaks are trained.
    """

    def __init__(
        self, units: int, longest_time_constant: float, learned: bool, **kwargs: Any
    ) -> None:
        super().__init__(units, **kwargs)
        self.longest_time_constant, self.learned = longest_time_constant, learned

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        super().build(input_shape)
        # The logit of 1 is infinite: the leak is that of sigmoid(rate) where it is learned.
        leaks = np.geomspace(1, 1 / self.longest_time_constant, self.units)
        if self.learned:
            bounded = np.clip(leaks, 1e-4, 1 - 1e-2)
            leaks = np.log(bounded / (1 - bounded))
        self.rate = self.add_weight(
            shape=(self.units,),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(leaks, dtype),
            trainable=self.learned,
            name="rate",
        )

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the state to the output and the state."""
        fresh, _ = super().call(sequence, states, training=training)
        leak = ops.sigmoid(self.rate) if self.learned else self.rate
        output = states[0] + leak * (fresh - states[0])
        return output, [output]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = {"longest_time_constant": self.longest_time_constant, "learned": self.learned}
        return {**super().get_config(), **own}
