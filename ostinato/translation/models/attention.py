"""A bidirectional encoder, and a decoder that attends to it at every step.

Attention: Luong et al. 2015, arXiv 1508.04025: "general" scores (Bahdanau et al. 2015, arXiv
1409.0473: "additive" ones), and input feeding: what was attended to goes into the next step.
Residual connections between deep layers: Wu et al. 2016, arXiv 1609.08144. The target's embedding
is also the output's weights: Press and Wolf 2017, arXiv 1608.05859. Dropout within the decoder
keeps its mask over all steps: Gal and Ghahramani 2016, arXiv 1512.05287.
Input: source and before, int (batch, token), padded with 0; output (batch, token, piece), logits
of the next token of the target.
"""

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ostinato.layers import LSTM
from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import blanked, teller, texts
from ostinato.units import Fraction, NumLayers, Units

__all__ = ["build", "fit", "start"]


def build(
    data: Any,
    *,
    units: Units,
    num_layers: NumLayers,
    attention_score: Literal["general", "additive"],
    dropout: Fraction,
    word_dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: vocabulary (of the source and of the target), joint.
        units: width of the embeddings, of an LSTM in each direction and of the decoder.
        num_layers: bidirectional LSTMs of the encoder; and LSTMs of the decoder.
        attention_score: how a state and what is attended to are compared.
        dropout: share dropped of the embeddings, after each LSTM and of the attentional states.
        word_dropout: share of the tokens whose embedding is dropped as a whole.
    """
    given, foreign, words = texts(data, units)
    real = ops.not_equal(given["source"], 0)
    x = blanked(foreign(given["source"]), word_dropout)
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        lstm = keras.layers.Bidirectional(LSTM(units, return_sequences=True))
        read = keras.layers.Dropout(dropout)(lstm(x, mask=real))
        x = keras.layers.add([x, read]) if depth else read
    memory = keras.layers.Identity(name="memory")(x)
    decoder = Decoder(units, num_layers, attention_score, dropout, name="decoder")
    y = blanked(words(given["before"]), word_dropout)
    y = decoder(keras.layers.Dropout(dropout)(y), memory, real)
    logits = words(keras.layers.Dropout(dropout)(y), reverse=True)
    return keras.Model(given, logits, name="attention")


def start(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Of a batch of sources: the step of `ostinato.decoding.search`, its first state, what is shared."""
    words, decoder = model.get_layer("words"), model.get_layer("decoder")
    tell = teller(words)
    (given,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(given, model.get_layer("memory").output)
    memory, real = tf.cast(encoder(source, training=False), tf.float32), source != 0

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        x = decoder.project(tf.cast(words(tokens), tf.float32))
        state, attention = decoder.turn(x, state, *shared)
        return tell(state["fed"]), attention, state

    state = tf.nest.map_structure(lambda leaf: leaf[:, 0], decoder.begin(memory, real))
    return step, state, (decoder.keys(memory), memory, real)


@keras.saving.register_keras_serializable(package="ostinato.translation")
class Decoder(keras.layers.Layer):
    """LSTMs that attend to a memory, with input feeding: as a loop over a target, or turn by turn.

    A turn takes (batch, hypothesis, feature), since decoding has many hypotheses for one memory.
    """

    def __init__(self, units: int, layers: int, scores: str, dropout: float, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units, self.layers, self.scores, self.dropout = units, layers, scores, dropout
        self.drop = keras.layers.Dropout(dropout)

    def build(self, x_shape: Any, memory_shape: Any, real_shape: Any) -> None:
        """Make the weights."""
        wide, units = memory_shape[-1], self.units
        forget = np.repeat([0.0, 1.0, 0.0, 0.0], units)  # an open forget gate, as Keras'

        def weight(name: str, *shape: int, initializer: Any = "glorot_uniform") -> Any:
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.bridge = weight("bridge", wide, 2 * self.layers * units)
        self.said = weight("said", units, 4 * units)  # the embedding's part of the first input
        # Of a layer's input (what was attended to, in the first one) and of its state before.
        self.gates = [weight(f"gates_{d}", 2 * units, 4 * units) for d in range(self.layers)]
        self.biases = [
            weight(f"bias_{d}", 4 * units, initializer=keras.initializers.Constant(forget))
            for d in range(self.layers)
        ]
        self.score = weight("score", wide, units)
        if self.scores == "additive":
            self.query, self.sum = weight("query", units, units), weight("sum", units, 1)
        self.combine = weight("combine", units + wide, units)

    def call(self, x: Any, memory: Any, real: Any, training: bool = False) -> Any:
        """(batch, token, unit) to the attentional states (batch, token, unit)."""
        x = tf.transpose(self.project(x), (1, 0, 2))[:, :, None]
        keys, begin = self.keys(memory), self.begin(memory, real)
        ones = tf.ones_like(begin["fed"])
        drops = [self.drop(ones, training=training) for _ in range(self.layers)]
        steps = tf.shape(x)[0]
        told = tf.TensorArray(x.dtype, steps, element_shape=(None, 1, self.units))

        def body(t: Any, state: Any, told: Any) -> Any:
            state, _ = self.turn(x[t], state, keys, memory, real, drops)
            return t + 1, state, told.write(t, state["fed"])

        *_, told = tf.while_loop(
            lambda t, *_: t < steps,
            body,
            (tf.constant(0), begin, told),
            maximum_iterations=steps,
            parallel_iterations=1,
        )
        return tf.transpose(told.stack()[:, :, 0], (1, 0, 2))

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

    def turn(
        self, x: Any, state: Any, keys: Any, memory: Any, real: Any, drops: Any = None
    ) -> tuple[Any, Any]:
        """One step: the next state, and the attention (batch, hypothesis, source).

        ``drops`` are the masks of dropout, one for the input of each LSTM.
        """
        hs: list[Any] = []
        cs: list[Any] = []
        below = state["fed"]
        for depth in range(self.layers):
            read = below if drops is None else below * drops[depth]
            z = _product(tf.concat([read, state["h"][depth]], -1), self.gates[depth])
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
        attention = tf.nn.softmax(tf.where(real[:, None], scores, -1e9))
        context = tf.matmul(attention, memory)
        fed = tf.tanh(_product(tf.concat([below, context], -1), self.combine))
        return {"h": hs, "c": cs, "fed": fed}, attention

    def compute_output_shape(
        self, x_shape: Any, memory_shape: Any, real_shape: Any
    ) -> tuple[Any, ...]:
        """(batch, token, unit)."""
        return tuple(x_shape)

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """Which tokens count is told by the data's weights."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = ("units", "layers", "scores", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _product(x: Any, weight: Any) -> Any:
    """(..., feature) times (feature, unit), as one product of matrices."""
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), weight)
    units = flat.shape[-1]
    shape = tf.concat([tf.shape(x)[:-1], [units]], 0)
    return tf.ensure_shape(tf.reshape(flat, shape), (*x.shape[:-1], units))
