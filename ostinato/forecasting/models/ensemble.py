"""An ensemble of trained forecasters: their quantiles are averaged, level by level.

The mean of quantiles keeps the shape that the members agree on (Vincent 1912; Lichtendahl et al.
2013); the median is robust to a member that fails. Weights are not negative and sum to 1.
Inputs: those of the members; output (batch, horizon, quantile).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from jaxtyping import Float

from ostinato import layers  # noqa: F401 - registers layers of members
from ostinato.errors import EnsembleError
from ostinato.forecasting import metrics
from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.layers import keras_inputs
from ostinato.forecasting.models import seq2seq  # noqa: F401 - registers layers of members
from ostinato.task import Record, TrainingContext
from ostinato.training.keras_model import KerasModel, restore, save

__all__ = ["build", "fit", "restore", "save"]

STEPS = 300  # of gradient descent on the weights
BATCH_SIZE = 256  # windows


def build(
    data: SeriesDataset,
    members: Mapping[str, KerasModel],
    *,
    combine: Literal["mean", "median", "weights"],
) -> tuple[keras.Model, dict[str, float]]:
    """Combine trained models to one.

    Args:
        data: that the members were trained on.
        members: restored models by the names of their runs.
        combine: mean, median, or weights with the least quantile loss on the validation split.

    Returns:
        The model, and the weight of each member (NaN for the median).

    Raises:
        EnsembleError: there are fewer than two members, or a member is no Keras model, or its
            inputs or outputs differ.
    """
    inputs, _ = keras_inputs(data, fixed_window=True)
    if len(members) < 2:
        raise EnsembleError(f"an ensemble of {len(members)} members: name at least two runs")
    outputs = _member_outputs(inputs, members)
    if combine == "median":
        median = keras.ops.median(keras.ops.stack(outputs), axis=0)
        return keras.Model(inputs, median), dict.fromkeys(members, float("nan"))
    shares = np.full(len(members), 1 / len(members))
    if combine == "weights":
        shares = fit_weights(*_validation_forecasts(data, keras.Model(inputs, outputs)))
    weights = dict(zip(members, map(float, shares), strict=True))
    weighted = [weight * part for weight, part in zip(weights.values(), outputs, strict=True)]
    return keras.Model(inputs, keras.layers.Add()(weighted)), weights


def fit(model: keras.Model, data: object, context: TrainingContext) -> Sequence[Record]:
    """Return no record: the members are trained, and `build` has chosen their weights."""
    return []


def _member_outputs(inputs: dict[str, Any], members: Mapping[str, KerasModel]) -> list[Any]:
    """The members' quantiles of the same inputs, each (batch, horizon, quantile)."""
    outputs: list[Any] = []
    first, shape = "", None
    for name, member in members.items():
        if not isinstance(member, KerasModel):
            raise EnsembleError(f"{name}: an ensemble needs Keras models, found {type(member)}")
        model = member.model
        if shape is None:
            first, shape = name, model.output_shape
        if model.output_shape != shape:
            raise EnsembleError(
                "{} forecasts {} steps in {} quantiles, {} {} in {}; members need equal horizons "
                "and numbers of quantiles".format(name, *model.output_shape[1:], first, *shape[1:])
            )
        read = {tensor.name: inputs.get(tensor.name) for tensor in model.inputs}
        if wrong := [x.name for x in model.inputs if not _compatible(x, read[x.name])]:
            raise EnsembleError(
                f"{name}: its input {wrong[0]!r} differs from the data set's; members need the "
                "data set that they were trained on"
            )
        # Layers of one model need different names.
        outputs.append(keras.Model(model.inputs, model.outputs[0], name=name)(read))
    return outputs


def _compatible(expected: Any, found: Any) -> bool:
    """Whether a Keras input has the expected shape; None fits any length."""
    if found is None:
        return False
    pairs = zip(expected.shape, found.shape, strict=True)
    return all(one in (None, other) for one, other in pairs)


def _validation_forecasts(
    data: SeriesDataset, model: keras.Model
) -> tuple[Float[np.ndarray, " example"], Float[np.ndarray, "member example quantile"]]:
    """Observed truth and the members' quantiles on the validation split, both scaled."""
    truth, quantiles = [], []
    for x, y, weight in data.batches("validation", batch_size=BATCH_SIZE, seed=None, epoch=0):
        observed = np.asarray(weight) > 0
        truth.append(np.asarray(y)[observed][:, 0])
        parts = [np.asarray(part)[observed] for part in model(x, training=False)]
        quantiles.append(np.stack(parts))
    return np.concatenate(truth), np.concatenate(quantiles, axis=1)


def fit_weights(
    truth: Float[np.ndarray, " example"], quantiles: Float[np.ndarray, "member example quantile"]
) -> Float[np.ndarray, " member"]:
    """The weights of members with the least quantile loss; they sum to 1.

    Exponentiated gradient (Kivinen and Warmuth 1997) from equal weights. The best of all steps is
    returned, so the weights are never worse than equal ones.
    """
    levels = metrics.levels(quantiles.shape[-1])
    weights = best = np.full(len(quantiles), 1 / len(quantiles))
    least = np.inf
    for step in range(STEPS):
        combined = np.tensordot(weights, quantiles, 1)
        loss = float(metrics.pinball(truth, combined, levels).mean())
        if loss < least:
            least, best = loss, weights
        slopes = (truth[:, None] < combined) - levels
        gradient = np.einsum("eq,meq->m", slopes, quantiles) / slopes.size
        spread = float(np.ptp(gradient))
        if spread == 0:
            break
        moved = weights * np.exp((gradient.min() - gradient) / (spread * np.sqrt(step + 1)))
        weights = moved / moved.sum()
    return best
