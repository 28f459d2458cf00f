"""Reference implementations of decoding in NumPy, one sequence and hypothesis at a time.

They define the results of the TensorFlow functions of the same names, and need no TensorFlow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from ostinato.decoding.interface import (
    MIN_COVERAGE,
    NEGATIVE_INFINITY,
    Array,
    Constraints,
    DecodeResult,
    State,
    Step,
    check_attention,
    check_beam_options,
    length_normaliser,
)
from ostinato.units import Count, Fraction, NonNegative, Temperature


@dataclass(frozen=True)
class _Hypothesis:
    parent: int  # index among the hypotheses of the previous step
    tokens: tuple[int, ...]
    log_probability: np.float32
    coverage: np.ndarray  # float32 (source,)


def greedy(step: Step, state: State, shared: State, constraints: Constraints) -> DecodeResult:
    """`ostinato.decoding.greedy` for NumPy arrays."""
    return _decode(
        step, state, shared, constraints, lambda logits, index, t: int(np.argmax(logits))
    )


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
    """`ostinato.decoding.sample` for NumPy arrays."""

    def draw(logits: np.ndarray, index: int, t: int) -> int:
        order = np.argsort(-logits, kind="stable")[:top_k]
        scaled = logits[order] / np.float32(temperature)
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        cumulative = np.cumsum(weights)
        count = int(((cumulative - weights < np.float32(top_p)) & (weights > 0)).sum())
        rank = int((cumulative[:count] <= uniforms[index, t] * cumulative[count - 1]).sum())
        return int(order[max(min(rank, count - 1), 0)])

    return _decode(step, state, shared, constraints, draw)


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
    """`ostinato.decoding.beam_search` for NumPy arrays."""
    check_beam_options(source_mask, beam_size, nbest_size, coverage_penalty)
    batch = len(constraints.max_length)
    coverage = np.zeros((batch, 0), np.float32)
    if coverage_penalty:
        coverage = 1 - np.asarray(source_mask, np.float32)
    live = [[_Hypothesis(0, (), np.float32(0), row)] for row in coverage]
    finished: list[list[tuple[np.float32, _Hypothesis]]] = [[] for _ in range(batch)]
    state = _map_nest(state, lambda leaf: np.repeat(leaf[:, None], beam_size, axis=1))
    while any(live):
        last = np.full((batch, beam_size), constraints.pad, np.int32)
        for index, hypotheses in enumerate(live):
            last[index, : len(hypotheses)] = [(constraints.bos, *h.tokens)[-1] for h in hypotheses]
        logits, attention, state = step(last, state, shared)
        if coverage_penalty:
            check_attention(attention)
        parents = np.zeros((batch, beam_size), np.int32)
        for index, hypotheses in enumerate(live):
            candidates = []
            for parent, h in enumerate(hypotheses):
                row = np.asarray(logits[index, parent], np.float32)
                normaliser = _logsumexp(row)
                covered = h.coverage
                if coverage_penalty and attention is not None:
                    covered = covered + attention[index, parent]
                constrained = _constrained(row, h.tokens, index, constraints)
                order = np.argsort(-constrained, kind="stable")
                for token in order[constrained[order] > NEGATIVE_INFINITY].tolist():
                    total = h.log_probability + (row[token] - normaliser)
                    candidates.append(_Hypothesis(parent, (*h.tokens, token), total, covered))
            candidates.sort(key=lambda h: -h.log_probability)
            for h in candidates[:beam_size]:
                if h.tokens[-1] == constraints.eos:
                    score = h.log_probability / length_normaliser(
                        np.float32(len(h.tokens)), length_penalty
                    )
                    if coverage_penalty:
                        logs = np.log(np.clip(h.coverage, MIN_COVERAGE, 1))
                        score += np.float32(coverage_penalty) * logs.sum()
                    finished[index].append((score, h))
            finished[index] = sorted(finished[index], key=lambda pair: -pair[0])[:beam_size]
            unfinished = [h for h in candidates if h.tokens[-1] != constraints.eos][:beam_size]
            live[index] = unfinished if len(finished[index]) < beam_size else []
            parents[index, : len(live[index])] = [h.parent for h in live[index]]
        selected = (np.arange(batch)[:, None], parents)
        state = _map_nest(state, lambda leaf, selected=selected: leaf[selected])  # type: ignore[misc]
    ranked = [
        [(h.tokens, h.log_probability, score) for score, h in hypotheses[:nbest_size]]
        for hypotheses in finished
    ]
    return _result(ranked, nbest_size, constraints)


def _decode(
    step: Step,
    state: State,
    shared: State,
    constraints: Constraints,
    choose: Callable[[np.ndarray, int, int], int],
) -> DecodeResult:
    """Decode one hypothesis for each sequence; ``choose(logits, index, t)`` is its next token."""
    batch = len(constraints.max_length)
    tokens: list[tuple[int, ...]] = [()] * batch
    totals = np.zeros(batch, np.float32)
    alive = np.ones(batch, bool)
    state = _map_nest(state, lambda leaf: leaf[:, None])
    while alive.any():
        last = np.array([[(constraints.bos, *chosen)[-1]] for chosen in tokens], np.int32)
        logits, _, state = step(last, state, shared)
        for index in np.flatnonzero(alive).tolist():
            row = np.asarray(logits[index, 0], np.float32)
            constrained = _constrained(row, tokens[index], index, constraints)
            alive[index] = constrained.max() > NEGATIVE_INFINITY
            if alive[index]:
                token = choose(constrained, index, len(tokens[index]))
                totals[index] += row[token] - _logsumexp(row)
                tokens[index] = (*tokens[index], token)
                alive[index] = token != constraints.eos
            else:
                totals[index] = NEGATIVE_INFINITY
    ranked = [
        [(chosen, total, total)] if total > NEGATIVE_INFINITY else []
        for chosen, total in zip(tokens, totals, strict=True)
    ]
    return _result(ranked, 1, constraints)


def _constrained(
    logits: Float32[np.ndarray, " vocabulary"],
    tokens: tuple[int, ...],
    index: int,
    constraints: Constraints,
) -> Float32[np.ndarray, " vocabulary"]:
    """Logits after ``tokens``, minus infinity where the constraints exclude the token."""
    t, excluded = len(tokens), np.zeros(len(logits), bool)
    if constraints.allowed is not None:
        allowed = np.asarray(constraints.allowed)
        excluded |= ~allowed[index if len(allowed) > 1 else 0]
    excluded[constraints.eos] = t < constraints.min_length[index]
    excluded[constraints.pad] = True
    if n := constraints.no_repeat_ngram_size:
        for i in range(t - n + 1):
            if tokens[i : i + n - 1] == tokens[t - n + 1 :]:
                excluded[tokens[i + n - 1]] = True
    if constraints.prefix is not None and t < constraints.prefix.shape[1]:
        forced = constraints.prefix[index, t]
        if forced != constraints.pad:
            excluded = np.arange(len(logits)) != forced
    if t >= constraints.max_length[index]:
        excluded = np.arange(len(logits)) != constraints.eos
    return np.where(excluded, NEGATIVE_INFINITY, logits).astype(np.float32)


def _result(
    ranked: list[list[tuple[tuple[int, ...], Any, Any]]], nbest_size: int, constraints: Constraints
) -> DecodeResult:
    """Pad (tokens, log probability, score) of each sequence to arrays."""
    steps = int(np.max(constraints.max_length, initial=0)) + 1
    shape = (len(ranked), nbest_size)
    tokens = np.full((*shape, steps), constraints.pad, np.int32)
    lengths = np.zeros(shape, np.int32)
    totals, scores = np.full(shape, NEGATIVE_INFINITY), np.full(shape, NEGATIVE_INFINITY)
    for index, sequences in enumerate(ranked):
        for rank, (chosen, total, score) in enumerate(sequences):
            tokens[index, rank, : len(chosen)] = chosen
            lengths[index, rank] = len(chosen)
            totals[index, rank], scores[index, rank] = total, score
    return DecodeResult(tokens, lengths, totals, scores)


def _logsumexp(row: Float32[np.ndarray, " vocabulary"]) -> np.float32:
    highest = row.max()
    return np.float32(highest + np.log(np.exp(row - highest).sum()))


def _map_nest(nest: State, function: Callable[[Any], Any]) -> State:
    """Apply ``function`` to each array of a nest of tuples, lists and dictionaries."""
    if isinstance(nest, dict):
        return {key: _map_nest(value, function) for key, value in nest.items()}
    if isinstance(nest, (tuple, list)):
        return type(nest)(_map_nest(value, function) for value in nest)
    return function(nest)
