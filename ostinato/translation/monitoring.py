"""What the monitor reads of served texts and their translations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from ostinato.data.profile import sorted_sample
from ostinato.task import Json, Manifest, PerExample, Profile
from ostinato.translation import dataset, metrics
from ostinato.translation.dataset import cleaning
from ostinato.translation.dataset.writing import quantile_sample
from ostinato.translation.evaluation import per_example
from ostinato.translation.serving import from_responses

METRIC = metrics.BLEU


def input_profile(inputs: Sequence[Json], folder: Path) -> Profile:
    """The profile of served texts: numbers of tokens, and which pieces occur.

    Args:
        inputs: of requests.
        folder: of the version, with its tokenizers.
    """
    data = dataset.load(folder)
    rows = data.encode([cleaning.normalise(each["text"]) for each in inputs])
    pieces = Counter(piece for row in rows for piece in data.pieces(row, "source"))
    return Profile(
        examples=len(rows),
        numbers={"source tokens": quantile_sample(Counter(map(len, rows)))},
        counts={"source pieces": dict(pieces)},
    )


def answer_profile(responses: Sequence[Json]) -> Profile:
    """The distributions of length and log probability of the translations."""
    return _profile(
        [response["translation"] for response in responses],
        np.array([response["log_probability"] for response in responses]),
    )


def reference_profile(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]], manifest: Manifest
) -> Profile:
    """The same of the answers on the test split, from the arrays of the evaluation."""
    return _profile(arrays["text"].tolist(), arrays["log_probability"])


def confidence(responses: Sequence[Json]) -> Float[np.ndarray, " answer"] | None:
    """No estimate: the probability of a text is not that of being a good translation."""
    return None


def find_truths(
    inputs: Sequence[Json], responses: Sequence[Json], raw: Path, manifest: Manifest
) -> list[Json]:
    """No reference is known without a label."""
    return [None] * len(responses)


def is_truth(truth: Json, response: Json) -> bool:
    """Whether a label can be one: a text."""
    return isinstance(truth, str) and bool(truth.strip())


def judge(
    inputs: Sequence[Json], responses: Sequence[Json], truths: Sequence[Json], keys: Sequence[str]
) -> PerExample:
    """The statistics of each translation against its reference, for all metrics."""
    arrays = from_responses(responses, truths, ())
    return per_example({**arrays, "keys": np.array(keys, np.str_)})


def _profile(texts: Sequence[str], log_probability: Float[np.ndarray, " answer"]) -> Profile:
    return Profile(
        examples=len(texts),
        numbers={
            "characters of the answer": sorted_sample(np.array([len(text) for text in texts])),
            "log probability": sorted_sample(log_probability),
        },
    )
