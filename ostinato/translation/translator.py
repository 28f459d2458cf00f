"""A trained model and beam search: rows of source tokens to ranked translations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from ostinato import decoding, params
from ostinato.errors import EvaluationError
from ostinato.translation.dataset import BOS, EOS, PAD, TranslationDataset

EXTRA_TOKENS = 10  # added to the maximum length of a translation


@runtime_checkable
class TranslationModel(Protocol):
    """A restored model: `ostinato.training.keras_model.KerasModel`."""

    model: Any
    """A Keras model with the name of its module, which has ``start_decoding``."""

    @property
    def parameters(self) -> int:
        """The number of weights."""


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


class Translator:
    """Beam search with a model, compiled once for batches of any size.

    Rows are translated in batches of similar length. A translation does not depend on the order of
    the rows or on the other rows.

    Args:
        predictor: the restored model.
        data: the data set that the model was trained on.
        options: of the search.
        nbest_size: number of translations for each row, at most ``options.beam_size``.
        batch_size: rows in a batch.
    """

    def __init__(
        self,
        predictor: TranslationModel,
        data: TranslationDataset,
        options: SearchOptions,
        *,
        nbest_size: int,
        batch_size: int,
    ) -> None:
        import tensorflow as tf

        model, self.data, self.batch_size = predictor.model, data, batch_size
        start_decoding = params.model_module("translation", model.name).start_decoding
        tokens, hypotheses = (tf.TensorSpec((None,) * rank, tf.int32) for rank in (2, 3))

        @tf.function(input_signature=[tokens])
        def search(source: Any) -> Any:
            step, state, shared = start_decoding(model, source)
            lengths = tf.reduce_sum(tf.cast(source != PAD, tf.int32), axis=1) - 1  # without eos
            longest = options.max_length_ratio * tf.cast(lengths, tf.float32)
            longest = tf.cast(longest, tf.int32) + EXTRA_TOKENS
            constraints = decoding.Constraints(
                BOS, EOS, PAD, tf.zeros_like(longest), longest, options.no_repeat_ngram_size
            )
            return decoding.beam_search(
                step,
                state,
                shared,
                constraints,
                source != PAD,
                beam_size=options.beam_size,
                nbest_size=nbest_size,
                length_penalty=options.length_penalty,
                coverage_penalty=options.coverage_penalty,
            )

        @tf.function(input_signature=[tokens, hypotheses])
        def align(source: Any, tokens: Any) -> Any:
            step, state, shared = start_decoding(model, source)
            attention = decoding.align(step, state, shared, tokens, BOS)
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
        for start in tqdm(starts, desc="translating", unit="batch", disable=None, leave=False):
            indices = order[start : start + self.batch_size].tolist()
            batch = [list(rows[index]) for index in indices]
            for index, hypotheses in zip(indices, self._batch(batch, attention), strict=True):
                translations[index] = hypotheses
        return translations

    def _batch(self, rows: list[list[int]], attention: bool) -> list[list[Hypothesis]]:
        source = self.data.pad(rows)
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
