"""Beam search over many rows of source tokens, in batches of similar length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Integer

from ostinato import decoding
from ostinato.errors import EvaluationError
from ostinato.progress import track

EXTRA_TOKENS = 10  # added to the maximum length of a translation


class SpecialTokens(NamedTuple):
    """The ids of padding and of the begin and the end of a sequence."""

    pad: int
    bos: int
    eos: int


@dataclass(frozen=True)
class SearchOptions:
    """The parameters of beam search, as `ostinato.decoding.beam_search` takes them.

    Attributes:
        beam_size: number of hypotheses.
        length_penalty: strength of the length penalty; 0 turns it off.
        coverage_penalty: strength of the coverage penalty; 0 turns it off.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 turns it off.
        max_length_ratio: maximum length of a translation in multiples of the source length, to
            which 10 tokens are added.
    """

    beam_size: int
    length_penalty: float
    coverage_penalty: float
    no_repeat_ngram_size: int
    max_length_ratio: float


class Hypothesis(NamedTuple):
    """A translation of a row of source tokens.

    Attributes:
        tokens: without eos.
        log_probability: of the tokens and eos, in nats.
        score: by which translations are ranked.
        attention: float32 (token, source token), both with eos; None unless requested, or if the
            model has no attention.
    """

    tokens: list[int]
    log_probability: float
    score: float
    attention: Float32[np.ndarray, "token source"] | None


class BatchSearch:
    """Beam search with a model, compiled once for batches of any size.

    Rows are translated in batches of similar length. A translation does not depend on the order of
    the rows or on the other rows.

    Args:
        start_decoding: maps source tokens (batch, token) to a step function, its first state and
            what all steps share.
        pad: maps rows of source tokens to an array (batch, token), with eos and padding.
        special: ids of tokens.
        options: of the search.
        nbest_size: number of translations for each row, at most ``options.beam_size``.
        batch_size: rows in a batch.
    """

    def __init__(
        self,
        start_decoding: Callable[[Any], tuple[Any, Any, Any]],
        pad: Callable[[list[list[int]]], Integer[np.ndarray, "batch token"]],
        special: SpecialTokens,
        options: SearchOptions,
        *,
        nbest_size: int,
        batch_size: int,
    ) -> None:
        import tensorflow as tf

        self.pad, self.batch_size = pad, batch_size
        tokens, hypotheses = (tf.TensorSpec((None,) * rank, tf.int32) for rank in (2, 3))

        @tf.function(input_signature=[tokens])
        def search(source: Any) -> Any:
            step, state, shared = start_decoding(source)
            lengths = (
                tf.reduce_sum(tf.cast(source != special.pad, tf.int32), axis=1) - 1
            )  # without eos
            longest = options.max_length_ratio * tf.cast(lengths, tf.float32)
            longest = tf.cast(longest, tf.int32) + EXTRA_TOKENS
            constraints = decoding.Constraints(
                special.bos,
                special.eos,
                special.pad,
                tf.zeros_like(longest),
                longest,
                options.no_repeat_ngram_size,
            )
            return decoding.beam_search(
                step,
                state,
                shared,
                constraints,
                source != special.pad,
                beam_size=options.beam_size,
                nbest_size=nbest_size,
                length_penalty=options.length_penalty,
                coverage_penalty=options.coverage_penalty,
            )

        @tf.function(input_signature=[tokens, hypotheses])
        def align(source: Any, tokens: Any) -> Any:
            step, state, shared = start_decoding(source)
            attention = decoding.align(step, state, shared, tokens, special.bos)
            return () if attention is None else (attention,)

        self._search, self._align = search, align

    def __call__(
        self, rows: Sequence[Sequence[int]], *, attention: bool = False
    ) -> list[list[Hypothesis]]:
        """Translate rows of source tokens without eos; the best translation of a row is first.

        Args:
            rows: tokens of each source.
            attention: whether to compute the attention.

        Raises:
            EvaluationError: the model's probabilities are not finite.
        """
        order = np.argsort([len(row) for row in rows], kind="stable")
        translations: list[list[Hypothesis]] = [[]] * len(rows)
        starts = range(0, len(rows), self.batch_size)
        for start in track(starts, "translating", unit="batches"):
            indices = order[start : start + self.batch_size].tolist()
            batch = [list(rows[index]) for index in indices]
            for index, hypotheses in zip(indices, self._batch(batch, attention), strict=True):
                translations[index] = hypotheses
        return translations

    def _batch(self, rows: list[list[int]], attention: bool) -> list[list[Hypothesis]]:
        source = self.pad(rows)
        result = decoding.DecodeResult(*(x.numpy() for x in self._search(source)))
        maps = [x.numpy() for x in self._align(source, result.tokens)] if attention else []
        translations = []
        for index, row in enumerate(rows):
            hypotheses = [
                Hypothesis(
                    result.tokens[index, rank, : length - 1].tolist(),
                    float(result.log_probabilities[index, rank]),
                    float(result.scores[index, rank]),
                    maps[0][index, rank, :length, : len(row) + 1] if maps else None,
                )
                for rank, length in enumerate(result.lengths[index].tolist())
                if length
            ]
            if not hypotheses or not np.isfinite(hypotheses[0].log_probability):
                raise EvaluationError(
                    "the model's probabilities are not finite: training diverged; train with a "
                    "lower learning_rate"
                )
            translations.append(hypotheses)
        return translations
