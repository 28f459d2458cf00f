"""Every row of the section "Music" of docs/formats.md: what is read, repaired, refused."""

import io
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from scipy.io import savemat

from ostinato.errors import DataError, MalformedError, SourceError
from ostinato.music import dataset, sources
from ostinato.music.formats import midi, raw
from ostinato.music.formats.roll import Note, to_notes

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
Case = Callable[[Path], None]
CASES: dict[str, Case] = {}
BLOCK: dict[str, Any] = {
    "frames_per_quarter": 2,
    "quarters_per_bar": 4,
    "quarters_per_minute": 60,
    "time_signatures": [],
}


def case(row: str) -> Callable[[Case], Case]:
    """Register the test of a row."""

    def register(function: Case) -> Case:
        CASES[row] = function
        return function

    return register


def on(note: int, time: int = 0, **more: int) -> mido.Message:
    return mido.Message("note_on", note=note, velocity=9, time=time, **more)


def off(note: int, time: int = 0, **more: int) -> mido.Message:
    return mido.Message("note_off", note=note, time=time, **more)


def file_of(*tracks: list[Any], kind: int = 1, ticks: int = 480) -> bytes:
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    file.tracks += [mido.MidiTrack(track) for track in tracks]
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


SONG = file_of([on(60), off(60, 480)])


def notes(content: bytes, **changes: Any) -> list[Note]:
    block = {"frames_per_quarter": 2, "tempo": 60.0, "time_signatures": [], **changes}
    return to_notes(midi.read(content, **block))


def rejected(content: bytes, **changes: Any) -> str:
    with pytest.raises(MalformedError) as raised:
        notes(content, **changes)
    return str(raised.value)


def fetched(root: Path, **files: bytes) -> raw.RawPieces:
    """What the source reads of a folder with these files: "_" is a slash, "__" a dot."""
    for name, content in files.items():
        path = root / "songs" / name.replace("__", ".").replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "raw").mkdir(exist_ok=True)
    sources.midi(root / "raw", root, 1, path=str(root / "songs"), **BLOCK)
    return raw.read(root / "raw")


@case("`.mid` and `.midi` files in all folders below `path`, the ending in any case")
def _(root: Path) -> None:
    found = fetched(root, a__mid=SONG, b__MIDI=SONG, waltz_slow_c__Mid=SONG)
    assert {p.key: p.style for p in found.pieces} == {
        "a.mid": "midi", "b.MIDI": "midi", "waltz/slow/c.Mid": "waltz"
    }  # fmt: skip


@case("hidden files, other endings")
def _(root: Path) -> None:
    found = fetched(root, a__mid=SONG, __b__mid=SONG, c__txt=b"text")
    assert [p.key for p in found.pieces] == ["a.mid"]
    assert not found.rejects


@case("MIDI files of type 0 and type 1")
def _(root: Path) -> None:
    assert notes(file_of([on(60), off(60, 480)], kind=0)) == [Note(0, 2, 60)]
    two = file_of([on(60), off(60, 480)], [on(64, channel=3), off(64, 240, channel=3)])
    assert notes(two) == [Note(0, 2, 60), Note(0, 1, 64)]


@case("MIDI files of type 2")
def _(root: Path) -> None:
    assert "whose tracks are separate pieces" in rejected(file_of([on(60), off(60, 9)], kind=2))


@case("notes between two frames")
def _(root: Path) -> None:
    assert notes(file_of([on(60, 250), off(60, 10), on(62, 10), off(62, 300)])) == [
        Note(1, 1, 60), Note(1, 1, 62)
    ]  # fmt: skip


@case("percussion, the pedal, loudness, instruments, tempo")
def _(root: Path) -> None:
    more = [
        mido.Message("program_change", program=40),
        mido.MetaMessage("set_tempo", tempo=250_000),
        mido.Message("control_change", control=64, value=127),
        on(36, channel=9),
        mido.Message("note_on", note=60, velocity=127),
    ]
    assert notes(file_of([*more, off(60, 480), off(36, channel=9)])) == [Note(0, 2, 60)]


@case("a note that begins again before it ends, or never ends")
def _(root: Path) -> None:
    again = [on(60), on(60, 480), mido.MetaMessage("end_of_track", time=240)]
    assert notes(file_of(again)) == [Note(0, 3, 60)]  # equal notes in successive frames are one
    silent = [on(60), on(60, 480), off(60, 240), on(62), off(62, 240)]
    assert notes(file_of(silent)) == [Note(0, 3, 60), Note(3, 1, 62)]


@case("times in seconds (SMPTE)")
def _(root: Path) -> None:
    content = bytearray(file_of([on(60), off(60, 1000)]))
    content[12:14] = struct.pack(">bB", -25, 40)
    assert notes(bytes(content)) == [Note(0, 2, 60)]
    assert notes(bytes(content), tempo=120.0) == [Note(0, 4, 60)]


@case("a time signature that is not in `time_signatures`; none at all counts as 4/4")
def _(root: Path) -> None:
    waltz = file_of(
        [mido.MetaMessage("time_signature", numerator=3, denominator=4), on(60), off(60, 480)]
    )
    assert rejected(waltz, time_signatures=["4/4"]) == "in 3/4, not 4/4"
    assert notes(waltz, time_signatures=["3/4"]) == notes(SONG, time_signatures=["4/4"])


@case("files without notes, truncated, damaged or other files")
def _(root: Path) -> None:
    assert rejected(file_of([])) == "no notes"
    key = file_of([mido.MetaMessage("key_signature", key="C"), on(60), off(60, 480)])
    damaged = key.replace(b"\xff\x59\x02\x00\x00", b"\xff\x59\x02\x00\x09")
    for content in (SONG[:-8], b"", b"RIFF and more", damaged):
        assert rejected(content).startswith("not a MIDI file: ")


@case("more than 8 MB, or 100,000 frames")
def _(root: Path) -> None:
    assert rejected(bytes(9 << 20)) == "9437184 bytes; expected 8388608 at most"
    long = file_of([on(60), off(60, 60_000)], ticks=1)
    assert rejected(long) == "120000 frames; expected 100000 at most"


@case("notes off the 88 keys of a piano")
def _(root: Path) -> None:
    assert notes(file_of([on(60), on(12), off(60, 480), off(12)])) == [Note(0, 2, 60)]


@case("rejected files")
def _(root: Path) -> None:
    found = fetched(root, a__mid=SONG, more_b__mid=SONG[:20])
    assert list(found.rejects) == ["more/b.mid"]
    assert (root / "raw" / "rejects" / "more" / "b.mid").read_bytes() == SONG[:20]
    (root / "data").mkdir()
    block: dict[str, Any] = {"validation": 0.2, "test": 0.2, "min_frames": 1}
    with pytest.raises(DataError, match=r"1 broken files of 2, such as more/b\.mid"):
        dataset.prepare(root / "raw", root / "data", tolerated_rejects=0.2, **block)


@case("a folder without a piece, a link that leads out of the folder")
def _(root: Path) -> None:
    with pytest.raises(SourceError, match="contains no MIDI files"):
        fetched(root, a__txt=b"text")
    (root / "other.mid").write_bytes(SONG)
    (root / "songs" / "link.mid").symlink_to(root / "other.mid")
    with pytest.raises(SourceError, match="links to a file outside"):
        fetched(root)


@case("MATLAB files with cells `traindata`, `validdata`, `testdata` of matrices (frame, 88)")
def _(root: Path) -> None:
    cell = np.empty((1, 1), object)
    cell[0, 0] = np.eye(3, 88, 40)
    names = ("traindata", "validdata", "testdata")
    block = {name: BLOCK[name] for name in BLOCK if name != "time_signatures"}
    web: dict[str, Any] = {"timeout": 5.0, "retries": 1}

    def read(folder: str, **cells: Any) -> raw.RawPieces:
        (root / folder).mkdir()
        savemat(root / folder / "x.mat", cells)
        files = [str(root / folder / "x.mat")]
        sources.piano_rolls(root / folder, root / folder / "s", 1, files=files, **block, **web)
        return raw.read(root / folder)

    found = read("good", **dict.fromkeys(names, cell))
    assert [p.split for p in found.pieces] == ["train", "validation", "test"]
    assert to_notes(found.pieces[0].roll) == [Note(t, 1, 61 + t) for t in range(3)]
    with pytest.raises(SourceError, match="found no validdata"):
        read("few", traindata=cell, testdata=cell)


@case(
    "an archive of tables `train/*.csv`, `valid/*.csv`, `test/*.csv` with the columns note0 to "
    "note3"
)
def _(root: Path) -> None:
    def read(folder: str, **files: str) -> raw.RawPieces:
        (root / folder).mkdir()
        with tarfile.open(root / folder / "x.tgz", "w:gz") as out:
            for name, text in files.items():
                info = tarfile.TarInfo(f"all/{name}/1.csv")
                info.size = len(text)
                out.addfile(info, io.BytesIO(text.encode()))
        block: dict[str, Any] = {"frames_per_quarter": 4, "quarters_per_minute": 60}
        file = str(root / folder / "x.tgz")
        scratch = root / folder / "s"
        sources.jsb_csv(root / folder, scratch, 1, file=file, timeout=5.0, retries=1, **block)
        return raw.read(root / folder)

    table = "note0,note1,note2,note3\n72,67,64,48\n"
    found = read("good", train=table, valid=table, test=table)
    assert [p.split for p in found.pieces] == ["test", "train", "validation"]
    with pytest.raises(SourceError, match=r"line 2: found 20; expected a MIDI number"):
        read("wrong", train=table.replace("48", "20"))


def test_every_row_of_the_page_has_a_test() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Music\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert rows[1:] == list(CASES)  # without the head of the table


@pytest.mark.parametrize("row", CASES)
def test_the_row(row: str, tmp_path: Path) -> None:
    CASES[row](tmp_path)
