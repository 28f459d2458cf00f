"""Scores of a model that translates, on the test split: of its texts, and of its next tokens."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from ostinato import params
from ostinato.decoding import search as decoding_search
from ostinato.errors import EvaluationError
from ostinato.evaluation import bootstrap
from ostinato.params import near
from ostinato.task import Evaluation
from ostinato.translation import figures, metrics
from ostinato.translation.dataset.batches import BOS, EOS, PAD
from ostinato.translation.dataset.cleaning import PLACEHOLDER
from ostinato.units import BatchSize, Count, NonNegative

Array = NDArray[Any]

LOSSES: tuple[str, ...] = ()  # of the metrics of `outcomes`: less is better
SLACK = 10  # tokens by which a translation may always be longer
WORDS = re.compile(rf"{PLACEHOLDER.pattern}|\w+")


class Search(NamedTuple):
    """How translations are looked for: see ``decoding.beam`` and ``decoding.Rules``."""

    width: int
    length: float
    coverage: float
    ngram: int
    longer: float


class Told(NamedTuple):
    """A translation of a row of tokens."""

    tokens: list[int]  # without eos
    log_probability: float  # of the tokens and of eos, in nats
    score: float  # what translations are ordered by
    attention: Array | None  # float32 (token, source token), both with eos


Translator = Callable[[Sequence[Sequence[int]]], list[list[Told]]]


def evaluate(
    model: Any,
    data: Any,
    seed: int,
    *,
    beam_size: Count,
    length_penalty: NonNegative,
    coverage_penalty: NonNegative,
    no_repeat_ngram_size: Annotated[int, Field(ge=0)],
    max_length_ratio: NonNegative,
    batch_size: BatchSize,
    resamples: Count,
    length_bins: Count,
    rare_word_count: Count,
    max_counted_pairs: Count,
    num_examples: Count,
    num_plots: Count,
    timed_requests: Count,
) -> Evaluation:
    """Score ``model`` on the test split of ``data``.

    BLEU (Papineni et al. 2002), chrF (Popović 2015) and TER (Snover et al. 2006) are sacreBLEU's
    defaults (Post 2018, arXiv 1804.08771) on whole texts; their signatures stand in the table of
    scores. Token accuracy and perplexity are those of the next token, given the reference so far.

    Args:
        model: named after its file, which has `start`; maps source and before to logits.
        data: of ``examples.load``.
        seed: of resampling.
        beam_size: hypotheses of the beam search.
        length_penalty: strength of the length penalty; 0 turns it off.
        coverage_penalty: strength of the coverage penalty; 0 turns it off.
        no_repeat_ngram_size: no run of so many tokens comes twice in a translation; 0 lets them.
        max_length_ratio: a translation has at most so many times the tokens of its source, and 10 more.
        batch_size: sentences translated at once.
        resamples: bootstrap samples behind an interval of 95%.
        length_bins: of about equally many sentences, by their length.
        rare_word_count: a word is rare that training has seen so many times at most.
        max_counted_pairs: training pairs in which words are counted, at most.
        num_examples: how many of the best, of the median and of the worst translations are listed.
        num_plots: sentences whose alignment is drawn.
        timed_requests: how many sentences are translated one by one to see how long that takes.

    Returns:
        metrics; tables of scores, lengths, examples, search (how translations were looked for);
        figures; arrays in the stored order of the split (keys, truth, text, and of each
        sentence sentence_chrf, exact_match, log_probability, and counts, of which
        ``metrics.bleu`` makes BLEU); speed.

    Raises:
        ScoreError: the model's probabilities are not finite.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    pairs = data.texts("test")
    sources, truth = [source for source, _ in pairs], [target for _, target in pairs]
    rows = data.encode(sources)
    search = Search(
        beam_size, length_penalty, coverage_penalty, no_repeat_ngram_size, max_length_ratio
    )
    translate = translator(model, data, search, 1, batch_size)
    translate(sorted(rows, key=len)[-batch_size:])  # so that no time counts the making of the graph
    begin = time.perf_counter()
    told = [first for first, *_ in translate(rows)]
    seconds = time.perf_counter() - begin
    texts = data.decode([t.tokens for t in told])

    judges = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}
    corpus = {name: judge.corpus_score(texts, [truth]).score for name, judge in judges.items()}
    counts = metrics.bleu_counts(texts, truth)
    low, high = bootstrap.interval(metrics.resampled_bleu(counts, resamples, seed))
    arrays = {
        "keys": np.array([key(*pair) for pair in pairs]),
        "truth": np.array(truth),
        "text": np.array(texts),
        "log_probability": np.array([t.log_probability for t in told]),
        "counts": counts,
        **likeness(texts, truth),
    }
    accuracy, loss = forced(model, data, batch_size)
    often = Counter(
        w for pair in data.texts("train", max_counted_pairs) for w in WORDS.findall(pair[1])
    )
    there = [set(WORDS.findall(source)) for source in sources]
    numbers: dict[str, float] = {
        "samples": len(pairs),
        **corpus,
        "bleu_low": low,
        "bleu_high": high,
        "sentence_chrf": float(arrays["sentence_chrf"].mean()),
        "exact_match": float(arrays["exact_match"].mean()),
        "token_accuracy": accuracy,
        "perplexity": float(np.exp(loss)),
        "rare_word_accuracy": kept(
            texts,
            truth,
            lambda i, word: often[word] <= rare_word_count and not PLACEHOLDER.fullmatch(word),
        ),
        "copy_accuracy": kept(texts, truth, lambda i, word: word in there[i]),
        "parameters": int(model.count_params()),
    }
    # Where the references have no such words, there is no accuracy of them.
    numbers = {name: value for name, value in numbers.items() if not np.isnan(value)}

    lengths = by_length(np.array([len(row) for row in rows]), arrays, length_bins, resamples, seed)
    tables = {
        "scores": pd.DataFrame(
            [
                {"score": name, "value": corpus[name], "signature": str(judge.get_signature())}
                for name, judge in judges.items()
            ]
        ),
        "lengths": lengths,
        "examples": examples(sources, arrays, num_examples),
        "search": pd.DataFrame([search._asdict()]),
    }
    pictures = {"lengths": figures.by_length(lengths)}
    # Sentences of some length: from the median to the longest tenth.
    ordered = sorted(rows, key=len)
    places = np.linspace(0.5, 0.9, num_plots) * (len(rows) - 1)
    chosen = [ordered[i] for i in np.unique(places.astype(int))]
    again = translator(model, data, search, 1, batch_size, aligned=True)(chosen)
    maps = [
        (best.attention, data.pieces([*best.tokens, EOS]), data.pieces([*row, EOS], "source"))
        for row, (best, *_) in zip(chosen, again, strict=True)
        if best.attention is not None
    ]
    if maps:  # else the model has no attention
        pictures["alignments"] = figures.alignments(maps, f"Alignment of {len(maps)} sentences")

    alone = np.random.default_rng(seed).integers(len(rows), size=timed_requests)
    times = [elapsed(translate, [rows[i]]) for i in [alone[0], *alone]][1:]
    speed = {
        "inference_ms_single": 1e3 * float(np.median(times)),
        "inference_ms_batched": 1e3 * seconds / len(rows),
        "sentences_per_second": len(rows) / seconds,
    }
    return Evaluation(numbers, tables, pictures, arrays, speed)


def translator(
    model: Any, data: Any, search: Search, best: int, batch: int, aligned: bool = False
) -> Translator:
    """The model and its search as one graph: from rows of tokens to the ``best`` of each.

    Rows are translated in batches of like length; neither order nor company changes a translation.
    ``aligned``: with attention, where the model has it.
    """
    import tensorflow as tf

    start = params.module("translation", model.name).start
    options: dict[str, Any] = {
        "width": search.width,
        "best": best,
        "length": search.length,
        "coverage": search.coverage,
    }

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)])
    def find(source: tf.Tensor) -> Any:
        step, state, shared = start(model, source)
        sizes = tf.reduce_sum(tf.cast(source != PAD, tf.int32), axis=1) - 1  # without eos
        most = tf.cast(search.longer * tf.cast(sizes, tf.float32), tf.int32) + SLACK
        rules = decoding_search.Rules(BOS, EOS, PAD, tf.zeros_like(most), most, search.ngram)
        found = decoding_search.beam(step, state, shared, rules, source != PAD, **options)
        attention = (
            decoding_search.align(step, state, shared, found.tokens, BOS) if aligned else None
        )
        return found, () if attention is None else (attention,)

    def translate(rows: Sequence[Sequence[int]]) -> list[list[Told]]:
        order = np.argsort([len(row) for row in rows], kind="stable")
        told: list[list[Told]] = [[]] * len(rows)
        starts = range(0, len(rows), batch)
        for begin in tqdm(starts, desc="translating", unit="batch", disable=None, leave=False):
            chosen = order[begin : begin + batch].tolist()
            batched = find(data.pad([rows[i] for i in chosen]))
            found, attention = tf.nest.map_structure(lambda x: x.numpy(), batched)
            for place, i in enumerate(chosen):
                told[i] = [
                    Told(
                        found.tokens[place, n, : size - 1].tolist(),
                        float(found.log_probabilities[place, n]),
                        float(found.scores[place, n]),
                        attention[0][place, n, :size, : len(rows[i]) + 1] if attention else None,
                    )
                    for n, size in enumerate(found.lengths[place].tolist())
                    if size
                ]
                if not told[i] or not np.isfinite(told[i][0].log_probability):
                    raise EvaluationError(
                        "the model's probabilities are not finite; did training diverge?"
                    )
        return told

    return translate


def elapsed(call: Callable[[Any], Any], x: Any) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call(x)
    return time.perf_counter() - begin


def forced(model: Any, data: Any, batch: int) -> tuple[float, float]:
    """Of the next token, given the reference so far: accuracy, and mean loss in nats."""
    import tensorflow as tf

    names = [x.name for x in model.inputs]
    text = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[dict.fromkeys(names, text), text])
    def sums(x: Any, y: Any) -> Any:
        logits = tf.cast(model(x, training=False), tf.float32)
        weight = tf.cast(y != PAD, tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float32)
        return tf.stack([tf.reduce_sum(part * weight) for part in (right, loss, weight)])

    parts = [
        sums({name: x[name] for name in names}, y).numpy()
        for x, y, _ in data.batches("test", batch_size=batch, seed=None, epoch=0)
    ]
    right, loss, tokens = (float(sum(part)) for part in zip(*parts, strict=True))
    return right / tokens, loss / tokens


def likeness(texts: Sequence[str], truth: Sequence[str]) -> dict[str, Array]:
    """How like its reference each text is: chrF, 0 to 100, and whether it is the very same."""
    from sacrebleu.metrics import CHRF

    judge = CHRF()
    both = list(zip(texts, truth, strict=True))
    return {
        "sentence_chrf": np.array([judge.sentence_score(a, [b]).score for a, b in both]),
        "exact_match": np.array([float(a == b) for a, b in both]),
    }


def outcomes(metric: str, arrays: Mapping[str, Array]) -> Array:
    """What each example adds to a metric, float64 (example,), more is better: their mean is it.

    Args:
        metric: sentence_chrf or exact_match.
        arrays: of `score`, at least truth and text.

    Raises:
        ScoreError: the metric is no mean over examples, or there is none of this name.
    """
    means = likeness(arrays["text"].tolist(), arrays["truth"].tolist())
    if metric not in means:
        raise EvaluationError(f"{metric!r} is no mean over examples; {near(metric, means)}")
    return means[metric]


def key(source: str, target: str) -> str:
    """The name of a pair."""
    return blake2b(f"{source}\t{target}".encode(), digest_size=8).hexdigest()


def kept(texts: Sequence[str], truth: Sequence[str], counts: Callable[[int, str], bool]) -> float:
    """The share of the references' words that also stand in the texts, of those that count.

    A word that stands twice in a reference has to stand twice in the text. NaN: none counts.
    """
    found = total = 0
    for i, (text, reference) in enumerate(zip(texts, truth, strict=True)):
        there = Counter(WORDS.findall(text))
        for word, times in Counter(WORDS.findall(reference)).items():
            if counts(i, word):
                total += times
                found += min(times, there[word])
    return found / total if total else float("nan")


def by_length(
    lengths: Array, arrays: Mapping[str, Array], bands: int, resamples: int, seed: int
) -> pd.DataFrame:
    """Scores by the tokens of the source, in bands of about equally many sentences."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, bands + 1), method="nearest"))
    place = np.searchsorted(edges[1:-1], lengths, side="left")  # a band holds its upper edge
    rows = []
    for band in np.unique(place):
        at = place == band
        counts = arrays["counts"][at]
        low, high = bootstrap.interval(metrics.resampled_bleu(counts, resamples, seed))
        rows.append(
            {
                "shortest": int(lengths[at].min()),
                "longest": int(lengths[at].max()),
                "sentences": int(at.sum()),
                "bleu": metrics.bleu(counts.sum(axis=0)),
                "low": low,
                "high": high,
                "sentence_chrf": float(arrays["sentence_chrf"][at].mean()),
                "exact_match": float(arrays["exact_match"][at].mean()),
            }
        )
    return pd.DataFrame(rows)


def examples(sources: Sequence[str], arrays: Mapping[str, Array], count: int) -> pd.DataFrame:
    """The best, the median and the worst translations, by the chrF of the sentence."""
    order = np.argsort(-arrays["sentence_chrf"], kind="stable")
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    groups = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[len(order) - count :],
    }
    return pd.DataFrame(
        [
            {
                "place": group,
                "source": sources[i],
                "reference": arrays["truth"][i],
                "translation": arrays["text"][i],
                "sentence_chrf": arrays["sentence_chrf"][i],
                "log_probability": arrays["log_probability"][i],
            }
            for group, chosen in groups.items()
            for i in chosen
        ]
    )
