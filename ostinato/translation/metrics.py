"""Metrics of translations, with sacreBLEU's defaults (Post 2018, arXiv 1804.08771).

BLEU counts the tokens of the target language's tokenizer; TER counts words, which are the same
tokens where the language has no spaces between words.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from ostinato.task import Metric
from ostinato.translation.formats.languages import bleu_tokenizer

MIN_LOG = -9_999_999_999.0  # sacreBLEU's logarithm of 0
MAX_ORDER = 4  # of BLEU's n-grams
MTEVAL = "13a"  # BLEU's tokenizer for languages with spaces between words
CHRF_BETA = 2  # weight of recall in chrF
_log = np.vectorize(math.log, otypes=[np.float64])  # math's, as NumPy's may differ in the last bit
_exp = np.vectorize(math.exp, otypes=[np.float64])


def corpus_bleu(sums: Float[np.ndarray, "*rows 10"]) -> Float[np.ndarray, "*rows"]:
    """BLEU, 0 to 100, with exponential smoothing (Papineni et al. 2002; Chen & Cherry 2014).

    Args:
        sums: over the sentences: matched n-grams of order 1 to 4, n-grams of order 1 to 4, tokens
            of the translations, tokens of the references.
    """
    matches, totals = sums[..., :4], sums[..., 4:8]
    length, reference_length = sums[..., 8], sums[..., 9]
    valid = np.logical_and.accumulate(totals > 0, axis=-1)
    unmatched = valid & (matches == 0)
    smoothing = 2.0 ** np.cumsum(unmatched, axis=-1)
    divisor = np.where(valid, totals, 1.0)
    precision = np.where(unmatched, 100 / (smoothing * divisor), 100 * matches / divisor)
    precision = np.where(valid, precision, 0.0)
    logs = np.where(precision > 0, _log(np.where(precision > 0, precision, 1.0)), MIN_LOG)
    mean = (logs[..., 0] + logs[..., 1] + logs[..., 2] + logs[..., 3]) / MAX_ORDER
    ratio = reference_length / np.where(length > 0, length, 1.0)
    brevity = np.where(length > 0, _exp(1 - np.maximum(ratio, 1.0)), 0.0)
    brevity = np.where(length < reference_length, brevity, 1.0)
    return np.where((matches > 0).any(axis=-1), brevity * _exp(mean), 0.0)


def corpus_chrf(sums: Float[np.ndarray, "*rows 18"]) -> Float[np.ndarray, "*rows"]:
    """chrF2, 0 to 100 (Popović 2015).

    Args:
        sums: over the sentences: for the character n-grams of order 1 to 6 the number in the
            translations, in the references, and in both.
    """
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    present = (counts[..., 0] > 0) & (counts[..., 1] > 0)
    orders = np.maximum(present.sum(axis=-1), 1)

    def average(divisor: Float[np.ndarray, "*rows order"]) -> Float[np.ndarray, "*rows"]:
        ratios = np.where(present, counts[..., 2] / np.where(present, divisor, 1.0), 0.0)
        return np.asarray(ratios.sum(axis=-1) / orders)

    precision, recall = average(counts[..., 0]), average(counts[..., 1])
    factor = CHRF_BETA**2
    divisor = factor * precision + recall
    score = (1 + factor) * precision * recall / np.where(divisor > 0, divisor, 1.0)
    return np.asarray(100 * score)


def corpus_ter(sums: Float[np.ndarray, "*rows 2"]) -> Float[np.ndarray, "*rows"]:
    """Translation edit rate in percent (Snover et al. 2006).

    Args:
        sums: over the sentences: edits, and words of the references.
    """
    edits, words = sums[..., 0], sums[..., 1]
    ratio = np.where(words > 0, edits / np.where(words > 0, words, 1.0), np.sign(edits))
    return np.asarray(100 * ratio)


BLEU = Metric("bleu", "BLEU", aggregate=corpus_bleu, format=".2f")
CHRF = Metric("chrf", "chrF", aggregate=corpus_chrf, format=".2f")
TER = Metric("ter", "TER", unit="%", higher_is_better=False, aggregate=corpus_ter, format=".2f")
SENTENCE_CHRF = Metric("sentence_chrf", "Sentence chrF", format=".2f")
EXACT_MATCH = Metric("exact_match", "Exact match")

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (BLEU, CHRF, TER, SENTENCE_CHRF, EXACT_MATCH)
}
"""The metrics that have statistics of each sentence."""

TOKEN_ACCURACY = Metric("token_accuracy", "Token accuracy")
PERPLEXITY = Metric("perplexity", "Perplexity", higher_is_better=False, format=".2f")
RARE_WORD_ACCURACY = Metric("rare_word_accuracy", "Rare words")
COPY_ACCURACY = Metric("copy_accuracy", "Copied words")
"""For reports only: these have no statistics of each sentence."""


def corpus_scores(
    texts: Sequence[str], references: Sequence[str], language: str
) -> list[tuple[str, float, str]]:
    """Name, value and sacreBLEU's signature of BLEU, chrF and TER.

    Args:
        texts: the translations.
        references: of the same sentences.
        language: code of the target language.
    """
    from sacrebleu.metrics import BLEU as SacreBLEU
    from sacrebleu.metrics import CHRF as SacreCHRF
    from sacrebleu.metrics import TER as SacreTER

    tokenizer = bleu_tokenizer(language)
    words = word_splitter(language)
    bleu, chrf, ter = SacreBLEU(tokenize=tokenizer), SacreCHRF(), SacreTER()
    ratio = ter.corpus_score(list(map(words, texts)), [list(map(words, references))])
    signature = str(ter.get_signature()) + ("" if tokenizer == MTEVAL else f"|words:{tokenizer}")
    return [
        (BLEU.name, bleu.corpus_score(texts, [references]).score, str(bleu.get_signature())),
        (CHRF.name, chrf.corpus_score(texts, [references]).score, str(chrf.get_signature())),
        (TER.name, ratio.score, signature),
    ]


def word_splitter(language: str) -> Callable[[str], str]:
    """A function that puts spaces between the words of a text; none for languages with spaces."""
    from sacrebleu.metrics import BLEU as SacreBLEU

    tokenizer = bleu_tokenizer(language)
    if tokenizer == MTEVAL:
        return str
    split: Callable[[str], str] = SacreBLEU(tokenize=tokenizer).tokenizer
    return split


def sentence_statistics(
    texts: Sequence[str], references: Sequence[str], language: str
) -> dict[str, Shaped[np.ndarray, "sentence ..."]]:
    """What each sentence contributes to each metric.

    Args:
        texts: the translations.
        references: of the same sentences.
        language: code of the target language.

    Returns:
        ``bleu_statistics``, ``chrf_statistics`` and ``ter_statistics``, the rows that the
        aggregates of these metrics sum; ``sentence_chrf``, 0 to 100; ``exact_match``, 0 or 1.
    """
    from sacrebleu.metrics import BLEU as SacreBLEU
    from sacrebleu.metrics import CHRF as SacreCHRF
    from sacrebleu.metrics import TER as SacreTER

    # The counts are the same with effective_order; short texts do not warn.
    bleu = SacreBLEU(effective_order=True, tokenize=bleu_tokenizer(language))
    words = word_splitter(language)
    chrf, ter = SacreCHRF(), SacreTER()
    pairs = list(zip(texts, references, strict=True))
    counts = [bleu.sentence_score(text, [reference]) for text, reference in pairs]
    edits = [ter.sentence_score(words(text), [words(reference)]) for text, reference in pairs]
    ngrams = chrf._extract_corpus_statistics(list(texts), [list(references)])
    similarity = [chrf.sentence_score(text, [reference]).score for text, reference in pairs]
    rows = [(*s.counts, *s.totals, s.sys_len, s.ref_len) for s in counts]
    return {
        "bleu_statistics": np.array(rows, np.int32).reshape(-1, 10),
        "chrf_statistics": np.array(ngrams, np.int32).reshape(-1, 18),
        "ter_statistics": np.array([(s.num_edits, s.ref_length) for s in edits]).reshape(-1, 2),
        "sentence_chrf": np.array(similarity),
        "exact_match": np.array([float(text == reference) for text, reference in pairs]),
    }
