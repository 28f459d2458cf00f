"""The value a season ago: no learning, the floor under every score.

Input: ``past`` (batch, time, feature), the scaled target first; output (batch, horizon, 1).
"""

import time
from typing import Any

import keras
import numpy as np

from ostinato.forecasting.layers import SeasonalNaive, window
from ostinato.task import TrainingContext
from ostinato.units import BatchSize

__all__ = ["build", "fit"]


def build(data: Any) -> keras.Model:
    """The model, which has no weights.

    Args:
        data: what the model reads: its features, season and horizon.
    """
    given, _ = window(data)
    return keras.Model(given, SeasonalNaive(data.season, data.horizon)(given["past"]))


def fit(
    model: keras.Model,
    data: Any,
    context: TrainingContext,
    *,
    batch_size: BatchSize,
) -> list[dict[str, Any]]:
    """Measure the absolute error, scaled as in training: there is nothing to learn.

    Args:
        model: from ``build``.
        data: batches of the training and the validation split.
        context: of this training.
        batch_size: windows at a time.
    """
    start = time.perf_counter()
    record: dict[str, Any] = {"epoch": 1}
    for prefix, split in (("", "train"), ("validation_", "validation")):
        total = weights = 0.0
        for x, y, weight in data.batches(split, batch_size=batch_size, seed=None, epoch=0):
            error = np.abs(y - model(x))[..., 0]
            total, weights = total + float(np.sum(error * weight)), weights + float(np.sum(weight))
        record[f"{prefix}loss"] = record[f"{prefix}median_error"] = total / weights
    seconds = time.perf_counter() - start
    record |= {"learning_rate": 0.0, "gradient_norm": 0.0, "seconds": seconds}
    record["sequences_per_second"] = (data.size("train") + data.size("validation")) / seconds
    context.on_epoch(record)
    return [record]
