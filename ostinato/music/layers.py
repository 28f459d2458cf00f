"""What the networks share: trunks that read frames, and outputs that give a chord its probability.

A trunk maps the inputs of all frames to features, each a function of the inputs so far. Its
``start`` and ``step`` compute the same features frame by frame, for writing. An output maps the
features of a frame to the distribution of its 88 notes. The law: frames after the end of a piece
change nothing before it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Integer, Real
from pydantic import Field

from ostinato import store
from ostinato.data.batches import batch_indices
from ostinato.layers import LSTM
from ostinato.music.dataset.augmentation import Windows
from ostinato.music.dataset.loader import conditions
from ostinato.music.formats.keys import KEYS
from ostinato.music.formats.measured import Measured
from ostinato.music.formats.roll import NOTES, Roll
from ostinato.task import Record, TrainingContext
from ostinato.training import trainer
from ostinato.training.schedules import Schedule
from ostinato.training.trainer import Data
from ostinato.units import BatchSize, Count, Epochs, Fraction, LearningRate, NonNegative, Patience

State = list[tf.Tensor]
Semitones = Annotated[int, Field(ge=0, le=24)]
SETTINGS, WEIGHTS = "settings.json", "weights.npz"
MAX_PIECES = 64  # in a batch
MAX_FRAMES = 8_192  # in a batch, padding included, unless one piece has more
Cell = Literal["simple", "lstm", "gru"]
OutputName = Literal["independent", "nade"]
CELLS: dict[str, Callable[..., Any]] = {
    "simple": keras.layers.SimpleRNN,
    "lstm": LSTM,
    "gru": keras.layers.GRU,
}


class Trunk(Protocol):
    """A causal network."""

    size: int

    def __call__(self, x: Any, training: bool = False) -> Any:
        """Features (batch, frame, size) of inputs (batch, frame, input)."""

    def start(self, batch: Any) -> State:
        """The state before the first frame."""

    def step(self, x: Any, state: State) -> tuple[Any, State]:
        """The features (batch, size) of one more frame, and the state after it."""


class Recurrent(keras.layers.Layer):
    """Stacked recurrent layers.

    Args:
        inputs: size of an input.
        cell: of the layers.
        units: of each layer.
        dropout: rate after each layer.
    """

    def __init__(self, inputs: int, cell: Cell, units: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = [CELLS[cell](each, return_sequences=True) for each in units]
        self.dropouts = [keras.layers.Dropout(dropout) for _ in units]
        for layer, width in zip(self.layers, [inputs, *units], strict=False):
            layer.build((None, None, width))
        self.size, self.built = units[-1], True

    def call(self, x: Any, training: bool = False) -> Any:
        """Features (batch, frame, unit) of inputs (batch, frame, input)."""
        for dropout, layer in zip(self.dropouts, self.layers, strict=True):
            x = dropout(layer(x, training=training), training=training)
        return x

    def start(self, batch: Any) -> State:
        """Zeros."""
        return [
            tf.zeros((batch, size), self.compute_dtype)
            for layer in self.layers
            for size in keras.tree.flatten(layer.cell.state_size)
        ]

    def step(self, x: Any, state: State) -> tuple[Any, State]:
        """The features of one more frame, and the state after it."""
        left, after = list(state), []
        for layer in self.layers:
            count = len(keras.tree.flatten(layer.cell.state_size))
            own, left = left[:count], left[count:]
            x, new = layer.cell(x, own, training=False)
            after += keras.tree.flatten(new)
        return x, after


class Independent(keras.layers.Layer):
    """Each note of a frame by itself.

    Args:
        size: of the features.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(NOTES, dtype="float32")
        self.dense.build((None, size))
        self.built = True

    def call(self, features: Any, frames: Any) -> Any:
        """The logits (..., 88) of notes, from features (..., size)."""
        return self.dense(features)

    def sample(self, features: Any, uniform: Any, temperature: Any) -> Any:
        """Frames (batch, 88) of features (batch, size): a note sounds where its number is small.

        Args:
            features: of each frame.
            uniform: numbers in 0 to 1, (batch, 88).
            temperature: divisor of the logits, (batch, 1).
        """
        return tf.cast(uniform < tf.sigmoid(self.dense(features) / temperature), tf.float32)


class Nade(keras.layers.Layer):
    """Each note after those below it, by a neural autoregressive distribution estimator.

    Larochelle and Murray 2011; with biases that depend on the frames before: Boulanger-Lewandowski
    et al. 2012, arXiv 1206.6392, RNN-NADE. The hidden units are ``sigmoid(c + W notes below)``,
    and the logit of a note is ``b + V hidden``; b and c are linear in the features.

    Args:
        size: of the features.
        units: number of hidden units.
    """

    def __init__(self, size: int, units: int) -> None:
        super().__init__(dtype="float32")
        self.biases = keras.layers.Dense(NOTES, dtype="float32")
        self.hidden_biases = keras.layers.Dense(units, dtype="float32")
        for layer in (self.biases, self.hidden_biases):
            layer.build((None, size))
        self.read = self.add_weight(shape=(NOTES, units), initializer="glorot_uniform", name="read")
        self.write = self.add_weight(
            shape=(units, NOTES), initializer="glorot_uniform", name="write"
        )
        self.built = True

    def call(self, features: Any, frames: Any) -> Any:
        """The logits (..., 88) of notes, given the notes below each.

        The hidden units change with a note that sounds. So they are computed once for each number
        of notes below, and not once for each of the 88 notes.

        Args:
            features: (batch, frame, size).
            frames: the true notes (batch, frame, 88).
        """
        below = tf.cumsum(frames, axis=-1, exclusive=True)[..., None, :]
        count = tf.range(tf.reduce_max(tf.reduce_sum(frames, axis=-1)) + 1)[:, None]
        lowest = frames[..., None, :] * tf.cast(below < count, tf.float32)
        hidden = tf.tensordot(lowest, tf.convert_to_tensor(self.read), 1)
        hidden = tf.sigmoid(hidden + self.hidden_biases(features)[..., None, :])
        logits = tf.tensordot(hidden, tf.convert_to_tensor(self.write), 1)
        chosen = tf.reduce_sum(logits * tf.cast(below == count, tf.float32), axis=-2)
        return chosen + self.biases(features)

    def sample(self, features: Any, uniform: Any, temperature: Any) -> Any:
        """Frames, note by note from below; see `Independent.sample`.

        The hidden units stay until a note sounds. Each step of the loop finds the next one.
        """
        biases, notes = self.biases(features), tf.range(NOTES)

        def body(above: Any, hidden: Any, frames: Any) -> tuple[Any, Any, Any]:
            logits = biases + tf.matmul(tf.sigmoid(hidden), tf.convert_to_tensor(self.write))
            sounds = (uniform < tf.sigmoid(logits / temperature)) & (notes >= above[:, None])
            first = tf.argmax(sounds, axis=1, output_type=tf.int32)
            some = tf.reduce_any(sounds, axis=1)
            chosen = tf.one_hot(tf.where(some, first, -1), NOTES)
            hidden += tf.matmul(chosen, tf.convert_to_tensor(self.read))
            return tf.where(some, first + 1, NOTES), hidden, frames + chosen

        start = tf.zeros(tf.shape(uniform)[:1], tf.int32)
        state = start, self.hidden_biases(features), tf.zeros_like(uniform)
        _, _, frames = tf.while_loop(lambda above, *_: tf.reduce_any(above < NOTES), body, state)
        return frames


class Network(keras.layers.Layer):
    """A model of pieces: a trunk, an output, and for a variational autoencoder an encoder.

    Args:
        settings: arguments that build the network again, kept beside its weights.
        trunk: makes the trunk for inputs of a size.
        output: of each frame.
        nade_units: hidden units of the output "nade".
        condition: size of the condition that is read beside each frame; 0: none.
        encoder: makes the encoder for inputs of a size; None: there is no latent vector.
        latent_size: of the latent vector; 0: none.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        trunk: Callable[[int], Any],
        output: OutputName,
        nade_units: int,
        condition: int,
        encoder: Callable[[int], Any] | None = None,
        latent_size: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.condition_size, self.latent_size = condition, latent_size
        self.trunk = trunk(NOTES + condition + latent_size)
        size = self.trunk.size
        self.output_layer = Nade(size, nade_units) if output == "nade" else Independent(size)
        self.encoder = encoder(NOTES + condition) if encoder else None
        self.seeds = keras.random.SeedGenerator(0)
        self.kl_weight, self.kl_tolerance = 1.0, 0.0  # `fit` of a variational autoencoder sets them
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """The logits (batch, frame, 88) of each frame, given the frames before.

        In training, the latent vector is drawn and its divergence is added to the loss.

        Args:
            x: ``before``, ``frames`` (batch, frame, 88), ``mask`` (batch, frame) and ``condition``
                (batch, condition), as the data set gives them.
            training: whether dropout and noise are active.
        """
        latent = None
        if self.encoder is not None:
            mean, log_variance = self.encode(x["frames"], x["mask"], x["condition"])
            kl = kl_divergence(mean, log_variance)
            counted = tf.maximum(kl, self.kl_tolerance)
            frames = tf.maximum(tf.reduce_sum(x["mask"]), 1.0)
            self.add_loss(self.kl_weight * tf.reduce_sum(counted) / frames)
            latent = mean
            if training:
                noise = keras.random.normal(tf.shape(mean), seed=self.seeds)
                latent += tf.exp(log_variance / 2) * noise
        features = self.features(x["before"], x["condition"], latent, training)
        return self.output_layer(features, x["frames"])

    def features(self, before: Any, condition: Any, latent: Any, training: bool = False) -> Any:
        """The features (batch, frame, size) of each frame, given the frames before."""
        return self.trunk(_beside(before, self.told(condition, latent)), training=training)

    def encode(self, frames: Any, mask: Any, condition: Any) -> tuple[Any, Any]:
        """Mean and log-variance of the latent vectors (batch, latent) of pieces."""
        assert self.encoder is not None
        mean, log_variance = self.encoder(_beside(frames, self.told(condition, None)), mask)
        return mean, log_variance

    def told(self, condition: Any, latent: Any) -> Any:
        """What is read beside each frame (batch, _)."""
        parts = [condition[:, : self.condition_size]]
        width = self.condition_size + (0 if latent is None else self.latent_size)
        joined = tf.concat(parts if latent is None else [*parts, latent], axis=1)
        return tf.ensure_shape(joined, (None, width))


def kl_divergence(mean: Any, log_variance: Any) -> Any:
    """The divergence (batch,) of Gaussians from the standard normal distribution, in nats."""
    terms = tf.square(mean) + tf.exp(log_variance) - 1 - log_variance
    return tf.reduce_sum(terms, axis=1) / 2


@keras.saving.register_keras_serializable(package="ostinato")
def nats(frames: Any, logits: Any) -> Any:
    """Negative log-likelihood of each frame, the sum over its notes.

    Args:
        frames: (batch, frame, 88), zeros and ones.
        logits: of the same shape.

    Returns:
        (batch, frame).
    """
    values = tf.nn.sigmoid_cross_entropy_with_logits(frames, logits)
    return tf.reduce_sum(values, axis=-1)


def _beside(frames: Any, told: Any) -> Any:
    """Frames (batch, frame, _) with the same numbers beside each frame of a piece."""
    repeated = tf.repeat(told[:, None], tf.shape(frames)[1], axis=1)
    frames = tf.ensure_shape(frames, (None, None, NOTES))
    return tf.concat([frames, tf.cast(repeated, frames.dtype)], axis=2)


def fit(
    model: Network,
    data: Data,
    context: TrainingContext,
    *,
    epochs: Epochs,
    batch_size: BatchSize,
    max_frames: Count,
    max_transposition: Semitones,
    optimizer: str,
    learning_rate: LearningRate,
    schedule: Schedule,
    warmup_fraction: Fraction,
    clip_norm: NonNegative,
    patience: Patience,
) -> list[Record]:
    """Train a network; at the end it has the weights of its best epoch.

    Epochs are compared by ``validation_loss``: nats per frame of whole pieces, the first frames
    included, which `evaluate` leaves out.

    Args:
        model: that the module's ``build`` has returned.
        data: with the splits train and validation.
        context: of this training.
        epochs: maximum number of passes over the training split.
        batch_size: pieces in a step, over all devices.
        max_frames: of a piece in a step; of a longer one a random window is read.
        max_transposition: semitones by which a training piece is moved up or down at random; 0:
            none.
        optimizer: a class of keras.optimizers in lower case.
        learning_rate: the highest one.
        schedule: of the learning rate after the warm-up.
        warmup_fraction: share of the training in which the learning rate rises from zero.
        clip_norm: largest norm of the gradient; 0 turns clipping off.
        patience: epochs without improvement before training stops.

    Returns:
        A record for each epoch.

    Raises:
        TrainingError: the loss is not finite.
    """
    return trainer.fit(
        model,
        Windows(data, max_frames, max_transposition),
        context,
        epochs=epochs,
        batch_size=batch_size,
        loss=nats,
        metrics=[],
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        monitor="validation_loss",
        patience=patience,
    )


def condition_size(data: Any, conditional: bool) -> int:
    """The size of the condition that a network reads."""
    return len(data.styles) + len(KEYS) if conditional else 0


def save(model: Network, folder: Path) -> None:
    """Write the settings and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    store.write_json(folder / SETTINGS, model.settings)
    weights = {f"{i:03d}": w.numpy() for i, w in enumerate(model.trainable_weights)}
    store.write_arrays(folder / WEIGHTS, weights)


def load(network: Callable[..., Network], folder: Path) -> Network:
    """Read what `save` has written.

    Args:
        network: builds it from its settings.
        folder: to read.
    """
    model = network(**store.read_json(folder / SETTINGS))
    arrays = store.read_arrays(folder / WEIGHTS)
    for weight, name in zip(model.trainable_weights, sorted(arrays), strict=True):
        weight.assign(arrays[name])
    return model


class Writer:
    """A trained network (`ostinato.music.evaluation.Model`).

    Args:
        network: `ostinato.music.layers.Network`.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        frames, lengths = tf.TensorSpec((None, None, NOTES)), tf.TensorSpec((None,), tf.int32)
        told, latent = tf.TensorSpec((None, None)), tf.TensorSpec((None, network.latent_size))
        heat = tf.TensorSpec((None, 1))
        graph = partial(tf.function, autograph=False)  # the loops are explicit
        read = frames, lengths, told, latent
        self._measure = graph(self._measure_graph, input_signature=read)
        self._encode = graph(self._encode_graph, input_signature=read[:3])
        written = frames, heat, told, latent, frames, lengths
        self._write = graph(self._write_graph, input_signature=written)

    @property
    def parameters(self) -> int:
        """The number of learned values."""
        return sum(int(np.prod(weight.shape)) for weight in self.network.trainable_weights)

    @property
    def conditional(self) -> bool:
        """Whether the model knows the style and the key."""
        return self.network.condition_size > 0

    def measure(
        self,
        pieces: Sequence[Roll],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
    ) -> list[Measured]:
        """What the model says of the frames of pieces.

        Args:
            pieces: to read.
            styles: of each; -1: not told.
            musical_keys: of each; -1: not told.
            seeds: of the latent vector of each, where the model has one.
        """
        found: dict[int, Measured] = {}
        for part in _batches([len(piece) for piece in pieces]):
            chosen = [pieces[i] for i in part]
            latent, _ = self._noise([seeds[i] for i in part], 0)
            told = self._told(styles[part], musical_keys[part])
            rows = self._measure(*_padded(chosen), tf.constant(told), tf.constant(latent))
            *by_frame, kl = (each.numpy() for each in rows)
            for row, (i, piece) in enumerate(zip(part, chosen, strict=True)):
                values, hits, either = (
                    each[row, : len(piece)].astype(np.float64) for each in by_frame
                )
                found[i] = Measured(values, hits, either, float(kl[row]))
        return [found[i] for i in range(len(pieces))]

    def write(
        self,
        frames: Sequence[int],
        styles: Integer[np.ndarray, " piece"],
        musical_keys: Integer[np.ndarray, " piece"],
        seeds: Sequence[int],
        temperature: Real[np.ndarray, " piece"],
        beginnings: Sequence[Roll] | None = None,
    ) -> list[Roll]:
        """Write pieces; each depends on its own arguments alone.

        Args:
            frames: length of each.
            styles: of each; -1: not told.
            musical_keys: of each; -1: not told.
            seeds: of each piece's randomness, integers of 0 or more.
            temperature: of each, above 0.
            beginnings: that each piece begins with; None: none. A model with an encoder takes the
                latent vector of a beginning.
        """
        begun = list(beginnings) if beginnings is not None else [np.zeros((0, NOTES), bool)] * len(
            frames
        )  # fmt: skip
        found: list[Roll] = []
        for start in range(0, len(frames), MAX_PIECES):
            part = slice(start, start + MAX_PIECES)
            total = max(frames[part])
            latent, uniform = self._noise(seeds[part], total)
            told = tf.constant(self._told(styles[part], musical_keys[part]))
            given, lengths = _padded(begun[part], total)
            if self.network.latent_size and any(len(each) for each in begun[part]):
                encoded = self._encode(given, lengths, told).numpy()
                latent = np.where(lengths.numpy()[:, None] > 0, encoded, latent)
            heat = np.asarray(temperature[part], np.float32)[:, None]
            rolls = self._write(uniform, heat, told, latent, given, lengths).numpy() > 0
            found += [roll[:size] for roll, size in zip(rolls, frames[part], strict=True)]
        return found

    def _told(
        self, styles: Integer[np.ndarray, " piece"], musical_keys: Integer[np.ndarray, " piece"]
    ) -> Float32[np.ndarray, "piece condition"]:
        return conditions(styles, musical_keys, max(0, self.network.condition_size - len(KEYS)))

    def _noise(self, seeds: Sequence[int], total: int) -> tuple[Any, Any]:
        """The random numbers of each piece: of its latent vector, and of its frames."""
        latent = np.zeros((len(seeds), self.network.latent_size), np.float32)
        frames = np.zeros((len(seeds), total, NOTES), np.float32)
        for number, seed in enumerate(seeds):
            # A generator each: more frames or no latent vector change none of the numbers.
            of_latent, of_frames = (np.random.default_rng([seed, k]) for k in range(2))
            latent[number] = of_latent.standard_normal(self.network.latent_size)
            frames[number] = of_frames.random((total, NOTES), np.float32)
        return latent, frames

    def _measure_graph(self, frames: Any, lengths: Any, told: Any, noise: Any) -> Any:
        network, kl, latent = self.network, tf.zeros(tf.shape(lengths)), None
        if network.latent_size:
            mask = tf.sequence_mask(lengths, tf.shape(frames)[1], tf.float32)
            mean, log_variance = network.encode(frames, mask, told)
            latent = mean + tf.exp(log_variance / 2) * noise
            kl = kl_divergence(mean, log_variance)
        before = tf.pad(frames[:, :-1], [[0, 0], [1, 0], [0, 0]])
        features = network.features(before, told, latent)
        values = nats(frames, tf.cast(network.output_layer(features, frames), tf.float32))
        flat = tf.reshape(features, (-1, network.trunk.size))
        rows = tf.shape(flat)[0]
        likely = network.output_layer.sample(flat, tf.fill((rows, NOTES), 0.5), tf.ones((rows, 1)))
        likely = tf.reshape(likely, tf.shape(frames))
        hits = tf.reduce_sum(likely * frames, axis=2)
        either = tf.reduce_sum(tf.maximum(likely, frames), axis=2)
        return values, hits, either, kl

    def _encode_graph(self, frames: Any, lengths: Any, told: Any) -> Any:
        mask = tf.sequence_mask(lengths, tf.shape(frames)[1], tf.float32)
        return self.network.encode(frames, mask, told)[0] if self.network.latent_size else told

    def _write_graph(
        self, uniform: Any, heat: Any, told: Any, latent: Any, given: Any, lengths: Any
    ) -> Any:
        network, shape = self.network, tf.shape(uniform)
        beside = network.told(told, latent if network.latent_size else None)
        written = tf.TensorArray(tf.float32, shape[1], element_shape=(None, NOTES))

        def body(t: Any, frame: Any, rolls: Any, *state: Any) -> Any:
            x = tf.concat([frame, beside], axis=1)
            features, after = network.trunk.step(x, list(state))
            frame = network.output_layer.sample(features, uniform[:, t], heat)
            frame = tf.where((t < lengths)[:, None], given[:, t], frame)
            return (t + 1, frame, rolls.write(t, frame), *after)

        start = (tf.constant(0), tf.zeros((shape[0], NOTES)), written)
        state = network.trunk.start(shape[0])
        _, _, rolls, *_ = tf.while_loop(lambda t, *_: t < shape[1], body, (*start, *state))
        return tf.transpose(rolls.stack(), (1, 0, 2))


def _padded(pieces: Sequence[Roll], total: int = 1) -> tuple[Any, Any]:
    """Frames (batch, frame, 88) with silence at the end, and the lengths."""
    lengths = [len(piece) for piece in pieces]
    frames = np.zeros((len(pieces), max([total, *lengths]), NOTES), np.float32)
    for row, piece in zip(frames, pieces, strict=True):
        row[: len(piece)] = piece
    return tf.constant(frames), tf.constant(lengths, tf.int32)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Pieces of similar lengths that are read together."""
    found: list[list[int]] = []
    for (i,) in (part.tolist() for part in batch_indices(lengths, 1, None, 0)):
        size = len(found[-1]) + 1 if found else 0
        if not found or size > MAX_PIECES or size * lengths[i] > MAX_FRAMES:
            found.append([])
        found[-1].append(i)
    return found
