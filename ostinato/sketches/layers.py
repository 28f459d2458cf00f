"""Keras layers for drawings: right-padded, (batch, point, feature) with a mask (batch, point)."""

from typing import Any

import keras
import numpy as np
from keras import ops

__all__ = ["Neighbours", "Rasterise", "points"]


def points(data: Any) -> tuple[Any, Any]:
    """The input of a recurrent model of drawings, and the same with a mask.

    Returns:
        (batch, point, 3) = offsets of x and y, +1 where the pen lifts else -1; rows of zeroes are
        padding, and the second tensor's mask leaves them out.

    Raises:
        ValueError: the data are bitmaps.
    """
    if data.kind != "strokes":
        raise ValueError(
            f"data.kind is {data.kind!r}, and a recurrent model reads strokes; bitmaps fit the "
            "runs of `bitmap_cnn` and `nearest`, strokes come from every source but `tfds`"
        )
    given = keras.Input((None, 3), name="points")
    return given, keras.layers.Masking(0.0, name="mask")(given)


@keras.saving.register_keras_serializable(package="ostinato")
class Rasterise(keras.layers.Layer):
    """Draw strokes as grey bitmaps, as QuickDraw's own were: fitted, centred, round-capped lines.

    The drawing's longer side fills 256 of 304 parts of the picture and lines are 16 parts wide
    (1.5 pixels at a size of 28), so neither position nor scale of the input matters. A pixel's
    value is its distance to the nearest line, cut off to one pixel of antialiasing. Line and
    margin: github.com/googlecreativelab/quickdraw-dataset, issue 19.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        # Coordinates of a long drawing do not fit half precision: always computed in float32.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.size = size
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """(batch, point, 3) to (batch, height, width, 1) in 0 to 1; rows of zeroes draw nothing."""
        pen = inputs[..., 2]
        at = ops.cumsum(inputs[..., :2], axis=1)  # padding repeats the last point: no new extreme
        low, high = ops.min(at, axis=1, keepdims=True), ops.max(at, axis=1, keepdims=True)
        extent = ops.max(high - low, axis=-1, keepdims=True)
        fitted = ops.divide_no_nan(at - (low + high) / 2, extent) * (self.size * 256 / 304)

        # One segment a point: from the point before, or from itself where the pen was in the air.
        drawn = ops.pad(pen[:, :-1], ((0, 0), (1, 0))) < 0
        before = ops.pad(fitted[:, :-1], ((0, 0), (1, 0), (0, 0)))
        start = ops.where(drawn[..., None], before, fitted)
        middle, line = (start + fitted) / 2, fitted - start
        length = ops.sqrt(ops.sum(line * line, axis=-1, keepdims=True))
        along = ops.where(length > 0, ops.divide_no_nan(line, length), 0.5**0.5)  # a dot: any
        across = ops.stack([-along[..., 1], along[..., 0]], axis=-1)

        # Distances along and across a segment are linear in the pixel: two matrix products.
        centre = ops.arange(self.size, dtype="float32") + (0.5 - self.size / 2)
        pixels = ops.stack([ops.tile(centre, self.size), ops.repeat(centre, self.size)])
        beyond = ops.matmul(along, pixels) - ops.sum(along * middle, axis=-1, keepdims=True)
        beyond = ops.relu(ops.abs(beyond) - length / 2)
        aside = ops.matmul(across, pixels) - ops.sum(across * middle, axis=-1, keepdims=True)
        square = ops.where(pen[..., None] == 0, float("inf"), beyond * beyond + aside * aside)
        distance = ops.sqrt(ops.min(square, axis=1))
        grey = ops.clip(self.size * 8 / 304 + 0.5 - distance, 0, 1)
        return ops.reshape(grey, (-1, self.size, self.size, 1))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """A picture has no padding."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height, width, 1)."""
        return (input_shape[0], self.size, self.size, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="ostinato")
class Neighbours(keras.layers.Layer):
    """Class probabilities by vote of the nearest reference pictures, by cosine, blurred.

    The references are weights that no gradient moves: pictures as uint8, so that the file stays
    small, and their labels. They are zero until ``fill``.

    Args:
        references: how many pictures are kept.
        classes: how many classes there are.
        neighbours: how many of the nearest vote; a vote weighs as much as its cosine.
        blur: standard deviation of the Gaussian blur before comparing, in pixels.
        smoothing: votes that the classes share evenly in advance, so that none is impossible.
    """

    def __init__(
        self,
        references: int,
        classes: int,
        neighbours: int,
        blur: float,
        smoothing: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.references = references
        self.classes = classes
        self.neighbours = neighbours
        self.blur = blur
        self.smoothing = smoothing

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Make the weights: pictures (reference, pixel) and labels (reference)."""
        height, width = input_shape[1:3]

        def weight(name: str, shape: tuple[int, ...], dtype: str) -> Any:
            return self.add_weight(
                name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False
            )

        self.pictures = weight("pictures", (self.references, height * width), "uint8")
        self.labels = weight("labels", (self.references,), "int32")

    def blurred(self, pictures: Any) -> Any:
        """(batch, height, width, 1) to (batch, pixel), as vectors to compare."""
        height, width = pictures.shape[1:3]
        across = ops.matmul(pictures[..., 0], _gaussian(width, self.blur))
        return ops.reshape(ops.matmul(_gaussian(height, self.blur), across), (-1, height * width))

    def fill(self, pictures: Any, labels: Any) -> None:
        """Keep the references: pictures (reference, height, width, 1) in 0 to 1, and labels."""
        self.pictures.assign(ops.cast(ops.round(self.blurred(pictures) * 255), "uint8"))
        self.labels.assign(labels)

    def call(self, inputs: Any) -> Any:
        """(batch, height, width, 1) to probabilities (batch, class)."""
        kept = ops.normalize(ops.cast(self.pictures, "float32"))
        cosine = ops.matmul(ops.normalize(self.blurred(inputs)), ops.transpose(kept))
        weight, nearest = ops.top_k(cosine, min(self.neighbours, self.references))
        ballots = ops.one_hot(ops.take(self.labels, nearest), self.classes)
        votes = ops.sum(ballots * weight[..., None], axis=1) + self.smoothing / self.classes
        return votes / ops.sum(votes, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, class)."""
        return (input_shape[0], self.classes)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {
            **super().get_config(),
            "references": self.references,
            "classes": self.classes,
            "neighbours": self.neighbours,
            "blur": self.blur,
            "smoothing": self.smoothing,
        }


def _gaussian(size: int, deviation: float) -> Any:
    """The matrix (size, size) that blurs along one axis; 0 blurs nothing."""
    if deviation == 0:
        return np.eye(size, dtype="float32")
    apart = np.subtract.outer(np.arange(size), np.arange(size)) / deviation
    kernel = np.exp(-0.5 * apart**2)
    return (kernel / kernel[size // 2].sum()).astype("float32")
