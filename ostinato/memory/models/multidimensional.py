"""Recurrent passes over a picture in four directions: up, down, left and right.

Multidimensional recurrent networks: Graves et al. 2007, arXiv 0705.2011; as four one-dimensional
passes: Visin et al. 2015, arXiv 1505.00393. Each pass reads every row or column for itself. Layers
of passes read the maps of the layer before, and the mean over the picture is classified. If the
passes share their weights, the model does not change its answer when the picture is turned by a
quarter or mirrored. A sequence of pixels or of rows is read as a picture.
"""

from typing import Any, Literal

import keras
from keras import ops

from ostinato.errors import ParamsError
from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import dense_answer, fit, restore, save, sequence_input
from ostinato.units import Length, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]

CELLS = {
    "simple": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def build(
    data: ModelData,
    *,
    cell: Literal["simple", "lstm", "gru"],
    units: Units,
    num_layers: NumLayers,
    rows: Length,
    shared: bool,
) -> keras.Model:
    """Build the model.

    Args:
        data: of pictures, row by row or pixel by pixel.
        cell: of the passes.
        units: of a pass.
        num_layers: of four passes each.
        rows: of a picture.
        shared: whether the four passes of a layer share their weights; their maps are then added,
            else they are concatenated.

    Raises:
        ParamsError: the sequences are no pictures with so many rows.
    """
    pixels = data.steps * data.features
    if data.per_step or not data.fixed or pixels % rows:
        raise ParamsError(
            f"rows: sequences of {data.steps} steps with {data.features} features are no pictures "
            f"of {rows} rows with one answer; choose another data set, or other rows"
        )
    inputs = sequence_input(data, fixed=True)
    x = keras.layers.Reshape((rows, pixels // rows, 1))(inputs)
    for _ in range(num_layers):
        x = FourPasses(cell, units, shared)(x)
    return keras.Model(inputs, dense_answer(data)(keras.layers.GlobalAveragePooling2D()(x)))


@keras.saving.register_keras_serializable(package="ostinato")
class FourPasses(keras.layers.Layer):
    """Four recurrent passes over a map: right, left, down and up.

    Args:
        cell: a key of `CELLS`.
        units: of a pass.
        shared: whether one set of weights serves all passes, whose maps are added.
    """

    def __init__(self, cell: str, units: int, shared: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = {"cell": cell, "units": units, "shared": shared}
        self.shared, self.units = shared, units
        self.passes = [CELLS[cell](units, return_sequences=True) for _ in range(1 if shared else 4)]

    def build(self, input_shape: Any) -> None:
        """Create the weights."""
        for layer in self.passes:
            layer.build((None, None, input_shape[-1]))

    def call(self, x: Any) -> Any:
        """(batch, row, column, channel) to (batch, row, column, unit or 4 * unit)."""
        maps = []
        for number in range(4):
            layer = self.passes[0 if self.shared else number]
            vertical, backwards = number >= 2, number % 2 == 1
            turned = ops.transpose(x, (0, 2, 1, 3)) if vertical else x
            turned = ops.flip(turned, axis=2) if backwards else turned
            height, width, channels = turned.shape[1:]
            lines = layer(ops.reshape(turned, (-1, width, channels)))
            found = ops.reshape(lines, (-1, height, width, self.units))
            found = ops.flip(found, axis=2) if backwards else found
            maps.append(ops.transpose(found, (0, 2, 1, 3)) if vertical else found)
        if self.shared:
            return maps[0] + maps[1] + maps[2] + maps[3]
        return ops.concatenate(maps, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, row, column, unit or 4 * unit)."""
        return (*input_shape[:3], self.units * (1 if self.shared else 4))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), **self.settings}
