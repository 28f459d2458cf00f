"""Keras layers that translation models share. Tokens are int (batch, token), padded with 0."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import keras
from keras import ops

__all__ = ["Vocabularies", "drop_words", "embedded_inputs", "output_projection"]


@runtime_checkable
class Vocabularies(Protocol):
    """What a model needs to know of a data set: `TranslationDataset` has it."""

    vocab_sizes: tuple[int, int]
    """Number of tokens of the source and of the target vocabulary."""

    shared_vocabulary: bool
    """Whether source and target have one vocabulary."""


def embedded_inputs(data: Vocabularies, units: int) -> tuple[dict[str, Any], Any, Any]:
    """The inputs of a translation model and its embedding layers.

    Args:
        data: the vocabularies.
        units: width of the embeddings.

    Returns:
        The inputs by name: ``source``, and ``before``, the previous tokens of the target, both
        int (batch, token). The source and the target embedding, to (batch, token, unit). The
        target embedding has the name ``target_embedding`` and, called with ``reverse=True``, is
        the output layer: (batch, token, unit) to logits (batch, token, vocabulary). With a shared
        vocabulary both embeddings are the same layer.
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in ("source", "before")}
    initializer = keras.initializers.RandomNormal(stddev=units**-0.5)
    source_size, target_size = data.vocab_sizes
    target = keras.layers.ReversibleEmbedding(
        target_size, units, embeddings_initializer=initializer, name="target_embedding"
    )
    if data.shared_vocabulary:
        return inputs, target, target
    return inputs, keras.layers.Embedding(source_size, units, initializer), target


def output_projection(embedding: Any) -> Callable[[Any], Any]:
    """The output layer of a target embedding for decoding: (..., unit) to logits (..., vocabulary).

    It transposes the matrix once and not at each step, where this takes most of the time.
    """
    matrix = ops.transpose(ops.cast(embedding.embeddings, embedding.compute_dtype))

    def project(x: Any) -> Any:
        flat = ops.matmul(ops.reshape(ops.cast(x, matrix.dtype), (-1, x.shape[-1])), matrix)
        return ops.reshape(flat, (*ops.shape(x)[:-1], matrix.shape[-1]))

    return project


def drop_words(x: Any, rate: float) -> Any:
    """Drop whole tokens of the embeddings (batch, token, unit) in training."""
    return keras.layers.Dropout(rate, noise_shape=(None, None, 1))(x)
