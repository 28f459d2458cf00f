"""ConvLSTM: LSTM layers with convolutional transitions; the last state is classified.

Shi et al. 2015, arXiv 1506.04214, without peephole connections. Height and width are halved before
each layer.
Inputs: clip (batch, frame, height, width, channel) in 0 to 1, right-padded with zero frames, and
frames (batch,), the number of real frames. Output: probabilities (batch, class).
"""

import keras

from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, Units
from ostinato.video.layers import ClipData, FrameNormalisation, clip_inputs

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
        filters: number of channels of the state of each layer.
        kernel_size: of the convolutions, in pixels.
        units: of the dense layer on the flattened last state.
        dropout: dropout rate before and after the dense layer.
    """
    inputs, mask = clip_inputs(data)
    x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(inputs["clip"])
    for depth, width in enumerate(filters):
        if depth:
            x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.MaxPooling3D((1, 2, 2), padding="same")(x)
        x = keras.layers.ConvLSTM2D(width, kernel_size, padding="same", return_sequences=True)(
            x, mask=mask
        )
    x = keras.layers.Identity(name="map")(x)
    # At padding frames, Keras repeats the state of the last real frame.
    x = keras.layers.Flatten()(x[:, -1])
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
