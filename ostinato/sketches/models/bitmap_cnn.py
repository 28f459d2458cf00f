"""A small 2D convolutional network on the rasterised drawing: a baseline without recurrence.

After LeCun et al. 1998 (Gradient-based learning applied to document recognition), with batch
normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167). It does not see the order of the points.

Input: (batch, point, 3), zero-padded and rasterised inside the model; of bitmaps (batch, height,
width, 1) in 0 to 1. Output: probabilities (batch, class).
"""

import keras

from ostinato.sketches.dataset.protocols import ModelData
from ostinato.sketches.layers import Rasterise
from ostinato.training.trainer import fit
from ostinato.units import DropoutRate, KernelSize, Units

__all__ = ["build", "fit"]

SIZE = 28  # height and width in pixels, as QuickDraw's bitmaps


def build(
    data: ModelData,
    *,
    filters: list[Units],
    kernel_size: KernelSize,
    units: Units,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: of strokes or bitmaps.
        filters: number of filters of each convolution; max pooling halves its output.
        kernel_size: of the convolutions, in pixels.
        units: of the dense layer on the flattened feature map.
        dropout: rate before and after the dense layer.
    """
    if data.kind == "strokes":
        inputs = keras.Input((None, 3), name="points")
        x = Rasterise(SIZE)(inputs)
    else:
        inputs = x = keras.Input((SIZE, SIZE, 1), name="picture")
    for num_filters in filters:
        x = keras.layers.Conv2D(num_filters, kernel_size, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
