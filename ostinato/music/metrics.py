"""The metrics of pieces, and statistics of sets of pieces. NumPy only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from ostinato.music.formats.keys import pitch_classes
from ostinato.music.formats.roll import Roll, pack
from ostinato.music.formats.voices import chords, count_parallels
from ostinato.task import Metric

NATS = Metric("nats", "Nats per frame", unit="nats", higher_is_better=False)
ACCURACY = Metric("accuracy", "Accuracy", format=".3f")
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (NATS, ACCURACY)}
"""Every metric with statistics per example, for gates, intervals and comparisons."""

PITCH_CLASSES = Metric("pitch_class_distance", "Pitch classes", higher_is_better=False)
INTERVALS = Metric("interval_distance", "Intervals", higher_is_better=False)
FIFTHS = Metric("parallel_fifths", "Parallel fifths", unit="per 100 moves", higher_is_better=False)
OCTAVES = Metric(
    "parallel_octaves", "Parallel octaves", unit="per 100 moves", higher_is_better=False
)
RANGE = Metric("outside_range", "Outside the range", higher_is_better=False)
COPIED = Metric("copied", "Copied", higher_is_better=False)
WRITTEN = (PITCH_CLASSES, INTERVALS, FIFTHS, OCTAVES, RANGE, COPIED)
"""Of a set of written pieces, for reports only."""

MAX_INTERVAL = 24  # semitones; larger ones count as this


@dataclass(frozen=True)
class Corpus:
    """Statistics of a set of pieces.

    Args:
        pitch_classes: share of each of the 12 pitch classes, relative to the tonic of the key.
        intervals: share of each number of semitones between neighbours in a chord, 1 to 24.
        parallel_fifths: per 100 moves (`voices.count_parallels`).
        parallel_octaves: likewise.
        ranges: MIDI numbers (chord size, voice, 2) of the lowest and highest note of each voice of
            chords of each size, by size.
        notes_per_frame: mean number.
    """

    pitch_classes: Float64[np.ndarray, " 12"]
    intervals: Float64[np.ndarray, " 24"]
    parallel_fifths: float
    parallel_octaves: float
    ranges: Mapping[int, Float64[np.ndarray, "voice 2"]]
    notes_per_frame: float


def describe(pieces: Iterable[Roll], musical_keys: Iterable[int]) -> Corpus:
    """The statistics of pieces.

    Args:
        pieces: any number.
        musical_keys: of each; -1 counts as C.
    """
    classes, intervals, moves = np.zeros(12), np.zeros(MAX_INTERVAL), np.zeros(3)
    ranges: dict[int, Float64[np.ndarray, "voice 2"]] = {}
    frames = notes = 0
    for roll, key in zip(pieces, musical_keys, strict=True):
        classes += np.roll(pitch_classes(roll), -(max(key, 0) % 12))
        moves += count_parallels(roll)
        frames, notes = frames + len(roll), notes + int(roll.sum())
        for chord in set(chords(roll)):
            voices = np.repeat(np.array(chord, np.float64)[:, None], 2, axis=1)
            known = ranges.get(len(chord), voices)
            ranges[len(chord)] = np.stack(
                [np.minimum(known[:, 0], voices[:, 0]), np.maximum(known[:, 1], voices[:, 1])], 1
            )
        intervals += _intervals(roll)
    fifths, octaves = 100 * moves[:2] / moves[2] if moves[2] else np.full(2, np.nan)
    return Corpus(
        _shares(classes),
        _shares(intervals),
        float(fifths),
        float(octaves),
        ranges,
        notes / frames if frames else float("nan"),
    )


def compare_corpora(written: Corpus, real: Corpus) -> dict[str, float]:
    """Distances between the distributions of two sets: half the sum of absolute differences."""
    pairs = {
        "pitch_class_distance": (written.pitch_classes, real.pitch_classes),
        "interval_distance": (written.intervals, real.intervals),
    }
    return {name: float(np.abs(one - other).sum() / 2) for name, (one, other) in pairs.items()}


def outside_range(
    pieces: Iterable[Roll], ranges: Mapping[int, Float64[np.ndarray, "voice 2"]]
) -> float:
    """The share of notes outside the range that their voice has in chords of the same size.

    A note of a chord of another size is outside; NaN without notes.
    """
    outside = total = 0
    for roll in pieces:
        for chord in chords(roll):
            total += len(chord)
            known = ranges.get(len(chord))
            if known is None:
                outside += len(chord)
            else:
                each = np.array(chord, np.float64)
                outside += int(((each < known[:, 0]) | (each > known[:, 1])).sum())
    return outside / total if total else float("nan")


def passages(pieces: Iterable[Roll], frames: int) -> set[bytes]:
    """All passages of some frames, relative to their lowest note."""
    return {passage for roll in pieces for passage in _passages(roll, frames)}


def copied(pieces: Iterable[Roll], known: set[bytes], frames: int) -> float:
    """The share of passages that are in a set of known ones, in any key; NaN without passages.

    Args:
        pieces: to look at.
        known: as `passages` returns them.
        frames: of a passage.
    """
    found = [passage in known for roll in pieces for passage in _passages(roll, frames)]
    return float(np.mean(found)) if found else float("nan")


def _passages(roll: Roll, frames: int) -> Iterable[bytes]:
    for start in range(len(roll) - frames + 1):
        part = roll[start : start + frames]
        sounding = np.flatnonzero(part.any(axis=0))
        if len(sounding):
            yield pack(np.roll(part, -int(sounding[0]), axis=1)).tobytes()


def _intervals(roll: Roll) -> Float64[np.ndarray, " 24"]:
    """How often neighbours of a chord are 1 to 24 semitones apart."""
    rows, notes = np.nonzero(roll)
    apart = np.diff(notes)[np.diff(rows) == 0]
    return np.bincount(
        np.minimum(apart, MAX_INTERVAL) - 1, minlength=MAX_INTERVAL
    ).astype(np.float64)  # fmt: skip


def _shares(counts: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return np.asarray(counts / max(counts.sum(), 1))
