"""Encoder-decoder without attention: the decoder starts from the encoder's final states.

Sutskever et al. 2014, arXiv 1409.3215 (reversed source); with GRU: Cho et al. 2014, arXiv
1406.1078. Target embedding and output layer share their weights: Press & Wolf 2017, arXiv
1608.05859. It is the baseline of the models with attention.
Input: source and before, int (batch, token), padded with 0. Output: logits of the next target
token (batch, token, vocabulary).
"""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from ostinato.layers import LSTM
from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import (
    Vocabularies,
    drop_words,
    embedded_inputs,
    output_projection,
)
from ostinato.units import DropoutRate, NumLayers, Units

__all__ = ["build", "fit", "start_decoding"]


def build(
    data: Vocabularies,
    *,
    cell: Literal["gru", "lstm"],
    units: Units,
    num_layers: NumLayers,
    dropout: DropoutRate,
    word_dropout: DropoutRate,
) -> keras.Model:
    """Build the model.

    Args:
        data: the vocabularies.
        cell: of encoder and decoder.
        units: width of the embeddings and of each cell.
        num_layers: cells of the encoder, and of the decoder.
        dropout: rate after the embeddings and after each cell.
        word_dropout: share of the tokens whose whole embedding is dropped.
    """
    recurrent = {"gru": keras.layers.GRU, "lstm": LSTM}[cell]
    inputs, source_embedding, target_embedding = embedded_inputs(data, units)
    source = inputs["source"]
    mask = ops.cast(ops.not_equal(source, 0), "int32")
    position = ops.cumsum(ops.ones_like(source), axis=1)
    length = ops.sum(mask, axis=1, keepdims=True)
    # Reverse the tokens; padding stays on the right.
    reverse = ops.mod(length - position, ops.max(position, axis=1, keepdims=True))
    x = drop_words(source_embedding(ops.take_along_axis(source, reverse, axis=1)), word_dropout)
    final_states = []
    for _ in range(num_layers):
        x = keras.layers.Dropout(dropout)(x)
        x = recurrent(units, return_sequences=True)(x, mask=ops.cast(mask, "bool"))
        is_last = ops.cast(ops.equal(position, length), x.dtype)[..., None]
        final_states.append(ops.sum(x * is_last, axis=1))
    num_states = 2 if cell == "lstm" else 1  # of a cell
    bridge = keras.layers.Dense(num_layers * num_states * units, "tanh", name="bridge")
    state = ops.split(
        bridge(ops.concatenate(final_states, axis=-1)), num_layers * num_states, axis=-1
    )
    y = drop_words(target_embedding(inputs["before"]), word_dropout)
    for depth in range(num_layers):
        y = keras.layers.Dropout(dropout)(y)
        initial = state[depth * num_states : (depth + 1) * num_states]
        layer = recurrent(units, return_sequences=True, name=f"decoder_{depth}")
        y = layer(y, initial_state=initial)
    logits = target_embedding(keras.layers.Dropout(dropout)(y), reverse=True)
    return keras.Model(inputs, logits, name="seq2seq")


def start_decoding(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Encode a batch of sources.

    Returns:
        The step function, the initial state and the shared arrays: see `ostinato.decoding.Step`.
    """
    embedding, bridge = model.get_layer("target_embedding"), model.get_layer("bridge")
    project = output_projection(embedding)
    (source_input,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(source_input, bridge.output)
    cells = [layer.cell for layer in model.layers if layer.name.startswith("decoder_")]
    total = bridge.units // cells[0].units
    num_states = total // len(cells)

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        shape, next_state = tf.shape(tokens), []
        y = embedding(tf.reshape(tokens, (-1,)))
        remaining = [tf.reshape(leaf, (-1, leaf.shape[-1])) for leaf in state]
        for cell in cells:
            own, remaining = remaining[:num_states], remaining[num_states:]
            y, own = cell(y, own, training=False)
            next_state += own

        def unflatten(x: Any) -> Any:
            return tf.reshape(x, (shape[0], shape[1], x.shape[-1]))

        return unflatten(project(y)), None, [unflatten(leaf) for leaf in next_state]

    return step, tf.split(encoder(source, training=False), total, axis=-1), ()
