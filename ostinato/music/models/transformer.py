"""A causal transformer with learned distances: Vaswani et al. 2017, arXiv 1706.03762.

Layer normalisation before each block: Xiong et al. 2020, arXiv 2002.04745. Distances: Raffel et al.
2020, arXiv 1910.10683; for music, Huang et al. 2019, arXiv 1809.04281.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ostinato.music.dataset.loader import Dataset
from ostinato.music.layers import (
    Network,
    OutputName,
    State,
    Writer,
    condition_size,
    fit,
    load,
    save,
)
from ostinato.units import DropoutRate, Length, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


class Block(keras.layers.Layer):
    """Attention to the last frames, and two dense layers; both are added to their input.

    Layer normalisation comes before each (Xiong et al. 2020, arXiv 2002.04745). A learned number
    for each head and distance is added to the scores (Raffel et al. 2020, arXiv 1910.10683), so
    that the place in the piece does not count.
    """

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int, context: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.context = num_heads, dim // num_heads, context
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(2)]
        self.queries = keras.layers.Dense(3 * dim)
        self.join = keras.layers.Dense(dim)
        self.widen = keras.layers.Dense(feedforward_dim, activation="gelu")
        self.narrow = keras.layers.Dense(dim)
        for layer in (*self.norms, self.queries, self.join, self.widen):
            layer.build((None, dim))
        self.narrow.build((None, feedforward_dim))
        self.nearness = self.add_weight(
            shape=(num_heads, context), initializer="zeros", name="nearness"
        )
        self.built = True

    def split(self, x: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values (..., head, size) of (..., dim)."""
        found = self.queries(self.norms[0](x))
        shape = tf.concat([tf.shape(x)[:-1], [3 * self.heads, self.head_dim]], axis=0)
        query, key, value = tf.split(tf.reshape(found, shape), 3, axis=-2)
        return query * self.head_dim**-0.5, key, value

    def merge(self, x: Any, attended: Any, dropout: Callable[[Any], Any]) -> Any:
        """The output (..., dim) from the attended values (..., head, size)."""
        x += dropout(self.join(tf.reshape(attended, tf.shape(x))))
        return x + dropout(self.narrow(self.widen(self.norms[1](x))))

    def call(self, x: Any, dropout: Callable[[Any], Any]) -> Any:
        """Map (batch, frame, dim) to the same shape."""
        query, key, value = self.split(x)
        places = tf.range(tf.shape(x)[1])
        distance = places[:, None] - places
        visible = (distance >= 0) & (distance < self.context)
        nearness = tf.gather(
            tf.convert_to_tensor(self.nearness),
            tf.clip_by_value(distance, 0, self.context - 1),
            axis=1,
        )
        scores = tf.einsum("bqhs,bkhs->bhqk", query, key) + nearness
        shares = tf.nn.softmax(tf.where(visible, scores, _lowest(scores)))
        return self.merge(x, tf.einsum("bhqk,bkhs->bqhs", shares, value), dropout)

    def step(self, x: Any, keys: Any, values: Any, count: Any) -> tuple[Any, Any, Any]:
        """One more frame (batch, dim), after ``count`` ones; the buffers hold the last ones."""
        query, key, value = self.split(x)
        keys = tf.concat([keys[:, 1:], key[:, None]], axis=1)
        values = tf.concat([values[:, 1:], value[:, None]], axis=1)
        distance = tf.range(self.context - 1, -1, -1)
        nearness = tf.gather(tf.convert_to_tensor(self.nearness), distance, axis=1)
        scores = tf.einsum("bhs,bkhs->bhk", query, keys) + nearness
        shares = tf.nn.softmax(tf.where(distance <= count, scores, _lowest(scores)))
        attended = tf.einsum("bhk,bkhs->bhs", shares, values)
        return self.merge(x, attended, lambda x: x), keys, values


class Attentive(keras.layers.Layer):
    """A causal transformer (Vaswani et al. 2017, arXiv 1706.03762).

    Args:
        inputs: size of an input.
        head_dim: of a head.
        num_heads: of the attention.
        num_layers: number of blocks.
        feedforward_dim: of the dense layers of a block.
        context: frames that a block attends to: the current one and those before.
        dropout: rate of what a block adds.
    """

    def __init__(
        self,
        inputs: int,
        head_dim: int,
        num_heads: int,
        num_layers: int,
        feedforward_dim: int,
        context: int,
        dropout: float,
    ) -> None:
        super().__init__()
        dim = head_dim * num_heads
        self.embed = keras.layers.Dense(dim)
        self.embed.build((None, inputs))
        self.blocks = [Block(dim, num_heads, feedforward_dim, context) for _ in range(num_layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5)
        self.norm.build((None, dim))
        self.seeds, self.rate = keras.random.SeedGenerator(0), dropout
        self.size, self.built = dim, True

    def call(self, x: Any, training: bool = False) -> Any:
        """Features (batch, frame, size) of inputs (batch, frame, input)."""

        def dropout(x: Any) -> Any:
            return keras.random.dropout(x, self.rate, seed=self.seeds) if training else x

        x = dropout(self.embed(x))
        for block in self.blocks:
            x = block(x, dropout=dropout)
        return self.norm(x)

    def start(self, batch: Any) -> State:
        """Empty buffers, and the number of frames so far."""
        block = self.blocks[0]
        shape = (batch, block.context, block.heads, block.head_dim)
        empty = tf.zeros(shape, self.compute_dtype)
        return [tf.zeros((), tf.int32), *[empty] * (2 * len(self.blocks))]

    def step(self, x: Any, state: State) -> tuple[Any, State]:
        """The features of one more frame, and the state after it."""
        x, after = self.embed(x), [state[0] + 1]
        for block, keys, values in zip(self.blocks, state[1::2], state[2::2], strict=True):
            x, keys, values = block.step(x, keys, values, state[0])
            after += [keys, values]
        return self.norm(x), after


def _lowest(scores: Any) -> Any:
    return tf.constant(-1e9 if scores.dtype == tf.float32 else -3e4, scores.dtype)


def network(
    *,
    head_dim: int,
    num_heads: int,
    num_layers: int,
    feedforward_dim: int,
    context: int,
    output: OutputName,
    nade_units: int,
    condition: int,
    dropout: float,
) -> Network:
    """The network of some settings; see `build`."""
    settings = dict(locals())
    trunk = partial(
        Attentive,
        head_dim=head_dim,
        num_heads=num_heads,
        num_layers=num_layers,
        feedforward_dim=feedforward_dim,
        context=context,
        dropout=dropout,
    )
    return Network(settings, trunk, output, nade_units, condition)


def build(
    data: Dataset,
    *,
    head_dim: Units,
    num_heads: NumLayers,
    num_layers: NumLayers,
    feedforward_dim: Units,
    context: Length,
    output: OutputName,
    nade_units: Units,
    conditional: bool,
    dropout: DropoutRate,
) -> Network:
    """Build the model.

    Args:
        data: of pieces.
        head_dim: of a head.
        num_heads: of the attention.
        num_layers: number of blocks.
        feedforward_dim: of the dense layers of a block.
        context: frames that a block attends to: the current one and those before.
        output: independent notes, or "nade": each note given those below it.
        nade_units: hidden units of the output "nade".
        conditional: whether the model knows the style and the key.
        dropout: rate of what a block adds.
    """
    return network(
        head_dim=head_dim,
        num_heads=num_heads,
        num_layers=num_layers,
        feedforward_dim=feedforward_dim,
        context=context,
        output=output,
        nade_units=nade_units,
        condition=condition_size(data, conditional),
        dropout=dropout,
    )


def restore(folder: Path) -> Writer:
    """Read what `save` has written."""
    return Writer(load(network, folder))
