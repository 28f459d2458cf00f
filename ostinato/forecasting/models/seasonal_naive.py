"""The value a season ago: a baseline without parameters.

Where the window is shorter than a season, the whole window is repeated; prepare warns of it.

Inputs: ``past`` (batch, time, feature), the scaled target first; output (batch, horizon, 1).
"""

import time

import keras
import numpy as np

from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import SeasonalNaive, keras_inputs
from ostinato.task import Record, TrainingContext
from ostinato.training.trainer import Data
from ostinato.units import BatchSize

__all__ = ["build", "fit"]


def build(data: SeriesDataset) -> keras.Model:
    """Build the model, which has no weights.

    Args:
        data: gives the features, the season and the horizon.
    """
    inputs, _ = keras_inputs(data)
    return keras.Model(inputs, SeasonalNaive(data.season, data.horizon)(inputs["past"]))


def fit(
    model: keras.Model,
    data: Data,
    context: TrainingContext,
    *,
    batch_size: BatchSize,
) -> list[Record]:
    """Measure the absolute error in scaled units; nothing is learned.

    Args:
        model: of `build`.
        data: with a training and a validation split.
        context: of the training.
        batch_size: windows in a batch.
    """
    start = time.perf_counter()
    record: Record = {"epoch": 1}
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
