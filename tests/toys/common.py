"""What the toy tasks share: a data set of arrays, and the parts of a domain that they lack."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from ostinato import models, store
from ostinato.data.batches import select_part
from ostinato.evaluation.comparison import metric_interval
from ostinato.task import (
    Evaluation,
    Manifest,
    Metric,
    Part,
    PerExample,
    Profile,
    Reporting,
    Serving,
    validation_metrics,
)

SPLITS = {"train": 96, "validation": 24, "test": 24}


def fetch_nothing(folder: Path, source: str) -> None:
    """Write the manifest of a source that is generated when the data are prepared."""
    store.write_json(folder / "manifest.json", {"source": source})


def write_arrays(folder: Path, source: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a prepared data set: an array for each split."""
    store.write_arrays(folder / "arrays.npz", arrays)
    splits = {split: {"examples": len(array)} for split, array in arrays.items()}
    store.write_json(folder / "manifest.json", Manifest(source, "examples", splits).to_json())
    sample = sorted(np.asarray(arrays["train"], float).ravel()[:1000].tolist())
    profile = Profile(len(arrays["train"]), numbers={"value": sample})
    store.write_json(folder / "profile.json", profile.to_json())


class Arrays:
    """A prepared data set of one array for each split; batches have no target."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.read(folder / "manifest.json")
        self.arrays = store.read_arrays(folder / "arrays.npz")

    def size(self, split: str) -> int:
        return self.manifest.size(split)

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> Any:
        import tensorflow as tf

        array = self.arrays[split]
        if seed is not None:
            array = array[np.random.default_rng((seed, epoch)).permutation(len(array))]
        batches = tf.data.Dataset.from_tensor_slices(array).batch(batch_size)
        return select_part(batches, part)


class Input(pydantic.BaseModel):
    """A request: a vector of numbers."""

    x: list[float] = []


class Response(pydantic.BaseModel):
    """A response: a vector of numbers."""

    y: list[float]


class Service:
    """Answers each request with the predictor's output for it."""

    def __init__(self, predict: Any) -> None:
        self._predict = predict

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Any]) -> list[Response]:
        return [Response(y=np.ravel(self._predict(each.x, options)).tolist()) for each in inputs]


def predictor(folder: Path) -> Any:
    """The model in a served folder, restored by its module."""
    about = store.read_json(folder / "about.json")
    return models.load(about["domain"], about["model"]).restore(folder / "model")


def per_example(arrays: Mapping[str, Any], names: Sequence[str]) -> PerExample:
    """Statistics that were kept as arrays of the same name."""
    keys = arrays["keys"]
    return PerExample(keys, np.arange(len(keys)), {name: arrays[name] for name in names})


def evaluation(
    measure: Callable[[str], Mapping[str, np.ndarray]],
    metric: Metric,
    parameters: int,
    *,
    resamples: int,
    seed: int,
) -> Evaluation:
    """Evaluate a model by one metric.

    Args:
        measure: the statistics of a split, and the responses ``y`` of a served model.
        metric: the task's.
        parameters: the number of learned values.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
    """

    def arrays(split: str) -> dict[str, np.ndarray]:
        found = measure(split)
        keys = np.array([f"{split}-{i}" for i in range(len(found[metric.name]))])
        return {"keys": keys, **found}

    test = arrays("test")
    results = per_example(test, [metric.name])
    low, high = metric_interval(results, metric, resamples=resamples, seed=seed)
    metrics = {
        "samples": len(results.keys),
        metric.name: results.value(metric),
        f"{metric.name}_low": low,
        f"{metric.name}_high": high,
        "parameters": parameters,
        **validation_metrics(
            per_example(arrays("validation"), [metric.name]), {metric.name: metric}
        ),
    }
    speed = {"inference_ms_single": 1.0, "inference_ms_batched": 1.0}
    return Evaluation(metrics, arrays=test, speed=speed)


def report(metric: Metric) -> Reporting:
    return Reporting((metric,), "examples", (), "model", {}, "A toy.")


SERVING = Serving(limits="- A toy.", example={"x": [0.5, -0.5]})
