"""A prepared task: stored examples, or examples that are drawn anew for each epoch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from jaxtyping import Int64

from ostinato import store
from ostinato.data.batches import select_part
from ostinato.errors import DataError
from ostinato.memory.formats import tasks
from ostinato.memory.formats.examples import Examples, Target
from ostinato.params import near
from ostinato.task import Manifest, Part

if TYPE_CHECKING:
    import tensorflow as tf


class ModelData(Protocol):
    """What a model needs to know of a data set to be built."""

    target: Target
    per_step: bool
    features: int
    outputs: int
    steps: int
    fixed: bool


class Dataset:
    """A prepared data set, read from its folder when needed.

    Attributes:
        folder: that `prepare` has written.
        manifest: of the data set.
        target: what a model answers.
        per_step: whether it answers at each step, or once at the end.
        features: of a step.
        outputs: classes, numbers or bits of an answer.
        steps: of the longest examples.
        fixed: whether all examples of training have these steps.
        classes: names of the classes, if these are the target.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        details = manifest.details
        self.folder, self.manifest = folder, manifest
        self.target = cast(Target, details["target"])
        self.per_step, self.fixed = bool(details["per_step"]), bool(details["fixed"])
        self.features, self.outputs = int(details["features"]), int(details["outputs"])
        self.steps = int(details["steps"])
        self.classes = tuple(manifest.classes)
        self._examples: dict[str, Examples] = {}

    def size(self, split: str) -> int:
        """The number of examples of a split; where they are drawn without end, of an epoch.

        Raises:
            DataError: there is no such split.
        """
        if split not in self.manifest.splits:
            hint = near(split, self.manifest.splits)
            raise DataError(f"{self.folder}: no split {split!r}; {hint}")
        return self.manifest.size(split)

    def examples(self, split: str) -> Examples:
        """The stored examples of a split, in their order; all have the same number of steps.

        Raises:
            DataError: there is no such split, or its examples are drawn for each epoch.
        """
        if split == "train" and self.manifest.details["task"]:
            raise DataError(
                f"{self.folder}: the train split of {self.manifest.source} is drawn for each "
                "epoch; use `batches` or `draw`"
            )
        self.size(split)
        if split not in self._examples:
            self._examples[split] = Examples(**store.read_arrays(self.folder / f"{split}.npz"))
        return self._examples[split]

    def draw(self, count: int, length: int, delay: int, random: np.random.Generator) -> Examples:
        """New examples of the task.

        Raises:
            DataError: the examples of the data set are stored.
        """
        details = self.manifest.details
        function = tasks.task(details["task"])
        return function(random, count, length=length, delay=delay, **details["settings"])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> "tf.data.Dataset":
        """Batches of a split; the last one may be smaller.

        The examples of a batch have the same number of steps. In the training split of a task
        without end, ``length`` is drawn for each batch.

        Args:
            split: train, validation or test.
            batch_size: examples in a batch.
            seed: of the order and of drawn examples; None for the stored order.
            epoch: determines them together with the seed, and the longest length (curriculum).
            part: of every batch; see `ostinato.task.Dataset.batches`. All examples are in memory.

        Returns:
            x float32 (batch, step, feature). y int32 (batch,) for classes, else float32 (batch,
            output). Where there is an answer at each step, y (batch, step, output) and a weight
            float32 (batch, step), which is 0 at steps without a target.
        """
        import tensorflow as tf

        random = np.random.default_rng([seed or 0, epoch])
        size = self.size(split)
        counts = np.full(-(-size // batch_size), batch_size)
        counts[-1] = size - batch_size * (len(counts) - 1)
        if split == "train" and self.manifest.details["task"]:
            parts = [self._drawn_batch(int(count), epoch, random) for count in counts]
        else:
            examples = self.examples(split)
            order = np.arange(size) if seed is None else random.permutation(size)
            parts = [examples[rows] for rows in np.split(order, np.cumsum(counts)[:-1])]
        steps = np.array([part.x.shape[1] for part in parts])
        with_steps = {"x": True, "y": self.per_step, "weight": True}
        arrays = [
            _stacked([part.arrays()[name] for part in parts], batch_size, steps if along else None)
            for name, along in with_steps.items()
            if self.per_step or name != "weight"
        ]

        def cut(count: Any, step: Any, *columns: Any) -> Any:
            return tuple(
                column[:count, :step] if along else column[:count]
                for column, along in zip(columns, with_steps.values(), strict=False)
            )

        batches = tf.data.Dataset.from_tensor_slices((counts, steps, *arrays)).map(cut)
        return select_part(batches, part).prefetch(2)

    def _drawn_batch(self, count: int, epoch: int, random: np.random.Generator) -> Examples:
        details = self.manifest.details
        low, high, ramp = details["min_length"], details["length"], details["curriculum_epochs"]
        longest = high if epoch >= ramp else low + round((high - low) * epoch / ramp)
        length = int(random.integers(low, longest + 1))
        return self.draw(count, length, details["delay"], random)


def load(folder: Path) -> Dataset:
    """Read a data set that `prepare` has written."""
    return Dataset(folder, Manifest.read(folder / "manifest.json"))


def _stacked(
    parts: list[np.ndarray], batch_size: int, steps: Int64[np.ndarray, " batch"] | None
) -> np.ndarray:
    """Batches of one array, padded to ``batch_size`` examples and to the longest of ``steps``."""
    first = parts[0]
    rest = first.shape[1:] if steps is None else (int(steps.max()), *first.shape[2:])
    stacked = np.zeros((len(parts), batch_size, *rest), first.dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[tuple(slice(n) for n in part.shape)] = part
    return stacked
