"""What the monitor reads of the answers of classifiers, shared by all domains that classify."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from ostinato.data.profile import sorted_sample
from ostinato.evaluation.classification import TOP1
from ostinato.task import Json, Manifest, PerExample, Profile

METRIC = TOP1


def answer_profile(responses: Sequence[Json]) -> Profile:
    """The distributions of the predicted class and of its probability."""
    return _profile(
        [response["label"] for response in responses],
        np.array([response["probability"] for response in responses]),
    )


def reference_profile(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], manifest: Manifest
) -> Profile:
    """The same of the answers on the test split, from the arrays of the evaluation."""
    probabilities = arrays["probabilities"].astype(np.float32)
    names = np.array(manifest.classes)[probabilities.argmax(axis=1)]
    return _profile(names.tolist(), probabilities.max(axis=1))


def confidence(responses: Sequence[Json]) -> Float[np.ndarray, " answer"]:
    """The probability of each predicted class."""
    return np.array([response["probability"] for response in responses], np.float64)


def find_truths(
    inputs: Sequence[Json], responses: Sequence[Json], raw: Path, manifest: Manifest
) -> list[Json]:
    """No truth is known without a label."""
    return [None] * len(responses)


def is_truth(truth: Json, response: Json) -> bool:
    """Whether a label can be one: the name of a class, which the model may not know."""
    return isinstance(truth, str) and bool(truth)


def judge(
    inputs: Sequence[Json], responses: Sequence[Json], truths: Sequence[Json], keys: Sequence[str]
) -> PerExample:
    """Whether each answer is right: the statistics of `METRIC`."""
    right = [response["label"] == truth for response, truth in zip(responses, truths, strict=True)]
    rows = np.stack([np.array(right, np.float64), np.ones(len(right))], axis=1)
    return PerExample(np.array(keys, np.str_), np.arange(len(rows)), {METRIC.name: rows})


def _profile(labels: Sequence[str], probabilities: Float[np.ndarray, " answer"]) -> Profile:
    # Rounded, because the evaluation keeps half precision: equal values would be told apart.
    rounded = probabilities.astype(np.float64).round(2)
    return Profile(
        examples=len(labels),
        numbers={"confidence": sorted_sample(rounded)},
        counts={"predicted class": dict(Counter(labels))},
    )
