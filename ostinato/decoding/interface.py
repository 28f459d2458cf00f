"""The types of decoding: the step function, the constraints and the result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ostinato.errors import DecodingError

Tensor: TypeAlias = Any
"""A TensorFlow tensor. TensorFlow is imported when a function is called, and has no types."""

Array: TypeAlias = Any
"""A NumPy array or a TensorFlow tensor."""

State: TypeAlias = Any
"""A nest (tuples, lists, dictionaries) of arrays whose first axis is the batch."""

Step = Callable[[Array, State, State], tuple[Array, Array | None, State]]
"""``step(tokens, state, shared) -> (logits, attention, state)``.

tokens: int32 (batch, hypothesis), the last token of each hypothesis.
state: the decoder state, arrays (batch, hypothesis, ...); all axes but the last may grow.
shared: arrays (batch, ...) that all hypotheses of a sequence share, such as the encoder's output.
logits: (batch, hypothesis, vocabulary).
attention: (batch, hypothesis, source), a distribution over the source tokens, or None.

The batch shrinks when sequences finish.
"""

NEGATIVE_INFINITY = np.float32(-np.inf)
MIN_COVERAGE = np.float32(1e-9)  # of a source token; keeps its logarithm finite


@dataclass(frozen=True)
class Constraints:
    """Which sequences may be generated.

    The arrays are NumPy's or TensorFlow's, as those of the search are. Where constraints conflict,
    ``max_length`` has priority over ``prefix``, and ``prefix`` over the others. A hypothesis
    without an allowed next token is dropped.

    Attributes:
        bos: token that precedes each sequence; not part of the result.
        eos: token that ends a sequence; part of the result.
        pad: token that fills the result on the right; never generated.
        min_length: int (batch,), minimum number of tokens before eos.
        max_length: int (batch,), maximum number of tokens before eos.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 turns it off.
        prefix: int (batch, position), forced first tokens, padded with pad; or None.
        allowed: bool (batch or 1, vocabulary), the tokens that may be generated besides eos; None
            allows all.
    """

    bos: int
    eos: int
    pad: int
    min_length: Array
    max_length: Array
    no_repeat_ngram_size: int = 0
    prefix: Array | None = None
    allowed: Array | None = None


class DecodeResult(NamedTuple):
    """The decoded sequences of each batch element, best first.

    Attributes:
        tokens: int32 (batch, rank, position), with eos, padded with pad.
        lengths: int32 (batch, rank), number of tokens with eos; 0 where there is no sequence.
        log_probabilities: float32 (batch, rank), of the tokens under the model, in nats, before
            temperature and constraints; minus infinity where there is no sequence.
        scores: float32 (batch, rank), by which the sequences are ranked.
    """

    tokens: Array
    lengths: Array
    log_probabilities: Array
    scores: Array


def length_normaliser(length: Array, length_penalty: float) -> Array:
    """The divisor of a log probability: ((5 + length) / 6) ** length_penalty; length counts eos.

    Wu et al. 2016, arXiv 1609.08144, equation 14.
    """
    return ((length + np.float32(5)) / np.float32(6)) ** np.float32(length_penalty)


def check_beam_options(
    source_mask: Array | None, beam_size: int, nbest_size: int, coverage_penalty: float
) -> None:
    """Check the options of a beam search.

    Raises:
        DecodingError: ``nbest_size`` exceeds ``beam_size``, or a coverage penalty without
            ``source_mask``.
    """
    if nbest_size > beam_size:
        raise DecodingError(f"nbest_size: {nbest_size} exceeds beam_size {beam_size}")
    if coverage_penalty and source_mask is None:
        raise DecodingError("coverage_penalty: needs source_mask, the source tokens to be covered")


def check_attention(attention: Array | None) -> None:
    """Check that the step function returns attention, as a coverage penalty needs.

    Raises:
        DecodingError: it does not.
    """
    if attention is None:
        raise DecodingError("coverage_penalty: the step function returns no attention")
