"""Save and restore Keras models: the default of `ostinato.task.Model`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Shaped

from ostinato import store

FILE = "model.keras"


def save(model: keras.Model, folder: Path) -> None:
    """Write ``model`` to ``folder``/model.keras; the same model gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    store.write_model(folder / FILE, model)


def restore(folder: Path) -> "KerasModel":
    """Read a model that `save` wrote.

    Import the model's module before: it registers the model's layers with Keras.
    """
    return KerasModel(store.read_model(folder / FILE))


class KerasModel:
    """A Keras model as a function of NumPy arrays.

    Args:
        model: with named inputs, or with a single input.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._graph: Callable[[Any], Any] | None = None

    @property
    def parameters(self) -> int:
        """The number of weights, trainable or not."""
        return int(self.model.count_params())

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "batch *shape"] | Mapping[str, Shaped[np.ndarray, "batch ..."]],
    ) -> Any:
        """The model's outputs in inference mode, as NumPy arrays in the model's own nest.

        The first call compiles a graph, which serves batches of any size and length.

        Args:
            inputs: an array, or arrays by input name; other names are ignored.
        """
        named = isinstance(inputs, Mapping)
        if self._graph is None:
            self._graph = self._compile(named)
        x = {i.name: inputs[i.name] for i in self.model.inputs} if named else inputs
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), self._graph(x))

    def _compile(self, named: bool) -> Callable[[Any], Any]:
        specs = {i.name: tf.TensorSpec((None, *i.shape[1:]), i.dtype) for i in self.model.inputs}
        signature = specs if named else next(iter(specs.values()))
        return tf.function(  # type: ignore[no-any-return]
            lambda x: self.model(x, training=False), input_signature=[signature]
        )
