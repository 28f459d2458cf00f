"""What a training repeats: an optimisation step on a batch, and the same measurement without it.

`SupervisedStep` is the usual one. Another way to train (two optimisers, no target) is another
class with the attributes and methods of `Step`, some 20 lines with `part_of_batch` and `minimise`;
`ostinato.training.trainer.train` repeats it.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from ostinato.errors import ParamsError, TrainingError
from ostinato.params import near
from ostinato.training import losses, ranks

Mean = tuple[tf.Tensor, tf.Tensor]
"""A weighted sum of values and the sum of their weights: two scalars whose ratio is the mean."""

Sums = dict[str, Mean]
"""Sums over a device's part of a batch, by metric. The trainer adds them over devices and batches,
so the ratio at the end is the exact mean over the split, whatever its batches are."""

Function = Callable[[Any, Any], Any]
"""Maps a truth and a prediction, (batch, ...) each, to values (batch, ...)."""


class Step(Protocol):
    """A training step; it owns its optimisers and its models.

    ``train`` and ``test`` are compiled into a graph. They run on every device, each time with the
    whole batch: `part_of_batch` cuts out the device's part, so that the sum over the devices is
    the same for any number of them.
    """

    @property
    def models(self) -> Sequence[keras.layers.Layer]:
        """Keras models or layers; the weights of their best epoch are restored at the end."""

    @property
    def optimizers(self) -> Sequence[keras.Optimizer]:
        """Built optimisers; the schedule multiplies the learning rate that each begins with."""

    @property
    def metrics(self) -> Mapping[str, bool]:
        """The metrics that ``train`` and ``test`` return; true where higher is better."""

    @property
    def diagnostics(self) -> Sequence[str]:
        """What ``train`` returns besides, such as ``gradient_norm``."""

    def train(self, batch: Any) -> Sums:
        """Update the weights once; return the sums of ``metrics`` and ``diagnostics``.

        A sum that is not finite stops the training with an error.
        """

    def test(self, batch: Any) -> Sums:
        """Measure without an update; return the sums of ``metrics``."""


class SupervisedStep:
    """A step on batches (x, y) or (x, y, weight) with one loss and one optimiser.

    The loss is the mean over all values of the batch, weighted by the mask of the model's output
    and by the data's weights, plus the model's penalties (regularisers, ``add_loss``). Its
    gradient is summed over the devices before it is clipped, so any number of devices computes the
    same step. Only batch normalisation that is not ``synchronized`` uses statistics of the
    device's part of the batch.

    Args:
        model: maps x to the predictions that the loss expects.
        loss: the loss function, or the name of one in keras.losses or ostinato.training.losses, or
            of one that is registered with Keras.
        metrics: names of functions in keras.metrics, ostinato.training.losses or registered with
            Keras, and ``accuracy``: the accuracy that belongs to a crossentropy loss.
        optimizer: a class of keras.optimizers in lower case, with Keras' default settings.
        learning_rate: highest learning rate.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.

    Raises:
        ParamsError: an unknown name, with near misses, or a metric of unknown direction.
    """

    diagnostics = ("gradient_norm",)

    def __init__(
        self,
        model: keras.Model,
        *,
        loss: str | Function,
        metrics: Sequence[str],
        optimizer: str,
        learning_rate: float,
        clip_norm: float,
    ) -> None:
        self._functions = _find_functions(loss, metrics)
        self.metrics = {
            name: losses.higher_is_better(name, function)
            for name, function in self._functions.items()
        }
        self._model, self._clip_norm = model, clip_norm
        self._optimizer = build_optimizer(optimizer, learning_rate, model)
        self.models, self.optimizers = (model,), (self._optimizer,)

    def train(self, batch: Any) -> Sums:
        """One update; see `Step`. ``gradient_norm`` is the norm before clipping."""
        with tf.GradientTape() as tape:
            loss, sums = self._measure(batch, training=True)
        weights = self._model.trainable_weights
        norm = minimise(tape, loss, self._optimizer, weights, self._clip_norm)
        return {**sums, "gradient_norm": norm}

    def test(self, batch: Any) -> Sums:
        """Measure in inference mode; see `Step`."""
        _, sums = self._measure(batch, training=False)
        return sums

    def _measure(self, batch: Any, *, training: bool) -> tuple[tf.Tensor, Sums]:
        """This device's share of the batch's loss, and the sums of its part of the batch."""
        part, share = part_of_batch(batch)
        x, y, data_weights = keras.utils.unpack_x_y_sample_weight(part)
        predictions = self._model(x, training=training)
        mask = getattr(predictions, "_keras_mask", None)
        predictions = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.float32), predictions)
        values = {
            name: tf.cast(function(y, predictions), tf.float32)
            for name, function in self._functions.items()
        }
        weights = tf.ones_like(values["loss"]) * tf.cast(share > 0, tf.float32)
        for factor in (mask, data_weights):
            if factor is not None:
                trailing = [tf.newaxis] * (weights.shape.rank - factor.shape.rank)
                weights *= tf.cast(factor, tf.float32)[(..., *trailing)]
        penalties = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in self._model.losses]
        sums = {name: tf.reduce_sum(value * weights) for name, value in values.items()}
        weight = tf.reduce_sum(weights)
        batch_weight = tf.distribute.get_replica_context().all_reduce("SUM", weight)
        loss = tf.math.divide_no_nan(sums["loss"], batch_weight) + share * sum(penalties)
        sums["loss"] = loss * batch_weight
        return loss, {name: (total, weight) for name, total in sums.items()}


def part_of_batch(batch: Any) -> tuple[Any, float | tf.Tensor]:
    """Cut a batch into one part for each device of all ranks.

    Args:
        batch: nested tensors whose first axis is the batch; with several ranks, the rank's
            examples and the number of examples of the whole batch: see `ostinato.task.Dataset`.

    Returns:
        The part of this device, and its share of the batch's examples: over the devices the shares
        sum to 1. If a batch has fewer examples than there are devices, some devices get one
        example with a share of 0, as some kernels refuse empty batches: multiply losses and
        weights by the share.
    """
    context = tf.distribute.get_replica_context()
    device, devices = context.replica_id_in_sync_group, context.num_replicas_in_sync
    if devices == 1:
        return batch, 1.0
    mine, length = ranks.part(), batch_length(batch)
    first, last = length * device // devices, length * (device + 1) // devices
    share = tf.cast((last - first) / length, tf.float32)
    if mine.ranks > 1:
        batch, start = batch[0], length * mine.rank // mine.ranks
        here = tf.shape(tf.nest.flatten(batch)[0])[0]
        first, last = tf.minimum(first - start, here - 1), last - start
    end = tf.maximum(last, first + 1)
    return tf.nest.map_structure(lambda tensor: tensor[first:end], batch), share


def batch_length(batch: Any) -> tf.Tensor:
    """The number of examples of a batch, over all ranks: a scalar int32."""
    return batch[1] if ranks.part().ranks > 1 else tf.shape(tf.nest.flatten(batch)[0])[0]


def minimise(
    tape: tf.GradientTape,
    loss: tf.Tensor,
    optimizer: keras.Optimizer,
    weights: Sequence[keras.Variable],
    clip_norm: float,
) -> Mean:
    """Update ``weights`` once by the gradient of ``loss``, summed over the devices, then clipped.

    Args:
        tape: has recorded the loss.
        loss: this device's share of the loss: the sum over the devices is minimised.
        optimizer: built for these weights.
        weights: to update.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.

    Returns:
        The norm of the gradient before clipping; see `apply_gradients`.

    Raises:
        TrainingError: the loss does not depend on one of the weights.
    """
    gradients = gradients_of(tape, loss, optimizer, weights)
    return apply_gradients(gradients, optimizer, weights, clip_norm)


def gradients_of(
    tape: tf.GradientTape,
    loss: tf.Tensor,
    optimizer: keras.Optimizer,
    weights: Sequence[keras.Variable],
) -> list[tf.Tensor]:
    """The gradient of ``loss``, times the optimiser's scale of the loss.

    Raises:
        TrainingError: the loss does not depend on one of the weights.
    """
    scale = optimizer.scale_loss(tf.ones(()))
    gradients = tape.gradient(loss, weights, output_gradients=scale)
    unused = [w.path for w, g in zip(weights, gradients, strict=True) if g is None]
    if unused:
        raise TrainingError(
            f"the loss does not depend on the weights {unused}; use them in the model, or set "
            "trainable = False for their layers"
        )
    # Dense, because the norm of a sparse gradient counts a row that occurs twice as two rows.
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def apply_gradients(
    gradients: Sequence[tf.Tensor],
    optimizer: keras.Optimizer,
    weights: Sequence[keras.Variable],
    clip_norm: float,
) -> Mean:
    """Update ``weights`` once by a gradient, summed over the devices, then clipped.

    Args:
        gradients: this device's share, from `gradients_of`.
        optimizer: built for these weights.
        weights: to update.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.

    Returns:
        The norm of the gradient before clipping, as a mean over steps. It is NaN if the gradient is
        not finite. With loss scaling, which overflows now and then while it looks for the scale,
        such a step has the weight 0 instead.
    """
    one = tf.ones(())
    scale = optimizer.scale_loss(one)
    context = tf.distribute.get_replica_context()
    devices = context.num_replicas_in_sync
    gradients = context.all_reduce("SUM", list(gradients))
    norm = tf.linalg.global_norm(gradients) / scale
    factor = clip_norm / tf.maximum(norm, clip_norm) if clip_norm else one
    # The sum is made already: Keras' optimiser would send all gradients over the network again.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list
    optimizer.apply([g * factor for g in gradients], weights)
    finite = tf.math.is_finite(norm)
    overflow = 0.0 if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else np.nan
    return tf.where(finite, norm / devices, overflow), tf.cast(finite, tf.float32) / devices


def build_optimizer(name: str, learning_rate: float, model: keras.Model) -> keras.Optimizer:
    """An optimiser with the variables for the trainable weights of ``model``.

    Args:
        name: a class of keras.optimizers in lower case.
        learning_rate: highest learning rate.
        model: with the precision float16 its optimiser scales the loss.

    Raises:
        ParamsError: an unknown name, with near misses.
    """
    available = {
        key.lower(): value
        for key, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and value not in (keras.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    if name not in available:
        raise ParamsError(f"fit.optimizer: unknown {name!r}; {near(name, available)}")
    optimizer = available[name](learning_rate=float(learning_rate))
    if model.dtype_policy.compute_dtype == "float16":
        # Small gradients underflow in float16 unless the loss is scaled up.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _find_functions(loss: str | Function, metrics: Sequence[str]) -> dict[str, Function]:
    """The loss and the metrics, by their names in a record."""
    functions = {"loss": _find(keras.losses, "loss", loss) if isinstance(loss, str) else loss}
    for name in metrics:
        function = name
        if name == "accuracy":
            if not str(loss).endswith("_crossentropy"):
                raise ParamsError(
                    f"fit.metrics: accuracy needs a crossentropy loss, not {loss!r}; name a metric "
                    "of keras.metrics"
                )
            function = str(loss).replace("crossentropy", "accuracy")
        functions[name] = _find(keras.metrics, "metrics", function)
    return functions


def _find(module: ModuleType, key: str, name: str) -> Function:
    """A function of Keras' module, of ostinato.training.losses, or registered with Keras."""
    available = {n: f for n, f in vars(module).items() if n.islower() and callable(f)}
    available |= {n: vars(losses)[n] for n in losses.FUNCTIONS}
    for utility in ("get", "serialize", "deserialize"):
        available.pop(utility, None)
    function = available.get(name) or keras.saving.get_registered_object(name)
    if function is None:
        raise ParamsError(f"fit.{key}: unknown {name!r}; {near(name, available)}")
    return cast(Function, function)
