"""Encoder-decoder with attention: bidirectional LSTM encoder, LSTM decoder with input feeding.

Attention: Luong et al. 2015, arXiv 1508.04025, "general" scores (Bahdanau et al. 2015, arXiv
1409.0473, "additive" scores). Residual connections between deep layers: Wu et al. 2016, arXiv
1609.08144. Target embedding and output layer share their weights: Press & Wolf 2017, arXiv
1608.05859. Dropout within the decoder has the same mask at all steps: Gal & Ghahramani 2016, arXiv
1512.05287.
Input: source and before, int (batch, token), padded with 0. Output: logits of the next target
token (batch, token, vocabulary).
"""

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ostinato.layers import LSTM
from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import (
    Vocabularies,
    drop_words,
    embedded_inputs,
    output_projection,
)
from ostinato.units import DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "start_decoding"]


def build(
    data: Vocabularies,
    *,
    units: Units,
    num_layers: NumLayers,
    attention_score: Literal["general", "additive"],
    dropout: DropoutRate,
    word_dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the vocabularies.
        units: width of the embeddings, of an LSTM in each direction and of the decoder.
        num_layers: bidirectional LSTMs of the encoder; and LSTMs of the decoder.
        attention_score: compares a decoder state with the encoder's outputs.
        dropout: rate after the embeddings, after each LSTM and after the attentional states.
        word_dropout: share of the tokens whose whole embedding is dropped.
    """
    inputs, source_embedding, target_embedding = embedded_inputs(data, units)
    mask = ops.not_equal(inputs["source"], 0)
    x = drop_words(source_embedding(inputs["source"]), word_dropout)
    x = keras.layers.Dropout(dropout)(x)
    for depth in range(num_layers):
        lstm = keras.layers.Bidirectional(LSTM(units, return_sequences=True))
        output = keras.layers.Dropout(dropout)(lstm(x, mask=mask))
        x = keras.layers.add([x, output]) if depth else output
    memory = keras.layers.Identity(name="memory")(x)
    decoder = Decoder(units, num_layers, attention_score, dropout, name="decoder")
    y = drop_words(target_embedding(inputs["before"]), word_dropout)
    y = decoder(keras.layers.Dropout(dropout)(y), memory, mask)
    logits = target_embedding(keras.layers.Dropout(dropout)(y), reverse=True)
    return keras.Model(inputs, logits, name="attention")


def start_decoding(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Encode a batch of sources.

    Returns:
        The step function, the initial state and the shared arrays: see `ostinato.decoding.Step`.
    """
    embedding, decoder = model.get_layer("target_embedding"), model.get_layer("decoder")
    project = output_projection(embedding)
    (source_input,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(source_input, model.get_layer("memory").output)
    memory, mask = tf.cast(encoder(source, training=False), tf.float32), source != 0

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        x = decoder.project_inputs(tf.cast(embedding(tokens), tf.float32))
        state, attention = decoder.step(x, state, *shared)
        return project(state["attentional"]), attention, state

    state = tf.nest.map_structure(lambda leaf: leaf[:, 0], decoder.initial_state(memory, mask))
    return step, state, (decoder.project_memory(memory), memory, mask)


@keras.saving.register_keras_serializable(package="ostinato.translation")
class Decoder(keras.layers.Layer):
    """LSTMs that attend to a memory, with input feeding; over a whole target or step by step.

    `step` takes (batch, hypothesis, feature), as decoding has several hypotheses for a memory.
    """

    def __init__(
        self, units: int, num_layers: int, attention_score: str, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units, self.num_layers = units, num_layers
        self.attention_score, self.dropout = attention_score, dropout
        self.drop = keras.layers.Dropout(dropout)

    def build(self, x_shape: Any, memory_shape: Any, valid_shape: Any) -> None:
        """Create the weights."""
        width, units = memory_shape[-1], self.units
        bias = np.repeat([0.0, 1.0, 0.0, 0.0], units)  # of the forget gate 1, as in Keras

        def weight(name: str, *shape: int, initializer: Any = "glorot_uniform") -> Any:
            return self.add_weight(name=name, shape=shape, initializer=initializer)

        self.bridge = weight("bridge", width, 2 * self.num_layers * units)
        # The first LSTM's kernel for the embedding, which `call` applies to all steps at once.
        self.input_kernel = weight("input_kernel", units, 4 * units)
        # Kernel for a layer's other input (in the first one the attentional state) and its state.
        self.kernels = [weight(f"kernel_{d}", 2 * units, 4 * units) for d in range(self.num_layers)]
        self.biases = [
            weight(f"bias_{d}", 4 * units, initializer=keras.initializers.Constant(bias))
            for d in range(self.num_layers)
        ]
        self.memory_kernel = weight("memory_kernel", width, units)
        if self.attention_score == "additive":
            self.query_kernel = weight("query_kernel", units, units)
            self.score_kernel = weight("score_kernel", units, 1)
        self.combine = weight("combine", units + width, units)

    def call(self, x: Any, memory: Any, valid: Any, training: bool = False) -> Any:
        """(batch, token, unit) to the attentional states (batch, token, unit)."""
        x = tf.transpose(self.project_inputs(x), (1, 0, 2))[:, :, None]
        keys, initial = self.project_memory(memory), self.initial_state(memory, valid)
        ones = tf.ones_like(initial["attentional"])
        dropout_masks = [self.drop(ones, training=training) for _ in range(self.num_layers)]
        steps = tf.shape(x)[0]
        outputs = tf.TensorArray(x.dtype, steps, element_shape=(None, 1, self.units))

        def body(t: Any, state: Any, outputs: Any) -> Any:
            state, _ = self.step(x[t], state, keys, memory, valid, dropout_masks)
            return t + 1, state, outputs.write(t, state["attentional"])

        *_, outputs = tf.while_loop(
            lambda t, *_: t < steps,
            body,
            (tf.constant(0), initial, outputs),
            maximum_iterations=steps,
            parallel_iterations=1,
        )
        return tf.transpose(outputs.stack()[:, :, 0], (1, 0, 2))

    def initial_state(self, memory: Any, valid: Any) -> Any:
        """The state before the first step, from the mean of the memory."""
        weights = tf.cast(valid, memory.dtype)[..., None]
        mean = tf.reduce_sum(memory * weights, 1) / tf.maximum(tf.reduce_sum(weights, 1), 1)
        parts = tf.split(tf.tanh(_matmul(mean, self.bridge))[:, None], 2 * self.num_layers, axis=-1)
        return {
            "h": parts[: self.num_layers],
            "c": parts[self.num_layers :],
            "attentional": tf.zeros_like(parts[0]),
        }

    def project_memory(self, memory: Any) -> Any:
        """The attention keys (batch, source, unit)."""
        return _matmul(memory, self.memory_kernel)

    def project_inputs(self, x: Any) -> Any:
        """The embeddings' part of the first LSTM's gates, which does not depend on the state."""
        return _matmul(x, self.input_kernel) + self.biases[0]

    def step(
        self, x: Any, state: Any, keys: Any, memory: Any, valid: Any, dropout_masks: Any = None
    ) -> tuple[Any, Any]:
        """One step of the decoder.

        Args:
            x: projected inputs (batch, hypothesis, 4 units).
            state: of the previous step.
            keys: attention keys (batch, source, unit).
            memory: (batch, source, 2 units).
            valid: bool (batch, source), False for padding.
            dropout_masks: for the input of each LSTM; None in inference.

        Returns:
            The next state, and the attention (batch, hypothesis, source).
        """
        hs: list[Any] = []
        cs: list[Any] = []
        below = state["attentional"]
        for depth in range(self.num_layers):
            y = below if dropout_masks is None else below * dropout_masks[depth]
            z = _matmul(tf.concat([y, state["h"][depth]], -1), self.kernels[depth])
            z += self.biases[depth] if depth else x
            i, f, g, o = tf.split(z, 4, axis=-1)
            c = tf.sigmoid(f) * state["c"][depth] + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            hs, cs = [*hs, h], [*cs, c]
            below = below + h if depth else h
        if self.attention_score == "general":
            scores = tf.matmul(below, keys, transpose_b=True)
        else:
            both = tf.tanh(_matmul(below, self.query_kernel)[:, :, None] + keys[:, None])
            scores = _matmul(both, self.score_kernel)[..., 0]
        attention = tf.nn.softmax(tf.where(valid[:, None], scores, -1e9))
        context = tf.matmul(attention, memory)
        attentional = tf.tanh(_matmul(tf.concat([below, context], -1), self.combine))
        return {"h": hs, "c": cs, "attentional": attentional}, attention

    def compute_output_shape(
        self, x_shape: Any, memory_shape: Any, valid_shape: Any
    ) -> tuple[Any, ...]:
        """(batch, token, unit)."""
        return tuple(x_shape)

    def compute_mask(self, *_: Any, **__: Any) -> None:
        """None: the sample weights of the data mask the padding."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = ("units", "num_layers", "attention_score", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _matmul(x: Any, kernel: Any) -> Any:
    """(..., feature) times (feature, unit), as one matrix product."""
    flat = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel)
    units = flat.shape[-1]
    shape = tf.concat([tf.shape(x)[:-1], [units]], 0)
    return tf.ensure_shape(tf.reshape(flat, shape), (*x.shape[:-1], units))
