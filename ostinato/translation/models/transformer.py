"""Attention alone: an encoder and a decoder without recurrence.

Vaswani et al. 2017, arXiv 1706.03762, with the normalisation before each part: Xiong et al. 2020,
arXiv 2002.04745. The target's embedding is also the output's weights.
Input: source and before, int (batch, token), padded with 0; output (batch, token, piece), logits
of the next token of the target.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import blanked, teller, texts
from ostinato.units import Count, Fraction, NumLayers, Units

__all__ = ["build", "fit", "start"]


def build(
    data: Any,
    *,
    units: Units,
    num_heads: Count,
    feedforward_units: Units,
    num_layers: NumLayers,
    dropout: Fraction,
    word_dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: vocabulary (of the source and of the target), joint.
        units: width of the embeddings and of the layers, a multiple of ``num_heads``.
        num_heads: attentions of a layer.
        feedforward_units: width within the feed-forward parts.
        num_layers: of the encoder, and of the decoder.
        dropout: share dropped of the embeddings, and of what each part adds.
        word_dropout: share of the tokens whose embedding is dropped as a whole.

    Raises:
        ValueError: ``units`` is not a multiple of ``num_heads``.
    """
    if units % num_heads:
        raise ValueError(f"units: {units} is not a multiple of {num_heads} heads")
    given, foreign, words = texts(data, units)
    real = ops.not_equal(given["source"], 0)
    x, y = (
        blanked(foreign(given["source"]), word_dropout),
        blanked(words(given["before"]), word_dropout),
    )
    x, y = (keras.layers.Dropout(dropout)(Positions()(z)) for z in (x, y))
    for _ in range(num_layers):
        x = Block(num_heads, feedforward_units, dropout)(x, real)
    memory = keras.layers.LayerNormalization(name="memory")(x)
    for depth in range(num_layers):
        y = Block(num_heads, feedforward_units, dropout, name=f"tell_{depth}")(y, real, memory)
    y = keras.layers.LayerNormalization(name="last")(y)
    return keras.Model(given, words(y, reverse=True), name="transformer")


def start(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Of a batch of sources: the step of `ostinato.decoding.search`, its first state, what is shared.

    The attention is that of the last layer, the mean of its heads.
    """
    words, last = model.get_layer("words"), model.get_layer("last")
    tell = teller(words)
    (given,) = (x for x in model.inputs if x.name == "source")
    memory = keras.Model(given, model.get_layer("memory").output)(source, training=False)
    real, place = source != 0, Positions(dtype=model.dtype_policy)
    blocks = [layer for layer in model.layers if layer.name.startswith("tell_")]
    read = [block.other.remember(memory) for block in blocks]

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        read, real = shared
        y = place(words(tokens)[:, :, None], tf.shape(state[0])[2])[:, :, 0]
        after, attention = [], None
        for block, own, other in zip(blocks, state, read, strict=True):
            y, own, attention = block.turn(y, own, other, real)
            after.append(own)
        return tell(last(y)), attention, after

    nothing = tf.zeros((tf.shape(source)[0], 0, read[0].shape[-1]), memory.dtype)
    return step, [nothing for _ in blocks], (read, real)


@keras.saving.register_keras_serializable(package="ostinato")
class Positions(keras.layers.Layer):
    """Embeddings times the root of their width, plus waves that tell each token's place."""

    def call(self, x: Any, begin: Any = 0) -> Any:
        """(..., token, unit) to the same; ``begin`` is the place of the first token."""
        units = x.shape[-1]
        rates = tf.exp(tf.range(0, units, 2, tf.float32) * (-np.log(1e4) / units))
        angles = tf.cast(begin + tf.range(tf.shape(x)[-2]), tf.float32)[:, None] * rates
        waves = tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)[:, :units]
        return x * units**0.5 + tf.cast(waves, x.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """That of the input."""
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="ostinato")
class Block(keras.layers.Layer):
    """A layer of the encoder, or of the decoder where it is given a memory.

    Each part (attention to the own side, to the memory, and a feed-forward one) reads what is
    normalised, and adds to what it is given.
    """

    def __init__(self, heads: int, wide: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.wide, self.dropout = heads, wide, dropout

    def build(self, x_shape: Any, real_shape: Any, memory_shape: Any = None) -> None:
        """Make the weights."""
        units = x_shape[-1]

        def built(layer: Any, width: int = units) -> Any:
            layer.build((None, None, width))
            return layer

        kinds = ["own", "wide"] if memory_shape is None else ["own", "other", "wide"]
        self.norms = {
            kind: built(keras.layers.LayerNormalization(name=f"{kind}_norm")) for kind in kinds
        }
        self.own = built(Attention(self.heads, name="own"))
        if memory_shape is not None:
            self.other = built(Attention(self.heads, name="other"))
        self.widen = built(keras.layers.Dense(self.wide, "relu", name="widen"))
        self.narrow = built(keras.layers.Dense(units, name="narrow"), self.wide)
        self.drop = keras.layers.Dropout(self.dropout)

    def call(self, x: Any, real: Any, memory: Any = None, training: bool = False) -> Any:
        """Transform one side.

        Args:
            x: (batch, token, unit).
            real: bool (batch, source), which of the source's tokens are no padding.
            memory: (batch, source, unit); without one, x is the source.
            training: whether to drop.
        """
        y = self.norms["own"](x)
        seen = real[:, None, None]
        if memory is not None:
            place = tf.range(tf.shape(x)[1])
            seen = place[:, None] >= place
        y, _ = self.own(y, self.own.remember(y), seen)
        x += self.drop(y, training=training)
        if memory is not None:
            y = self.norms["other"](x)
            y, _ = self.other(y, self.other.remember(memory), real[:, None, None])
            x += self.drop(y, training=training)
        return x + self.drop(self.feed(x), training=training)

    def turn(self, x: Any, before: Any, other: Any, real: Any) -> tuple[Any, Any, Any]:
        """One step of decoding.

        Args:
            x: (batch, hypothesis, unit).
            before: what of the own side is remembered, (batch, hypothesis, token, 2 units).
            other: what of the memory is, (batch, source, 2 units).
            real: bool (batch, source).

        Returns:
            x, before with one token more, and the attention (batch, hypothesis, source).
        """
        y = self.norms["own"](x)[:, :, None]
        before = tf.concat([before, self.own.remember(y)], axis=2)
        x += self.own(y, before)[0][:, :, 0]
        y, attention = self.other(self.norms["other"](x), other, real[:, None, None])
        x += y
        return x + self.feed(x), before, attention

    def feed(self, x: Any) -> Any:
        """The feed-forward part."""
        return self.narrow(self.widen(self.norms["wide"](x)))

    def compute_output_shape(self, x_shape: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """That of x."""
        return tuple(x_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        own = ("heads", "wide", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="ostinato")
class Attention(keras.layers.Layer):
    """Scaled dot-product attention with several heads."""

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, x_shape: Any) -> None:
        """Make the weights."""
        units = x_shape[-1]
        self.query = keras.layers.Dense(units, name="query")
        self.both = keras.layers.Dense(2 * units, name="both")
        self.joined = keras.layers.Dense(units, name="joined")
        for layer in (self.query, self.both, self.joined):
            layer.build((None, units))

    def remember(self, memory: Any) -> Any:
        """What is attended to, as keys and values: (..., source, 2 units)."""
        return self.both(memory)

    def call(self, x: Any, memory: Any, seen: Any = None) -> tuple[Any, Any]:
        """Attend.

        Args:
            x: (..., token, unit).
            memory: from ``remember``, (..., source, 2 units).
            seen: bool, broadcast to (..., head, token, source): what may be attended to; None is
                everything.

        Returns:
            (..., token, unit), and the attention (..., token, source), the mean over the heads.
        """
        size = x.shape[-1] // self.heads
        keys, values = tf.split(memory, 2, axis=-1)
        query, keys, values = map(self._apart, (self.query(x) * size**-0.5, keys, values))
        scores = tf.matmul(query, keys, transpose_b=True)
        if seen is not None:
            scores = tf.where(seen, scores, tf.constant(-1e9, scores.dtype))
        attention = tf.nn.softmax(scores)
        y = tf.einsum("...htd->...thd", tf.matmul(attention, values))
        y = tf.ensure_shape(tf.reshape(y, tf.shape(x)), x.shape)
        return self.joined(y), tf.reduce_mean(attention, axis=-3)

    def _apart(self, x: Any) -> Any:
        """(..., token, unit) to (..., head, token, unit / heads)."""
        shape = tf.concat([tf.shape(x)[:-1], [self.heads, x.shape[-1] // self.heads]], 0)
        return tf.einsum("...thd->...htd", tf.reshape(x, shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "heads": self.heads}
