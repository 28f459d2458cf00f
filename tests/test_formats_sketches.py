"""The section "Drawings" of docs/formats.md: each row of its table is a case here."""

import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ostinato.errors import ArchiveError, DataError, MalformedError, RequestError, SourceError
from ostinato.sketches import dataset, serving, sources
from ostinato.sketches.dataset.sketchrnn_npz import read_npz
from ostinato.sketches.formats import quickdraw
from ostinato.task import Manifest
from ostinato.video import dataset as video_dataset
from ostinato.video import sources as videos
from ostinato.video.sources.encoding import file_name

ROOT = Path(__file__).parents[1]
BOM = b"\xef\xbb\xbf"
STROKES = [[[0, 9, 18, 40], [3, 4, 50, 7]], [[5, 6, 9], [1, 80, 7]]]


def line(**changed: Any) -> bytes:
    """A line of a drawing of two strokes; a field that is None is left out."""
    value = {"word": "cat", "recognized": True, "key_id": "1", "drawing": STROKES} | changed
    return orjson.dumps({name: x for name, x in value.items() if x is not ...})


def numbered(count: int, word: str = "cat", **changed: Any) -> list[bytes]:
    """Different drawings with different keys."""
    return [
        line(key_id=f"{word}{i}", word=word, drawing=[[[0, i, 18, 40], [3, 4, 50, 7]]], **changed)
        for i in range(count)
    ]


def joined(lines: list[bytes], end: bytes = b"\n") -> bytes:
    return b"".join(text + end for text in lines)


# Lines of ndjson: the strokes that are read, or the reason of the refusal


def timed(strokes: list[Any]) -> list[Any]:
    return [[*stroke, list(range(len(stroke[0])))] for stroke in strokes]


def transposed(strokes: list[Any]) -> list[Any]:
    return [[list(point) for point in zip(*stroke, strict=True)] for stroke in strokes]


PRESSURE = [[*stroke, [0.5] * len(stroke[0])] for stroke in timed(STROKES)]
OBJECTS = [[{"x": x, "y": y} for x, y in zip(*stroke, strict=True)] for stroke in STROKES]
NUMBER = "which is not a number"
LINES: dict[str, list[tuple[bytes, Any]]] = {
    "strokes `[xs, ys]` or `[xs, ys, times]`, and further lists such as pressure": [
        (line(drawing=drawing), STROKES)
        for drawing in (STROKES, timed(STROKES), PRESSURE, [STROKES[0], timed(STROKES)[1]])
    ] + [
        (line(drawing=[[[1, 9], [3, 4]]]), [[[1, 9], [3, 4]]]),
        (line(drawing=[[[1, 9], [3, 4], [0, 16]]]), [[[1, 9], [3, 4]]]),
        (line(drawing=[[[1, 9, 8, 7]] * 3]), [[[1, 9, 8, 7]] * 2]),
    ],
    "strokes as lists of points `[[x, y], ...]`, `[[x, y, time], ...]`": [
        (line(drawing=transposed(drawing)), r"lists of [23] values, .* such as \[0,3.*transpose")
        for drawing in (STROKES[:1], timed(STROKES), timed(STROKES)[:1])
    ] + [
        (line(drawing=drawing), "lists of [234] values, which may be points")
        for drawing in (
            [[[10, 90], [50, 10], [90, 90]]],  # three points, or times that do not begin at 0
            [[[10, 90], [50, 10]], [[0, 1], [2, 3], [4, 5]]],
            [[[1, 2], [3, 4], [0, 9]], [[5, 6], [7, 8], [2, 3]]],  # times that go back
            [[[10, 50, 0], [90, 60, 16], [90, 95, 32]]],
            [[[1, 2, 0, 0.5]] * 5],
        )
    ] + [(line(drawing=transposed(STROKES)), "lists of 2 values")],
    "`{x, y}` objects, flat lists, text or null in place of numbers": [
        (line(drawing=OBJECTS), "stroke 0 has an object in place of xs; expected lists: .xs, ys"),
        (line(drawing=[{"x": [1, 2], "y": [3, 4]}]), "stroke 0 is an object; expected .xs, ys"),
        (line(drawing=[[1, 2, 3, 4]]), "stroke 0 has 1 in place of xs"),
        (line(drawing=[STROKES[0], [["1", 2], [3, 4]]]), f'stroke 1 has "1" in xs, {NUMBER}'),
        (line(drawing=[[[1, 2], [3, None]]]), f"stroke 0 has null in ys, {NUMBER}"),
        (line(drawing=[[[1, True], [3, 4]]]), f"stroke 0 has true in xs, {NUMBER}"),
        (line(drawing=[[[1, 2], [3, 4], [0, None]]]), f"stroke 0 has null in times, {NUMBER}"),
        (line(drawing=[[["9" * 999, 2], [3, 4]]]), r'stroke 0 has "9{39}\.\.\. in xs'),
        (line(drawing=7), "drawing is 7; expected a list of strokes"),
        (line(drawing=orjson.dumps(STROKES).decode()), "drawing is a string.*parse"),
        (line(drawing=[[[[1, 2]], [[3, 4]]]]), f"stroke 0 has a list in xs, {NUMBER}"),
    ],
    "lists of a stroke of different lengths": [
        (line(drawing=[[[1, 2, 3], [4, 5]]]), "stroke 0 has 3 x and 2 y"),
        (line(drawing=[[[1, 2, 3]]]), "stroke 0 has one list; expected two"),
        (line(drawing=[STROKES[0], [[1, 2, 3], [4, 5, 6], [0, 1]]]), "stroke 1 has 3 points and 2"),
        (line(drawing=[[*PRESSURE[0][:3], [1]]]), "stroke 0 has 4 points and 1 values in list 3"),
        (line(drawing=[[[], [], [5]]]), "stroke 0 has 0 points and 1 times"),
    ],
    "an empty stroke, `[]` or `[[], []]`": [
        (line(drawing=[*STROKES, [[]] * lists]), STROKES) for lists in (0, 2, 3)
    ],
    "negative numbers, fractions, exponents": [
        (line(drawing=[[[-1.5, 0.25], [7, 2]]]), [[[-1.5, 0.25], [7, 2]]]),
        (line().replace(b"18", b"1.8e1"), STROKES),
    ],
    "NaN, Infinity, `+1`, a comment, a comma at the end": [
        (line().replace(b"18", b"NaN"), "not JSON: .*JSON has no NaN"),
        (line().replace(b"18", b"-Infinity"), "not JSON: .*no Infinity"),
        (line().replace(b"18", b"+18"), "not JSON"),
        (line() + b" // cat", "not JSON"),
        (line() + b",", "not JSON"),
        (b'{"key_id":"1","drawing":' + b"[" * 5000 + b"]" * 5000 + b"}", "not JSON"),
    ],
    "`key_id` as a string or an integer": [
        (line(key_id=5201136883597312), STROKES), (line(key_id="user1/cat:7"), STROKES),
    ],
    "`key_id` as a fraction, null or missing": [
        (line(key_id=5.1e15), "key_id is 5100000000000000.0; expected a string or an integer"),
        (line(key_id=None), "key_id is null; expected a string or an integer"),
        (line(key_id=""), 'key_id is ""; expected'),
        (line(key_id=...), "no field 'key_id'"),
    ],
    "`recognized` as null, or missing": [
        (line(recognized=None), STROKES), (line(recognized=...), STROKES),
    ],
    "`recognized` as a number or a string": [
        (line(recognized=1), "recognized is 1; expected true, false or null"),
        (line(recognized="true"), 'recognized is "true"; expected true'),
    ],
    "a `word` with a line break or another control character": [
        (line(word=f"hot{char}dog"), "word has a line break or another control character")
        for char in "\n\r\0\x7f\x85\u2028"
    ],
    "a line that is no object": [
        (b"[]", "not a JSON object but a list; expected one object on each line"),
        (b"7", "not a JSON object but 7"),
    ],
    "a byte order mark before a line": [(BOM + line(), STROKES)],
    "further fields, nested or long": [
        (line(meta={"a": [1, {"b": None}]}, note="x" * 10**5), STROKES),
    ],
}  # fmt: skip


@pytest.mark.parametrize("row", LINES)
def test_a_line_is_read_or_refused_with_its_reason(row: str) -> None:
    for text, expected in LINES[row]:
        parsed, rejects = quickdraw.parse(b"\n" + text + b"\n")
        if isinstance(expected, str):
            with pytest.raises(MalformedError, match=f"^(the strokes are )?({expected})"):
                quickdraw.read_line(text)
            ((number, reason),) = rejects
            assert number == 1
            assert len(reason) < 300
        else:
            assert not rejects
            tracks = np.split(parsed.points, parsed.strokes[:-1])
            assert [track.T.tolist() for track in tracks] == expected
            found = quickdraw.read_line(text, times=True).strokes
            assert [track[:, :2].T.tolist() for track in found] == expected


# Files of the source `folder`


@dataclass
class Files:
    """Files in a folder, and what becomes of them.

    Args:
        files: content by name.
        read: the categories, or the error.
        label: of the source.
        told: what the log says.
        change: applied to the folder.
    """

    files: Mapping[str, bytes]
    read: list[str] | str
    label: str = "file"
    told: str = ""
    change: Callable[[Path], Any] = field(default=lambda folder: None)


CATS = joined(numbered(3))
DOGS = joined(numbered(3, "dog"))
ARRAY = b"[" + b",".join(numbered(3)) + b"]"
FILES: dict[str, list[Files]] = {
    "`.ndjson` files in all folders below `path`, the ending in any case": [
        Files({"cat.ndjson": CATS, "a/b/dog.NDJSON": DOGS}, ["cat", "dog"]),
    ],
    "hidden files and folders, `__MACOSX`": [
        Files(
            {"cat.ndjson": CATS, hidden: b"\0"}, ["cat"], told=r"1 files are read, 1 are not: 1 hid"
        )
        for hidden in ("._cat.ndjson", ".ipynb_checkpoints/cat-checkpoint.ndjson",
                       "__MACOSX/cat.ndjson")
    ],
    "files with other endings": [
        Files({"cat.ndjson": CATS, "a.csv": b"", "b.json": b"", "x/README": b""}, ["cat"],
              told=r"3 are not: .*\.csv \(a\.csv\).*\.json.*without an ending \(x/README\)"),
        Files({"a.csv": b"", "b.csv": b""}, r"contains no \.ndjson files; found 2 .*\.csv"),
        Files({}, r"contains no \.ndjson files; found nothing"),
    ],
    "CR LF, blank lines, no last line feed, a byte order mark": [
        Files({"cat.ndjson": content}, ["cat"])
        for content in (joined(numbered(3), b"\r\n"), joined(numbered(3), b"\n \r\n"), CATS[:-1],
                        BOM + CATS, BOM + CATS[:-1])
    ],
    "UTF-16, UTF-32, binary or compressed files": [
        Files({"cat.ndjson": CATS.decode().encode(code)}, r"cat\.ndjson: found text in UTF-16")
        for code in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")
    ] + [Files({"cat.ndjson": b"PK\3\4" + CATS}, "found a compressed file; unpack it")],
    "a JSON array, or an object over several lines": [
        Files({"cat.ndjson": text}, r"cat\.ndjson: found a JSON array; write one object on each")
        for text in (ARRAY, BOM + b"\n" + ARRAY, json.dumps(json.loads(ARRAY), indent=1).encode())
    ] + [
        Files({"cat.ndjson": json.dumps(json.loads(line()), indent=2).encode()}, "several lines"),
    ],
    "lines that end in CR alone": [
        Files({"cat.ndjson": joined(numbered(3), b"\r")}, r"end in CR only; end them in LF"),
    ],
    "a file that ends in the middle of a line": [
        Files({"cat.ndjson": CATS[:-9], "dog.ndjson": DOGS[:-9]},
              r"(?s)cat\.ndjson: it ends in the middle of a drawing.*dog\.ndjson: it ends"),
    ],
    "an empty file, with `label: word`": [
        Files({"x.ndjson": CATS, "none.ndjson": b""}, [], "word", r"1 are not: 1 empty \(none"),
    ],
    "a broken link, a link out of the folder, a name that is not UTF-8": [
        Files({"cat.ndjson": CATS}, r"dog\.ndjson: a broken link",
              change=lambda folder: (folder / "dog.ndjson").symlink_to(folder / "away")),
        Files({"cat.ndjson": CATS}, r"dog\.ndjson: links to a file outside",
              change=lambda folder: (folder / "dog.ndjson").symlink_to("/etc/hostname")),
        Files({"cat.ndjson": CATS}, r"caf\\xe9\.ndjson: the name is not UTF-8",
              change=lambda folder: Path(os.fsdecode(bytes(folder) + b"/caf\xe9.ndjson"))
              .write_bytes(CATS)),
    ],
    "a file name with a line break as the category": [
        Files({"hot\ndog.ndjson": CATS}, "a class name has no line break"),
    ],
    "blanks around a file's name or a word": [
        Files({" cat .ndjson": CATS, "dog.ndjson": DOGS}, ["cat", "dog"]),
    ],
    "`~` in a path": [
        Files({}, "no such home folder", change=lambda folder: "~nobody-of-this-name/drawings"),
    ],
}  # fmt: skip


def fetch(folder: Path, path: str, label: str = "file", form: str = "raw") -> Path:
    raw = folder / "raw"
    raw.mkdir()
    sources.folder(raw, folder, 0, path=path, form=form, label=label)  # type: ignore[arg-type]
    return raw


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("row", FILES)
def test_a_file_is_read_or_refused_with_its_name(
    row: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ostinato")
    for number, case in enumerate(FILES[row]):
        mine = write(tmp_path / str(number) / "mine", case.files)
        path = str(case.change(mine) or mine) if "~" in row else str(mine)
        if "~" not in row:
            case.change(mine)
        caplog.clear()
        if isinstance(case.read, str):
            with pytest.raises(SourceError, match=case.read):
                fetch(mine.parent, path)
            continue
        raw = fetch(mine.parent, path, case.label)
        manifest = orjson.loads((raw / "manifest.json").read_bytes())
        assert manifest["categories"] == case.read
        for entry in manifest["files"]:
            assert (raw / entry["path"]).read_bytes() == (mine / entry["path"]).read_bytes()
        if case.told:
            with pytest.raises(AssertionError, match=case.told):
                raise AssertionError(caplog.text)
        else:
            assert not caplog.records


# Whole data sets


def prepare(folder: Path, **changed: Any) -> Manifest:
    data = folder / "data"
    data.mkdir()
    block: dict[str, Any] = {
        "tolerated_rejects": 0.0, "validation": 0.2, "test": 0.2, "max_points": 100,
        "only_recognised": False, "shard_size": 7, "workers": 1,
    }  # fmt: skip
    dataset.prepare(folder / "raw", data, **block | changed)
    return Manifest.read(data / "manifest.json")


def renumbered(word: str, count: int, key: str = "{}") -> bytes:
    return joined(
        [
            line(key_id=key.format(i), drawing=[[[0, i, 18, len(word)], [3, 4, 50, 7]]])
            for i in range(count)
        ]
    )


SCRIBBLE = [[*range(9_000)], [i % 2 * 9_000 for i in range(9_000)]]
TWICE = {"cat.ndjson": renumbered("cat", 40), "hen.ndjson": renumbered("horse", 40)}
DATA: dict[str, list[tuple[Mapping[str, bytes], dict[str, Any], str]]] = {
    "the same `key_id` in several drawings": [
        (TWICE, {}, r"same key_id \(40 are repeated\).*'0': cat\.ndjson:1, hen\.ndjson:1\n"),
        ({"cat.ndjson": renumbered("cat", 40, "0")}, {}, r"'0': cat\.ndjson:1, cat\.ndjson:2, "),
        ({"ring.ndjson": CATS, "ring (1).ndjson": CATS}, {}, r"'cat0': ring \(1\)\.ndjson:1, ring"),
    ],
    "the same drawing twice in a category": [
        ({"cat.ndjson": joined(numbered(40) * 2)}, {}, "40 drawings of 80 lines.* 40 duplicates"),
    ],
    "a category of which no drawing is left": [
        ({"cat.ndjson": CATS, "dog.ndjson": joined(numbered(0))}, {},
         r"no drawing is left of 'dog' \(0 lines: the file is empty\); leave"),
        ({"cat.ndjson": CATS, "dog.ndjson": joined([line(drawing=[[[3, 3], [4, 4]]])] * 2)}, {},
         r"no drawing is left of 'dog' \(2 lines: 2 without ink\)"),
    ],
    "a category without drawings in a split": [
        ({"cat.ndjson": joined(numbered(40)), "dog.ndjson": joined(numbered(1, "dog"))}, {},
         r"1 of 2 classes have no drawing in \w+: dog"),
    ],
    "categories whose names differ in case, blanks or Unicode form": [
        ({"Cat.ndjson": joined(numbered(40)), "cat.ndjson": joined(numbered(40, "kitten"))}, {},
         "classes of nearly the same name: 'Cat', 'cat'"),
        ({"caf\u00e9.ndjson": joined(numbered(40)), "cafe\u0301.ndjson": joined(numbered(40, "x"))},
         {}, "classes of nearly the same name: "),
    ],
    "malformed lines up to `tolerated_rejects`": [
        ({"cat.ndjson": joined([*numbered(40), b"{}"])}, {"tolerated_rejects": 0.1},
         "40 drawings of 41 lines; left out: 1 malformed"),
    ],
    "more malformed lines": [
        ({"cat.ndjson": joined([*numbered(40), b"{}"])}, {},
         r"1 of 41 lines are malformed, .*\n  cat\.ndjson:41: no field 'key_id'"),
    ],
    "coordinates beyond 1,000,000, more than 10,000 points, a line of more than 100,000 pixels": [
        ({"cat.ndjson": joined([line(drawing=[SCRIBBLE])])}, {}, "a line of more than 100,000 pix"),
        ({"cat.ndjson": joined([line(drawing=[[[0, 1e7], [0, 1]]])])}, {}, "beyond 1,000,000 pix"),
        ({"cat.ndjson": joined([line(drawing=[[[*range(10_001)]] * 2])])}, {}, "more than 10,000"),
    ],
    "raw coordinates with `form: simplified`": [
        ({"cat.ndjson": joined([line(drawing=[[[0, 256], [0, 1]]])])}, {"form": "simplified"},
         "a coordinate is not an integer in 0 to 255; raw drawings are not `simplified`"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("row", DATA)
def test_a_data_set_is_prepared_or_refused(
    row: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ostinato")
    for number, (files, options, told) in enumerate(DATA[row]):
        folder = tmp_path / str(number)
        form = options.pop("form", "raw") if "form" in options else "raw"
        fetch(folder, str(write(folder / "mine", files)), form=form)
        caplog.clear()
        try:
            prepare(folder, **options)
            found = caplog.text
        except DataError as error:
            found = str(error)
        with pytest.raises(AssertionError, match=f"(?s){told}"):
            raise AssertionError(found)


def test_words_come_through_as_they_are(tmp_path: Path) -> None:
    """Also for tensorflow-datasets, which lists one class name a line and strips them."""
    import tensorflow_datasets as tfds

    words = ["caf\u00e9 au lait", "\u732b \U0001f408", "a/b", "(x), [y]", " hot dog\u00a0", "cat"]
    lines = [text for word in words for text in numbered(20, word)]
    fetch(tmp_path, str(write(tmp_path / "mine", {"x.ndjson": joined(lines)})), "word")
    manifest = prepare(tmp_path)
    assert manifest.classes == sorted(word.strip() for word in words)
    builder = tfds.builder_from_directory(tmp_path / "data")
    assert builder.info.features["label"].names == manifest.classes


# SketchRNN's files


def npz(path: Path, **arrays: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in arrays.items():
            content = io.BytesIO()
            np.save(content, value, allow_pickle=True)
            archive.writestr(f"{key}.npy", content.getvalue())
    return path


def objects(arrays: list[Any]) -> np.ndarray:
    array = np.empty(len(arrays), object)
    array[:] = arrays
    return array


RNG = np.random.default_rng(0)
DRAWN = [np.c_[RNG.integers(-9, 9, (n, 2)), RNG.integers(0, 2, n)] for n in (4, 7, 5)]
EQUAL = np.c_[RNG.integers(-9, 9, (4, 9, 2)), RNG.integers(0, 2, (4, 9, 1))]
NPZ: dict[str, list[tuple[Any, Any]]] = {
    "`.npz`: object arrays of any type of number, byte order and memory order": [
        (objects([np.asarray(d, code, order="F") for d in DRAWN]), DRAWN)
        for code in ("<i2", ">i2", "i1", "<f4", ">f8", "<i8")
    ],
    "`.npz`: drawings of one length, saved as one array": [
        (EQUAL.astype(kind), list(EQUAL)) for kind in ("<i2", ">f4", object)
    ] + [(np.asfortranarray(EQUAL), list(EQUAL))],
    "`.npz`: an empty split": [(np.array([]), []), (objects([]), []), (np.empty((0, 9, 3)), [])],
    "`.npz`: drawings of another shape, stroke-5, lists": [
        (objects([np.zeros((9, 4), "<i2")]), r"drawing 0 is an array \(9, 4\); expected"),
        (objects([DRAWN[0], np.zeros((9, 5))]), r"drawing 1 is an array \(9, 5\).*stroke-5"),
        (objects([DRAWN[0].tolist()]), "drawing 0 is not an array but a list"),
        (np.zeros((5, 3)), r"expected an object array of drawings, found an array \(5, 3\)"),
        (np.zeros((5, 9, 4)), r"drawing 0 is an array \(9, 4\)"),
        (objects([DRAWN[0][:, [2, 0, 1]]]), "in its third column; expected 1 where the pen lifts"),
        (objects([DRAWN[0] * (1.0, np.nan, 1.0)]), "not finite"),
        (objects([DRAWN[0] * (1e300, 1.0, 1.0)]), "offset beyond 1,000,000"),
    ],
    "`.npz`: no train, valid or test": [
        (None, r"contains no valid\.npy, found test\.npy, train\.npy, validation\.npy; expected"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("row", NPZ)
def test_an_npz_file_is_read_or_refused(row: str, tmp_path: Path) -> None:
    for number, (train, expected) in enumerate(NPZ[row]):
        path, rest = tmp_path / f"{number}.npz", objects(DRAWN)
        if train is None:
            npz(path, train=rest, validation=rest, test=rest)
        else:
            npz(path, train=train, valid=rest, test=rest)
        if isinstance(expected, str):
            with pytest.raises(ArchiveError, match=rf"{number}\.npz: .*{expected}"):
                read_npz(path)
        else:
            found = read_npz(path)
            assert len(found["train"]) == len(expected)
            assert all(map(np.array_equal, found["train"], expected))
            assert all(map(np.array_equal, found["valid"], DRAWN))


# Requests to a served model


@pytest.fixture
def service(tmp_path: Path) -> serving.DrawingService:
    """A model whose probabilities are a function of the first offset."""
    details = {"kind": "strokes", "scale": 1.0, "shards": 1}
    manifest = Manifest("x", "drawings", {}, classes=["ant", "bee", "cat"], details=details)

    def predictor(x: np.ndarray) -> np.ndarray:
        ink = np.abs(x[:, :, :2]).sum(axis=(1, 2))[:, None] * [1e-3, 2e-3, 4e-3]
        return np.asarray(ink / ink.sum(axis=1, keepdims=True))

    return serving.DrawingService(predictor, dataset.Dataset(tmp_path, manifest), 100)  # type: ignore[arg-type]


SAME: list[Any] = [
    STROKES,
    timed(STROKES),
    PRESSURE,
    [*STROKES, [[], []]],
    [[[3 * v + 5 for v in axis] for axis in stroke] for stroke in STROKES],
    [[[v for v in axis for _ in range(2)] for axis in stroke] for stroke in STROKES],
    [[np.array(axis, np.float32) for axis in stroke] for stroke in STROKES],
]
NESTED: Any = 1
for _ in range(400):
    NESTED = [NESTED]
REQUESTS: dict[str, list[tuple[Any, dict[str, Any], str]]] = {
    "request: other units, times, pressure, repeated points, an empty stroke, NumPy arrays": [
        (strokes, {}, "") for strokes in SAME
    ],
    "request: strokes that a file may not have either": [
        (transposed(timed(STROKES)), {}, "drawing 1: .*may be points"),
        (OBJECTS, {}, "drawing 1: stroke 0 has an object in place of xs"),
        ([{"x": [1], "y": [2]}], {}, "drawing 1: stroke 0 is an object"),
        ([[["1", "2"], ["3", "4"]]], {}, 'drawing 1: stroke 0 has "1" in xs'),
        ([[[1, float("nan")], [3, 4]]], {}, "drawing 1: stroke 0 has null in xs"),
        ([[[1, 1e40], [3, 4]]], {}, "drawing 1: a coordinate is beyond 1,000,000"),
        ([[[1, 10**30], [3, 4]]], {}, "drawing 1: strokes are not lists of numbers"),
        ([[[0] * 10_001, [*range(10_001)]]], {}, "drawing 1: more than 10,000 points"),
        ([SCRIBBLE], {}, "drawing 1: a line of more than 100,000 pixels"),
        (NESTED, {}, "drawing 1: strokes are not lists of numbers: Recursion"),
        ("\0", {}, "drawing 1: drawing is a string"),
        ([], {}, "drawing 1: no ink"),
    ],
    "request: `top_k` below 0, or no whole number": [
        (STROKES, {"top_k": top_k}, f"top_k: found {top_k}; expected the number of classes")
        for top_k in (-1, -100, 2.5, True, None)
    ],
    "request: `top_k` above the number of classes": [(STROKES, {"top_k": 10**9}, "")],
}


@pytest.mark.parametrize("row", REQUESTS)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_request_is_answered_or_refused(row: str, service: serving.DrawingService) -> None:
    good = serving.Input.model_validate({"strokes": STROKES})
    (right,) = service.predict([good], {})
    assert set(right.probabilities) == {"ant", "bee", "cat"}
    for strokes, options, reason in REQUESTS[row]:
        inputs = [good, serving.Input.model_validate({"strokes": strokes})]
        if reason:
            with pytest.raises(RequestError, match=f"^{reason}") as raised:
                service.predict(inputs, options)
            assert len(str(raised.value)) < 300
        else:
            assert service.predict(inputs, options) == [right, right]


# Films of drawings


def film(folder: Path, pace: str = "ink") -> dict[str, Any]:
    """The manifest of the films of the drawings in ``folder/mine``."""
    (folder / "films").mkdir(parents=True)
    (folder / "scratch").mkdir()
    mine = {"path": str(folder / "mine"), "form": "raw", "label": "file"}
    videos.animated_sketches(
        folder / "films", folder / "scratch", 0, drawings={"source": "folder", "folder": mine},
        frames=3, size=8, pen=1.5, pace=pace,  # type: ignore[arg-type]
    )  # fmt: skip
    manifest: dict[str, Any] = orjson.loads((folder / "films" / "manifest.json").read_bytes())
    return manifest


def prepare_films(folder: Path, tolerated_rejects: float) -> None:
    (folder / "clips").mkdir()
    video_dataset.prepare(
        folder / "films", folder / "clips", tolerated_rejects=tolerated_rejects, validation=0.3,
        test=0.3, group=None, frames=3, frame_rate=None, frame_sampling="uniform", clips=1,
        height=8, width=8, colour="grey", max_pixels=10**6, augment=NO_AUGMENT, shard_size=100,
        workers=1,
    )  # fmt: skip


NO_AUGMENT: Any = {"flip": False, "crop": 0.0, "jitter": 0.0, "brightness": 0.0}
NULL = line(drawing=[[[1, None], [3, 4]]], key_id="null")
TAP = line(drawing=[[[3, 3], [4, 4]]], key_id="tap")
SHORT = line(drawing=[[[1, 2, 3], [4, 5, 6], [0, 1]]], key_id="short")
FAR = line(drawing=[[[0, 1e7], [0, 1]]], key_id="far")
TEXT = line(drawing=[[["0", "1"], [0, 1]]], key_id="text")
EMPTY = line(drawing=[*STROKES, [[], [], []]], key_id="empty")


def films_are_the_drawings_of_a_data_set(folder: Path) -> None:
    lines = [*numbered(20), NULL, TAP, SHORT, FAR, TEXT, EMPTY]
    write(folder / "mine", {"cat.ndjson": joined(lines)})
    fetch(folder, str(folder / "mine"))
    manifest = prepare(folder, tolerated_rejects=0.5)
    data = dataset.load(folder / "data")
    keys = {key for split in manifest.splits for key in data.examples(split).keys.tolist()}
    films = film(folder)
    assert {video["key"] for video in films["videos"]} == keys
    assert films["drawings"]["malformed"] == manifest.details["malformed"] == 4
    told = r"(?s)4 of 25 videos .*cat\.ndjson:21: unreadable: stroke 0 has null"
    with pytest.raises(DataError, match=told):
        prepare_films(folder, 0.1)
    shutil.rmtree(folder / "clips")
    prepare_films(folder, 0.2)
    rejects = (folder / "clips" / "rejects.ndjson").read_bytes().splitlines()
    assert [orjson.loads(reject)["path"] for reject in rejects] == [
        f"cat.ndjson:{number}" for number in (21, 23, 24, 25)
    ]


def films_are_made_of_the_first_of_identical_drawings(folder: Path) -> None:
    again = [orjson.dumps(orjson.loads(text) | {"key_id": "again"}) for text in numbered(1)]
    lines = [*numbered(20), *numbered(20), *again]
    dogs = [orjson.dumps(orjson.loads(text) | {"key_id": "other"}) for text in numbered(1)]
    write(folder / "mine", {"cat.ndjson": joined(lines), "dog.ndjson": joined(dogs)})
    fetch(folder, str(folder / "mine"))
    manifest = prepare(folder)
    data = dataset.load(folder / "data")
    keys = {key for split in manifest.splits for key in data.examples(split).keys.tolist()}
    assert keys == {f"cat{i}" for i in range(20)} | {"other"}
    assert {video["key"] for video in film(folder)["videos"]} == keys


def films_need_a_drawing_of_each_category(folder: Path) -> None:
    for number, (bad, reason) in enumerate(
        [(NULL, r"left of 'dog'; 1 lines.*\n  dog\.ndjson:1: stroke 0 has null"),
         (TAP, "left of 'dog'; 0 lines are malformed, all others have no ink")]
    ):  # fmt: skip
        write(folder / str(number) / "mine", {"cat.ndjson": CATS, "dog.ndjson": joined([bad])})
        with pytest.raises(SourceError, match=f"(?s){reason}"):
            film(folder / str(number))


def films_have_different_keys(folder: Path) -> None:
    write(folder / "mine", TWICE)
    with pytest.raises(
        SourceError, match=r"cat.ndjson:1 and hen.ndjson:1 have the same key_id '0'"
    ):
        film(folder)


def any_key_names_a_film(folder: Path) -> None:
    keys = ["user1/cat7", "12:30:00", "..", "x" * 300, "a%2Fb", "a/b", "caf\u00e9", "\0"]
    lines = [line(key_id=key, drawing=[[[0, i], [3, 4]]]) for i, key in enumerate(keys)]
    write(folder / "mine", {"cat.ndjson": joined(lines)})
    found = film(folder)["videos"]
    assert [video["key"] for video in found] == keys
    paths = [folder / "films" / video["path"] for video in found]
    assert len(set(paths)) == len(keys)
    assert all(path.is_file() and path.parent.name == "cat" for path in paths)
    assert paths[6].name == "caf\u00e9.gif"
    assert [file_name(word) for word in ("hot dog", "a/b", ".a")] == ["hot dog", "a%2Fb", "%2Ea"]


def films_have_times_that_grow(folder: Path) -> None:
    back = line(drawing=timed(STROKES), key_id="back")  # the times of each stroke begin at 0
    times = line(drawing=[[[1, 2, 3], [4, 5, 6], [0, 16, 16]]], key_id="good")
    write(folder / "mine", {"cat.ndjson": joined([back, times])})
    manifest = film(folder, "time")
    assert [video["key"] for video in manifest["videos"]] == ["good"]
    (reject,) = manifest["rejects"]
    assert reject == {
        "path": "cat.ndjson:1", "reason": "unreadable",
        "found": "its times go back; set `pace: ink`",
    }  # fmt: skip
    write(folder / "untimed" / "mine", {"cat.ndjson": joined([line()])})
    with pytest.raises(SourceError, match=r"cat.ndjson:1: drawing 1 has no times; set `pace: ink`"):
        film(folder / "untimed", "time")


FILMS = {
    "films: any of the lines above": films_are_the_drawings_of_a_data_set,
    "films: the same drawing twice in a category": (
        films_are_made_of_the_first_of_identical_drawings
    ),
    "films: a category of which no drawing is left": films_need_a_drawing_of_each_category,
    "films: the same `key_id` in several drawings": films_have_different_keys,
    "films: a `key_id` with a slash, a colon or 300 letters": any_key_names_a_film,
    "films: times that go back or are missing, with `pace: time`": films_have_times_that_grow,
}


@pytest.mark.parametrize("row", FILMS)
def test_films_are_made_by_the_same_rules(row: str, tmp_path: Path) -> None:
    FILMS[row](tmp_path)


def test_the_table_of_the_page_has_these_rows() -> None:
    page = (ROOT / "docs" / "formats.md").read_text()
    section = page.partition("\n## Drawings\n")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0][2:] for row in section.splitlines() if row.startswith("| ")]
    assert rows[1:] == [*FILES, *LINES, *DATA, *NPZ, *REQUESTS, *FILMS]
