"""Evaluate a model of a memory task: its error, where it forgets, how far its gradient reaches."""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Shaped

from ostinato.errors import EvaluationError
from ostinato.evaluation import timing
from ostinato.evaluation.comparison import metric_interval
from ostinato.memory import metrics
from ostinato.memory.dataset.loader import Dataset
from ostinato.memory.formats import reservoir as reservoirs
from ostinato.memory.formats.examples import Examples
from ostinato.memory.metrics import METRICS, OF_TARGET
from ostinato.progress import track
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.units import BatchSize, Count

TITLES = {"class": "Fraction of wrong answers", "bits": "Fraction of wrong bits"}
CAPACITY_DELAYS, CAPACITY_STEPS, CAPACITY_RIDGE = 100, 2000, 1e-8  # of a reservoir's memory


class MemoryPredictor(Protocol):
    """What `evaluate` needs of a restored model."""

    @property
    def gradient_norms(self) -> Mapping[str, Float32[np.ndarray, " step"]]:
        """Of the last loss by step, before, during and after training; empty for none."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    @property
    def steps(self) -> int | None:
        """The number of steps that the model reads; None: any."""

    def __call__(
        self, x: Float32[np.ndarray, "example step feature"], /
    ) -> Float[np.ndarray, "example ..."]:
        """The answers."""

    def traces(
        self, x: Float32[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step row"]]:
        """What happens in the model while it reads a sequence; empty for nothing to show."""


def evaluate(
    predictor: MemoryPredictor,
    data: Dataset,
    seed: int,
    *,
    resamples: Count,
    batch_size: BatchSize,
    max_examples: Count,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a model on the test split.

    Args:
        predictor: the trained model.
        data: the data set.
        seed: of resampling, and of the examples of other lengths and delays.
        resamples: bootstrap samples of a 95% confidence interval.
        batch_size: examples in a batch.
        max_examples: that each length and delay is measured with.
        timed_requests: number of examples that are answered one by one to measure the time.

    Returns:
        metrics; tables and figures of the error by length and delay (where the data set has such),
        of the norms of gradients (of trained networks), of the gates, head weights or states while
        one example is read, and of a reservoir's spectrum and memory capacity; speed; and arrays
        in the stored order of the split (keys, target, truth, prediction), where the truth of a
        step without a target is NaN.

    Raises:
        EvaluationError: the model's answers are not finite.
    """
    from ostinato.memory import figures

    predict = timing.Timer(predictor)
    arrays = answers(predict, data, data.examples("test"), batch_size)
    batched_seconds = predict.seconds
    results = per_example(arrays)
    validation = per_example(answers(predictor, data, data.examples("validation"), batch_size))
    own = OF_TARGET[data.target]
    values = {name: results.value(metric) for name, metric in METRICS.items() if metric in own}
    for metric in own:
        low, high = metric_interval(results, metric, resamples=resamples, seed=seed)
        values |= {f"{metric.name}_low": low, f"{metric.name}_high": high}
    found: dict[str, float | None] = {"samples": len(results.keys), **values}
    names = [name + end for name in METRICS for end in ("", "_low", "_high")]
    found |= {name: None for name in names if name not in found}
    found |= {"parameters": predictor.parameters, **validation_metrics(validation, METRICS)}
    found["chance"] = metrics.chance(data.target, arrays["truth"])
    undefined = {
        name: f"the target of this task is {data.target}"
        for name in found
        if found[name] is None or not np.isfinite(found[name] or 0.0)
    }
    tables, plots = {}, {}
    if len(by_delay := error_by_delay(predictor, data, seed, max_examples, batch_size)):
        tables["error_by_delay"] = by_delay
        plots["error_by_delay"] = figures.error_by_delay(
            by_delay, TITLES.get(data.target, "Mean squared error")
        )
    if norms := predictor.gradient_norms:
        tables["gradient_norms"] = gradient_table(norms)
        plots["gradient_norms"] = figures.gradient_norms(norms)
    test = data.examples("test")
    if traces := predictor.traces(test.x[0]):
        plots["traces"] = figures.traces(test.x[0], traces)
    if drawn := getattr(predictor, "reservoir", None):
        capacity = reservoirs.memory_capacity(
            drawn, delays=CAPACITY_DELAYS, steps=CAPACITY_STEPS, ridge=CAPACITY_RIDGE, seed=seed
        )
        eigenvalues = np.linalg.eigvals(drawn.recurrent).astype(np.complex128)
        delays = np.arange(1, len(capacity) + 1)
        tables["memory_capacity"] = pd.DataFrame({"delay": delays, "capacity": capacity})
        found["memory_capacity"] = float(capacity.sum())
        plots["reservoir"] = figures.reservoir(eigenvalues, capacity)

    random = np.random.default_rng(seed)
    singles = [test.x[i : i + 1] for i in random.integers(len(test), size=timed_requests)]
    return Evaluation(
        metrics=found,
        tables=tables,
        figures=plots,
        arrays=arrays,
        speed=timing.speed(predictor, singles, batched_seconds, len(test)),
        undefined=undefined,
    )


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each test example, from the arrays that `evaluate` returned."""
    keys = arrays["keys"] if "keys" in arrays else np.arange(len(arrays["truth"]))
    target = str(arrays["target"][0])
    found = metrics.statistics(target, arrays["truth"], arrays["prediction"])
    return PerExample(keys, np.arange(len(keys)), found)


def truths(examples: Examples) -> Shaped[np.ndarray, "example ..."]:
    """The targets of examples, NaN at steps without one."""
    if examples.weight is None:
        return examples.y
    return np.where(examples.weight[..., None] > 0, examples.y, np.float32(np.nan))


def answers(
    predict: Callable[[Float32[np.ndarray, "example step feature"]], Any],
    data: Dataset,
    examples: Examples,
    batch_size: int,
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of `evaluate` for examples.

    Raises:
        EvaluationError: an answer is not finite.
    """
    starts = range(0, len(examples), batch_size)
    parts = [predict(examples.x[i : i + batch_size]) for i in track(starts, "test", unit="batches")]
    prediction = np.concatenate(parts)
    if not np.isfinite(prediction).all():
        raise EvaluationError(
            "the model's answers are not finite; train it with a lower learning_rate"
        )
    return {
        "keys": np.array([f"{n}" for n in range(len(examples))]),
        "target": np.full(len(examples), data.target),
        "truth": truths(examples),
        "prediction": prediction,
    }


def error_by_delay(
    predictor: MemoryPredictor, data: Dataset, seed: int, max_examples: int, batch_size: int
) -> pd.DataFrame:
    """The error at each of the data set's lengths and delays.

    Models that read one number of steps are measured at no other.

    Returns:
        A row for each: length, delay, steps, error (of classes or bits: the fraction of wrong ones;
        of numbers: the mean squared error), chance (the error of the best constant answer).
    """
    details = data.manifest.details
    rows: list[dict[str, float]] = []
    lengths = details["lengths"] or [details["length"]]
    delays = details["delays"] or [details["delay"]]
    if not details["lengths"] and not details["delays"]:
        return pd.DataFrame(rows)
    for number, (length, delay) in enumerate(product(lengths, delays)):
        if details["task"]:
            random = np.random.default_rng([seed, number])
            examples = data.draw(max_examples, length, delay, random)
        else:
            some = data.examples("test")[:max_examples]
            examples = Examples(np.pad(some.x, ((0, 0), (0, delay), (0, 0))), some.y)
        if predictor.steps not in (None, examples.x.shape[1]):
            continue
        found = answers(predictor, data, examples, batch_size)
        rows.append(
            {
                "length": length,
                "delay": delay,
                "steps": examples.x.shape[1],
                "error": metrics.error(data.target, found["truth"], found["prediction"]),
                "chance": metrics.chance(data.target, found["truth"]),
            }
        )
    return pd.DataFrame(rows)


def gradient_table(norms: Mapping[str, Float32[np.ndarray, " step"]]) -> pd.DataFrame:
    """The norms of gradients: steps_back (0: the last step), and a column for each moment."""
    columns = {name: values[::-1] for name, values in norms.items()}
    return pd.DataFrame({"steps_back": np.arange(len(next(iter(norms.values())))), **columns})
