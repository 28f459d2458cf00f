"""The most probable next tokens under the constraints, in TensorFlow."""

from ostinato.decoding.interface import NEGATIVE_INFINITY, Constraints, Tensor

CHUNK = 50  # logits of which only the maximum is compared first


def next_tokens(
    logits: Tensor, tokens: Tensor, t: Tensor, constraints: Constraints, count: int | None
) -> tuple[Tensor, Tensor]:
    """The log probabilities of the most probable next tokens, best first, and the tokens.

    Args:
        logits: (batch, hypothesis, vocabulary).
        tokens: int32 (batch, hypothesis, position), of the ``t`` previous steps.
        t: the step, from 0.
        constraints: with TensorFlow's tensors.
        count: number of tokens; None returns all.

    Returns:
        Both (batch, hypothesis, count). A log probability is minus infinity where no further token
        is allowed. Ties are resolved to the lower token.
    """
    import tensorflow as tf

    logits = tf.cast(logits, tf.float32)
    size = logits.shape[-1]
    count = min(count or size, size)
    constrained = logits
    if constraints.allowed is not None:
        is_eos = tf.range(size) == constraints.eos
        constrained = tf.where(
            (constraints.allowed | is_eos)[:, None], constrained, NEGATIVE_INFINITY
        )
    if constraints.no_repeat_ngram_size:
        repeats = _repeats_ngram(tokens, t, constraints.no_repeat_ngram_size, size)
        constrained = tf.where(repeats, NEGATIVE_INFINITY, constrained)
    # Masking pad and eos among the top tokens is cheaper than among all logits: take two more.
    top, chosen = top_k(constrained, min(count + 2, size))
    # The normaliser from the softmax of one token: no other pass over the logits is as fast.
    most_probable = chosen[..., :1]
    if constrained is not logits:
        most_probable = tf.argmax(logits, axis=-1, output_type=tf.int32)[..., None]
    probability = tf.gather(tf.nn.softmax(logits), most_probable, batch_dims=2)
    normaliser = tf.gather(logits, most_probable, batch_dims=2) - tf.math.log(probability)
    too_short = (t < constraints.min_length)[:, None, None]
    masked = (chosen == constraints.pad) | ((chosen == constraints.eos) & too_short)
    top, order = tf.math.top_k(tf.where(masked, NEGATIVE_INFINITY, top), count)
    chosen = tf.gather(chosen, order, batch_dims=2)

    forced = tf.constant(constraints.pad, tf.int32)
    if constraints.prefix is not None:
        padded = tf.pad(constraints.prefix, ((0, 0), (0, 1)), constant_values=constraints.pad)
        forced = padded[:, tf.minimum(t, tf.shape(constraints.prefix)[1])]
    forced = tf.where(t >= constraints.max_length, constraints.eos, forced)
    forced = tf.repeat(forced[:, None, None], tf.shape(logits)[1], axis=1)
    forced_logits = tf.where(
        tf.range(count) == 0, tf.gather(logits, forced, batch_dims=2), NEGATIVE_INFINITY
    )
    is_forced = forced != constraints.pad
    log_probabilities = tf.where(is_forced, forced_logits, top) - normaliser
    return log_probabilities, tf.where(is_forced, forced, chosen)


def top_k(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``tf.math.top_k`` of (batch, hypothesis, vocabulary), faster for large vocabularies.

    The ``count`` largest logits are in the ``count`` chunks that have the largest maxima.
    """
    import tensorflow as tf

    size = logits.shape[-1]
    if size <= 4 * count * CHUNK:
        top: tuple[Tensor, Tensor] = tf.math.top_k(logits, count)
        return top
    if fill := -size % CHUNK:
        logits = tf.pad(logits, ((0, 0), (0, 0), (0, fill)), constant_values=NEGATIVE_INFINITY)
    shape = tf.shape(logits)
    chunks = tf.reshape(logits, (shape[0], shape[1], (size + fill) // CHUNK, CHUNK))
    # Sorted by index, so that ties are resolved to the lower token.
    selected = tf.sort(tf.math.top_k(tf.reduce_max(chunks, axis=-1), count).indices)
    shape = (shape[0], shape[1], count * CHUNK)
    values, indices = tf.math.top_k(
        tf.reshape(tf.gather(chunks, selected, batch_dims=2), shape), count
    )
    tokens = tf.gather(selected, indices // CHUNK, batch_dims=2) * CHUNK + indices % CHUNK
    return values, tokens


def _repeats_ngram(tokens: Tensor, t: Tensor, n: int, size: int) -> Tensor:
    """Which next tokens would repeat an n-gram: bool (batch, hypothesis, size)."""
    import tensorflow as tf

    shape = tf.shape(tokens)
    steps = shape[2]
    windows = tf.maximum(steps - n + 1, 0)
    same = tf.fill((shape[0], shape[1], windows), True) & (tf.range(windows) + n <= t)
    for i in range(n - 1):
        # Compare the i-th of the last n - 1 tokens with the i-th token of each window.
        recent = tokens[:, :, tf.clip_by_value(t - n + 1 + i, 0, steps - 1)]
        same &= tokens[:, :, i : i + windows] == recent[..., None]
    following = tokens[:, :, n - 1 : n - 1 + windows]
    offset = tf.reshape(tf.range(shape[0] * shape[1]), (shape[0], shape[1], 1)) * size
    hits = tf.scatter_nd(
        tf.reshape(offset + following, (-1, 1)),
        tf.reshape(tf.cast(same, tf.int32), (-1,)),
        (shape[0] * shape[1] * size,),
    )
    return tf.reshape(hits > 0, (shape[0], shape[1], size))
