"""An autoencoder: batches without a target, and a step of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato.task import Evaluation, Metric, PerExample, TrainingContext
from ostinato.training.steps import batch_length, build_optimizer, minimise, part_of_batch
from ostinato.training.trainer import train
from ostinato.units import BatchSize, Epochs, LearningRate, Units
from tests.toys import common

PARTS = {
    "sources": {"circle": "circle"},
    "dataset": {"prepare": "prepare", "load": "load"},
    "models/dense": {"build": "build", "fit": "fit"},
    "metrics": {"METRICS": "METRICS"},
    "evaluation": {"evaluate": "evaluate", "per_example": "per_example"},
    "reporting": {"REPORT": "REPORT"},
    "serving": {name: name for name in ("Input", "Response", "SERVING", "to_requests")}
    | {"load": "load_service", "from_responses": "from_responses"},
}
PARAMS: dict[str, Any] = {
    "fetch": {"source": "circle", "circle": {}},
    "prepare": {},
    "evaluation": {"resamples": 100},
    "model": "dense",
    "build": {"units": 4},
    "fit": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01},
}
METRICS = {"error": Metric("error", "Reconstruction error", higher_is_better=False)}
REPORT = common.report(METRICS["error"])
Input, Response, SERVING = common.Input, common.Response, common.SERVING
load = common.Arrays


def circle(folder: Path, scratch: Path, seed: int) -> None:
    common.fetch_nothing(folder, "circle")


def prepare(raw: Path, folder: Path) -> None:
    generator, arrays = np.random.default_rng(0), {}
    for split, size in common.SPLITS.items():
        angle = generator.uniform(0, 2 * np.pi, size)
        arrays[split] = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    common.write_arrays(folder, "circle", arrays)


def build(data: Any, *, units: Units) -> keras.Model:
    x = keras.Input((2,))
    code = keras.layers.Dense(1)(keras.layers.Dense(units, activation="tanh")(x))
    y = keras.layers.Dense(2)(keras.layers.Dense(units, activation="tanh")(code))
    return keras.Model(x, y)


class Reconstruction:
    """The squared error between a batch and its reconstruction."""

    metrics, diagnostics = {"loss": False}, ()

    def __init__(self, model: keras.Model, learning_rate: float) -> None:
        self.model, self.optimizer = model, build_optimizer("adam", learning_rate, model)
        self.models, self.optimizers = (model,), (self.optimizer,)

    def train(self, batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss, sums = self._measure(batch)
        minimise(tape, loss, self.optimizer, self.model.trainable_weights, 1.0)
        return sums

    def test(self, batch: Any) -> Any:
        return self._measure(batch)[1]

    def _measure(self, batch: Any) -> Any:
        x, share = part_of_batch(batch)
        error = tf.reduce_sum((self.model(x) - x) ** 2, axis=1)
        count = share * tf.cast(batch_length(batch), tf.float32)
        return share * tf.reduce_mean(error), {"loss": (count * tf.reduce_mean(error), count)}


def fit(
    model: Any,
    data: Any,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    learning_rate: LearningRate,
) -> Any:
    return train(
        Reconstruction(model, learning_rate),
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        schedule="constant",
        warmup_fraction=0.0,
        monitor="validation_loss",
        patience=epochs,
    )


def evaluate(predictor: Any, data: Any, seed: int, *, resamples: int) -> Evaluation:
    def measure(split: str) -> dict[str, np.ndarray]:
        x = data.arrays[split]
        y = predictor(x)
        error = ((y - x) ** 2).sum(axis=1).astype(float)
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
    x = load(prepared).arrays["test"]
    requests = {f"test-{i}": {"x": row.tolist()} for i, row in enumerate(x)}
    return {key: requests[key] for key in keys}


def from_responses(responses: Any, truth: Any, classes: Any) -> dict[str, Any]:
    return {"y": np.array([response["y"] for response in responses])}
