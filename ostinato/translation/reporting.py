"""What report.md shows of translation models."""

from ostinato.task import Reporting
from ostinato.translation import metrics

LEGEND = """\
BLEU, chrF and TER are sacreBLEU's defaults on whole texts, with words as the target language has
them; `tables/scores.csv` of each run has their signatures. Brackets: 95% confidence interval, by a
bootstrap over test sentences. Token accuracy and perplexity are those of the next token under
teacher forcing. Exact match: share of translations that equal the reference. Rare words: share of
the reference words that are rare in the training split and occur in the translation. Copied words:
the same for reference words that also occur in the source (names, numbers, placeholders).
Training: wall time of all epochs. Inference: milliseconds a sentence by beam search, one by one /
in batches, on this machine.
"""

REPORT = Reporting(
    metrics=(
        metrics.BLEU,
        metrics.CHRF,
        metrics.TER,
        metrics.TOKEN_ACCURACY,
        metrics.PERPLEXITY,
        metrics.EXACT_MATCH,
        metrics.RARE_WORD_ACCURACY,
        metrics.COPY_ACCURACY,
    ),
    examples="sentences",
    baselines=("seq2seq",),  # without attention
    networks="model with attention",
    figures={
        "learning_curves": "Learning curves",
        "lengths": "BLEU by length of the source",
        "alignments": "Attention of each token of a translation",
    },
    legend=LEGEND,
)
