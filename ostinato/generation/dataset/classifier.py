"""The classifier of drawings that judges what generators draw.

The network is that of TensorFlow's drawing tutorial (2017, after Ha and Eck 2017, arXiv
1704.03477): convolutions, two bidirectional LSTMs and the sum over the points, as in
``conv_bilstm`` of `ostinato.sketches`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float32, Int16

from ostinato import store
from ostinato.data.batches import batch_indices, transform
from ostinato.task import Part, TrainingContext

if TYPE_CHECKING:
    from ostinato.generation.dataset.loader import Drawings


class Rows(Protocol):
    """Stroke-3 rows (point, 3) of drawings: a list, or `ostinato.generation.dataset.Drawings`."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Int16[np.ndarray, "_ 3"]: ...
    def __iter__(self) -> Iterator[Int16[np.ndarray, "_ 3"]]: ...


FILE = "classifier.keras"
KERNEL_SIZES = (5, 5, 3)
BATCH_SIZE = 256  # drawings that are classified at once


def inputs(drawings: Rows, scale: float) -> Float32[np.ndarray, "drawing point 3"]:
    """Stroke-3 rows as the classifier reads them.

    Offsets are divided by the scale; the third value is 1 where the pen lifts, else -1. Rows of
    zeros are padding.
    """
    x = np.zeros((len(drawings), max(map(len, drawings), default=0), 3), np.float32)
    for padded, rows in zip(x, drawings, strict=True):
        padded[: len(rows), :2] = rows[:, :2] / np.float32(scale)
        padded[: len(rows), 2] = rows[:, 2] * 2 - 1
    return x


class Classifier:
    """A trained classifier.

    Args:
        model: maps drawings (batch, point, 3) to probabilities and features.
        scale: by which offsets are divided.
    """

    def __init__(self, model: Any, scale: float) -> None:
        from ostinato.training.keras_model import KerasModel

        self.scale, self._model = scale, KerasModel(model)

    def __call__(
        self, drawings: Rows
    ) -> tuple[Float32[np.ndarray, "drawing class"], Float32[np.ndarray, "drawing feature"]]:
        """Probabilities of the classes, and the features that the last layer reads.

        Args:
            drawings: stroke-3 rows in pixels, fitted as prepared ones; none is empty.
        """
        order = np.argsort([len(rows) for rows in drawings], kind="stable")
        parts = [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
        found = [self._model(inputs([drawings[i] for i in part], self.scale)) for part in parts]
        back = np.argsort(order, kind="stable")
        probabilities, features = (np.concatenate(each)[back] for each in zip(*found, strict=True))
        return probabilities, features


def restore(file: Path, scale: float) -> Classifier:
    """Read a classifier that `train` has written."""
    import ostinato.layers  # noqa: F401  registers the layers

    return Classifier(store.read_model(file), scale)


def train(
    file: Path,
    drawings: "Mapping[str, Drawings]",
    *,
    scale: float,
    classes: int,
    units: int,
    filters: Sequence[int],
    dropout: float,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Classifier:
    """Train a classifier on drawings, keep its best epoch on the validation split, write it.

    Args:
        file: that is written.
        drawings: of the splits train and validation.
        scale: by which offsets are divided.
        classes: number of classes.
        units: of an LSTM, in each direction.
        filters: of the convolutions.
        dropout: rate after each LSTM, and between the convolutions.
        epochs: passes over the drawings.
        batch_size: drawings in a step.
        learning_rate: the highest one; it falls to zero by a half cosine.
        seed: of weights, order and dropout.
    """
    import tempfile

    import keras

    from ostinato.training import runtime
    from ostinato.training.machine import Machine
    from ostinato.training.trainer import fit

    with (
        tempfile.TemporaryDirectory(prefix=".partial.", dir=file.parent) as temporary,
        runtime.runtime(seed, Machine(), precision="float32"),
    ):
        model, features = _network(classes, units, filters, dropout)
        fit(
            model,
            _Batches(drawings, scale),
            TrainingContext(Path(temporary), seed),
            epochs=epochs,
            batch_size=batch_size,
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            optimizer="adam",
            learning_rate=learning_rate,
            schedule="cosine",
            warmup_fraction=0.05,
            clip_norm=1.0,
            monitor="validation_loss",
            patience=epochs,
        )
        both = keras.Model(model.inputs, [model.outputs[0], features])
    store.write_model(file, both)
    return Classifier(both, scale)


def _network(classes: int, units: int, filters: Sequence[int], dropout: float) -> tuple[Any, Any]:
    """The model, and the features that its last layer reads."""
    import keras

    from ostinato.layers import LSTM, MaskedConv1D, MaskedPooling

    points = keras.Input((None, 3), name="points")
    x = keras.layers.Masking(0.0)(points)
    for depth, (number, size) in enumerate(zip(filters, KERNEL_SIZES, strict=True)):
        if depth:
            x = keras.layers.Dropout(dropout)(x)
        x = MaskedConv1D(number, size)(x)
    for _ in range(2):
        x = keras.layers.Bidirectional(LSTM(units, return_sequences=True))(x)
        x = keras.layers.Dropout(dropout)(x)
    features = MaskedPooling("sum")(x)
    scores = keras.layers.Dense(classes, activation="softmax", dtype="float32")(features)
    return keras.Model(points, scores), features


class _Batches:
    """Batches of similar lengths (`ostinato.training.trainer.Data`)."""

    def __init__(self, drawings: "Mapping[str, Drawings]", scale: float) -> None:
        self._drawings, self._scale = drawings, scale

    def size(self, split: str) -> int:
        return len(self._drawings[split])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        from ostinato.generation.dataset.loader import DrawingsInMemory, padded

        drawings = DrawingsInMemory(self._drawings[split])
        batches = batch_indices(drawings.points, batch_size, seed, epoch)
        scale = [self._scale, self._scale, 1.0]

        def to_inputs(points: Any, drawn: Any, labels: Any) -> Any:
            return points / scale * [1.0, 1.0, 2.0] - drawn * [0.0, 0.0, 1.0], labels

        return transform(padded(drawings, batches, 0, part), to_inputs, part)
