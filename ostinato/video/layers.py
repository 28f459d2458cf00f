"""Keras layers for clips: right-padded frames, with a mask (batch, frame) as a separate input.

Clips are (batch, frame, height, width, channel). Appending padding frames does not change an
output. Layers that process single frames, such as 2D convolutions, are applied between `Unpad`
and `Pad` to the real frames only, (real frame, height, width, channel), which saves the work on
padding.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Protocol, no_type_check

import keras
import tensorflow as tf
from keras import ops

from ostinato.errors import ParamsError
from ostinato.params import near

__all__ = [
    "ClipData",
    "FrameMask",
    "FrameNormalisation",
    "Pad",
    "Preprocess",
    "SelectFrame",
    "Unpad",
    "clip_inputs",
    "cnn",
    "pretrained_cnn",
]


class ClipData(Protocol):
    """The properties of a data set that the models of this domain are built for."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def height(self) -> int:
        """Height of a frame, in pixels."""

    @property
    def width(self) -> int:
        """Width of a frame, in pixels."""

    @property
    def channels(self) -> int:
        """Channels of a frame, 1 or 3."""


def clip_inputs(data: ClipData) -> tuple[dict[str, Any], Any]:
    """The symbolic inputs of a model, by name, and the mask of the real frames.

    Args:
        data: the data set.

    Returns:
        The inputs ``clip`` (batch, frame, height, width, channel) in 0 to 1, right-padded with zero
        frames, and ``frames`` (batch,), the number of real frames; and the mask (batch, frame).
    """
    clip = keras.Input((None, data.height, data.width, data.channels), name="clip")
    frames = keras.Input((), dtype="int32", name="frames")
    return {"clip": clip, "frames": frames}, FrameMask()(clip, frames)


def cnn(x: Any, filters: list[int], kernel_size: int) -> Any:
    """A 2D CNN on frames (batch, height, width, channel); each block halves height and width."""
    for width in filters:
        x = keras.layers.Conv2D(width, kernel_size, padding="same", use_bias=False)(x)
        x = FrameNormalisation()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    return x


def pretrained_cnn(x: Any, name: str, weights: str | None) -> Any:
    """A pretrained network of keras.applications on frames, as the layer ``backbone``.

    Its batch normalisation layers are not trainable: they keep the statistics of pretraining.

    Args:
        x: frames (batch, height, width, channel) in 0 to 1; grey frames are repeated to 3 channels.
        name: of the network, such as MobileNetV2.
        weights: ``imagenet``, which Keras downloads once, or a file in Keras' format.

    Raises:
        ParamsError: the network is unknown, or weights is null.
    """
    available = {key: f for key, f in vars(keras.applications).items() if key[0].isupper()}
    if name not in available:
        raise ParamsError(f"build.backbone: unknown network {name!r}; {near(name, available)}")
    if weights is None:
        raise ParamsError(
            "build.weights: a backbone needs weights, `imagenet` or a file; to train from scratch, "
            "set backbone to null"
        )
    x = Preprocess(name)(x)
    backbone = available[name](
        include_top=False, weights=weights, input_shape=x.shape[1:], name="backbone"
    )
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    return backbone(x)


@keras.saving.register_keras_serializable(package="ostinato")
class Preprocess(keras.layers.Layer):
    """Scale and centre frames as a network of keras.applications expects them."""

    network: str

    @no_type_check  # Keras inspects the signature, which a check of shapes would hide
    def __init__(self, network: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network

    def call(self, inputs: Any) -> Any:
        """(batch, height, width, channel) in 0 to 1 to (batch, height, width, 3)."""
        module = inspect.getmodule(getattr(keras.applications, self.network))
        rgb = ops.broadcast_to(inputs, (*ops.shape(inputs)[:3], 3))
        return module.preprocess_input(rgb * 255)  # type: ignore[union-attr]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height, width, 3)."""
        return (*input_shape[:3], 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "network": self.network}


@keras.saving.register_keras_serializable(package="ostinato")
class FrameMask(keras.layers.Layer):
    """The mask of the real frames of clips."""

    def call(self, clip: Any, frames: Any) -> Any:
        """(batch, frame, height, width, channel) and (batch,) to (batch, frame)."""
        return ops.arange(ops.shape(clip)[1]) < frames[:, None]

    def compute_output_spec(self, clip: Any, frames: Any) -> Any:
        """bool (batch, frame)."""
        return keras.KerasTensor(clip.shape[:2], "bool")


@keras.saving.register_keras_serializable(package="ostinato")
class Unpad(keras.layers.Layer):
    """Concatenate the real frames of all clips.

    The mask is named ``real`` because Keras treats an argument ``mask`` as an implicit mask.
    """

    def call(self, clip: Any, real: Any) -> Any:
        """(batch, frame, ...) and (batch, frame) to (real frame, ...)."""
        return tf.boolean_mask(clip, real)

    def compute_output_shape(self, clip_shape: Any, real_shape: Any) -> tuple[int | None, ...]:
        """(real frame, ...)."""
        return (None, *clip_shape[2:])


@keras.saving.register_keras_serializable(package="ostinato")
class Pad(keras.layers.Layer):
    """The inverse of `Unpad`: frames back in their clips, padding frames zero."""

    def call(self, frames: Any, real: Any) -> Any:
        """(real frame, ...) and (batch, frame) to (batch, frame, ...)."""
        shape = tf.concat([tf.shape(real, tf.int64), tf.shape(frames, tf.int64)[1:]], axis=0)
        return tf.scatter_nd(tf.where(real), frames, shape)

    def compute_output_shape(self, frames_shape: Any, real_shape: Any) -> tuple[int | None, ...]:
        """(batch, frame, ...)."""
        return (*real_shape, *frames_shape[1:])


@keras.saving.register_keras_serializable(package="ostinato")
class SelectFrame(keras.layers.Layer):
    """One frame of each clip."""

    def call(self, clip: Any, index: Any) -> Any:
        """(batch, frame, ...) and the index of the frame (batch,) to (batch, ...)."""
        return tf.gather(clip, index, batch_dims=1)

    def compute_output_shape(self, clip_shape: Any, index_shape: Any) -> tuple[int | None, ...]:
        """(batch, ...)."""
        return (clip_shape[0], *clip_shape[2:])


@keras.saving.register_keras_serializable(package="ostinato")
class FrameNormalisation(keras.layers.BatchNormalization):
    """Batch normalisation over the real frames (Ioffe and Szegedy 2015, arXiv 1502.03167).

    It uses TensorFlow's fused kernel; Keras' own layer takes half of the step time of a small
    network. Weights and outputs equal those of Keras' layer, except that the moving variance is
    the unbiased one, as in PyTorch, and that the default momentum is smaller.
    """

    @no_type_check  # Keras inspects the signature, which a check of shapes would hide
    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        """Frames (batch, height, width, channel), or clips and their mask; padding is set to 0."""
        update = bool(training and self.trainable)

        def fused(frames: Any) -> Any:
            empty = tf.zeros(0)
            return tf.raw_ops.FusedBatchNormV3(
                x=frames,
                scale=tf.convert_to_tensor(self.gamma),
                offset=tf.convert_to_tensor(self.beta),
                mean=empty if update else tf.convert_to_tensor(self.moving_mean),
                variance=empty if update else tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=update,
            )[:3]

        def all_frames() -> Any:
            outputs, *moments = fused(tf.reshape(inputs, (-1, *inputs.shape[-3:])))
            return tf.reshape(outputs, tf.shape(inputs)), *moments

        def real_frames() -> Any:
            outputs, *moments = fused(tf.gather_nd(inputs, rows))
            return tf.scatter_nd(rows, outputs, tf.shape(inputs, tf.int64)), *moments

        if mask is None:
            outputs, *moments = fused(inputs)
        elif update:  # usually no frame is padding, and copying the real frames is not needed
            rows = tf.where(mask)
            outputs, *moments = tf.cond(tf.reduce_all(mask), all_frames, real_frames)
        else:
            outputs = all_frames()[0] * tf.cast(mask, inputs.dtype)[:, :, None, None, None]
        if update:
            moving = (self.moving_mean, self.moving_variance)
            for average, value in zip(moving, moments, strict=True):
                average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No implicit mask: masks are passed as arguments."""
