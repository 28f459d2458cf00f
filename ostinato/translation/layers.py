"""Keras layers for texts: tokens, int (batch, token), right-padded with 0."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

__all__ = ["blanked", "teller", "texts"]


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
