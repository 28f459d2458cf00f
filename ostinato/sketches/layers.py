"""Keras layers for drawings: right-padded (batch, point, feature) with a mask (batch, point)."""

from typing import Any

import keras
import numpy as np
from jaxtyping import Float32
from keras import ops

from ostinato.errors import ParamsError
from ostinato.sketches.dataset.protocols import ModelData

__all__ = ["Neighbours", "Rasterise", "points"]


def points(data: ModelData) -> tuple[Any, Any]:
    """The input of a recurrent model of drawings, without and with a mask.

    Returns:
        Two Keras tensors (batch, point, 3): offsets of x and y, and 1 if the pen lifts, else -1.
        Rows of zeros are padding, which the second tensor masks.

    Raises:
        ParamsError: the data are bitmaps.
    """
    if data.kind != "strokes":
        raise ParamsError(
            f"data: a recurrent model needs strokes, found {data.kind}; use the models "
            "`bitmap_cnn` or `nearest` for bitmaps, or any source but `tfds` for strokes"
        )
    inputs = keras.Input((None, 3), name="points")
    return inputs, keras.layers.Masking(0.0, name="mask")(inputs)


@keras.saving.register_keras_serializable(package="ostinato")
class Rasterise(keras.layers.Layer):
    """Rasterise strokes to grey bitmaps like QuickDraw's: fitted, centred, round line caps.

    The drawing's longer side fills 256/304 of the bitmap and lines are 16/304 wide (1.5 pixels at a
    size of 28), so the output is invariant to position and scale of the input. A pixel's value
    depends on its distance to the nearest line, with one pixel of antialiasing. Line width and
    margin: github.com/googlecreativelab/quickdraw-dataset, issue 19.

    Args:
        size: height and width of the bitmap, in pixels.
        **kwargs: of the Keras layer.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        # Always float32: half precision cannot represent the coordinates of a long drawing.
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.size = size
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """(batch, point, 3) to (batch, height, width, 1) in 0 to 1; rows of zeros draw nothing."""
        pen = inputs[..., 2]
        xy = ops.cumsum(inputs[..., :2], axis=1)  # padding repeats the last point
        low, high = ops.min(xy, axis=1, keepdims=True), ops.max(xy, axis=1, keepdims=True)
        extent = ops.max(high - low, axis=-1, keepdims=True)
        fitted = ops.divide_no_nan(xy - (low + high) / 2, extent) * (self.size * 256 / 304)

        # One segment per point: from the previous point, or from itself if the pen was lifted.
        drawn = ops.pad(pen[:, :-1], ((0, 0), (1, 0))) < 0
        before = ops.pad(fitted[:, :-1], ((0, 0), (1, 0), (0, 0)))
        start = ops.where(drawn[..., None], before, fitted)
        middle, line = (start + fitted) / 2, fitted - start
        length = ops.sqrt(ops.sum(line * line, axis=-1, keepdims=True))
        along = ops.where(
            length > 0, ops.divide_no_nan(line, length), 0.5**0.5
        )  # a dot: any direction
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
        """A bitmap has no padding."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height, width, 1)."""
        return (input_shape[0], self.size, self.size, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="ostinato")
class Neighbours(keras.layers.Layer):
    """Class probabilities by votes of the nearest reference pictures, by cosine similarity.

    The references are not trainable: blurred pictures as uint8, so that the file stays small, and
    their labels. They are zero until ``fill``.

    Args:
        references: number of stored pictures.
        classes: number of classes.
        neighbours: number of nearest references that vote, weighted by their cosine similarity.
        blur: standard deviation of the Gaussian blur before the comparison, in pixels.
        prior_votes: votes that are divided evenly among all classes in advance.
        **kwargs: of the Keras layer.
    """

    def __init__(
        self,
        references: int,
        classes: int,
        neighbours: int,
        blur: float,
        prior_votes: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.references = references
        self.classes = classes
        self.neighbours = neighbours
        self.blur = blur
        self.prior_votes = prior_votes

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Create the weights: pictures (reference, pixel) and labels (reference)."""
        height, width = input_shape[1:3]

        def weight(name: str, shape: tuple[int, ...], dtype: str) -> Any:
            return self.add_weight(
                name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False
            )

        self.pictures = weight("pictures", (self.references, height * width), "uint8")
        self.labels = weight("labels", (self.references,), "int32")

    def blurred(self, pictures: Any) -> Any:
        """Blur pictures: (batch, height, width, 1) to (batch, pixel)."""
        height, width = pictures.shape[1:3]
        across = ops.matmul(pictures[..., 0], _gaussian(width, self.blur))
        return ops.reshape(ops.matmul(_gaussian(height, self.blur), across), (-1, height * width))

    def fill(self, pictures: Any, labels: Any) -> None:
        """Store the references: pictures (reference, height, width, 1) in 0 to 1, and labels."""
        self.pictures.assign(ops.cast(ops.round(self.blurred(pictures) * 255), "uint8"))
        self.labels.assign(labels)

    def call(self, inputs: Any) -> Any:
        """(batch, height, width, 1) to probabilities (batch, class)."""
        references = ops.normalize(ops.cast(self.pictures, "float32"))
        cosine = ops.matmul(ops.normalize(self.blurred(inputs)), ops.transpose(references))
        weight, nearest = ops.top_k(cosine, min(self.neighbours, self.references))
        ballots = ops.one_hot(ops.take(self.labels, nearest), self.classes)
        votes = ops.sum(ballots * weight[..., None], axis=1) + self.prior_votes / self.classes
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
            "prior_votes": self.prior_votes,
        }


def _gaussian(size: int, deviation: float) -> Float32[np.ndarray, "size size"]:
    """The matrix that blurs along one axis; the identity if the deviation is 0."""
    if deviation == 0:
        return np.eye(size, dtype="float32")
    distance = np.subtract.outer(np.arange(size), np.arange(size)) / deviation
    kernel = np.exp(-0.5 * distance**2)
    return np.asarray(kernel / kernel[size // 2].sum(), np.float32)
