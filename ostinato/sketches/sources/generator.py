"""Generate drawings by rule, in thirty of QuickDraw's categories: a source without a network.

Each category is a short function that varies the parts of the object, their order and direction,
and what is added or left out. It draws with a ``Pen`` in a box of about 100 by 100 units, x to the
right and y downwards. ``drawing`` then imitates handwriting: misplaced, broken, reversed or
connected strokes; rotation, shear, scaling, rounded corners, drift and tremor.

The category names are those of The Quick, Draw! Dataset (Google, CC BY 4.0); no drawing of it is
used here.
"""

from collections.abc import Callable
from math import cos, pi, radians, sin

import numpy as np
from jaxtyping import Float64

from ostinato.errors import SourceError
from ostinato.params import near

Stroke = Float64[np.ndarray, "..."]
Ink = list[Stroke]
Point = tuple[float, float]

_ARC, _LOOP = np.arange(14) / 13, np.arange(26) / 25  # fractions of an arc and of a loop
_WAVES = np.arange(2, 5)[:, None]

# Catmull-Rom spline: weights of four neighbouring points at six positions between the middle two.
_T = np.arange(6) / 6
_SPLINE = 0.5 * np.stack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2],
    axis=1,
)


class Pen:
    """Random choices and basic shapes of one person's drawing; a shape is a list of strokes.

    ``sloppiness`` scales the deviation of marks from their intended positions (1 is typical).
    Angles are in degrees: 0 is to the right, -90 up, and increasing angles go clockwise.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.sloppiness = min(3.0, float(np.exp(0.38 * rng.standard_normal())))

    def happens(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        """Sample a number between two bounds."""
        return low + (high - low) * float(self.rng.random())

    def integer(self, low: int, high: int) -> int:
        """Sample an integer from low to high, inclusive."""
        return low + int((high - low + 1) * self.rng.random())

    def noise(self, size: float) -> float:
        """Sample normal noise with this standard deviation, scaled by the sloppiness."""
        return size * self.sloppiness * float(self.rng.standard_normal())

    def choose(self, *ways: tuple[float, Ink]) -> Ink:
        """Choose one of several variants, each with its weight."""
        at = self.rng.random() * sum(weight for weight, _ in ways)
        for weight, ink in ways:
            at -= weight
            if at < 0:
                return ink
        return ways[-1][1]

    def maybe(self, probability: float, ink: Ink) -> Ink:
        """Return the strokes with a probability, else none."""
        return ink if self.rng.random() < probability else []

    def either_order(self, probability: float, first: Ink, second: Ink) -> Ink:
        """Return both parts; with this probability the second one comes first."""
        return second + first if self.rng.random() < probability else first + second

    def maybe_reversed(self, probability: float, ink: Ink) -> Ink:
        """Reverse all strokes and their order with this probability."""
        reverse = self.rng.random() < probability
        return [stroke[::-1] for stroke in ink[::-1]] if reverse else ink

    def maybe_joined(self, probability: float, ink: Ink) -> Ink:
        """Connect the strokes with this probability."""
        return [np.concatenate(ink)] if self.rng.random() < probability else ink

    def maybe_mirrored(self, probability: float, ink: Ink) -> Ink:
        """Swap left and right with this probability."""
        return [s * (-1, 1) + (100, 0) for s in ink] if self.rng.random() < probability else ink

    def line(self, *points: Point, noise: float = 1.7) -> Ink:
        """Draw straight lines through the points, with noise."""
        corners = np.array(points, float)
        return [corners + noise * self.sloppiness * self.rng.standard_normal(corners.shape)]

    def curve(self, *points: Point, noise: float = 1.7) -> Ink:
        """Draw a smooth curve through the points, with noise."""
        knots = self.line(*points, noise=noise)[0]
        around = np.concatenate([knots[:1], knots, knots[-1:]])
        spans = np.stack([around[i : len(around) - 3 + i] for i in range(4)], axis=1)
        return [np.concatenate([(_SPLINE @ spans).reshape(-1, 2), knots[-1:]])]

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float) -> Ink:
        """Draw an arc of an ellipse around (x, y)."""
        start, end = start + self.noise(5), end + self.noise(5)
        angle = np.radians(start + (end - start) * _ARC)
        bulge = 1 + self.noise(0.04) * np.cos(2 * angle) + self.noise(0.03) * np.sin(2 * angle)
        return _ellipse(x, y, rx * bulge, ry * bulge, angle)

    def loop(self, x: float, y: float, rx: float, ry: float, start: float = -80) -> Ink:
        """Draw an uneven ellipse that is not exactly closed."""
        start = self.uniform(-180, 180) if self.happens(0.15) else start + self.noise(25)
        turn = (360 + self.noise(16)) * (-1 if self.happens(0.7) else 1)
        angle = np.radians(start + turn * _LOOP)
        size = (
            0.05 * min(self.sloppiness, 2) * self.rng.standard_normal((3, 1)) / (_WAVES - 1) ** 0.5
        )
        uneven = (size * np.cos(_WAVES * angle + 2 * pi * self.rng.random((3, 1)))).sum(0)
        radius = 1 + uneven + self.noise(0.06) * _LOOP
        return _ellipse(x, y, rx * radius, ry * radius, angle)

    def ring(self, *corners: Point, first: int = 0, split: float = 0.15) -> Ink:
        """Draw a closed polygon as one stroke, or with probability ``split`` as several strokes."""
        first = self.integer(0, len(corners) - 1) if self.happens(0.25) else first
        path = self.line(*corners[first:], *corners[: first + 1])[0]
        path[-1] += self.noise(3), self.noise(3)
        path = path[::-1] if self.happens(0.4) else path
        if not self.happens(split):
            return [path]
        if self.happens(0.4):
            return [path[i : i + 2] for i in range(len(path) - 1)]
        cut = self.integer(1, len(path) - 2)
        return [path[: cut + 1], *self.maybe_reversed(0.4, [path[cut:]])]

    def bumps(
        self, x: float, y: float, rx: float, ry: float, count: int, start: float, end: float
    ) -> Ink:
        """Draw round bumps of uneven sizes along an ellipse, as on a cloud."""
        edges = np.zeros(count + 1)
        edges[1:] = np.cumsum(np.exp(0.3 * self.rng.standard_normal(count)))
        along = np.arange(8 * count + 1) / 8
        bump = along % 1
        depth = self.uniform(0.1, 0.32) * np.exp(0.35 * self.rng.standard_normal(count + 1))
        depth = np.minimum(depth, 0.6)[along.astype(int)]
        share = np.interp(along, np.arange(count + 1), edges / edges[-1])
        share += self.uniform(-0.2, 0.06) * np.sin(2 * pi * bump) / count
        angle = np.radians(start + (end - start) * share)
        radius = 1 - depth + 1.6 * depth * np.sin(pi * bump) ** 0.8
        radius *= 1 + self.noise(0.07) * np.cos(2 * angle + self.uniform(0, 2 * pi))
        return _ellipse(x, y, rx * radius, ry * radius, angle)

    def dot(self, x: float, y: float) -> Ink:
        """Draw a dot."""
        return self.line((x, y), (x + self.noise(1), y + self.noise(1)), noise=0.7)


def _ellipse(x: float, y: float, rx: Stroke, ry: Stroke, angle: Stroke) -> Ink:
    return [np.array([x + rx * np.cos(angle), y + ry * np.sin(angle)]).T]


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """The corners of a box, anticlockwise from the top left."""
    return (left, top), (left, bottom), (right, bottom), (right, top)


def _symmetric(*left: Point) -> list[Point]:
    """Points of a left half, then their mirror images in reverse."""
    return [*left, *((100 - x, y) for x, y in reversed(left))]


def _polar(x: float, y: float, reach: float, angle: float) -> Point:
    """The point at a distance and an angle in radians from (x, y)."""
    return x + reach * cos(angle), y + reach * sin(angle)


def _apple(pen: Pen) -> Ink:
    dent, low, lean = pen.uniform(22, 32), pen.uniform(86, 98), pen.noise(5) + 4
    half = [(50, dent), (32, 17), (9, 28), (3, 52), (15, 82), (36, 98), (50, low)]
    outline = pen.curve(*_symmetric(*half), noise=2.2)
    body = pen.choose((7, pen.maybe_mirrored(0.3, outline)), (3, pen.loop(50, 59, 47, 41, -90)))
    stalk = pen.curve((50, dent), (50 + lean * 0.4, 14), (50 + lean, pen.uniform(-4, 8)))
    thick = [np.concatenate([*stalk, *pen.line((55 + lean, 2), (56, dent))])]
    tip = (50 + pen.uniform(20, 32), pen.uniform(-2, 10))
    leaf = pen.curve((50, 20), (57, 6), tip, (68, 17), (50, 20))
    top = pen.choose((6, pen.maybe_reversed(0.35, stalk)), (3, thick), (0.4, []))
    return pen.either_order(0.12, body, top + pen.maybe(0.4, pen.maybe_mirrored(0.25, leaf)))


def _candle(pen: Pen) -> Ink:
    top, wide, fat = pen.uniform(28, 50), pen.uniform(7, 19), pen.uniform(5, 10)
    body = pen.ring(*_box(50 - wide, top, 50 + wide, 98), split=0.2)
    sides = pen.line((50 - wide, top), (50 - wide, 98), (50 + wide, 98), (50 + wide, top))
    rim = pen.loop(50, top, wide, 4)
    wick = pen.maybe(
        0.6, pen.maybe_reversed(0.2, pen.line((50, top), (50 + pen.noise(1.5), top - 8)))
    )
    low, tip = top - pen.uniform(3, 9) * len(wick), pen.uniform(0, 6)
    belly = (50 - fat, low - (low - tip) * 0.35)
    drop = pen.curve(*_symmetric((50, low), belly, (50, tip))[:-1], (50, low))
    flame = pen.choose(
        (6, drop), (4, pen.loop(50, (low + tip) / 2, fat * 0.9, (low - tip) / 2, 90))
    )
    dish = wide + pen.uniform(6, 16)
    flat, oval = pen.line((50 - dish, 99), (50 + dish, 99)), pen.loop(50, 99, dish, 6)
    body = pen.choose((8, body), (1, rim + sides), (1, sides + rim))
    return pen.either_order(0.1, body + wick, flame) + pen.maybe(
        0.15, pen.choose((1, flat), (1, oval))
    )


def _circle(pen: Pen) -> Ink:
    return pen.loop(50, 50, 48, pen.uniform(38, 56)) + pen.maybe(0.02, pen.dot(50, 50))


_NUMERALS: dict[int, tuple[tuple[Point, ...], ...]] = {
    3: (((0.1, 0.1), (0.7, 0.2), (0.3, 0.5), (0.8, 0.75), (0.1, 1)),),
    6: (((0.7, 0), (0.2, 0.6), (0.5, 1), (0.8, 0.7), (0.2, 0.7)),),
    9: (((0.8, 0.2), (0.3, 0.1), (0.3, 0.5), (0.8, 0.3), (0.7, 1)),),
    12: (((0, 0), (0, 1)), ((0.4, 0.2), (0.8, 0), (1.1, 0.3), (0.4, 1), (1.2, 1))),
}


def _clock(pen: Pen) -> Ink:
    marks: Ink = []
    kind, size, each = pen.rng.random(), pen.uniform(9, 15), 3 if pen.happens(0.7) else 1
    for number in range(3, 13, 3) if kind < 0.3 else range(each, 13, each) if kind < 0.48 else ():
        angle = radians(30 * number - 90) + pen.noise(0.05)
        x, y = _polar(50 - size / 2, 50 - size / 2, 38, angle)
        if kind < 0.3:
            for numeral in _NUMERALS[number]:
                marks += pen.curve(*((x + size * u, y + size * v) for u, v in numeral), noise=0.8)
        else:
            inner = _polar(50, 50, pen.uniform(34, 43), angle)
            marks += pen.maybe_reversed(0.2, pen.line(inner, _polar(50, 50, 47, angle)))
    marks = marks[: pen.integer(1, 4)] if pen.happens(0.3) else marks
    hour, minute = (pen.uniform(-180, 180) for _ in range(2))
    if pen.happens(0.7):  # about three or nine o'clock
        minute, hour = -90 + pen.noise(8), pen.uniform(-45, 70) if pen.happens(0.8) else 180
    long = _polar(50, 50, pen.uniform(22, 46), radians(minute))
    short = _polar(50, 50, pen.uniform(14, 40), radians(hour))
    apart = pen.maybe_reversed(0.3, pen.line((50, 50), long)) + pen.maybe_reversed(
        0.3, pen.line((50, 50), short)
    )
    tip = pen.line((long[0] - 6, long[1] + 7), long, (long[0] + 6, long[1] + 7))
    hands = pen.choose((5, pen.maybe_reversed(0.25, pen.line(long, (50, 50), short))), (5, apart))
    hands = pen.maybe(0.12, pen.dot(50, 50)) + pen.maybe(0.95, hands) + pen.maybe(0.1, tip)
    face = pen.loop(50, 50, 50, pen.uniform(42, 56)) + pen.maybe(0.04, pen.loop(50, 50, 43, 43))
    return face + pen.either_order(0.5, hands, marks)


def _cloud(pen: Pen) -> Ink:
    start, high = pen.uniform(90, 270), pen.uniform(24, 42)
    turn = (360 + pen.noise(12)) * (1 if pen.happens(0.55) else -1)
    count = pen.integer(5, 9) if pen.happens(0.8) else pen.integer(9, 15)
    (outline,) = pen.bumps(50, 50, 50, high, count, start, start + turn)
    if pen.happens(0.25):  # flat below
        outline[:, 1] = np.minimum(outline[:, 1], 50 + high * pen.uniform(0.3, 0.7))
    cut = pen.integer(len(outline) // 4, len(outline) * 3 // 4)
    parts = pen.choose((9, [outline]), (1, [outline[: cut + 1], outline[cut:]]))
    rain = [stroke for x in (30, 48, 66) for stroke in pen.line((x, 92), (x - 3, 104))]
    return parts + pen.maybe(0.06, rain)


def _donut(pen: Pen) -> Ink:
    high, hole = pen.uniform(0.62, 1.05), pen.uniform(0.2, 0.52)
    inner = pen.loop(50 + pen.noise(4), 50 + pen.noise(4), 50 * hole, 50 * hole * high)
    ink = pen.maybe_joined(0.04, pen.either_order(0.12, pen.loop(50, 50, 50, 50 * high), inner))
    ink += pen.maybe(0.12, pen.bumps(50, 50, 38, 38 * high, pen.integer(6, 10), 0, 360))
    for _ in range(pen.integer(3, 9) if pen.happens(0.27) else 0):  # sprinkles
        x, y = _polar(0, 0, 50 * pen.uniform(hole + 0.15, 0.9), pen.uniform(0, 2 * pi))
        spot = (50 + x, 50 + y * high)
        ink += pen.line(spot, (spot[0] + pen.noise(4), spot[1] + pen.noise(4)), noise=0.5)
    return ink


def _envelope(pen: Pen) -> Ink:
    high, dip = pen.uniform(35, 80), pen.uniform(0.35, 0.75)
    middle = (50 + pen.noise(4), high * dip)
    flap = pen.line((0, 0), middle, (100, 0))
    halves = pen.line((0, 0), middle) + pen.maybe_reversed(0.5, pen.line(middle, (100, 0)))
    rest = pen.choose((8, pen.maybe_reversed(0.25, flap)), (1, halves))
    ink = pen.either_order(0.08, pen.ring(*_box(0, 0, 100, high)), rest)
    round_once = pen.line(*_box(0, 0, 100, high), (0, 0), middle, (100, 0))
    ink = pen.choose((7, ink), (3, pen.maybe_mirrored(0.3, round_once)))
    near = high * dip * 0.8
    folds = pen.line((0, high), (38, near)) + pen.maybe_reversed(
        0.5, pen.line((62, near), (100, high))
    )
    return ink + pen.maybe(0.13, folds) + pen.maybe(0.12, pen.loop(50, high * dip, 5, 5))


def _eyeglasses(pen: Pen) -> Ink:
    wide, high, gap = pen.uniform(14, 21), pen.uniform(9, 20), pen.uniform(5, 14)
    near, lens, far = 50 - gap, 50 - gap - wide, 50 - gap - 2 * wide
    left, right = pen.loop(lens, 30, wide, high, -20), pen.loop(100 - lens, 30, wide, high, -150)
    if pen.happens(0.2):
        left = pen.ring(*_box(far, 30 - high, near, 30 + high), split=0.05)
        right = pen.ring(*_box(100 - near, 30 - high, 100 - far, 30 + high), split=0.05)
    bridge = pen.line((near, 28), (100 - near, 28))
    bowed = pen.curve((near, 29), (50, 29 - pen.uniform(1, 8)), (100 - near, 29))
    bridge = pen.maybe_reversed(0.15, pen.choose((4, bridge), (6, bowed)))
    between, after = left + bridge + right, left + right + bridge
    pair = pen.maybe_joined(0.12, pen.choose((5, between), (4, after), (1, bridge + left + right)))
    reach, rise, hook = pen.uniform(4, 26), pen.uniform(-24, 6), pen.uniform(0, 12)
    way = [(far, 28.0), (far - reach, 28 + rise), (far - reach - 4, 28 + rise + hook)]
    way = way if pen.happens(0.3) else way[:2]
    arms = pen.maybe_reversed(0.2, pen.line(*way)) + pen.maybe_reversed(
        0.2, pen.maybe_mirrored(1, pen.line(*way))
    )
    return pen.maybe_mirrored(0.15, pen.either_order(0.08, pair, pen.maybe(0.87, arms)))


def _fish(pen: Pen) -> Ink:
    high, neck, fin = pen.uniform(13, 34), pen.uniform(58, 78), pen.uniform(9, 28)
    end = 98 - pen.uniform(0, 9)
    over = ((neck, 50), (neck * 0.75, 50 - high * 0.75), (neck * 0.4, 50 - high))
    under = [(x, 100 - y) for x, y in over[::-1]]
    nose = (0.0, 50 + pen.noise(3))
    ribbon = pen.curve((98, 50 + fin), *over, nose, *under, (98, 50 - fin))
    close = pen.maybe(0.65, pen.line((98, 50 - fin), (end, 50 + fin)))
    ribbon = pen.maybe_joined(0.7, ribbon + close)
    bows = pen.curve(nose, *over[::-1], (98, 50 + fin)) + pen.curve(nose, *under, (98, 50 - fin))
    body = pen.choose(
        (7, pen.loop(neck / 2, 50, neck / 2, high, pen.uniform(-60, 60))),
        (3, pen.curve((neck, 50), *over[1:], nose, *under)),
    )
    fan = pen.line((neck - 2, 47), (98, 50 - fin), (end, 50 + fin), (neck - 2, 53))
    tail = pen.ring((neck, 50), (98, 50 - fin), (end, 50 + fin), split=0.25)
    apart = pen.either_order(0.15, body, pen.choose((4, fan), (6, tail)))
    ink = pen.choose((4, ribbon), (4.5, apart), (1.5, pen.maybe_reversed(0.2, bows) + close))
    x, y = pen.uniform(10, 24), 50 - pen.uniform(2, high * 0.4)
    gill = pen.curve((27, 50 - high * 0.75), (34, 50), (27, 50 + high * 0.75))
    fins = pen.curve((28, 50 - high), (44, 38 - high), (50, 50 - high * 0.85))
    fins += pen.maybe(0.6, pen.curve((30, 50 + high), (46, 60 + high), (50, 50 + high * 0.85)))
    ink += pen.maybe(0.75, pen.choose((6, pen.dot(x, y)), (4, pen.loop(x, y, 3.5, 3.5))))
    ink += pen.maybe(0.2, pen.curve((2, 55), (9, 58 + pen.noise(2)), (15, 55)))
    ink += pen.maybe(0.2, gill) + pen.maybe(0.2, fins)
    ink = [stroke * (1, -1) + (0, 100) for stroke in ink] if pen.happens(0.4) else ink
    return pen.maybe_mirrored(0.3, ink)


def _flower(pen: Pen) -> Ink:
    y = 50.0 if pen.happens(0.12) else pen.uniform(24, 36)
    core, reach, count = pen.uniform(5, 12), pen.uniform(20, 33), pen.integer(4, 8)
    first, half = pen.uniform(-200, 0), 0.75 * pi / count
    petals: Ink = []
    if pen.happens(0.35):  # petal by petal
        for i in range(count):
            turn = radians(first) + 2 * pi * i / count + pen.noise(0.1)
            left, right = (_polar(50, y, core, turn + side) for side in (half, -half))
            far = ((reach * 0.8, half), (reach, 0), (reach * 0.8, -half))
            petals += pen.curve(left, *(_polar(50, y, r, turn + side) for r, side in far), right)
        petals = pen.maybe_joined(0.4, petals)
    elif pen.happens(0.15):  # in one path through the middle
        angle = np.linspace(0, 2 * pi * (1 + pen.noise(0.03)), 16 * count) + radians(first)
        radius = reach * np.abs(np.sin(count * angle / 2)) ** 0.7 + 2
        petals = _ellipse(50, y, radius, radius, angle)
    else:
        turn = (360 + pen.noise(15)) * (1 if pen.happens(0.6) else -1)
        petals = pen.bumps(50, y, reach * 0.85, reach * 0.85, count, first, first + turn)
    centre = pen.loop(50, y, core, core)
    head = pen.either_order(0.3, pen.maybe(0.85, centre), petals)
    stem = pen.curve((50, y + reach), (50 + pen.noise(5), 75), (50 + pen.noise(5), 100))
    stem = pen.maybe_reversed(0.15, stem) + pen.maybe(0.08, [stem[0] + (5, 0)])
    for side in (1, -1):
        tip = (50 + side * pen.uniform(10, 20), pen.uniform(66, 80))
        leaf = pen.curve((50, 88), (50 + side * 5, 76), tip, (50 + side * 12, 86), (50, 88))
        stem += pen.maybe(0.22, leaf)
    return head if y == 50 else pen.either_order(0.4, head, stem)


def _headphones(pen: Pen) -> Ink:
    high, wide = pen.uniform(45, 72), pen.uniform(28, 42)
    x, y, out = pen.uniform(7, 16), pen.uniform(9, 18), pen.uniform(-0.3, 0.5)
    left, low = 50 - wide - x * out, high + y * pen.uniform(0.1, 1)
    pads = pen.loop(left, low, x, y, -60) + pen.loop(100 - left, low, x, y, -120)
    if pen.happens(0.12):
        pads = pen.ring(*_box(left - x, low - y, left + x, low + y), split=0)
        pads += pen.ring(*_box(100 - left - x, low - y, 100 - left + x, low + y), split=0)
    band = pen.maybe_reversed(0.2, pen.arc(50, high, wide, high, 180, 360))
    band += pen.maybe(0.15, pen.arc(50, high, wide * 0.85, high * 0.88, 180, 360))
    between = pads[:1] + band + pads[1:]
    return pen.choose((25, band + pads), (25, pads + band), (50, pen.maybe_joined(0.35, between)))


def _house(pen: Pen) -> Ink:
    half, wall, ridge = pen.uniform(24, 52), pen.uniform(28, 55), 50 + pen.noise(5)
    left, right, eaves = 50 - half, 50 + half, max(0.0, pen.uniform(-8, 11))
    walls, peak = _box(left, wall, right, 100), (ridge, 0.0)
    low, high = (left - eaves, wall), (right + eaves, wall)
    gable = pen.choose((7, pen.ring(peak, low, high)), (3, pen.line(high, low, peak, high)))
    open_walls = pen.maybe_reversed(0.2, pen.line(*walls))
    open_roof = pen.maybe_reversed(0.2, pen.line(low, peak, high))
    body = pen.choose((7, pen.ring(*walls)), (3, pen.line(*walls, walls[0], walls[3])))
    pentagon = pen.ring((left, wall), peak, (right, wall), (right, 100), (left, 100), split=0.1)
    pentagon += pen.maybe(0.6, pen.line((left, wall), (right, wall)))
    ink = pen.choose(
        (4, pen.either_order(0.45, open_walls, gable)),
        (4, pen.either_order(0.3, body, open_roof)),
        (1.5, pen.either_order(0.4, body, gable)),
        (1.2, pentagon),
    )
    x, wide, top = pen.uniform(left + 6, right - 24), pen.uniform(10, 20), pen.uniform(62, 80)
    door = pen.maybe_reversed(0.2, pen.line((x, 100), (x, top), (x + wide, top), (x + wide, 100)))
    middle = (x + wide / 2, top - 3)
    arch = pen.curve((x, 100), (x, top + 5), middle, (x + wide, top + 5), (x + wide, 100))
    door = pen.choose((7, door), (3, arch)) + pen.maybe(0.25, pen.dot(x + wide * 0.7, top / 2 + 50))
    size, x, y = pen.uniform(10, 20), left + 5, wall + pen.uniform(5, 14)
    bars = pen.line((x + size / 2, y), (x + size / 2, y + size))
    bars += pen.line((x, y + size / 2), (x + size, y + size / 2))
    panes = pen.ring(*_box(x, y, x + size, y + size)) + pen.maybe(0.4, bars)
    panes += pen.maybe(0.5, pen.maybe_mirrored(1, panes))
    x = right - pen.uniform(12, 24)
    chimney = pen.line((x, wall * 0.6), (x, 4), (x + 9, 4), (x + 9, wall * 0.8))
    extras = pen.either_order(
        0.4, pen.maybe(0.62, door), pen.maybe(0.42, pen.maybe_mirrored(0.4, panes))
    )
    return ink + extras + pen.maybe(0.12, pen.maybe_mirrored(0.3, chimney))


def _ice_cream(pen: Pen) -> Ink:
    top, half = pen.uniform(34, 56), pen.uniform(17, 30)
    left, tip, right = (50 - half, top), (50.0 + pen.noise(4), 100.0), (50 + half, top)
    two = pen.line(left, tip) + pen.maybe_reversed(0.5, pen.line(tip, right))
    cone = pen.choose(
        (6, pen.ring(left, tip, right)), (2.5, pen.line(left, tip, right)), (1.5, two)
    )
    wide, size, count = half * pen.uniform(0.9, 1.3), top / 2, pen.integer(4, 8)
    third = pen.arc(50, top, wide, size, 170, 370)
    scoops = pen.choose(
        (35, pen.maybe_reversed(0.4, pen.arc(50, top, wide, top * 0.95, 180, 360))),
        (25, pen.maybe_reversed(0.4, pen.bumps(50, size, wide, size, count, 135, 405))),
        (15, pen.loop(50, size, wide, size + 2, 120)),
        (13, third + pen.loop(50, size * 0.6, wide * 0.8, size * 0.6, 120)),
        (6, third + pen.arc(50, size, wide * 0.8, size * 0.6, 170, 370) + pen.loop(50, 4, 5, 5)),
    )
    waffle: Ink = []
    for i in range(1, pen.integer(2, 4) if pen.happens(0.2) else 1):
        x, y = half * (1 - 0.3 * i), top + (100 - top) * 0.3 * i
        waffle += pen.line((50 - x, y), (50 + half - 9 * i, top))
        waffle += pen.line((50 - half + 9 * i, top), (50 + x, y))
    return pen.maybe_joined(0.06, pen.either_order(0.3, cone, scoops)) + waffle


def _ladder(pen: Pen) -> Ink:
    half, rungs = pen.uniform(9, 24), pen.integer(2, 5) if pen.happens(0.55) else pen.integer(5, 8)
    lean, poke, left, right = pen.noise(8), pen.uniform(-2, 5), 50 - half, 50 + half
    rails = pen.line((left + lean + pen.noise(3), pen.noise(4)), (left - lean, 100 + pen.noise(4)))
    rails += pen.line(
        (right + lean + pen.noise(3), pen.noise(4)), (right - lean, 100 + pen.noise(4))
    )
    rails = [part for rail in rails for part in pen.maybe_reversed(0.12, [rail])]
    rails = pen.choose((92, rails), (8, pen.ring(*_box(left, 0, right, 100))))
    steps: Ink = []
    for share in np.linspace(pen.uniform(0.06, 0.25), pen.uniform(0.7, 0.95), rungs):
        x, y = lean * (1 - 2 * share), 100 * share + pen.noise(1.5)
        steps += pen.line((left + x - poke, y), (right + x + poke, y + pen.noise(4)))
    steps = steps[::-1] if pen.happens(0.2) else steps
    steps = [step[::-1] for step in steps] if pen.happens(0.12) else steps
    legs = pen.line((left, 0), (left + 32, 100)) + pen.line((right, 0), (right + 32, 100))
    return pen.maybe_mirrored(0.12, rails + steps) + pen.maybe(0.05, legs)


def _line(pen: Pen) -> Ink:
    steep = -90.0 if pen.happens(0.3) else pen.uniform(-75, 75)
    end = _polar(0, 0, 100, radians(steep if pen.happens(0.4) else 0))
    ink = pen.maybe_reversed(0.15, pen.line((0, 0), end))
    return ink + pen.maybe(0.04, [ink[0] + (pen.noise(2), pen.uniform(4, 12))])


def _mountain(pen: Pen) -> Ink:
    peaks = (
        1 if pen.happens(0.33) else pen.integer(2, 3) if pen.happens(0.75) else pen.integer(4, 5)
    )
    path: list[Point] = [(0, pen.uniform(75, 100))]
    for i in range(peaks):
        foot, next_foot, tall = 100 * i / peaks, 100 * (i + 1) / peaks, pen.uniform(0, 40)
        top = (foot + next_foot) / 2 + pen.noise(5) / peaks
        if pen.happens(0.2):  # a broken slope
            path.append((foot * 0.6 + top * 0.4, tall + pen.uniform(30, 45)))
            path.append((foot * 0.4 + top * 0.6, tall + pen.uniform(30, 45)))
        path += [(top, tall if peaks > 1 else 0), (next_foot, pen.uniform(40, 90))]
    path[-1] = (100, pen.uniform(75, 100))
    (outline,) = pen.choose((4, pen.curve(*path)), (6, pen.line(*path, noise=2)))
    outline = outline * (1, pen.uniform(0.5, 1.15))
    apart = pen.integer(1, len(outline) - 2)
    ink = pen.choose((9, [outline]), (1, [outline[: apart + 1], outline[apart:]]))
    summit, half = outline[np.argmin(outline[:, 1])], pen.uniform(12, 18)
    snow = np.array([(-half, 26), (-half / 2, 21), (0, 27), (half / 2, 21), (half, 26)])
    ink = pen.maybe_reversed(0.08, ink) + pen.maybe(0.12, [summit + snow])
    return ink + pen.maybe(0.05, pen.line((0, 100), (100, 100)))


def _rainbow(pen: Pen) -> Ink:
    count = 1 if pen.happens(0.17) else pen.integer(2, 3) if pen.happens(0.7) else pen.integer(4, 5)
    gap, high = pen.uniform(4, 14), pen.uniform(0.6, 1.35)
    bands: Ink = []
    for i in range(count):
        wide, x = max(6.0, 50 - i * gap * (1 + pen.noise(0.15))), 50 + pen.noise(2)
        bands += pen.arc(x, 50, wide, wide * high, 180 + pen.noise(6), 360 + pen.noise(6))
    bands = bands[::-1] if pen.happens(0.2) else bands
    if pen.happens(0.2):  # to and fro
        bands[1::2] = [band[::-1] for band in bands[1::2]]
        bands = pen.maybe_joined(0.5, bands)
    bands = [band[::-1] for band in bands] if pen.happens(0.08) else bands
    feet = pen.line((0, 50), (count * gap, 50))
    feet += pen.maybe_mirrored(1, feet)
    return bands + pen.maybe(0.08, feet) + pen.maybe(0.05, pen.bumps(97, 50, 14, 9, 6, 0, 360))


def _sailboat(pen: Pen) -> Ink:
    deck, half, keel = pen.uniform(52, 74), pen.uniform(36, 62), pen.uniform(18, 44)
    left, right, depth = 50 - half, 50 + half, pen.uniform(14, 30)
    bow = ((left, deck), (50 - half * 0.7, deck + depth * 0.8), (50, deck + depth))
    bowl = pen.maybe_joined(
        0.85, pen.curve(*_symmetric(*bow)) + pen.line((right, deck), (left, deck))
    )
    low = deck + depth
    flat = pen.ring((left, deck), (50 - keel, low), (50 + keel, low), (right, deck))
    oval = pen.loop(50, deck + depth / 2, half, depth / 2)
    hull = pen.choose((50, pen.maybe_reversed(0.15, bowl)), (40, flat), (10, oval))
    x, top, foot = 50 + pen.noise(8), pen.uniform(0, 8), deck - pen.uniform(2, 22)
    wide = pen.uniform(14, 38)
    mast = pen.maybe_reversed(0.5, pen.line((x, deck), (x, top)))
    sail = pen.ring((x, top), (x + wide, foot), (x, foot))
    pennant = pen.maybe_reversed(0.2, pen.line((x, top), (x + wide, (top + foot) / 2), (x, foot)))
    second = pen.ring((x - 2, top + 6), (x - wide * 0.8, foot), (x - 2, foot), split=0.05)
    across = pen.ring((x, top), (x - wide, foot), (x + wide, foot))
    rig = pen.choose(
        (35, pen.maybe(0.75, mast) + sail),
        (33, pen.maybe_joined(0.25, mast + pennant)),
        (18, pen.either_order(0.4, pen.maybe(0.7, mast) + sail, second)),
        (14, pen.either_order(0.4, pen.line((x, deck), (x, foot)), across)),
    )
    waves = pen.curve(*((x * 14, low + 3 + 3 * (x % 2)) for x in range(8)), noise=1)
    return pen.maybe_mirrored(0.35, pen.either_order(0.2, hull, rig) + pen.maybe(0.1, waves))


def _smiley_face(pen: Pen) -> Ink:
    apart, level, kind = pen.uniform(9, 23), pen.uniform(24, 42), pen.rng.random()
    tall, eyes = pen.uniform(4, 12), Ink()
    for x in (50 - apart, 50 + apart):
        y = level + pen.noise(2.5)
        if kind < 0.3:
            eyes += pen.dot(x, y)
        elif kind < 0.65:
            eyes += pen.maybe_reversed(0.1, pen.line((x, y - tall), (x, y + tall)))
        else:
            eyes += pen.loop(x, y, tall * 0.8, tall * 0.8) + pen.maybe(0.15, pen.dot(x, y))
    wide, deep, y = pen.uniform(16, 34), pen.uniform(8, 26), pen.uniform(56, 68)
    mouth = pen.maybe_reversed(0.12, pen.arc(50, y, wide, deep, 180, 0))
    mouth += pen.maybe(0.08, pen.line((50 - wide, y), (50 + wide, y)))
    nose = pen.maybe(0.05, pen.line((50, 45), (47, 57), (53, 57)))
    parts = pen.either_order(0.1, eyes + nose, mouth)
    face = pen.loop(50, 50, pen.uniform(38, 52), pen.uniform(40, 52))
    return pen.either_order(0.15, pen.maybe(0.75, face), parts)


def _snowman(pen: Pen) -> Ink:
    count = 2 if pen.happens(0.6) else 3
    sizes = np.cumprod([1.0, *(pen.uniform(0.95, 1.6) for _ in range(count - 1))])
    sizes *= 50 / sizes.sum()
    middles, wide = 2 * np.cumsum(sizes) - sizes, pen.uniform(0.9, 1.6)
    balls: Ink = []
    for i, (y, size) in enumerate(zip(middles, sizes, strict=True)):
        balls += pen.loop(50 + pen.noise(3), y, size * wide, size, -90 if i else 80)
    balls = pen.maybe_joined(0.06, balls[::-1] if pen.happens(0.35) else balls)
    y, r = middles[0], sizes[0]
    face = pen.dot(50 - r * 0.35, y - r * 0.2) + pen.dot(50 + r * 0.35, y - r * 0.2)
    face += pen.maybe(0.5, pen.arc(50, y + r * 0.2, r * 0.45, r * 0.35, 180, 0))
    hat = pen.line((50 - r, 3), (50 + r, 3)) + pen.line((44, 3), (44, -9), (56, -9), (56, 3))
    y, r, up = middles[1], sizes[1] * wide, pen.uniform(-4, 14)
    arms = pen.line((50 - r, y), (50 - r - 18, y - up))
    arms += pen.maybe(0.5, pen.maybe_mirrored(1, arms))
    buttons = [part for i in range(pen.integer(1, 3)) for part in pen.dot(50, y - r * 0.4 + i * 7)]
    extras = pen.maybe(0.22, face) + pen.maybe(0.2, buttons)
    return balls + extras + pen.maybe(0.3, pen.maybe_mirrored(0.5, arms)) + pen.maybe(0.12, hat)


def _square(pen: Pen) -> Ink:
    return pen.ring(*_box(2, 2, 98, 98 if pen.happens(0.5) else pen.uniform(55, 112)))


def _stairs(pen: Pen) -> Ink:
    steps = pen.integer(2, 4) if pen.happens(0.55) else pen.integer(4, 7)
    rise, flat_first, path = pen.uniform(0.55, 1.1), pen.happens(0.45), [(0.0, 0.0)]
    for i in range(2 * steps + pen.integer(-1, 1)):
        (x, y), stride = path[-1], 100 / steps * pen.uniform(0.7, 1.3)
        path.append((x + stride, y) if (i % 2 == 0) == flat_first else (x, y - stride * rise))
    ink = pen.maybe_reversed(0.2, pen.line(*path))
    end = path[-1]
    return pen.maybe_mirrored(0.25, ink + pen.maybe(0.06, pen.line(end, (end[0], 0), (0, 0))))


def _star(pen: Pen) -> Ink:
    turns = [radians(-90 + 72 * i) + pen.noise(0.08) for i in range(5)]
    tips = [_polar(50, 50, 50 + pen.noise(5), turn) for turn in turns]
    inner, start = pen.uniform(14, 28), pen.integer(0, 4) if pen.happens(0.3) else 3
    dents = [_polar(50, 50, inner + pen.noise(2), turn + pi / 5) for turn in turns]
    crossed = pen.line(*(tips[(start + 2 * i) % 5] for i in range(6)), noise=2.5)
    outline = [point for pair in zip(tips, dents, strict=True) for point in pair]
    hexagram = pen.ring((50, 0), (5, 75), (95, 75)) + pen.ring((50, 100), (5, 25), (95, 25))
    edge = pen.ring(*outline, first=9 if pen.happens(0.5) else 0, split=0.2)
    return pen.choose((46, pen.maybe_mirrored(0.35, crossed)), (50, edge), (4, hexagram))


def _sun(pen: Pen) -> Ink:
    radius, tall = pen.uniform(16, 33), pen.uniform(0.75, 1.05)
    count = pen.integer(5, 9) if pen.happens(0.65) else pen.integer(8, 14)
    gap, long = pen.uniform(-2, 7), pen.uniform(8, 52 - radius)
    first = -90 if pen.happens(0.4) else pen.uniform(-180, 180)
    places = np.arange(count) + 0.12 * pen.sloppiness * pen.rng.standard_normal(count)
    turns = radians(first) + 2 * pi / count * places
    if pen.happens(0.4):  # not round in turn, but in leaps
        turns = turns[np.argsort(np.arange(count) * pen.integer(2, 5) % count, kind="stable")]
    turns = turns[::-1] if pen.happens(0.35) else turns
    rays, inwards = Ink(), pen.happens(0.25)
    for turn in turns:
        near = radius + gap + pen.noise(2)
        far = near + long * max(0.3, 1 + pen.noise(0.2))
        ray = pen.line(_polar(50, 50, near, turn), _polar(50, 50, far, turn), noise=1.4)
        rays += pen.maybe_reversed(0.9 if inwards else 0.1, ray)
    disc = pen.loop(50, 50, radius, radius)
    zigzag = np.arange(4 * count + 1)
    reach = np.where(zigzag % 2, pen.uniform(radius + 8, 50), radius)
    spikes = [_polar(50, 50, r, pi * i / (2 * count)) for i, r in zip(zigzag, reach, strict=True)]
    spiky = pen.maybe(0.6, disc) + pen.line(*spikes)
    ink = pen.choose((93, disc + rays), (7, spiky))
    return [stroke * (1, tall) for stroke in ink]


def _t_shirt(pen: Pen) -> Ink:
    neck, wide, hem = pen.uniform(8, 17), pen.uniform(18, 27), pen.uniform(62, 92)
    pit, cuff, reach = pen.uniform(28, 38), pen.uniform(20, 36), pen.uniform(40, 54)
    left = [
        (50 - neck, 0.0),
        (50 - reach, cuff - 8),
        (50 - reach + pen.uniform(5, 13), cuff + 6),
        (50 - wide, pit),
        (50 - wide + pen.noise(2), hem),
    ]
    dip = 2 if pen.happens(0.3) else pen.uniform(5, 18)
    collar = pen.curve(*_symmetric((50 - neck, 0), (50 - neck * 0.5, dip * 0.8), (50, dip))[::-1])
    around = pen.line(*_symmetric(*left))
    halves = [around[0][: pen.integer(5, 6)], around[0][:4:-1]]
    start = pen.integer(3, 6)
    flat = pen.ring(*_symmetric(*left), first=pen.integer(0, 9), split=0.05)
    from_sleeve = [np.concatenate([around[0][start:], collar[0], around[0][: start + 1]])]
    ink = pen.choose(
        (30, pen.maybe_joined(1, collar + around)),
        (15, flat),
        (20, from_sleeve),
        (20, pen.either_order(0.3, collar, around)),
        (15, pen.either_order(0.3, collar, halves)),
    )
    return pen.maybe_mirrored(0.5, ink)


def _tree(pen: Pen) -> Ink:
    wide, top, spread = pen.uniform(4, 12), pen.uniform(42, 66), max(0.0, pen.uniform(-8, 14))
    left = ((50 - wide, top), (50 - wide, 85), (50 - wide - spread, 100))
    half, middle = pen.uniform(24, 50), top / 2 + 4
    gap = pen.uniform(10, 40)  # the crown is open over the trunk
    bumps = pen.bumps(50, middle, half, middle - 2, pen.integer(3, 9), 90 + gap, 450 - gap)
    scribble = np.linspace(0, 2 * pi * pen.integer(3, 7), 80)
    x = 50 + 26 * np.cos(scribble / 7.3) + 12 * np.cos(scribble)
    scrawl = np.stack([x, middle + 14 * np.sin(scribble / 5.1) + 12 * np.sin(scribble)], axis=1)
    tiers, fir = pen.integer(1, 4), [(50.0, 0.0)]
    for i in range(1, tiers + 1):
        y, x = top * i / tiers, half * (0.35 + 0.65 * i / tiers)
        fir += [(50 - x, y), (50 - x * 0.5, y)][: 2 if i < tiers else 1]
    crown = pen.choose(
        (62, pen.maybe_reversed(0.3, bumps)),
        (14, pen.loop(50, middle, half, middle - 2, 100)),
        (8, [scrawl]),
        (6, pen.line(*_symmetric(*fir))),
    )
    trunk = pen.curve(*left) + pen.maybe_mirrored(1, pen.curve(*left))
    trunk = pen.maybe_reversed(0.3, trunk[:1]) + pen.maybe_reversed(0.3, trunk[1:])
    trunk += pen.maybe(0.12, pen.line((50 - wide - spread, 100), (50 + wide + spread, 100)))
    boxed = pen.line(*_box(50 - wide, top, 50 + wide, 100))
    trunk = pen.choose((85, trunk), (15, boxed))
    apart = pen.either_order(0.3, trunk, crown)
    foot = pen.curve(*left)
    whole = pen.maybe_joined(1, [foot[0][::-1], *bumps]) + pen.maybe_mirrored(1, foot)
    return pen.choose((82, apart), (18, pen.maybe_reversed(0.2, pen.maybe_joined(0.8, whole))))


def _triangle(pen: Pen) -> Ink:
    high, top = pen.uniform(50, 120), (50 + float(pen.rng.normal(0, 16)), 0.0)
    return pen.ring(top, (0, high), (100, high + pen.noise(6)), split=0.25)


def _umbrella(pen: Pen) -> Ink:
    low, count = pen.uniform(28, 52), pen.integer(2, 6)
    dome = pen.arc(50, low, 48, low, 180, 360)
    dome = pen.choose((85, dome), (15, pen.line((2, low), (50, 0), (98, low))))
    share = np.arange(8 * count + 1) / (8 * count)
    sag = pen.uniform(4, 12) * (1 if pen.happens(0.2) else -1)
    scallops = np.stack([98 - 96 * share, low + sag * abs(np.sin(pi * count * share))], axis=1)
    hem = pen.choose((5, pen.line((98, low), (2, low))), (5, [scallops]))
    closed = pen.maybe_reversed(0.25, pen.maybe_joined(1, dome + hem))
    canopy = pen.choose((65, closed), (30, dome + pen.maybe_reversed(0.6, hem)), (5, dome))
    x, hook, end = 50 + pen.noise(2), pen.uniform(4, 12), pen.uniform(88, 100)
    grip = [(x - hook * 0.3, end + 7), (x - hook, end + 8), (x - 2 * hook, end - 4)]
    top = 0.0 if pen.happens(0.25) else low
    shaft = pen.curve((x, top), (x, 70), (x, end), *(grip if pen.happens(0.72) else []))
    shaft = pen.maybe_reversed(0.15, pen.maybe_mirrored(0.35, shaft))
    thick = pen.line(*_box(47, low, 53, end))
    handle = pen.choose((85, shaft), (15, thick))
    ribs = pen.curve((50, 0), (40, low * 0.45), (34, low))
    ribs += pen.maybe_mirrored(1, ribs)
    ink = pen.maybe_joined(0.05, pen.either_order(0.42, canopy, handle))
    return ink + pen.maybe(0.12, ribs) + pen.maybe(0.06, pen.line((50, 0), (50, -7)))


def _wine_glass(pen: Pen) -> Ink:
    rim, bowl, side = pen.uniform(16, 30), pen.uniform(36, 62), pen.uniform(18, 32)
    half = ((50 - rim, 0), (50 - side, bowl * 0.5), (50 - side * 0.6, bowl * 0.9), (50, bowl))
    straight = pen.line(*_box(50 - rim, 0, 50 + rim, bowl))
    cup = pen.choose((75, pen.curve(*_symmetric(*half))), (25, straight))
    over = pen.line((50 + rim, 0), (50 - rim, 0))
    mouth = pen.loop(50, 0, rim, pen.uniform(3, 8))
    glass = pen.choose(
        (25, pen.either_order(0.4, pen.maybe_reversed(0.2, cup), pen.maybe_reversed(0.4, over))),
        (35, pen.maybe_reversed(0.2, pen.maybe_joined(1, cup + over))),
        (22, pen.either_order(0.25, mouth, pen.maybe_reversed(0.2, cup))),
        (18, cup),
    )
    foot, thin = pen.uniform(12, 30), pen.uniform(2, 6)
    single, double = pen.line((50, bowl), (50, 94)), pen.line((50 - thin, bowl), (50 - thin, 94))
    double += pen.maybe_mirrored(1, double)
    flat = pen.maybe_reversed(0.2, pen.line((50 - foot, 97), (50 + foot, 97)))
    plate = pen.choose((5, pen.loop(50, 97, foot, pen.uniform(3, 7), -90)), (4, flat))
    outline = _symmetric((50 - thin, bowl), (50 - thin, 90), (50 - foot, 95), (50 - foot, 100))
    single = pen.maybe_joined(0.3, single + plate)
    stand = pen.choose((45, single), (35, double + plate), (20, pen.line(*outline)))
    y = bowl * pen.uniform(0.2, 0.5)
    wine = pen.curve((50 - side, y), (50, y + pen.noise(3)), (50 + side, y))
    return pen.maybe_joined(0.06, glass + stand) + pen.maybe(0.15, wine)


def _zigzag(pen: Pen) -> Ink:
    teeth = pen.integer(3, 6) if pen.happens(0.6) else pen.integer(6, 14)
    x = np.cumsum(1 + 0.22 * pen.rng.standard_normal(teeth + 1)) / teeth * 100
    high = pen.uniform(15, 60) if pen.happens(0.6) else pen.uniform(50, 130)
    y = high * (1 + 0.16 * pen.rng.standard_normal(teeth + 1)) * (np.arange(teeth + 1) % 2 - 0.5)
    y = -y if pen.happens(0.4) else y
    x = x + y * (pen.uniform(-0.5, 0.5) if pen.happens(0.35) else 0)  # the teeth lean over
    path = list(zip(x, y, strict=True))
    if pen.happens(0.35):  # downwards
        path = [(y, x) for x, y in path]
    elif pen.happens(0.25):  # across
        turn = radians(pen.uniform(-60, 60))
        path = [(x * cos(turn) - y * sin(turn), x * sin(turn) + y * cos(turn)) for x, y in path]
    return pen.maybe_reversed(0.08, pen.choose((8, pen.line(*path)), (2, pen.curve(*path))))


_CATEGORIES: dict[str, Callable[[Pen], Ink]] = {
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

CATEGORIES: tuple[str, ...] = tuple(_CATEGORIES)
"""The categories that can be generated, in alphabetical order."""


def drawing(category: str, rng: np.random.Generator) -> list[Stroke]:
    """Generate a drawing.

    Args:
        category: one of `CATEGORIES`.
        rng: the only source of randomness.

    Returns:
        The strokes in drawing order, (point, 2) in pixels, y downwards.

    Raises:
        SourceError: an unknown category.
    """
    if category not in _CATEGORIES:
        raise SourceError(f"no category {category!r}; {near(category, CATEGORIES)}")
    pen = Pen(rng)
    return _trace(pen, _vary(pen, _CATEGORIES[category](pen)))


def _vary(pen: Pen, strokes: Ink) -> Ink:
    """Sometimes permute, reverse, split or connect strokes."""
    if pen.happens(0.02):
        strokes = [strokes[i] for i in pen.rng.permutation(len(strokes))]
    strokes = [stroke[::-1] if pen.happens(0.02) else stroke for stroke in strokes]
    at = pen.integer(0, len(strokes) - 1)
    if pen.happens(0.05) and len(strokes[at]) > 5:
        cut = pen.integer(2, len(strokes[at]) - 3)
        strokes[at : at + 1] = [strokes[at][: cut + 1], strokes[at][cut:]]
    if pen.happens(0.06):
        strokes[at : at + 2] = [np.concatenate(strokes[at : at + 2])]
    return strokes


def _trace(pen: Pen, strokes: Ink) -> Ink:
    """Imitate a hand: resample, smooth and distort the strokes, in pixels of a canvas."""
    rng, sloppiness = pen.rng, pen.sloppiness
    hooks = rng.standard_normal((len(strokes), 2, 2)) * (rng.random((len(strokes), 2, 1)) < 0.15)
    ends = zip(strokes, 1.8 * sloppiness * hooks, strict=True)
    strokes = [np.concatenate([s[:1] + hook[:1], s, s[-1:] + hook[1:]]) for s, hook in ends]
    lengths = np.array([len(stroke) for stroke in strokes])
    path = np.concatenate(strokes)
    path = path + np.repeat(
        1.2 * sloppiness * rng.standard_normal((len(strokes), 2)), lengths, axis=0
    )

    # Resample all strokes at even steps of their length, in one interpolation.
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    last = np.cumsum(lengths) - 1
    begin, end = way[last - lengths + 1], way[last]
    counts = np.maximum(2, np.ceil((end - begin) / pen.uniform(1, 2.2)).astype(int) + 1)
    first = np.cumsum(counts) - counts
    index = np.arange(counts.sum()) - np.repeat(first, counts)
    at = np.repeat(begin, counts) + index * np.repeat((end - begin) / (counts - 1), counts)
    path = np.stack([np.interp(at, way, path[:, 0]), np.interp(at, way, path[:, 1])], axis=1)

    # Round the corners with a moving average whose window shrinks towards the ends of a stroke.
    room = np.minimum(index, np.repeat(counts, counts) - 1 - index)
    window = np.minimum(room, int(pen.uniform(0, 2 + 2 * sloppiness)))
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(path, axis=0)])
    here = np.arange(len(path))
    path = (sums[here + window + 1] - sums[here - window]) / (2 * window + 1)[:, None]

    # Drift: slow noise along the path, and a smooth deformation of the whole canvas.
    knots = np.arange(0, way[-1] + 60, pen.uniform(10, 26))
    wander = 0.75 * sloppiness * rng.standard_normal((2, len(knots)))
    path += np.stack([np.interp(at, knots, wander[0]), np.interp(at, knots, wander[1])], axis=1)
    bend = 1.6 * sloppiness * rng.standard_normal((3, 2))
    path += np.sin(path @ (0.03 * rng.standard_normal((2, 3))) + 2 * pi * rng.random(3)) @ bend

    turn, lean, tall = 0.06 * rng.standard_normal(3)
    path = path @ np.array([[1, turn + lean], [-turn, 1 + 2 * tall]]) * pen.uniform(1.5, 4.5)
    path += 0.25 * rng.standard_normal(path.shape)  # tremor
    return np.split(path - path.min(0) + 200 * rng.random(2), first[1:])
