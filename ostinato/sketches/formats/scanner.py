"""A compiled scanner of QuickDraw's ndjson, for lines as Google's files hold them.

It leaves every other line to `ostinato.sketches.formats.quickdraw.read_line`. A function returns
the position after what it has read, or -1 to leave the line.
"""

import numpy as np

from ostinato.sketches.formats.strokes import compiled

WORD, KEY, RECOGNISED, DRAWING, TRUE, FALSE = (
    np.frombuffer(name, np.uint8)
    for name in (b"word", b"key_id", b"recognized", b"drawing", b"true", b"false")
)
BLANK, NEWLINE, QUOTE, COMMA, COLON, OPEN, CLOSE = (np.uint8(ord(c)) for c in ' \n",:[]')
BRACE, BRACE_END, BACKSLASH, MINUS, DOT, ZERO, NINE = (np.uint8(ord(c)) for c in "{}\\-.09")
# Typed, because numba compiles a function again for each literal that it is called with.
NONE, X, Y, MANY = np.int64(0), np.int64(0), np.int64(1), np.int64(1 << 62)
TENS = np.array([10.0**power for power in range(19)])  # all exact


@compiled
def scan(text):  # type: ignore[no-untyped-def]
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
            if slot == 4 and end > at + 1 and (text[at + 1] == 32 or text[end - 1] == 32):
                return failed  # `read_line` strips the word
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
    """Parse [[[x, ...], [y, ...]], ...], with or without a third list of times.

    A drawing that may be lists of points (see `quickdraw.MAX_POINT_VALUES`) is left.
    """
    shortest, longest, timed = MANY, NONE, False
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
            shortest, longest = min(shortest, xs), max(longest, xs)
        if _expect(text, at, stop, COMMA) >= 0:
            at, times = _numbers(text, at + 1, stop, points, point, X)
            if times != xs:
                break
            timed |= times > 0
        at = _skip(text, _expect(text, at, stop, CLOSE), stop)
        if _expect(text, at, stop, CLOSE) >= 0:
            if timed and shortest == longest and 2 <= longest <= 3:
                break
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
    """The position of the closing quote of a printable ASCII string without escapes."""
    at = _expect(text, at, stop, QUOTE)
    while 0 <= at < stop and 32 <= text[at] < 127 and text[at] != QUOTE and text[at] != BACKSLASH:
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
