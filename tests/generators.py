"""A generator of drawings for tests, whose drawings are known, behind the real service."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ostinato import store
from ostinato.generation import dataset
from ostinato.generation.serving import GenerationService
from ostinato.task import Manifest

CLASSES = ["fish", "house", "ice cream"]
LONGEST, MAX_POINTS = 12, 20
TEMPERATURE = 0.25


class Stairs:
    """Continues with four steps to the right and down, of lengths that the seed gives.

    The last step is as high as 1, plus 10 times the label, plus 100 times the temperature. A latent
    vector is the width and height of a drawing; the drawing is then a line of that extent.

    Args:
        latent_size: 2, or 0 for a model without encoder.
        classes: that it knows.
    """

    parameters = 0

    def __init__(self, latent_size: int = 2, classes: int = len(CLASSES)) -> None:
        self.latent_size, self.network = latent_size, SimpleNamespace(classes=classes)
        self.calls = 0

    def draw(
        self,
        labels: Any,
        seeds: Sequence[int],
        temperature: Any,
        *,
        latent: Any = None,
        beginnings: Sequence[Any] | None = None,
    ) -> list[Any]:
        self.calls += 1
        found = []
        for i, seed in enumerate(seeds):
            begun = beginnings[i] if beginnings else np.zeros((0, 3))
            if latent is None:
                new = np.zeros((4, 3))
                new[:, 0] = np.random.default_rng(seed).integers(5, 60, 4)
                new[-1, 1] = 1 + 10 * labels[i] + 100 * temperature[i]
            else:
                new = np.array([[0, 0, 0], [*latent[i], 0]], float)
            new[-1, 2] = 1
            found.append(np.rint(np.concatenate([begun, new])).astype(np.int16))
        return found

    def measure(self, drawings: Sequence[Any], labels: Any, seeds: Sequence[int]) -> Any:
        """The number of points, plus the label, plus a part that the seed gives."""
        if not self.latent_size:
            return None, None
        lengths = np.array([len(rows) for rows in drawings])
        return lengths + np.array(labels) + np.array(seeds) / 2**32, np.zeros(len(lengths))

    def encode(self, drawings: Sequence[Any], labels: Any) -> Any:
        positions = [np.cumsum(rows[:, :2], axis=0) for rows in drawings]
        return np.array([np.ptp(each, axis=0) for each in positions], np.float32)


class Judge:
    """A classifier: the class is the number of strokes less one, with the probability 0.75."""

    def __call__(self, rows: Sequence[Any]) -> tuple[Any, Any]:
        found = np.full((len(rows), len(CLASSES)), 0.125)
        for i, each in enumerate(rows):
            assert len(each) > 1
            assert each[:, :2].any()
            found[i, min(int(each[:, 2].sum()), len(CLASSES)) - 1] = 0.75
        return found, found


def manifest(classes: Sequence[str] = CLASSES) -> Manifest:
    details = {"scale": 40.0, "longest": LONGEST, "max_points": MAX_POINTS}
    return Manifest("doodles", "drawings", {}, list(classes), details)


def service(
    generator: Any, folder: Path, classes: Sequence[str] = CLASSES, judge: Any = None
) -> GenerationService:
    """The service of a generator; without judge there is no classifier."""
    store.write_json(folder / "manifest.json", manifest(classes).to_json())
    data = dataset.load(folder)
    data.classifier = judge
    return GenerationService(generator, data, TEMPERATURE)
