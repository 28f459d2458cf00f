"""Figures of pieces."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ostinato.evaluation.figures import BLUE, GREY, RED, WIDTH, styled
from ostinato.music.formats import midi
from ostinato.music.formats.roll import LOWEST, Roll, to_notes
from ostinato.music.formats.synthesis import RATE, synthesise, to_wav
from ostinato.music.metrics import Corpus

MAX_BARS = 16  # of a piece in a figure
MAX_SECONDS = 12.0  # of a sound


def draw(
    real: Sequence[Roll],
    written: Sequence[Roll],
    corpora: Mapping[str, Corpus],
    positions: pd.DataFrame,
    count: int,
    *,
    frames_per_quarter: int,
    quarters_per_bar: int,
    quarters_per_minute: float,
) -> dict[str, Figure | bytes]:
    """All figures of an evaluation, written pieces as MIDI files, and the first one as a WAV file.

    Args:
        real: test pieces.
        written: pieces of the model.
        corpora: statistics of both, by name.
        positions: see `ostinato.music.evaluation.position_table`.
        count: number of pieces.
        frames_per_quarter: frames of a quarter note.
        quarters_per_bar: distance of the bar lines.
        quarters_per_minute: the tempo.
    """
    bar = frames_per_quarter * quarters_per_bar
    seconds = 60 / quarters_per_minute / frames_per_quarter
    files = {
        f"written-{number}.mid": midi.write(
            roll,
            frames_per_quarter=frames_per_quarter,
            quarters_per_minute=quarters_per_minute,
            quarters_per_bar=quarters_per_bar,
        )
        for number, roll in enumerate(written[:count], 1)
    }
    heard = written[0][: int(MAX_SECONDS / seconds)]
    return {
        **files,
        "written-1.wav": to_wav(synthesise(heard, seconds)),
        "pieces": pieces(real[:count], written[:count], bar),
        "statistics": statistics(corpora),
        "positions": by_position(positions),
        "spectrogram": spectrogram(heard, seconds),
    }


@styled
def pieces(real: Sequence[Roll], written: Sequence[Roll], bar: int) -> Figure:
    """Piano rolls: test pieces at the left, written ones at the right."""
    rows = max(1, min(len(real), len(written)))
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * rows))
    all_axes = figure.subplots(rows, 2, squeeze=False, sharey=True)
    pairs = ((real, GREY, "Test pieces"), (written, BLUE, "Written pieces"))
    for column, (rolls, colour, title) in enumerate(pairs):
        all_axes[0, column].set_title(title)
        for axes, roll in zip(all_axes[:, column], rolls, strict=False):
            _roll(axes, roll[: MAX_BARS * bar], bar, colour)
        all_axes[-1, column].set_xlabel("Bar")
    notes = [n.pitch for roll in (*real, *written) for n in to_notes(roll[: MAX_BARS * bar])]
    all_axes[0, 0].set_ylim(min(notes, default=60) - 2, max(notes, default=72) + 2)
    return figure


def _roll(axes: Axes, roll: Roll, bar: int, colour: str) -> None:
    notes = to_notes(roll)
    axes.barh(
        [note.pitch for note in notes],
        [note.frames / bar for note in notes],
        height=0.9,
        left=[1 + note.start / bar for note in notes],
        color=colour,
        edgecolor="white",
        linewidth=0.3,
    )
    axes.set_xlim(1, 1 + max(len(roll), bar) / bar)
    octaves = range(LOWEST + 3, LOWEST + 88, 12)
    axes.set_yticks(list(octaves), [f"C{pitch // 12 - 1}" for pitch in octaves])


@styled
def statistics(corpora: Mapping[str, Corpus]) -> Figure:
    """Pitch classes and intervals, of test pieces and of written ones."""
    figure = Figure(figsize=(WIDTH, 3.2))
    left, right = figure.subplots(1, 2)
    width, styles = 0.4, ((GREY, None), (BLUE, "//"))
    for number, ((name, corpus), (colour, hatch)) in enumerate(
        zip(corpora.items(), styles, strict=True)
    ):
        for axes, shares in ((left, corpus.pitch_classes), (right, corpus.intervals)):
            axes.bar(
                np.arange(len(shares)) + (number - 0.5) * width,
                shares,
                width,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=name,
            )
    left.set_xticks(range(12), [str(i) for i in range(12)])
    left.set(title="Pitch classes", xlabel="Semitones above the tonic")
    ticks = range(0, 24, 3)
    right.set_xticks(list(ticks), [str(i + 1) for i in ticks])
    right.set(title="Intervals of a chord", xlabel="Semitones between neighbours; 24: or more")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", visible=False)
    left.legend()
    return figure


@styled
def by_position(table: pd.DataFrame) -> Figure:
    """Nats of test frames by their number in the piece."""
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.subplots()
    axes.plot(table["from_frame"], table["nats"], "o-", color=RED)
    axes.set_xscale("log", base=2)
    axes.set_xticks(table["from_frame"], [str(frame) for frame in table["from_frame"]])
    axes.minorticks_off()
    axes.set(xlabel="Frame of the piece, up to the next mark", ylabel="Nats per frame")
    axes.set_ylim(bottom=0)
    axes.set_title("Test pieces, given the frames before")
    return figure


@styled
def spectrogram(roll: Roll, seconds_per_frame: float) -> Figure:
    """The beginning of a written piece as it sounds, with its notes' frequencies."""
    sound = synthesise(roll, seconds_per_frame)
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    size = 2048
    sound = np.pad(sound, (0, max(0, size - len(sound))))
    starts = np.arange(0, len(sound) - size + 1, 512)
    parts = np.stack([sound[s : s + size] for s in starts]) * np.hanning(size)
    power = 20 * np.log10(np.abs(np.fft.rfft(parts, axis=1)) + 1e-3)
    times, frequencies = starts / RATE, np.fft.rfftfreq(size, 1 / RATE)
    axes.pcolormesh(times, frequencies, power.T, shading="auto", rasterized=True)
    axes.set(ylim=(0, 2000), xlabel="Seconds", ylabel="Hz", title="A written piece as it sounds")
    axes.grid(visible=False)
    return figure
