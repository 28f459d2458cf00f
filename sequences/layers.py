"""Keras layers for drawings, for series, for texts and for clips.

Drawings are right-padded sequences: (batch, point, feature) with a mask (batch, point). Their
layers keep one law: appending padding to a sequence changes nothing. Keras itself drops the
mask at a convolution (with a warning) and lets padding into its window, and pads strided "same"
convolutions by an amount that depends on the padded length; these layers do neither.

Series are windows without padding: the past (batch, time, feature), whose first feature is the
scaled target, and what is known of the future (batch, horizon, feature).

Texts are tokens, int (batch, token), right-padded with 0.

Clips are right-padded frames: (batch, frame, height, width, channel) with a mask (batch, frame),
which layers are given by name; appending padding changes nothing here, either. A layer that works
on each frame for itself gets the real ones alone, (real frame, height, width, channel), and its
work on padding is saved: between `Unpad` and `Pad`, any layer for pictures may stand.
"""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from sequences.params import ParamsError, near

__all__ = [
    "LSTM",
    "FrameNormalisation",
    "MaskedConv1D",
    "MaskedPooling",
    "Neighbours",
    "Pad",
    "Pick",
    "Quantiles",
    "Rasterise",
    "SeasonalNaive",
    "Unpad",
    "blanked",
    "clips",
    "each_step",
    "forecaster",
    "pictures",
    "points",
    "pretrained",
    "teller",
    "texts",
    "window",
]


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
class MaskedConv1D(keras.layers.Conv1D):
    """A 1D convolution, "same" padded, that reads padding as zeroes and carries the mask along.

    Output ``t`` is centred on input ``stride * t`` whatever the padded length; a sequence of n
    points becomes one of ceil(n / stride). Arguments are those of ``keras.layers.Conv1D``.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "valid"})

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """(batch, point, feature) to (batch, ceil(point / stride), filter)."""
        if mask is not None:
            inputs = ops.where(mask[..., None], inputs, 0)
        reach = self.dilation_rate[0] * (self.kernel_size[0] - 1)
        return super().call(ops.pad(inputs, ((0, 0), (reach // 2, reach - reach // 2), (0, 0))))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, ceil(point / stride), filter)."""
        batch, length, _ = input_shape
        return (batch, None if length is None else -(-length // self.strides[0]), self.filters)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Every stride-th element: right-padded masks keep ceil(length / stride) points."""
        return None if mask is None else mask[:, :: self.strides[0]]


@keras.saving.register_keras_serializable(package="ostinato")
class LSTM(keras.layers.LSTM):
    """Keras' LSTM (its arguments, weights and answers), with a faster loop on CPU.

    Masks are right-padded, as for cuDNN; padded steps come out as zeroes. The loop does a step's
    recurrent product and gates alone: the products with inputs, and those of all weights'
    gradients, are done for all steps at once. A fifth less time than Keras' loop at 128 units.
    With a GPU, or an argument that the loop does not know, it is Keras' own.
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        """(batch, point, feature) to last state, (batch, point, unit) and the states."""
        cell = self.cell
        plain = (
            cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and cell.use_bias
            and not (cell.dropout or cell.recurrent_dropout)
            and not (self.unroll or self.stateful or self.return_state)
        )
        if not plain or tf.config.list_logical_devices("GPU"):
            return super().inner_loop(sequences, initial_state, mask, training)
        if mask is None:
            mask = tf.ones(tf.shape(sequences)[:2], tf.bool)
        lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)

        def turned(x: Any) -> Any:
            return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)

        x = tf.transpose(sequences, (1, 0, 2))
        weights = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
        states = _lstm(turned(x) if self.go_backwards else x, *weights, *initial_state)
        states = tf.where(tf.transpose(mask)[..., None], states, 0)
        rows = tf.range(tf.shape(lengths)[0])
        last = tf.gather_nd(states, tf.stack([tf.maximum(lengths - 1, 0), rows], axis=1))
        if self.go_backwards:  # Keras' order: the last point first, so the padding before all
            states = tf.reverse(turned(states), axis=[0])
        return last, tf.transpose(states, (1, 0, 2)), initial_state


@tf.custom_gradient
def _lstm(x: Any, kernel: Any, recurrent: Any, bias: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """States (point, batch, unit) of an LSTM on x (point, batch, feature), begun at h and c."""
    steps, batch, features = tf.shape(x)[0], tf.shape(x)[1], x.shape[2]
    units = recurrent.shape[0]
    flat = tf.reshape(x, (-1, features))
    projected = tf.nn.bias_add(tf.matmul(flat, kernel), bias)

    def array(size: Any, width: int) -> Any:
        shape = tf.TensorShape([None, width])
        return tf.TensorArray(x.dtype, size, element_shape=shape, clear_after_read=False)

    def loop(condition: Any, body: Any, state: tuple[Any, ...]) -> Any:
        return tf.while_loop(
            condition, body, state, maximum_iterations=steps, parallel_iterations=1
        )

    def forward(t: Any, h: Any, c: Any, hs: Any, cs: Any, gates: Any) -> tuple[Any, ...]:
        z = projected[t * batch : (t + 1) * batch] + tf.matmul(h, recurrent)
        i, f, g, o = tf.split(z, 4, axis=1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        squashed = tf.tanh(c)
        h = o * squashed
        for k, gate in enumerate((i, f, g, o, squashed)):
            gates = gates.write(5 * t + k, gate)
        return t + 1, h, c, hs.write(t, h), cs.write(t + 1, c), gates

    begin = (0, h, c, array(steps, units), array(steps + 1, units).write(0, c))
    *_, hs, cs, gates = loop(lambda t, *_: t < steps, forward, (*begin, array(5 * steps, units)))
    states = hs.stack()

    def gradient(upstream: Any) -> tuple[Any, ...]:
        def backward(t: Any, dh: Any, dc: Any, dzs: Any) -> tuple[Any, ...]:
            i, f, g, o, squashed = (gates.read(5 * t + k) for k in range(5))
            dh = dh + upstream[t]
            dc = dc + dh * o * (1 - squashed * squashed)
            di, df, dg = dc * g * i * (1 - i), dc * cs.read(t) * f * (1 - f), dc * i * (1 - g * g)
            dz = tf.concat([di, df, dg, dh * squashed * o * (1 - o)], axis=1)
            return t - 1, tf.matmul(dz, recurrent, transpose_b=True), dc * f, dzs.write(t, dz)

        end = (steps - 1, tf.zeros_like(h), tf.zeros_like(c), array(steps, 4 * units))
        _, dh, dc, dzs = loop(lambda t, *_: t >= 0, backward, end)
        dz = tf.reshape(dzs.stack(), (-1, 4 * units))
        before = tf.reshape(tf.concat([h[None], states[:-1]], axis=0), (-1, units))
        return (
            tf.reshape(tf.matmul(dz, kernel, transpose_b=True), tf.shape(x)),
            tf.matmul(flat, dz, transpose_a=True),
            tf.matmul(before, dz, transpose_a=True),
            tf.reduce_sum(dz, axis=0),
            dh,
            dc,
        )

    return states, gradient


@keras.saving.register_keras_serializable(package="ostinato")
class MaskedPooling(keras.layers.Layer):
    """Sum, mean or maximum over the points that the mask leaves in; 0 where it leaves none."""

    def __init__(self, pool: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pool not in ("sum", "mean", "max"):
            raise ValueError(f"pool: expected sum, mean or max, found {pool!r}")
        self.pool = pool

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """(batch, point, feature) to (batch, feature)."""
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], "bool")
        some = mask[..., None]
        if self.pool == "max":
            highest = ops.max(ops.where(some, inputs, -float("inf")), axis=1)
            return ops.where(ops.any(some, axis=1), highest, 0)
        # Half precision would lose the small terms of a long sum.
        total = ops.sum(ops.where(some, ops.cast(inputs, "float32"), 0), axis=1)
        if self.pool == "mean":
            total = total / ops.maximum(ops.sum(ops.cast(some, "float32"), axis=1), 1)
        return ops.cast(total, self.compute_dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """No points are left to mask."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, feature)."""
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "pool": self.pool}


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


def window(data: Any, *, fixed: bool = False) -> tuple[dict[str, Any], Any]:
    """The inputs of a model of series, by name, and all that is known of the past.

    Args:
        data: window, horizon, and the number of past, future and static features.
        fixed: whether the model reads windows of one length alone.

    Returns:
        ``past`` (batch, time, feature), ``future`` (batch, horizon, feature) and ``static``
        (batch, feature), the latter two where there are such features; and the past with the
        static features at every step, (batch, time, feature).
    """
    length = data.window if fixed else None
    given = {"past": keras.Input((length, data.past), name="past")}
    if data.future:
        given["future"] = keras.Input((data.horizon, data.future), name="future")
    if not data.static:
        return given, given["past"]
    given["static"] = keras.Input((data.static,), name="static")
    return given, Attach()(given["past"], given["static"])


def each_step(given: dict[str, Any], state: Any, data: Any, units: int, quantiles: int) -> Any:
    """A state of the past, (batch, unit), to raw quantiles (batch, horizon, quantile).

    Every step of the horizon has a projection of its own of the state, and shares one of what is
    known of that step.
    """
    x = keras.layers.Dense(data.horizon * units)(state)
    x = keras.layers.Reshape((data.horizon, units))(x)
    if "future" in given:
        x = x + keras.layers.Dense(units, use_bias=False)(given["future"])
    return keras.layers.Dense(quantiles, dtype="float32")(keras.layers.ReLU()(x))


def forecaster(given: dict[str, Any], raw: Any, data: Any, residual: bool) -> keras.Model:
    """The model from its inputs to quantiles that do not cross, (batch, horizon, quantile).

    Where ``residual``, ``raw`` are quantiles of the difference from the value a season ago.
    """
    quantiles = Quantiles(dtype="float32")(raw)
    if residual:
        quantiles = quantiles + SeasonalNaive(data.season, data.horizon)(given["past"])
    return keras.Model(given, quantiles)


@keras.saving.register_keras_serializable(package="ostinato")
class Attach(keras.layers.Layer):
    """A vector for the whole sequence, attached to each of its steps."""

    def call(self, sequence: Any, vector: Any) -> Any:
        """(batch, time, feature) and (batch, feature) to (batch, time, both)."""
        shape = (*ops.shape(sequence)[:2], vector.shape[-1])
        return ops.concatenate([sequence, ops.broadcast_to(vector[:, None], shape)], axis=-1)

    def compute_output_shape(self, sequence_shape: Any, vector_shape: Any) -> tuple[Any, ...]:
        """(batch, time, both)."""
        return (*sequence_shape[:2], sequence_shape[2] + vector_shape[1])


@keras.saving.register_keras_serializable(package="ostinato")
class SeasonalNaive(keras.layers.Layer):
    """The first feature of a season ago, over the horizon: a forecast without parameters."""

    def __init__(self, season: int, horizon: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.season = season
        self.horizon = horizon

    def call(self, past: Any) -> Any:
        """(batch, time, feature) to (batch, horizon, 1)."""
        last = past[:, -self.season :, :1]
        return ops.take(last, ops.arange(self.horizon) % ops.shape(last)[1], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, horizon, 1)."""
        return (input_shape[0], self.horizon, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of ``__init__``."""
        return {**super().get_config(), "season": self.season, "horizon": self.horizon}


@keras.saving.register_keras_serializable(package="ostinato")
class Quantiles(keras.layers.Layer):
    """Any numbers to as many quantiles in increasing order: a centre, and gaps above 0."""

    def call(self, inputs: Any) -> Any:
        """(..., quantile) to the same."""
        count = inputs.shape[-1]
        if count == 1:
            return inputs
        # So that at the beginning, whatever their number, they are about a unit apart in all.
        above = ops.cumsum(ops.softplus(inputs[..., 1:]) * (2 / count), axis=-1)
        spread = ops.concatenate([ops.zeros_like(inputs[..., :1]), above], axis=-1)
        return inputs[..., :1] + spread - ops.mean(spread, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape


def texts(data: Any, units: int) -> tuple[dict[str, Any], Any, Any]:
    """The inputs of a model that translates, and the layers that embed them.

    Args:
        data: vocabulary, of the source and of the target; joint, whether they are one.
        units: width of the embeddings.

    Returns:
        ``source`` and ``before`` (what of the target has been said) by name, both int
        (batch, token); the embedding of each, to (batch, token, unit). The latter, named
        ``words``, gives logits (batch, token, piece) when called with ``reverse``; where the
        vocabulary is joint it is both.
    """
    given = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "before")}
    first = keras.initializers.RandomNormal(stddev=units**-0.5)
    read, tell = data.vocabulary
    words = keras.layers.ReversibleEmbedding(
        tell, units, embeddings_initializer=first, name="words"
    )
    foreign = words if data.joint else keras.layers.Embedding(read, units, first)
    return given, foreign, words


def teller(words: Any) -> Callable[[Any], Any]:
    """``words`` in reverse, (..., unit) to logits (..., piece), for what is called in a loop.

    The matrix is turned once, and not at each step: for few rows that was most of the time.
    """
    matrix = ops.transpose(ops.cast(words.embeddings, words.compute_dtype))

    def tell(x: Any) -> Any:
        flat = ops.matmul(ops.reshape(ops.cast(x, matrix.dtype), (-1, x.shape[-1])), matrix)
        return ops.reshape(flat, (*ops.shape(x)[:-1], matrix.shape[-1]))

    return tell


def blanked(x: Any, share: float) -> Any:
    """Embeddings (batch, token, unit), in training without a share of the tokens."""
    return keras.layers.Dropout(share, noise_shape=(None, None, 1))(x)


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


def _gaussian(size: int, deviation: float) -> Any:
    """The matrix (size, size) that blurs along one axis; 0 blurs nothing."""
    if deviation == 0:
        return np.eye(size, dtype="float32")
    apart = np.subtract.outer(np.arange(size), np.arange(size)) / deviation
    kernel = np.exp(-0.5 * apart**2)
    return (kernel / kernel[size // 2].sum()).astype("float32")
