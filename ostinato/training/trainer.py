"""One training loop for every Keras model of every domain, and the machine that it runs on.

The loop is its own, and not ``keras.Model.fit``, for four reasons. A batch's loss is divided by
the weight of the whole batch, and its gradient is summed over the devices before it is clipped,
so that any number of devices computes the same step. Losses and metrics are exact means over the
split, however it is cut into batches. All randomness is a function of (seed, epoch), so that a
killed training goes on with the same weights, bit for bit. And as many steps run in one graph
call as fit in a moment, which is faster for small models.
"""

import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from ostinato import store
from ostinato.errors import ParamsError, TrainingError
from ostinato.params import near
from ostinato.task import TrainingContext
from ostinato.training import losses
from ostinato.units import BatchSize, Epochs, Fraction, LearningRate, NonNegative, Patience

Record = dict[str, int | float]
"""One epoch: ``epoch`` (from 1), ``loss`` and metrics, ``validation_`` of each,
``learning_rate`` (at its end), ``gradient_norm`` (mean over its steps, before clipping),
``seconds`` and ``sequences_per_second`` (of its training part)."""

Totals = dict[str, tf.Tensor]
Functions = dict[str, Callable[..., tf.Tensor]]
Run = Callable[[Any, tf.Tensor, Totals], tuple[tf.Tensor, Totals]]

PROGRESS_INTERVAL_S = 0.2  # seconds of training between two looks at its progress


class Data(Protocol):
    """What ``fit`` needs of a data set."""

    def size(self, split: str) -> int:
        """The number of ostinato of a split."""

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int
    ) -> tf.data.Dataset:
        """Batches (x, y) or (x, y, weight), a pure function of the arguments.

        The first axis of every tensor is the batch; x and y may be nested. Weights have the shape
        of the loss' values, or leave out trailing axes.
        """


def fit(
    model: keras.Model,
    data: Data,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    loss: str | Callable[[Any, Any], Any],
    metrics: list[str],
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Literal["constant", "cosine", "inverse_sqrt"],
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train ``model``; at the end it has the weights of its best epoch.

    The loss is the mean over all values of the split, weighted by the model's output mask and the
    data's weights, plus the model's penalties (regularisers, ``add_loss``). BatchSize normalisation
    that is not ``synchronized`` normalises the part of a batch that a device has.

    Every finished epoch is kept in ``checkpoints``, in one file that is replaced at once. Where
    there is one, training goes on from it and ends as if it had never stopped. That holds for
    layers that draw from a ``keras.random.SeedGenerator`` of their own, as Keras' layers do.

    Args:
        model: maps x to the loss' predictions.
        data: has the splits ``train`` and ``validation``.
        context: of this training.
        epochs: passes over the training split, at most.
        batch_size: ostinato a step, over all devices.
        loss: a function that maps (y, prediction) to values of shape (batch, ...), or the name of
            one in keras.losses or ostinato.training.losses, or of a registered one.
        metrics: functions of keras.metrics, likewise, and ``accuracy``: the one of the loss.
        optimizer: a class of keras.optimizers in lower case, with Keras' own settings.
        learning_rate: highest learning rate.
        schedule: after the warm-up, the rate stays (constant), falls to zero by half a cosine
            (Loshchilov & Hutter 2017, arXiv 1608.03983), or as one over the root of the share of
            training that is done (inverse_sqrt; Vaswani et al. 2017, arXiv 1706.03762).
        warmup_fraction: the share of training in which the rate rises from zero.
        clip_norm: the largest norm of the gradient over all weights; 0 turns it off.
        monitor: the name in the record by which epochs are compared.
        patience: epochs without a better one after which training stops.

    Returns:
        A record for every epoch.

    Raises:
        ParamsError: an unknown name, with near misses.
        TrainingError: the loss or the gradient is not finite, the checkpoint belongs to another
            model, a split is empty, or a weight does not reach the loss.
    """
    functions = _functions(loss, metrics)
    known = [prefix + name for prefix in ("", "validation_") for name in functions]
    if monitor not in known:
        raise ParamsError(f"fit.monitor: unknown {monitor!r}; {near(monitor, known)}")
    best_epoch([], monitor)  # an error, if it cannot be compared
    if schedule == "inverse_sqrt" and not warmup_fraction:
        raise ParamsError("fit.warmup: the schedule inverse_sqrt needs a warm-up above 0")
    minimizer = _optimizer(optimizer, learning_rate, model)
    sizes = {split: data.size(split) for split in ("train", "validation")}
    if empty := [split for split, size in sizes.items() if not size]:
        raise TrainingError(f"no sequence in the split {' and '.join(empty)}")
    validation = data.batches("validation", batch_size=batch_size, seed=None, epoch=0)

    def scheduled_rate(share: tf.Tensor) -> tf.Tensor:
        rising = share / warmup_fraction if warmup_fraction else tf.ones_like(share)
        if schedule == "constant":
            return learning_rate * tf.minimum(rising, 1.0)
        if schedule == "inverse_sqrt":
            return learning_rate * tf.minimum(rising, tf.math.rsqrt(rising))
        falling = tf.maximum(share - warmup_fraction, 0.0) / max(1.0 - warmup_fraction, 1e-9)
        return learning_rate * tf.minimum(rising, 0.5 + 0.5 * tf.cos(np.pi * falling))

    def train_step(totals: Totals, items: Any) -> Totals:
        moved = tf.cast(_length(items), tf.float64) / (sizes["train"] * epochs)
        middle = tf.cast(tf.minimum(totals["share"] + moved / 2, 1.0), tf.float32)
        minimizer.learning_rate.assign(scheduled_rate(middle))
        replica = partial(_train_replica, model, functions, minimizer, clip_norm)
        return {**_added(totals, items, replica), "share": totals["share"] + moved}

    def test_step(totals: Totals, items: Any) -> Totals:
        replica = partial(_measure, model, functions, training=False)
        return _added(totals, items, lambda part: replica(part)[1])

    train, test = _compiled(train_step), _compiled(test_step)
    history, best = _resume(context.checkpoints, model, minimizer)
    for record in history:
        context.on_epoch(record)
    while len(history) < epochs and len(history) - best_epoch(history, monitor) < patience:
        epoch, began = len(history) + 1, time.perf_counter()
        _reseed(model, context.seed, epoch)
        batches = data.batches("train", batch_size=batch_size, seed=context.seed, epoch=epoch)
        begin = _totals(*functions, "norm", "applied", share=(epoch - 1) / epochs)
        totals = _run(train, batches, begin, sizes["train"], f"epoch {epoch}")
        trained = time.perf_counter() - began
        title = f"validation of epoch {epoch}"
        tested = _run(test, validation, _totals(*functions), sizes["validation"], title)
        record = {
            "epoch": epoch,
            **{name: totals[name] / totals["weight"] for name in functions},
            **{f"validation_{name}": tested[name] / tested["weight"] for name in functions},
            "learning_rate": float(minimizer.learning_rate.numpy()),
            "gradient_norm": totals["norm"] / totals["applied"] if totals["applied"] else np.nan,
            "seconds": time.perf_counter() - began,
            "sequences_per_second": totals["examples"] / trained,
        }
        history.append(record)
        if best_epoch(history, monitor) == epoch:
            best = [weight.numpy() for weight in model.weights]
        _save(context.checkpoints, model, minimizer, history, best)
        left = timedelta(seconds=round(record["seconds"] * (epochs - epoch)))
        print(
            f"epoch {epoch}/{epochs}  loss {record['loss']:.4f}  {monitor} {record[monitor]:.4f} "
            f"(best in epoch {best_epoch(history, monitor)})  "
            f"rate {record['learning_rate']:.2g}  "
            f"{record['sequences_per_second']:,.0f} ostinato/s  {left} left",
            flush=True,
        )
        context.on_epoch(record)
    for weight, value in zip(model.weights, best, strict=True):
        weight.assign(value)
    return history


def best_epoch(history: Sequence[Mapping[Any, float]], monitor: str) -> int:
    """The number of the best epoch by ``monitor``, the first of equals; 0 before the first.

    Raises:
        ParamsError: the name does not tell whether a higher value is better.
    """
    lower = ("loss", "error", "crossentropy", "divergence", "hinge", "poisson", "pinball")
    if not monitor.endswith(("accuracy", *lower)):
        raise ParamsError(f"fit.monitor: whether a higher {monitor!r} is better is not known")
    better = -1 if monitor.endswith(lower) else 1
    return 1 + int(np.argmax([better * r[monitor] for r in history])) if history else 0


def _functions(loss: str | Callable[[Any, Any], Any], metrics: list[str]) -> Functions:
    """The loss and the metrics by the names that they have in the record."""

    def function(module: Any, key: str, name: str) -> Callable[..., tf.Tensor]:
        known = {n: f for n, f in vars(module).items() if n.islower() and callable(f)}
        known |= {n: vars(losses)[n] for n in losses.__all__}
        for other in ("get", "serialize", "deserialize"):
            known.pop(other, None)
        found = known.get(name) or keras.saving.get_registered_object(name)
        if found is None:
            raise ParamsError(f"fit.{key}: unknown {name!r}; {near(name, known)}")
        return cast(Callable[..., tf.Tensor], found)

    given = function(keras.losses, "loss", loss) if isinstance(loss, str) else loss
    functions = {"loss": given}
    for name in metrics:
        known = name
        if name == "accuracy":
            if not str(loss).endswith("_crossentropy"):
                raise ParamsError(f"fit.metrics: there is no accuracy that belongs to {loss!r}")
            known = str(loss).replace("crossentropy", "accuracy")
        functions[name] = function(keras.metrics, "metrics", known)
    return functions


def _optimizer(name: str, rate: float, model: keras.Model) -> keras.Optimizer:
    known = {
        key.lower(): value
        for key, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and value not in (keras.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    if name not in known:
        raise ParamsError(f"fit.optimizer: unknown {name!r}; {near(name, known)}")
    optimizer = known[name](learning_rate=float(rate))
    if model.dtype_policy.compute_dtype == "float16":
        # Small gradients vanish in float16 unless the loss is scaled up.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def _train_replica(
    model: keras.Model,
    functions: Functions,
    minimizer: keras.Optimizer,
    clip: float,
    items: Any,
) -> Totals:
    """One step of training on this device's part of a batch; see ``_measure`` for the sums."""
    weights = model.trainable_weights
    with tf.GradientTape() as tape:
        objective, sums = _measure(model, functions, items, training=True)
        scaled = minimizer.scale_loss(objective)
    gradients = tape.gradient(scaled, weights)
    if lost := [w.path for w, g in zip(weights, gradients, strict=True) if g is None]:
        raise TrainingError(f"weights that do not reach the loss: {lost}; use or freeze them")
    context = tf.distribute.get_replica_context()
    devices = context.num_replicas_in_sync
    # Dense, as the norm of a sparse gradient counts a row that occurs twice as two.
    gradients = context.all_reduce("SUM", [tf.convert_to_tensor(g) for g in gradients])
    norm = tf.linalg.global_norm(gradients) / minimizer.scale_loss(tf.ones(()))
    # The optimizer sums over the devices once more, hence the division.
    factor = (clip / tf.maximum(norm, clip) if clip else tf.ones(())) / devices
    minimizer.apply([g * factor for g in gradients], weights)
    finite = tf.math.is_finite(norm)
    applied = tf.cast(finite, tf.float32) / devices
    if not isinstance(minimizer, keras.optimizers.LossScaleOptimizer):
        # Loss scaling finds its scale by overflowing now and then; elsewhere it is an error.
        sums["loss"] = tf.where(finite, sums["loss"], np.nan)
    return {**sums, "norm": tf.where(finite, norm / devices, 0.0), "applied": applied}


def _measure(
    model: keras.Model,
    functions: Functions,
    items: Any,
    *,
    training: bool,
) -> tuple[tf.Tensor, Totals]:
    """The objective of this device's part of a batch, and sums of what was measured on it.

    Over the devices, objectives add up to the loss of the batch, and sums to those of the batch.
    """
    context = tf.distribute.get_replica_context()
    rank, devices, share = context.replica_id_in_sync_group, context.num_replicas_in_sync, 1.0
    if devices > 1:
        length = _length(items)
        first, last = length * rank // devices, length * (rank + 1) // devices
        # A device without a sequence takes one at no weight: some kernels refuse empty batches.
        end = tf.maximum(last, first + 1)
        items = tf.nest.map_structure(lambda tensor: tensor[first:end], items)
        share = tf.cast((last - first) / length, tf.float32)
    x, y, given = keras.utils.unpack_x_y_sample_weight(items)
    predicted = model(x, training=training)
    mask = getattr(predicted, "_keras_mask", None)
    predicted = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.float32), predicted)
    values = {
        name: tf.cast(function(y, predicted), tf.float32) for name, function in functions.items()
    }
    weights = tf.ones_like(values["loss"]) * tf.cast(share > 0, tf.float32)
    for factor in (mask, given):
        if factor is not None:
            trailing = [tf.newaxis] * (weights.shape.rank - factor.shape.rank)
            weights *= tf.cast(factor, tf.float32)[(..., *trailing)]
    penalty = share * sum(tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in model.losses)
    sums = {name: tf.reduce_sum(value * weights) for name, value in values.items()}
    sums["weight"] = tf.reduce_sum(weights)
    whole = context.all_reduce("SUM", sums["weight"])
    objective = tf.math.divide_no_nan(sums["loss"], whole) + penalty
    return objective, {**sums, "loss": objective * whole}


def _length(items: Any) -> tf.Tensor:
    return tf.shape(tf.nest.flatten(items)[0])[0]


def _compiled(step: Callable[[Totals, Any], Totals]) -> Run:
    """``run(iterator, steps, totals)``: up to so many steps in one graph call.

    It returns the steps left, -1 where the data have ended, and the totals. A loss that is not
    finite stops it.
    """

    def more(left: tf.Tensor, totals: Totals) -> Any:
        return (left > 0) & tf.math.is_finite(totals["loss"])

    @tf.autograph.experimental.do_not_convert
    def run(iterator: Any, steps: tf.Tensor, totals: Totals) -> Any:
        def body(left: tf.Tensor, totals: Totals) -> Any:
            items = iterator.get_next_as_optional()
            return tf.cond(
                items.has_value(),
                lambda: (left - 1, step(totals, items.get_value())),
                lambda: (tf.constant(-1), totals),
            )

        return tf.while_loop(more, body, (steps, totals))

    return cast(Run, tf.function(run))


def _totals(*names: str, share: float = 0.0) -> Totals:
    zeros = dict.fromkeys([*names, "weight", "examples", "steps"], 0.0)
    return {name: tf.constant(v, tf.float64) for name, v in {**zeros, "share": share}.items()}


def _added(totals: Totals, items: Any, replica: Callable[[Any], Totals]) -> Totals:
    """Totals after one more batch: the sums over all devices are added."""
    strategy = tf.distribute.get_strategy()
    sums = strategy.run(replica, args=(items,))
    sums = {name: strategy.reduce("SUM", value, axis=None) for name, value in sums.items()}
    sums |= {"examples": _length(items), "steps": 1}
    return {**totals, **{name: totals[name] + tf.cast(sums[name], tf.float64) for name in sums}}


def _run(
    run: Run,
    batches: tf.data.Dataset,
    totals: Totals,
    size: int,
    title: str,
) -> dict[str, float]:
    """Totals over all batches, with a progress bar in a terminal."""
    iterator, left, steps = iter(batches), 0, 1
    with tqdm(total=size, desc=title, unit=" ostinato", leave=False, disable=None) as bar:
        while left >= 0:
            began = time.perf_counter()
            left, totals = run(iterator, tf.constant(steps), totals)
            numbers = {name: float(value) for name, value in totals.items()}
            if not np.isfinite(numbers["loss"]):
                raise TrainingError(
                    f"{title}, step {numbers['steps']:.0f}: the loss or the gradient is not "
                    "finite; try a lower rate, more warm-up, clipping, or precision float32, and "
                    "look for odd values in the data; the epochs before are kept"
                )
            bar.set_postfix(loss=numbers["loss"] / max(numbers["weight"], 1.0), refresh=False)
            bar.update(int(numbers["examples"]) - bar.n)
            took = time.perf_counter() - began
            if took < PROGRESS_INTERVAL_S / 2:
                steps *= 2
            elif took > PROGRESS_INTERVAL_S:
                steps = max(1, steps // 2)
    if not numbers["weight"]:
        raise TrainingError(f"{title}: no sequence with a weight; the split is empty")
    return numbers


def _reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Make what the model draws (dropout) a function of (seed, epoch), another on each device."""
    strategy = tf.distribute.get_strategy()
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    for index, state in enumerate(states):
        for rank, part in enumerate(strategy.experimental_local_results(state.value)):
            drawn = np.random.SeedSequence((seed, epoch, index, rank)).generate_state(1)[0]
            part.assign([drawn, 0])


def _save(
    folder: Path,
    model: keras.Model,
    minimizer: keras.Optimizer,
    history: list[Record],
    best: list[np.ndarray],
) -> None:
    variables = [*model.weights, *minimizer.variables]
    state = {"history": history, "variables": [[v.path, list(v.shape)] for v in variables]}
    arrays = {f"variable/{i}": v.numpy() for i, v in enumerate(variables)}
    arrays |= {f"best/{i}": value for i, value in enumerate(best)}
    store.write_arrays(folder / "epoch.npz", {"state": np.array(json.dumps(state)), **arrays})


def _resume(
    folder: Path, model: keras.Model, minimizer: keras.Optimizer
) -> tuple[list[Record], list[np.ndarray]]:
    """The records and the best weights so far; brings model and optimizer to where they were."""
    path = folder / "epoch.npz"
    if not path.exists():
        return [], []
    try:
        arrays = store.read_arrays(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path}: unreadable ({error}); delete it to start afresh") from None
    state = json.loads(str(arrays["state"]))
    variables = [*model.weights, *minimizer.variables]
    described = [[v.path, list(v.shape)] for v in variables]
    for there, here in zip_longest(state["variables"], described):
        if there != here:
            raise TrainingError(
                f"{path}: of another model: {there} there, {here} here; delete it to start afresh"
            )
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"variable/{i}"])
    print(f"goes on after epoch {len(state['history'])}, from {path}", flush=True)
    return state["history"], [arrays[f"best/{i}"] for i in range(len(model.weights))]
