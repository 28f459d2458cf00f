"""Drawings made by rule, in thirty of QuickDraw's categories: the source that needs no network.

Each category is a short function that knows the ways in which people draw the thing: its parts,
their order and direction, what is added or left out. It draws with a ``Pen`` in a box of about 100
by 100 units, x to the right and y downwards. ``drawing`` then makes a hand of it: parts out of
place, broken, turned round or run together; tilt, stretch, round corners, drift and tremor.

The names are those of The Quick, Draw! Dataset (Google, CC BY 4.0); no drawing of it is used here.
"""

import difflib
from collections.abc import Callable
from math import cos, pi, radians, sin

import numpy as np
import numpy.typing as npt

Stroke = npt.NDArray[np.float64]
Ink = list[Stroke]
Point = tuple[float, float]

_ARC, _LOOP = np.arange(14) / 13, np.arange(26) / 25  # shares of the way round
_WAVES = np.arange(2, 5)[:, None]

# Catmull-Rom spline: weights of four neighbouring points at six places between the middle two.
_T = np.arange(6) / 6
_SPLINE = 0.5 * np.stack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2],
    axis=1,
)


class Pen:
    """Chance and the basic marks, in one drawer's manner; every mark is a list of strokes.

    ``care`` is how far this drawer's marks fall from where they are meant (1 is usual). Angles are
    in degrees: 0 is to the right, -90 up, and rising angles go clockwise.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.care = min(3.0, float(np.exp(0.38 * rng.standard_normal())))

    def chance(self, share: float) -> bool:
        """Say yes in this share of cases."""
        return bool(self.rng.random() < share)

    def between(self, low: float, high: float) -> float:
        """Draw a number between two bounds."""
        return low + (high - low) * float(self.rng.random())

    def count(self, low: int, high: int) -> int:
        """Draw a whole number from low to high, both included."""
        return low + int((high - low + 1) * self.rng.random())

    def off(self, size: float) -> float:
        """Draw a miss: normal, with this deviation for a drawer of usual care."""
        return size * self.care * float(self.rng.standard_normal())

    def pick(self, *ways: tuple[float, Ink]) -> Ink:
        """Choose among ways to draw a part, each with its weight."""
        at = self.rng.random() * sum(weight for weight, _ in ways)
        for weight, ink in ways:
            at -= weight
            if at < 0:
                return ink
        return ways[-1][1]

    def maybe(self, share: float, ink: Ink) -> Ink:
        """Draw this in a share of cases, else nothing."""
        return ink if self.rng.random() < share else []

    def order(self, share: float, first: Ink, second: Ink) -> Ink:
        """Draw one after the other; the second comes first in this share of cases."""
        return second + first if self.rng.random() < share else first + second

    def turned(self, share: float, ink: Ink) -> Ink:
        """Draw the whole of it backwards in this share of cases."""
        return [stroke[::-1] for stroke in ink[::-1]] if self.rng.random() < share else ink

    def joined(self, share: float, ink: Ink) -> Ink:
        """Leave the pen down between the strokes in this share of cases."""
        return [np.concatenate(ink)] if self.rng.random() < share else ink

    def mirrored(self, share: float, ink: Ink) -> Ink:
        """Swap left and right in this share of cases."""
        return [s * (-1, 1) + (100, 0) for s in ink] if self.rng.random() < share else ink

    def line(self, *points: Point, miss: float = 1.7) -> Ink:
        """Straight from point to point, each missed a little."""
        corners = np.array(points, float)
        return [corners + miss * self.care * self.rng.standard_normal(corners.shape)]

    def curve(self, *points: Point, miss: float = 1.7) -> Ink:
        """Smoothly through the points, each missed a little."""
        knots = self.line(*points, miss=miss)[0]
        around = np.concatenate([knots[:1], knots, knots[-1:]])
        spans = np.stack([around[i : len(around) - 3 + i] for i in range(4)], axis=1)
        return [np.concatenate([(_SPLINE @ spans).reshape(-1, 2), knots[-1:]])]

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float) -> Ink:
        """Part of an ellipse around (x, y)."""
        start, end = start + self.off(5), end + self.off(5)
        angle = np.radians(start + (end - start) * _ARC)
        bulge = 1 + self.off(0.04) * np.cos(2 * angle) + self.off(0.03) * np.sin(2 * angle)
        return _ellipse(x, y, rx * bulge, ry * bulge, angle)

    def loop(self, x: float, y: float, rx: float, ry: float, start: float = -80) -> Ink:
        """Draw a closed round shape, as uneven and as badly closed as a hand's."""
        start = self.between(-180, 180) if self.chance(0.15) else start + self.off(25)
        turn = (360 + self.off(16)) * (-1 if self.chance(0.7) else 1)
        angle = np.radians(start + turn * _LOOP)
        size = 0.05 * min(self.care, 2) * self.rng.standard_normal((3, 1)) / (_WAVES - 1) ** 0.5
        uneven = (size * np.cos(_WAVES * angle + 2 * pi * self.rng.random((3, 1)))).sum(0)
        radius = 1 + uneven + self.off(0.06) * _LOOP
        return _ellipse(x, y, rx * radius, ry * radius, angle)

    def ring(self, *corners: Point, first: int = 0, apart: float = 0.15) -> Ink:
        """Draw a closed polygon: one stroke, or in the share ``apart`` broken at its corners."""
        first = self.count(0, len(corners) - 1) if self.chance(0.25) else first
        path = self.line(*corners[first:], *corners[: first + 1])[0]
        path[-1] += self.off(3), self.off(3)
        path = path[::-1] if self.chance(0.4) else path
        if not self.chance(apart):
            return [path]
        if self.chance(0.4):
            return [path[i : i + 2] for i in range(len(path) - 1)]
        cut = self.count(1, len(path) - 2)
        return [path[: cut + 1], *self.turned(0.4, [path[cut:]])]

    def bumps(
        self, x: float, y: float, rx: float, ry: float, count: int, start: float, end: float
    ) -> Ink:
        """Draw a row of round bumps along an ellipse, as on a cloud, of uneven sizes."""
        edges = np.zeros(count + 1)
        edges[1:] = np.cumsum(np.exp(0.3 * self.rng.standard_normal(count)))
        along = np.arange(8 * count + 1) / 8
        bump = along % 1
        depth = self.between(0.1, 0.32) * np.exp(0.35 * self.rng.standard_normal(count + 1))
        depth = np.minimum(depth, 0.6)[along.astype(int)]
        share = np.interp(along, np.arange(count + 1), edges / edges[-1])
        share += self.between(-0.2, 0.06) * np.sin(2 * pi * bump) / count
        angle = np.radians(start + (end - start) * share)
        radius = 1 - depth + 1.6 * depth * np.sin(pi * bump) ** 0.8
        radius *= 1 + self.off(0.07) * np.cos(2 * angle + self.between(0, 2 * pi))
        return _ellipse(x, y, rx * radius, ry * radius, angle)

    def dot(self, x: float, y: float) -> Ink:
        """Draw a touch of the pen: next to no way at all."""
        return self.line((x, y), (x + self.off(1), y + self.off(1)), miss=0.7)


def _ellipse(x: float, y: float, rx: Stroke, ry: Stroke, angle: Stroke) -> Ink:
    return [np.array([x + rx * np.cos(angle), y + ry * np.sin(angle)]).T]


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """Corners from the top left downwards and round."""
    return (left, top), (left, bottom), (right, bottom), (right, top)


def _both(*left: Point) -> list[Point]:
    """Points of a left half, then their mirror images on the way back."""
    return [*left, *((100 - x, y) for x, y in reversed(left))]


def _round(x: float, y: float, reach: float, angle: float) -> Point:
    """Point at this distance and angle in radians from (x, y)."""
    return x + reach * cos(angle), y + reach * sin(angle)


def _apple(pen: Pen) -> Ink:
    dent, low, lean = pen.between(22, 32), pen.between(86, 98), pen.off(5) + 4
    half = [(50, dent), (32, 17), (9, 28), (3, 52), (15, 82), (36, 98), (50, low)]
    outline = pen.curve(*_both(*half), miss=2.2)
    body = pen.pick((7, pen.mirrored(0.3, outline)), (3, pen.loop(50, 59, 47, 41, -90)))
    stalk = pen.curve((50, dent), (50 + lean * 0.4, 14), (50 + lean, pen.between(-4, 8)))
    thick = [np.concatenate([*stalk, *pen.line((55 + lean, 2), (56, dent))])]
    tip = (50 + pen.between(20, 32), pen.between(-2, 10))
    leaf = pen.curve((50, 20), (57, 6), tip, (68, 17), (50, 20))
    top = pen.pick((6, pen.turned(0.35, stalk)), (3, thick), (0.4, []))
    return pen.order(0.12, body, top + pen.maybe(0.4, pen.mirrored(0.25, leaf)))


def _candle(pen: Pen) -> Ink:
    top, wide, fat = pen.between(28, 50), pen.between(7, 19), pen.between(5, 10)
    body = pen.ring(*_box(50 - wide, top, 50 + wide, 98), apart=0.2)
    sides = pen.line((50 - wide, top), (50 - wide, 98), (50 + wide, 98), (50 + wide, top))
    rim = pen.loop(50, top, wide, 4)
    wick = pen.maybe(0.6, pen.turned(0.2, pen.line((50, top), (50 + pen.off(1.5), top - 8))))
    low, tip = top - pen.between(3, 9) * len(wick), pen.between(0, 6)
    belly = (50 - fat, low - (low - tip) * 0.35)
    drop = pen.curve(*_both((50, low), belly, (50, tip))[:-1], (50, low))
    flame = pen.pick((6, drop), (4, pen.loop(50, (low + tip) / 2, fat * 0.9, (low - tip) / 2, 90)))
    dish = wide + pen.between(6, 16)
    flat, oval = pen.line((50 - dish, 99), (50 + dish, 99)), pen.loop(50, 99, dish, 6)
    body = pen.pick((8, body), (1, rim + sides), (1, sides + rim))
    return pen.order(0.1, body + wick, flame) + pen.maybe(0.15, pen.pick((1, flat), (1, oval)))


def _circle(pen: Pen) -> Ink:
    return pen.loop(50, 50, 48, pen.between(38, 56)) + pen.maybe(0.02, pen.dot(50, 50))


_NUMERALS: dict[int, tuple[tuple[Point, ...], ...]] = {
    3: (((0.1, 0.1), (0.7, 0.2), (0.3, 0.5), (0.8, 0.75), (0.1, 1)),),
    6: (((0.7, 0), (0.2, 0.6), (0.5, 1), (0.8, 0.7), (0.2, 0.7)),),
    9: (((0.8, 0.2), (0.3, 0.1), (0.3, 0.5), (0.8, 0.3), (0.7, 1)),),
    12: (((0, 0), (0, 1)), ((0.4, 0.2), (0.8, 0), (1.1, 0.3), (0.4, 1), (1.2, 1))),
}


def _clock(pen: Pen) -> Ink:
    marks: Ink = []
    kind, size, each = pen.rng.random(), pen.between(9, 15), 3 if pen.chance(0.7) else 1
    for number in range(3, 13, 3) if kind < 0.3 else range(each, 13, each) if kind < 0.48 else ():
        angle = radians(30 * number - 90) + pen.off(0.05)
        x, y = _round(50 - size / 2, 50 - size / 2, 38, angle)
        if kind < 0.3:
            for numeral in _NUMERALS[number]:
                marks += pen.curve(*((x + size * u, y + size * v) for u, v in numeral), miss=0.8)
        else:
            inner = _round(50, 50, pen.between(34, 43), angle)
            marks += pen.turned(0.2, pen.line(inner, _round(50, 50, 47, angle)))
    marks = marks[: pen.count(1, 4)] if pen.chance(0.3) else marks
    hour, minute = (pen.between(-180, 180) for _ in range(2))
    if pen.chance(0.7):  # about three or nine o'clock
        minute, hour = -90 + pen.off(8), pen.between(-45, 70) if pen.chance(0.8) else 180
    long = _round(50, 50, pen.between(22, 46), radians(minute))
    short = _round(50, 50, pen.between(14, 40), radians(hour))
    apart = pen.turned(0.3, pen.line((50, 50), long)) + pen.turned(0.3, pen.line((50, 50), short))
    tip = pen.line((long[0] - 6, long[1] + 7), long, (long[0] + 6, long[1] + 7))
    hands = pen.pick((5, pen.turned(0.25, pen.line(long, (50, 50), short))), (5, apart))
    hands = pen.maybe(0.12, pen.dot(50, 50)) + pen.maybe(0.95, hands) + pen.maybe(0.1, tip)
    face = pen.loop(50, 50, 50, pen.between(42, 56)) + pen.maybe(0.04, pen.loop(50, 50, 43, 43))
    return face + pen.order(0.5, hands, marks)


def _cloud(pen: Pen) -> Ink:
    start, high = pen.between(90, 270), pen.between(24, 42)
    turn = (360 + pen.off(12)) * (1 if pen.chance(0.55) else -1)
    count = pen.count(5, 9) if pen.chance(0.8) else pen.count(9, 15)
    (outline,) = pen.bumps(50, 50, 50, high, count, start, start + turn)
    if pen.chance(0.25):  # flat below
        outline[:, 1] = np.minimum(outline[:, 1], 50 + high * pen.between(0.3, 0.7))
    cut = pen.count(len(outline) // 4, len(outline) * 3 // 4)
    parts = pen.pick((9, [outline]), (1, [outline[: cut + 1], outline[cut:]]))
    rain = [stroke for x in (30, 48, 66) for stroke in pen.line((x, 92), (x - 3, 104))]
    return parts + pen.maybe(0.06, rain)


def _donut(pen: Pen) -> Ink:
    high, hole = pen.between(0.62, 1.05), pen.between(0.2, 0.52)
    inner = pen.loop(50 + pen.off(4), 50 + pen.off(4), 50 * hole, 50 * hole * high)
    ink = pen.joined(0.04, pen.order(0.12, pen.loop(50, 50, 50, 50 * high), inner))
    ink += pen.maybe(0.12, pen.bumps(50, 50, 38, 38 * high, pen.count(6, 10), 0, 360))
    for _ in range(pen.count(3, 9) if pen.chance(0.27) else 0):  # sprinkles
        x, y = _round(0, 0, 50 * pen.between(hole + 0.15, 0.9), pen.between(0, 2 * pi))
        spot = (50 + x, 50 + y * high)
        ink += pen.line(spot, (spot[0] + pen.off(4), spot[1] + pen.off(4)), miss=0.5)
    return ink


def _envelope(pen: Pen) -> Ink:
    high, dip = pen.between(35, 80), pen.between(0.35, 0.75)
    middle = (50 + pen.off(4), high * dip)
    flap = pen.line((0, 0), middle, (100, 0))
    halves = pen.line((0, 0), middle) + pen.turned(0.5, pen.line(middle, (100, 0)))
    rest = pen.pick((8, pen.turned(0.25, flap)), (1, halves))
    ink = pen.order(0.08, pen.ring(*_box(0, 0, 100, high)), rest)
    round_once = pen.line(*_box(0, 0, 100, high), (0, 0), middle, (100, 0))
    ink = pen.pick((7, ink), (3, pen.mirrored(0.3, round_once)))
    near = high * dip * 0.8
    folds = pen.line((0, high), (38, near)) + pen.turned(0.5, pen.line((62, near), (100, high)))
    return ink + pen.maybe(0.13, folds) + pen.maybe(0.12, pen.loop(50, high * dip, 5, 5))


def _eyeglasses(pen: Pen) -> Ink:
    wide, high, gap = pen.between(14, 21), pen.between(9, 20), pen.between(5, 14)
    near, lens, far = 50 - gap, 50 - gap - wide, 50 - gap - 2 * wide
    left, right = pen.loop(lens, 30, wide, high, -20), pen.loop(100 - lens, 30, wide, high, -150)
    if pen.chance(0.2):
        left = pen.ring(*_box(far, 30 - high, near, 30 + high), apart=0.05)
        right = pen.ring(*_box(100 - near, 30 - high, 100 - far, 30 + high), apart=0.05)
    bridge = pen.line((near, 28), (100 - near, 28))
    bowed = pen.curve((near, 29), (50, 29 - pen.between(1, 8)), (100 - near, 29))
    bridge = pen.turned(0.15, pen.pick((4, bridge), (6, bowed)))
    between, after = left + bridge + right, left + right + bridge
    pair = pen.joined(0.12, pen.pick((5, between), (4, after), (1, bridge + left + right)))
    reach, rise, hook = pen.between(4, 26), pen.between(-24, 6), pen.between(0, 12)
    way = [(far, 28.0), (far - reach, 28 + rise), (far - reach - 4, 28 + rise + hook)]
    way = way if pen.chance(0.3) else way[:2]
    arms = pen.turned(0.2, pen.line(*way)) + pen.turned(0.2, pen.mirrored(1, pen.line(*way)))
    return pen.mirrored(0.15, pen.order(0.08, pair, pen.maybe(0.87, arms)))


def _fish(pen: Pen) -> Ink:
    high, neck, fin = pen.between(13, 34), pen.between(58, 78), pen.between(9, 28)
    end = 98 - pen.between(0, 9)
    over = ((neck, 50), (neck * 0.75, 50 - high * 0.75), (neck * 0.4, 50 - high))
    under = [(x, 100 - y) for x, y in over[::-1]]
    nose = (0.0, 50 + pen.off(3))
    ribbon = pen.curve((98, 50 + fin), *over, nose, *under, (98, 50 - fin))
    close = pen.maybe(0.65, pen.line((98, 50 - fin), (end, 50 + fin)))
    ribbon = pen.joined(0.7, ribbon + close)
    bows = pen.curve(nose, *over[::-1], (98, 50 + fin)) + pen.curve(nose, *under, (98, 50 - fin))
    body = pen.pick(
        (7, pen.loop(neck / 2, 50, neck / 2, high, pen.between(-60, 60))),
        (3, pen.curve((neck, 50), *over[1:], nose, *under)),
    )
    fan = pen.line((neck - 2, 47), (98, 50 - fin), (end, 50 + fin), (neck - 2, 53))
    tail = pen.ring((neck, 50), (98, 50 - fin), (end, 50 + fin), apart=0.25)
    apart = pen.order(0.15, body, pen.pick((4, fan), (6, tail)))
    ink = pen.pick((4, ribbon), (4.5, apart), (1.5, pen.turned(0.2, bows) + close))
    x, y = pen.between(10, 24), 50 - pen.between(2, high * 0.4)
    gill = pen.curve((27, 50 - high * 0.75), (34, 50), (27, 50 + high * 0.75))
    fins = pen.curve((28, 50 - high), (44, 38 - high), (50, 50 - high * 0.85))
    fins += pen.maybe(0.6, pen.curve((30, 50 + high), (46, 60 + high), (50, 50 + high * 0.85)))
    ink += pen.maybe(0.75, pen.pick((6, pen.dot(x, y)), (4, pen.loop(x, y, 3.5, 3.5))))
    ink += pen.maybe(0.2, pen.curve((2, 55), (9, 58 + pen.off(2)), (15, 55)))
    ink += pen.maybe(0.2, gill) + pen.maybe(0.2, fins)
    ink = [stroke * (1, -1) + (0, 100) for stroke in ink] if pen.chance(0.4) else ink
    return pen.mirrored(0.3, ink)


def _flower(pen: Pen) -> Ink:
    y = 50.0 if pen.chance(0.12) else pen.between(24, 36)
    core, reach, count = pen.between(5, 12), pen.between(20, 33), pen.count(4, 8)
    first, half = pen.between(-200, 0), 0.75 * pi / count
    petals: Ink = []
    if pen.chance(0.35):  # petal by petal
        for i in range(count):
            turn = radians(first) + 2 * pi * i / count + pen.off(0.1)
            left, right = (_round(50, y, core, turn + side) for side in (half, -half))
            far = ((reach * 0.8, half), (reach, 0), (reach * 0.8, -half))
            petals += pen.curve(left, *(_round(50, y, r, turn + side) for r, side in far), right)
        petals = pen.joined(0.4, petals)
    elif pen.chance(0.15):  # in one path through the middle
        angle = np.linspace(0, 2 * pi * (1 + pen.off(0.03)), 16 * count) + radians(first)
        radius = reach * np.abs(np.sin(count * angle / 2)) ** 0.7 + 2
        petals = _ellipse(50, y, radius, radius, angle)
    else:
        turn = (360 + pen.off(15)) * (1 if pen.chance(0.6) else -1)
        petals = pen.bumps(50, y, reach * 0.85, reach * 0.85, count, first, first + turn)
    centre = pen.loop(50, y, core, core)
    head = pen.order(0.3, pen.maybe(0.85, centre), petals)
    stem = pen.curve((50, y + reach), (50 + pen.off(5), 75), (50 + pen.off(5), 100))
    stem = pen.turned(0.15, stem) + pen.maybe(0.08, [stem[0] + (5, 0)])
    for side in (1, -1):
        tip = (50 + side * pen.between(10, 20), pen.between(66, 80))
        leaf = pen.curve((50, 88), (50 + side * 5, 76), tip, (50 + side * 12, 86), (50, 88))
        stem += pen.maybe(0.22, leaf)
    return head if y == 50 else pen.order(0.4, head, stem)


def _headphones(pen: Pen) -> Ink:
    high, wide = pen.between(45, 72), pen.between(28, 42)
    x, y, out = pen.between(7, 16), pen.between(9, 18), pen.between(-0.3, 0.5)
    left, low = 50 - wide - x * out, high + y * pen.between(0.1, 1)
    pads = pen.loop(left, low, x, y, -60) + pen.loop(100 - left, low, x, y, -120)
    if pen.chance(0.12):
        pads = pen.ring(*_box(left - x, low - y, left + x, low + y), apart=0)
        pads += pen.ring(*_box(100 - left - x, low - y, 100 - left + x, low + y), apart=0)
    band = pen.turned(0.2, pen.arc(50, high, wide, high, 180, 360))
    band += pen.maybe(0.15, pen.arc(50, high, wide * 0.85, high * 0.88, 180, 360))
    between = pads[:1] + band + pads[1:]
    return pen.pick((25, band + pads), (25, pads + band), (50, pen.joined(0.35, between)))


def _house(pen: Pen) -> Ink:
    half, wall, ridge = pen.between(24, 52), pen.between(28, 55), 50 + pen.off(5)
    left, right, eaves = 50 - half, 50 + half, max(0.0, pen.between(-8, 11))
    walls, peak = _box(left, wall, right, 100), (ridge, 0.0)
    low, high = (left - eaves, wall), (right + eaves, wall)
    gable = pen.pick((7, pen.ring(peak, low, high)), (3, pen.line(high, low, peak, high)))
    open_walls = pen.turned(0.2, pen.line(*walls))
    open_roof = pen.turned(0.2, pen.line(low, peak, high))
    body = pen.pick((7, pen.ring(*walls)), (3, pen.line(*walls, walls[0], walls[3])))
    pentagon = pen.ring((left, wall), peak, (right, wall), (right, 100), (left, 100), apart=0.1)
    pentagon += pen.maybe(0.6, pen.line((left, wall), (right, wall)))
    ink = pen.pick(
        (4, pen.order(0.45, open_walls, gable)),
        (4, pen.order(0.3, body, open_roof)),
        (1.5, pen.order(0.4, body, gable)),
        (1.2, pentagon),
    )
    x, wide, top = pen.between(left + 6, right - 24), pen.between(10, 20), pen.between(62, 80)
    door = pen.turned(0.2, pen.line((x, 100), (x, top), (x + wide, top), (x + wide, 100)))
    middle = (x + wide / 2, top - 3)
    arch = pen.curve((x, 100), (x, top + 5), middle, (x + wide, top + 5), (x + wide, 100))
    door = pen.pick((7, door), (3, arch)) + pen.maybe(0.25, pen.dot(x + wide * 0.7, top / 2 + 50))
    size, x, y = pen.between(10, 20), left + 5, wall + pen.between(5, 14)
    bars = pen.line((x + size / 2, y), (x + size / 2, y + size))
    bars += pen.line((x, y + size / 2), (x + size, y + size / 2))
    panes = pen.ring(*_box(x, y, x + size, y + size)) + pen.maybe(0.4, bars)
    panes += pen.maybe(0.5, pen.mirrored(1, panes))
    x = right - pen.between(12, 24)
    chimney = pen.line((x, wall * 0.6), (x, 4), (x + 9, 4), (x + 9, wall * 0.8))
    extras = pen.order(0.4, pen.maybe(0.62, door), pen.maybe(0.42, pen.mirrored(0.4, panes)))
    return ink + extras + pen.maybe(0.12, pen.mirrored(0.3, chimney))


def _ice_cream(pen: Pen) -> Ink:
    top, half = pen.between(34, 56), pen.between(17, 30)
    left, tip, right = (50 - half, top), (50.0 + pen.off(4), 100.0), (50 + half, top)
    two = pen.line(left, tip) + pen.turned(0.5, pen.line(tip, right))
    cone = pen.pick((6, pen.ring(left, tip, right)), (2.5, pen.line(left, tip, right)), (1.5, two))
    wide, size, count = half * pen.between(0.9, 1.3), top / 2, pen.count(4, 8)
    third = pen.arc(50, top, wide, size, 170, 370)
    scoops = pen.pick(
        (35, pen.turned(0.4, pen.arc(50, top, wide, top * 0.95, 180, 360))),
        (25, pen.turned(0.4, pen.bumps(50, size, wide, size, count, 135, 405))),
        (15, pen.loop(50, size, wide, size + 2, 120)),
        (13, third + pen.loop(50, size * 0.6, wide * 0.8, size * 0.6, 120)),
        (6, third + pen.arc(50, size, wide * 0.8, size * 0.6, 170, 370) + pen.loop(50, 4, 5, 5)),
    )
    waffle: Ink = []
    for i in range(1, pen.count(2, 4) if pen.chance(0.2) else 1):
        x, y = half * (1 - 0.3 * i), top + (100 - top) * 0.3 * i
        waffle += pen.line((50 - x, y), (50 + half - 9 * i, top))
        waffle += pen.line((50 - half + 9 * i, top), (50 + x, y))
    return pen.joined(0.06, pen.order(0.3, cone, scoops)) + waffle


def _ladder(pen: Pen) -> Ink:
    half, rungs = pen.between(9, 24), pen.count(2, 5) if pen.chance(0.55) else pen.count(5, 8)
    lean, poke, left, right = pen.off(8), pen.between(-2, 5), 50 - half, 50 + half
    rails = pen.line((left + lean + pen.off(3), pen.off(4)), (left - lean, 100 + pen.off(4)))
    rails += pen.line((right + lean + pen.off(3), pen.off(4)), (right - lean, 100 + pen.off(4)))
    rails = [part for rail in rails for part in pen.turned(0.12, [rail])]
    rails = pen.pick((92, rails), (8, pen.ring(*_box(left, 0, right, 100))))
    steps: Ink = []
    for share in np.linspace(pen.between(0.06, 0.25), pen.between(0.7, 0.95), rungs):
        x, y = lean * (1 - 2 * share), 100 * share + pen.off(1.5)
        steps += pen.line((left + x - poke, y), (right + x + poke, y + pen.off(4)))
    steps = steps[::-1] if pen.chance(0.2) else steps
    steps = [step[::-1] for step in steps] if pen.chance(0.12) else steps
    legs = pen.line((left, 0), (left + 32, 100)) + pen.line((right, 0), (right + 32, 100))
    return pen.mirrored(0.12, rails + steps) + pen.maybe(0.05, legs)


def _line(pen: Pen) -> Ink:
    steep = -90.0 if pen.chance(0.3) else pen.between(-75, 75)
    end = _round(0, 0, 100, radians(steep if pen.chance(0.4) else 0))
    ink = pen.turned(0.15, pen.line((0, 0), end))
    return ink + pen.maybe(0.04, [ink[0] + (pen.off(2), pen.between(4, 12))])


def _mountain(pen: Pen) -> Ink:
    peaks = 1 if pen.chance(0.33) else pen.count(2, 3) if pen.chance(0.75) else pen.count(4, 5)
    path: list[Point] = [(0, pen.between(75, 100))]
    for i in range(peaks):
        foot, next_foot, tall = 100 * i / peaks, 100 * (i + 1) / peaks, pen.between(0, 40)
        top = (foot + next_foot) / 2 + pen.off(5) / peaks
        if pen.chance(0.2):  # a broken slope
            path.append((foot * 0.6 + top * 0.4, tall + pen.between(30, 45)))
            path.append((foot * 0.4 + top * 0.6, tall + pen.between(30, 45)))
        path += [(top, tall if peaks > 1 else 0), (next_foot, pen.between(40, 90))]
    path[-1] = (100, pen.between(75, 100))
    (outline,) = pen.pick((4, pen.curve(*path)), (6, pen.line(*path, miss=2)))
    outline = outline * (1, pen.between(0.5, 1.15))
    apart = pen.count(1, len(outline) - 2)
    ink = pen.pick((9, [outline]), (1, [outline[: apart + 1], outline[apart:]]))
    summit, half = outline[np.argmin(outline[:, 1])], pen.between(12, 18)
    snow = np.array([(-half, 26), (-half / 2, 21), (0, 27), (half / 2, 21), (half, 26)])
    ink = pen.turned(0.08, ink) + pen.maybe(0.12, [summit + snow])
    return ink + pen.maybe(0.05, pen.line((0, 100), (100, 100)))


def _rainbow(pen: Pen) -> Ink:
    count = 1 if pen.chance(0.17) else pen.count(2, 3) if pen.chance(0.7) else pen.count(4, 5)
    gap, high = pen.between(4, 14), pen.between(0.6, 1.35)
    bands: Ink = []
    for i in range(count):
        wide, x = max(6.0, 50 - i * gap * (1 + pen.off(0.15))), 50 + pen.off(2)
        bands += pen.arc(x, 50, wide, wide * high, 180 + pen.off(6), 360 + pen.off(6))
    bands = bands[::-1] if pen.chance(0.2) else bands
    if pen.chance(0.2):  # to and fro
        bands[1::2] = [band[::-1] for band in bands[1::2]]
        bands = pen.joined(0.5, bands)
    bands = [band[::-1] for band in bands] if pen.chance(0.08) else bands
    feet = pen.line((0, 50), (count * gap, 50))
    feet += pen.mirrored(1, feet)
    return bands + pen.maybe(0.08, feet) + pen.maybe(0.05, pen.bumps(97, 50, 14, 9, 6, 0, 360))


def _sailboat(pen: Pen) -> Ink:
    deck, half, keel = pen.between(52, 74), pen.between(36, 62), pen.between(18, 44)
    left, right, depth = 50 - half, 50 + half, pen.between(14, 30)
    bow = ((left, deck), (50 - half * 0.7, deck + depth * 0.8), (50, deck + depth))
    bowl = pen.joined(0.85, pen.curve(*_both(*bow)) + pen.line((right, deck), (left, deck)))
    low = deck + depth
    flat = pen.ring((left, deck), (50 - keel, low), (50 + keel, low), (right, deck))
    oval = pen.loop(50, deck + depth / 2, half, depth / 2)
    hull = pen.pick((50, pen.turned(0.15, bowl)), (40, flat), (10, oval))
    x, top, foot = 50 + pen.off(8), pen.between(0, 8), deck - pen.between(2, 22)
    wide = pen.between(14, 38)
    mast = pen.turned(0.5, pen.line((x, deck), (x, top)))
    sail = pen.ring((x, top), (x + wide, foot), (x, foot))
    pennant = pen.turned(0.2, pen.line((x, top), (x + wide, (top + foot) / 2), (x, foot)))
    second = pen.ring((x - 2, top + 6), (x - wide * 0.8, foot), (x - 2, foot), apart=0.05)
    across = pen.ring((x, top), (x - wide, foot), (x + wide, foot))
    rig = pen.pick(
        (35, pen.maybe(0.75, mast) + sail),
        (33, pen.joined(0.25, mast + pennant)),
        (18, pen.order(0.4, pen.maybe(0.7, mast) + sail, second)),
        (14, pen.order(0.4, pen.line((x, deck), (x, foot)), across)),
    )
    waves = pen.curve(*((x * 14, low + 3 + 3 * (x % 2)) for x in range(8)), miss=1)
    return pen.mirrored(0.35, pen.order(0.2, hull, rig) + pen.maybe(0.1, waves))


def _smiley_face(pen: Pen) -> Ink:
    apart, level, kind = pen.between(9, 23), pen.between(24, 42), pen.rng.random()
    tall, eyes = pen.between(4, 12), Ink()
    for x in (50 - apart, 50 + apart):
        y = level + pen.off(2.5)
        if kind < 0.3:
            eyes += pen.dot(x, y)
        elif kind < 0.65:
            eyes += pen.turned(0.1, pen.line((x, y - tall), (x, y + tall)))
        else:
            eyes += pen.loop(x, y, tall * 0.8, tall * 0.8) + pen.maybe(0.15, pen.dot(x, y))
    wide, deep, y = pen.between(16, 34), pen.between(8, 26), pen.between(56, 68)
    mouth = pen.turned(0.12, pen.arc(50, y, wide, deep, 180, 0))
    mouth += pen.maybe(0.08, pen.line((50 - wide, y), (50 + wide, y)))
    nose = pen.maybe(0.05, pen.line((50, 45), (47, 57), (53, 57)))
    parts = pen.order(0.1, eyes + nose, mouth)
    face = pen.loop(50, 50, pen.between(38, 52), pen.between(40, 52))
    return pen.order(0.15, pen.maybe(0.75, face), parts)


def _snowman(pen: Pen) -> Ink:
    count = 2 if pen.chance(0.6) else 3
    sizes = np.cumprod([1.0, *(pen.between(0.95, 1.6) for _ in range(count - 1))])
    sizes *= 50 / sizes.sum()
    middles, wide = 2 * np.cumsum(sizes) - sizes, pen.between(0.9, 1.6)
    balls: Ink = []
    for i, (y, size) in enumerate(zip(middles, sizes, strict=True)):
        balls += pen.loop(50 + pen.off(3), y, size * wide, size, -90 if i else 80)
    balls = pen.joined(0.06, balls[::-1] if pen.chance(0.35) else balls)
    y, r = middles[0], sizes[0]
    face = pen.dot(50 - r * 0.35, y - r * 0.2) + pen.dot(50 + r * 0.35, y - r * 0.2)
    face += pen.maybe(0.5, pen.arc(50, y + r * 0.2, r * 0.45, r * 0.35, 180, 0))
    hat = pen.line((50 - r, 3), (50 + r, 3)) + pen.line((44, 3), (44, -9), (56, -9), (56, 3))
    y, r, up = middles[1], sizes[1] * wide, pen.between(-4, 14)
    arms = pen.line((50 - r, y), (50 - r - 18, y - up))
    arms += pen.maybe(0.5, pen.mirrored(1, arms))
    buttons = [part for i in range(pen.count(1, 3)) for part in pen.dot(50, y - r * 0.4 + i * 7)]
    extras = pen.maybe(0.22, face) + pen.maybe(0.2, buttons)
    return balls + extras + pen.maybe(0.3, pen.mirrored(0.5, arms)) + pen.maybe(0.12, hat)


def _square(pen: Pen) -> Ink:
    return pen.ring(*_box(2, 2, 98, 98 if pen.chance(0.5) else pen.between(55, 112)))


def _stairs(pen: Pen) -> Ink:
    steps = pen.count(2, 4) if pen.chance(0.55) else pen.count(4, 7)
    rise, flat_first, path = pen.between(0.55, 1.1), pen.chance(0.45), [(0.0, 0.0)]
    for i in range(2 * steps + pen.count(-1, 1)):
        (x, y), stride = path[-1], 100 / steps * pen.between(0.7, 1.3)
        path.append((x + stride, y) if (i % 2 == 0) == flat_first else (x, y - stride * rise))
    ink = pen.turned(0.2, pen.line(*path))
    end = path[-1]
    return pen.mirrored(0.25, ink + pen.maybe(0.06, pen.line(end, (end[0], 0), (0, 0))))


def _star(pen: Pen) -> Ink:
    turns = [radians(-90 + 72 * i) + pen.off(0.08) for i in range(5)]
    tips = [_round(50, 50, 50 + pen.off(5), turn) for turn in turns]
    inner, start = pen.between(14, 28), pen.count(0, 4) if pen.chance(0.3) else 3
    dents = [_round(50, 50, inner + pen.off(2), turn + pi / 5) for turn in turns]
    crossed = pen.line(*(tips[(start + 2 * i) % 5] for i in range(6)), miss=2.5)
    outline = [point for pair in zip(tips, dents, strict=True) for point in pair]
    hexagram = pen.ring((50, 0), (5, 75), (95, 75)) + pen.ring((50, 100), (5, 25), (95, 25))
    edge = pen.ring(*outline, first=9 if pen.chance(0.5) else 0, apart=0.2)
    return pen.pick((46, pen.mirrored(0.35, crossed)), (50, edge), (4, hexagram))


def _sun(pen: Pen) -> Ink:
    radius, tall = pen.between(16, 33), pen.between(0.75, 1.05)
    count = pen.count(5, 9) if pen.chance(0.65) else pen.count(8, 14)
    gap, long = pen.between(-2, 7), pen.between(8, 52 - radius)
    first = -90 if pen.chance(0.4) else pen.between(-180, 180)
    places = np.arange(count) + 0.12 * pen.care * pen.rng.standard_normal(count)
    turns = radians(first) + 2 * pi / count * places
    if pen.chance(0.4):  # not round in turn, but in leaps
        turns = turns[np.argsort(np.arange(count) * pen.count(2, 5) % count, kind="stable")]
    turns = turns[::-1] if pen.chance(0.35) else turns
    rays, inwards = Ink(), pen.chance(0.25)
    for turn in turns:
        near = radius + gap + pen.off(2)
        far = near + long * max(0.3, 1 + pen.off(0.2))
        ray = pen.line(_round(50, 50, near, turn), _round(50, 50, far, turn), miss=1.4)
        rays += pen.turned(0.9 if inwards else 0.1, ray)
    disc = pen.loop(50, 50, radius, radius)
    zigzag = np.arange(4 * count + 1)
    reach = np.where(zigzag % 2, pen.between(radius + 8, 50), radius)
    spikes = [_round(50, 50, r, pi * i / (2 * count)) for i, r in zip(zigzag, reach, strict=True)]
    spiky = pen.maybe(0.6, disc) + pen.line(*spikes)
    ink = pen.pick((93, disc + rays), (7, spiky))
    return [stroke * (1, tall) for stroke in ink]


def _t_shirt(pen: Pen) -> Ink:
    neck, wide, hem = pen.between(8, 17), pen.between(18, 27), pen.between(62, 92)
    pit, cuff, reach = pen.between(28, 38), pen.between(20, 36), pen.between(40, 54)
    left = [
        (50 - neck, 0.0),
        (50 - reach, cuff - 8),
        (50 - reach + pen.between(5, 13), cuff + 6),
        (50 - wide, pit),
        (50 - wide + pen.off(2), hem),
    ]
    dip = 2 if pen.chance(0.3) else pen.between(5, 18)
    collar = pen.curve(*_both((50 - neck, 0), (50 - neck * 0.5, dip * 0.8), (50, dip))[::-1])
    around = pen.line(*_both(*left))
    halves = [around[0][: pen.count(5, 6)], around[0][:4:-1]]
    start = pen.count(3, 6)
    flat = pen.ring(*_both(*left), first=pen.count(0, 9), apart=0.05)
    from_sleeve = [np.concatenate([around[0][start:], collar[0], around[0][: start + 1]])]
    ink = pen.pick(
        (30, pen.joined(1, collar + around)),
        (15, flat),
        (20, from_sleeve),
        (20, pen.order(0.3, collar, around)),
        (15, pen.order(0.3, collar, halves)),
    )
    return pen.mirrored(0.5, ink)


def _tree(pen: Pen) -> Ink:
    wide, top, spread = pen.between(4, 12), pen.between(42, 66), max(0.0, pen.between(-8, 14))
    left = ((50 - wide, top), (50 - wide, 85), (50 - wide - spread, 100))
    half, middle = pen.between(24, 50), top / 2 + 4
    gap = pen.between(10, 40)  # the crown is open over the trunk
    bumps = pen.bumps(50, middle, half, middle - 2, pen.count(3, 9), 90 + gap, 450 - gap)
    scribble = np.linspace(0, 2 * pi * pen.count(3, 7), 80)
    x = 50 + 26 * np.cos(scribble / 7.3) + 12 * np.cos(scribble)
    scrawl = np.stack([x, middle + 14 * np.sin(scribble / 5.1) + 12 * np.sin(scribble)], axis=1)
    tiers, fir = pen.count(1, 4), [(50.0, 0.0)]
    for i in range(1, tiers + 1):
        y, x = top * i / tiers, half * (0.35 + 0.65 * i / tiers)
        fir += [(50 - x, y), (50 - x * 0.5, y)][: 2 if i < tiers else 1]
    crown = pen.pick(
        (62, pen.turned(0.3, bumps)),
        (14, pen.loop(50, middle, half, middle - 2, 100)),
        (8, [scrawl]),
        (6, pen.line(*_both(*fir))),
    )
    trunk = pen.curve(*left) + pen.mirrored(1, pen.curve(*left))
    trunk = pen.turned(0.3, trunk[:1]) + pen.turned(0.3, trunk[1:])
    trunk += pen.maybe(0.12, pen.line((50 - wide - spread, 100), (50 + wide + spread, 100)))
    boxed = pen.line(*_box(50 - wide, top, 50 + wide, 100))
    trunk = pen.pick((85, trunk), (15, boxed))
    apart = pen.order(0.3, trunk, crown)
    foot = pen.curve(*left)
    whole = pen.joined(1, [foot[0][::-1], *bumps]) + pen.mirrored(1, foot)
    return pen.pick((82, apart), (18, pen.turned(0.2, pen.joined(0.8, whole))))


def _triangle(pen: Pen) -> Ink:
    high, top = pen.between(50, 120), (50 + float(pen.rng.normal(0, 16)), 0.0)
    return pen.ring(top, (0, high), (100, high + pen.off(6)), apart=0.25)


def _umbrella(pen: Pen) -> Ink:
    low, count = pen.between(28, 52), pen.count(2, 6)
    dome = pen.arc(50, low, 48, low, 180, 360)
    dome = pen.pick((85, dome), (15, pen.line((2, low), (50, 0), (98, low))))
    share = np.arange(8 * count + 1) / (8 * count)
    sag = pen.between(4, 12) * (1 if pen.chance(0.2) else -1)
    scallops = np.stack([98 - 96 * share, low + sag * abs(np.sin(pi * count * share))], axis=1)
    hem = pen.pick((5, pen.line((98, low), (2, low))), (5, [scallops]))
    closed = pen.turned(0.25, pen.joined(1, dome + hem))
    canopy = pen.pick((65, closed), (30, dome + pen.turned(0.6, hem)), (5, dome))
    x, hook, end = 50 + pen.off(2), pen.between(4, 12), pen.between(88, 100)
    grip = [(x - hook * 0.3, end + 7), (x - hook, end + 8), (x - 2 * hook, end - 4)]
    top = 0.0 if pen.chance(0.25) else low
    shaft = pen.curve((x, top), (x, 70), (x, end), *(grip if pen.chance(0.72) else []))
    shaft = pen.turned(0.15, pen.mirrored(0.35, shaft))
    thick = pen.line(*_box(47, low, 53, end))
    handle = pen.pick((85, shaft), (15, thick))
    ribs = pen.curve((50, 0), (40, low * 0.45), (34, low))
    ribs += pen.mirrored(1, ribs)
    ink = pen.joined(0.05, pen.order(0.42, canopy, handle))
    return ink + pen.maybe(0.12, ribs) + pen.maybe(0.06, pen.line((50, 0), (50, -7)))


def _wine_glass(pen: Pen) -> Ink:
    rim, bowl, side = pen.between(16, 30), pen.between(36, 62), pen.between(18, 32)
    half = ((50 - rim, 0), (50 - side, bowl * 0.5), (50 - side * 0.6, bowl * 0.9), (50, bowl))
    straight = pen.line(*_box(50 - rim, 0, 50 + rim, bowl))
    cup = pen.pick((75, pen.curve(*_both(*half))), (25, straight))
    over = pen.line((50 + rim, 0), (50 - rim, 0))
    mouth = pen.loop(50, 0, rim, pen.between(3, 8))
    glass = pen.pick(
        (25, pen.order(0.4, pen.turned(0.2, cup), pen.turned(0.4, over))),
        (35, pen.turned(0.2, pen.joined(1, cup + over))),
        (22, pen.order(0.25, mouth, pen.turned(0.2, cup))),
        (18, cup),
    )
    foot, thin = pen.between(12, 30), pen.between(2, 6)
    single, double = pen.line((50, bowl), (50, 94)), pen.line((50 - thin, bowl), (50 - thin, 94))
    double += pen.mirrored(1, double)
    flat = pen.turned(0.2, pen.line((50 - foot, 97), (50 + foot, 97)))
    plate = pen.pick((5, pen.loop(50, 97, foot, pen.between(3, 7), -90)), (4, flat))
    outline = _both((50 - thin, bowl), (50 - thin, 90), (50 - foot, 95), (50 - foot, 100))
    single = pen.joined(0.3, single + plate)
    stand = pen.pick((45, single), (35, double + plate), (20, pen.line(*outline)))
    y = bowl * pen.between(0.2, 0.5)
    wine = pen.curve((50 - side, y), (50, y + pen.off(3)), (50 + side, y))
    return pen.joined(0.06, glass + stand) + pen.maybe(0.15, wine)


def _zigzag(pen: Pen) -> Ink:
    teeth = pen.count(3, 6) if pen.chance(0.6) else pen.count(6, 14)
    x = np.cumsum(1 + 0.22 * pen.rng.standard_normal(teeth + 1)) / teeth * 100
    high = pen.between(15, 60) if pen.chance(0.6) else pen.between(50, 130)
    y = high * (1 + 0.16 * pen.rng.standard_normal(teeth + 1)) * (np.arange(teeth + 1) % 2 - 0.5)
    y = -y if pen.chance(0.4) else y
    x = x + y * (pen.between(-0.5, 0.5) if pen.chance(0.35) else 0)  # the teeth lean over
    path = list(zip(x, y, strict=True))
    if pen.chance(0.35):  # downwards
        path = [(y, x) for x, y in path]
    elif pen.chance(0.25):  # across
        turn = radians(pen.between(-60, 60))
        path = [(x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)) for x, y in path]
    return pen.turned(0.08, pen.pick((8, pen.line(*path)), (2, pen.curve(*path))))


_WAYS: dict[str, Callable[[Pen], Ink]] = {
    "apple": _apple,
    "candle": _candle,
    "circle": _circle,
    "clock": _clock,
    "cloud": _cloud,
    "donut": _donut,
    "envelope": _envelope,
    "eyeglasses": _eyeglasses,
    "fish": _fish,
    "flower": _flower,
    "headphones": _headphones,
    "house": _house,
    "ice cream": _ice_cream,
    "ladder": _ladder,
    "line": _line,
    "mountain": _mountain,
    "rainbow": _rainbow,
    "sailboat": _sailboat,
    "smiley face": _smiley_face,
    "snowman": _snowman,
    "square": _square,
    "stairs": _stairs,
    "star": _star,
    "sun": _sun,
    "t-shirt": _t_shirt,
    "tree": _tree,
    "triangle": _triangle,
    "umbrella": _umbrella,
    "wine glass": _wine_glass,
    "zigzag": _zigzag,
}

CATEGORIES: tuple[str, ...] = tuple(_WAYS)
"""The categories that can be drawn, by QuickDraw's names, in alphabetical order."""


def drawing(category: str, rng: np.random.Generator) -> list[Stroke]:
    """Draw one of ``CATEGORIES``: strokes of (point, 2) in pixels, y downwards, in drawing order.

    All randomness comes from ``rng``. Raises ``ValueError`` for a category that it cannot draw.
    """
    if category not in _WAYS:
        near = difflib.get_close_matches(category, CATEGORIES, n=3) or CATEGORIES
        raise ValueError(f"cannot draw {category!r}: choose from {', '.join(near)}")
    pen = Pen(rng)
    return _trace(pen, _habits(pen, _WAYS[category](pen)))


def _habits(pen: Pen, strokes: Ink) -> Ink:
    """Draw in another order, turn strokes round, lift the pen within one or not between two."""
    if pen.chance(0.02):
        strokes = [strokes[i] for i in pen.rng.permutation(len(strokes))]
    strokes = [stroke[::-1] if pen.chance(0.02) else stroke for stroke in strokes]
    at = pen.count(0, len(strokes) - 1)
    if pen.chance(0.05) and len(strokes[at]) > 5:
        cut = pen.count(2, len(strokes[at]) - 3)
        strokes[at : at + 1] = [strokes[at][: cut + 1], strokes[at][cut:]]
    if pen.chance(0.06):
        strokes[at : at + 2] = [np.concatenate(strokes[at : at + 2])]
    return strokes


def _trace(pen: Pen, strokes: Ink) -> Ink:
    """Follow the strokes as a hand does: (point, 2) every few pixels on a canvas."""
    rng, care = pen.rng, pen.care
    hooks = rng.standard_normal((len(strokes), 2, 2)) * (rng.random((len(strokes), 2, 1)) < 0.15)
    ends = zip(strokes, 1.8 * care * hooks, strict=True)
    strokes = [np.concatenate([s[:1] + hook[:1], s, s[-1:] + hook[1:]]) for s, hook in ends]
    lengths = np.array([len(stroke) for stroke in strokes])
    path = np.concatenate(strokes)
    path = path + np.repeat(1.2 * care * rng.standard_normal((len(strokes), 2)), lengths, axis=0)

    # Every stroke at even steps of its length, in one interpolation for all of them.
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    last = np.cumsum(lengths) - 1
    begin, end = way[last - lengths + 1], way[last]
    counts = np.maximum(2, np.ceil((end - begin) / pen.between(1, 2.2)).astype(int) + 1)
    first = np.cumsum(counts) - counts
    index = np.arange(counts.sum()) - np.repeat(first, counts)
    at = np.repeat(begin, counts) + index * np.repeat((end - begin) / (counts - 1), counts)
    path = np.stack([np.interp(at, way, path[:, 0]), np.interp(at, way, path[:, 1])], axis=1)

    # Corners are rounded: a running mean that narrows towards the ends of a stroke.
    room = np.minimum(index, np.repeat(counts, counts) - 1 - index)
    window = np.minimum(room, int(pen.between(0, 2 + 2 * care)))
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(path, axis=0)])
    here = np.arange(len(path))
    path = (sums[here + window + 1] - sums[here - window]) / (2 * window + 1)[:, None]

    # Drift: a slow wander along the pen's way, and a bend of the whole sheet.
    knots = np.arange(0, way[-1] + 60, pen.between(10, 26))
    wander = 0.75 * care * rng.standard_normal((2, len(knots)))
    path += np.stack([np.interp(at, knots, wander[0]), np.interp(at, knots, wander[1])], axis=1)
    bend = 1.6 * care * rng.standard_normal((3, 2))
    path += np.sin(path @ (0.03 * rng.standard_normal((2, 3))) + 2 * pi * rng.random(3)) @ bend

    turn, lean, tall = 0.06 * rng.standard_normal(3)
    path = path @ np.array([[1, turn + lean], [-turn, 1 + 2 * tall]]) * pen.between(1.5, 4.5)
    path += 0.25 * rng.standard_normal(path.shape)  # tremor
    return np.split(path - path.min(0) + 200 * rng.random(2), first[1:])
