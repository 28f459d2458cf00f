"""Windows of series: a stretch of the past, and the steps after it that are forecast.

Training and serving call the same functions here: `to_model_units`, `fit_scale` and
`model_inputs` turn values into what a model reads, `from_model_units` turns forecasts back.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Integer, Shaped

from ostinato.errors import DataError
from ostinato.forecasting.formats.layout import Scaling
from ostinato.params import near

SPLITS = ("train", "validation", "calibration", "test")
CONSTANT = 1e-8  # a spread below this, relative to the level, is that of a constant

Inputs = dict[str, Float32[np.ndarray, "window ..."]]
"""``past`` (window, time, feature), the scaled target first; ``future`` (window, horizon, feature)
where covariates or the calendar are known for the horizon; ``static`` (window, feature) where
series have such covariates."""


class Windows(NamedTuple):
    """Windows in the units of the data, ordered by series and time.

    Attributes:
        keys: ``series@time of the first step that is forecast``.
        series: index of the series.
        history: steps of the series before the origin.
        origin: index of the first step that is forecast, on the time grid of all series.
        truth: values to forecast.
        observed: False where the truth was missing and is filled in.
        centre: of the scale.
        spread: of the scale.
    """

    keys: Shaped[np.ndarray, " window"]
    series: Integer[np.ndarray, " window"]
    history: Integer[np.ndarray, " window"]
    origin: Integer[np.ndarray, " window"]
    truth: Float[np.ndarray, "window horizon"]
    observed: Bool[np.ndarray, "window horizon"]
    centre: Float[np.ndarray, "window 1"]
    spread: Float[np.ndarray, "window 1"]


def split_origins(
    bounds: Int64[np.ndarray, "series 5"], split: str, *, window: int, horizon: int, stride: int
) -> tuple[Int64[np.ndarray, " series"], Int64[np.ndarray, " series"], int]:
    """The origins of a split's windows.

    A window reads ``window`` steps before its origin, from whatever split, and forecasts
    ``horizon`` steps inside its own split.

    Args:
        bounds: the step at which each split begins, and the end of the last one.
        split: one of `SPLITS`. Where calibration begins with validation, the two are the same.
        window: steps that are read.
        horizon: steps that are forecast.
        stride: steps from one origin to the next in the training split; 1 in the others.

    Returns:
        The first origin of each series, the number of its origins, and the steps between them.
    """
    if split not in SPLITS:
        raise DataError(f"no split {split!r}; {near(split, SPLITS)}")
    if split == "validation" and (bounds[:, 1] == bounds[:, 2]).all():
        split = "calibration"
    number = SPLITS.index(split)
    step = stride if split == "train" else 1
    first = np.maximum(bounds[:, number], window)
    counts = np.maximum(0, (bounds[:, number + 1] - horizon - first) // step + 1)
    return first, counts, step


def fit_scale(
    values: Float[np.ndarray, "series step"], scaling: Scaling
) -> tuple[Float[np.ndarray, "series 1"], Float[np.ndarray, "series 1"]]:
    """The centre and the spread by which the target is scaled.

    standard: mean and standard deviation; min_max: minimum and range; robust: median and
    interquartile range; none: 0 and 1. The spread of a constant is its level, or 1.
    """
    if scaling == "none":
        return np.zeros((len(values), 1)), np.ones((len(values), 1))
    if scaling == "standard":
        centre, spread = values.mean(axis=1), values.std(axis=1)
    elif scaling == "min_max":
        centre, spread = values.min(axis=1), np.ptp(values, axis=1)
    else:
        low, centre, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        spread = high - low
    level = np.where(centre == 0, 1.0, np.abs(centre))
    spread = np.where(spread > CONSTANT * level, spread, level)
    return np.asarray(centre)[:, None], np.asarray(spread)[:, None]


def to_model_units(values: Float[np.ndarray, "..."], *, log: bool) -> Float[np.ndarray, "..."]:
    """Values before scaling: log(1 + value) where ``log``, else as they are."""
    return np.asarray(np.log1p(values)) if log else values


def from_model_units(
    scaled: Float[np.ndarray, "window *rest"],
    centre: Float[np.ndarray, "window 1"],
    spread: Float[np.ndarray, "window 1"],
    *,
    log: bool,
) -> Float[np.ndarray, "window *rest"]:
    """Scaled values in the units of the data: the inverse of scaling and of `to_model_units`."""
    shape = (-1, *[1] * (scaled.ndim - 1))
    values = scaled * spread.reshape(shape) + centre.reshape(shape)
    return np.asarray(np.expm1(values) if log else values)


def model_inputs(
    target: Float[np.ndarray, "window time"],
    past: Float32[np.ndarray, "window time past"],
    future: Float32[np.ndarray, "window time_and_horizon future"],
    static: Float32[np.ndarray, "window static"],
) -> Inputs:
    """Assemble what a model reads of windows; training and serving both call this function.

    Args:
        target: scaled, before the origin.
        past: covariates before the origin.
        future: covariates and calendar that are known ahead, before the origin and over the
            horizon.
        static: covariates of the series.
    """
    time = target.shape[1]
    parts = [target[..., None], past, future[:, :time]]
    inputs = {"past": np.concatenate(parts, axis=-1, dtype=np.float32)}
    if future.shape[2]:
        inputs["future"] = future[:, time:]
    if static.shape[1]:
        inputs["static"] = static
    return inputs
