"""Beam search in TensorFlow, with length and coverage penalties."""

from dataclasses import replace

from ostinato.decoding.candidates import next_tokens
from ostinato.decoding.interface import (
    MIN_COVERAGE,
    NEGATIVE_INFINITY,
    Array,
    Constraints,
    DecodeResult,
    State,
    Step,
    Tensor,
    check_attention,
    check_beam_options,
    length_normaliser,
)
from ostinato.decoding.loop import batched_constraints, decode_loop
from ostinato.units import Count, NonNegative


def beam_search(
    step: Step,
    state: State,
    shared: State,
    constraints: Constraints,
    source_mask: Array | None = None,
    *,
    beam_size: Count,
    nbest_size: Count,
    length_penalty: NonNegative,
    coverage_penalty: NonNegative,
) -> DecodeResult:
    """Find the best sequences by beam search.

    At each step all one-token extensions of the live hypotheses are ranked by log probability.
    Those among the first ``beam_size`` that end with eos are finished; the first ``beam_size``
    others stay live. A sequence is done when ``beam_size`` hypotheses are finished or none is
    live. Finished hypotheses are ranked by log probability / length penalty + coverage penalty
    (Wu et al. 2016, arXiv 1609.08144, equation 14). A tie is resolved to the hypothesis that was
    ranked higher before, then to the more probable token, then to the lower token.

    Args:
        step: see `Step`.
        state: the initial state, a nest of tensors (batch, ...).
        shared: a nest of tensors (batch, ...).
        constraints: on the sequences.
        source_mask: bool (batch, source), False for padding; required by a coverage penalty.
        beam_size: number of hypotheses.
        nbest_size: number of sequences to return, at most ``beam_size``.
        length_penalty: strength of the length penalty; 0 turns it off.
        coverage_penalty: strength of the coverage penalty; 0 turns it off.

    Raises:
        ValueError: ``nbest_size`` exceeds ``beam_size``; a coverage penalty without
            ``source_mask``, or with a step function that returns no attention.
    """
    import tensorflow as tf

    check_beam_options(source_mask, beam_size, nbest_size, coverage_penalty)
    arrays, steps = batched_constraints(constraints)
    batch = tf.shape(arrays["max_length"])[0]
    coverage = tf.zeros((batch, 0))
    if coverage_penalty:  # padding counts as covered, so it adds nothing to the penalty
        coverage = 1 - tf.cast(source_mask, tf.float32)
    no_score = tf.fill((batch, beam_size), NEGATIVE_INFINITY)
    padding = tf.fill((batch, beam_size, steps), tf.constant(constraints.pad, tf.int32))
    finished = (padding, tf.zeros((batch, beam_size), tf.int32), no_score, no_score)
    # Each sequence starts with one hypothesis, which the first step expands to the beam.
    last = tf.fill((batch, 1), tf.constant(constraints.bos, tf.int32))
    initial = tf.nest.map_structure(lambda leaf: tf.expand_dims(leaf, 1), (coverage, state))
    initial = (tf.zeros((batch, 1)), last, padding[:, :1], *initial)

    def body(t: Tensor, inputs: State, state: State, finished: State) -> tuple[State, State]:
        arrays, shared = inputs
        live, last, tokens, coverage, state = state
        logits, attention, state = step(last, state, shared)
        # A hypothesis needs at most beam_size + 1 extensions: one with eos, the others live.
        values, candidates = next_tokens(
            logits, tokens, t, replace(constraints, **arrays), beam_size + 1
        )
        per_hypothesis = values.shape[-1]
        total = per_hypothesis * tf.shape(values)[1]
        values, indices = tf.math.top_k(
            tf.reshape(live[..., None] + values, (-1, total)), tf.minimum(2 * beam_size, total)
        )
        parents = indices // per_hypothesis
        chosen = tf.gather(tf.reshape(candidates, (-1, total)), indices, batch_dims=1)
        # The first step, or a small vocabulary, has fewer than 2 * beam_size candidates.
        fill = ((0, 0), (0, 2 * beam_size - tf.shape(indices)[1]))
        values = tf.pad(values, fill, constant_values=NEGATIVE_INFINITY)
        parents, chosen = tf.pad(parents, fill), tf.pad(chosen, fill)

        def extend(parents: Tensor, new: Tensor) -> Tensor:
            """The tokens of the parents, followed by the new tokens."""
            before = tf.gather(tokens, parents, batch_dims=1)
            return tf.where(tf.range(steps) == t, new[..., None], before)

        if coverage_penalty:
            check_attention(attention)
            coverage += tf.cast(attention, tf.float32)

        ended = chosen == constraints.eos
        ending = tf.where(ended, values, NEGATIVE_INFINITY)[:, :beam_size]
        scores = ending / length_normaliser(tf.cast(t + 1, tf.float32), length_penalty)
        if coverage_penalty:
            covered = tf.gather(coverage, parents[:, :beam_size], batch_dims=1)
            covered = tf.math.log(tf.clip_by_value(covered, MIN_COVERAGE, 1.0))
            scores += coverage_penalty * tf.reduce_sum(covered, axis=-1)
        sequences = extend(parents[:, :beam_size], chosen[:, :beam_size])
        new = (sequences, tf.fill(tf.shape(ending), t + 1), ending, scores)
        both = [tf.concat([a, b], axis=1) for a, b in zip(finished, new, strict=True)]
        _, best = tf.math.top_k(both[3], beam_size)
        finished = tuple(tf.gather(x, best, batch_dims=1) for x in both)
        done = tf.reduce_all(finished[3] > NEGATIVE_INFINITY, axis=1, keepdims=True)

        live, best = tf.math.top_k(tf.where(ended | done, NEGATIVE_INFINITY, values), beam_size)
        parents, last = (tf.gather(x, best, batch_dims=1) for x in (parents, chosen))
        coverage, state = tf.nest.map_structure(
            lambda leaf: tf.gather(leaf, parents, batch_dims=1), (coverage, state)
        )
        return (live, last, extend(parents, last), coverage, state), finished

    def unfinished(state: State) -> Tensor:
        return tf.reduce_any(state[0] > NEGATIVE_INFINITY, axis=1)

    finished = decode_loop(body, unfinished, (arrays, shared), initial, finished)
    tokens, lengths, log_probabilities, scores = (x[:, :nbest_size] for x in finished)
    exists = scores > NEGATIVE_INFINITY
    tokens = tf.where(exists[..., None], tokens, constraints.pad)
    return DecodeResult(tokens, tf.where(exists, lengths, 0), log_probabilities, scores)
