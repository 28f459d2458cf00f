"""Greedy decoding and sampling in TensorFlow: one hypothesis for each sequence."""

from collections.abc import Callable
from dataclasses import replace

from ostinato.decoding.candidates import next_tokens
from ostinato.decoding.interface import (
    NEGATIVE_INFINITY,
    Array,
    Constraints,
    DecodeResult,
    State,
    Step,
    Tensor,
)
from ostinato.decoding.loop import batched_constraints, decode_loop
from ostinato.units import Count, Fraction, Temperature


def greedy(step: Step, state: State, shared: State, constraints: Constraints) -> DecodeResult:
    """Generate the most probable token at each step.

    Args:
        step: see `Step`.
        state: the initial state, a nest of tensors (batch, ...).
        shared: a nest of tensors (batch, ...).
        constraints: on the sequences.

    Returns:
        One sequence for each batch element; its score is its log probability.
    """
    import tensorflow as tf

    def first(log_probabilities: Tensor, uniforms: State, t: Tensor) -> Tensor:
        return tf.zeros(tf.shape(log_probabilities)[:2], tf.int32)

    return _decode(step, state, shared, constraints, 1, first, ())


def sample(
    step: Step,
    state: State,
    shared: State,
    constraints: Constraints,
    uniforms: Array,
    *,
    temperature: Temperature,
    top_k: Count | None,
    top_p: Fraction,
) -> DecodeResult:
    """Sample tokens from the model's distribution, with temperature, top-k and top-p.

    Args:
        step: see `Step`.
        state: the initial state, a nest of tensors (batch, ...).
        shared: a nest of tensors (batch, ...).
        constraints: on the sequences.
        uniforms: float32 (batch, position), uniform in [0, 1), with at least one position more
            than the largest ``max_length``: the only source of randomness.
        temperature: divisor of the logits.
        top_k: number of most probable tokens to sample from; None samples from all.
        top_p: sample from the smallest set of most probable tokens that has this probability
            (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751); 1 samples from all.

    Returns:
        One sequence for each batch element; its score is its log probability at temperature 1.
    """
    import tensorflow as tf

    def draw(log_probabilities: Tensor, uniforms: Tensor, t: Tensor) -> Tensor:
        weights = tf.nn.softmax(log_probabilities[:, 0] / temperature)
        cumulative = tf.cumsum(weights, axis=-1)
        # The nucleus ends with the first token at which the cumulative sum reaches top_p.
        nucleus = (cumulative - weights < top_p) & (weights > 0)
        mass = tf.reduce_max(tf.where(nucleus, cumulative, 0), axis=-1)
        skipped = nucleus & (cumulative <= (tf.gather(uniforms, t, axis=1) * mass)[:, None])
        rank, count = (tf.reduce_sum(tf.cast(x, tf.int32), axis=-1) for x in (skipped, nucleus))
        return tf.maximum(tf.minimum(rank, count - 1), 0)[:, None]

    uniforms = tf.convert_to_tensor(uniforms)
    return _decode(step, state, shared, constraints, top_k, draw, uniforms)


def _decode(
    step: Step,
    state: State,
    shared: State,
    constraints: Constraints,
    count: int | None,
    choose: Callable[[Tensor, State, Tensor], Tensor],
    uniforms: State,
) -> DecodeResult:
    """Decode one hypothesis for each sequence.

    ``choose(log_probabilities, uniforms, t)`` returns the rank (batch, 1) of the next token among
    the ``count`` most probable tokens.
    """
    import tensorflow as tf

    arrays, steps = batched_constraints(constraints)
    batch = tf.shape(arrays["max_length"])[0]

    def body(t: Tensor, inputs: State, state: State, outputs: State) -> tuple[State, State]:
        arrays, shared, uniforms = inputs
        (alive, last, state), (tokens, total) = state, outputs
        logits, _, state = step(last, state, shared)
        values, candidates = next_tokens(logits, tokens, t, replace(constraints, **arrays), count)
        rank = choose(values, uniforms, t)[..., None]
        token = tf.gather(candidates, rank, batch_dims=2)[..., 0]
        value = tf.gather(values, rank, batch_dims=2)[..., 0]
        total = tf.where(alive, total + value, total)
        last = tf.where(alive, token, constraints.pad)
        tokens = tf.where(tf.range(steps) == t, last[..., None], tokens)
        alive &= (token != constraints.eos) & (total > NEGATIVE_INFINITY)
        return (alive, last, state), (tokens, total)

    padding = tf.fill((batch, 1, steps), tf.constant(constraints.pad, tf.int32))
    first = tf.fill((batch, 1), tf.constant(constraints.bos, tf.int32))
    state = tf.nest.map_structure(lambda leaf: tf.expand_dims(leaf, 1), state)
    tokens, totals = decode_loop(
        body,
        lambda state: state[0][:, 0],
        (arrays, shared, uniforms),
        (tf.fill((batch, 1), True), first, state),
        (padding, tf.zeros((batch, 1))),
    )
    tokens = tf.where((totals > NEGATIVE_INFINITY)[..., None], tokens, constraints.pad)
    lengths = tf.reduce_sum(tf.cast(tokens != constraints.pad, tf.int32), axis=-1)
    return DecodeResult(tokens, lengths, totals, totals)
