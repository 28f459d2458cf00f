"""QuickDraw's ndjson and pen strokes: parsers agree, Google's simplification, round trips."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ostinato import errors
from ostinato.sketches.formats import quickdraw, scanner, strokes

REAL = Path(__file__).parents[2] / "shared" / "data" / "quickdraw_dataset" / "full"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"real drawings are not at {REAL}")


def drawings(text: bytes) -> dict[int, tuple[Any, ...]]:
    """The drawings and rejects of `parse`, by line."""
    parsed, rejects = quickdraw.parse(text)
    found: dict[int, tuple[Any, ...]] = {line: ("malformed", reason) for line, reason in rejects}
    tracks = np.split(parsed.points, parsed.strokes[:-1]) if len(parsed.strokes) else []
    first = 0
    for i, last in enumerate(parsed.drawings):
        spans = [parsed.text[slice(*column[i])].tobytes() for column in (parsed.words, parsed.keys)]
        assert parsed.lines[i] not in found
        inked = [track.tolist() for track in tracks[first:last]]
        found[int(parsed.lines[i])] = (*spans, int(parsed.recognised[i]), inked)
        first = last
    return found


def slowly(text: bytes) -> dict[int, tuple[Any, ...]]:
    """The same with `read_line` alone."""
    found: dict[int, tuple[Any, ...]] = {}
    for number, line in enumerate(text.split(b"\n")):
        if line.strip(b" \t\r"):
            try:
                drawing = quickdraw.read_line(line)
                recognised = -1 if drawing.recognised is None else int(drawing.recognised)
                tracks = [track.tolist() for track in drawing.strokes]
                found[number] = (drawing.word.encode(), drawing.key.encode(), recognised, tracks)
            except errors.MalformedError as reason:
                found[number] = ("malformed", str(reason))
    return found


numbers = st.one_of(
    st.integers(0, 255),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 2000, width=32),
    st.decimals(-999, 999, places=4).map(float),
)
axes = st.lists(numbers, max_size=5)
tracks = st.one_of(
    axes.flatmap(lambda x: st.tuples(st.just(x), st.permutations(x))).map(list),
    st.lists(axes, max_size=4),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
usual = {
    "word": st.sampled_from(["cat", "sea turtle", "", "é", 'a"b']),
    "key_id": st.from_regex("[0-9]{16}", fullmatch=True),
    "recognized": st.booleans(),
    "drawing": st.lists(tracks, max_size=3),
}
odd = {name: st.one_of(kind, junk) for name, kind in usual.items()} | {"countrycode": junk}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line of ndjson: as QuickDraw writes it, unusual, or broken."""
    chosen = draw(st.sampled_from([usual, odd]))
    names = draw(st.permutations(sorted(chosen)))
    if draw(st.integers(0, 9)) == 0:
        names = names[1:]
    value = {name: draw(chosen[name]) for name in names}
    ascii_only = draw(st.booleans())
    blanks = draw(st.sampled_from([(",", ":"), (", ", ": "), (" \t,  ", "\r :\t")]))
    line = json.dumps(value, separators=blanks, ensure_ascii=ascii_only).encode()
    if draw(st.integers(0, 4)) == 0:  # break it
        at, stop = draw(st.integers(0, len(line))), draw(st.integers(0, 3))
        middle = draw(st.sampled_from([b"", b",", b"]", b"-", b".", b"0", b"e1", b'"', b"\x80"]))
        line = line[:at] + middle + line[at + stop :]
    return line.replace(b"\n", b" ")


@given(st.lists(st.one_of(lines(), st.sampled_from([b"", b"  \r"])), max_size=6))
@settings(max_examples=400)
@example([b'{"key_id":"1","drawing":[[[01],[1]]]}', b'{"key_id":"1","drawing":[[[1.],[1]]]}'])
@example([b'{"key_id":"1","drawing":[[[-],[1]]]}', b'{"key_id":"1","drawing":[[[-0],[1]]]}'])
@example([b'{"key_id":"1","drawing":[[[1],[2]]]} x', b'{"key_id":"1","drawing":[]}]'])
@example([b'{"key_id":"1","drawing":[[[1],[2]]],"drawing":[]}', b'{"key_id":1,"drawing":[]}'])
@example([b'{"key_id":"1","drawing":[[[12345678901234567890.5],[291.1999969482422]]]}'])
@example([b'{"key_id":"1","drawing":[[[1,2],[3,4],[0,"a"]]]}', b'{"key_id":"1","drawing":[[]]}'])
def test_the_scanner_and_the_general_parser_agree_on_every_line(found: list[bytes]) -> None:
    text = b"\n".join(found)
    assert drawings(text) == slowly(text)


def test_the_scanner_reads_lines_as_quickdraw_writes_them() -> None:
    line = (
        b'{"word":"cat","countrycode":"VE","timestamp":"2017-03-02 23:25:10.07453 UTC",'
        b'"recognized":true,"key_id":"5201136883597312",'
        b'"drawing":[[[130,113.25],[72,-8.5],[0,9]],[[7],[8],[10]]]}'
    )
    points, _, _, unread = scanner.scan(np.frombuffer(line, np.uint8))
    assert len(unread) == 0
    assert points.tolist() == [[130, 72], [113.25, -8.5], [7, 8]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"key_id":"1","drawing":[[[1],[2]]]', "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"drawing":[[[1],[2]]]}', "no field 'key_id'"),
        (b'{"key_id":"1"}', "no field 'drawing'"),
        (b'{"key_id":"1","drawing":[[[1,2],[2]]]}', "stroke 0 has 2 x and 1 y"),
        (
            b'{"key_id":"1","drawing":[[[1],[2]],[[1],["2"]]]}',
            'stroke 1 has "2" in ys, which is not a number',
        ),
        (
            b'{"key_id":"1","drawing":[[[1],[true]]]}',
            "stroke 0 has true in ys, which is not a number",
        ),
        (b'{"key_id":"1","drawing":[[[1]]]}', "stroke 0 has one list; expected two"),
        (b'{"key_id":"1","drawing":[[[1],[NaN]]]}', "not JSON"),
        (b'{"key_id":null,"drawing":[]}', "key_id is null; expected a string or an integer"),
        (
            b'{"key_id":"1","recognized":1,"drawing":[]}',
            "recognized is 1; expected true, false or null",
        ),
    ],
)
def test_a_malformed_line_is_reported_with_its_reason(line: bytes, reason: str) -> None:
    found, rejects = quickdraw.parse(b"\n" + line + b"\n")
    assert len(found.drawings) == 0
    assert len(rejects) == 1
    assert rejects[0][0] == 1
    assert rejects[0][1].startswith(reason)


def test_each_fault_has_its_reason() -> None:
    def fault(drawing: list[Any], simplified: bool) -> int:
        line = orjson.dumps({"key_id": "1", "drawing": drawing})
        return int(quickdraw.check(*quickdraw.parse(line)[0][1:4], simplified)[0])

    fine = [[[0, 255], [7, 7]]]
    assert fault(fine, True) == fault(fine, False) == 0
    assert "0 to 255" in quickdraw.FAULTS[fault([[[0, 256], [7, 7]]], True)]
    assert "0 to 255" in quickdraw.FAULTS[fault([[[0, 1.5], [7, 7]]], True)]
    assert fault([[[-9.5, 1.5], [7, 700]]], False) == 0
    assert "beyond" in quickdraw.FAULTS[fault([[[0, 1e7], [7, 7]]], False)]
    assert "more than" in quickdraw.FAULTS[fault([[list(range(10_001))] * 2], False)]
    empty: list[Any] = [[], [[[], []]], [[[3], [4]]], [[[3, 3], [4, 4]], [[3], [4]]]]
    for nothing in empty:
        assert fault(nothing, True) == fault(nothing, False) == quickdraw.NO_INK


def test_times_are_read_on_request() -> None:
    line = b'{"key_id":"1","drawing":[[[1,2],[3,4],[0,9]],[[5],[6]]]}'
    assert [s.tolist() for s in quickdraw.read_line(line, times=True).strokes] == [
        [[1, 3, 0], [2, 4, 9]],
        [[5, 6]],
    ]
    assert [s.shape for s in quickdraw.read_line(line).strokes] == [(2, 2), (1, 2)]
    for times in (True, False):
        with pytest.raises(errors.MalformedError, match="2 points and 1 times"):
            quickdraw.read_line(line.replace(b"[0,9]", b"[0]"), times=times)


def test_a_written_line_is_read_again() -> None:
    strokes_ = [np.array([[1.0, 2.25], [3.0, 4.0]]), np.array([[5.0, 6.0]])]
    line = quickdraw.write_line(key="7", word="cat", strokes=strokes_, times=[[0, 16], [400]])
    drawing = quickdraw.read_line(line, times=True)
    assert (drawing.key, drawing.word, drawing.recognised) == ("7", "cat", True)
    assert [s.tolist() for s in drawing.strokes] == [[[1, 2.2, 0], [3, 4, 16]], [[5, 6, 400]]]


def test_drawings_are_found_by_key(tmp_path: Path) -> None:
    lines = [f'{{"key_id":"{key}","drawing":[[[{x}],[0]]]}}' for x, key in enumerate("abcab")]
    (tmp_path / "x.ndjson").write_text("\n".join([*lines, "{broken", '{"key_id":"c"}', "7"]))
    found, repeated = quickdraw.find(tmp_path / "x.ndjson", {"a", "c", "z"})
    assert {key: drawing.strokes[0].tolist() for key, drawing in found.items()} == {
        "a": [[3, 0]],
        "c": [[2, 0]],
    }
    assert repeated == {"a"}


def test_a_file_that_ends_within_a_line_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    for content, truncated in (
        (b"", False), (b'{"a":1}\n', False), (b'{"a":1}', False), (b'{"a":1}\n{"a"', True),
    ):  # fmt: skip
        path.write_bytes(content)
        assert quickdraw.is_truncated(path) == truncated


@real
def test_simplification_reproduces_googles_files() -> None:
    same = total = 0
    for file in sorted((REAL / "simplified").glob("*.ndjson")):
        lines = (REAL / "raw" / file.name).read_bytes().splitlines()
        raw = {drawing["key_id"]: drawing["drawing"] for drawing in map(orjson.loads, lines)}
        for google in map(orjson.loads, file.read_bytes().splitlines()):
            if google["key_id"] in raw:
                tracks = [np.array(stroke[:2], float).T for stroke in raw[google["key_id"]]]
                found = [stroke.T.tolist() for stroke in strokes.simplify(tracks)]
                same += found == google["drawing"]
                total += 1
    assert total > 3000
    assert same / total >= 0.99  # 2 of 3,445 differ


coordinates = st.floats(-2000, 2000, width=32)
pens = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20).map(np.array)


def from_line(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of points to the line through a and b."""
    if (a == b).all():
        return np.asarray(np.hypot(*(points - a).T))
    across, down = (b - a) / np.hypot(*(b - a))
    return np.asarray(np.abs((points - a) @ [down, -across]))


@given(st.lists(pens, min_size=1, max_size=4))
@example([np.array([[0.0, 0.0], [510.0, 0.0], [1.0, 0.0]])])  # beyond its end and back
@settings(max_examples=100)
def test_simplified_drawings_fill_the_box_within_the_tolerance(
    drawn: list[np.ndarray],
) -> None:
    corner = np.concatenate(drawn).min(axis=0)
    extent = np.ptp(np.concatenate(drawn), axis=0).max()
    simple = strokes.simplify(drawn)
    assert len(simple) == len(drawn)
    for track, corners in zip(drawn, simple, strict=True):
        boxed = (track - corner) * 255 / extent if extent else track - corner
        assert corners.min() >= 0
        assert corners.max() <= 255
        assert len(corners) >= 2
        ends = np.rint(boxed[[0, -1]])
        np.testing.assert_array_equal(corners[[0, -1]], ends)
        # Every point of the track is within epsilon of the line through two neighbouring corners,
        # as they were before they were rounded: of a short line rounding changes the direction.
        fine = strokes._resampled(boxed)
        rounded = np.rint(fine)
        places = [np.flatnonzero((rounded == place).all(axis=1)) for place in corners]
        lines = [(i, j) for a, b in pairwise(places) for i in a for j in b if i < j]
        near = np.full(len(fine), np.inf)
        for i, j in lines:
            near = np.minimum(near, from_line(fine, fine[i], fine[j]))
        assert near.max() <= 2.001


@given(st.lists(pens, min_size=1, max_size=3), st.integers(-500, 500), st.sampled_from([0.5, 2, 4]))
@settings(max_examples=50)
def test_simplification_is_invariant_to_translation_and_scale(
    drawn: list[np.ndarray], shift: int, size: float
) -> None:
    drawn = [np.rint(track) for track in drawn]  # so that moving and scaling are exact
    moved = [track * size + shift * size for track in drawn]
    if np.ptp(np.concatenate(drawn), axis=0).max() > 0:
        for a, b in zip(strokes.simplify(drawn), strokes.simplify(moved), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "wrong", [[], [np.zeros((0, 2))], [np.zeros((3, 3))], [np.array([[0.0, np.nan]])]]
)
def test_invalid_strokes_are_an_error(wrong: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"stroke|coordinate"):
        strokes.simplify(wrong)


boxes = st.lists(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=9).map(
        lambda points: np.array(points, np.int16)
    ),
    max_size=6,
)


@given(boxes)
def test_stroke3_is_lossless(drawn: list[np.ndarray]) -> None:
    rows = strokes.to_stroke3(drawn)
    assert rows.dtype == np.int16
    back = strokes.from_stroke3(rows)
    assert [track.tolist() for track in back] == [track.tolist() for track in drawn]


@given(boxes, st.integers(0, 7))
def test_stroke5_is_lossless(drawn: list[np.ndarray], room: int) -> None:
    rows = strokes.to_stroke3(drawn)
    five = strokes.to_stroke5(rows, len(rows) + room)
    assert (five[:, 2:].sum(axis=1) == 1).all()
    np.testing.assert_array_equal(strokes.from_stroke5(five), rows)
    if len(rows):
        with pytest.raises(ValueError, match="do not fit"):
            strokes.to_stroke5(rows, len(rows) - 1)


def test_stroke3_of_a_small_drawing() -> None:
    drawn = [np.array([[3, 4], [5, 4]], np.int16), np.array([[0, 9]], np.int16)]
    assert strokes.to_stroke3(drawn).tolist() == [[3, 4, 0], [2, 0, 1], [-5, 5, 1]]
    assert strokes.to_stroke5(strokes.to_stroke3(drawn), 4).tolist() == [
        [3, 4, 1, 0, 0],
        [2, 0, 0, 1, 0],
        [-5, 5, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_code_is_compiled_where_no_folder_can_be_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As for a user without a home, who runs the code of another user."""
    import numba

    njit = numba.njit

    def without_cache(*arguments: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'double': no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_cache)

    def double(x: float) -> float:
        return 2 * x

    assert strokes.compiled(double)(1.5) == 3
