"""Evaluate a video classifier on the test split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer, Shaped, UInt8

from ostinato.evaluation import classification, comparison
from ostinato.evaluation.classification import TOP1, Predictions
from ostinato.evaluation.timing import Timer, speed
from ostinato.progress import track
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.units import BatchSize, Count
from ostinato.video.dataset import ClipDataset, Clips
from ostinato.video.dataset.loader import Inputs
from ostinato.video.metrics import METRICS, SHUFFLING_DROP, TOP1_SHUFFLED, TOP1_VIDEO

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Classifier(Protocol):
    """A predictor of clips: maps `Inputs` to probabilities (clip, class)."""

    @property
    def parameters(self) -> int:
        """The number of learned values."""

    def __call__(self, inputs: Inputs, /) -> Float[np.ndarray, "clip class"]:
        """Predict a batch of clips."""


Predict = Callable[[Inputs], Float[np.ndarray, "clip class"]]
"""Maps a batch of clips to probabilities."""

Batch = tuple[Integer[np.ndarray, " clip"], Float[np.ndarray, "clip class"]]
"""Indices of clips, and their probabilities."""

Transform = Callable[
    [
        Integer[np.ndarray, " clip"],
        UInt8[np.ndarray, "clip frame height width channel"],
        Integer[np.ndarray, " clip"],
    ],
    tuple[UInt8[np.ndarray, "clip _ height width channel"], Integer[np.ndarray, " clip"]],
]
"""Maps indices of clips, the clips and their numbers of frames to changed clips and numbers."""


@dataclass(frozen=True)
class EvaluationSplit:
    """A split in memory that models predict in batches.

    Args:
        data: the data set.
        clips: of the split.
        batch_size: clips predicted at once.
    """

    data: ClipDataset
    clips: Clips
    batch_size: int

    def inputs(
        self, rows: Integer[np.ndarray, " clip"], transform: Transform | None = None
    ) -> Inputs:
        """Some clips as a model reads them."""
        clips, frames = self.clips.clips[rows], self.clips.frames[rows]
        if transform:
            clips, frames = transform(rows, clips, frames)
        return self.data.inputs(clips, frames)

    def predict(
        self,
        model: Predict,
        rows: Integer[np.ndarray, " clip"],
        description: str,
        transform: Transform | None = None,
    ) -> Iterator[Batch]:
        """Predict some clips in batches.

        Args:
            model: predicts a batch.
            rows: indices of the clips.
            description: of the progress bar.
            transform: changes the clips before they are predicted.

        Raises:
            EvaluationError: an output is not a distribution over the classes.
        """
        starts = range(0, len(rows), self.batch_size)
        for start in track(starts, description, unit="batches"):
            batch = rows[start : start + self.batch_size]
            p = model(self.inputs(batch, transform))
            classification.check_probabilities(p, len(batch), len(self.data.classes))
            yield batch, p


def evaluate(
    predictor: Classifier,
    data: ClipDataset,
    seed: int,
    *,
    resamples: Count,
    prefix_frames: list[Count],
    max_examples: Count,
    num_plots: Count,
    batch_size: BatchSize,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a model on the test split.

    ``shuffling_drop`` measures how much a model uses time: it is the drop of top-1 accuracy if the
    frames of each clip are shuffled. ``top1_video`` is the accuracy of whole videos, each predicted
    by the mean probabilities of its clips.

    Args:
        predictor: a restored model.
        data: the data set that it was trained on.
        seed: of the bootstrap, of shuffling frames and of the choice of clips.
        resamples: number of bootstrap samples of the 95% confidence intervals, over videos.
        prefix_frames: numbers of frames; the accuracy is measured on that many first frames of
            each clip, as ``top1_at_4`` for 4.
        max_examples: maximum number of clips for each of ``prefix_frames``.
        num_plots: clips in each contact sheet.
        batch_size: clips predicted at once.
        timed_requests: number of clips predicted one by one to measure the latency.

    Returns:
        ``arrays`` has a row for each clip, in stored order: keys, videos, truth, rank,
        rank_shuffled (rank of the true class if the frames are shuffled), likelihood,
        probabilities. For serving: confidence on the validation split and whether it was right,
        which calibrate the monitor's estimate of the accuracy.

    Raises:
        EvaluationError: an output is not a distribution over the classes.
    """
    clips, classes = data.examples("test"), data.classes
    test, rows = EvaluationSplit(data, clips, batch_size), np.arange(len(clips))
    rng = np.random.default_rng(seed)
    timer = Timer(predictor)
    predictions = _collect(test, timer, "test")
    seconds = timer.seconds
    earlier = EvaluationSplit(data, data.examples("validation"), batch_size)
    calibration = _collect(earlier, predictor, "validation")
    validation = _arrays(earlier.clips, calibration)
    orders = rng.permuted(np.tile(np.arange(data.frames), (len(clips), 1)), axis=1)
    rank_shuffled = np.empty(len(clips), np.int32)
    for batch, p in test.predict(predictor, rows, "shuffled", shuffled_frames(orders)):
        rank_shuffled[batch] = classification.ranks(p, clips.labels[batch])
    arrays = {**_arrays(clips, predictions), "rank_shuffled": rank_shuffled}
    results = per_example(arrays)
    chosen = np.sort(rng.permutation(len(clips))[:max_examples])
    prefixes = prefix_accuracy(
        test,
        predictor,
        chosen,
        prefix_frames,
        clusters=results.clusters,
        resamples=resamples,
        seed=seed,
    )
    low, high = comparison.metric_interval(results, TOP1, resamples=resamples, seed=seed)
    drop = predictions.correct.astype(float) - (rank_shuffled == 1)
    drop_low, drop_high = classification.mean_interval(
        drop, resamples=resamples, seed=seed, clusters=results.clusters
    )
    counts = classification.confusion_matrix(clips.labels, predictions.prediction, len(classes))
    classes_table = classification.per_class(counts, classes)
    video_rank = rank_of_videos(predictions, results.clusters)
    metrics: dict[str, float] = {
        "samples": len(clips),
        "top1": classification.top_k_accuracy(predictions.rank, 1),
        "top1_low": low,
        "top1_high": high,
        "top5": classification.top_k_accuracy(predictions.rank, 5),
        "log_loss": classification.log_loss(predictions.likelihood),
        "macro_f1": float(classes_table["f1"].mean()),
        "videos": len(video_rank),
        TOP1_VIDEO.name: classification.top_k_accuracy(video_rank, 1),
        "top5_video": classification.top_k_accuracy(video_rank, 5),
        TOP1_SHUFFLED.name: classification.top_k_accuracy(rank_shuffled, 1),
        SHUFFLING_DROP.name: float(drop.mean()),
        f"{SHUFFLING_DROP.name}_low": drop_low,
        f"{SHUFFLING_DROP.name}_high": drop_high,
        **{
            f"top1_at_{count}": top1
            for count, top1 in zip(prefix_frames, prefixes["top1"], strict=True)
        },
        "parameters": predictor.parameters,
        **validation_metrics(per_example(validation), METRICS),
    }
    tables = {
        "per_class": classes_table,
        "confusion": classification.confusion_table(counts, classes),
        "prefix_accuracy": prefixes,
    }
    figures = _figures(test, predictor, predictions, counts, tables, len(chosen), num_plots, rng)
    requests = [test.inputs(rng.integers(len(clips), size=1)) for _ in range(timed_requests)]
    return Evaluation(
        metrics,
        tables,
        figures,
        arrays,
        speed(predictor, requests, seconds, len(clips)),
        {
            "validation_confidence": calibration.confidence.astype(np.float32),
            "validation_correct": calibration.correct,
        },
    )


def _collect(split: EvaluationSplit, model: Predict, description: str) -> Predictions:
    """The predictions for all clips of a split."""
    batches = split.predict(model, np.arange(len(split.clips)), description)
    return classification.collect(batches, split.clips.labels, len(split.data.classes), np.float32)


def _arrays(clips: Clips, predictions: Predictions) -> dict[str, Shaped[np.ndarray, "clip ..."]]:
    """The arrays that `per_example` reads."""
    return {"keys": clips.keys, "videos": clips.videos, **predictions.arrays()}


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each clip; the clips of a video are one cluster.

    Args:
        arrays: of `evaluate`.
    """
    clusters = np.unique(arrays["videos"], return_inverse=True)[1]
    return classification.per_example(arrays, METRICS, clusters)


def rank_of_videos(
    predictions: Predictions, videos: Integer[np.ndarray, " clip"]
) -> Integer[np.ndarray, " video"]:
    """Rank of the true class of each video by the mean probabilities of its clips.

    Args:
        predictions: of the clips.
        videos: number of each clip's video, from 0.
    """
    sizes = np.bincount(videos)
    means = np.zeros((len(sizes), predictions.probabilities.shape[1]))
    np.add.at(means, videos, predictions.probabilities / sizes[videos, None])
    truth = np.zeros(len(sizes), int)
    truth[videos] = predictions.truth
    return classification.ranks(means, truth)


def prefix_accuracy(
    test: EvaluationSplit,
    model: Predict,
    rows: Integer[np.ndarray, " chosen"],
    prefix_frames: Sequence[int],
    *,
    clusters: Integer[np.ndarray, " clip"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Top-1 accuracy on the first frames of clips.

    Args:
        test: the test split.
        model: predicts a batch.
        rows: indices of the clips.
        prefix_frames: numbers of frames.
        clusters: of all clips of the split, for the bootstrap.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        A row for each number of frames: frames, top1, and low and high of its 95% interval.
    """
    table = []
    for count in prefix_frames:
        correct = np.zeros(len(test.clips), bool)
        for batch, p in test.predict(model, rows, f"first {count} frames", first_frames(count)):
            correct[batch] = classification.ranks(p, test.clips.labels[batch]) == 1
        low, high = classification.mean_interval(
            correct[rows], resamples=resamples, seed=seed, clusters=clusters[rows]
        )
        top1 = float(correct[rows].mean())
        table.append({"frames": count, "top1": top1, "low": low, "high": high})
    return pd.DataFrame(table)


def first_frames(count: int) -> Transform:
    """A transform that keeps the first ``count`` frames of each clip."""

    def transform(rows: Any, clips: Any, frames: Any) -> tuple[Any, Any]:
        return clips[:, :count], np.minimum(frames, count)

    return transform


def shuffled_frames(orders: Integer[np.ndarray, "clip frame"]) -> Transform:
    """A transform that shuffles the real frames of each clip; padding stays at the end.

    Args:
        orders: for each clip of the split, a permutation of all frames, real and padding.
    """

    def transform(rows: Any, clips: Any, frames: Any) -> tuple[Any, Any]:
        order = orders[rows]
        padding = order >= frames[:, None]
        # A stable sort moves padding to the end and keeps the order of the real frames.
        real_first = np.argsort(padding, axis=1, kind="stable")
        index = np.take_along_axis(order, real_first, axis=1)
        return np.take_along_axis(clips, index[:, :, None, None, None], axis=1), frames

    return transform


def _figures(
    test: EvaluationSplit,
    predictor: Classifier,
    predictions: Predictions,
    counts: Integer[np.ndarray, "class class"],
    tables: Mapping[str, pd.DataFrame],
    num_prefix_clips: int,
    num_plots: int,
    rng: np.random.Generator,
) -> dict[str, "Figure"]:
    """Draw the figures of an evaluation; contact sheets show clips chosen by ``rng``."""
    from ostinato.evaluation import figures
    from ostinato.evaluation.grad_cam import grad_cam
    from ostinato.video.figures import contact_sheet, plot_prefix_accuracy

    size = len(test.clips)

    def sheet(rows: Integer[np.ndarray, " clip"], title: str, heat: Any = None) -> "Figure":
        captions = [_caption(test.data.classes, predictions, row) for row in rows.tolist()]
        clips = [test.clips.clips[row][: test.clips.frames[row]] for row in rows]
        return contact_sheet(clips, captions, title, heat)

    correct: Bool[np.ndarray, " clip"] = predictions.correct
    wrong = np.flatnonzero(~correct)
    by_confidence = np.argsort(-predictions.confidence[wrong], kind="stable")
    mistakes = wrong[by_confidence][:num_plots]
    recognised = rng.permutation(np.flatnonzero(correct))[:num_plots]
    explained = rng.permutation(size)[:num_plots]
    drawn = {
        "confusion": figures.confusion(counts, test.data.classes),
        "per_class": figures.per_class(tables["per_class"]),
        "prefix_accuracy": plot_prefix_accuracy(tables["prefix_accuracy"], num_prefix_clips),
        "mistakes": sheet(
            mistakes, f"The most confident of {len(wrong):,} mistakes in {size:,} clips"
        ),
        "correct": sheet(recognised, f"Some of {correct.sum():,} correctly classified clips"),
    }
    model = getattr(predictor, "model", None)  # of Keras models; others have no gradients
    if model is not None:
        heat = grad_cam(model, test.inputs(explained), predictions.prediction[explained])
        title = "Evidence for the predicted class in space and time (Grad-CAM)"
        drawn["grad_cam"] = sheet(explained, title, heat)
    return drawn


def _caption(classes: Sequence[str], predictions: Predictions, row: int) -> str:
    """The true class, and the two most probable classes with their probabilities."""
    p = predictions.probabilities[row]
    best = np.argsort(-p, kind="stable")[:2]
    truth = classes[int(predictions.truth[row])]
    return "\n".join([truth, *(f"as {classes[i]} {p[i]:.0%}" for i in best)])
