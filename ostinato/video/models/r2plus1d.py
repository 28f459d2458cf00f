"""R(2+1)D: residual blocks of 3D convolutions, each cut into one over space and one over time.

Tran et al. 2018, arXiv 1711.11248. As many features stand between the two as give the pair the
parameters of the whole convolution. Maxima over two frames and 2 by 2 pixels take the place of
the paper's strides: they do not depend on how far a clip is padded.
Input clip (batch, frame, height, width, channel) in 0 to 1, padded with zeroes, and frames
(batch,), how many are real; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.layers import MaskedPooling
from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, NumLayers, Units
from ostinato.video.layers import FrameNormalisation, clips

__all__ = ["build", "fit"]


def build(
    data: Any,
    *,
    filters: list[Units],
    depths: list[NumLayers],
    kernel_size: KernelSize,
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: classes, height, width, channels.
        filters: width of the blocks of each stage; from stage to stage, clips are halved.
        depths: how many blocks a stage has.
        kernel_size: extent of the convolutions, in frames and in pixels.
        dropout: share dropped before the classes.
    """
    given, mask = clips(data)
    x = keras.layers.ReLU()(factorised(given["clip"], mask, filters[0], kernel_size))
    x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(x)
    for stage, (width, depth) in enumerate(zip(filters, depths, strict=True)):
        if stage:
            x = keras.layers.MaxPooling3D(2, padding="same")(x)
            mask = mask[:, ::2]
        for _ in range(depth):
            y = keras.layers.ReLU()(factorised(x, mask, width, kernel_size))
            y = factorised(y, mask, width, kernel_size)
            if x.shape[-1] != width:
                x = keras.layers.Conv3D(width, 1, use_bias=False)(x)
                x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.Identity(name="map")(x)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3], x.shape[4]))(x)
    x = MaskedPooling("mean")(keras.ops.mean(x, axis=2), mask=mask)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)


def factorised(x: Any, mask: Any, width: int, kernel: int) -> Any:
    """A convolution over space, one over time, each normalised; no ReLU at the end."""
    before = x.shape[-1]
    between = kernel**3 * before * width // (kernel**2 * before + kernel * width)
    x = keras.layers.Conv3D(between, (1, kernel, kernel), padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(FrameNormalisation()(x, mask=mask))
    x = keras.layers.Conv3D(width, (kernel, 1, 1), padding="same", use_bias=False)(x)
    return FrameNormalisation()(x, mask=mask)
