"""A 2D CNN on the middle frame: the baseline that sees neither order nor motion.

Inputs: clip (batch, frame, height, width, channel) in 0 to 1, right-padded with zero frames, and
frames (batch,), the number of real frames. Output: probabilities (batch, class).
"""

import keras

from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, Units
from ostinato.video.layers import ClipData, SelectFrame, clip_inputs, cnn

__all__ = ["build", "fit"]


def build(
    data: ClipData,
    *,
    filters: list[Units],
    kernel_size: KernelSize,
    units: Units,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        filters: number of filters of each convolution; each is followed by pooling.
        kernel_size: of the convolutions, in pixels.
        units: of the dense layer on the flattened features.
        dropout: dropout rate before and after the dense layer.
    """
    inputs, _ = clip_inputs(data)
    middle = SelectFrame()(inputs["clip"], inputs["frames"] // 2)
    x = cnn(middle, filters, kernel_size)
    x = keras.layers.Reshape((1, *x.shape[1:]), name="map")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
