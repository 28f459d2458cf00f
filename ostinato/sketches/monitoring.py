"""What the monitor reads of served drawings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ostinato import store
from ostinato.monitoring.classification import (
    METRIC,
    answer_profile,
    confidence,
    find_truths,
    is_truth,
    judge,
    reference_profile,
)
from ostinato.sketches.dataset.profile import features, profile
from ostinato.sketches.serving import Input, to_rows
from ostinato.task import Json, Profile

__all__ = [
    "METRIC",
    "answer_profile",
    "confidence",
    "find_truths",
    "input_profile",
    "is_truth",
    "judge",
    "reference_profile",
]


def input_profile(inputs: Sequence[Json], folder: Path) -> Profile:
    """The profile of served drawings, by the functions that prepared the training data.

    Args:
        inputs: of requests.
        folder: of the version.
    """
    max_points = store.read_json(folder / "about.json")["prepare"]["max_points"]
    rows = [
        to_rows(number, Input.model_validate(drawing), max_points)
        for number, drawing in enumerate(inputs)
    ]
    content = np.concatenate(rows).reshape(-1).view(np.uint8)
    ends = np.cumsum([each.nbytes for each in rows])
    return replace(profile("strokes", {}, [features(content, ends, "strokes")]), examples=len(rows))
