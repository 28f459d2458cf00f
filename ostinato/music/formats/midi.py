"""Standard MIDI files to and from piano rolls, by the library mido (MIT)."""

import io
from collections.abc import Iterator
from typing import Any

from ostinato.errors import MalformedError
from ostinato.music.formats.roll import Note, Roll, from_notes, to_notes

TICKS = 480  # of a quarter note, in files that are written
PERCUSSION = 9  # the channel of General MIDI without pitches
MAX_BYTES = 8 << 20
MAX_FRAMES = 100_000
VELOCITY = 80


def read(
    content: bytes, *, frames_per_quarter: int, tempo: float, time_signatures: list[str]
) -> Roll:
    """The roll of a file: all channels but percussion, quantised to the nearest frame.

    A note lasts one frame at least. The pedal does not count.

    Args:
        content: of the file.
        frames_per_quarter: frames of a quarter note.
        tempo: quarter notes per minute, by which a file in seconds (SMPTE) is measured.
        time_signatures: that the file may have, such as "4/4", which is that of a file that has
            none; empty: any.

    Raises:
        MalformedError: no MIDI file, one without notes, one that is too long, or one in another
            time signature.
    """
    import mido

    if len(content) > MAX_BYTES:
        raise MalformedError(f"{len(content)} bytes; expected {MAX_BYTES} at most")
    try:
        file = mido.MidiFile(file=io.BytesIO(content))
    except (OSError, EOFError, ValueError, KeyError, IndexError, mido.KeySignatureError) as error:
        raise MalformedError(f"not a MIDI file: {str(error) or type(error).__name__}") from None
    if file.type == 2:
        raise MalformedError("a MIDI file of type 2, whose tracks are separate pieces")
    ticks = file.ticks_per_beat
    if ticks < 0:  # SMPTE: the high byte is the negative number of frames per second
        ticks = round(-(ticks >> 8) * (ticks & 0xFF) * 60 / tempo)
    if not ticks:
        raise MalformedError("a MIDI file with 0 ticks in a quarter note")
    messages = [track for track in file.tracks if track]
    found = {
        f"{m.numerator}/{m.denominator}"
        for track in messages
        for m in track
        if m.type == "time_signature"
    } or {"4/4"}
    if time_signatures and not found <= set(time_signatures):
        raise MalformedError(f"in {', '.join(sorted(found))}, not {', '.join(time_signatures)}")
    notes = []
    for start, end, pitch in (note for track in messages for note in _notes(track)):
        first, last = (round(tick * frames_per_quarter / ticks) for tick in (start, end))
        notes.append(Note(first, max(1, last - first), pitch))
    length = max((note.start + note.frames for note in notes), default=0)
    if length > MAX_FRAMES:
        raise MalformedError(f"{length} frames; expected {MAX_FRAMES} at most")
    roll = from_notes(notes)
    if not roll.any():
        raise MalformedError("no notes")
    return roll


def _notes(track: Any) -> Iterator[tuple[int, int, int]]:
    """Start, end (ticks) and pitch of the notes of a track; a note that does not end, ends last."""
    now = 0
    began: dict[tuple[int, int], int] = {}
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == PERCUSSION:
            continue
        voice = (message.channel, message.note)
        if voice in began:
            yield began.pop(voice), now, message.note
        if message.type == "note_on" and message.velocity:
            began[voice] = now
    for (_, pitch), start in began.items():
        yield start, now, pitch


def write(
    roll: Roll, *, frames_per_quarter: int, quarters_per_minute: float, quarters_per_bar: int
) -> bytes:
    """A MIDI file of one track on an acoustic grand piano.

    Args:
        roll: of the piece; silence at its end is kept.
        frames_per_quarter: frames of a quarter note.
        quarters_per_minute: the tempo.
        quarters_per_bar: of the time signature.
    """
    import mido

    events = [(len(roll), 2, 0)]
    for start, frames, pitch in to_notes(roll):
        events += [(start, 1, pitch), (start + frames, 0, pitch)]
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=round(6e7 / quarters_per_minute)))
    track.append(mido.MetaMessage("time_signature", numerator=quarters_per_bar, denominator=4))
    before = 0
    for frame, kind, pitch in sorted(events):  # a note ends before the next one begins
        now = round(frame * TICKS / frames_per_quarter)
        since, before = now - before, now
        track.append(
            mido.MetaMessage("end_of_track", time=since)
            if kind == 2
            else mido.Message("note_on", note=pitch, velocity=VELOCITY if kind else 0, time=since)
        )
    file = mido.MidiFile(ticks_per_beat=TICKS)
    file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()
