"""Sources of pieces, prepared data sets, and their batches."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from ostinato.errors import DataError, SourceError
from ostinato.music import dataset, sources
from ostinato.music.dataset.augmentation import Windows
from ostinato.music.dataset.prepare import split_of
from ostinato.music.formats import midi, raw
from ostinato.music.formats.keys import KEYS, find_key
from ostinato.music.formats.raw import Piece, RawPieces
from ostinato.music.formats.roll import NOTES, Note, Roll, from_notes, to_notes
from ostinato.task import Profile

PREPARE: dict[str, Any] = {
    "tolerated_rejects": 0.0,
    "validation": 0.25,
    "test": 0.25,
    "min_frames": 2,
}
CHORALES: dict[str, Any] = {
    "pieces": 24,
    "min_phrases": 2,
    "max_phrases": 3,
    "chords_per_phrase": 4,
    "passing_notes": 0.5,
}
WEB: dict[str, Any] = {"timeout": 5.0, "retries": 1}
ROLLS: dict[str, Any] = {
    "frames_per_quarter": 1,
    "quarters_per_bar": 4,
    "quarters_per_minute": 80,
    **WEB,
}
MIDI: dict[str, Any] = {
    "frames_per_quarter": 2,
    "quarters_per_bar": 4,
    "quarters_per_minute": 100,
    "time_signatures": [],
}


def steps(*pitches: int) -> Roll:
    return from_notes([Note(i, 1, pitch) for i, pitch in enumerate(pitches)])


def prepared(folder: Path) -> dataset.Dataset:
    """Composed chorales, prepared."""
    for name in ("raw", "data"):
        (folder / name).mkdir()
    sources.chorales(folder / "raw", folder, 5, **CHORALES)
    dataset.prepare(folder / "raw", folder / "data", **PREPARE)
    return dataset.load(folder / "data")


def test_prepared_pieces_are_those_of_the_source_in_one_split_each(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    fetched = {piece.key: piece for piece in raw.read(tmp_path / "raw").pieces}
    seen = []
    for split in ("train", "validation", "test"):
        pieces = data.examples(split)
        assert len(pieces) == data.size(split) > 0
        for i, key in enumerate(pieces.keys.tolist()):
            assert (pieces[i] == fetched[key].roll).all()
            assert data.styles[pieces.styles[i]] == fetched[key].style
            assert pieces.musical_keys[i] == find_key(fetched[key].roll)
            assert split_of(key, 0.25, 0.25) == split
            seen.append(key)
    assert sorted(seen) == sorted(fetched)
    assert data.styles == ("florid", "plain")
    counts = data.manifest.details["key_counts"]
    assert sum(counts) == data.size("train")
    profile = Profile.read(tmp_path / "data" / "profile.json")
    assert sum(profile.counts["key"].values()) == profile.examples == data.size("train")
    assert set(profile.numbers["notes_per_frame"]) == {4.0}


def test_the_same_seed_composes_the_same_pieces(tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        sources.chorales(tmp_path / name, tmp_path, seed, **CHORALES)
        found.append((tmp_path / name / "pieces.npz").read_bytes())
    assert found[0] == found[1] != found[2]


def cells(*parts: list[Any]) -> dict[str, Any]:
    found = {}
    for name, rolls in zip(("traindata", "validdata", "testdata"), parts, strict=True):
        cell = np.empty((1, len(rolls)), object)
        for i, roll in enumerate(rolls):
            cell[0, i] = roll
        found[name] = cell
    return found


def test_piano_rolls_keep_their_splits(tmp_path: Path) -> None:
    one, two, three = (steps(*pitches).astype(np.uint8) for pitches in
                       ((60, 62), (64, 65, 67), (69, 71)))  # fmt: skip
    savemat(tmp_path / "songs.mat", cells([one, two], [three], [two, one]))
    for name in ("scratch", "raw", "data"):
        (tmp_path / name).mkdir()
    files = [str(tmp_path / "songs.mat")]
    sources.piano_rolls(tmp_path / "raw", tmp_path / "scratch", 1, files=files, **ROLLS)
    dataset.prepare(tmp_path / "raw", tmp_path / "data", **PREPARE)
    data = dataset.load(tmp_path / "data")
    expected = {"train": [one, two], "validation": [three], "test": [two, one]}
    for split, rolls in expected.items():
        found = list(data.examples(split))
        assert all((a == b).all() for a, b in zip(found, rolls, strict=True))
    assert data.examples("test").keys[0] == "songs/test/0000"
    assert data.manifest.splits["train"] == {"pieces": 2, "frames": 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a matrix", "not a MATLAB file"),
        ({"traindata": np.zeros((1, 1))}, "found no validdata, testdata"),
        (cells([np.zeros((3, 12))], [], []), r"traindata 0: found an array float64 \(3, 12\)"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "songs.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        savemat(file, content)
    with pytest.raises(SourceError, match=message):
        sources.piano_rolls(tmp_path, tmp_path / "scratch", 1, files=[str(file)], **ROLLS)


def archive(folder: Path, **files: str) -> str:
    path = folder / "chorales.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/") + ".csv")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return str(path)


HEAD = "note0,note1,note2,note3\n"


def test_tables_of_voices_are_read(tmp_path: Path) -> None:
    rows = HEAD + "60,55,52,48\n" * 4 + "62,0,0,0\n" * 4
    file = archive(tmp_path, a__train__one=rows, a__valid__two=rows, a__test__three=rows)
    for name in ("scratch", "raw"):
        (tmp_path / name).mkdir()
    block = {"file": file, "quarters_per_minute": 80, **WEB}
    sources.jsb_csv(tmp_path / "raw", tmp_path / "scratch", 1, frames_per_quarter=2, **block)
    found = raw.read(tmp_path / "raw")
    assert [(piece.key, piece.split) for piece in found.pieces] == [
        ("test/three", "test"), ("train/one", "train"), ("validation/two", "validation")
    ]  # fmt: skip
    assert to_notes(found.pieces[0].roll) == [
        Note(0, 2, 48), Note(0, 2, 52), Note(0, 2, 55), Note(0, 2, 60), Note(2, 2, 62)
    ]  # fmt: skip
    with pytest.raises(SourceError, match="found 3; expected 1, 2 or 4"):
        sources.jsb_csv(tmp_path / "raw", tmp_path / "scratch", 1, frames_per_quarter=3, **block)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a__train__x": HEAD + "60,0,0,300\n"}, "line 2: found 300; expected a MIDI number"),
        ({"a__train__x": HEAD + "60,0,0\n"}, "found no table of MIDI numbers"),
        ({"a__train__x": "a,b,c,d\n60,0,0,0\n"}, "line 1: found"),
        ({"a__elsewhere__x": HEAD + "60,0,0,0\n"}, "expected a folder of train, valid, test"),
    ],
)
def test_a_table_of_another_layout_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    file = archive(tmp_path, **files)
    with pytest.raises(SourceError, match=message):
        sources.jsb_csv(
            tmp_path, tmp_path / "scratch", 1, file=file, frames_per_quarter=4,
            quarters_per_minute=80, **WEB,
        )  # fmt: skip


def test_midi_files_are_read_and_broken_ones_are_counted_and_kept(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    pieces = {f"waltz/{i}.mid": steps(60 + i, 62, 64) for i in range(8)} | {
        "plain.MIDI": steps(65, 67)
    }
    for name, roll in pieces.items():
        (songs / name).parent.mkdir(parents=True, exist_ok=True)
        content = midi.write(
            roll, frames_per_quarter=2, quarters_per_minute=100, quarters_per_bar=4
        )
        (songs / name).write_bytes(content)
    (songs / "waltz" / "broken.mid").write_bytes(content[:40])
    (songs / "notes.txt").write_text("not music", encoding="utf-8")
    for name in ("raw", "data"):
        (tmp_path / name).mkdir()
    sources.midi(tmp_path / "raw", tmp_path, 1, path=str(songs), **MIDI)
    found = raw.read(tmp_path / "raw")
    assert {p.key: to_notes(p.roll) for p in found.pieces} == {
        name: to_notes(roll) for name, roll in pieces.items()
    }
    assert {p.style for p in found.pieces} == {"waltz", "midi"}
    assert list(found.rejects) == ["waltz/broken.mid"]
    kept = tmp_path / "raw" / "rejects" / "waltz" / "broken.mid"
    assert kept.read_bytes() == content[:40]
    message = r"found 1 broken files of 10, such as waltz/broken.mid: .*set tolerated_rejects"
    with pytest.raises(DataError, match=message):
        dataset.prepare(tmp_path / "raw", tmp_path / "data", **PREPARE)
    dataset.prepare(tmp_path / "raw", tmp_path / "data", **{**PREPARE, "tolerated_rejects": 0.1})
    rejects = json.loads((tmp_path / "data" / "manifest.json").read_text())["details"]["rejects"]
    assert set(rejects) == {"waltz/broken.mid"}


def test_a_folder_without_pieces_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(b"MThd")
    (tmp_path / "b.txt").write_text("text", encoding="utf-8")
    (tmp_path / "raw").mkdir()
    with pytest.raises(SourceError, match=r"contains no MIDI files.*a\.mid"):
        sources.midi(tmp_path / "raw", tmp_path, 1, path=str(tmp_path), **MIDI)


def test_short_pieces_are_left_out_and_an_empty_split_is_an_error(tmp_path: Path) -> None:
    pieces = [Piece(f"{split}-{n}", steps(*[60] * n), "a", split)
              for split in ("train", "validation", "test") for n in (1, 5)]  # fmt: skip
    raw.write(tmp_path, RawPieces("test", 1, 4, 80, pieces))
    (tmp_path / "data").mkdir()
    dataset.prepare(tmp_path, tmp_path / "data", **{**PREPARE, "min_frames": 3})
    data = dataset.load(tmp_path / "data")
    assert [data.size(split) for split in ("train", "validation", "test")] == [1, 1, 1]
    assert data.manifest.details["left_out"] == 3
    with pytest.raises(DataError, match="no piece is left in the split train and validation"):
        dataset.prepare(tmp_path, tmp_path / "data", **{**PREPARE, "min_frames": 6})
    with pytest.raises(DataError, match="no split 'valid'"):
        data.size("valid")


def test_batches_hold_each_piece_once_beside_the_frames_before(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    pieces = data.examples("train")
    orders = []
    for epoch in (1, 1, 2):
        rolls = []
        for x, frames, mask in data.batches("train", batch_size=5, seed=3, epoch=epoch):
            for i, length in enumerate(mask.numpy().sum(axis=1).astype(int)):
                roll = frames[i, :length].numpy() > 0
                rolls.append(roll.tobytes())
                assert not frames[i, length:].numpy().any()
                assert (x["before"][i, 1:].numpy() == frames[i, :-1].numpy()).all()
                assert not x["before"][i, 0].numpy().any()
                told = np.flatnonzero(x["condition"][i])
                key = find_key(roll)
                assert told[1:].tolist() == [len(data.styles) + key]
        orders.append(rolls)
        assert sorted(rolls) == sorted(roll.tobytes() for roll in pieces)
    assert orders[0] == orders[1] != orders[2]


def test_windows_are_parts_of_pieces_and_move_with_their_key(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    known = [roll.astype(int) for roll in data.examples("train")]
    windows, again = (
        list(Windows(data, 7, 4).batches("train", batch_size=4, seed=3, epoch=2)) for _ in "ab"
    )
    moves = set()
    for (x, frames, mask), (_, same, _) in zip(windows, again, strict=True):
        assert (frames.numpy() == same.numpy()).all()
        assert frames.shape[1:] == (7, NOTES)
        assert mask.numpy().all()
        for i, roll in enumerate(frames.numpy().astype(int)):
            assert (x["before"][i, 1:].numpy() == roll[:-1]).all()
            found = {
                (shift, find_key(piece > 0))
                for piece in known
                for shift in range(-4, 5)
                for start in range(len(piece) - 6)
                if (np.roll(piece[start : start + 7], shift, axis=1) == roll).all()
                and (start == 0) == (not x["before"][i, 0].numpy().any())
            }
            key = int(np.flatnonzero(x["condition"][i])[1]) - len(data.styles)
            fitting = {shift for shift, old in found if old // 12 * 12 + (old + shift) % 12 == key}
            assert fitting, KEYS[key]
            moves |= fitting
    assert len(moves) > 3
    whole = next(iter(Windows(data, 7, 4).batches("validation", batch_size=4, seed=None, epoch=0)))
    assert whole[1].shape[1] > 7
