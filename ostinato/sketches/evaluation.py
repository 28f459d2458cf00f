"""Scores of a recogniser of drawings on the test split: numbers, tables, figures, predictions."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from ostinato.errors import EvaluationError
from ostinato.evaluation import bootstrap, classification, figures
from ostinato.params import near
from ostinato.sketches import figures as sketches_figures
from ostinato.task import Evaluation
from ostinato.units import BatchSize, Count, Fraction

Array = NDArray[Any]

LOSSES = ("log_loss",)  # of the metrics of `outcomes`: less is better


def evaluate(
    model: Any,
    data: Any,
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
    """Score ``model`` on the test split of ``data``.

    Bitmaps have no order in which they were drawn: for them there is no progress, that is no
    table and figure of this name and no metric ``top1_at_...``.

    Args:
        model: maps (batch, point, 3), or (batch, height, width, 1), to probabilities
            (batch, class).
        data: kind, classes, ``examples("test")`` and ``pad``.
        seed: of resampling and of choosing the ``max_examples`` drawings.
        resamples: bootstrap samples behind an interval of 95%.
        bins: equal-width bins of the confidence, for the calibration error.
        prefix_fractions: of a drawing's points, at which recognition is tried: ``top1_at_25`` for 0.25.
        max_examples: how many of the drawings are tried at each of the shares, at most.
        num_plots: how many of the surest mistakes are shown.
        batch_size: drawings recognised at once.
        timed_requests: how many drawings are recognised one by one to see how long that takes.

    Returns:
        metrics, tables, figures, arrays in the stored order of the split (keys, truth, rank of
        the true class, probabilities (example, class) in half precision), and speed.

    Raises:
        ScoreError: the model gives something else than probabilities.
    """
    examples, classes = data.examples("test"), data.classes
    samples, truth = len(examples), np.asarray(examples.labels)
    call = compiled(model)

    probabilities = np.empty((samples, len(classes)), np.float16)
    prediction, rank = np.empty(samples, np.int32), np.empty(samples, np.int32)
    confidence, likelihood = np.empty(samples), np.empty(samples)
    seconds = 0.0
    for rows, p, spent in outputs(call, data, examples, batch_size, "test"):
        probabilities[rows], prediction[rows], confidence[rows] = p, p.argmax(1), p.max(1)
        rank[rows] = classification.ranks(p, truth[rows])
        likelihood[rows] = classification.likelihoods(p, truth[rows])
        seconds += spent

    right = rank == 1
    counts = classification.confusion(truth, prediction, len(classes))
    each = pd.DataFrame({"class": classes, **classification.per_class(counts)})
    bands = classification.reliability(confidence, right, bins)
    error = classification.calibration_error(bands)
    low, high = bootstrap.interval(bootstrap.bootstrap(right, resamples, seed))
    numbers: dict[str, float] = {
        "samples": samples,
        "top1": classification.top(rank, 1),
        "top1_low": low,
        "top1_high": high,
        "top5": classification.top(rank, 5),
        "map3": classification.mean_average_precision(rank, 3),
        "log_loss": classification.log_loss(likelihood),
        "calibration_error": error,
        "macro_f1": float(each["f1"].mean()),
        "parameters": int(model.count_params()),
    }
    cells = np.nonzero(counts)
    names = np.asarray(classes)
    pairs = {"truth": names[cells[0]], "prediction": names[cells[1]], "count": counts[cells]}
    tables = {
        "per_class": each,
        "confusion": pd.DataFrame(pairs),
        "calibration": pd.DataFrame(bands),
    }
    wrong = np.flatnonzero(prediction != truth)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:num_plots]
    pictures = {
        "confusion": figures.confusion(counts, classes),
        "per_class": figures.per_class(each),
        "calibration": figures.calibration(bands, error),
        "mistakes": figures.gallery(
            [examples[i] for i in shown],
            [f"{names[truth[i]]}\nas {names[prediction[i]]}\n{confidence[i]:.0%}" for i in shown],
            f"The surest of {len(wrong):,} mistakes on {samples:,} drawings",
        ),
    }
    random = np.random.default_rng(seed)
    if data.kind == "strokes" and prefix_fractions:
        chosen = np.sort(random.permutation(samples)[:max_examples])
        table = progress(
            call, data, examples, truth, chosen, prefix_fractions, batch_size, resamples, seed
        )
        numbers |= {
            f"top1_at_{100 * share:g}": top1
            for share, top1 in zip(prefix_fractions, table["top1"], strict=True)
        }
        tables["progress"] = table
        pictures["progress"] = sketches_figures.early_recognition(table, len(chosen))

    alone = [inputs(data, [examples[i]]) for i in random.integers(samples, size=timed_requests)]
    call(alone[0])
    times = [call(x)[1] for x in alone]
    speed = {
        "inference_ms_single": 1e3 * float(np.median(times)),
        "inference_ms_batched": 1e3 * seconds / samples,
    }
    arrays = {
        "keys": np.asarray(examples.keys, str),
        "truth": truth,
        "rank": rank,
        "probabilities": probabilities,
    }
    return Evaluation(numbers, tables, pictures, arrays, speed)


def outcomes(metric: str, arrays: Mapping[str, Array]) -> Array:
    """What each example adds to a metric, float64 (example,), more is better: their mean is it.

    Args:
        metric: top1, top5, map3, or log_loss, whose sign is turned.
        arrays: of `score`.

    Raises:
        ScoreError: the metric is no mean over examples, or there is none of this name.
    """
    rank = np.asarray(arrays["rank"])
    if metric == "log_loss":
        truth = classification.likelihoods(arrays["probabilities"], arrays["truth"])
        return np.asarray(np.log(np.maximum(truth, classification.EPSILON)))
    means = {"top1": rank <= 1, "top5": rank <= 5, "map3": np.where(rank <= 3, 1 / rank, 0)}
    if metric not in means:
        raise EvaluationError(
            f"{metric!r} is no mean over examples; {near(metric, [*means, 'log_loss'])}"
        )
    return means[metric].astype(np.float64)


def progress(
    call: "Call",
    data: Any,
    examples: Any,
    truth: Array,
    chosen: Array,
    shares: Sequence[float],
    batch: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Top-1 of the ``chosen`` drawings at each share of their points, with its 95% interval."""
    rows = []
    for share in shares:
        parts = [begun(examples[i], share) for i in chosen]
        right = np.empty(len(chosen), bool)
        for at, p, _ in outputs(call, data, parts, batch, f"first {share:.0%} of the points"):
            right[at] = classification.ranks(p, truth[chosen[at]]) == 1
        low, high = bootstrap.interval(bootstrap.bootstrap(right, resamples, seed))
        rows.append({"share": share, "top1": float(right.mean()), "low": low, "high": high})
    return pd.DataFrame(rows)


def begun(rows: Array, share: float) -> Array:
    """A drawing when this share of its points is on the paper, at least one: int16 (point, 3).

    A drawing is stored at the top left of its box, its longer side as long as that of the box;
    what is begun is placed and scaled in the same way, as it would be if it ended there: nothing
    tells how large it was going to be. Its last stroke is lifted.
    """
    count = max(1, round(share * len(rows)))
    if count == len(rows):
        return rows
    whole = np.cumsum(rows[:, :2], axis=0, dtype=np.float64)
    part = whole[:count] - whole[:count].min(axis=0)
    part *= np.ptp(whole, axis=0).max() / max(part.max(), 1.0)
    placed = np.rint(part + whole.min(axis=0)).astype(rows.dtype)
    out = rows[:count].copy()
    out[:, :2] = np.diff(placed, axis=0, prepend=0)
    out[-1, 2] = 1
    return out


def inputs(data: Any, drawings: Sequence[Array]) -> Array:
    """Drawings as a model reads them, as in training: see ``pad``; bitmaps float32 in 0 to 1."""
    if data.kind == "bitmap":
        return np.stack(drawings).astype(np.float32) / 255
    padded: Array = data.pad(drawings)
    return padded


Call = Callable[[Array], tuple[Array, float]]


def compiled(model: Any) -> Call:
    """The model as one graph for batches of any size and length: to its output and the seconds."""
    import tensorflow as tf

    given = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    graph = tf.function(lambda x: model(x, training=False), input_signature=[given])

    def call(x: Array) -> tuple[Array, float]:
        start = time.perf_counter()
        p = graph(x).numpy()
        return p, time.perf_counter() - start

    return call


def outputs(
    call: Call, data: Any, drawings: Sequence[Array], batch: int, what: str
) -> Iterator[tuple[Array, Array, float]]:
    """Recognise drawings in batches of like length: (rows, probabilities, seconds) of each.

    Rows are indices into ``drawings``. The first batch is run once before, so that no time counts
    the making of the graph.
    """
    order = np.argsort([len(drawing) for drawing in drawings], kind="stable")
    starts = range(0, len(order), batch)
    for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
        rows = order[start : start + batch]
        x = inputs(data, [drawings[i] for i in rows])
        if start == 0:
            call(x)
        p, seconds = call(x)
        if p.shape != (len(rows), len(data.classes)):
            raise EvaluationError(
                f"the model's output is {p.shape}, not (batch, {len(data.classes)})"
            )
        if not np.allclose(p.sum(axis=1), 1, atol=1e-2):  # not a number fails it, too
            raise EvaluationError(
                "the model's output is no distribution over the classes: sums "
                f"{p.sum(axis=1).min():.3g} to {p.sum(axis=1).max():.3g}; did training diverge?"
            )
        yield rows, p, seconds
