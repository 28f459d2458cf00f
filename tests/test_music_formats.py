"""Piano rolls, MIDI files, voices, keys and the synthesiser."""

import contextlib
import io
import struct
import wave

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato.errors import MalformedError
from ostinato.music.formats import midi, synthesis
from ostinato.music.formats.keys import KEYS, find_key
from ostinato.music.formats.roll import (
    LOWEST,
    NOTES,
    Note,
    Roll,
    from_notes,
    pack,
    seed_of,
    to_notes,
    unpack,
)
from ostinato.music.formats.voices import chords, count_parallels
from ostinato.music.metrics import copied, describe, outside_range, passages
from ostinato.music.sources.chorales import RANGES, compose

TEMPO = {"frames_per_quarter": 4, "quarters_per_minute": 90, "quarters_per_bar": 4}
READING = {"frames_per_quarter": 4, "tempo": 90.0, "time_signatures": []}


def some_roll(seed: int, frames: int = 24, chance: float = 0.1) -> Roll:
    return np.random.default_rng(seed).random((frames, NOTES)) < chance


def read(content: bytes, **changed: object) -> Roll:
    return midi.read(content, **{**READING, **changed})  # type: ignore[arg-type]


def file_of(*messages: mido.Message | mido.MetaMessage, ticks: int = 480) -> bytes:
    file = mido.MidiFile(ticks_per_beat=ticks)
    file.tracks.append(mido.MidiTrack(messages))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


ROLLS = st.builds(some_roll, st.integers(0, 2**32), st.integers(1, 12), st.floats(0.01, 0.9))


@settings(max_examples=50, deadline=None)
@given(ROLLS)
def test_notes_bits_and_midi_files_give_the_roll_back(roll: Roll) -> None:
    assert (from_notes(to_notes(roll), len(roll)) == roll).all()
    assert (unpack(pack(roll)) == roll).all()
    if roll.any():
        end = int(np.flatnonzero(roll.any(axis=1))[-1]) + 1  # a file ends with its last note
        found = read(midi.write(roll, **TEMPO))
        assert found.shape == (end, NOTES)
        assert (found == roll[:end]).all()
        assert to_notes(found) == to_notes(roll)


def test_a_written_file_is_what_another_reader_expects() -> None:
    roll = from_notes([Note(0, 4, 60), Note(4, 2, 64)], frames=8)
    file = mido.MidiFile(file=io.BytesIO(midi.write(roll, **TEMPO)))
    assert file.length == pytest.approx(8 / 4 * 60 / 90, rel=1e-4)  # with the silence at the end
    events = [(m.time, m.note, m.velocity > 0) for m in file.tracks[0] if m.type == "note_on"]
    assert events == [(0, 60, True), (480, 60, False), (0, 64, True), (240, 64, False)]


def test_notes_are_quantised_and_percussion_does_not_count() -> None:
    content = file_of(
        mido.Message("note_on", note=60, velocity=9, time=110),  # nearest: frame 1
        mido.Message("note_on", note=36, velocity=9, channel=9),
        mido.Message("note_off", note=60, time=20),  # shorter than a frame
        mido.Message("note_on", note=62, velocity=9, time=110),
        mido.Message("note_on", note=62, velocity=9, time=240),  # begins again
        mido.MetaMessage("end_of_track", time=120),  # and does not end
    )
    assert to_notes(read(content)) == [Note(1, 1, 60), Note(2, 3, 62)]


def test_a_file_in_seconds_is_measured_by_the_tempo() -> None:
    content = bytearray(file_of(
        mido.Message("note_on", note=60, velocity=9),
        mido.Message("note_off", note=60, time=1000),  # one second
    ))  # fmt: skip
    content[12:14] = struct.pack(">bB", -25, 40)  # 25 frames a second of 40 ticks
    assert to_notes(read(bytes(content), tempo=60.0)) == [Note(0, 4, 60)]
    assert to_notes(read(bytes(content), tempo=120.0)) == [Note(0, 8, 60)]


WALTZ = file_of(
    mido.MetaMessage("time_signature", numerator=3, denominator=4),
    mido.Message("note_on", note=60, velocity=9),
    mido.Message("note_off", note=60, time=480),
)


@pytest.mark.parametrize(
    ("content", "changed", "message"),
    [
        (b"", {}, "not a MIDI file"),
        (b"RIFF" + bytes(40), {}, "not a MIDI file"),
        (WALTZ[:30], {}, "not a MIDI file"),
        (file_of(mido.MetaMessage("text", text="empty")), {}, "no notes"),
        (WALTZ, {"time_signatures": ["4/4", "2/2"]}, "in 3/4, not 4/4, 2/2"),
        (file_of(mido.Message("note_on", note=60, velocity=9),
                 mido.Message("note_off", note=60, time=2**26), ticks=1), {}, "frames; expected"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_piece_says_why(
    content: bytes, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(MalformedError, match=message):
        read(content, **changed)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WALTZ) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_file_is_read_or_malformed(place: int, value: int, cut: bool) -> None:
    content = bytearray(WALTZ)
    content[place] = value
    with contextlib.suppress(MalformedError):
        read(bytes(content[:place] if cut else content))


@pytest.mark.parametrize("key", [0, 7, 9, 12, 21])
def test_the_key_of_a_scale_with_its_triad_is_found(key: int) -> None:
    steps = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11))[key // 12]
    pitches = [60 + key % 12 + step for step in (*steps, 0, 0, steps[2], steps[4])]
    roll = from_notes([Note(i, 1, pitch) for i, pitch in enumerate(pitches)])
    assert KEYS[find_key(roll)] == KEYS[key]
    assert find_key(np.roll(roll, 12, axis=1)) == key
    assert find_key(np.roll(roll, -2, axis=1)) == key // 12 * 12 + (key - 2) % 12
    assert find_key(np.zeros((4, NOTES), bool)) == -1


def chord_roll(*pitches: tuple[int, ...]) -> Roll:
    return from_notes([Note(t, 1, pitch) for t, chord in enumerate(pitches) for pitch in chord])


@pytest.mark.parametrize(
    ("chords_", "expected"),
    [
        ([(48, 55), (50, 57)], (1, 0, 1)),  # a fifth moves up
        ([(48, 67), (50, 69)], (1, 0, 1)),  # a twelfth is a fifth
        ([(48, 60), (45, 57)], (0, 1, 1)),
        ([(48, 55), (48, 55)], (0, 0, 0)),  # nothing moves
        ([(48, 55), (43, 62)], (0, 0, 1)),  # in opposite directions
        ([(48, 55), (50, 59)], (0, 0, 1)),  # to a sixth
        ([(48, 55), (50, 57, 62)], (0, 0, 0)),  # not as many notes
        ([(48, 55, 60), (50, 57, 62)], (1, 1, 1)),  # fifth and octave; a fourth is free
    ],
)
def test_parallel_fifths_and_octaves(
    chords_: list[tuple[int, ...]], expected: tuple[int, int, int]
) -> None:
    roll = chord_roll(*chords_)
    assert chords(roll) == chords_
    assert tuple(count_parallels(roll)) == expected


def test_an_octave_changes_no_score_of_a_piece_but_its_range() -> None:
    roll = compose(np.random.default_rng(3), 0, 7, 2, 6, 0.5)
    higher = np.roll(roll, 12, axis=1)
    one, other = describe([roll], [7]), describe([higher], [7])
    for name in ("pitch_classes", "intervals"):
        assert (getattr(one, name) == getattr(other, name)).all()
    assert (one.parallel_fifths, one.parallel_octaves) == (
        other.parallel_fifths, other.parallel_octaves)  # fmt: skip
    assert (other.ranges[4] - one.ranges[4] == 12).all()
    assert outside_range([roll], one.ranges) == 0
    assert outside_range([higher], one.ranges) > 0
    known = passages([roll], 8)
    assert copied([higher], known, 8) == 1
    assert copied([some_roll(1)], known, 8) == 0
    assert seed_of(roll) != seed_of(higher)


def test_composed_chorales_keep_their_rules() -> None:
    leading_notes = 0
    for seed in range(12):
        minor, tonic = seed % 2, seed
        roll = compose(np.random.default_rng(seed), minor, tonic, 2, 6, 0.6)
        fifths, octaves, moves = count_parallels(roll)
        assert (fifths, octaves) == (0, 0)
        assert moves > 8
        voices = np.array(chords(roll))
        assert voices.shape == (len(roll), 4)
        low, high = np.array(RANGES).T
        on_beat = voices[::2]
        assert ((on_beat >= low) & (on_beat <= high)).all()
        assert (np.diff(on_beat, axis=1) <= (19, 12, 12)).all()
        assert {p % 12 for p in voices[-1]} == {(tonic + s) % 12 for s in (0, 4 - minor, 7)}
        leading = on_beat % 12 == (tonic + 11) % 12
        assert (leading.sum(axis=1) < 2).all()
        leading_notes += int(leading.sum())
    assert leading_notes > 10


def test_the_synthesiser_sounds_the_frequencies_of_the_notes() -> None:
    roll = from_notes([Note(0, 4, 69), Note(4, 4, 60)], frames=12)
    sound = synthesis.synthesise(roll, 0.5)
    assert len(sound) == 6 * synthesis.RATE + round(synthesis.RELEASE * synthesis.RATE)
    assert np.abs(sound).max() == pytest.approx(0.9)
    for start, hertz in ((0, 440.0), (2, 261.626)):
        part = sound[start * synthesis.RATE :][: 2 * synthesis.RATE]
        power = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        found = np.fft.rfftfreq(len(part), 1 / synthesis.RATE)[power.argmax()]
        assert found == pytest.approx(hertz, abs=0.5)
        overtone = power[round(4 * hertz)] / power.max()  # bins of half a hertz
        assert 0.2 < overtone < 0.7
    assert np.abs(sound[5 * synthesis.RATE :]).max() == 0  # silence after the release
    assert not synthesis.synthesise(np.zeros((3, NOTES), bool), 0.5).any()
    with wave.open(io.BytesIO(synthesis.to_wav(sound))) as file:
        assert (file.getframerate(), file.getnchannels()) == (synthesis.RATE, 1)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(samples, sound, atol=1 / 32767)


def test_pitches_off_the_piano_are_left_out() -> None:
    roll = from_notes([Note(0, 1, LOWEST - 1), Note(0, 2, LOWEST), Note(0, 1, LOWEST + NOTES)])
    assert to_notes(roll) == [Note(0, 2, LOWEST)]
