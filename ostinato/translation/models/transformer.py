"""Transformer: encoder and decoder of self-attention layers, without recurrence.

Vaswani et al. 2017, arXiv 1706.03762, with layer normalisation before each sublayer: Xiong et al.
2020, arXiv 2002.04745. Target embedding and output layer share their weights.
Input: source and before, int (batch, token), padded with 0. Output: logits of the next target
token (batch, token, vocabulary).
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ostinato.errors import ParamsError
from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import (
    Vocabularies,
    drop_words,
    embedded_inputs,
    output_projection,
)
from ostinato.units import Count, DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "start_decoding"]


def build(
    data: Vocabularies,
    *,
    units: Units,
    num_heads: Count,
    feedforward_units: Units,
    num_layers: NumLayers,
    dropout: DropoutRate,
    word_dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the vocabularies.
        units: width of the embeddings and of the layers, a multiple of ``num_heads``.
        num_heads: attention heads of a layer.
        feedforward_units: width of the feed-forward sublayers.
        num_layers: of the encoder, and of the decoder.
        dropout: rate after the embeddings and after each sublayer.
        word_dropout: share of the tokens whose whole embedding is dropped.

    Raises:
        ParamsError: ``units`` is not a multiple of ``num_heads``.
    """
    if units % num_heads:
        raise ParamsError(f"units: {units} is not a multiple of num_heads {num_heads}")
    inputs, source_embedding, target_embedding = embedded_inputs(data, units)
    mask = ops.not_equal(inputs["source"], 0)
    x = drop_words(source_embedding(inputs["source"]), word_dropout)
    y = drop_words(target_embedding(inputs["before"]), word_dropout)
    x, y = (keras.layers.Dropout(dropout)(PositionalEncoding()(z)) for z in (x, y))
    for _ in range(num_layers):
        x = TransformerLayer(num_heads, feedforward_units, dropout)(x, mask)
    memory = keras.layers.LayerNormalization(name="memory")(x)
    for depth in range(num_layers):
        layer = TransformerLayer(num_heads, feedforward_units, dropout, name=f"decoder_{depth}")
        y = layer(y, mask, memory)
    y = keras.layers.LayerNormalization(name="output_norm")(y)
    return keras.Model(inputs, target_embedding(y, reverse=True), name="transformer")


def start_decoding(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Encode a batch of sources.

    Returns:
        The step function, the initial state and the shared arrays: see `ostinato.decoding.Step`.
        The attention is the mean over the heads of the last layer.
    """
    embedding, norm = model.get_layer("target_embedding"), model.get_layer("output_norm")
    project = output_projection(embedding)
    (source_input,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(source_input, model.get_layer("memory").output)
    memory, mask = encoder(source, training=False), source != 0
    encode_position = PositionalEncoding(dtype=model.dtype_policy)
    layers = [layer for layer in model.layers if layer.name.startswith("decoder_")]
    cross = [layer.cross_attention.project_memory(memory) for layer in layers]

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        cross, mask = shared
        position = tf.shape(state[0])[2]
        y = encode_position(embedding(tokens)[:, :, None], position)[:, :, 0]
        next_state, attention = [], None
        for layer, past, keys_values in zip(layers, state, cross, strict=True):
            y, past, attention = layer.step(y, past, keys_values, mask)
            next_state.append(past)
        return project(norm(y)), attention, next_state

    empty = tf.zeros((tf.shape(source)[0], 0, cross[0].shape[-1]), memory.dtype)
    return step, [empty for _ in layers], (cross, mask)


@keras.saving.register_keras_serializable(package="ostinato.translation")
class PositionalEncoding(keras.layers.Layer):
    """Embeddings scaled by the root of their width, plus sinusoidal positional encodings."""

    def call(self, x: Any, first: Any = 0) -> Any:
        """(..., token, unit) to the same shape; ``first`` is the position of the first token."""
        units = x.shape[-1]
        rates = tf.exp(tf.range(0, units, 2, tf.float32) * (-np.log(1e4) / units))
        angles = tf.cast(first + tf.range(tf.shape(x)[-2]), tf.float32)[:, None] * rates
        waves = tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)[:, :units]
        return x * units**0.5 + tf.cast(waves, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """The input's shape."""
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="ostinato.translation")
class TransformerLayer(keras.layers.Layer):
    """An encoder layer; with a memory, a decoder layer.

    Sublayers: self-attention, cross-attention to the memory, feed-forward. Each one normalises its
    input and adds its output to the input.
    """

    def __init__(
        self, num_heads: int, feedforward_units: int, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.feedforward_units = num_heads, feedforward_units
        self.dropout = dropout

    def build(self, x_shape: Any, valid_shape: Any, memory_shape: Any = None) -> None:
        """Create the weights."""
        units = x_shape[-1]

        def built(layer: Any, width: int = units) -> Any:
            layer.build((None, None, width))
            return layer

        kinds = ["self", "cross", "feedforward"] if memory_shape else ["self", "feedforward"]
        self.norms = {
            kind: built(keras.layers.LayerNormalization(name=f"{kind}_norm")) for kind in kinds
        }
        self.self_attention = built(MultiHeadAttention(self.num_heads, name="self_attention"))
        if memory_shape:
            self.cross_attention = built(MultiHeadAttention(self.num_heads, name="cross_attention"))
        self.expand = built(keras.layers.Dense(self.feedforward_units, "relu", name="expand"))
        self.reduce = built(keras.layers.Dense(units, name="reduce"), self.feedforward_units)
        self.drop = keras.layers.Dropout(self.dropout)

    def call(self, x: Any, valid: Any, memory: Any = None, training: bool = False) -> Any:
        """Transform the source, or the target.

        Args:
            x: (batch, token, unit).
            valid: bool (batch, source), False for padding.
            memory: (batch, source, unit); None if x is the source.
            training: whether to apply dropout.
        """
        y = self.norms["self"](x)
        visible = valid[:, None, None]
        if memory is not None:
            position = tf.range(tf.shape(x)[1])
            visible = position[:, None] >= position  # causal
        y, _ = self.self_attention(y, self.self_attention.project_memory(y), visible)
        x += self.drop(y, training=training)
        if memory is not None:
            y = self.norms["cross"](x)
            keys_values = self.cross_attention.project_memory(memory)
            y, _ = self.cross_attention(y, keys_values, valid[:, None, None])
            x += self.drop(y, training=training)
        return x + self.drop(self.feedforward(x), training=training)

    def step(self, x: Any, past: Any, keys_values: Any, valid: Any) -> tuple[Any, Any, Any]:
        """One step of decoding.

        Args:
            x: (batch, hypothesis, unit).
            past: keys and values of the previous tokens (batch, hypothesis, token, 2 units).
            keys_values: of the memory (batch, source, 2 units).
            valid: bool (batch, source), False for padding.

        Returns:
            The output (batch, hypothesis, unit), ``past`` with one more token, and the
            cross-attention (batch, hypothesis, source).
        """
        y = self.norms["self"](x)[:, :, None]
        past = tf.concat([past, self.self_attention.project_memory(y)], axis=2)
        x += self.self_attention(y, past)[0][:, :, 0]
        y = self.norms["cross"](x)
        y, attention = self.cross_attention(y, keys_values, valid[:, None, None])
        x += y
        return x + self.feedforward(x), past, attention

    def feedforward(self, x: Any) -> Any:
        """The feed-forward sublayer."""
        return self.reduce(self.expand(self.norms["feedforward"](x)))

    def compute_output_shape(self, x_shape: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """The shape of x."""
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = ("num_heads", "feedforward_units", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="ostinato.translation")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention with several heads."""

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, x_shape: Any) -> None:
        """Create the weights."""
        units = x_shape[-1]
        self.query = keras.layers.Dense(units, name="query")
        self.key_value = keras.layers.Dense(2 * units, name="key_value")
        self.output_layer = keras.layers.Dense(units, name="output")
        for layer in (self.query, self.key_value, self.output_layer):
            layer.build((None, units))

    def project_memory(self, memory: Any) -> Any:
        """The keys and values of a memory (..., source, 2 units)."""
        return self.key_value(memory)

    def call(self, x: Any, keys_values: Any, visible: Any = None) -> tuple[Any, Any]:
        """Attend to a memory.

        Args:
            x: (..., token, unit).
            keys_values: from `project_memory` (..., source, 2 units).
            visible: bool, broadcast to (..., head, token, source); None: all tokens are visible.

        Returns:
            (..., token, unit), and the attention (..., token, source), the mean over the heads.
        """
        size = x.shape[-1] // self.num_heads
        keys, values = tf.split(keys_values, 2, axis=-1)
        query, keys, values = map(self._split_heads, (self.query(x) * size**-0.5, keys, values))
        scores = tf.matmul(query, keys, transpose_b=True)
        if visible is not None:
            scores = tf.where(visible, scores, tf.constant(-1e9, scores.dtype))
        attention = tf.nn.softmax(scores)
        y = tf.einsum("...htd->...thd", tf.matmul(attention, values))
        y = tf.ensure_shape(tf.reshape(y, tf.shape(x)), x.shape)
        return self.output_layer(y), tf.reduce_mean(attention, axis=-3)

    def _split_heads(self, x: Any) -> Any:
        """(..., token, unit) to (..., head, token, unit / heads)."""
        shape = tf.concat([tf.shape(x)[:-1], [self.num_heads, x.shape[-1] // self.num_heads]], 0)
        return tf.einsum("...thd->...htd", tf.reshape(x, shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "num_heads": self.num_heads}
