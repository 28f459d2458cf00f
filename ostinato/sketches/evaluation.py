"""Evaluate a classifier of drawings on the test split: metrics, tables, figures, predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int16, Integer, Shaped

from ostinato.evaluation import classification, timing
from ostinato.progress import track
from ostinato.sketches.dataset.protocols import EvaluationData
from ostinato.sketches.metrics import METRICS
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.units import BatchSize, Count, Fraction

Predict = Callable[[Float32[np.ndarray, "batch ..."]], Float[np.ndarray, "batch class"]]


class DrawingClassifier(Protocol):
    """What `evaluate` needs of a restored model."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    def __call__(
        self, inputs: Float32[np.ndarray, "batch ..."]
    ) -> Float[np.ndarray, "batch class"]:
        """Probabilities of the classes for drawings (`EvaluationData.inputs`)."""


def evaluate(
    predictor: DrawingClassifier,
    data: EvaluationData,
    seed: int,
    *,
    resamples: Count,
    bins: Count,
    prefix_fractions: list[Fraction],
    max_examples: Count,
    num_plots: Count,
    batch_size: BatchSize,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a model on the test split.

    Early recognition is the accuracy on drawings of which only the first points are known. Bitmaps
    have no order of points, so for them there is no ``early_recognition`` table and figure and no
    metric ``top1_at_...``.

    Args:
        predictor: the trained model.
        data: the data set.
        seed: of resampling, of the drawings for early recognition and of the timed requests.
        resamples: bootstrap samples of a 95% confidence interval.
        bins: of equal width in confidence, for the calibration error.
        prefix_fractions: of a drawing's points, for early recognition: ``top1_at_25`` for 0.25.
        max_examples: number of drawings for early recognition, at most.
        num_plots: number of the most confident errors in the figure.
        batch_size: drawings in a batch.
        timed_requests: number of drawings that are classified one by one to measure the time.

    Returns:
        metrics, tables, figures, speed, and arrays in the stored order of the split (keys, truth,
        rank and likelihood of the true class, probabilities in half precision). For serving:
        confidence on the validation split and whether it was right, which calibrate the monitor's
        estimate of the accuracy.

    Raises:
        EvaluationError: the model's outputs are not probabilities of the classes.
    """
    from ostinato.evaluation import figures
    from ostinato.sketches import figures as sketches_figures

    examples, classes = data.examples("test"), data.classes
    size, truth = len(examples), np.asarray(examples.labels)
    predict = timing.Timer(predictor)
    found, arrays = predict_split(predict, data, "test", batch_size)
    batched_seconds = predict.seconds
    earlier, validation = predict_split(predictor, data, "validation", batch_size)

    counts = classification.confusion_matrix(truth, found.prediction, len(classes))
    per_class = classification.per_class(counts, classes)
    reliability = classification.reliability(found.confidence, found.correct, bins)
    calibration_error = classification.expected_calibration_error(reliability)
    low, high = classification.mean_interval(found.correct, resamples=resamples, seed=seed)
    metrics: dict[str, float] = {
        "samples": size,
        "top1": classification.top_k_accuracy(found.rank, 1),
        "top1_low": low,
        "top1_high": high,
        "top5": classification.top_k_accuracy(found.rank, 5),
        "map3": classification.mean_average_precision(found.rank, 3),
        "log_loss": classification.log_loss(found.likelihood),
        "calibration_error": calibration_error,
        "macro_f1": float(per_class["f1"].mean()),
        "parameters": predictor.parameters,
        **validation_metrics(per_example(validation), METRICS),
    }
    tables = {
        "per_class": per_class,
        "confusion": classification.confusion_table(counts, classes),
        "calibration": reliability,
    }
    wrong = np.flatnonzero(found.prediction != truth)
    plotted = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:num_plots]
    captions = [
        f"{classes[truth[i]]}\nas {classes[found.prediction[i]]}\n{found.confidence[i]:.0%}"
        for i in plotted
    ]
    plots = {
        "confusion": figures.confusion(counts, classes),
        "per_class": figures.per_class(per_class),
        "calibration": figures.calibration(reliability, calibration_error),
        "mistakes": sketches_figures.gallery(
            [examples[i] for i in plotted],
            captions,
            f"The most confident of {len(wrong):,} errors on {size:,} drawings",
        ),
    }
    random = np.random.default_rng(seed)
    if data.kind == "strokes" and prefix_fractions:
        chosen = np.sort(random.permutation(size)[:max_examples])
        table = early_recognition(
            predictor,
            data,
            [examples[i] for i in chosen],
            truth[chosen],
            prefix_fractions=prefix_fractions,
            batch_size=batch_size,
            resamples=resamples,
            seed=seed,
        )
        metrics |= {
            f"top1_at_{100 * fraction:g}": top1
            for fraction, top1 in zip(prefix_fractions, table["top1"], strict=True)
        }
        tables["early_recognition"] = table
        plots["early_recognition"] = sketches_figures.early_recognition(table, len(chosen))

    singles = [data.inputs([examples[i]]) for i in random.integers(size, size=timed_requests)]
    return Evaluation(
        metrics=metrics,
        tables=tables,
        figures=plots,
        arrays=arrays,
        speed=timing.speed(predictor, singles, batched_seconds, size),
        serving={
            "validation_confidence": earlier.confidence.astype(np.float32),
            "validation_correct": earlier.correct,
        },
    )


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each test drawing, from the arrays that `evaluate` returned."""
    return classification.per_example(arrays, METRICS)


def predict_split(
    predict: Predict, data: EvaluationData, split: str, batch_size: int
) -> tuple[classification.Predictions, dict[str, Shaped[np.ndarray, "..."]]]:
    """The predictions for a split, and its arrays (`Evaluation.arrays`) in the stored order."""
    examples = data.examples(split)
    found = classification.collect(
        batches(predict, data, examples, batch_size, split),
        np.asarray(examples.labels),
        len(data.classes),
    )
    return found, {"keys": np.asarray(examples.keys, str), **found.arrays()}


def early_recognition(
    predict: Predict,
    data: EvaluationData,
    drawings: Sequence[Int16[np.ndarray, "_ 3"]],
    truth: Integer[np.ndarray, " drawing"],
    *,
    prefix_fractions: Sequence[float],
    batch_size: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Top-1 accuracy on drawings of which only a fraction of the points is known.

    Returns:
        A row for each fraction: fraction, top1, and low, high: its 95% confidence interval.
    """
    rows = []
    for fraction in prefix_fractions:
        prefixes = [prefix(drawing, fraction) for drawing in drawings]
        title = f"first {fraction:.0%} of the points"
        correct: Bool[np.ndarray, " drawing"] = classification.collect(
            batches(predict, data, prefixes, batch_size, title), truth, len(data.classes)
        ).correct
        low, high = classification.mean_interval(correct, resamples=resamples, seed=seed)
        row = {"fraction": fraction, "top1": float(correct.mean()), "low": low, "high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def prefix(rows: Int16[np.ndarray, "point 3"], fraction: float) -> Int16[np.ndarray, "prefix 3"]:
    """The first points of a drawing, at least one, normalised as a whole drawing.

    Prepared drawings are aligned to the top left of their box, which their longer side fills. The
    prefix is aligned and scaled in the same way, as if the drawing ended there, so its scale does
    not reveal the final size. Its last stroke is lifted.
    """
    count = max(1, round(fraction * len(rows)))
    if count == len(rows):
        return rows
    whole = np.cumsum(rows[:, :2], axis=0, dtype=np.float64)
    part = whole[:count] - whole[:count].min(axis=0)
    part *= np.ptp(whole, axis=0).max() / max(part.max(), 1.0)
    points = np.rint(part + whole.min(axis=0)).astype(rows.dtype)
    out = rows[:count].copy()
    out[:, :2] = np.diff(points, axis=0, prepend=0)
    out[-1, 2] = 1
    return out


def batches(
    predict: Predict, data: EvaluationData, drawings: Any, batch_size: int, title: str
) -> Iterator[tuple[Integer[np.ndarray, " batch"], Float[np.ndarray, "batch class"]]]:
    """Classify drawings in batches of similar length.

    Args:
        predict: the model.
        data: turns drawings into the model's inputs.
        drawings: a sequence of stroke-3 rows, or of bitmaps.
        batch_size: drawings in a batch.
        title: of the progress bar.

    Yields:
        Indices into ``drawings``, and the probabilities of the classes.
    """
    size = len(drawings)
    order = np.argsort([len(drawings[i]) for i in range(size)], kind="stable")
    starts = range(0, size, batch_size)
    for start in track(starts, title, unit="batches"):
        rows = order[start : start + batch_size]
        yield rows, predict(data.inputs([drawings[i] for i in rows]))
