"""A generative adversarial network: two optimisers, and a metric that is no mean over examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

from ostinato.task import Evaluation, Metric, PerExample, TrainingContext
from ostinato.training import keras_model
from ostinato.training.steps import batch_length, build_optimizer, minimise, part_of_batch
from ostinato.training.trainer import train
from ostinato.units import BatchSize, Epochs, LearningRate, Units
from tests.toys import common

PARTS = {
    "sources": {"gaussian": "gaussian"},
    "dataset": {"prepare": "prepare", "load": "load"},
    "models/gan": {name: name for name in ("build", "fit", "save", "restore")},
    "metrics": {"METRICS": "METRICS"},
    "evaluation": {"evaluate": "evaluate", "per_example": "per_example"},
    "reporting": {"REPORT": "REPORT"},
    "serving": {name: name for name in ("Input", "Response", "SERVING", "to_requests")}
    | {"load": "load_service", "from_responses": "from_responses"},
}
PARAMS: dict[str, Any] = {
    "fetch": {"source": "gaussian", "gaussian": {}},
    "prepare": {},
    "evaluation": {"resamples": 100},
    "model": "gan",
    "build": {"units": 4},
    "fit": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01},
}


def frechet(sums: Float[np.ndarray, "*rows 5"]) -> Float[np.ndarray, "*rows"]:
    """The Fréchet distance of two Gaussians (Heusel et al. 2017, arXiv 1706.08500).

    The statistics of an example are (1, real, real², generated, generated²).
    """
    count = sums[..., 0]
    means = sums[..., [1, 3]] / count[..., None]
    spreads = np.sqrt(np.maximum(sums[..., [2, 4]] / count[..., None] - means**2, 0))
    return np.asarray(
        (means[..., 0] - means[..., 1]) ** 2 + (spreads[..., 0] - spreads[..., 1]) ** 2
    )


METRICS = {
    "frechet": Metric("frechet", "Fréchet distance", higher_is_better=False, aggregate=frechet)
}
REPORT = common.report(METRICS["frechet"])
Input, Response, SERVING = common.Input, common.Response, common.SERVING
load = common.Arrays


def gaussian(folder: Path, scratch: Path, seed: int) -> None:
    common.fetch_nothing(folder, "gaussian")


def prepare(raw: Path, folder: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        split: generator.normal(2, 0.5, (size, 1)).astype(np.float32)
        for split, size in common.SPLITS.items()
    }
    common.write_arrays(folder, "gaussian", arrays)


class Gan:
    """A generator and a discriminator of numbers."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model) -> None:
        self.generator, self.discriminator = generator, discriminator


def build(data: Any, *, units: Units) -> Gan:
    def network() -> keras.Model:
        x = keras.Input((1,))
        hidden = keras.layers.Dense(units, activation="tanh")(x)
        return keras.Model(x, keras.layers.Dense(1)(hidden))

    return Gan(network(), network())


class Adversarial:
    """The non-saturating losses of Goodfellow et al. 2014, arXiv 1406.2661."""

    metrics, diagnostics = {"loss": False, "generator_loss": False}, ()

    def __init__(self, gan: Gan, learning_rate: float) -> None:
        self.models = (gan.generator, gan.discriminator)
        self.optimizers = tuple(build_optimizer("adam", learning_rate, m) for m in self.models)

    def train(self, batch: Any) -> Any:
        with tf.GradientTape() as one, tf.GradientTape() as two:
            discriminator, generator, sums = self._measure(batch)
        for tape, loss, i in ((one, generator, 0), (two, discriminator, 1)):
            weights = self.models[i].trainable_weights
            minimise(tape, loss, self.optimizers[i], weights, 1.0)
        return sums

    def test(self, batch: Any) -> Any:
        return self._measure(batch)[2]

    def _measure(self, batch: Any) -> Any:
        real, share = part_of_batch(batch)
        generator, discriminator = self.models
        false = generator(keras.random.normal(tf.shape(real), seed=1))
        right, wrong = discriminator(real), discriminator(false)
        losses = tf.nn.softplus(-right) + tf.nn.softplus(wrong), tf.nn.softplus(-wrong)
        count = share * tf.cast(batch_length(batch), tf.float32)
        sums = {
            name: (count * tf.reduce_mean(loss), count)
            for name, loss in zip(self.metrics, losses, strict=True)
        }
        return share * tf.reduce_mean(losses[0]), share * tf.reduce_mean(losses[1]), sums


def fit(
    model: Gan,
    data: Any,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    learning_rate: LearningRate,
) -> Any:
    return train(
        Adversarial(model, learning_rate),
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        schedule="constant",
        warmup_fraction=0.0,
        monitor="validation_loss",
        patience=epochs,
    )


def save(model: Gan, folder: Path) -> None:
    keras_model.save(model.generator, folder / "generator")
    keras_model.save(model.discriminator, folder / "discriminator")


class Sampler:
    """The generator as a function of a seed and a number of samples."""

    def __init__(self, generator: keras_model.KerasModel) -> None:
        self.generator, self.parameters = generator, generator.parameters

    def sample(self, count: int, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=(count, 1))
        return np.asarray(self.generator(noise.astype(np.float32)))


def restore(folder: Path) -> Sampler:
    return Sampler(keras_model.restore(folder / "generator"))


def evaluate(predictor: Sampler, data: Any, seed: int, *, resamples: int) -> Evaluation:
    def measure(split: str) -> dict[str, np.ndarray]:
        real = data.arrays[split][:, 0].astype(float)
        made = predictor.sample(len(real), seed)[:, 0].astype(float)
        columns = [np.ones(len(real)), real, real**2, made, made**2]
        y = np.repeat(predictor.sample(1, 7), len(real), axis=0)
        return {"frechet": np.stack(columns, axis=1), "y": y}

    return common.evaluation(
        measure, METRICS["frechet"], predictor.parameters, resamples=resamples, seed=seed
    )


def per_example(arrays: Mapping[str, Any]) -> PerExample:
    return common.per_example(arrays, ["frechet"])


def load_service(folder: Path) -> common.Service:
    sampler = common.predictor(folder)
    return common.Service(lambda x, options: sampler.sample(1 + int(x[0]), options.get("seed", 7)))


def to_requests(raw: Path, prepared: Path, keys: Sequence[str]) -> dict[str, Any]:
    return {key: {"x": [0.0]} for key in keys}


def from_responses(responses: Any, truth: Any, classes: Any) -> dict[str, Any]:
    return {"y": np.array([response["y"][-1:] for response in responses])}
