"""Serve a model of a memory task: a sequence in, a class, numbers or bits out."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from pydantic import BaseModel, Field

from ostinato import models, store
from ostinato.errors import EvaluationError, RequestError
from ostinato.memory import dataset
from ostinato.memory.evaluation import MemoryPredictor
from ostinato.task import Json, Serving

__all__ = ["SERVING", "Input", "Response", "Service", "from_responses", "load", "to_requests"]

MAX_STEPS = 10_000
SERVING = Serving(
    limits="""\
- Answers are reliable at the lengths and delays of the training; the report's table
  `error_by_delay` shows where the model forgets.
""",
    packages=("scipy",),
)


class Input(BaseModel):
    """A sequence."""

    sequence: list[list[float]] = Field(
        min_length=1, max_length=MAX_STEPS, description="steps, each with all features"
    )


class Response(BaseModel):
    """The answer to a sequence; which field it has depends on the task."""

    target: str = Field(description="class, number or bits: what the answer is")
    label: str | None = Field(default=None, description="the most probable class")
    probabilities: dict[str, float] = Field(default={}, description="of all classes")
    values: list[float] | list[list[float]] = Field(
        default=[],
        description="numbers, or probabilities of bits; a list for each step where steps answer",
    )


def load(folder: Path) -> "Service":
    """Load a packaged model.

    Args:
        folder: holds model/, about.json and manifest.json.
    """
    about = store.read_json(folder / "about.json")
    predictor = models.load(about["domain"], about["model"]).restore(folder / "model")
    return Service(predictor, dataset.load(folder))


class Service:
    """A loaded model (`ostinato.task.Service`)."""

    def __init__(self, predictor: MemoryPredictor, data: dataset.Dataset) -> None:
        self.predictor, self.data = predictor, data

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Json]) -> list[Response]:
        """Answer sequences; those of one length are computed together.

        Args:
            inputs: sequences.
            options: none are used.

        Raises:
            RequestError: names the input by its number, and what is wrong with it.
        """
        arrays = [self._array(number, each) for number, each in enumerate(inputs)]
        responses: dict[int, Response] = {}
        for steps in sorted({len(array) for array in arrays}):
            rows = [n for n, array in enumerate(arrays) if len(array) == steps]
            found = self.predictor(np.stack([arrays[n] for n in rows]))
            responses |= {n: self._response(y) for n, y in zip(rows, found, strict=True)}
        return [responses[n] for n in range(len(inputs))]

    def _array(self, number: int, given: Input) -> Float32[np.ndarray, "step feature"]:
        name = f"input {number}: sequence"
        wanted = self.data.features
        if wrong := [n for n, step in enumerate(given.sequence) if len(step) != wanted]:
            raise RequestError(
                f"{name}: step {wrong[0]} has {len(given.sequence[wrong[0]])} features; expected "
                f"{wanted}"
            )
        with np.errstate(over="ignore"):
            array = np.array(given.sequence, np.float32)
        if not np.isfinite(array).all():
            raise RequestError(f"{name}: expected finite numbers")
        if self.predictor.steps not in (None, len(array)):
            raise RequestError(
                f"{name}: found {len(array)} steps; this model reads {self.predictor.steps}"
            )
        return array

    def _response(self, found: Shaped[np.ndarray, "..."]) -> Response:
        if self.data.target != "class":
            return Response(target=self.data.target, values=found.astype(float).tolist())
        classes = self.data.classes
        probabilities = dict(zip(classes, found.astype(float).tolist(), strict=True))
        label = classes[int(found.argmax())]
        return Response(target="class", label=label, probabilities=probabilities)


def to_requests(raw: Path, prepared: Path, keys: Collection[str]) -> dict[str, dict[str, Json]]:
    """Test examples as requests, by key.

    The data set has the sequences as a client sends them: `prepare` only splits them.
    """
    x = dataset.load(prepared).examples("test").x
    chosen = [key for key in keys if str(key).isdecimal() and int(key) < len(x)]
    return {key: {"sequence": x[int(key)].astype(float).tolist()} for key in chosen}


def from_responses(
    responses: Sequence[Mapping[str, Any]], truth: Sequence[Json], classes: Sequence[str]
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Responses as the arrays of `evaluation.evaluate`.

    Args:
        responses: JSON of `Response`.
        truth: names of classes; numbers or bits, null (or NaN) at steps without a target.
        classes: in the order of the labels; empty where the target is no class. A class that the
            model does not know has probability 0.

    Raises:
        EvaluationError: an answer has another shape than its truth.
    """
    if classes:
        index = {name: number for number, name in enumerate(classes)}
        rows = [[one["probabilities"].get(name, 0.0) for name in classes] for one in responses]
        return {
            "target": np.full(len(rows), "class"),
            "truth": np.array([index[str(name)] for name in truth], np.int32),
            "prediction": np.array(rows, np.float32),
        }
    true = np.array(truth, np.float32)
    found = np.array([one["values"] for one in responses], np.float32)
    if true.shape != found.shape:
        raise EvaluationError(
            f"the model's answers have the shape {found.shape[1:]}, the targets {true.shape[1:]}"
        )
    return {
        "target": np.array([one["target"] for one in responses]),
        "truth": true,
        "prediction": found,
    }
