"""The floor of all generators: a drawing of the training split, with noise on its points.

The drawing that continues a beginning is the one of the class whose first points lie nearest to it.
There is no density, so L_R and L_KL are not defined.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int16, Integer, Real

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
            label: np.flatnonzero(drawings.labels == label).tolist()
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
        found = []
        for number, (label, seed) in enumerate(zip(labels.tolist(), seeds, strict=True)):
            random = np.random.default_rng(seed)
            own = self._of_class.get(label) or range(len(self.drawings))
            begun = beginnings[number] if beginnings is not None else np.zeros((0, 3), np.int16)
            chosen = self._nearest(own, begun) if len(begun) else random.choice(own)
            rows = self.drawings[chosen][len(begun) :]
            points = np.cumsum(self.drawings[chosen][:, :2], axis=0, dtype=np.float64)
            noise = self.jitter * np.sqrt(temperature[number])
            points[len(begun) :] += random.normal(0, noise, (len(rows), 2))
            points[: len(begun)] = np.cumsum(begun[:, :2], axis=0)[: len(points)]
            drawn = self.drawings[chosen].copy()
            drawn[:, :2] = np.diff(np.rint(points), axis=0, prepend=0)
            found.append(np.concatenate([begun, drawn[len(begun) :]]).astype(np.int16))
        return found

    def measure(
        self,
        drawings: Sequence[Int16[np.ndarray, "_ 3"]],
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
    ) -> tuple[None, None]:
        """Neither L_R nor L_KL."""
        return None, None

    def _nearest(self, own: Sequence[int], begun: Int16[np.ndarray, "_ 3"]) -> int:
        """The drawing whose first points lie nearest to a beginning, among longer ones if any."""
        longer = [i for i in own if len(self.drawings[i]) > len(begun)] or own
        there, distances = _points(begun), []
        for i in longer:
            points = _points(self.drawings[i][: len(begun)])
            distances.append(np.square(points - there[: len(points)]).mean())
        return longer[int(np.argmin(distances))]


def _points(rows: Int16[np.ndarray, "_ 3"]) -> Float64[np.ndarray, "_ 2"]:
    return np.cumsum(rows[:, :2], axis=0, dtype=np.float64)


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
