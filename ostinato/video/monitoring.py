"""What the monitor reads of served videos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ostinato.monitoring.classification import (
    METRIC,
    answer_profile,
    confidence,
    find_truths,
    is_truth,
    judge,
    reference_profile,
)
from ostinato.task import Json, Profile
from ostinato.video import dataset
from ostinato.video.dataset.profile import features, profile
from ostinato.video.serving import Input, read_clips

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
    """The profile of served videos, by the functions that prepared the training data.

    Args:
        inputs: of requests; a path needs the server's variable OSTINATO_VIDEOS here too.
        folder: of the version.
    """
    sampling = dataset.load(folder).sampling
    clips = [
        clip
        for number, video in enumerate(inputs)
        for clip in read_clips(f"video {number}", Input.model_validate(video), sampling)
    ]
    sample = [features(clip.pixels, clip.seconds) for clip in clips]
    return replace(profile({}, sample), examples=len(clips))
