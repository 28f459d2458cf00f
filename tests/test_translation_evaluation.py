"""Laws of the scores of translations, by sacreBLEU and by counting anew."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from ostinato import params
from ostinato.decoding import search as decoding_search
from ostinato.decoding.search import Rules
from ostinato.errors import EvaluationError
from ostinato.evaluation import bootstrap
from ostinato.task import Evaluation
from ostinato.translation import evaluation, metrics, reporting
from ostinato.translation.dataset.batches import BOS, EOS, PAD
from tests.texts import SCORES, model_of, prepared, sentences

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
    model = model_of(data)
    return model, data, params.bind(evaluation.evaluate, SCORES)(model, data, 1)


def test_corpus_scores_are_sacrebleus_and_carry_its_signatures(tested: Any) -> None:
    _, data, scored = tested
    truth = [target for _, target in data.texts("test")]
    assert scored.arrays["truth"].tolist() == truth
    table = scored.tables["scores"].set_index("score")
    for name, judge in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        expected = judge.corpus_score(scored.arrays["text"].tolist(), [truth]).score
        assert scored.metrics[name] == pytest.approx(expected)
        assert table.loc[name, "value"] == scored.metrics[name]
    assert table.loc["bleu", "signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_bleu_of_counts_is_that_of_the_texts() -> None:
    for texts in (ONE, OTHER, TRUTH, [""] * len(TRUTH), ["Hello"] * len(TRUTH)):
        counts = metrics.bleu_counts(texts, TRUTH)
        expected = BLEU().corpus_score(texts, [TRUTH]).score
        assert metrics.bleu(counts.sum(axis=0)) == pytest.approx(expected)


def test_runs_are_resampled_in_pairs_as_sacrebleu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    test = PairedTest(
        [("other", OTHER), ("one", ONE)], {"BLEU": BLEU(references=[TRUTH])}, None, "bs", 200
    )
    _, told = test()
    counts = [metrics.bleu_counts(texts, TRUTH) for texts in (OTHER, ONE)]
    drawn = [metrics.resampled_bleu(part, 200, 7) for part in counts]
    for part, expected in zip(drawn, told["BLEU"], strict=True):
        assert part.mean() == pytest.approx(expected.mean, abs=1e-4)
    better = drawn[1] - drawn[0]
    frames = [reporting.answers({"counts": c, "keys": np.arange(len(c))}) for c in counts]
    gain, low, high = reporting.gain(frames[1], frames[0], {"resamples": 200}, 7)
    whole = [BLEU().corpus_score(texts, [TRUTH]).score for texts in (OTHER, ONE)]
    assert gain == pytest.approx(whole[1] - whole[0])
    assert (low, high) == bootstrap.interval(better)
    assert low < gain < high


def test_what_is_told_of_the_next_token_is_what_the_steps_of_a_search_tell(tested: Any) -> None:
    model, data, scored = tested
    start = params.module("translation", model.name).start
    right = loss = tokens = 0.0
    for source, target in data.texts("test"):
        step, state, shared = start(model, tf.constant(data.pad(data.encode([source]))))
        state = tf.nest.map_structure(lambda leaf: leaf[:, None], state)
        said = [*data.encode([target], "target")[0], EOS]
        for before, token in zip([BOS, *said], said, strict=False):
            logits, _, state = step(tf.constant([[before]]), state, shared)
            p = tf.nn.softmax(logits[0, 0]).numpy()
            right += p.argmax() == token
            loss -= math.log(p[token])
            tokens += 1
    assert scored.metrics["token_accuracy"] == pytest.approx(right / tokens)
    assert scored.metrics["perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)


def test_translations_are_those_of_the_search_in_numpy(tested: Any) -> None:
    """In whatever batch, order and company they are found."""
    model, data, _ = tested
    start = params.module("translation", model.name).start
    rows = data.encode([source for source, _ in data.texts("test")])
    search = evaluation.Search(3, 0.6, 0.2, 2, 1.0)
    told = evaluation.translator(model, data, search, 2, 7, aligned=True)(rows)
    for place in range(0, len(rows), 6):
        source = data.pad([rows[place]])
        step, state, shared = start(model, tf.constant(source))
        begin = tf.nest.map_structure(lambda leaf: leaf.numpy(), state)

        def arrays(last: Any, state: Any, shared: Any, step: Any = step) -> Any:
            state = tf.nest.map_structure(tf.constant, state)
            return tf.nest.map_structure(lambda leaf: leaf.numpy(), step(last, state, shared))

        most = np.array([len(rows[place]) + 10])
        rules = Rules(BOS, EOS, PAD, np.zeros(1, int), most, 2)
        options: dict[str, Any] = {"width": 3, "best": 2, "length": 0.6, "coverage": 0.2}
        found = decoding_search.beam_numpy(arrays, begin, shared, rules, source != PAD, **options)
        for n, one in enumerate(told[place]):
            assert [*one.tokens, EOS] == found.tokens[0, n, : found.lengths[0, n]].tolist()
            assert one.log_probability == pytest.approx(found.log_probabilities[0, n], abs=1e-3)
            assert one.score == pytest.approx(found.scores[0, n], abs=1e-3)
            assert one.attention is not None
            assert one.attention.shape == (len(one.tokens) + 1, len(rows[place]) + 1)
            np.testing.assert_allclose(one.attention.sum(axis=1), 1, atol=1e-5)
            state = tf.nest.map_structure(lambda leaf: tf.constant(leaf[:, None]), begin)
            for before, expected in zip([BOS, *one.tokens], one.attention, strict=True):
                _, attention, state = step(tf.constant([[before]]), state, shared)
                np.testing.assert_allclose(attention[0, 0], expected, atol=1e-5)


def test_words_that_are_kept_are_counted_as_often_as_they_stand() -> None:
    truth = ["the cat saw the {name}", "Paris", ""]
    texts = ["the {name} the the", "paris", "cat"]
    assert evaluation.kept(texts, truth, lambda i, word: True) == 3 / 6
    assert evaluation.kept(texts, truth, lambda i, word: word == "{name}") == 1
    assert evaluation.kept(texts, truth, lambda i, word: i == 1) == 0
    assert math.isnan(evaluation.kept(texts, truth, lambda i, word: i == 2))


def test_rare_and_copied_words_are_those_of_a_plain_count(tested: Any) -> None:
    _, data, scored = tested
    often = Counter(w for _, t in data.texts("train") for w in evaluation.WORDS.findall(t))
    found: dict[str, list[int]] = {"rare_word_accuracy": [], "copy_accuracy": []}
    for (source, target), text in zip(data.texts("test"), scored.arrays["text"], strict=True):
        left = evaluation.WORDS.findall(text)
        for word in evaluation.WORDS.findall(target):
            there = word in left
            if there:
                left.remove(word)
            if often[word] <= SCORES["rare"] and word != "{name}":
                found["rare_word_accuracy"].append(there)
            if word in evaluation.WORDS.findall(source):
                found["copy_accuracy"].append(there)
    assert found["copy_accuracy"]
    for name, hits in found.items():
        assert (name in scored.metrics) == bool(hits)
        if hits:
            assert scored.metrics[name] == pytest.approx(np.mean(hits))


def test_outcomes_average_to_the_scores(tested: Any) -> None:
    _, _, scored = tested
    for metric in ("sentence_chrf", "exact_match"):
        each = evaluation.outcomes(metric, scored.arrays)
        assert each.mean() == pytest.approx(scored.metrics[metric])
    with pytest.raises(EvaluationError, match=r"'chrf' is no mean over examples"):
        evaluation.outcomes("chrf", scored.arrays)


def test_tables_hold_every_sentence_once_and_the_ends_of_the_order(tested: Any) -> None:
    _, data, scored = tested
    lengths, listed = scored.tables["lengths"], scored.tables["examples"]
    assert lengths["sentences"].sum() == data.size("test")
    assert (lengths["shortest"].to_numpy()[1:] > lengths["longest"].to_numpy()[:-1]).all()
    chrf = np.sort(scored.arrays["sentence_chrf"])
    groups = {name: group["sentence_chrf"] for name, group in listed.groupby("place")}
    np.testing.assert_array_equal(groups["best"], chrf[::-1][: SCORES["listed"]])
    np.testing.assert_array_equal(groups["worst"], chrf[: SCORES["listed"]][::-1])
    assert groups["median"].median() == pytest.approx(np.median(chrf), abs=5)
    assert {"lengths", "alignments"} == set(scored.figures)
    drawn = [axes for axes in scored.figures["alignments"].axes if axes.images]
    assert len(drawn) == SCORES["shown"]
    for axes in drawn:
        shape = axes.images[0].get_array().shape
        assert shape == (len(axes.get_yticklabels()), len(axes.get_xticklabels()))
    assert len(set(scored.arrays["keys"])) == data.size("test")


def test_the_same_model_gets_the_same_scores(tested: Any) -> None:
    model, data, scored = tested
    again = params.bind(evaluation.evaluate, {**SCORES, "batch_size": 5})(model, data, 1)
    assert again.arrays["text"].tolist() == scored.arrays["text"].tolist()
    for name, value in scored.metrics.items():
        assert again.metrics[name] == pytest.approx(value, rel=1e-5)


def test_a_model_that_diverged_is_no_translator(tested: Any) -> None:
    model, data, _ = tested
    kept = model.get_weights()
    model.set_weights([np.full_like(weight, np.nan) for weight in kept])
    search = evaluation.Search(2, 0.6, 0.0, 0, 1.0)
    try:
        with pytest.raises(EvaluationError, match="did training diverge"):
            evaluation.translator(model, data, search, 1, 8)(data.encode(["The cat sees the dog."]))
    finally:
        model.set_weights(kept)
