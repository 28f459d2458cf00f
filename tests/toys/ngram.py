"""Letters: a bigram model of counts, which is no Keras model, and a recurrent one that generates.

Their metric is perplexity, which is no mean over examples. Requests carry seed, temperature and
length as options.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float

from ostinato import store
from ostinato.data.batches import transform
from ostinato.task import Evaluation, Metric, Part, PerExample, Serving, TrainingContext
from ostinato.training import keras_model, trainer
from ostinato.units import BatchSize, Epochs, Units
from tests.toys import common

LETTERS, LENGTH = 4, 12
PARTS = {
    "sources": {"alphabet": "alphabet"},
    "dataset": {"prepare": "prepare", "load": "load"},
    "models/bigram": {
        "build": "build_counts",
        "fit": "fit_counts",
        "save": "save_counts",
        "restore": "restore_counts",
    },
    "models/rnn": {"build": "build_rnn", "fit": "fit_rnn", "restore": "restore_rnn"},
    "metrics": {"METRICS": "METRICS"},
    "evaluation": {"evaluate": "evaluate", "per_example": "per_example"},
    "reporting": {"REPORT": "REPORT"},
    "serving": {name: name for name in ("Input", "Response", "SERVING", "to_requests")}
    | {"load": "load_service", "from_responses": "from_responses"},
}
DATA: dict[str, Any] = {
    "fetch": {"source": "alphabet", "alphabet": {}},
    "prepare": {},
    "evaluation": {"resamples": 100},
}
COUNTS = {**DATA, "model": "bigram", "build": {"prior": 1.0}, "fit": {}}
RNN = {**DATA, "model": "rnn", "build": {"units": 8}, "fit": {"epochs": 3, "batch_size": 16}}


def perplexity(sums: Float[np.ndarray, "*rows 2"]) -> Float[np.ndarray, "*rows"]:
    """The statistics of an example are (nats, tokens)."""
    return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))


METRICS = {
    "perplexity": Metric("perplexity", "Perplexity", higher_is_better=False, aggregate=perplexity)
}
REPORT = common.report(METRICS["perplexity"])
Input, Response = common.Input, common.Response
SERVING = Serving(limits="- A toy.", options={"seed": 0, "temperature": 1.0, "length": 3})


def alphabet(folder: Path, scratch: Path, seed: int) -> None:
    common.fetch_nothing(folder, "alphabet")


def prepare(raw: Path, folder: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, size in common.SPLITS.items():
        steps = generator.choice([1, 1, 1, 2], (size, LENGTH))
        arrays[split] = np.cumsum(steps, axis=1, dtype=np.int32) % LETTERS
    common.write_arrays(folder, "alphabet", arrays)


class load(common.Arrays):
    """Letters (text, position); a batch is (letters before, letters)."""

    def batches(self, split: str, *, part: Part = Part(), **how: Any) -> Any:
        def cut(text: Any) -> Any:
            return text[:, :-1], text[:, 1:]

        return transform(super().batches(split, part=part, **how), cut, part)


class Counts:
    """Counts of pairs of letters, with a prior."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts, self.parameters = counts, counts.size

    def logits(self, texts: np.ndarray) -> np.ndarray:
        """Log probabilities of the next letter (text, position, letter)."""
        return np.asarray(np.log(self.counts / self.counts.sum(axis=1, keepdims=True))[texts])


def build_counts(data: Any, *, prior: float) -> Counts:
    return Counts(np.full((LETTERS, LETTERS), prior))


def fit_counts(model: Counts, data: Any, context: TrainingContext) -> list[dict[str, float]]:
    texts = data.arrays["train"]
    np.add.at(model.counts, (texts[:, :-1], texts[:, 1:]), 1)
    record = {"epoch": 1, "loss": 0.0, "validation_loss": 0.0, "seconds": 0.0}
    context.on_epoch(record)
    return [record]


def save_counts(model: Counts, folder: Path) -> None:
    store.write_arrays(folder / "counts.npz", {"counts": model.counts})


def restore_counts(folder: Path) -> Counts:
    return Counts(store.read_arrays(folder / "counts.npz")["counts"])


def build_rnn(data: Any, *, units: Units) -> keras.Model:
    letters = keras.Input((None,), dtype="int32")
    x = keras.layers.GRU(units, return_sequences=True)(keras.layers.Embedding(LETTERS, 4)(letters))
    return keras.Model(letters, keras.layers.Dense(LETTERS, activation="softmax")(x))


def fit_rnn(
    model: Any, data: Any, context: TrainingContext, *, epochs: Epochs, batch_size: BatchSize
) -> Any:
    return trainer.fit(
        model,
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        loss="sparse_categorical_crossentropy",
        metrics=[],
        optimizer="adam",
        learning_rate=0.01,
        schedule="constant",
        warmup_fraction=0.0,
        clip_norm=1.0,
        monitor="validation_loss",
        patience=epochs,
    )


class Recurrent:
    """The recurrent model with the interface of `Counts`."""

    def __init__(self, model: keras_model.KerasModel) -> None:
        self.model, self.parameters = model, model.parameters

    def logits(self, texts: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(self.model(texts)))


def restore_rnn(folder: Path) -> Recurrent:
    return Recurrent(keras_model.restore(folder))


def generate(model: Any, *, seed: int, temperature: float, length: int) -> list[int]:
    """Draw a text that begins with the letter 0."""
    generator, text = np.random.default_rng(seed), [0]
    for _ in range(length):
        logits = model.logits(np.array([text], np.int32))[0, -1] / temperature
        p = np.exp(logits - logits.max())
        text.append(int(generator.choice(LETTERS, p=p / p.sum())))
    return text


def evaluate(predictor: Any, data: Any, seed: int, *, resamples: int) -> Evaluation:
    def measure(split: str) -> dict[str, np.ndarray]:
        texts = data.arrays[split]
        logits = predictor.logits(texts[:, :-1]).astype(float)
        nats = -np.take_along_axis(logits, texts[:, 1:, None], axis=2)[..., 0].sum(axis=1)
        text = generate(predictor, seed=0, temperature=1.0, length=3)
        return {
            "perplexity": np.stack([nats, np.full(len(texts), LENGTH - 1.0)], axis=1),
            "y": np.tile(np.array(text, float), (len(texts), 1)),
        }

    return common.evaluation(
        measure, METRICS["perplexity"], predictor.parameters, resamples=resamples, seed=seed
    )


def per_example(arrays: Mapping[str, Any]) -> PerExample:
    return common.per_example(arrays, ["perplexity"])


def load_service(folder: Path) -> common.Service:
    model = common.predictor(folder)
    return common.Service(lambda x, options: generate(model, **{**SERVING.options, **options}))


def to_requests(raw: Path, prepared: Path, keys: Sequence[str]) -> dict[str, Any]:
    return {key: {"x": []} for key in keys}


def from_responses(responses: Any, truth: Any, classes: Any) -> dict[str, Any]:
    return {"y": np.array([response["y"] for response in responses])}
