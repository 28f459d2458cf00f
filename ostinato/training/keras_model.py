"""Save and restore Keras models: the default of `ostinato.task.Model`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato import store

FILE = "model.keras"


def save(model: keras.Model, folder: Path) -> None:
    """Write ``model`` to ``folder``/model.keras; the same model gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    store.write_model(folder / FILE, model)


def restore(folder: Path) -> "KerasModel":
    """Read what `save` wrote. The model's module must be imported: it registers its layers."""
    return KerasModel(store.read_model(folder / FILE))


class KerasModel:
    """A Keras model as a function of NumPy arrays."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._graph: Callable[[Any], Any] | None = None

    @property
    def parameters(self) -> int:
        """The number of weights, also of those that are not trained."""
        return int(self.model.count_params())

    def __call__(self, inputs: np.ndarray | Mapping[str, np.ndarray]) -> Any:
        """The model's outputs in inference mode, as NumPy arrays.

        One graph serves batches of any size and length; the first call compiles it.

        Args:
            inputs: an array, or arrays by the name of the input; others than the model's are
                ignored.
        """
        named = self.model.inputs if isinstance(inputs, Mapping) else None
        if self._graph is None:
            specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in self.model.inputs]
            signature = (
                {x.name: spec for x, spec in zip(named, specs, strict=True)} if named else specs[0]
            )
            self._graph = tf.function(
                lambda x: self.model(x, training=False), input_signature=[signature]
            )
        x = {key.name: inputs[key.name] for key in named} if named else inputs
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), self._graph(x))
