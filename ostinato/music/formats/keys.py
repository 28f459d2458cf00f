"""Musical keys: 12 tonics in major, then 12 in minor."""

import numpy as np
from jaxtyping import Float64

from ostinato.music.formats.roll import LOWEST, NAMES, NOTES, Roll

KEYS = (*(f"{name} major" for name in NAMES), *(f"{name} minor" for name in NAMES))

# How well each degree fits a key: Krumhansl and Kessler 1982, Psychological Review 89(4), figure 2.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_PROFILES = np.stack([np.roll(p, tonic) for p in (_MAJOR, _MINOR) for tonic in range(12)])
_PITCH_CLASSES = (np.arange(NOTES) + LOWEST) % 12


def pitch_classes(roll: Roll) -> Float64[np.ndarray, " 12"]:
    """How many frames each pitch class sounds in, each key of the piano by itself."""
    return np.bincount(_PITCH_CLASSES, roll.sum(axis=0), minlength=12)


def find_key(roll: Roll) -> int:
    """The index in `KEYS` whose profile correlates best with a piece's pitch classes.

    The algorithm of Krumhansl and Schmuckler (Krumhansl 1990, Cognitive Foundations of Musical
    Pitch, chapter 4). -1 for a piece that does not tell: silence, or equal pitch classes.
    """
    counts = pitch_classes(roll)
    if np.ptp(counts) == 0:
        return -1
    return int(np.argmax([np.corrcoef(counts, profile)[0, 1] for profile in _PROFILES]))
