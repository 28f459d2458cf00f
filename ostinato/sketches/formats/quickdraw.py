"""QuickDraw's ndjson format: the only reader and writer of it.

A line is a JSON object with ``key_id``, ``drawing`` (a list of strokes, each a list of x, of y and,
in raw drawings, of times in milliseconds), and optionally ``word`` (the category) and
``recognized``. Format: github.com/googlecreativelab/quickdraw-dataset.

`parse` reads millions of lines into columns: a compiled scanner reads lines as QuickDraw's files
hold them, several times faster than a JSON parser. It leaves every other line (escapes, exponents,
nested extra fields, errors) to `read_line`, which alone decides what is malformed and why, so both
agree on every line.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from jaxtyping import Bool, Float64, Integer, Real, UInt8

from ostinato.errors import MalformedError
from ostinato.sketches.formats.strokes import BOX, MAX_COORDINATE, compiled

MAX_POINTS = 10_000  # of a drawing; a larger one was not drawn by a person


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
    points, strokes, rows, unread = _scan(source)
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
        times: also read the times of strokes that have a third list. Otherwise it is not checked.

    Raises:
        MalformedError: with the reason.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedError("not a JSON object")
    return _drawing_of(fields, times)


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
                fields = orjson.loads(line)
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
        raise MalformedError(str(error)) from None
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
    if last.endswith(b"\n") or not last:
        return False
    try:
        orjson.loads(last)
    except orjson.JSONDecodeError:
        return True
    return False


def _drawing_of(fields: Mapping[str, Any], times: bool) -> Drawing:
    for name in ("key_id", "drawing"):
        if name not in fields:
            raise MalformedError(f"no field {name!r}")
    key, word, recognised = fields["key_id"], fields.get("word", ""), fields.get("recognized", -1)
    if type(key) is int:
        key = str(key)
    if not isinstance(key, str) or not key:
        raise MalformedError("key_id is neither a string nor an integer")
    if not isinstance(word, str):
        raise MalformedError("word is not a string")
    if recognised != -1 and not isinstance(recognised, bool):
        raise MalformedError("recognized is neither true nor false")
    if not isinstance(fields["drawing"], list):
        raise MalformedError("drawing is not a list of strokes")
    strokes = [_stroke(number, stroke, times) for number, stroke in enumerate(fields["drawing"])]
    return Drawing(
        key, word, None if recognised == -1 else bool(recognised), [s for s in strokes if len(s)]
    )


def _stroke(number: int, stroke: object, times: bool) -> Float64[np.ndarray, "_ _"]:
    if not isinstance(stroke, list) or len(stroke) < 2:
        raise MalformedError(f"stroke {number} is not a list of x and y")
    axes = stroke[: 3 if times else 2]
    for axis in axes:
        if not isinstance(axis, list) or not all(type(v) in (int, float) for v in axis):
            raise MalformedError(f"stroke {number} contains a value that is not a number")
    if len(axes[0]) != len(axes[1]):
        raise MalformedError(f"stroke {number} has {len(axes[0])} x and {len(axes[1])} y")
    if len(axes[-1]) != len(axes[0]):
        raise MalformedError(f"stroke {number} has {len(axes[0])} points and {len(axes[2])} times")
    return np.array(axes, np.float64).T


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
    "a coordinate is not an integer in 0 to 255 (are these raw drawings?)",
    f"a coordinate is beyond {MAX_COORDINATE:,.0f} pixels",
    f"more than {MAX_POINTS:,} points",
    "no field 'word'",
    "no ink: it has no points, or all points are equal",
)
"""Reasons why a drawing is not used; `check` returns indices into them."""

NO_WORD, NO_INK = 4, 5
"""Indices into `FAULTS`."""


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
        spread = False
        while stroke < drawings[drawing]:
            while point < strokes[stroke]:
                x, y = points[point, 0], points[point, 1]
                spread |= x != points[begin, 0] or y != points[begin, 1]
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
        if not faults[drawing] and not spread:
            faults[drawing] = NO_INK
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


# The scanner. A function returns the position after what it has read, or -1 to leave the line to
# `read_line`.

WORD, KEY, RECOGNISED, DRAWING, TRUE, FALSE = (
    np.frombuffer(name, np.uint8)
    for name in (b"word", b"key_id", b"recognized", b"drawing", b"true", b"false")
)
BLANK, NEWLINE, QUOTE, COMMA, COLON, OPEN, CLOSE = (np.uint8(ord(c)) for c in ' \n",:[]')
BRACE, BRACE_END, BACKSLASH, MINUS, DOT, ZERO, NINE = (np.uint8(ord(c)) for c in "{}\\-.09")
# Typed, because numba compiles a function again for each literal that it is called with.
NONE, X, Y = np.int64(0), np.int64(0), np.int64(1)
TENS = np.array([10.0**power for power in range(19)])  # all exact


@compiled
def _scan(text):  # type: ignore[no-untyped-def]
    """Parse the lines that the scanner understands: points, strokes, drawings, unread lines.

    The columns of a drawing are the end of its strokes, line, span of key (2), span of word (2),
    recognised; those of an unread line are its number, start and stop.
    """
    lines = 1
    for at in range(len(text)):
        lines += text[at] == NEWLINE
    points = np.empty((len(text) // 2 + 1, 2))
    strokes = np.empty(len(text) // 5 + 1, np.int64)
    rows = np.empty((lines, 7), np.int64)
    unread = np.empty((lines, 3), np.int64)
    read = left = point = stroke = start = NONE
    for line in range(lines):
        stop = start
        while stop < len(text) and text[stop] != NEWLINE:
            stop += 1
        if _skip(text, start, stop) < stop:
            at, next_point, next_stroke = _line(
                text, start, stop, points, point, strokes, stroke, rows, read
            )
            if at < 0:
                unread[left, 0], unread[left, 1], unread[left, 2] = line, start, stop
                left += 1
            else:
                point, stroke = next_point, next_stroke
                rows[read, 0], rows[read, 1] = stroke, line
                read += 1
        start = stop + 1
    return points[:point], strokes[:stroke], rows[:read], unread[:left]


@compiled
def _line(text, at, stop, points, point, strokes, stroke, rows, row):  # type: ignore[no-untyped-def]
    """Parse the object of a line: (position, number of points, number of strokes so far)."""
    failed = (-1, point, stroke)
    rows[row, 3] = rows[row, 4] = rows[row, 5] = 0
    rows[row, 6] = -1
    seen_drawing = False
    at = _expect(text, _skip(text, at, stop), stop, BRACE)
    while at >= 0:
        start = _skip(text, at, stop) + 1
        end = _string(text, start - 1, stop)
        at = _expect(text, _skip(text, end + 1, stop), stop, COLON) if end >= 0 else -1
        if at < 0:
            return failed
        at = _skip(text, at, stop)
        if _same(text, start, end, DRAWING):
            if seen_drawing:
                return failed
            seen_drawing = True
            at, point, stroke = _drawing(text, at, stop, points, point, strokes, stroke)
        elif _same(text, start, end, KEY) or _same(text, start, end, WORD):
            slot = 2 if _same(text, start, end, KEY) else 4
            end = _string(text, at, stop)
            if end < 0 or rows[row, slot + 1]:
                return failed
            rows[row, slot], rows[row, slot + 1] = at + 1, end
            at = end + 1
        else:
            is_recognised = _same(text, start, end, RECOGNISED)
            at, value = _scalar(text, at, stop)
            if is_recognised and (value < 0 or rows[row, 6] >= 0):
                return failed
            if is_recognised:
                rows[row, 6] = value
        at = _skip(text, at, stop)
        if at < 0 or at >= stop:
            return failed
        if text[at] == BRACE_END:
            complete = (
                _skip(text, at + 1, stop) == stop and seen_drawing and rows[row, 3] > rows[row, 2]
            )
            return (at, point, stroke) if complete else failed
        at = _expect(text, at, stop, COMMA)
    return failed


@compiled
def _drawing(text, at, stop, points, point, strokes, stroke):  # type: ignore[no-untyped-def]
    """Parse [[[x, ...], [y, ...]], ...], with or without a third list of times."""
    at = _expect(text, at, stop, OPEN)
    if at >= 0 and _expect(text, _skip(text, at, stop), stop, CLOSE) >= 0:
        return _skip(text, at, stop) + 1, point, stroke
    while at >= 0:
        at = _expect(text, _skip(text, at, stop), stop, OPEN)
        at, xs = _numbers(text, at, stop, points, point, X)
        at = _expect(text, at, stop, COMMA)
        at, ys = _numbers(text, at, stop, points, point, Y)
        if at < 0 or xs != ys:
            break
        if xs:
            point += xs
            strokes[stroke] = point
            stroke += 1
        if _expect(text, at, stop, COMMA) >= 0:
            at, _ = _numbers(text, at + 1, stop, points, point, X)
        at = _skip(text, _expect(text, at, stop, CLOSE), stop)
        if _expect(text, at, stop, CLOSE) >= 0:
            return at + 1, point, stroke
        at = _expect(text, at, stop, COMMA)
    return -1, point, stroke


@compiled
def _numbers(text, at, stop, out, row, column):  # type: ignore[no-untyped-def]
    """Parse [number, ...] exactly into a column: (position after it and blanks, count)."""
    at = _skip(text, _expect(text, _skip(text, at, stop), stop, OPEN), stop)
    first = row
    if _expect(text, at, stop, CLOSE) >= 0:
        return _skip(text, at + 1, stop), 0
    while 0 <= at < stop:
        negative = text[at] == MINUS
        at += negative
        start, mantissa = at, 0
        while at < stop and ZERO <= text[at] <= NINE:
            mantissa = mantissa * 10 + (np.int64(text[at]) - ZERO)
            at += 1
        digits = at - start
        if digits < 1 or (digits > 1 and text[start] == ZERO):
            break
        value = np.float64(mantissa)
        if at < stop and text[at] == DOT:
            point = at
            at += 1
            while at < stop and ZERO <= text[at] <= NINE:
                mantissa = mantissa * 10 + (np.int64(text[at]) - ZERO)
                at += 1
            places = at - point - 1
            digits += places
            if places < 1 or digits > 18:
                break
            # Both operands are exact, so the quotient is the nearest double (Clinger 1990).
            value = mantissa / TENS[places]
        if digits > 18 or mantissa > 1 << 53:
            break
        out[row, column] = -value if negative else value
        row += 1
        # Inlined: calling _skip and _expect for every number would halve the speed.
        if at < stop and text[at] <= BLANK:
            at = _skip(text, at, stop)
        if at < stop and text[at] == CLOSE:
            return _skip(text, at + 1, stop), row - first
        if at >= stop or text[at] != COMMA:
            break
        at += 1
        if at < stop and text[at] <= BLANK:
            at = _skip(text, at, stop)
    return -1, 0


@compiled
def _scalar(text, at, stop):  # type: ignore[no-untyped-def]
    """Skip a scalar value: (position after it, 1 for true, 0 for false, -1 for others)."""
    if 0 <= at < stop:
        if text[at] == QUOTE:
            end = _string(text, at, stop)
            return (end + 1 if end >= 0 else -1), -1
        if at + 4 <= stop and _same(text, at, at + 4, TRUE):
            return at + 4, 1
        if at + 5 <= stop and _same(text, at, at + 5, FALSE):
            return at + 5, 0
    return -1, -1


@compiled
def _string(text, at, stop):  # type: ignore[no-untyped-def]
    """The position of the closing quote of an ASCII string without escapes."""
    at = _expect(text, at, stop, QUOTE)
    while 0 <= at < stop and 32 <= text[at] < 128 and text[at] != QUOTE and text[at] != BACKSLASH:
        at += 1
    return at if 0 <= at < stop and text[at] == QUOTE else -1


@compiled
def _skip(text, at, stop):  # type: ignore[no-untyped-def]
    """The position after blanks."""
    while 0 <= at < stop and (text[at] == 32 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@compiled
def _expect(text, at, stop, byte):  # type: ignore[no-untyped-def]
    """The position after this byte."""
    return at + 1 if 0 <= at < stop and text[at] == byte else -1


@compiled
def _same(text, start, stop, name):  # type: ignore[no-untyped-def]
    """Whether text[start:stop] equals ``name``."""
    if stop - start != len(name):
        return False
    for i in range(len(name)):  # noqa: SIM110
        if text[start + i] != name[i]:
            return False
    return True
