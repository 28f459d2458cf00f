"""A prepared data set of series, read as windows.

A window is cut from the series in memory when a batch needs it. So a hundred thousand series with
millions of windows take the memory of the series, and eight bytes for each window of an epoch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer

from ostinato import store
from ostinato.data.batches import own
from ostinato.forecasting.dataset.windows import (
    Inputs,
    Windows,
    fit_scale,
    from_model_units,
    model_inputs,
    split_origins,
    to_model_units,
)
from ostinato.forecasting.formats.layout import Details
from ostinato.task import Manifest, Part

if TYPE_CHECKING:
    import tensorflow as tf

Reader = Callable[[np.ndarray], "tf.data.Dataset"]
"""Maps the order of windows, int64 (window,), to their batches."""


def load(folder: Path) -> "SeriesDataset":
    """Load the data set that `prepare` wrote to a folder.

    Raises:
        DataError: the folder holds no prepared series.
    """
    return SeriesDataset(folder)


class SeriesDataset:
    """A prepared data set of series.

    Attributes:
        manifest: of the data set.
        details: of the series.
        horizon: steps that are forecast.
        window: steps that a model reads.
        season: steps of a season.
        frequency: of the steps, as pandas names it.
        names: of the series.
        past_features: features of a past step; the first is the scaled target.
        future_features: features of a future step; 0 where nothing is known ahead.
        static_features: features of a series; 0 where there are none.
        target: values of all series, one after the other, float64 (step,).
        observed: whether a value was in the raw data, bool (step,).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder / "manifest.json")
        self.details = Details.of(self.manifest)
        self.horizon, self.window = self.details.horizon, self.details.window
        self.season, self.frequency = self.details.season, self.details.frequency
        self.names = self.details.series
        arrays = store.read_arrays(folder / "series.npz")
        self.target, self.observed = arrays["target"], arrays["observed"]
        self._values = to_model_units(self.target, log=self.details.log)
        self._begins = np.concatenate([[0], np.cumsum(arrays["lengths"])[:-1]])
        self._first = arrays["first"]  # index of each series' first step on the grid
        self._bounds = arrays["bounds"]  # (series, 5): where each split begins, and the end
        self._centre, self._spread = arrays["centre"], arrays["spread"]
        self._past, self._future = arrays["past"], arrays["future"]
        self._calendar, self._static = arrays["calendar"], arrays["static"]
        self._times = arrays["times"]  # datetime64[s] (step,) of the grid of all series
        self.future_features = self._future.shape[1] + self._calendar.shape[1]
        self.past_features = 1 + self._past.shape[1] + self.future_features
        self.static_features = self._static.shape[1]
        self._split_origins: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        self._readers: dict[tuple[str, int, Part], Reader] = {}

    def size(self, split: str) -> int:
        """The number of windows of a split; each possible origin is one."""
        return int(self._origins(split)[1][-1])

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> "tf.data.Dataset":
        """Batches (inputs, target, weight) of every window of the split; the last may be smaller.

        Args:
            split: train, validation, calibration or test.
            batch_size: windows in a batch.
            seed: of shuffling; None: ordered by series and time.
            epoch: with the seed it determines the order.
            part: of every batch; see `ostinato.task.Dataset.batches`. All ranks read all series,
                as the windows of each overlap most of them; a rank cuts its own windows only.

        Returns:
            Inputs as `windows.model_inputs` gives them; the scaled target, float32 (batch,
            horizon, 1); the weight, float32 (batch, horizon), 0 where the truth was missing.
        """
        import tensorflow as tf

        size = self.size(split)
        order = np.arange(size)
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(size)
        key = split, batch_size, part
        if key not in self._readers:
            self._readers[key] = self._reader(*key)
        with tf.device("CPU"):
            return self._readers[key](order)

    def _reader(self, split: str, batch_size: int, part: Part) -> "Reader":
        """The batches of a split by the order of its windows.

        A graph that is kept, without a generator: to trace it for each epoch, and to start a
        generator, took longer than the training of a small model.
        """
        import tensorflow as tf

        inputs = {"past": tf.TensorSpec((None, self.window, self.past_features), tf.float32)}
        if self.future_features:
            shape = (None, self.horizon, self.future_features)
            inputs["future"] = tf.TensorSpec(shape, tf.float32)
        if self.static_features:
            inputs["static"] = tf.TensorSpec((None, self.static_features), tf.float32)
        target = tf.TensorSpec((None, self.horizon, 1), tf.float32)
        weight = tf.TensorSpec((None, self.horizon), tf.float32)
        signature: Any = (inputs, target, weight)
        flat = tf.nest.flatten(signature)

        def cut(numbers: Int64[np.ndarray, " window"]) -> Any:
            return tf.nest.flatten(self.examples(split, numbers[own(part, len(numbers))]))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.int64)], autograph=False)
        def read(order: tf.Tensor) -> tf.Tensor:
            def batch(start: tf.Tensor) -> Any:
                numbers = order[start : start + batch_size]
                tensors = tf.numpy_function(cut, [numbers], [spec.dtype for spec in flat])
                for tensor, spec in zip(tensors, flat, strict=True):
                    tensor.set_shape(spec.shape)
                packed = tf.nest.pack_sequence_as(signature, tensors)
                return packed if part.ranks == 1 else (packed, tf.size(numbers))

            starts = tf.data.Dataset.range(0, tf.size(order, tf.int64), batch_size)
            return tf.data.experimental.to_variant(starts.map(batch).prefetch(8))

        whole = signature if part.ranks == 1 else (signature, tf.TensorSpec((), tf.int32))
        return lambda order: tf.data.experimental.from_variant(read(order), whole)

    def examples(
        self, split: str, numbers: Integer[np.ndarray, " window"]
    ) -> tuple[
        Inputs, Float32[np.ndarray, "window horizon 1"], Float32[np.ndarray, "window horizon"]
    ]:
        """Inputs, target and weight of the windows of a split with these numbers."""
        series, origin = self._locate(split, numbers)
        begin = self._begins[series][:, None]
        before = begin + origin[:, None] + np.arange(-self.window, 0)
        after = begin + origin[:, None] + np.arange(self.horizon)
        around = origin[:, None] + np.arange(-self.window, self.horizon)
        centre, spread = self._scales(series, origin)
        calendar = self._calendar[self._first[series][:, None] + around]
        inputs = model_inputs(
            (self._values[before] - centre) / spread,
            self._past[before],
            np.concatenate([self._future[begin + around], calendar], axis=-1),
            self._static[series],
        )
        target = ((self._values[after] - centre) / spread)[..., None]
        return inputs, target.astype(np.float32), self.observed[after].astype(np.float32)

    def windows(self, split: str, numbers: Integer[np.ndarray, " window"]) -> Windows:
        """Keys, truth and scale of the windows of a split with these numbers."""
        series, origin = self._locate(split, numbers)
        after = self._begins[series][:, None] + origin[:, None] + np.arange(self.horizon)
        on_grid = self._first[series] + origin
        named = zip(np.asarray(self.names)[series], self._times[on_grid], strict=True)
        keys = np.array([f"{name}@{time}" for name, time in named], dtype=str)
        centre, spread = self._scales(series, origin)
        truth, observed = self.target[after], self.observed[after]
        return Windows(keys, series, origin, on_grid, truth, observed, centre, spread)

    def history(self, series: int, steps: int) -> Float[np.ndarray, " step"]:
        """The first ``steps`` values of a series, in the units of the data."""
        begin = self._begins[series]
        return np.asarray(self.target[begin : begin + steps])

    def unscaled(
        self, scaled: Float[np.ndarray, "window *rest"], windows: Windows
    ) -> Float[np.ndarray, "window *rest"]:
        """Scaled values of windows in the units of the data."""
        return from_model_units(scaled, windows.centre, windows.spread, log=self.details.log)

    def scaled_truth(self, windows: Windows) -> Float[np.ndarray, "window horizon"]:
        """The truth of windows in the units that models are trained in."""
        values = to_model_units(windows.truth, log=self.details.log)
        return np.asarray((values - windows.centre) / windows.spread)

    def _origins(self, split: str) -> tuple[np.ndarray, np.ndarray, int]:
        """First origin of each series, windows up to each series' end, and steps between origins.

        Cached, as with many series it takes longer than a batch.
        """
        if split not in self._split_origins:
            first, counts, step = split_origins(
                self._bounds,
                split,
                window=self.window,
                horizon=self.horizon,
                stride=self.details.stride,
            )
            self._split_origins[split] = first, np.cumsum(counts), step
        return self._split_origins[split]

    def _locate(
        self, split: str, numbers: Integer[np.ndarray, " window"]
    ) -> tuple[Integer[np.ndarray, " window"], Integer[np.ndarray, " window"]]:
        """The series of windows, and their origins in steps of the series."""
        first, ends, step = self._origins(split)
        series = np.searchsorted(ends, numbers, side="right")
        before = np.where(series > 0, ends[series - 1], 0)
        return series, first[series] + step * (numbers - before)

    def _scales(
        self, series: Integer[np.ndarray, " window"], origin: Integer[np.ndarray, " window"]
    ) -> tuple[Float[np.ndarray, "window 1"], Float[np.ndarray, "window 1"]]:
        """Centre and spread; where ``per`` is window, of the window's own past."""
        if self.details.per != "window":
            return self._centre[series][:, None], self._spread[series][:, None]
        before = origin[:, None] + np.arange(-self.window, 0)
        return fit_scale(self._values[self._begins[series][:, None] + before], self.details.scaling)
