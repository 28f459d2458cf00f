"""Piano rolls: which of the 88 keys of a piano sound in each frame of a piece. NumPy only.

A roll does not tell a held note from a repeated one: equal notes in successive frames are one note.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

LOWEST = 21
"""MIDI number of the lowest key, A0."""
NOTES = 88
BYTES = NOTES // 8
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

Roll = Bool[np.ndarray, "_ 88"]


class Note(NamedTuple):
    """A note of a piece.

    Args:
        start: frame in which it begins.
        frames: its length.
        pitch: MIDI number.
    """

    start: int
    frames: int
    pitch: int


def to_notes(roll: Roll) -> list[Note]:
    """The notes of a roll, by start, then by pitch."""
    edges = np.diff(roll.astype(np.int8), axis=0, prepend=0, append=0)
    pitches, starts = np.nonzero(edges.T == 1)
    _, ends = np.nonzero(edges.T == -1)
    rows = zip(starts.tolist(), (ends - starts).tolist(), (pitches + LOWEST).tolist(), strict=True)
    return sorted((Note(*row) for row in rows), key=lambda note: (note.start, note.pitch))


def from_notes(notes: Iterable[Note], frames: int = 0) -> Roll:
    """The roll of notes; pitches off the piano are left out.

    Args:
        notes: in any order.
        frames: length at least, with silence at the end.
    """
    kept = [note for note in notes if LOWEST <= note.pitch < LOWEST + NOTES]
    roll = np.zeros((max([frames, *(n.start + n.frames for n in kept)]), NOTES), bool)
    for start, length, pitch in kept:
        roll[start : start + length, pitch - LOWEST] = True
    return roll


def pack(roll: Roll) -> UInt8[np.ndarray, "frame 11"]:
    """A roll in bits."""
    return np.packbits(roll, axis=1)


def unpack(packed: UInt8[np.ndarray, "frame 11"]) -> Roll:
    """The inverse of `pack`."""
    return np.unpackbits(packed, axis=1).astype(bool)


def seed_of(roll: Roll) -> int:
    """The seed of a piece's latent vector, a function of its notes."""
    return int.from_bytes(blake2b(pack(roll).tobytes(), digest_size=4).digest(), "little")
