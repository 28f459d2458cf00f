"""Four-part chorales that a program composes by rules of voice leading. They are no works of Bach.

The rules are those of textbooks of harmony (Aldwell and Schachter 2018, Harmony and Voice Leading):

- Triads of a key in major or harmonic minor follow one another by their functions. A phrase ends
  with a half, authentic or deceptive cadence, the piece with an authentic one.
- Soprano, alto, tenor and bass keep their ranges, never cross or meet. Neighbours are an octave
  apart at most, tenor and bass a twelfth. A chord has all of its notes; the leading note is never
  doubled.
- No two voices move in parallel fifths or octaves. Upper voices leap a fifth at most, the bass an
  octave. In an authentic cadence the leading note rises to the tonic.

Within the rules each piece has the least motion, with random preferences for some voicings.
"""

from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, Int64

from ostinato.music.formats import raw
from ostinato.music.formats.raw import Piece, RawPieces
from ostinato.music.formats.roll import LOWEST, NOTES, Roll
from ostinato.music.formats.voices import parallel
from ostinato.units import Count, Fraction

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11))
RANGES = ((40, 60), (48, 67), (55, 74), (60, 81))  # bass, tenor, alto, soprano
GAPS = (19, 12, 12)  # between neighbours, from below
LEAPS = (12, 7, 7, 7)
# What may follow a degree, with its share; degrees from 0.
NEXT = {
    0: ((1, 2.0), (3, 3.0), (4, 3.0), (5, 2.0), (0, 1.0)),
    1: ((4, 4.0), (6, 1.0)),
    3: ((4, 3.0), (1, 2.0), (0, 2.0), (6, 1.0)),
    4: ((0, 5.0), (5, 1.0)),
    5: ((3, 3.0), (1, 3.0), (4, 1.0)),
    6: ((0, 1.0),),
}
CADENCES = (((4, 0), 4.0), ((3, 4), 2.0), ((1, 4), 1.0), ((4, 5), 1.0))
INVERTED = 0.25  # probability of a third in the bass
PREFERENCE = 6.0  # semitones of motion that a random preference is worth at most
FRAMES_PER_QUARTER = 2
T = TypeVar("T")
Chord = tuple[int, bool]  # degree, and whether its third is in the bass


def chorales(
    folder: Path,
    scratch: Path,
    seed: int,
    *,
    pieces: Count,
    min_phrases: Count,
    max_phrases: Count,
    chords_per_phrase: Count,
    passing_notes: Fraction,
) -> None:
    """Compose four-part chorales, in all keys. Each second one is "florid", the others "plain".

    Args:
        folder: gets the pieces.
        scratch: not used.
        seed: of all that is random.
        pieces: number of pieces.
        min_phrases: of a piece.
        max_phrases: of a piece.
        chords_per_phrase: a quarter each; the last one, a half.
        passing_notes: probability that a third in a voice of a florid piece is filled.
    """
    found = []
    for number in range(pieces):
        random = np.random.default_rng([seed, number])
        phrases = int(random.integers(min_phrases, max(min_phrases, max_phrases) + 1))
        minor, tonic = int(random.integers(2)), int(random.integers(12))
        style = ("plain", "florid")[number % 2]
        filled = passing_notes if style == "florid" else 0.0
        roll = compose(random, minor, tonic, phrases, chords_per_phrase, filled)
        found.append(Piece(f"chorale-{number:05d}", roll, style))
    raw.write(folder, RawPieces("chorales", FRAMES_PER_QUARTER, 4, 80, found))


def compose(
    random: np.random.Generator, minor: int, tonic: int, phrases: int, chords: int, filled: float
) -> Roll:
    """One piece.

    Args:
        random: source of randomness.
        minor: 1 for a minor key.
        tonic: its pitch class.
        phrases: number of phrases.
        chords: of a phrase.
        filled: probability of a passing note in a third.
    """
    while True:
        plan, lengths = harmony(random, phrases, chords)
        voices = lead(random, minor, tonic, plan)
        if voices is not None:
            break
    roll = np.zeros((sum(lengths) * FRAMES_PER_QUARTER, NOTES), bool)
    frame = 0
    for number, (chord, quarters) in enumerate(zip(voices, lengths, strict=True)):
        end = frame + quarters * FRAMES_PER_QUARTER
        roll[frame:end, chord - LOWEST] = True
        if quarters == 1:
            passing = fill(random, minor, tonic, chord, voices[number + 1], filled)
            roll[end - 1] = False
            roll[end - 1, passing - LOWEST] = True
        frame = end
    return roll


def harmony(
    random: np.random.Generator, phrases: int, chords: int
) -> tuple[list[Chord], list[int]]:
    """The chords of a piece, and their lengths in quarters."""
    plan: list[Chord] = []
    lengths: list[int] = []
    for phrase in range(phrases):
        cadence = _draw(random, CADENCES) if phrase + 1 < phrases else CADENCES[0][0]
        while True:
            degrees = [0]
            while len(degrees) < max(1, chords - len(cadence)):
                degrees.append(_draw(random, NEXT[degrees[-1]]))
            if any(cadence[0] == follower for follower, _ in NEXT[degrees[-1]]):
                break
        turns = random.random(len(degrees)) < INVERTED
        # A diminished triad stands on its third; first and last chords on their roots.
        plan += [(d, bool(d == 6 or (turn and i))) for i, (d, turn) in
                 enumerate(zip(degrees, turns, strict=True))]  # fmt: skip
        plan += [(degree, False) for degree in cadence]
        lengths += [1] * (len(degrees) + len(cadence) - 1) + [2]
    return plan, lengths


def lead(
    random: np.random.Generator, minor: int, tonic: int, plan: list[Chord]
) -> Int64[np.ndarray, "chord 4"] | None:
    """The voicings of least motion that keep the rules; None where there are none.

    Dynamic programming over the voicings of each chord.
    """
    options = [voicings(minor, tonic, chord) for chord in plan]
    cost: Float64[np.ndarray, " voicing"] = random.random(len(options[0])) * PREFERENCE
    back = []
    for number in range(1, len(plan)):
        total = cost[:, None] + motion(minor, tonic, plan[number - 1], plan[number])
        back.append(total.argmin(axis=0))
        cost = total.min(axis=0) + random.random(len(options[number])) * PREFERENCE
    if not np.isfinite(cost.min()):
        return None
    best = [int(cost.argmin())]
    for pointers in reversed(back):
        best.append(int(pointers[best[-1]]))
    return np.stack([each[i] for each, i in zip(options, reversed(best), strict=True)])


@cache
def voicings(minor: int, tonic: int, chord: Chord) -> Int64[np.ndarray, "voicing 4"]:
    """All ways to put a chord into the four voices."""
    degree, inverted = chord
    classes = [(SCALES[minor][(degree + 2 * k) % 7] + tonic) % 12 for k in range(3)]
    leading = (SCALES[minor][6] + tonic) % 12
    low = classes[1] if inverted else classes[0]
    bass, *upper = (
        np.array([p for p in range(a, b + 1) if p % 12 in ([low] if voice == 0 else classes)])
        for voice, (a, b) in enumerate(RANGES)
    )
    grid = np.stack(np.meshgrid(bass, *upper, indexing="ij"), axis=-1).reshape(-1, 4)
    gaps = np.diff(grid, axis=1)
    kept = ((gaps > 0) & (gaps <= GAPS)).all(axis=1)
    for each in classes:
        kept &= (grid % 12 == each).any(axis=1)
    kept &= (grid % 12 == leading).sum(axis=1) < 2
    return np.asarray(grid[kept])


@cache
def motion(minor: int, tonic: int, one: Chord, other: Chord) -> Float64[np.ndarray, "_ _"]:
    """Semitones of motion from each voicing of a chord to each of the next; infinite: forbidden."""
    before = voicings(minor, tonic, one)[:, None]
    after = voicings(minor, tonic, other)[None]
    before, after = np.broadcast_arrays(before, after)
    moved = np.abs(after - before)
    bad = (moved > LEAPS).any(axis=-1)
    for found in parallel(before, after):
        bad |= found.any(axis=-1)
    if one[0] in (4, 6) and other[0] == 0:
        leading = before % 12 == (SCALES[minor][6] + tonic) % 12
        bad |= (leading & (after - before != 1)).any(axis=-1)
    return np.where(bad, np.inf, moved.sum(axis=-1))


def fill(
    random: np.random.Generator,
    minor: int,
    tonic: int,
    chord: Int64[np.ndarray, " 4"],
    following: Int64[np.ndarray, " 4"],
    filled: float,
) -> Int64[np.ndarray, " 4"]:
    """The chord at its second eighth: a voice that moves by a third may pass the note between."""
    passing = chord.copy()
    for voice in np.flatnonzero(np.isin(np.abs(following - chord), (3, 4))).tolist():
        if random.random() >= filled:
            continue
        low, high = sorted((int(chord[voice]), int(following[voice])))
        between = [p for p in range(low + 1, high) if (p - tonic) % 12 in SCALES[minor]]
        tried = passing.copy()
        tried[voice] = between[0] if between else passing[voice]
        steps = ((chord, tried), (tried, following))
        clean = not any(found.any() for pair in steps for found in parallel(*pair))
        if clean and (np.diff(tried) > 0).all():
            passing = tried
    return passing


def _draw(random: np.random.Generator, options: tuple[tuple[T, float], ...]) -> T:
    shares = np.array([share for _, share in options])
    return options[int(random.choice(len(options), p=shares / shares.sum()))][0]
