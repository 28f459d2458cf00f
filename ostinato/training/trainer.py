"""One training loop for every step: epochs, schedule, best epoch, checkpoints, progress, records.

The loop replaces ``keras.Model.fit`` for four reasons. It computes the same step on any number of
devices and ranks. Losses and metrics are exact means over the split, whatever its batches are. All
randomness is a function of (seed, epoch), so a training that was killed resumes with the same
weights, bit for bit. And one graph call runs many steps, which is faster for small models.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from ostinato.errors import ParamsError, TrainingError
from ostinato.params import near
from ostinato.progress import Bar
from ostinato.task import Part, Record, TrainingContext
from ostinato.training import checkpoints, losses, ranks, runtime, schedules
from ostinato.training.placement import PipelinedStep, log_peaks
from ostinato.training.schedules import Schedule
from ostinato.training.steps import Step, Sums, SupervisedStep, batch_length
from ostinato.units import BatchSize, Epochs, Fraction, LearningRate, NonNegative, Patience

__all__ = ["Data", "Record", "best_epoch", "fit", "train"]

LOG = logging.getLogger("ostinato")
PROGRESS_INTERVAL_S = 0.2  # the longest time between two updates of the progress bar

State = dict[str, tf.Tensor]
"""Of an epoch, as float64: ``sums`` (2 * metric,), ``examples`` and ``steps`` so far, and
``progress``, the finished share of the whole training."""

Run = Callable[[Any, tf.Tensor, State], tuple[tf.Tensor, State]]


class Data(Protocol):
    """What `train` needs of a data set."""

    def size(self, split: str) -> int:
        """The number of examples of a split; where data are generated without end, of an epoch."""

    def batches(
        self, split: str, *, batch_size: int, seed: int | None, epoch: int, part: Part = Part()
    ) -> tf.data.Dataset:
        """A rank's part of the batches of a split, a pure function of the arguments.

        A batch is a nest of tensors whose first axis is the batch. `SupervisedStep` takes (x, y) or
        (x, y, weight): x and y may be nested, the weights have the shape of the loss' values or
        leave out trailing axes. Where several ranks share a training, it is (batch, total): the
        examples of ``part`` alone, and the number of examples of all ranks.
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
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train ``model`` by supervised learning; at the end it has the weights of its best epoch.

    See `SupervisedStep` for the loss, `PipelinedStep` for layers on several devices, and `train`
    for the loop.

    Args:
        model: maps x to the predictions that the loss expects.
        data: has the splits ``train`` and ``validation``.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: examples in a step, over all devices.
        loss: function that maps (y, prediction) to values of shape (batch, ...), or the name of one
            in keras.losses or ostinato.training.losses, or of one that is registered with Keras.
        metrics: functions of keras.metrics, likewise, and ``accuracy``: the accuracy that belongs
            to a crossentropy loss.
        optimizer: a class of keras.optimizers in lower case, with Keras' default settings.
        learning_rate: highest learning rate.
        schedule: of the learning rate after the warm-up; see `ostinato.training.schedules`.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch.

    Raises:
        ParamsError: an unknown name, with near misses.
        TrainingError: the loss or the gradient is not finite, the checkpoint belongs to another
            model, a split is empty, or the loss does not depend on a weight.
    """
    options: dict[str, Any] = {
        "loss": loss,
        "metrics": metrics,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "clip_norm": clip_norm,
    }
    step = (
        SupervisedStep(model, **options)
        if context.placement is None
        else PipelinedStep(model, context.placement, batch_size, **options)
    )
    history = train(
        step,
        data,
        context,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        monitor=monitor,
        patience=patience,
    )
    if context.placement is not None:
        log_peaks()
    return history


def train(
    step: Step,
    data: Data,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    schedule: Schedule,
    warmup_fraction: Fraction,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Repeat ``step``; at the end its models have the weights of their best epoch.

    Every finished epoch is saved to ``context.checkpoints``. If there is a checkpoint, training
    resumes from it and gives the result of an uninterrupted training, as long as the layers draw
    random numbers from a ``keras.random.SeedGenerator`` of their own, as Keras' layers do.

    With several ranks, all take the same steps and have the same weights. Rank 0 reads and writes
    the checkpoint, shows the progress and calls ``context.on_epoch``.

    Args:
        step: what is repeated.
        data: has the splits ``train`` and ``validation``.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: examples in a step, over all devices.
        schedule: of the learning rate after the warm-up; see `ostinato.training.schedules`.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch: ``epoch`` (from 1), the step's metrics, ``validation_`` of each,
        ``learning_rate`` (of the first optimiser in the last step), the step's diagnostics,
        ``seconds``, and ``sequences_per_second`` (examples per second of its training part).

    Raises:
        ParamsError: ``monitor`` is unknown, the schedule needs a warm-up, or the step cannot train
            layers on several devices.
        TrainingError: a sum is not finite, the checkpoint belongs to another model, or a split is
            empty.
    """
    if context.placement is not None and not isinstance(step, PipelinedStep):
        raise ParamsError(
            f"placement: {type(step).__name__} trains this model, on one device; delete the run's "
            "placement"
        )
    names, rank = tuple(step.metrics), ranks.part().rank
    monitors = [prefix + name for prefix in ("", "validation_") for name in names]
    if monitor not in monitors:
        raise ParamsError(f"fit.monitor: unknown {monitor!r}; {near(monitor, monitors)}")
    schedules.check(schedule, warmup_fraction)
    sizes = {split: data.size(split) for split in ("train", "validation")}
    if empty := [split for split, size in sizes.items() if not size]:
        raise TrainingError(f"no examples in the split {' and '.join(empty)}; prepare more data")
    validation = _batches(data, "validation", batch_size, seed=None, epoch=0)
    peaks = [float(optimizer.learning_rate.numpy()) for optimizer in step.optimizers]
    share = 1.0 / (sizes["train"] * epochs)  # of an example in the whole training
    own_weights = [weight for model in step.models for weight in model.weights]

    def compile_steps(step: Step, peaks: Sequence[Any], share: Any) -> tuple[Run, Run]:
        def train_step(state: State, batch: Any) -> State:
            part = tf.cast(batch_length(batch), tf.float64) * share
            middle = tf.cast(tf.minimum(state["progress"] + part / 2, 1.0), tf.float32)
            factor = schedules.factor(schedule, warmup_fraction, middle)
            for optimizer, peak in zip(step.optimizers, peaks, strict=True):
                optimizer.learning_rate.assign(peak * factor)
            state = _add(state, batch, step.train, [*names, *step.diagnostics])
            return {**state, "progress": state["progress"] + part}

        def test_step(state: State, batch: Any) -> State:
            return _add(state, batch, step.test, names)

        return _compile(train_step), _compile(test_step)

    if context.graphs:
        step, (run_training, run_test) = context.graphs.compiled(step, peaks, share, compile_steps)
    else:
        run_training, run_test = compile_steps(step, peaks, share)
    weights = [weight for model in step.models for weight in model.weights]
    variables = [*weights, *(v for optimizer in step.optimizers for v in optimizer.variables)]
    history, best = checkpoints.resume(context.checkpoints, variables)
    best_so_far = best_epoch(history, monitor, step.metrics)
    on_epoch = context.on_epoch if rank == 0 else lambda record: None
    for record in history:
        on_epoch(record)
    while (
        len(history) < epochs
        and len(history) - best_epoch(history, monitor, step.metrics) < patience
    ):
        epoch, start = len(history) + 1, time.perf_counter()
        runtime.reseed(step.models, context.seed, epoch)
        training = _run(
            run_training,
            _batches(data, "train", batch_size, seed=context.seed, epoch=epoch),
            [*names, *step.diagnostics],
            progress=(epoch - 1) / epochs,
            bar=Bar(
                f"epoch {epoch}/{epochs}",
                sizes["train"] * epochs,
                unit="examples",
                start=sizes["train"] * (epoch - 1),
            ),
            title=f"epoch {epoch}",
            best=f", {monitor} {history[best_so_far - 1][monitor]:.4f}" if history else "",
        )
        training_seconds = time.perf_counter() - start
        tested = _run(
            run_test,
            validation,
            names,
            progress=0.0,
            bar=Bar(f"validation {epoch}/{epochs}", sizes["validation"], unit="examples"),
            title=f"validation of epoch {epoch}",
        )
        record = {
            "epoch": epoch,
            **{name: training[name] for name in names},
            **{f"validation_{name}": tested[name] for name in names},
            "learning_rate": float(step.optimizers[0].learning_rate.numpy()),
            **{name: training[name] for name in step.diagnostics},
            "seconds": time.perf_counter() - start,
            "sequences_per_second": training["examples"] / training_seconds,
        }
        history.append(record)
        best_so_far = best_epoch(history, monitor, step.metrics)
        if best_so_far == epoch:
            best = [weight.numpy() for weight in weights]
        checkpoints.save(context.checkpoints, variables, history, best)
        LOG.log(
            logging.DEBUG if rank else logging.INFO,
            "epoch %d/%d  %s %.4f  %s %.4f (best in epoch %d)  learning rate %.2g  "
            "%s examples/s  %s left",
            *(epoch, epochs, names[0], record[names[0]], monitor, record[monitor], best_so_far),
            *(record["learning_rate"], f"{record['sequences_per_second']:,.0f}"),
            timedelta(seconds=round(record["seconds"] * (epochs - epoch))),
        )
        on_epoch(record)
    for weight, value in zip(own_weights, best, strict=True):
        weight.assign(value)
    return history


def best_epoch(
    history: Sequence[Mapping[Any, float]],
    monitor: str,
    metrics: Mapping[str, bool] = losses.HIGHER_IS_BETTER,
) -> int:
    """The number of the best epoch by ``monitor``, the first of equals; 0 without epochs.

    Args:
        history: the records in order.
        monitor: a name in the records, with or without ``validation_``.
        metrics: the direction of each metric, true where higher is better.

    Raises:
        ParamsError: the direction of the metric is unknown.
    """
    name = monitor.removeprefix("validation_")
    higher = metrics[name] if name in metrics else losses.higher_is_better(monitor)
    sign = 1 if higher else -1
    return 1 + int(np.argmax([sign * r[monitor] for r in history])) if history else 0


def _batches(
    data: Data, split: str, batch_size: int, *, seed: int | None, epoch: int
) -> tf.data.Dataset:
    """This rank's part of the data's batches, without tf.data's autotuning and optimisations.

    With autotuning, the end of an iterator waits for a thread that sleeps up to 60 s. The
    optimisations take 5 ms of each iterator, and improve none of the project's data sets.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    batches = data.batches(split, batch_size=batch_size, seed=seed, epoch=epoch, part=ranks.part())
    return batches.with_options(options)


def _compile(step: Callable[[State, Any], State]) -> Run:
    """``run(iterator, steps, state)``: up to ``steps`` steps in one graph call.

    It returns the number of steps left, or -1 at the end of the data, and the state. It stops after
    a step whose sums are not finite.
    """

    def more(left: tf.Tensor, state: State) -> Any:
        return (left > 0) & tf.reduce_all(tf.math.is_finite(state["sums"]))

    @tf.autograph.experimental.do_not_convert
    def run(iterator: Any, steps: tf.Tensor, state: State) -> Any:
        def body(left: tf.Tensor, state: State) -> Any:
            batch = iterator.get_next_as_optional()
            return tf.cond(
                batch.has_value(),
                lambda: (left - 1, step(state, batch.get_value())),
                lambda: (tf.constant(-1), state),
            )

        return tf.while_loop(more, body, (steps, state))

    return cast(Run, tf.function(run))


def _add(state: State, batch: Any, method: Callable[[Any], Sums], names: Sequence[str]) -> State:
    """The state after one more batch: the sums of all devices are added."""

    def replica(batch: Any) -> tf.Tensor:
        sums = method(batch)
        return tf.stack([tf.cast(value, tf.float32) for name in names for value in sums[name]])

    strategy = tf.distribute.get_strategy()
    sums = strategy.reduce("SUM", strategy.run(replica, args=(batch,)), axis=None)
    return {
        **state,
        "sums": state["sums"] + tf.cast(sums, tf.float64),
        "examples": state["examples"] + tf.cast(batch_length(batch), tf.float64),
        "steps": state["steps"] + 1,
    }


def _run(
    run: Run,
    batches: tf.data.Dataset,
    names: Sequence[str],
    *,
    progress: float,
    bar: Bar,
    title: str,
    best: str = "",
) -> dict[str, float]:
    """Means by name and the number of ``examples`` of all batches; their progress in ``bar``.

    The number of steps in a graph call follows the clock of rank 0, so that the progress bar moves
    and an interrupt is noticed in time. It has no influence on the result.
    """
    iterator, left, steps = iter(batches), 0, 1
    values = {"sums": [0.0] * (2 * len(names)), "examples": 0.0, "steps": 0.0, "progress": progress}
    state = {name: tf.constant(value, tf.float64) for name, value in values.items()}
    counted, shown = 0, ranks.part().rank == 0
    with bar:
        while left >= 0:
            start = time.perf_counter()
            left, state = run(iterator, tf.constant(steps), state)
            sums = state["sums"].numpy()
            if not np.isfinite(sums).all():
                wrong = [
                    n for i, n in enumerate(names) if not np.isfinite(sums[2 * i : 2 * i + 2]).all()
                ]
                raise TrainingError(
                    f"{title}, step {state['steps']:.0f}: {' and '.join(wrong)} not finite; lower "
                    "learning_rate, raise warmup_fraction, set clip_norm, use the precision "
                    "float32, or look for extreme values in the data; the checkpoint keeps the "
                    "epochs before"
                )
            totals, weights = sums[0::2], sums[1::2]
            examples = int(state["examples"])
            if shown:
                bar.advance(
                    examples - counted, f"{names[0]} {totals[0] / max(weights[0], 1.0):.4f}{best}"
                )
            counted = examples
            seconds = ranks.of_rank_0(time.perf_counter() - start)
            if seconds < PROGRESS_INTERVAL_S / 2:
                steps *= 2
            elif seconds > PROGRESS_INTERVAL_S:
                steps = max(1, steps // 2)
    if not weights[0]:
        raise TrainingError(
            f"{title}: no example with a weight above 0; check the split and the weights"
        )
    with np.errstate(invalid="ignore"):
        means = totals / weights  # NaN for a diagnostic without a value
    return {**dict(zip(names, means.tolist(), strict=True)), "examples": float(state["examples"])}
