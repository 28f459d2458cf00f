"""Scores of a recogniser of clips on the test split: numbers, tables, figures, predictions."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from ostinato.errors import EvaluationError
from ostinato.evaluation import bootstrap, classification, figures
from ostinato.params import near
from ostinato.task import Evaluation
from ostinato.units import BatchSize, Count
from ostinato.video import figures as video_figures

Array = NDArray[Any]
Inputs = dict[str, Array]
Call = Callable[[Inputs], tuple[Array, float]]
Change = Callable[[Array, Array, Array], tuple[Array, Array]]


LOSSES = ("log_loss",)  # the metrics of `outcomes` of which less is better


def evaluate(
    model: Any,
    data: Any,
    seed: int,
    *,
    resamples: Count,
    prefix_frames: list[Count],
    max_examples: Count,
    num_plots: Count,
    batch_size: BatchSize,
    timed_requests: Count,
) -> Evaluation:
    """Score ``model`` on the test split of ``data``.

    How much a model uses time is the difference that it makes to shuffle the frames of each clip:
    metrics ``top1_shuffled``, and ``time``, by how much less that is, with its interval. A video is
    recognised by the mean probabilities of its clips (``top1_video``).

    Args:
        model: maps clip (batch, frame, height, width, channel) and frames (batch,) to
            probabilities (batch, class); its layer ``map`` gives features over time and space.
        data: classes and ``examples("test", None)``.
        seed: of resampling, of shuffling frames and of choosing clips.
        resamples: bootstrap samples behind an interval of 95%.
        prefix_frames: numbers of frames, from the first on, with which recognition is tried: ``top1_at_4``.
        max_examples: how many of the clips are tried with each of them, at most.
        num_plots: clips in each contact sheet: the surest mistakes, right ones, and activations.
        batch_size: clips recognised at once.
        timed_requests: how many clips are recognised one by one to see how long that takes.

    Returns:
        metrics, tables, figures, arrays in the stored order of the split (keys, videos, truth,
        rank of the true class, the same with shuffled frames, probabilities (example, class) in
        half precision), and speed.

    Raises:
        ScoreError: the model gives something else than probabilities.
    """
    examples, classes = data.examples("test", None), data.classes
    truth, samples = np.asarray(examples.labels), len(examples.labels)
    call, random = compiled(model), np.random.default_rng(seed)
    every = np.arange(samples)

    call(inputs(data, examples, every[:batch_size]))  # no time counts the making of the graph
    probabilities = np.empty((samples, len(classes)), np.float32)
    seconds = 0.0
    for rows, p, spent in outputs(call, data, examples, every, batch_size, "test"):
        probabilities[rows] = p
        seconds += spent
    rank = classification.ranks(probabilities, truth)
    prediction, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = rank == 1

    shuffled = np.empty(samples, np.int32)
    orders = random.permuted(np.tile(np.arange(data.frames), (samples, 1)), axis=1)
    for rows, p, _ in outputs(call, data, examples, every, batch_size, "shuffled", mixed(orders)):
        shuffled[rows] = classification.ranks(p, truth[rows])
    lost = right.astype(float) - (shuffled == 1)

    videos, members = np.unique(np.asarray(examples.videos, str), return_inverse=True)
    means = np.zeros((len(videos), len(classes)))
    np.add.at(means, members, probabilities / np.bincount(members)[members, None])
    whose = np.zeros(len(videos), int)
    whose[members] = truth

    table = frames_seen(
        call, data, examples, np.sort(random.permutation(samples)[:max_examples]), prefix_frames, batch_size,
        resamples, seed,
    )  # fmt: skip
    counts = classification.confusion(truth, prediction, len(classes))
    each = pd.DataFrame({"class": classes, **classification.per_class(counts)})
    low, high = bootstrap.interval(bootstrap.bootstrap(right, resamples, seed, members))
    least, most = bootstrap.interval(bootstrap.bootstrap(lost, resamples, seed, members))
    numbers: dict[str, float] = {
        "samples": samples,
        "top1": classification.top(rank, 1),
        "top1_low": low,
        "top1_high": high,
        "top5": classification.top(rank, 5),
        "log_loss": classification.log_loss(classification.likelihoods(probabilities, truth)),
        "macro_f1": float(each["f1"].mean()),
        "videos": len(videos),
        "top1_video": classification.top(classification.ranks(means, whose), 1),
        "top5_video": classification.top(classification.ranks(means, whose), 5),
        "top1_shuffled": classification.top(shuffled, 1),
        "time": float(lost.mean()),
        "time_low": least,
        "time_high": most,
        **{f"top1_at_{n}": top1 for n, top1 in zip(prefix_frames, table["top1"], strict=True)},
        "parameters": int(model.count_params()),
    }
    cells = np.nonzero(counts)
    names = np.asarray(classes)
    pairs = {"truth": names[cells[0]], "prediction": names[cells[1]], "count": counts[cells]}
    tables = {"per_class": each, "confusion": pd.DataFrame(pairs), "frames_seen": table}
    pictures = {
        "confusion": figures.confusion(counts, classes),
        "per_class": figures.per_class(each),
        "frames_seen": video_figures.prefix_accuracy(table, min(max_examples, samples)),
    }

    def sheet(rows: Array, title: str, heat: Any = None) -> Any:
        told = [_told(names, truth[i], probabilities[i]) for i in rows]
        clips = [examples.clips[i][: examples.frames[i]] for i in rows]
        return video_figures.contact_sheet(clips, told, title, heat)

    wrong = np.flatnonzero(~right)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:num_plots]
    some = random.permutation(np.flatnonzero(right))[:num_plots]
    pictures["wrong"] = sheet(surest, f"The surest of {len(wrong):,} mistakes in {samples:,} clips")
    pictures["right"] = sheet(some, f"Some of {right.sum():,} clips that were recognised")
    shown = random.permutation(samples)[:num_plots]
    pictures["activation"] = sheet(
        shown,
        "What speaks for the predicted class, in space and time (Grad-CAM)",
        activation(model, inputs(data, examples, shown), prediction[shown]),
    )

    alone = [
        inputs(data, examples, random.integers(samples, size=1)) for _ in range(timed_requests)
    ]
    call(alone[0])
    times = [call(x)[1] for x in alone]
    speed = {
        "inference_ms_single": 1e3 * float(np.median(times)),
        "inference_ms_batched": 1e3 * seconds / samples,
    }
    arrays = {
        "keys": np.asarray(examples.keys, str),
        "videos": np.asarray(examples.videos, str),
        "truth": truth,
        "rank": rank,
        "rank_shuffled": shuffled,
        "probabilities": probabilities.astype(np.float16),
    }
    return Evaluation(numbers, tables, pictures, arrays, speed)


def outcomes(metric: str, arrays: Mapping[str, Array]) -> Array:
    """What each clip adds to a metric, float64 (clip,), more is better: their mean is it.

    Args:
        metric: top1, top5, or log_loss, whose sign is turned.
        arrays: of `score`.

    Raises:
        ScoreError: the metric is no mean over clips, or there is none of this name.
    """
    if metric == "log_loss":
        truth = classification.likelihoods(arrays["probabilities"], arrays["truth"])
        return np.asarray(np.log(np.maximum(truth, classification.EPSILON)))
    means = {"top1": 1, "top5": 5}
    if metric not in means:
        raise EvaluationError(
            f"{metric!r} is no mean over clips; {near(metric, [*means, 'log_loss'])}"
        )
    return np.asarray(np.asarray(arrays["rank"]) <= means[metric], np.float64)


def clusters(arrays: Mapping[str, Array]) -> Array:
    """The number of the video that each clip was cut from: clips of one share their luck."""
    return np.unique(arrays["videos"], return_inverse=True)[1]


def frames_seen(
    call: Call,
    data: Any,
    examples: Any,
    chosen: Array,
    seen: list[int],
    batch: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Top-1 of the ``chosen`` clips with the first so many frames, with its 95% interval."""
    rows = []
    for count in seen:
        right = np.zeros(len(examples.labels), bool)
        for at, p, _ in outputs(
            call, data, examples, chosen, batch, f"first {count} frames", first(count)
        ):
            right[at] = classification.ranks(p, examples.labels[at]) == 1
        low, high = bootstrap.interval(bootstrap.bootstrap(right[chosen], resamples, seed))
        top1 = float(right[chosen].mean())
        rows.append({"frames": count, "top1": top1, "low": low, "high": high})
    return pd.DataFrame(rows)


def first(count: int) -> Change:
    """What leaves the first ``count`` frames of clips."""

    def change(rows: Array, clips: Array, frames: Array) -> tuple[Array, Array]:
        return clips[:, :count], np.minimum(frames, count)

    return change


def mixed(orders: Array) -> Change:
    """What shuffles the real frames of clips, by a permutation of all frames for each clip."""

    def change(rows: Array, clips: Array, frames: Array) -> tuple[Array, Array]:
        wanted = orders[rows]
        padding = wanted >= frames[:, None]
        # Real frames in the order of the permutation, then padding: a stable sort keeps both.
        front = np.argsort(padding, axis=1, kind="stable")
        order = np.take_along_axis(wanted, front, axis=1)
        return np.take_along_axis(clips, order[:, :, None, None, None], axis=1), frames

    return change


def inputs(data: Any, examples: Any, rows: Array, change: Change | None = None) -> Inputs:
    """Clips of the split as a model reads them, as in training."""
    clips, frames = examples.clips[rows], examples.frames[rows]
    if change:
        clips, frames = change(rows, clips, frames)
    return {"clip": clips.astype(np.float32) / 255, "frames": frames.astype(np.int32)}


def compiled(model: Any) -> Call:
    """The model as one graph for clips of any number and length: to its output and the seconds."""
    import tensorflow as tf

    given = {x.name: tf.TensorSpec(x.shape, x.dtype) for x in model.inputs}
    graph = tf.function(lambda x: model(x, training=False), input_signature=[given])

    def call(x: Inputs) -> tuple[Array, float]:
        start = time.perf_counter()
        p = graph({name: tf.constant(x[name]) for name in given}).numpy()
        return p, time.perf_counter() - start

    return call


def outputs(
    call: Call,
    data: Any,
    examples: Any,
    chosen: Array,
    batch: int,
    what: str,
    change: Change | None = None,
) -> Iterator[tuple[Array, Array, float]]:
    """Recognise the ``chosen`` clips in batches: (rows, probabilities, seconds) of each."""
    starts = range(0, len(chosen), batch)
    for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
        rows = chosen[start : start + batch]
        p, seconds = call(inputs(data, examples, rows, change))
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


def activation(model: Any, x: Inputs, classes: Array) -> list[Array]:
    """What speaks for a class, in time and space: Grad-CAM (Selvaraju et al. 2017, 1610.02391).

    The features of the layer ``map``, each weighted by the mean gradient by it of the log of the
    class's probability, summed, and what speaks against the class left out.

    Args:
        model: has the layer ``map``, (batch, frame, height, width, feature).
        x: clips as the model reads them.
        classes: which class of each clip (batch,).

    Returns:
        For each clip (frame, height, width) from 0 to its highest, 1, without padding; height and
        width are the map's own.
    """
    import tensorflow as tf

    inner = type(model)(model.input, [model.get_layer("map").output, model.output])
    given = {name: tf.constant(values) for name, values in x.items()}
    with tf.GradientTape() as tape:
        tape.watch(given["clip"])
        maps, p = inner(given, training=False)
        chosen = tf.math.log(tf.gather(p, classes, batch_dims=1) + classification.EPSILON)
    gradient = tape.gradient(chosen, maps)
    weight = tf.reduce_mean(gradient, axis=(1, 2, 3), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(maps * weight, axis=-1)).numpy()
    steps = -(-x["clip"].shape[1] // heat.shape[1])  # frames that one of the map's stands for
    heat = np.repeat(heat, steps, axis=1)
    parts = [h[:n] for h, n in zip(heat, x["frames"].tolist(), strict=True)]
    return [part / max(float(part.max()), classification.EPSILON) for part in parts]


def _told(names: Array, truth: int, p: Array) -> str:
    """The true class, and the two likeliest with their probabilities."""
    best = np.argsort(-p, kind="stable")[:2]
    return "\n".join([f"{names[truth]}", *(f"as {names[i]} {p[i]:.0%}" for i in best)])
