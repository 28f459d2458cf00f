"""Voices of chords, and the parallel fifths and octaves between them. NumPy only.

A roll has no voices. In successive frames with equal numbers of notes, the n-th note from below is
taken for one voice.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Int64, Integer

from ostinato.music.formats.roll import LOWEST, Roll

FIFTH, OCTAVE = 7, 12


def chords(roll: Roll) -> list[tuple[int, ...]]:
    """The MIDI numbers of the notes of each frame, from below."""
    rows, pitches = np.nonzero(roll)
    ends = np.cumsum(roll.sum(axis=1))[:-1]
    return [tuple(part.tolist()) for part in np.split(pitches + LOWEST, ends)] if len(rows) else [
        () for _ in roll
    ]  # fmt: skip


def parallel(
    before: Integer[np.ndarray, "*chord voice"], after: Integer[np.ndarray, "*chord voice"]
) -> tuple[Bool[np.ndarray, "*chord pair"], Bool[np.ndarray, "*chord pair"]]:
    """Whether each pair of voices moves in parallel fifths, and in octaves or unisons.

    Both voices move in one direction and are a fifth, or an octave, apart before and after, octaves
    between them left aside.

    Args:
        before: MIDI numbers of the voices, from below.
        after: those of the next chord.
    """
    low, high = np.triu_indices(before.shape[-1], 1)
    intervals = [(each[..., high] - each[..., low]) % OCTAVE for each in (before, after)]
    move = np.sign(after - before)
    together = (move[..., low] == move[..., high]) & (move[..., low] != 0)
    kept = together & (intervals[0] == intervals[1])
    return kept & (intervals[0] == FIFTH), kept & (intervals[0] == 0)


def count_parallels(roll: Roll) -> Int64[np.ndarray, " 3"]:
    """Numbers of parallel fifths, of parallel octaves, and of the moves they are counted in.

    A move is a pair of successive frames with other notes, but as many; with two at least.
    """
    found = np.zeros(3, np.int64)
    rows = chords(roll)
    for one, other in itertools.pairwise(rows):
        if len(one) == len(other) > 1 and one != other:
            fifths, octaves = parallel(np.array(one), np.array(other))
            found += np.array([fifths.sum(), octaves.sum(), 1])
    return found
