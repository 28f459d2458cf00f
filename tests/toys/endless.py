"""Data without end: the sum of two numbers, drawn anew from (seed, epoch)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato import store
from ostinato.data.batches import select_part
from ostinato.task import Evaluation, Manifest, Metric, Part, PerExample, Profile, TrainingContext
from ostinato.training import trainer
from ostinato.units import BatchSize, Count, Epochs
from tests.toys import common

PARTS = {
    "sources": {"numbers": "numbers"},
    "dataset": {"prepare": "prepare", "load": "load"},
    "models/linear": {"build": "build", "fit": "fit"},
    "metrics": {"METRICS": "METRICS"},
    "evaluation": {"evaluate": "evaluate", "per_example": "per_example"},
    "reporting": {"REPORT": "REPORT"},
    "serving": {name: name for name in ("Input", "Response", "SERVING", "to_requests")}
    | {"load": "load_service", "from_responses": "from_responses"},
}
PARAMS: dict[str, Any] = {
    "fetch": {"source": "numbers", "numbers": {}},
    "prepare": {"examples_per_epoch": 64},
    "evaluation": {"resamples": 100},
    "model": "linear",
    "build": {},
    "fit": {"epochs": 3, "batch_size": 16},
}
METRICS = {"error": Metric("error", "Absolute error", higher_is_better=False)}
REPORT = common.report(METRICS["error"])
Input, Response, SERVING = common.Input, common.Response, common.SERVING


def numbers(folder: Path, scratch: Path, seed: int) -> None:
    common.fetch_nothing(folder, "numbers")


def prepare(raw: Path, folder: Path, *, examples_per_epoch: Count) -> None:
    splits = {split: {"examples": examples_per_epoch} for split in common.SPLITS}
    store.write_json(folder / "manifest.json", Manifest("numbers", "examples", splits).to_json())
    store.write_json(folder / "profile.json", Profile(examples_per_epoch).to_json())


class load:
    """Pairs of numbers and their sums; only the number of examples of an epoch is stored."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.read(folder / "manifest.json")

    def size(self, split: str) -> int:
        return self.manifest.size(split)

    def draw(self, split: str, seed: int | None, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        place = list(common.SPLITS).index(split)
        generator = np.random.default_rng((seed or 0, epoch, place))
        x = generator.normal(size=(self.size(split), 2)).astype(np.float32)
        return x, x.sum(axis=1, keepdims=True)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        drawn = self.draw(split, seed, epoch)
        return select_part(tf.data.Dataset.from_tensor_slices(drawn).batch(batch_size), part)


def build(data: Any) -> keras.Model:
    x = keras.Input((2,))
    return keras.Model(x, keras.layers.Dense(1)(x))


def fit(
    model: Any, data: Any, context: TrainingContext, *, epochs: Epochs, batch_size: BatchSize
) -> Any:
    return trainer.fit(
        model,
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        loss="mean_squared_error",
        metrics=[],
        optimizer="adam",
        learning_rate=0.05,
        schedule="constant",
        warmup_fraction=0.0,
        clip_norm=1.0,
        monitor="validation_loss",
        patience=epochs,
    )


def evaluate(predictor: Any, data: Any, seed: int, *, resamples: int) -> Evaluation:
    def measure(split: str) -> dict[str, np.ndarray]:
        x, truth = data.draw(split, None, 0)
        y = predictor(x)
        error = np.abs(y - truth)[:, 0].astype(float)
        return {"error": np.stack([error, np.ones(len(x))], axis=1), "y": y}

    return common.evaluation(
        measure, METRICS["error"], predictor.parameters, resamples=resamples, seed=seed
    )


def per_example(arrays: Mapping[str, Any]) -> PerExample:
    return common.per_example(arrays, ["error"])


def load_service(folder: Path) -> common.Service:
    model = common.predictor(folder)
    return common.Service(lambda x, options: model(np.array([x], np.float32)))


def to_requests(raw: Path, prepared: Path, keys: Sequence[str]) -> dict[str, Any]:
    x, _ = load(prepared).draw("test", None, 0)
    return {key: {"x": x[int(key.removeprefix("test-"))].tolist()} for key in keys}


def from_responses(responses: Any, truth: Any, classes: Any) -> dict[str, Any]:
    return {"y": np.array([response["y"] for response in responses])}
