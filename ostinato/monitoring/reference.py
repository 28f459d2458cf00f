"""What the served inputs and answers of a version are compared with: its own data and evaluation.

A registered version carries it: profile.json (of the training data), answers.json (of its answers
on the test split), serving.npz (for a classifier, its confidence on the validation split) and the
metrics of the test split.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Shaped

import ostinato
from ostinato import params, store
from ostinato.task import Json, Manifest, Profile

ANSWERS = "answers.json"


@dataclass(frozen=True)
class Reference:
    """A version of a model, as it was trained and tested.

    Args:
        domain: of the model.
        folder: its files.
        inputs: the profile of its training data; None: it has none.
        answers: the profile of its answers on the test split; None: it has none.
        scores: metrics of the test split.
        serving: arrays of serving.npz.
    """

    domain: str
    folder: Path
    inputs: Profile | None
    answers: Profile | None
    scores: Mapping[str, Json]
    serving: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, scores: Mapping[str, Json]) -> "Reference":
        """Read the files of a version.

        Args:
            folder: that `registry.download` has filled (its artifacts).
            scores: the metrics of its test split.
        """
        serving = folder / "serving.npz"
        return cls(
            domain=store.read_json(folder / "about.json")["domain"],
            folder=folder,
            inputs=_profile(folder / "profile.json"),
            answers=_profile(folder / ANSWERS),
            scores=scores,
            serving=store.read_arrays(serving) if serving.exists() else {},
        )

    @property
    def module(self) -> ModuleType:
        """What the domain gives to the monitor."""
        return params.module(self.domain, "monitoring")


def write_answers(
    domain: str, arrays: Mapping[str, Shaped[np.ndarray, "..."]], manifest: Manifest, folder: Path
) -> None:
    """Write the profile of a model's answers on the test split, if the domain is monitored.

    Args:
        domain: of the model.
        arrays: of its evaluation.
        manifest: of the prepared data.
        folder: of the version's files.
    """
    if find_spec(f"{ostinato.__name__}.{domain}.monitoring"):
        profile: Profile = params.module(domain, "monitoring").reference_profile(arrays, manifest)
        store.write_json(folder / ANSWERS, profile.to_json())


def _profile(path: Path) -> Profile | None:
    return Profile.read(path) if path.exists() else None
