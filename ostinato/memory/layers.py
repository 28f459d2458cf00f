"""What the models of memory tasks share: inputs, answers, training, and saving.

Input: ``sequence`` (batch, step, feature). Output: probabilities of classes (batch, class), numbers
(batch, output), or, where there is an answer at each step, (batch, step, output).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float, Float32
from keras import ops

from ostinato import store
from ostinato.errors import ParamsError
from ostinato.memory.dataset.loader import Dataset, ModelData
from ostinato.task import Record, TrainingContext
from ostinato.training import keras_model, trainer
from ostinato.training.schedules import Schedule
from ostinato.training.steps import Mean, Step, Sums, SupervisedStep, minimise, part_of_batch
from ostinato.units import BatchSize, Epochs, Fraction, LearningRate, NonNegative, Patience, Steps

LOSSES = {
    "class": "sparse_categorical_crossentropy",
    "bits": "binary_crossentropy",
    "number": "mean_squared_error",
}
ACTIVATIONS = {"class": "softmax", "bits": "sigmoid", "number": None}
NORMS = "gradient_norms.npz"
MEASURED = 16  # examples, of which the norms of gradients are means


def sequence_input(data: ModelData, *, fixed: bool = False) -> Any:
    """The input of a model.

    Args:
        data: gives the features.
        fixed: whether the model reads only sequences of the data set's number of steps.

    Raises:
        ParamsError: a fixed number of steps, where that of the training varies.
    """
    if fixed and not data.fixed:
        raise ParamsError(
            "this model reads sequences of one number of steps, but the data's varies; set "
            "min_length of the source to its length, or choose another model (or `unroll: false`)"
        )
    return keras.Input((data.steps if fixed else None, data.features), name="sequence")


def answer(data: ModelData, states: Any) -> Any:
    """The answers from states (batch, step, unit): at each step, or from the last state."""
    return dense_answer(data)(states if data.per_step else states[:, -1])


def dense_answer(data: ModelData) -> keras.layers.Layer:
    """The last layer of a model, with the activation of the task's target."""
    return keras.layers.Dense(
        data.outputs, activation=ACTIVATIONS[data.target], dtype="float32", name="answer"
    )


def supervised(
    model: keras.Model,
    data: ModelData,
    optimizer: str,
    learning_rate: float,
    clip_norm: float,
    clip_value: float,
) -> SupervisedStep:
    """The usual training step, with the loss of the task's target."""
    step = SupervisedStep(
        model,
        loss=LOSSES[data.target],
        metrics=["accuracy"] if data.target == "class" else [],
        optimizer=optimizer,
        learning_rate=learning_rate,
        clip_norm=clip_norm,
    )
    set_clip_value(step.optimizers[0], clip_value)
    return step


def set_clip_value(optimizer: keras.Optimizer, clip_value: float) -> None:
    """Let an optimiser clip each value of a gradient, after clipping by norm; 0: no clipping."""
    optimizer.clipvalue = clip_value or None


def fit(
    model: keras.Model,
    data: Dataset,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    clip_value: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train a model by supervised learning; at the end it has the weights of its best epoch.

    Args:
        model: of ``build``.
        data: the data set.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: examples in a step.
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: highest learning rate.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.
        clip_value: largest absolute value of a gradient, after ``clip_norm``; 0 turns it off.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.
    """
    step = supervised(model, data, optimizer, learning_rate, clip_norm, clip_value)
    return train(
        model,
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


def train(
    model: keras.Model, step: Step, data: Dataset, context: TrainingContext, **arguments: Any
) -> list[Record]:
    """Train, and measure the norms of gradients before, in the middle and at the end.

    They are kept beside the checkpoints, so a resumed training has them all, and with the model:
    `gradient_norms` has their names and shapes.
    """
    gradient = compiled_norms(model, data)
    moments = {0: "before", max(1, arguments["epochs"] // 2): "during"}
    norms: dict[str, Float32[np.ndarray, " step"]] = {}

    def measure(epoch: int) -> None:
        name = moments.get(epoch)
        if name is None:
            return
        file = context.checkpoints / f"{name}.npz"
        if not file.exists():
            store.write_arrays(file, {"norms": gradient()})
        norms[name] = store.read_arrays(file)["norms"]

    def on_epoch(record: Record) -> None:
        measure(int(record["epoch"]))
        context.on_epoch(record)

    measure(0)
    own = TrainingContext(context.checkpoints, context.seed, on_epoch)
    history = trainer.train(step, data, own, **arguments)
    norms["after"] = gradient()
    model.gradient_norms = {
        name: norms[name] for name in ("before", "during", "after") if name in norms
    }
    return history


def compiled_norms(model: keras.Model, data: Dataset) -> Any:
    """A function that returns the norms of the gradient of the last loss, by step.

    The gradient is that of an example's last loss with respect to its input at each step. The norm
    is over the features, its mean over some validation examples: (step,), the last step last.
    """
    some = data.examples("validation")[:MEASURED]
    loss = getattr(keras.losses, LOSSES[data.target])

    @tf.function
    def norms() -> Any:
        x = tf.constant(some.x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            prediction = tf.cast(model(x, training=False), tf.float32)
            values = loss(some.y, prediction)
            total = tf.reduce_sum(values[:, -1] if data.per_step else values)
        return tf.reduce_mean(tf.norm(tape.gradient(total, x), axis=-1), axis=0)

    return lambda: norms().numpy()


def save(model: keras.Model, folder: Path) -> None:
    """Write a model, and the norms of its gradients if it was trained."""
    keras_model.save(model, folder)
    store.write_arrays(folder / NORMS, dict(getattr(model, "gradient_norms", {})))


def restore(folder: Path) -> "MemoryModel":
    """Read a model that `save` wrote; import the model's module before."""
    return MemoryModel(
        store.read_model(folder / keras_model.FILE), store.read_arrays(folder / NORMS)
    )


class MemoryModel(keras_model.KerasModel):
    """A model as a function of NumPy arrays, with what the evaluation shows of it.

    Args:
        model: maps sequences to answers.
        gradient_norms: of the last loss by step (step,), before, during and after training.
    """

    def __init__(
        self, model: keras.Model, gradient_norms: Mapping[str, Float32[np.ndarray, " step"]]
    ) -> None:
        super().__init__(model)
        self.gradient_norms = dict(gradient_norms)

    @property
    def steps(self) -> int | None:
        """The number of steps that the model reads; None: any."""
        found: int | None = self.model.inputs[0].shape[1]
        return found

    def traces(
        self, x: Float[np.ndarray, "step feature"]
    ) -> Mapping[str, Float[np.ndarray, "step row"]]:
        """What happens in the model while it reads a sequence, such as the values of gates."""
        return {}


# Recurrent models


@dataclass(frozen=True)
class Recurrence:
    """Recurrent layers one after another, and the answer.

    Args:
        layers: of which the last returns its sequence if there is an answer at each step.
        starts: of each layer, its learned initial states; empty for zeros.
        answer: the last layer.
        per_step: whether there is an answer at each step.
        residual: whether each layer is added to its input, where they have the same width.
    """

    layers: Sequence[keras.layers.Layer]
    starts: Sequence[Sequence["LearnedState"]]
    answer: keras.layers.Layer
    per_step: bool
    residual: bool = False

    def __call__(self, inputs: Any, call: Callable[[int, Any, Any], Any]) -> Any:
        """The answers for sequences (batch, step, feature).

        Args:
            inputs: the sequences.
            call: from the number of a layer, its inputs and its initial states (None for zeros) to
                its outputs.
        """
        x = inputs
        for number, start in enumerate(self.starts):
            before, x = x, call(number, x, [state(x) for state in start] or None)
            if self.residual and before.shape[-1] == x.shape[-1]:
                is_last = number == len(self.layers) - 1
                x = x + (before[:, -1] if is_last and not self.per_step else before)
        return self.answer(x)


def recurrent_model(
    data: ModelData,
    inputs: Any,
    layers: Sequence[keras.layers.Layer],
    starts: Sequence[Sequence["LearnedState"]],
    *,
    residual: bool = False,
) -> keras.Model:
    """A model of recurrent layers; ``recurrence`` is its `Recurrence`."""
    found = Recurrence(layers, starts, dense_answer(data), data.per_step, residual)

    def call(number: int, x: Any, state: Any) -> Any:
        return layers[number](x) if state is None else layers[number](x, initial_state=state)

    model = keras.Model(inputs, found(inputs, call))
    model.recurrence = found
    return model


def cell_model(data: ModelData, cells: Sequence[keras.layers.Layer]) -> keras.Model:
    """A model of recurrent layers with these cells; it reads sequences of any number of steps."""
    layers = [
        keras.layers.RNN(cell, return_sequences=data.per_step or number < len(cells) - 1)
        for number, cell in enumerate(cells)
    ]
    return recurrent_model(data, sequence_input(data), layers, [()] * len(layers))


def state_sizes(layer: keras.layers.RNN) -> list[int]:
    """The widths of a recurrent layer's states."""
    sizes = layer.cell.state_size
    return [sizes] if isinstance(sizes, int) else list(sizes)


def fit_recurrent(
    model: keras.Model,
    data: Dataset,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    truncation: Steps,
    information_flow: NonNegative,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    clip_value: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train a model of recurrent layers; at the end it has the weights of its best epoch.

    Args:
        model: of ``build``.
        data: the data set.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: examples in a step.
        truncation: steps after which the gradient is cut and the weights are updated, while the
            states are carried on (truncated backpropagation through time); 0 for the whole
            sequence. Memory then does not grow with the length of the sequences.
        information_flow: weight of the regulariser of Pascanu et al. 2013, arXiv 1211.5063; 0 turns
            it off.
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: highest learning rate.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient over all weights; 0 turns clipping off.
        clip_value: largest absolute value of a gradient, after ``clip_norm``; 0 turns it off.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.

    Raises:
        ParamsError: truncation or information_flow do not fit the model or each other.
    """
    usual = supervised(model, data, optimizer, learning_rate, clip_norm, clip_value)
    step: Step = usual
    if truncation and information_flow:
        raise ParamsError("fit.truncation: has no information_flow; set one of the two to 0")
    if truncation:
        step = TruncatedStep(usual, model, data, clip_norm, truncation)
    elif information_flow:
        step = InformationFlowStep(usual, model, data, clip_norm, information_flow)
    return train(
        model,
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


class _RecurrentStep:
    """A step that measures as a `SupervisedStep` does, and trains in its own way."""

    def __init__(
        self, step: SupervisedStep, model: keras.Model, data: ModelData, clip_norm: float
    ) -> None:
        self.step, self.model, self.data, self.clip_norm = step, model, data, clip_norm
        self.models, self.optimizers = step.models, step.optimizers
        self.metrics, self.diagnostics = step.metrics, step.diagnostics
        self.loss = getattr(keras.losses, LOSSES[data.target])
        layers = model.recurrence.layers
        if any(not isinstance(layer, keras.layers.RNN) or layer.unroll for layer in layers):
            raise ParamsError(
                "fit.truncation and fit.information_flow: need recurrent layers that read in one "
                "direction; set both to 0, or set bidirectional and unroll to false"
            )

    def test(self, batch: Any) -> Sums:
        """Measure in inference mode."""
        return self.step.test(batch)

    def total_loss(self, batch: Any, prediction: Any, share: Any) -> tuple[Any, Any]:
        """The sum of the losses of this device's part of a batch, and of their weights."""
        _, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        values = tf.cast(self.loss(y, tf.cast(prediction, tf.float32)), tf.float32)
        weights = tf.ones_like(values) if weight is None else tf.cast(weight, tf.float32)
        weights *= tf.cast(share > 0, tf.float32)
        return tf.reduce_sum(values * weights), tf.reduce_sum(weights)

    def update(self, tape: Any, loss: Any, batch: Any, prediction: Any, sums: Mean) -> Sums:
        """Update the weights; return the sums of the metrics and diagnostics."""
        weights = self.model.trainable_weights
        norm = minimise(tape, loss, self.optimizers[0], weights, self.clip_norm)
        found = {"loss": sums, "gradient_norm": norm}
        if "accuracy" in self.metrics:
            values = keras.metrics.sparse_categorical_accuracy(batch[1], prediction)
            weight = batch[2] if len(batch) > 2 else tf.ones_like(values)
            found["accuracy"] = (tf.reduce_sum(values * weight), tf.reduce_sum(weight))
        return found


class TruncatedStep(_RecurrentStep):
    """Truncated backpropagation through time, with the states carried on (Williams and Peng 1990).

    Each part of a sequence is a step of the optimiser. Where there is one answer, at the end, only
    the last part has a loss. With at least as many steps as the sequences have, this is ordinary
    backpropagation.
    """

    def __init__(
        self,
        step: SupervisedStep,
        model: keras.Model,
        data: ModelData,
        clip_norm: float,
        truncation: int,
    ) -> None:
        super().__init__(step, model, data, clip_norm)
        self.truncation = truncation
        self.carry = carried(model)

    def start(self, x: Any) -> list[Any]:
        """The states before the first step of sequences (batch, step, feature)."""
        recurrence, batch = self.model.recurrence, tf.shape(x)[0]
        return [
            state
            for layer, start in zip(recurrence.layers, recurrence.starts, strict=True)
            for state in [each(x) for each in start] or layer.get_initial_state(batch_size=batch)
        ]

    def train(self, batch: Any) -> Sums:
        """Update the weights after each part of the sequences."""
        part, share = part_of_batch(batch)
        length = tf.shape(part[0])[1]
        states = self.start(part[0])
        zero = tf.zeros(())
        names = (*self.metrics, *self.diagnostics)
        sums = [zero] * (2 * len(names))
        first: Any = 0
        if not self.data.per_step:  # reads all but the last part without a gradient
            first = (length - 1) // self.truncation * self.truncation
            states = tf.cond(
                first > 0,
                lambda: self.carry([part[0][:, :first], *states], training=False)[1:],
                lambda: states,
            )

        def body(t: Any, sums: Any, states: Any) -> Any:
            found, states = self._update(part, share, t, states)
            values = [value for name in names for value in found[name]]
            return t + self.truncation, [a + b for a, b in zip(sums, values, strict=True)], states

        shapes = [tf.TensorShape([None, *state.shape[1:]]) for state in states]
        _, sums, _ = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (tf.convert_to_tensor(first), sums, states),
            shape_invariants=(tf.TensorShape([]), [tf.TensorShape([])] * len(sums), shapes),
            parallel_iterations=1,
        )
        return {name: (sums[2 * n], sums[2 * n + 1]) for n, name in enumerate(names)}

    def _update(self, batch: Any, share: Any, t: Any, states: Any) -> tuple[Sums, list[Any]]:
        along = (True, self.data.per_step, True)
        chunk = tuple(
            column[:, t : t + self.truncation] if steps else column
            for column, steps in zip(batch, along, strict=False)
        )
        with tf.GradientTape() as tape:
            # The first states may be learned: they are computed where the gradient is recorded.
            pairs = zip(self.start(batch[0]), states, strict=True)
            states = [tf.where(t == 0, first, state) for first, state in pairs]
            prediction, *after = self.carry([chunk[0], *states], training=True)
            total, weight = self.total_loss(chunk, prediction, share)
            of_batch = tf.distribute.get_replica_context().all_reduce("SUM", weight)
            loss = tf.math.divide_no_nan(total, of_batch)
        sums = self.update(tape, loss, chunk, prediction, (total, weight))
        return sums, [tf.stop_gradient(state) for state in after]


class InformationFlowStep(_RecurrentStep):
    """Add the regulariser that keeps the norm of the gradient alike from step to step.

    Pascanu et al. 2013, arXiv 1211.5063: the mean over steps and examples of
    (|dE/dh(t+1) dh(t+1)/dh(t)| / |dE/dh(t+1)| - 1)^2, in which dE/dh(t+1) and h(t) are constants,
    so that its gradient reaches the weights in one step. Cells need one state.
    """

    def __init__(
        self,
        step: SupervisedStep,
        model: keras.Model,
        data: ModelData,
        clip_norm: float,
        strength: float,
    ) -> None:
        super().__init__(step, model, data, clip_norm)
        self.strength = strength
        self.layers, self.tapped = tapped(model)

    def train(self, batch: Any) -> Sums:
        """Update the weights once by the gradient of the loss and the regulariser."""
        part, share = part_of_batch(batch)
        shape = tf.shape(part[0])
        taps = [
            tf.zeros((shape[0], shape[1], layer.cell.units), part[0].dtype) for layer in self.layers
        ]
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(taps)
                prediction, *inside = self.tapped([part[0], *taps], training=True)
                total, weight = self.total_loss(part, prediction, share)
                of_batch = tf.distribute.get_replica_context().all_reduce("SUM", weight)
                loss = tf.math.divide_no_nan(total, of_batch)
            flows = inner.gradient(loss, taps)
            count = len(self.layers)
            penalty = sum(
                self.penalty(layer, x, states, tf.stop_gradient(flow))
                for layer, x, states, flow in zip(
                    self.layers, inside[:count], inside[count:], flows, strict=True
                )
            )
            loss += self.strength * tf.cast(share, tf.float32) * penalty
        return self.update(tape, loss, part, prediction, (total, weight))

    @staticmethod
    def penalty(layer: Any, x: Any, states: Any, flow: Any) -> Any:
        """The regulariser of a layer.

        Args:
            layer: with one state.
            x: its inputs (batch, step, feature).
            states: (batch, step, unit).
            flow: the gradient of the loss with respect to the states.
        """
        units = states.shape[-1]
        before = tf.stop_gradient(tf.reshape(states[:, :-1], (-1, units)))
        now = tf.stop_gradient(tf.reshape(x[:, 1:], (-1, x.shape[-1])))
        flow = tf.reshape(flow[:, 1:], (-1, units))
        with tf.GradientTape() as tape:
            tape.watch(before)
            after, _ = layer.cell(now, [before])
        passed = tape.gradient(after, before, output_gradients=flow)
        size = tf.reduce_sum(flow**2, axis=1)
        known = size > 1e-30  # the gradient has vanished: its direction is noise
        ratio = tf.sqrt(tf.reduce_sum(passed**2, axis=1) / tf.where(known, size, 1.0) + 1e-12)
        values = tf.where(known, (ratio - 1) ** 2, 0.0)
        return tf.math.divide_no_nan(
            tf.reduce_sum(values), tf.reduce_sum(tf.cast(known, tf.float32))
        )


def carried(model: keras.Model) -> keras.Model:
    """A model with the weights of ``model``, through which states pass.

    Returns:
        From sequences and the states before their first step to the answers and the states after
        the last step.
    """
    given: list[Any] = []
    after: list[Any] = []

    def call(number: int, x: Any, _: Any) -> Any:
        layer: Any = model.recurrence.layers[number]
        states = [keras.Input((size,)) for size in state_sizes(layer)]
        # A layer of its own, as those of subclasses do not return all states.
        own = keras.layers.RNN(
            layer.cell, return_sequences=layer.return_sequences, return_state=True
        )
        outputs, *new = own(x, initial_state=states)
        given.extend(states)
        after.extend(new)
        return outputs

    inputs = sequence_like(model)
    answers = model.recurrence(inputs, call)
    return keras.Model([inputs, *given], [answers, *after])


def tapped(model: keras.Model) -> tuple[list[Any], keras.Model]:
    """The recurrent layers of a model, and a model that adds a value to each of their states.

    Returns:
        The layers; and a model from sequences and the added values of each layer (batch, step,
        unit) to the answers, the inputs of each layer, and the states of each layer.

    Raises:
        ParamsError: a cell has several states.
    """
    layers: list[Any] = list(model.recurrence.layers)
    taps: list[Any] = []
    inside: list[Any] = []
    states: list[Any] = []

    def call(number: int, x: Any, start: Any) -> Any:
        layer = layers[number]
        if len(state_sizes(layer)) != 1:
            raise ParamsError(
                f"fit.information_flow: {type(layer.cell).__name__} has several states; set it to "
                "0, or choose the cell simple or gru, or the model leaky"
            )
        taps.append(keras.Input((None, layer.cell.units)))
        inside.append(x)
        own = keras.layers.RNN(TappedCell(layer.cell), return_sequences=True)
        states.append(own(keras.layers.Concatenate()([x, taps[-1]]), initial_state=start))
        return states[-1] if layer.return_sequences else states[-1][:, -1]

    inputs = sequence_like(model)
    answers = model.recurrence(inputs, call)
    return layers, keras.Model([inputs, *taps], [answers, *inside, *states])


def sequence_like(model: keras.Model) -> Any:
    """An input as that of the model, of any number of steps."""
    return keras.Input((None, model.inputs[0].shape[-1]))


class TappedCell(keras.layers.Layer):
    """A cell that adds a part of its input to its state: both have the same gradient."""

    def __init__(self, cell: keras.layers.Layer) -> None:
        super().__init__()
        self.cell, self.units = cell, cell.units
        self.state_size, self.output_size = cell.state_size, cell.output_size
        self.built = True

    def get_initial_state(self, batch_size: Any = None) -> Any:
        """That of the cell."""
        return self.cell.get_initial_state(batch_size=batch_size)

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        """One step."""
        x, tap = inputs[:, : -self.units], inputs[:, -self.units :]
        output, _ = self.cell(x, states, training=training)
        return output + tap, [output + tap]


@keras.saving.register_keras_serializable(package="ostinato")
class LearnedState(keras.layers.Layer):
    """A learned initial state (unit,), for each sequence of a batch."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        """Create the state, zeros at first."""
        self.state = self.add_weight(shape=(self.units,), initializer="zeros", name="state")

    def call(self, x: Any) -> Any:
        """(batch, step, feature) to (batch, unit)."""
        return ops.broadcast_to(self.state, (ops.shape(x)[0], self.units))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, unit)."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "units": self.units}
