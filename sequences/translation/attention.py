"""A bidirectional encoder, and a decoder that attends to it at every step.

Attention: Luong et al. 2015, arXiv 1508.04025: "general" scores (Bahdanau et al. 2015, arXiv
1409.0473: "additive" ones), and input feeding: what was attended to goes into the next step.
Residual connections between deep layers: Wu et al. 2016, arXiv 1609.08144. The target's embedding
is also the output's weights: Press and Wolf 2017, arXiv 1608.05859.
Input: source and before, int (batch, token), padded with 0; output (batch, token, vocabulary),
probabilities of the next token of the target.
"""

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from sequences.decoding import Step
from sequences.layers import LSTM
from sequences.training import fit
from sequences.units import Fraction, Layers, Units

__all__ = ["build", "fit", "start"]

BOUND = 0.1  # of the uniform distribution of first embeddings


def build(
    data: Any,
    *,
    units: Units,
    layers: Layers,
    scores: Literal["general", "additive"],
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: vocabulary (of the source and of the target).
        units: width of the embeddings, of an LSTM in each direction and of the decoder.
        layers: bidirectional LSTMs of the encoder; and LSTMs of the decoder.
        scores: how a state and what is attended to are compared.
        dropout: share dropped of the embeddings, after each LSTM and of the attentional states.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    before = keras.Input((None,), dtype="int32", name="before")
    first = keras.initializers.RandomUniform(-BOUND, BOUND)
    x = keras.layers.Embedding(data.vocabulary[0], units, first, mask_zero=True)(source)
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(layers):
        lstm = LSTM(units, return_sequences=True)
        y = keras.layers.Dropout(dropout)(keras.layers.Bidirectional(lstm)(x))
        x = keras.layers.add([x, y]) if depth else y
    memory = keras.layers.Identity(name="memory")(x)
    x = Decoder(data.vocabulary[1], units, layers, scores, dropout, name="decoder")(
        before, memory, ops.not_equal(source, 0)
    )
    x = keras.layers.Activation("softmax", dtype="float32", name="next")(x)
    return keras.Model({"source": source, "before": before}, x)


def start(model: keras.Model, source: Any) -> tuple[Step, Any]:
    """The step function of `sequences.decoding` for a batch of sources, and its first state."""
    given = {x.name: x for x in model.inputs}
    encoder = keras.Model(given["source"], model.get_layer("memory").output)
    decoder = model.get_layer("decoder")
    memory, real = encoder(source, training=False), source != 0
    keys = decoder.keys(memory)

    def step(tokens: Any, state: Any) -> Any:
        x = decoder.project(ops.take(decoder.embedding, tokens, axis=0))
        state, attention = decoder.turn(x, state, keys, memory, real)
        return decoder.tell(state["fed"]), attention, state

    return step, tf.nest.map_structure(lambda leaf: leaf[:, 0], decoder.begin(memory, real))


@keras.saving.register_keras_serializable(package="ostinato")
class Decoder(keras.layers.Layer):
    """LSTMs that attend to a memory, with input feeding: as a loop over a target, or turn by turn.

    A turn takes (batch, hypothesis, feature), since decoding has many hypotheses for one memory.
    """

    def __init__(
        self, vocabulary: int, units: int, layers: int, scores: str, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary, self.units, self.layers = vocabulary, units, layers
        self.scores, self.dropout = scores, dropout
        self.drop = keras.layers.Dropout(dropout)

    def build(self, before_shape: Any, memory_shape: Any, real_shape: Any) -> None:
        """Make the weights."""
        wide, units = memory_shape[-1], self.units
        bias = np.repeat([0.0, 1.0, 0.0, 0.0], units)  # an open forget gate, as Keras'

        def weight(name: str, *shape: int, initializer: Any = "glorot_uniform") -> Any:
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        first = keras.initializers.RandomUniform(-BOUND, BOUND)
        self.embedding = weight("embedding", self.vocabulary, units, initializer=first)
        self.offset = weight("offset", self.vocabulary, initializer="zeros")
        self.bridge = weight("bridge", wide, 2 * self.layers * units)
        self.said = weight("said", units, 4 * units)  # the embedding's part of the first input
        self.kernels = [weight(f"kernel_{d}", units, 4 * units) for d in range(self.layers)]
        self.recurrent = [
            weight(f"recurrent_{d}", units, 4 * units, initializer="orthogonal")
            for d in range(self.layers)
        ]
        self.biases = [
            weight(f"bias_{d}", 4 * units, initializer=keras.initializers.Constant(bias))
            for d in range(self.layers)
        ]
        self.score = weight("score", wide, units)
        if self.scores == "additive":
            self.query, self.sum = weight("query", units, units), weight("sum", units, 1)
        self.combine = weight("combine", units + wide, units)

    def call(self, before: Any, memory: Any, real: Any, training: bool = False) -> Any:
        """(batch, token) to logits (batch, token, vocabulary), by teacher forcing."""
        x = self.drop(ops.take(self.embedding, before, axis=0), training=training)
        steps, keys = tf.shape(before)[1], self.keys(memory)
        projected = tf.transpose(self.project(x), (1, 0, 2))[:, :, None]
        told = tf.TensorArray(x.dtype, steps, element_shape=(None, 1, self.units))

        def body(t: Any, state: Any, told: Any) -> Any:
            state, _ = self.turn(projected[t], state, keys, memory, real)
            return t + 1, state, told.write(t, state["fed"])

        begin = (tf.constant(0), self.begin(memory, real), told)
        *_, told = tf.while_loop(
            lambda t, *_: t < steps, body, begin, maximum_iterations=steps, parallel_iterations=1
        )
        fed = tf.transpose(told.stack()[:, :, 0], (1, 0, 2))
        return self.tell(self.drop(fed, training=training))

    def begin(self, memory: Any, real: Any) -> Any:
        """The state before the first turn, from the mean of the memory."""
        weights = tf.cast(real, memory.dtype)[..., None]
        mean = tf.reduce_sum(memory * weights, 1) / tf.maximum(tf.reduce_sum(weights, 1), 1)
        parts = tf.split(tf.tanh(_product(mean, self.bridge))[:, None], 2 * self.layers, axis=-1)
        return {
            "h": parts[: self.layers],
            "c": parts[self.layers :],
            "fed": tf.zeros_like(parts[0]),
        }

    def keys(self, memory: Any) -> Any:
        """What states are compared with: (batch, source, unit)."""
        return _product(memory, self.score)

    def project(self, x: Any) -> Any:
        """The embeddings' part of the first LSTM's gates, which needs no state."""
        return _product(x, self.said) + self.biases[0]

    def turn(self, x: Any, state: Any, keys: Any, memory: Any, real: Any) -> tuple[Any, Any]:
        """One step: the next state, and the attention (batch, hypothesis, source)."""
        hs: list[Any] = []
        cs: list[Any] = []
        below = state["fed"]
        for depth in range(self.layers):
            z = _product(below, self.kernels[depth])
            z += _product(state["h"][depth], self.recurrent[depth])
            z += self.biases[depth] if depth else x
            i, f, g, o = tf.split(z, 4, axis=-1)
            c = tf.sigmoid(f) * state["c"][depth] + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            hs, cs = [*hs, h], [*cs, c]
            below = below + h if depth else h
        if self.scores == "general":
            scores = tf.matmul(below, keys, transpose_b=True)
        else:
            both = tf.tanh(_product(below, self.query)[:, :, None] + keys[:, None])
            scores = _product(both, self.sum)[..., 0]
        scores = tf.where(real[:, None], tf.cast(scores, tf.float32), -1e9)
        attention = tf.nn.softmax(scores)
        context = tf.matmul(tf.cast(attention, memory.dtype), memory)
        fed = tf.tanh(_product(tf.concat([below, context], -1), self.combine))
        return {"h": hs, "c": cs, "fed": fed}, attention

    def tell(self, fed: Any) -> Any:
        """Logits of the next token."""
        return _product(fed, self.embedding, turned=True) + self.offset

    def compute_output_shape(
        self, before_shape: Any, memory_shape: Any, real_shape: Any
    ) -> tuple[Any, ...]:
        """(batch, token, vocabulary)."""
        return (*before_shape, self.vocabulary)

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """Which tokens count is told by the data's weights."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = ("vocabulary", "units", "layers", "scores", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _product(x: Any, weight: Any, turned: bool = False) -> Any:
    """(..., feature) times (feature, unit), or (unit, feature) turned, as one of matrices."""
    weight = tf.cast(weight, x.dtype)
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), weight, transpose_b=turned)
    units = flat.shape[-1]
    shape = tf.concat([tf.shape(x)[:-1], [units]], 0)
    return tf.ensure_shape(tf.reshape(flat, shape), (*x.shape[:-1], units))
