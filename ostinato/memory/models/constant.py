"""The best constant answer: the frequency of each class, or the mean of each number or bit.

The baseline of every task. It learns from the training split and reads nothing.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from ostinato import store
from ostinato.memory.dataset.loader import Dataset, ModelData
from ostinato.memory.formats.examples import Examples
from ostinato.task import Record, TrainingContext
from ostinato.units import BatchSize

__all__ = ["Constant", "build", "fit", "restore", "save"]

FILE = "constant.npz"


class Constant:
    """A predictor that gives the same answer to everything.

    Args:
        value: of each output.
        per_step: whether there is an answer at each step.
    """

    parameters = 0
    steps = None
    gradient_norms: Mapping[str, Float32[np.ndarray, " step"]] = {}

    def __init__(self, value: Float[np.ndarray, " output"], per_step: bool) -> None:
        self.value, self.per_step = value, per_step

    def __call__(
        self, x: Float32[np.ndarray, "example step feature"]
    ) -> Float32[np.ndarray, "example ..."]:
        """The answer for each sequence."""
        shape = x.shape[: 2 if self.per_step else 1]
        return np.broadcast_to(self.value.astype(np.float32), (*shape, len(self.value))).copy()

    def traces(
        self, x: Float32[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step row"]]:
        """Nothing happens in it."""
        return {}


def build(data: ModelData) -> Constant:
    """Build the predictor, which answers zeros."""
    return Constant(np.zeros(data.outputs), data.per_step)


def fit(
    model: Constant, data: Dataset, context: TrainingContext, *, batch_size: BatchSize
) -> list[Record]:
    """Take the mean of the training split's targets; return one record, as of one epoch.

    Args:
        model: of ``build``.
        data: the data set.
        context: its seed draws the examples of a task without end.
        batch_size: examples that are read at once.
    """
    start = time.perf_counter()
    total, count = np.zeros(data.outputs), 0
    batches = data.batches("train", batch_size=batch_size, seed=context.seed, epoch=1)
    for x, y, *weights in batches.as_numpy_iterator():
        rows = Examples(x, y, *weights).truth(data.outputs)
        total, count = total + rows.sum(axis=0), count + len(rows)
    model.value = total / count
    seconds = time.perf_counter() - start
    errors = data.examples("validation").truth(data.outputs) - model.value
    record: Record = {"epoch": 1, "validation_loss": float(np.mean(errors**2)), "seconds": seconds}
    context.on_epoch(record)
    return [record]


def save(model: Constant, folder: Path) -> None:
    """Write the answer."""
    store.write_arrays(folder / FILE, {"value": model.value, "per_step": np.array(model.per_step)})


def restore(folder: Path) -> Constant:
    """Read what `save` wrote."""
    arrays = store.read_arrays(folder / FILE)
    return Constant(arrays["value"], bool(arrays["per_step"]))
