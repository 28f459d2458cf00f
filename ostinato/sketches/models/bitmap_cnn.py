"""A small 2D convolutional network on the rendered drawing, which knows nothing of the order.

What the recurrent models have to beat. After LeCun et al. 1998, with batch normalisation
(Ioffe and Szegedy 2015, arXiv 1502.03167).
Input (batch, point, 3), padded with zeroes and drawn inside the model, or where the data are
bitmaps (batch, height, width, 1) in 0 to 1; output (batch, class), probabilities.
"""

from typing import Any

import keras

from ostinato.sketches.layers import Rasterise
from ostinato.training.trainer import fit
from ostinato.units import Fraction, KernelSize, Units

__all__ = ["build", "fit"]

SIZE = 28  # pixels, as QuickDraw's own bitmaps


def build(
    data: Any, *, filters: list[Units], kernel_size: KernelSize, units: Units, dropout: Fraction
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: kind (strokes or bitmap), classes.
        filters: width of each convolution; each halves the picture.
        kernel_size: extent of the convolutions, in pixels.
        units: width of the dense layer on the flattened picture.
        dropout: share dropped before and after the dense layer.
    """
    if data.kind == "strokes":
        given = keras.Input((None, 3), name="points")
        x = Rasterise(SIZE)(given)
    else:
        given = x = keras.Input((SIZE, SIZE, 1), name="picture")
    for width in filters:
        x = keras.layers.Conv2D(width, kernel_size, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(given, x)
