"""The metrics of generated drawings, and distances between sets of drawings. NumPy only."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, Int64, Integer

from ostinato.generation.formats.drawings import BOX, fitted
from ostinato.task import Metric

RECOGNISED_COMPLETIONS = Metric("recognised_completions", "Completions recognised")
RECOGNISED_RECONSTRUCTIONS = Metric("recognised_reconstructions", "Reconstructions recognised")
RECONSTRUCTION_LOSS = Metric(
    "reconstruction_loss", "L_R", unit="nats / N_max", higher_is_better=False
)
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (RECOGNISED_COMPLETIONS, RECOGNISED_RECONSTRUCTIONS, RECONSTRUCTION_LOSS)
}
"""Every metric with statistics per example, for gates, intervals and comparisons."""

RECOGNISED_SAMPLES = Metric("recognised_samples", "Samples recognised")
KL = Metric("kl", "L_KL", unit="nats / latent dimension", higher_is_better=False)
FRECHET = Metric("frechet_distance", "Fréchet distance", higher_is_better=False, format=".3g")
DIVERSITY = Metric("diversity", "Diversity", format=".2f")
NOVELTY = Metric("novelty", "Novelty", format=".2f")
"""For reports only: functions of a set of samples, or without a comparison that they decide."""

SIDE = 32  # cells of a bitmap
STEP = 4.0  # pixels between two samples of a line
CHUNK = 4_096  # training drawings that are compared at once


class Drawings(Protocol):
    """Stroke-3 rows by their numbers: a list, or a split of a data set."""

    def __getitem__(self, i: int, /) -> Int16[np.ndarray, "_ 3"]: ...


def frechet_distance(one: Float[np.ndarray, "_ _"], other: Float[np.ndarray, "_ _"]) -> float:
    """The squared Fréchet distance of the Gaussians of two sets (Dowson and Landau 1982).

    Heusel et al. 2017 (arXiv 1706.08500) compare features of images by it. NaN where a set has
    fewer than two examples.
    """
    if min(len(one), len(other)) < 2:
        return float("nan")
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    of_a, of_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # The trace of the root of the product: the product has the eigenvalues of a symmetric matrix.
    values, vectors = np.linalg.eigh(of_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ of_b @ root), 0)).sum()
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return max(0.0, float(shift + np.trace(of_a) + np.trace(of_b) - 2 * cross))


def bitmaps(drawings: Sequence[Int16[np.ndarray, "_ 3"]]) -> Float32[np.ndarray, "drawing cell"]:
    """Drawings as blurred bitmaps, whose Euclidean distance is that of the drawings.

    Args:
        drawings: stroke-3 rows, fitted or not.
    """
    boxed = [fitted(rows) for rows in drawings]
    lengths = np.array([len(rows) for rows in boxed], np.int64)
    ink = np.zeros((len(boxed), SIDE, SIDE), np.float32)
    if lengths.sum():
        rows = np.concatenate(boxed)
        owner = np.repeat(np.arange(len(boxed)), lengths)
        total = np.cumsum(rows[:, :2], axis=0, dtype=np.float64)
        first = np.r_[True, owner[1:] != owner[:-1]]
        before = np.r_[np.zeros((1, 2)), total[:-1]][first]
        points = total - np.repeat(before, lengths[lengths > 0], axis=0)
        begins = first | np.r_[True, rows[:-1, 2] > 0]
        start = np.where(begins[:, None], points, np.r_[points[:1], points[:-1]])
        steps = np.maximum(1, np.ceil(np.hypot(*(points - start).T) / STEP)).astype(np.int64)
        line = np.repeat(np.arange(len(points)), steps)
        number = np.arange(len(line)) - np.repeat(np.cumsum(steps) - steps, steps) + 1
        share = (number / steps[line])[:, None]
        x, y = ((start[line] + share * (points - start)[line]) * (SIDE - 1) / BOX).T
        cells = np.clip(np.rint(np.stack([y, x])), 0, SIDE - 1).astype(np.int64)
        ink[owner[line], cells[0], cells[1]] = 1
    distance = np.arange(SIDE)[:, None] - np.arange(SIDE)
    blur = np.exp(-np.square(distance) / 2).astype(np.float32)
    blur /= blur.sum(axis=1, keepdims=True)
    return np.asarray(blur @ ink @ blur.T).reshape(len(boxed), SIDE * SIDE)


def nearest(
    drawings: Sequence[Int16[np.ndarray, "_ 3"]],
    labels: Integer[np.ndarray, " drawing"],
    others: Drawings,
    other_labels: Integer[np.ndarray, " other"],
) -> tuple[Int64[np.ndarray, " drawing"], Float64[np.ndarray, " drawing"]]:
    """The nearest of other drawings of the same class, and its distance; -1 and NaN for none."""
    index = np.full(len(drawings), -1, np.int64)
    distance = np.full(len(drawings), np.nan)
    for label in np.unique(labels).tolist():
        own, there = np.flatnonzero(labels == label), np.flatnonzero(other_labels == label)
        ours = bitmaps([drawings[i] for i in own.tolist()])
        for chunk in range(0, len(there), CHUNK):
            part = there[chunk : chunk + CHUNK]
            theirs = bitmaps([others[i] for i in part.tolist()])
            best = (np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T).argmin(axis=1)
            found = np.linalg.norm(ours - theirs[best], axis=1)  # exact: 0 for a copy
            closer = ~(found >= distance[own])
            index[own[closer]], distance[own[closer]] = part[best[closer]], found[closer]
    return index, distance


def spread(
    drawings: Sequence[Int16[np.ndarray, "_ 3"]], labels: Integer[np.ndarray, " drawing"]
) -> dict[int, float]:
    """The mean distance between two drawings of a class, for each class that has two."""
    found = {}
    for label in np.unique(labels).tolist():
        ink = bitmaps([drawings[i] for i in np.flatnonzero(labels == label).tolist()])
        if len(ink) > 1:
            squares = np.square(ink).sum(axis=1)
            distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * ink @ ink.T, 0))
            np.fill_diagonal(distances, 0)  # which rounding leaves above it
            found[label] = float(distances.sum(dtype=np.float64) / (len(ink) * (len(ink) - 1)))
    return found


def diversity(samples: Mapping[int, float], real: Mapping[int, float]) -> float:
    """The `spread` of samples divided by that of real drawings, over the classes of both."""
    both = samples.keys() & real.keys()
    total = _sum(real[label] for label in both)
    return _sum(samples[label] for label in both) / total if total else float("nan")


def novelty(samples: Float[np.ndarray, " sample"], real: Float[np.ndarray, " drawing"]) -> float:
    """The median distance of samples to their nearest training drawing, divided by that of others.

    Args:
        samples: their distances (`nearest`); NaN for none.
        real: the distances of drawings that the generator has not seen.
    """
    medians = [float(np.median(x)) if len(x) else np.nan for x in
               (each[~np.isnan(each)] for each in (samples, real))]  # fmt: skip
    return medians[0] / medians[1] if medians[1] else float("nan")


def _sum(values: Iterable[float]) -> float:
    return float(np.sum(sorted(values)))
