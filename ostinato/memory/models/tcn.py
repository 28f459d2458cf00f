"""A temporal convolutional network: residual blocks of dilated causal convolutions.

Bai et al. 2018, arXiv 1803.01271, with layer normalisation in place of weight normalisation. The
dilation doubles with each block, of two convolutions each: the network sees the last
1 + 2 (kernel_size - 1) (2^num_blocks - 1) steps. Input: (batch, step, feature).
"""

import keras

from ostinato.memory.dataset.loader import ModelData
from ostinato.memory.layers import answer, fit, restore, save, sequence_input
from ostinato.units import DropoutRate, KernelSize, NumLayers, Units

__all__ = ["build", "fit", "restore", "save"]


def build(
    data: ModelData,
    *,
    filters: Units,
    kernel_size: KernelSize,
    num_blocks: NumLayers,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        filters: of each convolution.
        kernel_size: of each convolution, in dilated steps.
        num_blocks: number of residual blocks.
        dropout: rate after each convolution; whole filters are dropped.
    """
    inputs = sequence_input(data)
    x = inputs
    for block in range(num_blocks):
        before = x
        for _ in range(2):
            x = keras.layers.Conv1D(filters, kernel_size, dilation_rate=2**block, padding="causal")(
                x
            )
            x = keras.layers.LayerNormalization()(x)
            x = keras.layers.SpatialDropout1D(dropout)(keras.layers.ReLU()(x))
        if before.shape[-1] != filters:
            before = keras.layers.Dense(filters)(before)
        x = keras.layers.ReLU()(before + x)
    return keras.Model(inputs, answer(data, x))
