"""What generators share: recurrent cells, a decoder, the training step, and the restored model.

Their law: rows after the end of a drawing change nothing. Products with the inputs are computed for
all rows at once, before the loop over the rows, which has the products with the state only.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Float64, Int16, Integer, Real

from ostinato import store
from ostinato.generation.dataset.augmentation import Augmented
from ostinato.generation.dataset.loader import Dataset
from ostinato.generation.formats.drawings import START, from_stroke5, to_stroke5
from ostinato.generation.formats.mixture import mixture_size, reconstruction_nats, roll_out
from ostinato.task import Record, TrainingContext
from ostinato.training.schedules import Schedule
from ostinato.training.steps import Sums, build_optimizer, minimise, part_of_batch
from ostinato.training.trainer import train
from ostinato.units import BatchSize, Epochs, Fraction, LearningRate, NonNegative, Patience

State = tuple[tf.Tensor, ...]
FORGET_BIAS = 1.0


class LSTM(keras.layers.Layer):
    """A cell of long short-term memory (Hochreiter and Schmidhuber 1997).

    Args:
        units: of the state.
        **kwargs: of the Keras layer.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.projected_size = 4 * units

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Of output and memory."""
        return (self.units, self.units)

    def build(self, features: int) -> None:
        """Create the weights for inputs (..., feature)."""
        self.kernel = self.add_weight(
            shape=(features, self.projected_size), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.projected_size,), initializer="zeros", name="bias")
        self.recurrent = self.add_weight(
            shape=(self.units, 4 * self.units), initializer=_orthogonal, name="recurrent"
        )
        self.built = True

    def project(self, inputs: Any) -> Any:
        """The product of inputs (..., feature) that `step` adds."""
        return tf.tensordot(inputs, tf.convert_to_tensor(self.kernel), 1) + self.bias

    def step(self, projected: Any, state: State, keep: Any = None) -> State:
        """The state after one more row.

        Args:
            projected: (batch, projected_size).
            state: (batch, size) each.
            keep: factors of the candidate (batch, unit), for recurrent dropout without loss of
                memory (Semeniuta et al. 2016, arXiv 1603.05118).
        """
        h, c = state
        i, f, g, o = tf.split(projected + tf.matmul(h, self.recurrent), 4, axis=1)
        g = tf.tanh(g) if keep is None else tf.tanh(g) * keep
        c = tf.sigmoid(f + FORGET_BIAS) * c + tf.sigmoid(i) * g
        return tf.sigmoid(o) * tf.tanh(c), c


class LayerNormLSTM(LSTM):
    """An LSTM whose gates and memory are normalised (Ba et al. 2016, arXiv 1607.06450)."""

    def build(self, features: int) -> None:
        """Create the weights for inputs (..., feature)."""
        super().build(features)
        self.gate_scale = self.add_weight(shape=(4, self.units), initializer="ones", name="gates")
        self.memory_scale = self.add_weight(shape=(self.units,), initializer="ones", name="memory")
        self.memory_bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="memory_bias"
        )

    def project(self, inputs: Any) -> Any:
        """The product of inputs (..., feature) that `step` adds; the bias comes after it."""
        return tf.tensordot(inputs, tf.convert_to_tensor(self.kernel), 1)

    def step(self, projected: Any, state: State, keep: Any = None) -> State:
        """The state after one more row; see `LSTM.step`."""
        h, c = state
        return self._update(projected + tf.matmul(h, self.recurrent), c, keep)

    def _update(self, gates: Any, c: Any, keep: Any) -> State:
        grouped = tf.reshape(gates, (-1, 4, self.units))
        bias = tf.reshape(tf.convert_to_tensor(self.bias), (4, self.units))
        i, f, g, o = tf.unstack(_normalised(grouped) * self.gate_scale + bias, axis=1)
        g = tf.tanh(g) if keep is None else tf.tanh(g) * keep
        c = tf.sigmoid(f + FORGET_BIAS) * c + tf.sigmoid(i) * g
        shown = _normalised(c) * self.memory_scale + self.memory_bias
        return tf.sigmoid(o) * tf.tanh(shown), c


class HyperLSTM(LayerNormLSTM):
    """An LSTM whose weights a smaller LSTM scales at each row (Ha et al. 2016, arXiv 1609.09106).

    For each gate, embeddings of the smaller state scale the products of state and input row by row
    of the matrix, and shift the bias. All scales begin at 0.1, as in the paper.

    Args:
        units: of the state.
        hyper_units: of the smaller LSTM, which is layer-normalised.
        embedding: size of an embedding.
        **kwargs: of the Keras layer.
    """

    def __init__(
        self, units: int, hyper_units: int = 64, embedding: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(units, **kwargs)
        self.hyper_units, self.embedding = hyper_units, embedding
        self.hyper = LayerNormLSTM(hyper_units, name="hyper")

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Of output and memory, and of output and memory of the smaller LSTM."""
        return (self.units, self.units, self.hyper_units, self.hyper_units)

    def build(self, features: int) -> None:
        """Create the weights for inputs (..., feature)."""
        super().build(features)
        # Its input is the state and the row, so that the product of the row can be hoisted.
        self.hyper.build(features)
        self.hyper_state = self.add_weight(
            shape=(self.units, 4 * self.hyper_units), initializer="glorot_uniform", name="state"
        )
        sizes = (self.hyper_units, 12 * self.embedding)  # state, input, bias of four gates
        self.embed = self.add_weight(shape=sizes, initializer="zeros", name="embed")
        self.embed_bias = self.add_weight(
            shape=(8 * self.embedding,), initializer="ones", name="embed_bias"
        )
        start = keras.initializers.Constant(0.1 / self.embedding)
        self.scales = self.add_weight(
            shape=(8, self.embedding, self.units), initializer=start, name="scales"
        )
        self.shifts = self.add_weight(
            shape=(4, self.embedding, self.units), initializer="zeros", name="shifts"
        )
        self.projected_size = 4 * (self.units + self.hyper_units)

    def project(self, inputs: Any) -> Any:
        """The products of inputs (..., feature) that `step` adds, of both LSTMs."""
        return tf.concat([super().project(inputs), self.hyper.project(inputs)], axis=-1)

    def step(self, projected: Any, state: State, keep: Any = None) -> State:
        """The state after one more row; see `LSTM.step`."""
        h, c, hyper_h, hyper_c = state
        row, hyper_row = tf.split(projected, [4 * self.units, 4 * self.hyper_units], axis=1)
        hyper_h, hyper_c = self.hyper.step(
            hyper_row + tf.matmul(h, self.hyper_state), (hyper_h, hyper_c)
        )
        z = tf.matmul(hyper_h, self.embed)
        of_scales, of_shifts = tf.split(z, [8 * self.embedding, 4 * self.embedding], axis=1)
        scales = tf.einsum(
            "bke,keu->bku",
            tf.reshape(of_scales + self.embed_bias, (-1, 8, self.embedding)),
            tf.convert_to_tensor(self.scales),
        )
        shifts = tf.einsum(
            "bke,keu->bku",
            tf.reshape(of_shifts, (-1, 4, self.embedding)),
            tf.convert_to_tensor(self.shifts),
        )
        of_state = tf.reshape(tf.matmul(h, self.recurrent), (-1, 4, self.units))
        of_input = tf.reshape(row, (-1, 4, self.units))
        gates = scales[:, :4] * of_state + scales[:, 4:] * of_input + shifts
        return (*self._update(gates, c, keep), hyper_h, hyper_c)


CELLS = {"lstm": LSTM, "layer_norm": LayerNormLSTM, "hyper": HyperLSTM}
CellName = Literal["lstm", "layer_norm", "hyper"]


def _orthogonal(shape: tuple[int, int], dtype: Any = None) -> Any:
    """A square orthogonal matrix for each gate, as in the paper's code."""
    units = shape[0]
    start = keras.initializers.Orthogonal()
    return keras.ops.concatenate(
        [start((units, units), dtype=dtype) for _ in range(shape[1] // units)], axis=1
    )


def _normalised(x: Any) -> Any:
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def unroll(cell: LSTM, projected: Any, state: State, keep: Any = None) -> Any:
    """The outputs of a cell for all rows.

    Args:
        cell: of the loop.
        projected: (row, batch, projected_size).
        state: before the first row.
        keep: factors of the candidates (row, batch, unit), or None.

    Returns:
        (row, batch, unit).
    """
    if type(cell) is LSTM:
        batch = tf.shape(projected)[1]
        if keep is None:
            keep = tf.ones((1, 1, 1), projected.dtype)
        recurrent = tf.convert_to_tensor(cell.recurrent)
        bias = FORGET_BIAS * np.repeat(np.array([0, 1, 0, 0], np.float32), cell.units)
        keep = tf.broadcast_to(keep, (tf.shape(projected)[0], batch, cell.units))
        return _lstm(projected + bias, recurrent, keep, *state)
    rows = tf.shape(projected)[0]
    outputs = tf.TensorArray(projected.dtype, rows, element_shape=(None, cell.units))

    def body(t: Any, outputs: Any, *state: Any) -> Any:
        state = cell.step(projected[t], state, None if keep is None else keep[t])
        return t + 1, outputs.write(t, state[0]), *state

    _, outputs, *_ = tf.while_loop(
        lambda t, *_: t < rows, body, (0, outputs, *state), maximum_iterations=rows
    )
    return outputs.stack()


@tf.custom_gradient
def _lstm(x: Any, recurrent: Any, keep: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """The outputs of an LSTM, with a gradient of its own: that of the weights is one product.

    Args:
        x: projected inputs with all biases (row, batch, 4 * unit), for the gates i, f, g, o.
        recurrent: weights of the state (unit, 4 * unit).
        keep: factors of the candidates (row, batch, unit).
        h: initial output (batch, unit).
        c: initial memory (batch, unit).
    """
    steps, units = tf.shape(x)[0], recurrent.shape[0]

    def array(size: Any, width: int) -> Any:
        shape = tf.TensorShape([None, width])
        return tf.TensorArray(x.dtype, size, element_shape=shape, clear_after_read=False)

    def loop(condition: Any, body: Any, state: tuple[Any, ...]) -> Any:
        return tf.while_loop(
            condition, body, state, maximum_iterations=steps, parallel_iterations=1
        )

    def forward(t: Any, h: Any, c: Any, hs: Any, cs: Any, gates: Any) -> tuple[Any, ...]:
        i, f, g, o = tf.split(x[t] + tf.matmul(h, recurrent), 4, axis=1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * (g * keep[t])
        tanh_c = tf.tanh(c)
        h = o * tanh_c
        for k, gate in enumerate((i, f, g, o, tanh_c)):
            gates = gates.write(5 * t + k, gate)
        return t + 1, h, c, hs.write(t, h), cs.write(t + 1, c), gates

    start = (0, h, c, array(steps, units), array(steps + 1, units).write(0, c))
    *_, hs, cs, gates = loop(lambda t, *_: t < steps, forward, (*start, array(5 * steps, units)))
    states = hs.stack()

    def gradient(upstream: Any) -> tuple[Any, ...]:
        def backward(t: Any, dh: Any, dc: Any, dzs: Any) -> tuple[Any, ...]:
            i, f, g, o, tanh_c = (gates.read(5 * t + k) for k in range(5))
            dh = dh + upstream[t]
            dc = dc + dh * o * (1 - tanh_c * tanh_c)
            kept = keep[t]
            dz = tf.concat(
                [
                    dc * g * kept * i * (1 - i),
                    dc * cs.read(t) * f * (1 - f),
                    dc * i * kept * (1 - g * g),
                    dh * tanh_c * o * (1 - o),
                ],
                axis=1,
            )
            return t - 1, tf.matmul(dz, recurrent, transpose_b=True), dc * f, dzs.write(t, dz)

        end = (steps - 1, tf.zeros_like(h), tf.zeros_like(c), array(steps, 4 * units))
        _, dh, dc, dzs = loop(lambda t, *_: t >= 0, backward, end)
        dz = dzs.stack()
        previous = tf.reshape(tf.concat([h[None], states[:-1]], axis=0), (-1, units))
        flat = tf.reshape(dz, (-1, 4 * units))
        return dz, tf.matmul(previous, flat, transpose_a=True), None, dh, dc

    return states, gradient


def drawn_lengths(rows: Any) -> Any:
    """The number of points of each drawing: (batch,) from stroke-5 rows (batch, row, 5)."""
    return tf.cast(tf.reduce_sum(1 - rows[..., 4], axis=1), tf.int32)


def read_before(rows: Any) -> Any:
    """What a decoder reads before each row: the start, then the rows but the last one."""
    first = tf.tile(START[None, None], (tf.shape(rows)[0], 1, 1))
    return tf.concat([first, rows[:, :-1]], axis=1)


class Encoder(keras.layers.Layer):
    """A bidirectional recurrent layer: drawings to mean and log variance of the latent vector."""

    def __init__(self, cell: CellName, units: int, latent_size: int, classes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.directions = [CELLS[cell](units, name=name) for name in ("forward", "backward")]
        for each in self.directions:
            each.build(5 + classes)
        start = keras.initializers.RandomNormal(stddev=0.001)
        self.mean = keras.layers.Dense(latent_size, kernel_initializer=start, name="mean")
        self.log_variance = keras.layers.Dense(latent_size, kernel_initializer=start, name="spread")
        for dense in (self.mean, self.log_variance):
            dense.build((None, 2 * units))

    def call(self, rows: Any, condition: Any, keep: Callable[[Any], Any] | None) -> Any:
        """Mean and log variance (batch, latent) of drawings (batch, row, 5).

        Args:
            rows: stroke-5.
            condition: the class (batch, class), or of size 0.
            keep: gives the factors of recurrent dropout for a shape; None: no dropout.
        """
        count, total = tf.shape(rows)[0], tf.shape(rows)[1]
        lengths = tf.maximum(drawn_lengths(rows), 1)
        wide = tf.tile(condition[:, None], (1, total, 1))
        last = []
        for number, cell in enumerate(self.directions):
            read = tf.reverse_sequence(rows, lengths, seq_axis=1) if number else rows
            x = cell.project(tf.transpose(tf.concat([read, wide], axis=2), (1, 0, 2)))
            state = tuple(tf.zeros((count, size)) for size in cell.state_sizes)
            kept = keep((total, count, cell.units)) if keep else None
            outputs = unroll(cell, x, state, kept)
            last.append(tf.gather_nd(outputs, tf.stack([lengths - 1, tf.range(count)], axis=1)))
        features = tf.concat(last, axis=1)
        return self.mean(features), self.log_variance(features)


class RecurrentGenerator(keras.layers.Layer):
    """An encoder, a latent vector and a recurrent decoder; without an encoder, the decoder alone.

    Args:
        cell: of encoder and decoder.
        encoder_units: in each direction; 0: no encoder.
        decoder_units: of the decoder.
        latent_size: of the latent vector; 0 without an encoder.
        mixtures: Gaussians of a row.
        conditioning: how latent vector and class reach the decoder: by its initial state, by the
            input at every row, or both.
        classes: of the condition; 0: none.
        recurrent_dropout: rate of the candidates of each row.
        scale: by which the data set divides offsets.
        longest: rows of a drawing at most, N_max of the paper.
    """

    def __init__(
        self,
        *,
        cell: CellName,
        encoder_units: int,
        decoder_units: int,
        latent_size: int,
        mixtures: int,
        conditioning: str,
        classes: int,
        recurrent_dropout: float,
        scale: float,
        longest: int,
    ) -> None:
        super().__init__()
        self.settings = {
            "cell": cell,
            "encoder_units": encoder_units,
            "decoder_units": decoder_units,
            "latent_size": latent_size,
            "mixtures": mixtures,
            "conditioning": conditioning,
            "classes": classes,
            "recurrent_dropout": recurrent_dropout,
            "scale": scale,
            "longest": longest,
        }
        self.scale, self.longest = scale, longest
        self.latent_size, self.classes, self.dropout = latent_size, classes, recurrent_dropout
        self.seeds = keras.random.SeedGenerator(0)
        self.encoder = (
            Encoder(cell, encoder_units, latent_size, classes, name="encoder")
            if latent_size
            else None
        )
        self.cell = CELLS[cell](decoder_units, name="decoder")
        self.cell.build(5)
        condition = latent_size + classes
        self.by_state = condition > 0 and conditioning in ("initial_state", "both")
        self.by_input = condition > 0 and conditioning in ("input", "both")
        if self.by_state:
            self.initial = keras.layers.Dense(
                sum(self.cell.state_sizes), activation="tanh", name="initial_state"
            )
            self.initial.build((None, condition))
        if self.by_input:
            self.constant = keras.layers.Dense(
                self.cell.projected_size, use_bias=False, name="constant_input"
            )
            self.constant.build((None, condition))
        self.outputs = keras.layers.Dense(mixture_size(mixtures), name="mixture", dtype="float32")
        self.outputs.build((None, decoder_units))
        self.built = True

    def condition(self, labels: Any) -> Any:
        """The class as numbers (batch, class); of size 0 where the model knows no classes."""
        return tf.one_hot(labels, self.classes)

    def encode(self, rows: Any, labels: Any, training: bool = False) -> tuple[Any, Any]:
        """Mean and log variance of the latent vector (batch, latent)."""
        assert self.encoder is not None, "the model has no encoder"
        keep = self._keep if training and self.dropout else None
        mean, log_variance = self.encoder.call(rows, self.condition(labels), keep)
        return mean, log_variance

    def decode(self, rows: Any, labels: Any, latent: Any, training: bool = False) -> Any:
        """The outputs (batch, row, output) for rows, of which the decoder reads those before."""
        constant, state = self._start(labels, latent)
        x = self.cell.project(tf.transpose(read_before(rows), (1, 0, 2))) + constant
        keep = None
        if training and self.dropout:
            keep = self._keep((tf.shape(x)[0], tf.shape(x)[1], self.cell.units))
        return tf.transpose(self.outputs(unroll(self.cell, x, state, keep)), (1, 0, 2))

    def roller(self, labels: Any, latent: Any, length: Any) -> tuple[Any, Sequence[Any]]:
        """The step of `roll_out`, and the state before the first row.

        Args:
            labels: of the drawings (batch,).
            latent: (batch, latent).
            length: largest number of rows.
        """
        constant, state = self._start(labels, latent)

        def step(t: Any, rows: Any, state: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
            after = self.cell.step(self.cell.project(rows) + constant, tuple(state))
            return self.outputs(after[0]), after

        return step, state

    def _start(self, labels: Any, latent: Any) -> tuple[Any, State]:
        """What is added to each projected input, and the initial state."""
        condition = tf.concat([latent, self.condition(labels)], axis=1)
        sizes = self.cell.state_sizes
        if self.by_state:
            state = tuple(tf.split(self.initial(condition), list(sizes), axis=1))
        else:
            state = tuple(tf.zeros((tf.shape(labels)[0], size)) for size in sizes)
        constant = self.constant(condition) if self.by_input else tf.zeros((1, 1))
        return constant, state

    def _keep(self, shape: Any) -> Any:
        return keras.random.dropout(tf.ones(shape), self.dropout, seed=self.seeds)


class VariationalStep:
    """The training step of Ha and Eck 2017; without a latent vector, of maximum likelihood.

    The loss is L_R + w eta max(L_KL, tolerance), where eta = 1 - (1 - start) decay^step. The
    validation split is measured with eta = 1 and the same noise at each epoch.

    Args:
        network: with ``encode`` if its ``latent_size`` is not 0, and ``decode``.
        optimizer: see `ostinato.training.steps.build_optimizer`.
        learning_rate: the highest one.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        kl_weight: w.
        kl_start: of eta.
        kl_decay: of eta.
        kl_tolerance: of L_KL, in nats for each dimension of the latent vector.
    """

    diagnostics = ("gradient_norm",)

    def __init__(
        self,
        network: Any,
        *,
        optimizer: str,
        learning_rate: float,
        clip_norm: float,
        kl_weight: float = 0.0,
        kl_start: float = 1.0,
        kl_decay: float = 1.0,
        kl_tolerance: float = 0.0,
    ) -> None:
        self.metrics = {"loss": False, "reconstruction": False}
        if network.latent_size:
            self.metrics["kl"] = False
        self.models, self._clip_norm = (network,), clip_norm
        self.optimizers = (build_optimizer(optimizer, learning_rate, network),)
        self._weight, self._tolerance = kl_weight, kl_tolerance
        self._start, self._decay = kl_start, kl_decay

    def train(self, batch: Any) -> Sums:
        """One update; see `ostinato.training.steps.Step`."""
        steps = tf.cast(self.optimizers[0].iterations, tf.float32)
        eta = 1 - (1 - self._start) * tf.pow(self._decay, steps)
        with tf.GradientTape() as tape:
            loss, sums = self._measure(batch, eta, training=True)
        network = self.models[0]
        weights = network.trainable_weights
        norm = minimise(tape, loss, self.optimizers[0], weights, self._clip_norm)
        return {**sums, "gradient_norm": norm}

    def test(self, batch: Any) -> Sums:
        """Measure without an update; see `ostinato.training.steps.Step`."""
        return self._measure(batch, 1.0, training=False)[1]

    def _measure(self, batch: Any, eta: Any, training: bool) -> tuple[Any, Sums]:
        (rows, labels), share = part_of_batch(batch)
        network = self.models[0]
        counted = tf.cast(share > 0, tf.float32)
        count = counted * tf.cast(tf.shape(labels)[0], tf.float32)
        context = tf.distribute.get_replica_context()
        total = context.all_reduce("SUM", count)
        latent, kl = tf.zeros((tf.shape(labels)[0], 0)), None
        if network.latent_size:
            mean, log_variance = network.encode(rows, labels, training=training)
            shape = tf.shape(mean)
            noise = (
                keras.random.normal(shape, seed=network.seeds)
                if training
                else tf.random.stateless_normal(shape, (0, 0))
            )
            latent = mean + tf.exp(log_variance / 2) * noise
            kl = counted * tf.reduce_sum(kl_divergence(mean, log_variance))
        outputs = network.decode(rows, labels, latent, training=training)
        nats = reconstruction_nats(rows, outputs, network.longest)
        reconstruction = counted * tf.reduce_sum(nats) / network.longest
        loss = reconstruction / total
        sums = {"reconstruction": (reconstruction, count)}
        if kl is not None:
            above = context.all_reduce("SUM", kl) / total > self._tolerance
            loss += self._weight * eta * tf.where(above, kl / total, self._tolerance * share)
            sums["kl"] = (kl, count)
        return loss, {"loss": (loss * total, count), **sums}


def kl_divergence(mean: Any, log_variance: Any) -> Any:
    """L_KL of Ha and Eck 2017: nats for each dimension of the latent vector (batch,)."""
    each = 1 + log_variance - tf.square(mean) - tf.exp(log_variance)
    return -tf.reduce_mean(each, axis=-1) / 2


def fit(
    model: Any,
    data: Dataset,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    stretch: Fraction,
    point_drop: Fraction,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    monitor: str,
    patience: Patience,
) -> list[Record]:
    """Train a model without a latent vector; at the end it has the weights of its best epoch.

    Args:
        model: that `build` has returned.
        data: with the splits train and validation.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: drawings in a step, over all devices.
        stretch: largest relative change of a training drawing's width and height.
        point_drop: probability of a point within a stroke to be left out.
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: the highest one.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        monitor: name in the record by which epochs are compared.
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch: ``loss``, which is ``reconstruction`` (L_R), and the same of the
        validation split.

    Raises:
        ParamsError: ``monitor`` is unknown.
        TrainingError: the loss is not finite.
    """
    step = VariationalStep(
        model, optimizer=optimizer, learning_rate=learning_rate, clip_norm=clip_norm
    )
    return train(
        step,
        Augmented(data, stretch, point_drop),
        context,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        monitor=monitor,
        patience=patience,
    )


SETTINGS, WEIGHTS = "generator.json", "weights.npz"
BATCH_SIZE = 1024  # drawings that are made at once


def save(model: Any, folder: Path) -> None:
    """Write the settings and the weights of a network."""
    store.write_json(folder / SETTINGS, model.settings)
    weights = {f"{i:03d} {w.name}": np.asarray(w) for i, w in enumerate(model.weights)}
    store.write_arrays(folder / WEIGHTS, weights)


def load(network: Callable[..., Any], folder: Path) -> "Generator":
    """Read what `save` has written.

    Args:
        network: the class.
        folder: of the model.
    """
    built = network(**store.read_json(folder / SETTINGS))
    arrays = store.read_arrays(folder / WEIGHTS)
    for weight, name in zip(built.weights, sorted(arrays), strict=True):
        weight.assign(arrays[name])
    return Generator(built)


def restore(folder: Path) -> "Generator":
    """Read a `RecurrentGenerator`."""
    return load(RecurrentGenerator, folder)


class Generator:
    """A trained network that draws (`ostinato.generation.evaluation.Generator`).

    Args:
        network: with ``decode``, ``roller``, ``latent_size``, ``scale`` and ``longest``.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        rows, labels = tf.TensorSpec((None, None, 5)), tf.TensorSpec((None,), tf.int32)
        latent, noise = tf.TensorSpec((None, network.latent_size)), tf.TensorSpec((None, None, 4))
        temperature, lengths = tf.TensorSpec((None,)), tf.TensorSpec((None,), tf.int32)
        drawn = labels, latent, noise, temperature, rows, lengths
        graph = partial(tf.function, autograph=False)  # the loops are explicit: traced in a fifth
        self._draw = graph(self._draw_graph, input_signature=drawn)
        self._measure = graph(self._measure_graph, input_signature=(rows, labels, latent))
        self._encode = graph(self._encode_graph, input_signature=(rows, labels))

    @property
    def parameters(self) -> int:
        """The number of learned values."""
        return sum(int(np.prod(w.shape)) for w in self.network.trainable_weights)

    @property
    def latent_size(self) -> int:
        """The size of the latent vector; 0 where the model has no encoder."""
        return int(self.network.latent_size)

    def draw(
        self,
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " drawing"],
        *,
        latent: Float32[np.ndarray, "drawing latent"] | None = None,
        beginnings: Sequence[Int16[np.ndarray, "_ 3"]] | None = None,
    ) -> list[Int16[np.ndarray, "_ 3"]]:
        """Make drawings; each depends on its own arguments alone.

        Args:
            labels: the class of each.
            seeds: of each drawing's randomness, integers of 0 or more.
            temperature: of each, above 0.
            latent: vectors; None: drawn from the standard normal distribution by the seed.
            beginnings: stroke-3 rows in pixels that each drawing begins with; None: none.

        Returns:
            stroke-3 rows in pixels, with the beginning.
        """
        found: list[Int16[np.ndarray, "_ 3"]] = []
        for start in range(0, len(labels), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            given = list(beginnings[part]) if beginnings is not None else []
            lengths = np.array([len(rows) for rows in given] or [0] * len(labels[part]))
            rows = (
                to_stroke5(given, self.network.scale) if given else np.zeros((len(lengths), 1, 5))
            )
            total = max(self.network.longest, int(lengths.max()) + 1)
            prior, noise = self._noise(seeds[part], total)
            five = self._draw(
                tf.constant(labels[part], tf.int32),
                tf.constant(prior if latent is None else latent[part], tf.float32),
                tf.constant(noise, tf.float32),
                tf.constant(temperature[part], tf.float32),
                tf.constant(rows, tf.float32),
                tf.constant(lengths, tf.int32),
            )
            drawn = from_stroke5(five.numpy(), self.network.scale)
            found += [np.rint(rows).astype(np.int16) for rows in drawn]
        return found

    def measure(
        self,
        drawings: Sequence[Int16[np.ndarray, "_ 3"]],
        labels: Integer[np.ndarray, " drawing"],
        seeds: Sequence[int],
    ) -> tuple[Float64[np.ndarray, " drawing"], Float64[np.ndarray, " drawing"] | None]:
        """L_R and L_KL of drawings (Ha and Eck 2017), with a latent vector drawn by the seed.

        Args:
            drawings: stroke-3 rows in pixels.
            labels: the class of each.
            seeds: of the latent vectors.

        Returns:
            nats divided by N_max; nats for each dimension of the latent vector, or None where the
            model has none.
        """
        losses, divergences = np.zeros(len(drawings)), np.zeros(len(drawings))
        for part in self._batches(drawings):
            prior, _ = self._noise([seeds[i] for i in part], 0)
            rows = to_stroke5([drawings[i] for i in part], self.network.scale)
            arguments = tf.constant(rows), tf.constant(labels[part], tf.int32)
            nats, kl = self._measure(*arguments, tf.constant(prior, tf.float32))
            losses[part], divergences[part] = nats.numpy() / self.network.longest, kl.numpy()
        return losses, divergences if self.latent_size else None

    def encode(
        self, drawings: Sequence[Int16[np.ndarray, "_ 3"]], labels: Integer[np.ndarray, " drawing"]
    ) -> Float32[np.ndarray, "drawing latent"]:
        """The means of the latent vectors of drawings."""
        found = np.zeros((len(drawings), self.latent_size), np.float32)
        for part in self._batches(drawings):
            rows = to_stroke5([drawings[i] for i in part], self.network.scale)
            found[part] = self._encode(tf.constant(rows), tf.constant(labels[part], tf.int32))
        return found

    def _batches(self, drawings: Sequence[Any]) -> list[Any]:
        order = np.argsort([len(rows) for rows in drawings], kind="stable")
        return [order[i : i + 128] for i in range(0, len(order), 128)]

    def _noise(self, seeds: Sequence[int], total: int) -> tuple[Any, Any]:
        """The random numbers of each drawing: of its latent vector, and of its rows."""
        latent = np.zeros((len(seeds), self.latent_size))
        rows = np.zeros((len(seeds), total, 4))
        for number, seed in enumerate(seeds):
            # A generator each: more rows or no latent vector change none of the numbers.
            of_latent, uniform, normal = (np.random.default_rng([seed, k]) for k in range(3))
            latent[number] = of_latent.standard_normal(self.latent_size)
            rows[number, :, :2] = uniform.random((total, 2))
            rows[number, :, 2:] = normal.standard_normal((total, 2))
        return latent, rows

    def _draw_graph(
        self, labels: Any, latent: Any, noise: Any, temperature: Any, rows: Any, lengths: Any
    ) -> Any:
        step, state = self.network.roller(labels, latent, tf.shape(noise)[1])
        scale = self.network.scale
        return roll_out(step, state, noise, temperature, rows, lengths, scale)

    def _measure_graph(self, rows: Any, labels: Any, noise: Any) -> tuple[Any, Any]:
        network, latent = self.network, noise
        kl = tf.zeros(tf.shape(labels))
        if network.latent_size:
            mean, log_variance = network.encode(rows, labels)
            latent = mean + tf.exp(log_variance / 2) * noise
            kl = kl_divergence(mean, log_variance)
        outputs = network.decode(rows, labels, latent)
        return reconstruction_nats(rows, outputs, network.longest), kl

    def _encode_graph(self, rows: Any, labels: Any) -> Any:
        return self.network.encode(rows, labels)[0]
