"""Play a roll: a soft synthesiser in NumPy, and WAV files."""

import io
import wave

import numpy as np
from jaxtyping import Float64

from ostinato.music.formats.roll import Roll, to_notes

RATE = 16_000  # samples per second
PARTIALS = (1.0, 0.45, 0.22, 0.1, 0.05)  # of the fundamental and its overtones
ATTACK, RELEASE = 0.02, 0.12  # s
DECAY = 0.7  # s in which a held note falls to 1/e


def synthesise(roll: Roll, seconds_per_frame: float) -> Float64[np.ndarray, " sample"]:
    """Samples in -1 to 1: each note is a sum of decaying sines in equal temperament, A at 440 Hz.

    Args:
        roll: of the piece.
        seconds_per_frame: duration of a frame.
    """
    tail = round(RELEASE * RATE)
    sound = np.zeros(round(len(roll) * seconds_per_frame * RATE) + tail)
    for start, frames, pitch in to_notes(roll):
        first = round(start * seconds_per_frame * RATE)
        size = round((start + frames) * seconds_per_frame * RATE) - first + tail
        time = np.arange(size) / RATE
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        wanted = [(n, part) for n, part in enumerate(PARTIALS, 1) if n * frequency < RATE / 2]
        tone = np.sum(
            [part * np.sin(2 * np.pi * n * frequency * time) for n, part in wanted], axis=0
        )
        held = np.exp(-time / DECAY) * np.minimum(time / ATTACK, 1)
        held[-tail:] *= np.linspace(1, 0, tail)
        sound[first : first + size] += tone * held
    peak = np.abs(sound).max(initial=0)
    return 0.9 * sound / peak if peak else sound


def to_wav(sound: Float64[np.ndarray, " sample"]) -> bytes:
    """A WAV file: one channel, 16 bits, `RATE` samples per second."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())
    return content.getvalue()
