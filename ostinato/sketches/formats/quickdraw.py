"""QuickDraw's ndjson format: the only reader and writer of it.

A line is a JSON object with ``key_id``, ``drawing`` (a list of strokes), and optionally ``word``
(the category) and ``recognized``. A stroke is ``[xs, ys]``, or ``[xs, ys, times]`` with times in
milliseconds; further lists, such as pressure, are not read. All lists of a stroke have the same
length. Format: github.com/googlecreativelab/quickdraw-dataset.

`parse` reads millions of lines into columns: a compiled scanner reads lines as QuickDraw's files
hold them, several times faster than a JSON parser. It leaves every other line (escapes, exponents,
nested extra fields, errors) to `read_line`, which alone decides what is malformed and why, so both
agree on every line.
"""

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from jaxtyping import Bool, Float64, Integer, Real, UInt8

from ostinato.errors import MalformedError
from ostinato.sketches.formats.raw import RawManifest
from ostinato.sketches.formats.scanner import scan
from ostinato.sketches.formats.strokes import BOX, MAX_COORDINATE, compiled

MAX_POINTS = 10_000  # of a drawing; a larger one was not drawn by a person
MAX_INK = 100_000
"""Length of a drawing's line, in pixels of the box of 255 that it fills.

The time of the simplification grows with its square. The longest of 7,789 drawings by hand has
36,000 pixels.
"""
MAX_POINT_VALUES = 4
"""Most values of a point in the layout ``[[x, y], ...]`` or ``[[x, y, time, pressure], ...]``.

It is not that of this format, and refused. A drawing has it, as far as can be told, if all its
lists have the same length, 2 to 4, and a stroke has at least three lists, and at least as many as
they have values; unless these are three lists, of which the third can be times, which begin at 0
and never go back.
"""

HEAD_BYTES = 1 << 16  # of a file, from which its layout is told
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Drawing:
    """A drawing of an ndjson file.

    Args:
        key: ``key_id``.
        word: the category; empty if the line has none.
        recognised: whether Google's game recognised the drawing; None if the line does not say.
        strokes: in drawing order, without empty ones: (point, 2) of x and y in pixels, or
            (point, 3) with the times in milliseconds.
    """

    key: str
    word: str
    recognised: bool | None
    strokes: list[Float64[np.ndarray, "_ _"]]


class ParsedText(NamedTuple):
    """The drawings of a text, as columns with a row for each drawing, and their points."""

    text: UInt8[np.ndarray, " byte"]
    """The bytes that the spans of ``keys`` and ``words`` index."""
    points: Float64[np.ndarray, "point 2"]
    """x and y."""
    strokes: Integer[np.ndarray, " stroke"]
    """The end of each stroke in ``points``."""
    drawings: Integer[np.ndarray, " drawing"]
    """The end of each drawing in ``strokes``."""
    lines: Integer[np.ndarray, " drawing"]
    """The line number in the text, from 0."""
    keys: Integer[np.ndarray, "drawing 2"]
    """The span of ``key_id``."""
    words: Integer[np.ndarray, "drawing 2"]
    """The span of ``word``; empty if there is none."""
    recognised: Integer[np.ndarray, " drawing"]
    """1, 0, or -1 if the line does not say."""


def parse(text: bytes) -> tuple[ParsedText, list[tuple[int, str]]]:
    """Read the drawings of an ndjson text; blank lines are skipped.

    Returns:
        The drawings (those that `read_line` read come last), and (line, reason) of each malformed
        line, in the order of lines.
    """
    source = np.frombuffer(text, np.uint8)
    points, strokes, rows, unread = scan(source)
    drawings, lines, keys, words = rows[:, 0], rows[:, 1], rows[:, 2:4], rows[:, 4:6]
    parts = [ParsedText(source, points, strokes, drawings, lines, keys, words, rows[:, 6])]
    rejects = []
    end = len(text)
    for line, start, stop in unread.tolist():
        try:
            drawing = read_line(text[start:stop])
        except MalformedError as reason:
            rejects.append((line, str(reason)))
            continue
        key, word = drawing.key.encode(), drawing.word.encode()
        part = ParsedText(
            np.frombuffer(key + word, np.uint8),
            np.concatenate([np.empty((0, 2)), *drawing.strokes]),
            np.cumsum([len(stroke) for stroke in drawing.strokes], dtype=np.int64),
            np.array([len(drawing.strokes)]),
            np.array([line]),
            np.array([[0, len(key)]]) + end,
            np.array([[len(key), len(key + word)]]) + end,
            np.array([-1 if drawing.recognised is None else int(drawing.recognised)]),
        )
        end += len(key + word)
        parts.append(part)
    return (_joined(parts) if len(parts) > 1 else parts[0]), rejects


def read_line(line: bytes, *, times: bool = False) -> Drawing:
    """Read one drawing with a general JSON parser.

    Args:
        line: the bytes of one line.
        times: also return the times of strokes that have them.

    Raises:
        MalformedError: with the reason.
    """
    return _drawing_of(_fields_of(line), times)


def _fields_of(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line.removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError as error:
        hint = "; JSON has no NaN and no Infinity" if re.search(rb"NaN|Infinity", line) else ""
        raise MalformedError(f"not JSON: {error}{hint}") from None
    if not isinstance(fields, dict):
        raise MalformedError(
            f"not a JSON object but {_described(fields)}; expected one object on each line"
        )
    return fields


def read_file(path: Path) -> Iterator[tuple[int, Drawing | MalformedError]]:
    """Read the drawings of a file one by one, with times; blank lines are skipped.

    Yields:
        The number of a line, from 1, and its drawing, or the reason why it is malformed.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip(b" \t\r\n"):
                try:
                    yield number, read_line(line.rstrip(b"\n"), times=True)
                except MalformedError as reason:
                    yield number, reason


def read_folder(
    folder: Path, manifest: RawManifest
) -> Iterator[tuple[str, int, str, Drawing | MalformedError]]:
    """Read a folder of raw drawings one by one, with times, by the rules of `prepare`.

    Drawings without ink are left out.

    Yields:
        File, line from 1, category, and the drawing, or the reason why it is malformed.
    """
    for file in manifest.files:
        for number, drawing in read_file(folder / file.path):
            if isinstance(drawing, MalformedError):
                yield file.path, number, "", drawing
                continue
            category = file.category or drawing.word
            fault = fault_of(drawing.strokes, manifest.form == "simplified")
            if not category:
                fault = NO_WORD
            if fault != NO_INK:
                found = MalformedError(FAULTS[fault]) if fault else drawing
                yield file.path, number, category, found


def find(path: Path, keys: Collection[str]) -> tuple[dict[str, Drawing], set[str]]:
    """Find drawings by key; malformed lines are skipped.

    Returns:
        The last drawing of the file with each of the keys, and the keys of several drawings.
    """
    found: dict[str, Drawing] = {}
    repeated = set()
    with path.open("rb") as lines:
        for line in lines:
            try:
                fields = orjson.loads(line.removeprefix(BYTE_ORDER_MARK))
                key = str(fields["key_id"])
                if key in keys:
                    drawing = _drawing_of(fields, times=False)
                    if key in found:
                        repeated.add(key)
                    found[key] = drawing
            except (orjson.JSONDecodeError, TypeError, KeyError, MalformedError):
                continue
    return found, repeated


def read_strokes(strokes: object) -> list[Float64[np.ndarray, "_ 2"]]:
    """Read the strokes of a drawing that has been parsed from JSON, or holds NumPy arrays.

    The rules are those of `read_line`.

    Raises:
        MalformedError: with the reason.
    """
    try:
        line = orjson.dumps(
            {"key_id": "request", "drawing": strokes}, option=orjson.OPT_SERIALIZE_NUMPY
        )
    except orjson.JSONEncodeError as error:
        raise MalformedError(f"strokes are not lists of numbers: {error}") from None
    return read_line(line).strokes


def write_line(
    *, key: str, word: str, strokes: Sequence[Real[np.ndarray, "_ 2"]], times: Sequence[list[int]]
) -> bytes:
    """Write one raw drawing, with a line feed, as one that Google's game recognised.

    Args:
        key: ``key_id``.
        word: the category.
        strokes: x and y in pixels, written with one decimal.
        times: of each stroke's points, in milliseconds.
    """
    drawing = [
        [*np.round(stroke, 1).T.tolist(), ticks]
        for stroke, ticks in zip(strokes, times, strict=True)
    ]
    return dump_line(key, word, drawing)


def dump_line(key: str, word: str, drawing: Sequence[Sequence[Sequence[float]]]) -> bytes:
    """Write one drawing as it is, with a line feed.

    Args:
        key: ``key_id``.
        word: the category.
        drawing: strokes of [xs, ys] or [xs, ys, times].
    """
    return orjson.dumps(
        {
            "word": word,
            "countrycode": "ZZ",  # ISO 3166: no country
            "timestamp": "1970-01-01 00:00:00.00000 UTC",
            "recognized": True,
            "key_id": key,
            "drawing": drawing,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def is_truncated(path: Path) -> bool:
    """Whether a file ends in the middle of a line."""
    with path.open("rb") as file:
        last = b"".join(deque(file, maxlen=1))
    if last.endswith(b"\n") or not last.strip():
        return False
    try:
        orjson.loads(last.removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError:
        return True
    return False


def layout_fault(path: Path) -> str | None:
    """Why a file as a whole is not ndjson, and what to do; None if it may be.

    Single lines are not judged: `read_line` does that.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    first = text.partition(b"\n")[0].strip()
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")):
        return "found a compressed file; unpack it"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        return "found text in UTF-16 or UTF-32, or binary data; save it as text in UTF-8"
    if first.startswith(b"["):
        return "found a JSON array; write one object on each line: jq -c '.[]' OLD > NEW"
    if first == b"{":
        return "found an object over several lines; write it on one line: jq -c . OLD > NEW"
    if b"\n" not in head and b"}\r" in head:
        return "found lines that end in CR only; end them in LF: tr '\\r' '\\n' < OLD > NEW"
    if is_truncated(path):
        return "it ends in the middle of a drawing; copy it again, or remove its last line"
    return None


def _drawing_of(fields: Mapping[str, Any], times: bool) -> Drawing:
    key, word, recognised = _about(fields)
    inked = _inked(fields["drawing"])
    strokes = [np.array(stroke[: 3 if times else 2], np.float64).T for stroke in inked]
    return Drawing(key, word, recognised, strokes)


def _about(fields: Mapping[str, Any]) -> tuple[str, str, bool | None]:
    """Key, word and whether the drawing was recognised."""
    for name in ("key_id", "drawing"):
        if name not in fields:
            raise MalformedError(f"no field {name!r}")
    key, word, recognised = fields["key_id"], fields.get("word", ""), fields.get("recognized")
    if type(key) is int:
        key = str(key)
    if not isinstance(key, str) or not key:
        raise MalformedError(f"key_id is {_described(key)}; expected a string or an integer")
    if not isinstance(word, str):
        raise MalformedError(f"word is {_described(word)}; expected a string")
    if re.search(CONTROLS, word):
        raise MalformedError("word has a line break or another control character")
    if not isinstance(recognised, bool | None):
        raise MalformedError(
            f"recognized is {_described(recognised)}; expected true, false or null"
        )
    return key, word.strip(), recognised


CONTROLS = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
"""Characters that no class name has: files that list one name a line would be misread."""


def _inked(drawing: object) -> list[list[list[float]]]:
    """The strokes that have points."""
    if isinstance(drawing, str):
        raise MalformedError("drawing is a string; expected a list: parse the string as JSON, too")
    if not isinstance(drawing, list):
        raise MalformedError(f"drawing is {_described(drawing)}; expected a list of strokes")
    for number, stroke in enumerate(drawing):
        _check_stroke(number, stroke)
    inked = [stroke for stroke in drawing if stroke and stroke[0]]
    _check_layout(inked)
    return inked


def _check_layout(strokes: Sequence[Sequence[list[float]]]) -> None:
    """Refuse strokes that may be lists of points, `MAX_POINT_VALUES`."""
    sizes = {len(values) for stroke in strokes for values in stroke}
    most = max(map(len, strokes), default=0)
    if len(sizes) != 1 or not 2 <= (size := max(sizes)) <= min(most, MAX_POINT_VALUES):
        return
    times = [time for stroke in strokes for values in stroke[2:3] for time in values]
    timed = most == 3 and times[0] == 0 and all(a <= b for a, b in pairwise(times))
    if most > 2 and not timed:
        raise MalformedError(
            f"the strokes are lists of {size} values, which may be points, such as "
            f"{_short(strokes[0][0])}; expected [xs, ys], or [xs, ys, times] with times from 0: "
            "transpose points, or leave out the times"
        )


NUMBERS = frozenset((int, float))


def _check_stroke(number: int, stroke: object) -> None:
    if not isinstance(stroke, list):
        raise MalformedError(f"stroke {number} is {_described(stroke)}; expected [xs, ys]")
    for name, values in zip(("xs", "ys", "times"), stroke, strict=False):
        if not isinstance(values, list):
            raise MalformedError(
                f"stroke {number} has {_described(values)} in place of {name}; expected lists: "
                "[xs, ys] or [xs, ys, times]"
            )
        if not NUMBERS.issuperset(map(type, values)):
            wrong = next(value for value in values if type(value) not in NUMBERS)
            raise MalformedError(
                f"stroke {number} has {_described(wrong)} in {name}, which is not a number"
            )
    if len(stroke) == 1:
        raise MalformedError(f"stroke {number} has one list; expected two: [xs, ys]")
    if stroke and len(stroke[0]) != len(stroke[1]):
        raise MalformedError(f"stroke {number} has {len(stroke[0])} x and {len(stroke[1])} y")
    for index, values in enumerate(stroke[2:], 2):
        name = "times" if index == 2 else f"values in list {index}"
        size = len(values) if isinstance(values, list) else 0
        if size != len(stroke[0]):
            raise MalformedError(f"stroke {number} has {len(stroke[0])} points and {size} {name}")


def _described(value: object) -> str:
    """A JSON value in an error message."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return _short(value)


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:40]}..."


def _joined(parts: Sequence[ParsedText]) -> ParsedText:
    columns = dict(
        zip(ParsedText._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True)
    )
    for name, target in (("strokes", "points"), ("drawings", "strokes")):
        sizes = [len(getattr(part, target)) for part in parts]
        shift = np.cumsum([0, *sizes[:-1]])
        columns[name] += np.repeat(shift, [len(getattr(part, name)) for part in parts])
    return ParsedText(**columns)


FAULTS = (
    "",
    "a coordinate is not an integer in 0 to 255; raw drawings are not `simplified`",
    f"a coordinate is beyond {MAX_COORDINATE:,.0f} pixels",
    f"more than {MAX_POINTS:,} points",
    "no field 'word'",
    "no ink: it has no points, or all points are equal",
    f"a line of more than {MAX_INK:,} pixels, in a box of {BOX} pixels",
)
"""Reasons why a drawing is not used; `check` returns indices into them."""

NO_WORD, NO_INK = 4, 5
"""Indices into `FAULTS`."""


def fault_of(strokes: Sequence[Float64[np.ndarray, "_ _"]], simplified: bool) -> int:
    """The fault of one drawing (see `check`)."""
    ends = np.cumsum([len(stroke) for stroke in strokes], dtype=np.int64)
    points = np.concatenate([np.empty((0, 2)), *(stroke[:, :2] for stroke in strokes)])
    return int(check(points, ends, np.array([len(ends)]), simplified)[0])


@compiled
def check(points, strokes, drawings, simplified):  # type: ignore[no-untyped-def]
    """The fault of each drawing: an index into `FAULTS`, 0 for none; never `NO_WORD`.

    Args:
        points: of all drawings, float64 (point, 2).
        strokes: end of each stroke in ``points``, int64 (stroke,).
        drawings: end of each drawing in ``strokes``, int64 (drawing,).
        simplified: whether coordinates must be integers in 0 to 255.
    """
    faults = np.zeros(len(drawings), np.int64)
    stroke = point = 0
    for drawing in range(len(drawings)):
        begin = point
        ink = 0.0
        left = top = np.inf
        right = bottom = -np.inf
        while stroke < drawings[drawing]:
            first = point
            while point < strokes[stroke]:
                x, y = points[point, 0], points[point, 1]
                left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
                if point > first:
                    across, down = x - points[point - 1, 0], y - points[point - 1, 1]
                    ink += np.sqrt(across * across + down * down)
                if not max(abs(x), abs(y)) <= MAX_COORDINATE:
                    faults[drawing] = 2
                elif simplified and not (
                    0 <= x <= BOX and 0 <= y <= BOX and x == int(x) and y == int(y)
                ):
                    faults[drawing] = 1
                point += 1
            stroke += 1
        if not faults[drawing] and point - begin > MAX_POINTS:
            faults[drawing] = 3
        extent = max(right - left, bottom - top)
        if not faults[drawing] and not extent > 0:
            faults[drawing] = NO_INK
        if not faults[drawing] and ink * BOX > MAX_INK * extent:
            faults[drawing] = 6
    return faults


def select(parsed: ParsedText, keep: Bool[np.ndarray, " drawing"]) -> ParsedText:
    """The drawings for which ``keep`` is true."""
    strokes, points = np.diff(parsed.drawings, prepend=0), np.diff(parsed.strokes, prepend=0)
    kept = np.repeat(keep, strokes)
    return ParsedText(
        parsed.text,
        parsed.points[np.repeat(kept, points)],
        np.cumsum(points[kept]),
        np.cumsum(strokes[keep]),
        *(column[keep] for column in parsed[4:]),
    )
