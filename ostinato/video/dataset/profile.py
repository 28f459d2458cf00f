"""The profile of the training clips, against which drift is measured (ostinato/data/drift.py)."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from ostinato.task import Profile

SAMPLE_SIZE = 1000
"""Clips in the sample: the first ones in stored order, which is the order of a hash."""

NUMBERS = ("frames", "seconds", "brightness", "contrast", "motion")


def features(clip: UInt8[np.ndarray, "frame height width channel"], seconds: float) -> list[float]:
    """The features of a clip, in the order of `NUMBERS`.

    Number of frames; seconds from the first frame to the last; brightness, the mean pixel, and
    contrast, the standard deviation of the pixels, both in 0 to 1; motion, the mean absolute
    difference of a pixel between consecutive frames.
    """
    scaled = clip / np.float32(255)
    motion = np.abs(np.diff(scaled, axis=0)).mean() if len(clip) > 1 else 0.0
    values = (len(clip), seconds, scaled.mean(), scaled.std(), motion)
    return [round(float(value), 4) for value in values]


def profile(class_counts: Mapping[str, int], sample: Sequence[list[float]]) -> Profile:
    """The profile of a data set.

    Args:
        class_counts: number of training clips of each class.
        sample: `features` of the first training clips in stored order.
    """
    columns = zip(*sample[:SAMPLE_SIZE], strict=True)
    return Profile(
        examples=sum(class_counts.values()),
        numbers={name: sorted(column) for name, column in zip(NUMBERS, columns, strict=True)},
        counts={"class": dict(class_counts)},
    )
