"""What the training clips are like, in few numbers: what a later data set is compared with.

``profile.json`` has the form that ostinato/data/drift.py reads from every domain: a sample of each
number (``numbers``), how often each category occurs (``counts``), and of how many (``examples``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1000
"""Clips in the sample: the first of the stored order, which is that of a hash."""

NUMBERS = ("frames", "seconds", "brightness", "contrast", "motion")


def features(clip: NDArray[np.uint8], seconds: float) -> list[float]:
    """The ``NUMBERS`` of a clip (frame, height, width, channel).

    Frames; seconds from the first to the last; brightness, the mean pixel, and contrast, the
    deviation of pixels, both in 0 to 1; motion, the mean difference of a pixel to the next frame's.
    """
    light = clip / np.float32(255)
    motion = np.abs(np.diff(light, axis=0)).mean() if len(clip) > 1 else 0.0
    found = (len(clip), seconds, light.mean(), light.std(), motion)
    return [round(float(number), 4) for number in found]


def profile(counts: Mapping[str, int], sample: Sequence[list[float]]) -> dict[str, Any]:
    """The profile of a data set.

    Args:
        counts: the training clips of each class.
        sample: `features` of the first training clips of the stored order.
    """
    columns = zip(*sample[:SAMPLE], strict=True)
    return {
        "examples": sum(counts.values()),
        "numbers": {name: sorted(column) for name, column in zip(NUMBERS, columns, strict=True)},
        "counts": {"class": dict(counts)},
    }
