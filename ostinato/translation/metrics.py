"""TODO."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ostinato.evaluation.classification import Array


def bleu_counts(texts: Sequence[str], truth: Sequence[str]) -> Array:
    """What BLEU counts in each sentence, int32 (sentence, 10), by sacreBLEU's defaults."""
    from sacrebleu.metrics import BLEU

    judge = BLEU(effective_order=True)  # says nothing of short sentences; counts are the same
    scores = [judge.sentence_score(a, [b]) for a, b in zip(texts, truth, strict=True)]
    rows = [(*s.counts, *s.totals, s.sys_len, s.ref_len) for s in scores]
    return np.array(rows, np.int32).reshape(-1, 10)


def bleu(counts: ArrayLike) -> float:
    """BLEU, 0 to 100, of the counts of a whole corpus (10,), as sacreBLEU smooths it by default."""
    from sacrebleu.metrics import BLEU

    row = np.asarray(counts).tolist()
    return float(BLEU.compute_bleu(row[:4], row[4:8], *row[8:], smooth_method="exp").score)


def resampled_bleu(counts: ArrayLike, resamples: int, seed: int) -> Array:
    """BLEU of bootstrap samples of the sentences, float64 (resample,), as sacreBLEU draws them.

    Runs on the same sentences, in the same order and with the same seed, are drawn in pairs: an
    ``interval`` of their difference that excludes 0 tells them apart (Koehn 2004, ACL W04-3250).

    Args:
        counts: of ``bleu_counts`` (sentence, count).
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: there are no sentences.
    """
    rows, random = np.asarray(counts, np.int64), np.random.default_rng(seed)
    if not len(rows):
        raise ValueError("resampled_bleu: no sentences to resample")
    drawn = (random.integers(len(rows), size=len(rows)) for _ in range(resamples))
    return np.array([bleu(np.bincount(at, minlength=len(rows)) @ rows) for at in drawn])
