"""A 2D convolutional network on the middle frame: the control, which cannot know of time.

Input clip (batch, frame, height, width, channel) in 0 to 1, padded with zeroes, and frames
(batch,), how many are real; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, Units
from ostinato.video.layers import Pick, clips, pictures

__all__ = ["build", "fit"]


def build(
    data: Any, *, filters: list[Units], kernel_size: KernelSize, units: Units, dropout: Fraction
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: classes, height, width, channels.
        filters: width of each convolution; each halves the picture.
        kernel_size: extent of the convolutions, in pixels.
        units: width of the dense layer on the flattened picture.
        dropout: share dropped before and after the dense layer.
    """
    given, _ = clips(data)
    x = pictures(Pick()(given["clip"], given["frames"] // 2), filters, kernel_size)
    x = keras.layers.Reshape((1, *x.shape[1:]), name="map")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
