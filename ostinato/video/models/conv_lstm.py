"""LSTMs whose states are pictures and whose products are convolutions, then the last state.

Shi et al. 2015, arXiv 1506.04214, without peepholes; pictures are halved between two layers.
Input clip (batch, frame, height, width, channel) in 0 to 1, padded with zeroes, and frames
(batch,), how many are real; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, Units
from ostinato.video.layers import FrameNormalisation, clips

__all__ = ["build", "fit"]


def build(
    data: Any, *, filters: list[Units], kernel_size: KernelSize, units: Units, dropout: Fraction
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: classes, height, width, channels.
        filters: width of each LSTM's states.
        kernel_size: extent of the convolutions, in pixels.
        units: width of the dense layer on the flattened last state.
        dropout: share dropped before and after the dense layer.
    """
    given, mask = clips(data)
    x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(given["clip"])
    for depth, width in enumerate(filters):
        if depth:
            x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(x)
        x = keras.layers.ConvLSTM2D(width, kernel_size, padding="same", return_sequences=True)(
            x, mask=mask
        )
    x = keras.layers.Identity(name="map")(x)
    x = keras.layers.Flatten()(x[:, -1])  # at padding, the state of the last real frame stands
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
