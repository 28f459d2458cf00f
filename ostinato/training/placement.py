"""Layers on several devices, and the pipeline of micro-batches that trains them.

Huang et al. 2019, GPipe, arXiv 1811.06965. The devices of a training hold one copy of the model:
each device has the weights and the optimiser's variables of its layers, and computes them forwards
and backwards. A batch is split into micro-batches, whose operations are all in one graph.
TensorFlow runs an operation as soon as its inputs are there, so a device works on one micro-batch
while another device works on the next. The gradients of the micro-batches are summed, and the
weights are updated once, as by the whole batch.
"""

import contextlib
import functools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import keras
import tensorflow as tf

from ostinato.errors import ParamsError, TrainingError
from ostinato.params import near
from ostinato.task import Placement
from ostinato.training.machine import DEVICES, Machine
from ostinato.training.steps import (
    Sums,
    SupervisedStep,
    apply_gradients,
    batch_length,
    gradients_of,
)

__all__ = ["PipelinedStep", "Usage", "assign", "follow_inputs", "log_peaks", "one_copy", "place"]

LOG = logging.getLogger("ostinato")
BATCH_STATISTICS = ("moving_mean", "moving_variance")  # names of batch normalisation's variables


@dataclass(frozen=True)
class Usage:
    """The memory of one device that lasts for the whole training, in bytes.

    Args:
        weights: of the layers on the device.
        optimizer: the optimiser's variables of these weights.
    """

    weights: int
    optimizer: int


def assign(layers: Sequence[str], placement: Placement) -> dict[str, int]:
    """The device of each layer.

    Args:
        layers: names in the order of the model.
        placement: the first pattern that matches a name counts. A layer that no pattern matches is
            on the device of the layer before it; the first layers are on device 0.

    Raises:
        ParamsError: a pattern matches no layer.
    """
    for pattern in placement.layers:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise ParamsError(
                f"placement.layers: no layer matches {pattern!r}; {near(pattern, layers)}"
            )
    found, device = {}, 0
    for name in layers:
        matching = (d for pattern, d in placement.layers.items() if fnmatchcase(name, pattern))
        found[name] = device = next(matching, device)
    return found


def one_copy(machine: Machine) -> Machine:
    """The machine of a runtime for `place`: with one copy of the model, not one on each device.

    Without a GPU, the devices are logical CPU devices. They are made here, unless there are some
    already, or TensorFlow has started; then `place` may find too few.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    configured = tf.config.get_logical_device_configuration(cpu) is not None
    if not configured and not tf.config.list_physical_devices("GPU"):
        parts = [tf.config.LogicalDeviceConfiguration()] * machine.devices
        with contextlib.suppress(RuntimeError):  # TensorFlow has started
            tf.config.set_logical_device_configuration(cpu, parts)
    return replace(machine, devices=1)


def place(model: keras.Model, placement: Placement, devices: int) -> keras.Model:
    """A copy of a functional model with each layer's weights and computation on its device.

    The copy has the names, the initial weights and the outputs of the model, and is saved and
    restored as the model is. A nested model is one layer.

    Args:
        model: built, not trained.
        placement: of its layers.
        devices: number of devices of the training: GPUs, or logical CPU devices without a GPU.

    Raises:
        ParamsError: the model is not functional, a pattern matches no layer, or a layer's device is
            not one of the training.
        TrainingError: TensorFlow has fewer devices, or the training has several copies of the
            model.
    """
    if (copies := tf.distribute.get_strategy().num_replicas_in_sync) > 1:
        raise TrainingError(
            f"placement: found {copies} copies of the model (ranks, or devices with a copy each); "
            "expected one, whose layers are on several devices; delete the run's placement, or "
            "train with one rank"
        )
    if not isinstance(model, keras.Function):
        raise ParamsError(
            f"placement: found the model {type(model).__name__}; expected a functional Keras "
            "model, whose layers are known; delete the run's placement"
        )
    for pattern, device in placement.layers.items():
        if device >= devices:
            raise ParamsError(
                f"placement.layers: {pattern!r} is on device {device}, and this training has the "
                f"devices 0 to {devices - 1}; set {DEVICES} to {device + 1} or more"
            )
    available = _device_names()
    if len(available) < devices:
        raise TrainingError(
            f"{DEVICES}: {devices} requested, {len(available)} available: "
            f"{', '.join(available)}; use a lower number"
        )
    found = assign([layer.name for layer in model.layers], placement)

    def copy(operation: Any) -> Any:
        if not isinstance(operation, keras.layers.Layer):
            return operation  # without weights; runs where its first input is
        name = available[found[operation.name]]
        with tf.device(name):
            layer = operation.__class__.from_config(operation.get_config())
        layer.call = _on_device(layer.call, name)
        return layer

    def build(operation: Any, *args: Any, **kwargs: Any) -> Any:
        with tf.device(available[found.get(operation.name, 0)]):
            return operation(*args, **kwargs)

    placed = keras.models.clone_model(model, clone_function=copy, call_function=build)
    placed.set_weights(model.get_weights())
    for device in sorted(set(found.values())):
        names = ", ".join(name for name in found if found[name] == device)
        LOG.info("device %d (%s): %s", device, available[device].rpartition("/device:")[2], names)
    return placed


def follow_inputs(operation: tf.Operation) -> str:
    """The device of an operation that has none: that of its first input with a device.

    A device function of TensorFlow. Automatic differentiation creates operations without a device.
    Each of them has an input from the forward pass, or the gradient of an output: `place` makes
    both of these stay on the layer's device.
    """
    return operation.device or next((t.device for t in operation.inputs if t.device), "")


class PipelinedStep(SupervisedStep):
    """A step of `SupervisedStep` on a placed model, in micro-batches.

    Losses, metrics and gradients are those of the whole batch within float rounding, with masks,
    weights, penalties and clipping. ``keras.layers.Dropout`` draws for the whole batch once, and
    each micro-batch takes its rows, so dropout is that of the whole batch, too. Other layers that
    draw (recurrent dropout, noise, scheduled sampling) draw for each micro-batch: from the same
    distribution, but other values than for the whole batch.

    Args:
        model: from `place`, or one that contains it.
        placement: how many micro-batches a batch has.
        batch_size: examples in a batch.
        **options: of `SupervisedStep`.

    Raises:
        ParamsError: there are more micro-batches than examples in a batch, or a layer has
            statistics of the batch.
    """

    def __init__(
        self, model: keras.Model, placement: Placement, batch_size: int, **options: Any
    ) -> None:
        self._micro_batches = placement.micro_batches
        if self._micro_batches > batch_size:
            raise ParamsError(
                f"placement.micro_batches: {self._micro_batches} is above fit.batch_size "
                f"{batch_size}; use at most {batch_size}"
            )
        statistics = [v.path for v in model.non_trainable_variables if v.name in BATCH_STATISTICS]
        if self._micro_batches > 1 and statistics:
            raise ParamsError(
                f"placement.micro_batches: {self._micro_batches}, but {statistics[0]} is a "
                "statistic of the batch, which differs between micro-batches; use 1, or a model "
                "without batch normalisation"
            )
        super().__init__(model, **options)
        self._rows = _Rows()
        for part in tf.train.TrackableView(model).descendants():
            if isinstance(part, keras.layers.Dropout):
                part.call = self._rows.of_whole_batch(part.call)
        for device, used in usage(model, self._optimizer).items():
            LOG.info(
                "%s: weights %.2f MB, optimiser %.2f MB",
                *(device, used.weights / 1e6, used.optimizer / 1e6),
            )

    def train(self, batch: Any) -> Sums:
        """One update; see `Step`. ``gradient_norm`` is the norm before clipping."""
        weights = self._model.trainable_weights
        gradients: list[tf.Tensor] = []
        total: Sums = {}
        with tf.compat.v1.device(follow_inputs):
            for part, present in self._rows.split(batch, self._micro_batches):
                with tf.GradientTape() as tape:
                    loss, sums = self._measure(part, training=True)
                weight = sums["loss"][1] * present  # a mean becomes a sum again
                own = gradients_of(tape, loss, self._optimizer, weights)
                # Not a product alone: a gradient that is not finite times 0 is not 0.
                found = [tf.where(present > 0, g * weight, tf.zeros_like(g)) for g in own]
                gradients = _add(gradients, found)
                total = _add_sums(total, sums, present)
            batch_weight = total["loss"][1]
            gradients = [tf.math.divide_no_nan(g, batch_weight) for g in gradients]
            norm = apply_gradients(gradients, self._optimizer, weights, self._clip_norm)
        return {**total, "gradient_norm": norm}

    def test(self, batch: Any) -> Sums:
        """Measure in inference mode; see `Step`."""
        total: Sums = {}
        with tf.compat.v1.device(follow_inputs):
            for part, present in self._rows.split(batch, self._micro_batches):
                _, sums = self._measure(part, training=False)
                total = _add_sums(total, sums, present)
        return total


class _Rows:
    """The rows of a batch that the current micro-batch has, while a step is traced."""

    def __init__(self) -> None:
        self._micro_batches = 1
        self._span: tuple[Any, Any, Any] = (0, 0, 0)  # first row, end, rows of the batch
        self._draws: dict[tuple[int, int], tf.Tensor] = {}
        self._calls: Counter[int] = Counter()

    def split(self, batch: Any, micro_batches: int) -> Iterator[tuple[Any, tf.Tensor]]:
        """The micro-batches of a batch, as equal as possible.

        Yields:
            The micro-batch, and 1. If the batch has fewer examples than micro-batches, some have
            one example and a 0, as some kernels refuse empty batches.
        """
        length = batch_length(batch)
        self._micro_batches, self._draws = micro_batches, {}
        for index in range(micro_batches):
            first = length * index // micro_batches
            last = length * (index + 1) // micro_batches
            end = tf.maximum(last, first + 1)
            self._span, self._calls = (first, end, length), Counter()
            part = batch
            if micro_batches > 1:
                part = tf.nest.map_structure(lambda x, a=first, b=end: x[a:b], batch)
            yield part, tf.cast(last > first, tf.float32)
        self._micro_batches, self._draws = 1, {}

    def of_whole_batch(self, dropout: Callable[..., Any]) -> Callable[..., Any]:
        """The ``call`` of a dropout layer with the draws of the whole batch.

        Dropout of ones gives the factors. A call that has several rows for each example, as frames
        of a clip, takes the rows of its examples.
        """

        @functools.wraps(dropout)
        def call(inputs: Any, training: bool = False) -> Any:
            if not training or self._micro_batches == 1:
                return dropout(inputs, training=training)
            first, end, length = self._span
            key = (id(dropout), self._calls[id(dropout)])
            self._calls[id(dropout)] += 1
            rows = tf.shape(inputs)[0] // (end - first)  # of an example
            if key not in self._draws:
                shape = tf.concat([[length * rows], tf.shape(inputs)[1:]], axis=0)
                self._draws[key] = dropout(tf.ones(shape, inputs.dtype), training=True)
            factors = self._draws[key][first * rows : end * rows]
            return inputs * tf.ensure_shape(factors, inputs.shape)

        return call


def usage(model: keras.Model, optimizer: keras.Optimizer) -> dict[str, Usage]:
    """The memory that lasts, by device: ``CPU:0``, ``GPU:1``."""
    weights, slots = _bytes_by_device(model.variables), _bytes_by_device(optimizer.variables)
    return {
        device: Usage(weights.get(device, 0), slots.get(device, 0))
        for device in sorted({*weights, *slots})
    }


def log_peaks() -> None:
    """Log the most bytes that were in use on each GPU; TensorFlow does not measure a CPU's."""
    for device in tf.config.list_logical_devices("GPU"):
        name = device.name.rpartition("/device:")[2]
        peak = tf.config.experimental.get_memory_info(name)["peak"]
        LOG.info("%s: at most %.2f MB in use", name, peak / 1e6)


def _device_names() -> list[str]:
    """The devices that a training may use, by index."""
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return [device.name for device in tf.config.list_logical_devices(kind)]


def _on_device(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The ``call`` of a layer on a device, forwards and backwards (`follow_inputs`)."""

    @tf.custom_gradient
    def leave(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            with tf.device(name):
                return tf.identity(upstream)

        return tf.identity(x), gradient

    def moved(x: Any, move: Callable[[Any], Any]) -> Any:
        if not tf.is_tensor(x):
            return x
        y = move(x) if x.dtype.is_floating else tf.identity(x)
        if (mask := getattr(x, "_keras_mask", None)) is not None:
            y._keras_mask = mask
        return y

    @functools.wraps(call)
    def on_device(*args: Any, **kwargs: Any) -> Any:
        with tf.device(name):
            enter = functools.partial(moved, move=tf.identity)
            args, kwargs = tf.nest.map_structure(enter, (args, kwargs))
            outputs = call(*args, **kwargs)
            return tf.nest.map_structure(functools.partial(moved, move=leave), outputs)

    return on_device


def _add(totals: list[tf.Tensor], values: list[tf.Tensor]) -> list[tf.Tensor]:
    return [a + b for a, b in zip(totals, values, strict=True)] if totals else values


def _add_sums(total: Sums, sums: Sums, factor: tf.Tensor) -> Sums:
    scaled = {name: (value * factor, weight * factor) for name, (value, weight) in sums.items()}
    if not total:
        return scaled
    return {
        name: (total[name][0] + value, total[name][1] + weight)
        for name, (value, weight) in scaled.items()
    }


def _bytes_by_device(variables: Sequence[keras.Variable]) -> Mapping[str, int]:
    total: dict[str, int] = defaultdict(int)
    for variable in variables:
        value = variable.value
        total[value.device.rpartition("/device:")[2]] += (
            value.shape.num_elements() * value.dtype.size
        )
    return total
