"""Prepared series, read as windows: a stretch of the past and the steps that follow it.

A window is made when it is asked for, from the series in memory: a hundred thousand series with
millions of windows need the room of the series, and eight bytes for each window of an epoch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostinato import store
from ostinato.params import near

if TYPE_CHECKING:
    import tensorflow as tf

Array = NDArray[Any]

SPLITS = ("train", "validation", "calibration", "test")
FLAT = 1e-8  # a spread under this, relative to the level, is that of a constant


class Windows(NamedTuple):
    """Windows in the units of the data, in the order of their keys' series and times.

    Attributes:
        keys: ``series@time of the first step that is forecast``, str (window,).
        series: index of the series, int (window,).
        history: how many steps of the series lie before, int (window,).
        moment: the first step that is forecast, on the grid of all series, int (window,).
        truth: float64 (window, horizon).
        observed: whether the truth was measured and not filled in, bool (window, horizon).
        centre: of the scaling, float64 (window, 1).
        spread: of the scaling, float64 (window, 1).
    """

    keys: Array
    series: Array
    history: Array
    moment: Array
    truth: Array
    observed: Array
    centre: Array
    spread: Array


class Data:
    """A prepared data set, read from its folder.

    Attributes:
        horizon: steps that are forecast.
        window: steps that a model reads.
        season: steps after which the series resembles itself.
        past: features of a past step; the first is the scaled target.
        future: features of a future step, 0 where nothing is known of it.
        static: features of a series, 0 where there are none.
        frequency: of the steps, as pandas names it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            about = store.read_json(folder / "manifest.json")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder}: holds no prepared data (no manifest.json)"
            ) from None
        self.folder, self.about = folder, about
        self.horizon: int = about["horizon"]
        self.window: int = about["window"]
        self.season: int = about["season"]
        self.frequency: str = about["frequency"]
        self.names: list[str] = about["series"]
        self.log: bool = about["log"]
        self._per_window: str | None = about["scaling"] if about["per"] == "window" else None
        arrays = store.read_arrays(folder / "series.npz")
        self.target, self.observed = arrays["target"], arrays["observed"]
        self.scaled = np.log1p(self.target) if self.log else self.target
        self._begins = np.concatenate([[0], np.cumsum(arrays["lengths"])[:-1]])
        self._lengths, self._first = arrays["lengths"], arrays["first"]
        self._bounds = arrays["bounds"]  # (series, 5): where each split begins, and the end
        self._centre, self._spread = arrays["centre"], arrays["spread"]
        self._past, self._known = arrays["past"], arrays["known"]
        self._calendar, self._static = arrays["calendar"], arrays["static"]
        self._times = arrays["times"]  # datetime64[s] (step,) of the grid of all series
        self.future = self._known.shape[1] + self._calendar.shape[1]
        self.past = 1 + self._past.shape[1] + self.future
        self.static = self._static.shape[1]
        self.stride: int = about["stride"]
        self._cuts: dict[str, tuple[Array, Array, int]] = {}

    def size(self, split: str) -> int:
        """How many windows a split holds; every step of it that can be an origin is one."""
        return int(self._origins(split)[1][-1])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> "tf.data.Dataset":
        """Batches (x, y, weight); every window of the split once, the last batch may be smaller.

        Args:
            split: train, validation, calibration or test.
            batch_size: windows in a batch.
            seed: of the order; None gives that of the series and of time.
            epoch: gives another order with the same seed.

        Returns:
            x: a dict of float32: ``past`` (batch, time, feature) with the scaled target first;
            ``future`` (batch, horizon, feature) where something is known of it; ``static``
            (batch, feature) where the series have such features. y float32 (batch, horizon, 1):
            the scaled target. weight float32 (batch, horizon): 0 where the truth was filled in.
        """
        import tensorflow as tf

        size = self.size(split)
        order = np.arange(size)
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(size)

        def each() -> Iterator[Any]:
            for start in range(0, size, batch_size):
                yield self.examples(split, order[start : start + batch_size])

        x = {"past": tf.TensorSpec((None, self.window, self.past), tf.float32)}
        if self.future:
            x["future"] = tf.TensorSpec((None, self.horizon, self.future), tf.float32)
        if self.static:
            x["static"] = tf.TensorSpec((None, self.static), tf.float32)
        y = tf.TensorSpec((None, self.horizon, 1), tf.float32)
        weight = tf.TensorSpec((None, self.horizon), tf.float32)
        made = tf.data.Dataset.from_generator(each, output_signature=(x, y, weight))
        return made.prefetch(8)

    def examples(self, split: str, numbers: Array) -> tuple[dict[str, Array], Array, Array]:
        """The windows of a split with these numbers, as ``batches`` gives them."""
        series, origin = self._places(split, numbers)
        begin = self._begins[series][:, None]
        before = origin[:, None] + np.arange(-self.window, 0)
        after = origin[:, None] + np.arange(self.horizon)
        centre, spread = self._scales(series, origin)
        on_grid = self._first[series][:, None]
        future = [self._known[begin + after], self._calendar[on_grid + after]]
        past = [
            ((self.scaled[begin + before] - centre) / spread)[..., None],
            self._past[begin + before],
            self._known[begin + before],
            self._calendar[on_grid + before],
        ]
        x = {"past": np.concatenate(past, axis=-1, dtype=np.float32)}
        if self.future:
            x["future"] = np.concatenate(future, axis=-1, dtype=np.float32)
        if self.static:
            x["static"] = self._static[series]
        y = ((self.scaled[begin + after] - centre) / spread)[..., None]
        return x, y.astype(np.float32), self.observed[begin + after].astype(np.float32)

    def windows(self, split: str, numbers: Array) -> Windows:
        """What is true of the windows of a split with these numbers."""
        series, origin = self._places(split, numbers)
        after = self._begins[series][:, None] + origin[:, None] + np.arange(self.horizon)
        moment = self._first[series] + origin
        named = zip(np.asarray(self.names)[series], self._times[moment], strict=True)
        keys = np.array([f"{name}@{time}" for name, time in named], dtype=str)
        centre, spread = self._scales(series, origin)
        told = self.target[after], self.observed[after]
        return Windows(keys, series, origin, moment, *told, centre, spread)

    def history(self, series: int, steps: int) -> Array:
        """The first ``steps`` values of a series, float64, in the units of the data."""
        begin = self._begins[series]
        return np.asarray(self.target[begin : begin + steps])

    def training(self, series: int) -> Array:
        """The training part of a series, float64, in the units of the data."""
        return self.history(series, int(self._bounds[series, 1]))

    def unscaled(self, z: Array, windows: Windows) -> Array:
        """Scaled values (window, horizon, ...) in the units of the data, float64."""
        shape = (-1, *[1] * (z.ndim - 1))
        values = z * windows.spread.reshape(shape) + windows.centre.reshape(shape)
        return np.asarray(np.expm1(values) if self.log else values)

    def scaled_as(self, windows: Windows) -> Array:
        """The truth as models are trained on it, float64 (window, horizon)."""
        values = np.log1p(windows.truth) if self.log else windows.truth
        return np.asarray((values - windows.centre) / windows.spread)

    def _origins(self, split: str) -> tuple[Array, Array, int]:
        """The first origin of each series, the windows up to its end, and the origins' step."""
        if split not in self._cuts:  # kept, as it takes longer than a batch of many series
            first, counts, step = origins(
                self._bounds, split, self.window, self.horizon, self.stride
            )
            self._cuts[split] = first, np.cumsum(counts), step
        return self._cuts[split]

    def _places(self, split: str, numbers: Array) -> tuple[Array, Array]:
        """The series of windows and the origins in them, int64 (window,) each."""
        first, ends, step = self._origins(split)
        series = np.searchsorted(ends, numbers, side="right")
        before = np.where(series > 0, ends[series - 1], 0)
        return series, first[series] + step * (numbers - before)

    def _scales(self, series: Array, origin: Array) -> tuple[Array, Array]:
        """Centre and spread, float64 (window, 1) each; of the window's own past where asked."""
        if self._per_window is None:
            return self._centre[series][:, None], self._spread[series][:, None]
        before = origin[:, None] + np.arange(-self.window, 0)
        return scale(self.scaled[self._begins[series][:, None] + before], self._per_window)


def origins(
    bounds: Array, split: str, window: int, horizon: int, stride: int
) -> tuple[Array, Array, int]:
    """Where windows of a split can be cut: what they read lies before, what they forecast in it.

    Args:
        bounds: int64 (series, 5), where each split begins and the last one ends.
        split: train, validation, calibration or test. Where calibration begins with validation,
            they are the same.
        window: steps that are read.
        horizon: steps that are forecast.
        stride: steps from one origin to the next in the training split; elsewhere it is 1.

    Returns:
        The first origin of each series, how many there are, int64 (series,) each, and the step
        from one to the next.
    """
    if split not in SPLITS:
        raise KeyError(f"no split {split!r}; {near(split, SPLITS)}")
    if split == "validation" and (bounds[:, 1] == bounds[:, 2]).all():
        split = "calibration"
    number = SPLITS.index(split)
    step = stride if split == "train" else 1
    first = np.maximum(bounds[:, number], window)
    counts = np.maximum(0, (bounds[:, number + 1] - horizon - first) // step + 1)
    return first, counts, step


def scale(values: Array, kind: str) -> tuple[Array, Array]:
    """Centre and spread of values (series, step), each float64 (series, 1).

    standard: mean and deviation; min_max: minimum and range; robust: median and range between
    the quartiles; none: 0 and 1. The spread of a constant is its level, or 1.
    """
    if kind == "none":
        return np.zeros((len(values), 1)), np.ones((len(values), 1))
    if kind == "standard":
        centre, spread = values.mean(axis=1), values.std(axis=1)
    elif kind == "min_max":
        centre, spread = values.min(axis=1), np.ptp(values, axis=1)
    else:
        low, centre, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        spread = high - low
    level = np.where(centre == 0, 1.0, np.abs(centre))
    spread = np.where(spread > FLAT * level, spread, level)
    return np.asarray(centre)[:, None], np.asarray(spread)[:, None]
