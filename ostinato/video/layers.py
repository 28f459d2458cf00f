"""Keras layers for clips: right-padded frames, with a mask (batch, frame) given by name.

Clips are (batch, frame, height, width, channel); appending padding changes nothing. A layer that
works on each frame for itself gets the real ones alone, (real frame, height, width, channel), and
its work on padding is saved: between `Unpad` and `Pad`, any layer for pictures may stand.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ostinato.errors import ParamsError
from ostinato.params import near

__all__ = [
    "FrameNormalisation",
    "Pad",
    "Pick",
    "Preprocess",
    "Real",
    "Unpad",
    "clips",
    "pictures",
    "pretrained",
]


def clips(data: Any) -> tuple[dict[str, Any], Any]:
    """The inputs of a model of clips, by name, and the mask of their real frames.

    Args:
        data: height, width and channels of its frames.

    Returns:
        ``clip`` (batch, frame, height, width, channel) in 0 to 1 and ``frames`` (batch,), how many
        of a clip's frames are real; the others stand at its end and are zero. The mask is
        (batch, frame).
    """
    clip = keras.Input((None, data.height, data.width, data.channels), name="clip")
    frames = keras.Input((), dtype="int32", name="frames")
    return {"clip": clip, "frames": frames}, Real()(clip, frames)


def pictures(x: Any, filters: list[int], kernel: int) -> Any:
    """Features of pictures, (batch, height, width, channel); each convolution halves them."""
    for width in filters:
        x = keras.layers.Conv2D(width, kernel, padding="same", use_bias=False)(x)
        x = FrameNormalisation()(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D(padding="same")(x)
    return x


def pretrained(x: Any, name: str, weights: str | None) -> Any:
    """Features of pictures by a network of keras.applications, the layer ``backbone``.

    Its batch normalisation is not trainable: it keeps to what it was trained with.

    Args:
        x: pictures (batch, height, width, channel) in 0 to 1; grey ones become coloured.
        name: of the network, such as MobileNetV2.
        weights: ``imagenet``, which Keras downloads once, or a file in Keras' format.

    Raises:
        ParamsError: there is no such network, or no weights are named.
    """
    known = {key: f for key, f in vars(keras.applications).items() if key[0].isupper()}
    if name not in known:
        raise ParamsError(f"build.backbone: unknown {name!r}; {near(name, known)}")
    if weights is None:
        raise ParamsError(
            "build.weights: a backbone needs some, `imagenet` or a file; to learn from scratch, "
            "use backbone null"
        )
    x = Preprocess(name)(x)
    backbone = known[name](
        include_top=False, weights=weights, input_shape=x.shape[1:], name="backbone"
    )
    for layer in backbone.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    return backbone(x)


@keras.saving.register_keras_serializable(package="ostinato")
class Preprocess(keras.layers.Layer):
    """Pictures as a network of keras.applications reads them."""

    def __init__(self, network: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network

    def call(self, inputs: Any) -> Any:
        """(batch, height, width, channel) in 0 to 1 to (batch, height, width, 3)."""
        module = inspect.getmodule(getattr(keras.applications, self.network))
        coloured = ops.broadcast_to(inputs, (*ops.shape(inputs)[:3], 3))
        return module.preprocess_input(coloured * 255)  # type: ignore[union-attr]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height, width, 3)."""
        return (*input_shape[:3], 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "network": self.network}


@keras.saving.register_keras_serializable(package="ostinato")
class Real(keras.layers.Layer):
    """Which frames of a clip are real."""

    def call(self, clip: Any, frames: Any) -> Any:
        """(batch, frame, height, width, channel) and (batch,) to (batch, frame)."""
        return ops.arange(ops.shape(clip)[1]) < frames[:, None]

    def compute_output_spec(self, clip: Any, frames: Any) -> Any:
        """Truth values (batch, frame)."""
        return keras.KerasTensor(clip.shape[:2], "bool")


@keras.saving.register_keras_serializable(package="ostinato")
class Unpad(keras.layers.Layer):
    """The real frames of all clips in one row, in order."""

    def call(self, clip: Any, real: Any) -> Any:
        """(batch, frame, ...) and (batch, frame) to (real frame, ...)."""
        return tf.boolean_mask(clip, real)

    def compute_output_shape(self, clip_shape: Any, real_shape: Any) -> tuple[int | None, ...]:
        """(real frame, ...)."""
        return (None, *clip_shape[2:])


@keras.saving.register_keras_serializable(package="ostinato")
class Pad(keras.layers.Layer):
    """What `Unpad` did, undone: frames back in their clips, padding zero."""

    def call(self, frames: Any, real: Any) -> Any:
        """(real frame, ...) and (batch, frame) to (batch, frame, ...)."""
        shape = tf.concat([tf.shape(real, tf.int64), tf.shape(frames, tf.int64)[1:]], axis=0)
        return tf.scatter_nd(tf.where(real), frames, shape)

    def compute_output_shape(self, frames_shape: Any, real_shape: Any) -> tuple[int | None, ...]:
        """(batch, frame, ...)."""
        return (*real_shape, *frames_shape[1:])


@keras.saving.register_keras_serializable(package="ostinato")
class Pick(keras.layers.Layer):
    """One frame of each clip."""

    def call(self, clip: Any, place: Any) -> Any:
        """(batch, frame, ...) and (batch,), which frame, to (batch, ...)."""
        return tf.gather(clip, place, batch_dims=1)

    def compute_output_shape(self, clip_shape: Any, place_shape: Any) -> tuple[int | None, ...]:
        """(batch, ...)."""
        return (clip_shape[0], *clip_shape[2:])


@keras.saving.register_keras_serializable(package="ostinato")
class FrameNormalisation(keras.layers.BatchNormalization):
    """Batch normalisation over the real frames (Ioffe and Szegedy 2015, arXiv 1502.03167).

    Keras' layer (its weights, and its answers but for the variance that it keeps, which is the
    unbiased one, as in PyTorch), by TensorFlow's fused kernel: Keras' own takes half of the time
    of a step of a small network. What it keeps follows the batches faster than Keras' default.
    """

    def __init__(self, momentum: float = 0.9, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        """Frames (batch, height, width, channel), or clips and their mask; padding becomes zero."""
        learns = bool(training and self.trainable)

        def fused(frames: Any) -> Any:
            none = tf.zeros(0)
            return tf.raw_ops.FusedBatchNormV3(
                x=frames,
                scale=tf.convert_to_tensor(self.gamma),
                offset=tf.convert_to_tensor(self.beta),
                mean=none if learns else tf.convert_to_tensor(self.moving_mean),
                variance=none if learns else tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=learns,
            )[:3]

        def whole() -> Any:
            outputs, *moments = fused(tf.reshape(inputs, (-1, *inputs.shape[-3:])))
            return tf.reshape(outputs, tf.shape(inputs)), *moments

        def real() -> Any:
            outputs, *moments = fused(tf.gather_nd(inputs, rows))
            return tf.scatter_nd(rows, outputs, tf.shape(inputs, tf.int64)), *moments

        if mask is None:
            outputs, *moments = fused(inputs)
        elif learns:  # most often no frame is padding, and the copies of real ones are saved
            rows = tf.where(mask)
            outputs, *moments = tf.cond(tf.reduce_all(mask), whole, real)
        else:
            outputs = whole()[0] * tf.cast(mask, inputs.dtype)[:, :, None, None, None]
        if learns:
            for kept, new in zip((self.moving_mean, self.moving_variance), moments, strict=True):
                kept.assign(kept * self.momentum + new * (1 - self.momentum))
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Masks go from layer to layer by name."""
