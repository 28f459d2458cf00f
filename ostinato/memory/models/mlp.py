"""A multilayer perceptron of the whole sequence: a baseline that has no notion of time.

It reads sequences of one number of steps. Where there is an answer at each step, all steps are
answered at once. Input: (batch, step, feature).
"""

import keras

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import dense_answer, fit, restore, save, sequence_input
from ostinato.units import DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: ModelData, *, units: Units, num_layers: NumLayers, dropout: DropoutRate
) -> keras.Model:
    """Build the model.

    Args:
        data: of sequences with one number of steps.
        units: of each hidden layer.
        num_layers: number of hidden layers.
        dropout: rate after each hidden layer.

    Raises:
        ParamsError: the number of steps varies.
    """
    inputs = sequence_input(data, fixed=True)
    x = keras.layers.Flatten()(inputs)
    for _ in range(num_layers):
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
    if data.per_step:
        x = keras.layers.Dense(data.steps * units, activation="relu")(x)
        x = keras.layers.Reshape((data.steps, units))(x)
    return keras.Model(inputs, dense_answer(data)(x))
