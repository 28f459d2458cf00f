"""3D convolutions over space and time, with pooling over both: the baseline.

After Tran et al. 2015, arXiv 1412.0767 (C3D), with batch normalisation (Ioffe and Szegedy 2015,
arXiv 1502.03167). The first pooling leaves time alone. At the end features are averaged over the
frames, each place for itself, so that clips of any number of frames go in.
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
    units: Units,
    dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: classes, height, width, channels.
        filters: width of the convolutions before each pooling.
        depths: how many they are.
        kernel_size: their extent, in frames and in pixels.
        units: width of the dense layer.
        dropout: share dropped before and after the dense layer.
    """
    given, mask = clips(data)
    x = given["clip"]
    for stage, (width, depth) in enumerate(zip(filters, depths, strict=True)):
        for _ in range(depth):
            x = keras.layers.Conv3D(width, kernel_size, padding="same", use_bias=False)(x)
            x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.ReLU()(x)  # from here on, the zeroes of padding are no maximum
        x = keras.layers.MaxPooling3D((2 if stage else 1, 2, 2), padding="same")(x)
        mask = mask[:, ::2] if stage else mask
    x = keras.layers.Identity(name="map")(x)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3] * x.shape[4]))(x)
    x = MaskedPooling("mean")(x, mask=mask)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
