"""A causal transformer: attention to all steps so far.

Vaswani et al. 2017, arXiv 1706.03762, with sinusoidal positions; layer normalisation before each
block: Xiong et al. 2020, arXiv 2002.04745. Input: (batch, step, feature).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import answer, fit, restore, save, sequence_input
from ostinato.units import DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: ModelData,
    *,
    head_dim: Units,
    num_heads: NumLayers,
    num_layers: NumLayers,
    feedforward_dim: Units,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        head_dim: of a head.
        num_heads: of the attention.
        num_layers: number of blocks.
        feedforward_dim: of the dense layers of a block.
        dropout: rate of what a block adds.
    """
    width = head_dim * num_heads
    inputs = sequence_input(data)
    x = SinusoidalPositions()(keras.layers.Dense(width)(inputs))
    for _ in range(num_layers):
        normal = keras.layers.LayerNormalization()(x)
        attended = keras.layers.MultiHeadAttention(num_heads, head_dim)(
            normal, normal, use_causal_mask=True
        )
        x = x + keras.layers.Dropout(dropout)(attended)
        hidden = keras.layers.LayerNormalization()(x)
        hidden = keras.layers.Dense(feedforward_dim, activation="gelu")(hidden)
        x = x + keras.layers.Dropout(dropout)(keras.layers.Dense(width)(hidden))
    return keras.Model(inputs, answer(data, keras.layers.LayerNormalization()(x)))


@keras.saving.register_keras_serializable(package="ostinato")
class SinusoidalPositions(keras.layers.Layer):
    """Add sines and cosines of the step's number, with wavelengths of 2 pi to 20,000 pi."""

    def call(self, x: Any) -> Any:
        """(batch, step, unit) to the same."""
        units = x.shape[-1]
        half = (units + 1) // 2
        rates = ops.convert_to_tensor(10_000.0 ** (-np.arange(half) / half), "float32")
        angles = ops.cast(ops.arange(ops.shape(x)[1]), "float32")[:, None] * rates
        waves = ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1)[:, :units]
        return x + ops.cast(waves, x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape
