"""A clockwork network: modules of units that change only at every so many steps.

Koutnik et al. 2014, arXiv 1402.3511: a module of period p is computed at steps 0, p, 2p, ... and
keeps its state in between; it reads itself and the slower modules. Input: (batch, step, feature).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from ostinato.errors import ParamsError
from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import cell_model, restore, save
from ostinato.memory.layers import fit_recurrent as fit
from ostinato.units import Length, Units

__all__ = ["build", "fit", "restore", "save"]


def build(data: ModelData, *, module_units: Units, periods: list[Length]) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        module_units: of each module.
        periods: of the modules in steps, in increasing order; ``[1]`` gives the simple cell.

    Raises:
        ParamsError: the periods do not increase.
    """
    if not periods or sorted(set(periods)) != list(periods):
        raise ParamsError(
            f"periods: found {periods}; expected increasing numbers, such as [1, 2, 4, 8]"
        )
    return cell_model(data, [ClockworkCell(module_units * len(periods), list(periods))])


@keras.saving.register_keras_serializable(package="ostinato")
class ClockworkCell(keras.layers.SimpleRNNCell):
    """A simple cell whose units belong to modules with periods; its second state counts steps."""

    def __init__(self, units: int, periods: list[int], **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.periods = list(periods)
        self.state_size = [units, 1]
        of_unit = np.repeat(self.periods, units // len(self.periods))
        self._period = of_unit.astype(np.float32)
        self._reads = (of_unit[:, None] >= of_unit[None]).astype(np.float32)

    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        """One step: (batch, feature) and the states to the output and the states."""
        last, step = states
        total = ops.matmul(sequence, self.kernel) + self.bias
        total = total + ops.matmul(last, self.recurrent_kernel * self._reads)
        active = ops.mod(step, self._period) < 0.5
        output = ops.where(active, self.activation(total), last)
        return output, [output, step + 1]

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """Zeros."""
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in self.state_size]

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "periods": self.periods}
