"""R(2+1)D: a residual network of 3D convolutions, each factorised into space and time.

Tran et al. 2018, arXiv 1711.11248. The number of channels between the two convolutions is chosen
so that the pair has as many parameters as the full 3D convolution. Max pooling over 2 frames and
2 by 2 pixels replaces the paper's strides: its output does not depend on the padded length.
Inputs: clip (batch, frame, height, width, channel) in 0 to 1, right-padded with zero frames, and
frames (batch,), the number of real frames. Output: probabilities (batch, class).
"""

from typing import Any

import keras

from ostinato.layers import MaskedPooling
from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, NumLayers, Units
from ostinato.video.layers import ClipData, FrameNormalisation, clip_inputs

__all__ = ["build", "fit"]


def build(
    data: ClipData,
    *,
    filters: list[Units],
    depths: list[NumLayers],
    kernel_size: KernelSize,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        filters: number of filters of the blocks in each stage; pooling separates the stages.
        depths: number of blocks in each stage.
        kernel_size: of the convolutions, in frames and in pixels.
        dropout: dropout rate before the output layer.
    """
    inputs, mask = clip_inputs(data)
    x = keras.layers.ReLU()(factorised_conv(inputs["clip"], mask, filters[0], kernel_size))
    x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(x)
    for stage, (width, depth) in enumerate(zip(filters, depths, strict=True)):
        if stage:
            x = keras.layers.MaxPooling3D(2, padding="same")(x)
            mask = mask[:, ::2]
        for _ in range(depth):
            y = keras.layers.ReLU()(factorised_conv(x, mask, width, kernel_size))
            y = factorised_conv(y, mask, width, kernel_size)
            if x.shape[-1] != width:
                x = keras.layers.Conv3D(width, 1, use_bias=False)(x)
                x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.Identity(name="map")(x)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3], x.shape[4]))(x)
    x = MaskedPooling("mean")(keras.ops.mean(x, axis=2), mask=mask)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)


def factorised_conv(x: Any, mask: Any, filters: int, kernel_size: int) -> Any:
    """A spatial and a temporal convolution, each with batch normalisation, ReLU between them.

    Args:
        x: (batch, frame, height, width, channel).
        mask: of the real frames (batch, frame).
        filters: number of output channels.
        kernel_size: in frames and in pixels.
    """
    k, channels = kernel_size, x.shape[-1]
    between = k**3 * channels * filters // (k**2 * channels + k * filters)
    x = keras.layers.Conv3D(between, (1, k, k), padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(FrameNormalisation()(x, mask=mask))
    x = keras.layers.Conv3D(filters, (k, 1, 1), padding="same", use_bias=False)(x)
    return FrameNormalisation()(x, mask=mask)
