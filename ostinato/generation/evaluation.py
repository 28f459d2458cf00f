"""Evaluate a generator of drawings: losses, recognition, completion, variety, figures."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Integer, Real, Shaped

from ostinato.evaluation import timing
from ostinato.evaluation.comparison import metric_interval
from ostinato.generation import metrics as measures
from ostinato.generation.formats.drawings import fitted, prefix, seed_of
from ostinato.generation.metrics import METRICS
from ostinato.progress import track
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.units import Count, Fraction, Temperature

HALF = 0.5  # of the points: where `recognised_completions` begins
Rows = Int16[np.ndarray, "_ 3"]
Arrays = dict[str, Shaped[np.ndarray, "..."]]


class Generator(Protocol):
    """What `evaluate` needs of a restored model; see `ostinato.generation.layers.Generator`."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    @property
    def latent_size(self) -> int:
        """The size of the latent vector; 0 where the model has no encoder."""

    def draw(
        self,
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " drawing"],
        *,
        latent: Float32[np.ndarray, "drawing latent"] | None = None,
        beginnings: Sequence[Rows] | None = None,
    ) -> list[Rows]:
        """Stroke-3 rows in pixels, each a function of its own arguments; may be empty."""

    def measure(
        self,
        drawings: Sequence[Rows],
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
    ) -> tuple[Float64[np.ndarray, " drawing"] | None, Float64[np.ndarray, " drawing"] | None]:
        """L_R of each drawing, or None without a density; L_KL, or None without an encoder."""

    def encode(
        self, drawings: Sequence[Rows], labels: Integer[np.ndarray, " drawing"]
    ) -> Float32[np.ndarray, "drawing latent"]:
        """The means of the latent vectors."""


class Examples(Protocol):
    """The drawings of a split: `ostinato.generation.dataset.loader.Drawings`, or some of them."""

    @property
    def labels(self) -> Int32[np.ndarray, " drawing"]:
        """The class of each."""

    @property
    def keys(self) -> Shaped[np.ndarray, " drawing"]:
        """The name of each."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Rows: ...
    def __iter__(self) -> Iterator[Rows]: ...


class Classifier(Protocol):
    """`ostinato.generation.dataset.classifier.Classifier`."""

    def __call__(
        self, drawings: Sequence[Rows], /
    ) -> tuple[Float32[np.ndarray, "drawing class"], Float32[np.ndarray, "drawing feature"]]:
        """Probabilities of the classes, and features."""


class Data(Protocol):
    """What `evaluate` needs of `ostinato.generation.dataset.Dataset`."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes."""

    @property
    def classifier(self) -> Classifier | None:
        """The judge; None where there is one class."""

    def examples(self, split: str) -> Examples:
        """The drawings of a split."""


@dataclass(frozen=True)
class Some:
    """Some drawings of a split (`Examples`)."""

    drawings: list[Rows]
    labels: Int32[np.ndarray, " drawing"]
    keys: Shaped[np.ndarray, " drawing"]

    def __len__(self) -> int:
        return len(self.drawings)

    def __getitem__(self, i: int) -> Rows:
        return self.drawings[i]

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.drawings)


@dataclass(frozen=True)
class Judged:
    """What the classifier sees in drawings.

    Args:
        label: the most probable class; -1 where nothing is drawn.
        drawn: whether there are two points at least.
        features: of the drawings with two points or more.
    """

    label: Int32[np.ndarray, " drawing"]
    drawn: Bool[np.ndarray, " drawing"]
    features: Float32[np.ndarray, "_ feature"]

    def recognised(self, truth: Integer[np.ndarray, " drawing"]) -> float:
        """The share of the drawings whose class the classifier sees."""
        return float(np.mean(self.label == truth))


def evaluate(
    predictor: Generator,
    data: Data,
    seed: int,
    *,
    resamples: Count,
    temperatures: list[Temperature],
    samples_per_class: Count,
    max_examples: Count,
    completion_fractions: list[Fraction],
    num_plots: Count,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a generator; its temperature is chosen on the validation split.

    Args:
        predictor: the trained model.
        data: the data set.
        seed: of samples, of the chosen drawings and of resampling.
        resamples: bootstrap samples of a 95% confidence interval.
        temperatures: that are tried; the first of the best is kept.
        samples_per_class: drawn at each temperature.
        max_examples: number of training drawings that L_R is measured on, of validation drawings,
            and of test drawings of the tables by_temperature and completion, at most.
        completion_fractions: of the points of a drawing, from which it is completed.
        num_plots: number of classes or drawings in a figure.
        timed_requests: number of drawings that are made one by one to measure the time.

    Returns:
        metrics, tables, figures, speed, and arrays in the stored order of the split: keys, truth;
        the classes that are seen in completions from half and in reconstructions
        (``completion_label``, ``reconstruction_label``; -1: nothing is drawn), their numbers of
        points (``completion_points``, ``reconstruction_points``), ``reconstruction_loss`` and
        ``kl``. Arrays of what the model or the data set cannot give are left out. For serving: the
        chosen ``temperature``.
    """
    from ostinato.generation import figures

    random = np.random.default_rng([seed, 0])
    train, validation, test = (data.examples(s) for s in ("train", "validation", "test"))
    chosen = {
        name: some_of(split, np.sort(random.permutation(len(split))[:max_examples]))
        for name, split in (("train", train), ("validation", validation), ("test", test))
    }
    judge = data.classifier
    labels = np.repeat(np.arange(len(data.classes), dtype=np.int32), samples_per_class)
    tried, seeds = [random.integers(2**32, size=len(labels)).tolist() for _ in range(2)]

    options = {}
    for heat in track(temperatures, "choosing the temperature", unit="temperatures"):
        drawn = predictor.draw(labels, tried, np.full(len(labels), heat))
        redrawn = redraw(predictor, judge, chosen["validation"], heat)
        options[heat] = redrawn, _merit(judge, drawn, labels, redrawn, chosen["validation"])
    temperature = max(temperatures, key=lambda heat: options[heat][1])
    earlier = {**options[temperature][0], **losses(predictor, chosen["validation"])}

    began = time.perf_counter()
    samples = {
        heat: predictor.draw(labels, seeds, np.full(len(labels), heat))
        for heat in track(temperatures, "drawing samples", unit="temperatures")
    }
    seconds = (time.perf_counter() - began) / len(temperatures)
    arrays = {**redraw(predictor, judge, test, temperature), **losses(predictor, test)}
    completion = completion_table(
        predictor, judge, chosen["test"], temperature, completion_fractions
    )
    reconstructed = {
        heat: reconstruct(predictor, chosen["test"], heat) if predictor.latent_size else None
        for heat in track(temperatures, "reconstructing", unit="temperatures")
    }
    real, other = _judge(judge, list(test)), _judge(judge, list(validation))
    by_temperature = temperature_table(
        judge, train, test, real, labels, samples, chosen["test"], reconstructed
    )
    best = by_temperature.iloc[temperatures.index(temperature)]
    results, fit = per_example(arrays), losses(predictor, chosen["train"])
    judged = judge is not None
    metrics: dict[str, float | None] = {
        "samples": len(test),
        "parameters": predictor.parameters,
        "temperature": temperature,
        **{name: results.value(metric) for name, metric in METRICS.items()},
        "recognised_samples": best["samples"],
        "recognised_unfinished": _unfinished(judge, test, HALF),
        "recognised_test_drawings": real.recognised(test.labels) if judged else None,
        "kl": _mean(arrays.get("kl")),
        "frechet_distance": best["frechet_distance"],
        "frechet_distance_validation": (
            measures.frechet_distance(other.features, real.features) if judged else None
        ),
        "diversity": best["diversity"],
        "novelty": best["novelty"],
        **{f"train_{name}": _mean(fit.get(name)) for name in ("reconstruction_loss", "kl")},
        "validation_kl": _mean(earlier.get("kl")),
        **validation_metrics(per_example(earlier), METRICS),
    }
    for name, metric in METRICS.items():
        known = np.isfinite(results.value(metric)) and len(test) > 1
        bounds = (
            metric_interval(results, metric, resamples=resamples, seed=seed)
            if known
            else (None, None)
        )
        metrics |= {f"{name}_low": bounds[0], f"{name}_high": bounds[1]}

    def draw_one(label: int) -> object:
        return predictor.draw(np.array([label], np.int32), [seed], np.array([temperature]))

    singles = random.integers(len(data.classes), size=timed_requests).tolist()
    return Evaluation(
        metrics=metrics,
        tables={
            "by_temperature": by_temperature,
            "completion": completion,
            "per_class": class_table(
                data.classes, real, _judge(judge, samples[temperature]), labels, arrays
            ),
        },
        figures=figures.draw(
            predictor, data.classes, train, test, temperature, labels, samples,
            by_temperature, completion, metrics["recognised_test_drawings"], seed, num_plots,
        ),
        arrays=arrays,
        speed=timing.speed(draw_one, singles, seconds, len(labels)),
        serving={"temperature": np.array(temperature, np.float32)},
        undefined=_undefined(metrics, judged, predictor, arrays),
    )  # fmt: skip


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics (value, 1) of each drawing, from the arrays of `evaluate`; NaN for none.

    Labels are NaN where a served model cannot give them.
    """
    truth, size = arrays["truth"], len(arrays["truth"])
    values = {
        f"recognised_{kind}s": np.where(np.isnan(seen), np.nan, seen == truth)
        for kind in ("completion", "reconstruction")
        if (seen := arrays.get(f"{kind}_label")) is not None
    }
    if "reconstruction_loss" in arrays:
        values["reconstruction_loss"] = np.asarray(arrays["reconstruction_loss"], np.float64)
    nothing = np.full(size, np.nan)
    rows = {name: values.get(name, nothing) for name in METRICS}
    return PerExample(
        arrays["keys"],
        np.arange(size),
        {name: np.stack([x, np.where(np.isnan(x), np.nan, 1)], 1) for name, x in rows.items()},
    )


def reconstruct(predictor: Generator, examples: Examples, temperature: float) -> list[Rows]:
    """Drawings drawn again, from the means of their latent vectors."""
    seeds, heat = [seed_of(str(key)) for key in examples.keys], np.full(len(examples), temperature)
    latent = predictor.encode(list(examples), examples.labels)
    return predictor.draw(examples.labels, seeds, heat, latent=latent)


def complete(
    predictor: Generator, examples: Examples, temperature: float, fraction: float
) -> list[Rows]:
    """Drawings completed from the first part of their points."""
    seeds, heat = [seed_of(str(key)) for key in examples.keys], np.full(len(examples), temperature)
    begun = [prefix(rows, fraction) for rows in examples]
    return predictor.draw(examples.labels, seeds, heat, beginnings=begun)


def redraw(
    predictor: Generator, judge: Classifier | None, examples: Examples, temperature: float
) -> Arrays:
    """The arrays of `evaluate` that are of completions and of reconstructions."""
    kinds = {"completion": complete(predictor, examples, temperature, HALF)}
    if predictor.latent_size:
        kinds["reconstruction"] = reconstruct(predictor, examples, temperature)
    arrays: Arrays = {"keys": np.asarray(examples.keys, str), "truth": np.asarray(examples.labels)}
    for kind, drawings in kinds.items():
        arrays[f"{kind}_points"] = np.array([len(rows) for rows in drawings], np.int32)
        if judge is not None:
            arrays[f"{kind}_label"] = _judge(judge, drawings).label
    return arrays


def losses(predictor: Generator, examples: Examples) -> Arrays:
    """L_R and L_KL of each drawing, of those that the model has."""
    seeds = [seed_of(str(key)) for key in examples.keys]
    found = predictor.measure(list(examples), examples.labels, seeds)
    names = ("reconstruction_loss", "kl")
    return {name: x for name, x in zip(names, found, strict=True) if x is not None}


def temperature_table(
    judge: Classifier | None,
    train: Examples,
    test: Examples,
    real: Judged,
    labels: Int32[np.ndarray, " sample"],
    samples: Mapping[float, list[Rows]],
    some: Examples,
    reconstructed: Mapping[float, list[Rows] | None],
) -> pd.DataFrame:
    """A row for each temperature.

    Returns:
        temperature; recognised fraction of samples and of reconstructions; frechet_distance,
        diversity and novelty of samples; empty: fraction of samples of fewer than two points. NaN
        where the classifier or the encoder is missing.
    """
    everything = [*test, *(rows for each in samples.values() for rows in each)]
    of_all = np.concatenate([test.labels, *[labels] * len(samples)])
    _, distance = measures.nearest(everything, of_all, train, train.labels)
    there, variety = distance[: len(test)], measures.spread(list(test), test.labels)
    rows = []
    for number, (heat, drawings) in enumerate(samples.items()):
        seen, again = _judge(judge, drawings), reconstructed[heat]
        own = distance[len(test) + number * len(labels) :][: len(labels)]
        inked = [drawings[i] for i in np.flatnonzero(seen.drawn)]
        rows.append(
            {
                "temperature": heat,
                "samples": seen.recognised(labels) if judge else np.nan,
                "reconstructions": _judge(judge, again).recognised(some.labels)
                if judge and again is not None
                else np.nan,
                "frechet_distance": measures.frechet_distance(seen.features, real.features),
                "diversity": measures.diversity(
                    measures.spread(inked, labels[seen.drawn]), variety
                ),
                "novelty": measures.novelty(own[seen.drawn], there),
                "empty": 1 - float(seen.drawn.mean()),
            }
        )
    return pd.DataFrame(rows)


def completion_table(
    predictor: Generator,
    judge: Classifier | None,
    examples: Examples,
    temperature: float,
    fractions: Sequence[float],
) -> pd.DataFrame:
    """A row for each fraction of the points; without a classifier there is none.

    Returns:
        fraction; unfinished, completed: recognised fraction of the beginnings and the completions.
    """
    rows = [
        {
            "fraction": fraction,
            "unfinished": _unfinished(judge, examples, fraction),
            "completed": _judge(
                judge, complete(predictor, examples, temperature, fraction)
            ).recognised(examples.labels),
        }
        for fraction in track(fractions if judge else [], "completing", unit="fractions")
    ]
    return pd.DataFrame(rows, columns=["fraction", "unfinished", "completed"])


def class_table(
    classes: Sequence[str],
    real: Judged,
    samples: Judged,
    labels: Int32[np.ndarray, " sample"],
    arrays: Arrays,
) -> pd.DataFrame:
    """A row for each class: recognised fractions, and the mean of L_R; NaN for none."""
    truth = arrays["truth"]
    found = {"test": (real.label, truth), "samples": (samples.label, labels)}
    found |= {
        f"{kind}s": (arrays[f"{kind}_label"], truth)
        for kind in ("completion", "reconstruction")
        if f"{kind}_label" in arrays
    }
    rows = []
    for label, name in enumerate(classes):
        row: dict[str, object] = {"class": name, "examples": int((truth == label).sum())}
        if len(classes) > 1:
            row |= {
                kind: _mean((seen == true)[true == label]) for kind, (seen, true) in found.items()
            }
        if "reconstruction_loss" in arrays:
            row["reconstruction_loss"] = _mean(arrays["reconstruction_loss"][truth == label])
        rows.append(row)
    return pd.DataFrame(rows)


def _judge(judge: Classifier | None, drawings: Sequence[Rows]) -> Judged:
    """Without a classifier nothing is seen; the other fields remain."""
    boxed = [fitted(rows) for rows in drawings]
    drawn = np.array([len(rows) > 1 for rows in boxed], bool)
    label, features = np.full(len(drawings), -1, np.int32), np.zeros((0, 0), np.float32)
    if judge is not None and drawn.any():
        probabilities, features = judge([boxed[i] for i in np.flatnonzero(drawn)])
        label[drawn] = probabilities.argmax(axis=1)
    return Judged(label, drawn, features)


def _unfinished(judge: Classifier | None, examples: Examples, fraction: float) -> float:
    begun = [prefix(rows, fraction) for rows in examples]
    return _judge(judge, begun).recognised(examples.labels) if judge else float("nan")


def _merit(
    judge: Classifier | None,
    drawn: Sequence[Rows],
    labels: Int32[np.ndarray, " sample"],
    redrawn: Arrays,
    examples: Examples,
) -> float:
    """How good a temperature is: the mean of the recognised fractions.

    They are of samples, completions and reconstructions. Without a classifier: how close the
    variety of samples is to that of drawings.
    """
    if judge is None:
        real = measures.spread(list(examples), examples.labels)
        ratio = measures.diversity(measures.spread(drawn, labels), real)
        return -abs(ratio - 1) if np.isfinite(ratio) else -np.inf
    results = per_example(redrawn)
    shares = [results.value(metric) for name, metric in METRICS.items() if "recognised" in name]
    return float(np.nanmean([_judge(judge, drawn).recognised(labels), *shares]))


def _undefined(
    names: Iterable[str], judged: bool, predictor: Generator, arrays: Arrays
) -> dict[str, str]:
    """Why metrics have no value where a part of the model or of the data set is missing."""
    reasons = {}
    for name in names:
        encoded = name.endswith("kl") or "reconstructions" in name
        if encoded and not predictor.latent_size:
            reasons[name] = "the model has no encoder"
        elif "reconstruction_loss" in name and "reconstruction_loss" not in arrays:
            reasons[name] = "the model has no density"
        elif not judged and ("recognised" in name or "frechet" in name):
            reasons[name] = "a data set of one class has no classifier"
        elif name in ("frechet_distance", "diversity", "novelty"):
            reasons[name] = "too few samples have two points"
    return reasons


def some_of(examples: Examples, index: Integer[np.ndarray, " chosen"]) -> Some:
    """Some drawings of a split."""
    return Some([examples[i] for i in index.tolist()], examples.labels[index], examples.keys[index])


def _mean(values: Shaped[np.ndarray, " drawing"] | None) -> float:
    """NaN for none."""
    return float(np.mean(values)) if values is not None and len(values) else float("nan")
