"""C3D: 3D convolutions and max pooling over space and time.

Tran et al. 2015, arXiv 1412.0767, with batch normalisation (Ioffe and Szegedy 2015, arXiv
1502.03167). The first pooling layer pools over space only. The last features are averaged over the
frames at each position, so clips may have any number of frames.
Inputs: clip (batch, frame, height, width, channel) in 0 to 1, right-padded with zero frames, and
frames (batch,), the number of real frames. Output: probabilities (batch, class).
"""

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
    units: Units,
    dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the data set.
        filters: number of filters of the convolutions in each stage; pooling ends a stage.
        depths: number of convolutions in each stage.
        kernel_size: of the convolutions, in frames and in pixels.
        units: of the dense layer.
        dropout: dropout rate before and after the dense layer.
    """
    inputs, mask = clip_inputs(data)
    x = inputs["clip"]
    for stage, (width, depth) in enumerate(zip(filters, depths, strict=True)):
        for _ in range(depth):
            x = keras.layers.Conv3D(width, kernel_size, padding="same", use_bias=False)(x)
            x = FrameNormalisation()(x, mask=mask)
            x = keras.layers.ReLU()(
                x
            )  # zero padding cannot be the maximum of pooling unless all values are 0
        x = keras.layers.MaxPooling3D((2 if stage else 1, 2, 2), padding="same")(x)
        mask = mask[:, ::2] if stage else mask
    x = keras.layers.Identity(name="map")(x)
    x = keras.layers.Reshape((-1, x.shape[2] * x.shape[3] * x.shape[4]))(x)
    x = MaskedPooling("mean")(x, mask=mask)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(units, activation="relu")(x)
    x = keras.layers.Dropout(dropout)(x)
    x = keras.layers.Dense(len(data.classes), activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, x)
