"""The baseline of all generators: a drawing of the training split, with noise on its points.

The drawing that continues a beginning is the one of the class whose first points lie nearest to it.
There is no density, so L_R and L_KL are not defined.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int16, Int32, Int64, Integer, Real

from ostinato import store
from ostinato.generation.dataset.loader import Dataset, Drawings
from ostinato.task import Record, TrainingContext
from ostinato.units import NonNegative

__all__ = ["build", "fit", "restore", "save"]


class Nearest:
    """Stored drawings (`ostinato.generation.evaluation.Generator`).

    Args:
        drawings: that are drawn again.
        jitter: standard deviation of the noise at temperature 1, in pixels.
    """

    parameters = 0
    latent_size = 0

    def __init__(self, drawings: Drawings, jitter: float) -> None:
        self.drawings, self.jitter = drawings, jitter
        self._of_class = {
            label: np.flatnonzero(drawings.labels == label)
            for label in np.unique(drawings.labels).tolist()
        }

    def draw(
        self,
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " drawing"],
        *,
        latent: None = None,
        beginnings: Sequence[Int16[np.ndarray, "_ 3"]] | None = None,
    ) -> list[Int16[np.ndarray, "_ 3"]]:
        """Make drawings; see `ostinato.generation.layers.Generator.draw`."""
        found: dict[int, Int16[np.ndarray, "_ 3"]] = {}
        for label in np.unique(labels).tolist():
            own = self._of_class.get(label, np.arange(len(self.drawings)))
            points, lengths = self._points(own)
            for number in np.flatnonzero(labels == label).tolist():
                random = np.random.default_rng(seeds[number])
                begun = beginnings[number] if beginnings is not None else np.zeros((0, 3))
                count = len(begun)
                there = np.cumsum(begun[:, :2], axis=0, dtype=np.float64)
                i = _nearest(points, lengths, there) if count else int(random.integers(len(own)))
                drawn = points[i, : lengths[i]].astype(np.float64)
                noise = self.jitter * np.sqrt(temperature[number])
                drawn[count:] += random.normal(0, noise, drawn[count:].shape)
                drawn[:count] = there[: len(drawn)]
                rows = self.drawings[int(own[i])].copy()
                rows[:, :2] = np.diff(np.rint(drawn), axis=0, prepend=0)
                found[number] = np.concatenate([begun, rows[count:]]).astype(np.int16)
        return [found[number] for number in range(len(labels))]

    def measure(
        self,
        drawings: Sequence[Int16[np.ndarray, "_ 3"]],
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
    ) -> tuple[None, None]:
        """Neither L_R nor L_KL."""
        return None, None

    def _points(
        self, own: Integer[np.ndarray, " drawing"]
    ) -> tuple[Int32[np.ndarray, "drawing point 2"], Int64[np.ndarray, " drawing"]]:
        """The positions of some drawings, padded with zeros, and their numbers of points."""
        lengths = self.drawings.lengths[own]
        points = np.zeros((len(own), int(lengths.max()), 2), np.int32)
        for place, i in zip(points, own.tolist(), strict=True):
            rows = self.drawings[i]
            place[: len(rows)] = np.cumsum(rows[:, :2], axis=0, dtype=np.int32)
        return points, lengths


def _nearest(
    points: Int32[np.ndarray, "drawing point 2"],
    lengths: Int64[np.ndarray, " drawing"],
    there: Float64[np.ndarray, "given 2"],
) -> int:
    """The drawing whose first points lie nearest to those given, among longer ones if any."""
    part = there[: points.shape[1]]
    known = np.arange(len(part)) < lengths[:, None]
    squares = np.square(points[:, : len(part)] - part).sum(axis=2) * known
    distance = squares.sum(axis=1) / known.sum(axis=1)
    longer = lengths > len(there)
    return int(np.where(longer | ~longer.any(), distance, np.inf).argmin())


def build(data: Dataset, *, jitter: NonNegative) -> Nearest:
    """Take the drawings of the training split.

    Args:
        data: of drawings.
        jitter: standard deviation of the noise of a point at temperature 1, in pixels.
    """
    return Nearest(data.examples("train"), jitter)


def fit(model: Nearest, data: Dataset, context: TrainingContext) -> list[Record]:
    """Nothing is learned; returns one record."""
    record: Record = {"epoch": 1, "loss": 0.0, "validation_loss": 0.0, "seconds": 0.0}
    context.on_epoch(record)
    return [record]


def save(model: Nearest, folder: Path) -> None:
    """Write the drawings."""
    each = model.drawings
    arrays = {"points": each.points, "ends": each.ends, "labels": each.labels, "keys": each.keys}
    store.write_arrays(folder / "drawings.npz", {**arrays, "jitter": np.array(model.jitter)})


def restore(folder: Path) -> Nearest:
    """Read what `save` has written."""
    arrays = store.read_arrays(folder / "drawings.npz")
    jitter = float(arrays.pop("jitter"))
    return Nearest(Drawings(**arrays), jitter)
