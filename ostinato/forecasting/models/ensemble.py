"""Several forecasters as one: their quantiles averaged, level by level.

The mean of quantiles keeps the shape that the members agree on (Vincent 1912; Lichtendahl et al.
2013); the median is not moved by one that fails. Weights are not negative and sum to one.
Input: what the members read; output (batch, horizon, quantile).
"""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from ostinato import layers  # noqa: F401 - registers the layers of members
from ostinato.errors import EnsembleError
from ostinato.forecasting import metrics
from ostinato.forecasting.layers import window
from ostinato.forecasting.models import seq2seq  # noqa: F401 - and its own

__all__ = ["EnsembleError", "build"]

Array = NDArray[Any]

STEPS = 300  # of the weights' descent
BATCH = 256  # windows forecast at once, for the weights


def build(
    data: Any,
    members: Mapping[str, keras.Model],
    *,
    combine: Literal["mean", "median", "weights"],
) -> tuple[keras.Model, dict[str, float]]:
    """One model of the members' models, and the weight of each (NaN where the median decides).

    Args:
        data: what they were trained on.
        members: trained models by the names of their runs.
        combine: mean, median, or weights with the least quantile loss on the validation split.

    Raises:
        EnsembleError: there are less than two, or a member's inputs or outputs are others.
    """
    given, _ = window(data, fixed=True)
    if len(members) < 2:
        raise EnsembleError(f"an ensemble of {len(members)}: name at least two runs")
    first = next(iter(members))
    parts = []
    for name, model in members.items():
        if model.output_shape != members[first].output_shape:
            raise EnsembleError(
                "{} forecasts {} steps in {} quantiles, {} {} in {}: members need the same".format(
                    name, *model.output_shape[1:], first, *members[first].output_shape[1:]
                )
            )
        told = {x.name: given.get(x.name) for x in model.inputs}
        if other := [x.name for x in model.inputs if not _fits(x, told[x.name])]:
            raise EnsembleError(f"{name}: its input {other[0]!r} is not that of the data set")
        # Renamed, as layers of one model need names of their own.
        parts.append(keras.Model(model.inputs, model.outputs[0], name=name)(told))
    if combine == "median":
        middle = keras.ops.median(keras.ops.stack(parts), axis=0)
        return keras.Model(given, middle), dict.fromkeys(members, float("nan"))
    shares = np.full(len(members), 1 / len(members))
    if combine == "weights":
        shares = weights(*validated(data, keras.Model(given, parts)))
    known = dict(zip(members, map(float, shares), strict=True))
    mixed = [share * part for share, part in zip(known.values(), parts, strict=True)]
    return keras.Model(given, keras.layers.Add()(mixed)), known


def _fits(wanted: Any, given: Any) -> bool:
    pairs = zip(wanted.shape, given.shape, strict=True) if given is not None else [(1, 2)]
    return all(one in (None, other) for one, other in pairs)


def validated(data: Any, model: keras.Model) -> tuple[Array, Array]:
    """Truths (example,), measured ones alone, and the members' quantiles of them.

    Returns:
        float32 (example,) and (member, example, quantile), both scaled.
    """
    truths, quantiles = [], []
    for x, y, weight in data.batches("validation", batch_size=BATCH, seed=None, epoch=0):
        known = np.asarray(weight) > 0
        truths.append(np.asarray(y)[known][:, 0])
        quantiles.append(np.stack([np.asarray(part)[known] for part in model(x, training=False)]))
    return np.concatenate(truths), np.concatenate(quantiles, axis=1)


def weights(truth: Array, quantiles: Array) -> Array:
    """The weights of members with the least quantile loss: float64 (member,), adding up to one.

    Exponentiated gradient (Kivinen and Warmuth 1997) from equal weights; the best of all steps,
    so never worse than equal ones.

    Args:
        truth: (example,).
        quantiles: (member, example, quantile).
    """
    levels = metrics.levels(quantiles.shape[-1])
    shares = best = np.full(len(quantiles), 1 / len(quantiles))
    least = np.inf
    for step in range(STEPS):
        mixed = np.tensordot(shares, quantiles, 1)
        loss = float(metrics.pinball(truth, mixed, levels).mean())
        if loss < least:
            least, best = loss, shares
        slopes: Array = (truth[:, None] < mixed) - levels
        gradient = np.einsum("eq,meq->m", slopes, quantiles) / slopes.size
        spread = float(np.ptp(gradient))
        if spread == 0:
            break
        moved = shares * np.exp((gradient.min() - gradient) / (spread * np.sqrt(step + 1)))
        shares = moved / moved.sum()
    return best
