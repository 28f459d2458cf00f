"""What report.md says of translations."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ostinato.evaluation import bootstrap
from ostinato.translation import metrics

Array = NDArray[Any]

SCORE = "bleu"
NAME = "BLEU"
SPOKEN = "BLEU"
AXIS = "BLEU"
GAIN = "BLEU"
LOWER_IS_BETTER = False
COLUMNS = {
    "chrF": "chrf",
    "TER": "ter",
    "Token accuracy": "token_accuracy",
    "Perplexity": "perplexity",
    "Exact": "exact_match",
    "Rare words": "rare_word_accuracy",
    "Copied": "copy_accuracy",
}
EXAMPLES = "sentences"
BASELINES = ("seq2seq",)  # no attention: what attention has to beat
OTHERS = "run with attention"
AGAINST_THE_BEST = True
FIGURES = {
    "learning_curves": "Learning curves",
    "lengths": "BLEU by length of the source",
    "alignments": "What the words of a translation attended to",
}
LEGEND = """\
BLEU, chrF and TER: sacreBLEU's defaults on whole texts; their signatures stand in each run's
`tables/scores.csv`. In brackets: 95% interval (bootstrap over test sentences). Token accuracy and
perplexity: of the next token, given the reference so far. Exact: share of translations that are the
reference. Rare words, copied: share of the references' words that translations have, too, of those
that training has seldom seen, and of those that stand in the source unchanged (names, numbers,
placeholders). Training: wall time of all epochs. Inference: milliseconds a sentence, by beam
search, one by one / in batches. Times are this machine's.
"""


def number(value: float) -> str:
    """Two decimals above 1, three below."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def answers(arrays: Mapping[str, Array]) -> pd.DataFrame:
    """What BLEU counts in each of a run's translations, by the pair's key."""
    return pd.DataFrame(arrays["counts"], arrays["keys"])


def gain(
    ours: pd.DataFrame, theirs: pd.DataFrame, block: Mapping[str, Any], seed: int
) -> tuple[float, float, float]:
    """How much more BLEU we have on the same sentences, with its 95% interval."""
    one, other = (metrics.resampled_bleu(run, block["resamples"], seed) for run in (ours, theirs))
    better = metrics.bleu(ours.sum(axis=0)) - metrics.bleu(theirs.sum(axis=0))
    return better, *bootstrap.interval(one - other)
