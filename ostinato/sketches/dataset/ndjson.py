"""Drawings in QuickDraw's ndjson: read by a compiled scanner, and by a general parser beside it.

The scanner reads lines of the kind that QuickDraw's files hold, several times faster than a JSON
parser. Whatever it is not sure of (escapes, exponents, nested extra fields, errors) it leaves to
`parse_line`, which alone says what is malformed and why, so that both agree on every line.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ostinato.errors import MalformedError
from ostinato.sketches.dataset.strokes import BOX, FARTHEST, compiled

LONGEST = 10_000  # points; more is not one person's drawing


class Parsed(NamedTuple):
    """The drawings of a text: columns, one row a drawing, and its points in one array."""

    text: NDArray[np.uint8]  # what the spans of `keys` and `words` point into
    points: NDArray[np.float64]  # (point, 2): x, y
    strokes: NDArray[np.int64]  # (stroke,): where each ends in `points`
    drawings: NDArray[np.int64]  # (drawing,): where each ends in `strokes`
    lines: NDArray[np.int64]  # (drawing,): number of the line in the text, from 0
    keys: NDArray[np.int64]  # (drawing, 2): span of key_id
    words: NDArray[np.int64]  # (drawing, 2): span of word; empty where there is none
    recognised: NDArray[np.int64]  # (drawing,): 1, 0, or -1 where the line does not say


def parse(text: bytes) -> tuple[Parsed, list[tuple[int, str]]]:
    """Read the drawings of an ndjson text in QuickDraw's schema; blank lines are skipped.

    Returns:
        The drawings (those that the general parser read come last), and (line, reason) of each
        malformed line, in the order of lines.
    """
    source = np.frombuffer(text, np.uint8)
    points, strokes, rows, unread = _scan(source)
    drawings, lines, keys, words = rows[:, 0], rows[:, 1], rows[:, 2:4], rows[:, 4:6]
    parts = [Parsed(source, points, strokes, drawings, lines, keys, words, rows[:, 6])]
    rejects = []
    end = len(text)
    for line, start, stop in unread.tolist():
        try:
            word, key, recognised, tracks = parse_line(text[start:stop])
        except MalformedError as reason:
            rejects.append((line, str(reason)))
            continue
        part = Parsed(
            np.frombuffer(key + word, np.uint8),
            np.concatenate([np.empty((0, 2)), *tracks]),
            np.cumsum([len(track) for track in tracks], dtype=np.int64),
            np.array([len(tracks)]),
            np.array([line]),
            np.array([[0, len(key)]]) + end,
            np.array([[len(key), len(key + word)]]) + end,
            np.array([recognised]),
        )
        end += len(key + word)
        parts.append(part)
    return (_joined(parts) if len(parts) > 1 else parts[0]), rejects


def parse_line(line: bytes) -> tuple[bytes, bytes, int, list[NDArray[np.float64]]]:
    """Read one drawing by a general JSON parser: word, key_id, recognised, strokes (point, 2).

    Strokes without points are left out. Of a stroke's lists only x and y count (raw drawings have
    times too).

    Raises:
        Malformed: with the reason.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedError("not a JSON object")
    for name in ("key_id", "drawing"):
        if name not in fields:
            raise MalformedError(f"no field {name!r}")
    key, word, recognised = fields["key_id"], fields.get("word", ""), fields.get("recognized", -1)
    if type(key) is int:
        key = str(key)
    if not isinstance(key, str) or not key:
        raise MalformedError("key_id is neither a text nor a whole number")
    if not isinstance(word, str):
        raise MalformedError("word is not a text")
    if recognised != -1 and not isinstance(recognised, bool):
        raise MalformedError("recognized is neither true nor false")
    if not isinstance(fields["drawing"], list):
        raise MalformedError("drawing is not a list of strokes")
    strokes = [_stroke(number, stroke) for number, stroke in enumerate(fields["drawing"])]
    strokes = [stroke for stroke in strokes if len(stroke)]
    return word.encode(), key.encode(), int(recognised), strokes


def _stroke(number: int, stroke: Any) -> NDArray[np.float64]:
    if not isinstance(stroke, list) or len(stroke) < 2:
        raise MalformedError(f"stroke {number} is not a list of x and y")
    for axis in stroke[:2]:
        if not isinstance(axis, list) or not all(type(v) in (int, float) for v in axis):
            raise MalformedError(f"stroke {number} holds something that is not a number")
    if len(stroke[0]) != len(stroke[1]):
        raise MalformedError(f"stroke {number} has {len(stroke[0])} x and {len(stroke[1])} y")
    return np.array(stroke[:2], np.float64).T


def _joined(parts: Sequence[Parsed]) -> Parsed:
    columns = dict(zip(Parsed._fields, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    for name, target in (("strokes", "points"), ("drawings", "strokes")):
        sizes = [len(getattr(part, target)) for part in parts]
        shift = np.cumsum([0, *sizes[:-1]])
        columns[name] += np.repeat(shift, [len(getattr(part, name)) for part in parts])
    return Parsed(**columns)


FAULTS = (
    "",
    "a coordinate is not a whole number in 0 to 255 (are these raw drawings?)",
    f"a coordinate is beyond {FARTHEST:,.0f} pixels",
    f"more than {LONGEST:,} points",
    "no field 'word'",
)
NO_WORD, NO_INK = len(FAULTS) - 1, len(FAULTS)


@compiled
def check(points, strokes, drawings, simplified):  # type: ignore[no-untyped-def]
    """What is wrong with each drawing: an index into FAULTS, 0 for nothing, or NO_INK.

    A drawing without ink has no points, or all of them in one place.
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
                if not max(abs(x), abs(y)) <= FARTHEST:
                    faults[drawing] = 2
                elif simplified and not (
                    0 <= x <= BOX and 0 <= y <= BOX and x == int(x) and y == int(y)
                ):
                    faults[drawing] = 1
                point += 1
            stroke += 1
        if not faults[drawing] and point - begin > LONGEST:
            faults[drawing] = 3
        if not faults[drawing] and not spread:
            faults[drawing] = NO_INK
    return faults


def chosen(parsed: Parsed, keep: NDArray[np.bool_]) -> Parsed:
    """The drawings for which ``keep`` (drawing,) is true."""
    strokes, points = np.diff(parsed.drawings, prepend=0), np.diff(parsed.strokes, prepend=0)
    kept = np.repeat(keep, strokes)
    return Parsed(
        parsed.text,
        parsed.points[np.repeat(kept, points)],
        np.cumsum(points[kept]),
        np.cumsum(strokes[keep]),
        *(column[keep] for column in parsed[4:]),
    )


# What follows gives up with a position of -1; a position is behind what has been read.

WORD, KEY, RECOGNISED, DRAWING, TRUE, FALSE = (
    np.frombuffer(name, np.uint8)
    for name in (b"word", b"key_id", b"recognized", b"drawing", b"true", b"false")
)
BLANK, NEWLINE, QUOTE, COMMA, COLON, OPEN, CLOSE = (np.uint8(ord(c)) for c in ' \n",:[]')
BRACE, BRACE_END, BACKSLASH, MINUS, DOT, ZERO, NINE = (np.uint8(ord(c)) for c in "{}\\-.09")
# Typed: a literal number would make numba compile what it is passed to once more.
NONE, X, Y = np.int64(0), np.int64(0), np.int64(1)
TENS = np.array([10.0**power for power in range(19)])  # all exact


@compiled
def _scan(text):  # type: ignore[no-untyped-def]
    """Parse every line it can: points, strokes, columns of drawings, and what it left.

    A drawing's columns are its last stroke, line, span of key, span of word and recognised; of a
    line that was left, its number, start and stop.
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
    """One line's object; returns (position, points, strokes read so far)."""
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
            said = _same(text, start, end, RECOGNISED)
            at, value = _scalar(text, at, stop)
            if said and (value < 0 or rows[row, 6] >= 0):
                return failed
            if said:
                rows[row, 6] = value
        at = _skip(text, at, stop)
        if at < 0 or at >= stop:
            return failed
        if text[at] == BRACE_END:
            done = (
                _skip(text, at + 1, stop) == stop and seen_drawing and rows[row, 3] > rows[row, 2]
            )
            return (at, point, stroke) if done else failed
        at = _expect(text, at, stop, COMMA)
    return failed


@compiled
def _drawing(text, at, stop, points, point, strokes, stroke):  # type: ignore[no-untyped-def]
    """[[[x, ...], [y, ...]], ...], with a third list of times or without."""
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
    """[number, ...] into a column, exact; returns (position behind it and blanks, how many)."""
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
        # Written out: a call of _skip and _expect for every number costs half of the speed.
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
    """A value to skip: (position behind it, 1 for true, 0 for false, -1 for others)."""
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
    """Position of the closing quote of a plain ASCII text without escapes."""
    at = _expect(text, at, stop, QUOTE)
    while 0 <= at < stop and 32 <= text[at] < 128 and text[at] != QUOTE and text[at] != BACKSLASH:
        at += 1
    return at if 0 <= at < stop and text[at] == QUOTE else -1


@compiled
def _skip(text, at, stop):  # type: ignore[no-untyped-def]
    """The position behind blanks."""
    while 0 <= at < stop and (text[at] == 32 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@compiled
def _expect(text, at, stop, byte):  # type: ignore[no-untyped-def]
    """The position behind this byte."""
    return at + 1 if 0 <= at < stop and text[at] == byte else -1


@compiled
def _same(text, start, stop, name):  # type: ignore[no-untyped-def]
    if stop - start != len(name):
        return False
    for i in range(len(name)):  # noqa: SIM110
        if text[start + i] != name[i]:
            return False
    return True
