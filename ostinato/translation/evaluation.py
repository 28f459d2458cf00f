"""Evaluation of translation models on the test split: whole translations, and next tokens."""

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Integer, Shaped
from pydantic import Field

from ostinato import params
from ostinato.decoding.batch_search import BatchSearch, SearchOptions, SpecialTokens
from ostinato.evaluation import comparison, timing
from ostinato.task import Evaluation, PerExample, validation_metrics
from ostinato.translation import metrics
from ostinato.translation.dataset import BOS, EOS, PAD, TranslationDataset
from ostinato.translation.formats import languages
from ostinato.translation.formats.placeholders import PLACEHOLDER
from ostinato.units import BatchSize, Count

MARK = "\0"  # stands for a vowel sign or another mark, which belongs to the letter before it
WORDS = re.compile(rf"{PLACEHOLDER.pattern}|(?:\w{MARK}*)+")
CHARACTERS = re.compile(rf"{PLACEHOLDER.pattern}|[a-zA-Z0-9_]+|\w{MARK}*")


Penalty = Annotated[float, Field(ge=0, le=100)]
"""Strength of a penalty of the search; 0 turns it off."""


@runtime_checkable
class TranslationModel(Protocol):
    """A restored model: `ostinato.training.keras_model.KerasModel`."""

    model: Any
    """A Keras model with the name of its module, which has ``start_decoding``."""

    @property
    def parameters(self) -> int:
        """The number of weights."""


def evaluate(
    predictor: TranslationModel,
    data: TranslationDataset,
    seed: int,
    *,
    beam_size: Count,
    length_penalty: Penalty,
    coverage_penalty: Penalty,
    no_repeat_ngram_size: Annotated[int, Field(ge=0)],
    max_length_ratio: Annotated[float, Field(ge=0, le=100)],
    batch_size: BatchSize,
    resamples: Count,
    length_bins: Count,
    rare_word_count: Count,
    max_counted_pairs: Count,
    num_examples: Count,
    num_plots: Count,
    timed_requests: Count,
) -> Evaluation:
    """Evaluate a model on the test split.

    BLEU, chrF and TER are sacreBLEU's defaults on whole texts, BLEU with the tokenizer of the
    target language; the table ``scores`` has their signatures. Token accuracy and perplexity are
    those of the next token, given the previous tokens of the reference (teacher forcing).

    Args:
        predictor: the restored model.
        data: the prepared data set.
        seed: of resampling, and of the requests that are timed.
        beam_size: number of hypotheses.
        length_penalty: strength of the length penalty; 0 turns it off.
        coverage_penalty: strength of the coverage penalty; 0 turns it off.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 turns it off.
        max_length_ratio: maximum length of a translation in multiples of the source length, to
            which 10 tokens are added.
        batch_size: sentences translated at once.
        resamples: bootstrap samples behind a 95% interval.
        length_bins: number of bins, with about equally many sentences, of the source length.
        rare_word_count: a word is rare if it occurs at most this often in the training split.
        max_counted_pairs: maximum number of training pairs in which words are counted.
        num_examples: number of the best, of the median and of the worst translations in the table.
        num_plots: number of sentences whose attention is plotted.
        timed_requests: number of sentences that are translated one by one to measure latency.

    Returns:
        Tables ``scores``, ``lengths`` and ``examples``; arrays in the stored order of the split:
        keys, truth, text, log_probability and those of `metrics.sentence_statistics`; for serving
        the `SearchOptions`.

    Raises:
        EvaluationError: the model's probabilities are not finite, or the split has only one pair.
    """
    from ostinato.translation import figures

    pairs = data.texts("test")
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    rows = data.encode(sources)
    options = SearchOptions(
        beam_size, length_penalty, coverage_penalty, no_repeat_ngram_size, max_length_ratio
    )
    translate = translator(predictor, data, options, nbest_size=1, batch_size=batch_size)
    translate(sorted(rows, key=len)[-batch_size:])  # compiles the graph before the clock starts
    start = time.perf_counter()
    hypotheses = [best for best, *_ in translate(rows)]
    seconds = time.perf_counter() - start
    texts = data.decode([hypothesis.tokens for hypothesis in hypotheses])
    language = data.languages[1]
    earlier = data.texts("validation")
    translated = [best.tokens for best, *_ in translate(data.encode([s for s, _ in earlier]))]
    validation = _arrays(earlier, data.decode(translated), language)

    corpus = metrics.corpus_scores(texts, references, language)
    words = partial(find_words, pattern=word_pattern(language))
    arrays = {
        **_arrays(pairs, texts, language),
        "truth": np.array(references),
        "text": np.array(texts),
        "log_probability": np.array([hypothesis.log_probability for hypothesis in hypotheses]),
    }
    statistics = per_example(arrays)
    low, high = comparison.metric_interval(statistics, metrics.BLEU, resamples=resamples, seed=seed)
    accuracy, loss = next_token_scores(predictor, data, batch_size)
    frequency = Counter(
        word for _, target in data.texts("train", max_counted_pairs) for word in words(target)
    )
    source_words = [set(words(source)) for source in sources]
    values: dict[str, float] = {
        "samples": len(pairs),
        **{name: score for name, score, _ in corpus},
        "bleu_low": low,
        "bleu_high": high,
        "sentence_chrf": float(arrays["sentence_chrf"].mean()),
        "exact_match": float(arrays["exact_match"].mean()),
        "token_accuracy": accuracy,
        "perplexity": float(np.exp(loss)),
        "rare_word_accuracy": word_recall(
            texts,
            references,
            lambda _, word: frequency[word] <= rare_word_count and not PLACEHOLDER.fullmatch(word),
            words,
        ),
        "copy_accuracy": word_recall(
            texts, references, lambda index, word: word in source_words[index], words
        ),
        "parameters": predictor.parameters,
        **validation_metrics(per_example(validation), metrics.METRICS),
    }
    undefined = {
        "rare_word_accuracy": "no reference has a rare word",
        "copy_accuracy": "no reference has a word of its source",
    }
    lengths = length_table(
        np.array([len(row) for row in rows]), statistics, length_bins, resamples, seed
    )
    tables = {
        "scores": pd.DataFrame(corpus, columns=["score", "value", "signature"]),
        "lengths": lengths,
        "examples": example_table(sources, arrays, num_examples),
    }
    plots = {"lengths": figures.bleu_by_length(lengths)}
    # Sentences from the median length to the 90th percentile.
    by_length = sorted(rows, key=len)
    indices = np.linspace(0.5, 0.9, num_plots) * (len(rows) - 1)
    plotted = [by_length[index] for index in np.unique(indices.astype(int))]
    maps = [
        figures.Alignment(
            best.attention, data.pieces([*best.tokens, EOS]), data.pieces([*row, EOS], "source")
        )
        for row, (best, *_) in zip(plotted, translate(plotted, attention=True), strict=True)
        if best.attention is not None
    ]
    if maps:  # else the model has no attention
        plots["alignments"] = figures.alignments(maps, f"Alignment of {len(maps)} sentences")

    timed = np.random.default_rng(seed).integers(len(rows), size=timed_requests)
    speed = {
        **timing.speed(translate, [[rows[index]] for index in timed], seconds, len(rows)),
        "sentences_per_second": len(rows) / seconds,
    }
    serving = {name: np.array(value) for name, value in asdict(options).items()}
    return Evaluation(values, tables, plots, arrays, speed, serving, undefined)


def translator(
    predictor: TranslationModel,
    data: TranslationDataset,
    options: SearchOptions,
    *,
    nbest_size: int,
    batch_size: int,
) -> BatchSearch:
    """Beam search with a restored model.

    Args:
        predictor: the model.
        data: the data set that it was trained on.
        options: of the search.
        nbest_size: number of translations for each row.
        batch_size: rows in a batch.
    """
    module = params.model_module("translation", predictor.model.name)
    start = partial(module.start_decoding, predictor.model)
    special = SpecialTokens(PAD, BOS, EOS)
    return BatchSearch(
        start, data.pad, special, options, nbest_size=nbest_size, batch_size=batch_size
    )


def _arrays(
    pairs: Sequence[tuple[str, str]], texts: Sequence[str], language: str
) -> dict[str, Shaped[np.ndarray, "sentence ..."]]:
    """The arrays that `per_example` reads, of pairs and the translations of their sources."""
    keys = np.array([pair_key(*pair) for pair in pairs])
    references = [target for _, target in pairs]
    return {"keys": keys, **metrics.sentence_statistics(texts, references, language)}


def per_example(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> PerExample:
    """The statistics of each sentence, for each metric of `metrics.METRICS`.

    Args:
        arrays: ``keys``, and those of `metrics.sentence_statistics`.
    """
    one = np.ones(len(arrays["keys"]))
    means = (metrics.SENTENCE_CHRF.name, metrics.EXACT_MATCH.name)
    sums = (metrics.BLEU.name, metrics.CHRF.name, metrics.TER.name)
    return PerExample(
        keys=arrays["keys"],
        clusters=np.arange(len(one)),
        statistics={
            **{name: arrays[f"{name}_statistics"].astype(np.float64) for name in sums},
            **{name: np.stack([arrays[name].astype(np.float64), one], axis=1) for name in means},
        },
    )


def next_token_scores(
    predictor: TranslationModel, data: TranslationDataset, batch_size: int
) -> tuple[float, float]:
    """Accuracy and mean loss in nats of the next token under teacher forcing."""
    import tensorflow as tf

    model = predictor.model
    names = [x.name for x in model.inputs]
    tokens = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[dict.fromkeys(names, tokens), tokens])
    def sums(x: Any, y: Any) -> Any:
        logits = tf.cast(model(x, training=False), tf.float32)
        weight = tf.cast(y != PAD, tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        correct = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float32)
        return tf.stack([tf.reduce_sum(part * weight) for part in (correct, loss, weight)])

    parts = [
        sums({name: x[name] for name in names}, y).numpy()
        for x, y, _ in data.batches("test", batch_size=batch_size, seed=None, epoch=0)
    ]
    correct, loss, count = (float(sum(part)) for part in zip(*parts, strict=True))
    return correct / count, loss / count


def pair_key(source: str, target: str) -> str:
    """The key of a pair: a hash of its texts."""
    return blake2b(f"{source}\t{target}".encode(), digest_size=8).hexdigest()


def word_pattern(language: str) -> re.Pattern[str]:
    """What a word is: letters and digits in a row; a character in languages without spaces."""
    return CHARACTERS if languages.subtags(language)[0] in languages.UNSPACED else WORDS


def find_words(text: str, pattern: re.Pattern[str] = WORDS) -> list[str]:
    """The words and placeholders of a text, with the marks of their letters."""
    marked = text
    if not text.isascii():
        marked = "".join(MARK if unicodedata.category(c)[0] == "M" else c for c in text)
    return [text[slice(*match.span())] for match in pattern.finditer(marked)]


def word_recall(
    texts: Sequence[str],
    references: Sequence[str],
    selected: Callable[[int, str], bool],
    words: Callable[[str], list[str]] = find_words,
) -> float:
    """The share of selected reference words that occur in the translations.

    A word that occurs twice in a reference has to occur twice in the translation.

    Args:
        texts: the translations.
        references: of the same sentences.
        selected: whether to count a word, from the index of the sentence and the word.
        words: splits a text into words.

    Returns:
        0 to 1; NaN if no word is selected.
    """
    matched = total = 0
    for index, (text, reference) in enumerate(zip(texts, references, strict=True)):
        available = Counter(words(text))
        for word, count in Counter(words(reference)).items():
            if selected(index, word):
                total += count
                matched += min(count, available[word])
    return matched / total if total else float("nan")


def length_table(
    lengths: Integer[np.ndarray, " example"],
    results: PerExample,
    length_bins: int,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Metrics by source length in tokens, in bins of about equally many sentences.

    The interval of a bin with one sentence is empty (NaN).
    """
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, length_bins + 1), method="nearest"))
    bins = np.searchsorted(edges[1:-1], lengths, side="left")  # a bin includes its upper edge
    rows = []
    for index in np.unique(bins):
        inside = bins == index
        subset = PerExample(
            results.keys[inside],
            results.clusters[inside],
            {name: rows[inside] for name, rows in results.statistics.items()},
        )
        low = high = float("nan")
        if inside.sum() > 1:
            low, high = comparison.metric_interval(
                subset, metrics.BLEU, resamples=resamples, seed=seed
            )
        rows.append(
            {
                "shortest": int(lengths[inside].min()),
                "longest": int(lengths[inside].max()),
                "sentences": int(inside.sum()),
                "bleu": subset.value(metrics.BLEU),
                "low": low,
                "high": high,
                "sentence_chrf": subset.value(metrics.SENTENCE_CHRF),
                "exact_match": subset.value(metrics.EXACT_MATCH),
            }
        )
    return pd.DataFrame(rows)


def example_table(
    sources: Sequence[str], arrays: Mapping[str, Shaped[np.ndarray, "..."]], num_examples: int
) -> pd.DataFrame:
    """The best, the median and the worst translations by sentence chrF."""
    order = np.argsort(-arrays["sentence_chrf"], kind="stable")
    count = min(num_examples, len(order))
    middle = (len(order) - count) // 2
    groups = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }
    return pd.DataFrame(
        [
            {
                "group": group,
                "source": sources[index],
                "reference": arrays["truth"][index],
                "translation": arrays["text"][index],
                "sentence_chrf": arrays["sentence_chrf"][index],
                "log_probability": arrays["log_probability"][index],
            }
            for group, indices in groups.items()
            for index in indices
        ]
    )
