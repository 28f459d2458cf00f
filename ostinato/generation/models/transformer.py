"""A causal transformer of stroke-5 rows with the mixture of SketchRNN's decoder.

Vaswani et al. 2017, arXiv 1706.03762; layer normalisation before each block: Xiong et al. 2020,
arXiv 2002.04745. The class is added to the input of every row. There is no latent vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ostinato.generation.dataset.loader import Dataset
from ostinato.generation.formats.mixture import mixture_size
from ostinato.generation.layers import (
    Generator,
    fit,
    load,
    read_before,
    save,
)
from ostinato.units import (
    DropoutRate,
    NumLayers,
    Units,
)

__all__ = ["build", "fit", "restore", "save"]


class Block(keras.layers.Layer):
    """Attention to the rows before, and two dense layers; both are added to their input."""

    def __init__(self, hidden_dim: int, num_heads: int, feedforward_dim: int) -> None:
        super().__init__()
        self.heads, self.size = num_heads, hidden_dim // num_heads
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-5) for _ in range(2)]
        self.queries = keras.layers.Dense(3 * hidden_dim)
        self.join = keras.layers.Dense(hidden_dim)
        self.widen = keras.layers.Dense(feedforward_dim, activation="gelu")
        self.narrow = keras.layers.Dense(hidden_dim)
        for layer in (*self.norms, self.queries, self.join, self.widen):
            layer.build((None, hidden_dim))
        self.narrow.build((None, feedforward_dim))
        self.built = True

    def split(self, x: Any) -> tuple[Any, Any, Any]:
        """Queries, keys and values (..., head, size) of rows (..., hidden_dim)."""
        found = self.queries(self.norms[0](x))
        shape = tf.concat([tf.shape(x)[:-1], [3 * self.heads, self.size]], axis=0)
        query, key, value = tf.split(tf.reshape(found, shape), 3, axis=-2)
        return query * self.size**-0.5, key, value

    def merge(self, x: Any, attended: Any, dropout: Any) -> Any:
        """The output (..., hidden_dim) from the attended values (..., head, size)."""
        x += dropout(self.join(tf.reshape(attended, tf.shape(x))))
        return x + dropout(self.narrow(self.widen(self.norms[1](x))))


class CausalTransformer(keras.layers.Layer):
    """A decoder of stroke-5 rows (`ostinato.generation.layers.Generator`).

    Args:
        hidden_dim: of a row.
        num_heads: of the attention; a divisor of ``hidden_dim``.
        num_layers: number of blocks.
        feedforward_dim: of the dense layers.
        mixtures: Gaussians of a row.
        classes: of the condition; 0: none.
        dropout: rate of what a block adds.
        scale: by which the data set divides offsets.
        longest: rows of a drawing at most.
    """

    latent_size = 0

    def __init__(
        self,
        *,
        hidden_dim: int,
        num_heads: int,
        num_layers: int,
        feedforward_dim: int,
        mixtures: int,
        classes: int,
        dropout: float,
        scale: float,
        longest: int,
    ) -> None:
        super().__init__()
        self.settings = {
            "hidden_dim": hidden_dim,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "feedforward_dim": feedforward_dim,
            "mixtures": mixtures,
            "classes": classes,
            "dropout": dropout,
            "scale": scale,
            "longest": longest,
        }
        self.scale, self.longest, self.hidden_dim = scale, longest, hidden_dim
        self.classes, self.rate = classes, dropout
        self.seeds = keras.random.SeedGenerator(0)
        self.embed = keras.layers.Dense(hidden_dim)
        self.embed.build((None, 5 + classes))
        self.blocks = [Block(hidden_dim, num_heads, feedforward_dim) for _ in range(num_layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5)
        self.norm.build((None, hidden_dim))
        self.outputs = keras.layers.Dense(mixture_size(mixtures), dtype="float32")
        self.outputs.build((None, hidden_dim))
        self.built = True

    def decode(self, rows: Any, labels: Any, latent: Any, training: bool = False) -> Any:
        """The outputs (batch, row, output) for rows, of which each attends to those before."""
        total = tf.shape(rows)[1]
        condition = tf.tile(tf.one_hot(labels, self.classes)[:, None], (1, total, 1))
        x = self.embed(tf.concat([read_before(rows), condition], axis=2))
        x += self._positions(tf.range(total))
        visible = tf.linalg.band_part(tf.ones((total, total), tf.bool), -1, 0)

        def dropout(x: Any) -> Any:
            return keras.random.dropout(x, self.rate, seed=self.seeds) if training else x

        x = dropout(x)
        for block in self.blocks:
            query, key, value = block.split(x)
            scores = tf.where(visible, tf.einsum("bqhs,bkhs->bhqk", query, key), -1e9)
            attended = tf.einsum("bhqk,bkhs->bqhs", tf.nn.softmax(scores), value)
            x = block.merge(x, attended, dropout)
        return self.outputs(self.norm(x))

    def roller(self, labels: Any, latent: Any, length: Any) -> tuple[Any, Sequence[Any]]:
        """The step of `roll_out`, and its state: the keys and values of the rows so far."""
        condition = tf.one_hot(labels, self.classes)
        block = self.blocks[0]
        empty = tf.zeros((length, tf.shape(labels)[0], block.heads, block.size))

        def step(t: Any, rows: Any, state: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
            x = self.embed(tf.concat([rows, condition], axis=1)) + self._positions(t[None])
            after = []
            for number, block in enumerate(self.blocks):
                query, key, value = block.split(x)
                keys, values = (
                    tf.tensor_scatter_nd_update(state[2 * number + k], t[None, None], new[None])
                    for k, new in enumerate((key, value))
                )
                scores = tf.einsum("bhs,kbhs->bhk", query, keys[: t + 1])
                attended = tf.einsum("bhk,kbhs->bhs", tf.nn.softmax(scores), values[: t + 1])
                x = block.merge(x, attended, lambda x: x)
                after += [keys, values]
            return self.outputs(self.norm(x)), after

        return step, [empty] * (2 * len(self.blocks))

    def _positions(self, numbers: Any) -> Any:
        """Sines and cosines of row numbers (row,): (row, hidden_dim)."""
        half = (self.hidden_dim + 1) // 2
        rates = tf.constant(10_000.0 ** (-np.arange(half) / half), tf.float32)
        angles = tf.cast(numbers, tf.float32)[:, None] * rates
        return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)[:, : self.hidden_dim]


def build(
    data: Dataset,
    *,
    head_dim: Units,
    num_heads: NumLayers,
    num_layers: NumLayers,
    feedforward_dim: Units,
    mixtures: Units,
    class_conditional: bool,
    dropout: DropoutRate,
) -> CausalTransformer:
    """Build the model.

    Args:
        data: of drawings.
        head_dim: of a head.
        num_heads: of the attention.
        num_layers: number of blocks.
        feedforward_dim: of the dense layers of a block.
        mixtures: Gaussians of a row.
        class_conditional: whether the model knows the class.
        dropout: rate of what a block adds.
    """
    return CausalTransformer(
        hidden_dim=head_dim * num_heads,
        num_heads=num_heads,
        num_layers=num_layers,
        feedforward_dim=feedforward_dim,
        mixtures=mixtures,
        classes=len(data.classes) if class_conditional else 0,
        dropout=dropout,
        scale=data.scale,
        longest=data.longest,
    )


def restore(folder: Path) -> Generator:
    """Read what `save` has written."""
    return load(CausalTransformer, folder)
