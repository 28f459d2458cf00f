"""Samples of features for profiles (`ostinato.task.Profile`)."""

import numpy as np
from jaxtyping import Real

SAMPLE = 1000
"""Number of values in the sample of a numeric feature."""


def sorted_sample(values: Real[np.ndarray, " value"]) -> list[float]:
    """At most `SAMPLE` of the values, sorted, at evenly spaced ranks.

    It is a function of the values alone, not of their order, and the same on every machine.
    """
    ordered = np.sort(values)
    index = np.linspace(0, len(ordered) - 1, min(SAMPLE, len(ordered))).round().astype(int)
    return [float(value) for value in ordered[index]]
