"""An encoder whose last states are all that the decoder knows of the source.

Sutskever et al. 2014, arXiv 1409.3215 (the source is read backwards); with GRU: Cho et al. 2014,
arXiv 1406.1078. The target's embedding is also the output's weights: Press and Wolf 2017, arXiv
1608.05859. It shows what attention adds.
Input: source and before, int (batch, token), padded with 0; output (batch, token, piece), logits
of the next token of the target.
"""

from typing import Any, Literal

import keras
import tensorflow as tf
from keras import ops

from ostinato.layers import LSTM
from ostinato.training.teacher_forcing import fit_seq2seq as fit
from ostinato.translation.layers import blanked, teller, texts
from ostinato.units import Fraction, NumLayers, Units

__all__ = ["build", "fit", "start"]


def build(
    data: Any,
    *,
    cell: Literal["gru", "lstm"],
    units: Units,
    num_layers: NumLayers,
    dropout: Fraction,
    word_dropout: Fraction,
) -> keras.Model:
    """The model.

    Args:
        data: what the model reads: vocabulary (of the source and of the target), joint.
        cell: of both sides.
        units: width of the embeddings and of each cell.
        num_layers: cells of the encoder, and of the decoder.
        dropout: share dropped of the embeddings, and after each cell.
        word_dropout: share of the tokens whose embedding is dropped as a whole.
    """
    recurrent = {"gru": keras.layers.GRU, "lstm": LSTM}[cell]
    given, foreign, words = texts(data, units)
    source = given["source"]
    real = ops.cast(ops.not_equal(source, 0), "int32")
    place, end = ops.cumsum(ops.ones_like(source), axis=1), ops.sum(real, axis=1, keepdims=True)
    # The tokens from the last to the first, and padding stays on the right.
    backwards = ops.mod(end - place, ops.max(place, axis=1, keepdims=True))
    x = blanked(foreign(ops.take_along_axis(source, backwards, axis=1)), word_dropout)
    lasts = []
    for _ in range(num_layers):
        x = keras.layers.Dropout(dropout)(x)
        x = recurrent(units, return_sequences=True)(x, mask=ops.cast(real, "bool"))
        last = ops.cast(ops.equal(place, end), x.dtype)[..., None]
        lasts.append(ops.sum(x * last, axis=1))
    each = 2 if cell == "lstm" else 1  # states of a cell
    bridge = keras.layers.Dense(num_layers * each * units, "tanh", name="bridge")
    state = ops.split(bridge(ops.concatenate(lasts, axis=-1)), num_layers * each, axis=-1)
    y = blanked(words(given["before"]), word_dropout)
    for depth in range(num_layers):
        y = keras.layers.Dropout(dropout)(y)
        begin = state[depth * each : (depth + 1) * each]
        y = recurrent(units, return_sequences=True, name=f"tell_{depth}")(y, initial_state=begin)
    logits = words(keras.layers.Dropout(dropout)(y), reverse=True)
    return keras.Model(given, logits, name="seq2seq")


def start(model: keras.Model, source: Any) -> tuple[Any, Any, Any]:
    """Of a batch of sources: the step of `ostinato.decoding.search`, its first state, what is shared."""
    words, bridge = model.get_layer("words"), model.get_layer("bridge")
    tell = teller(words)
    (given,) = (x for x in model.inputs if x.name == "source")
    encoder = keras.Model(given, bridge.output)
    cells = [layer.cell for layer in model.layers if layer.name.startswith("tell_")]
    parts = bridge.units // cells[0].units
    each = parts // len(cells)

    def step(tokens: Any, state: Any, shared: Any) -> Any:
        shape, after = tf.shape(tokens), []
        y = words(tf.reshape(tokens, (-1,)))
        before = [tf.reshape(leaf, (-1, leaf.shape[-1])) for leaf in state]
        for cell in cells:
            own, before = before[:each], before[each:]
            y, own = cell(y, own, training=False)
            after += own

        def apart(x: Any) -> Any:
            return tf.reshape(x, (shape[0], shape[1], x.shape[-1]))

        return apart(tell(y)), None, [apart(leaf) for leaf in after]

    return step, tf.split(encoder(source, training=False), parts, axis=-1), ()
