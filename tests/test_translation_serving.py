"""A served translator agrees with the evaluation, and rejects requests that it cannot answer."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import errors, params, store
from ostinato.task import Evaluation
from ostinato.training import keras_model
from ostinato.translation import evaluation, metrics, serving
from ostinato.translation.dataset import cleaning
from tests.texts import EVALUATION, prepared, sentences, untrained_model

MAX_LENGTH = 40


class Served(NamedTuple):
    folder: Path
    data: Any
    evaluation: Evaluation
    service: serving.TranslationService

    def ask(self, *texts: str, **options: Any) -> list[serving.Response]:
        return self.service.predict([serving.Input(text=text) for text in texts], options)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A packaged model, its data set and its evaluation."""
    folder = tmp_path_factory.mktemp("served")
    data = prepared(folder, {None: sentences(200)}, max_length=MAX_LENGTH)
    predictor = untrained_model(data)
    result = params.bind(evaluation.evaluate, EVALUATION)(predictor, data, 1)
    keras_model.save(predictor.model, folder / "data" / "model")
    store.write_arrays(folder / "data" / "serving.npz", result.serving)
    about = {"domain": "translation", "run": "a", "model": "attention", "prepare": {}}
    store.write_json(folder / "data" / "about.json", about)
    return Served(folder, data, result, serving.load(folder / "data"))


def test_responses_to_raw_texts_equal_the_evaluation(served: Served) -> None:
    expected = served.evaluation.arrays
    keys = expected["keys"].tolist()
    requests = serving.to_requests(served.folder / "raw", served.folder / "data", keys)
    assert set(requests) == set(keys)
    inputs = [serving.Input.model_validate(requests[key]) for key in keys]
    responses = [r.model_dump() for r in served.service.predict(inputs, {"top_k": 1})]
    arrays = serving.from_responses(responses, expected["truth"].tolist(), [])
    assert set(arrays) == set(expected) - {"keys"}
    for name, array in arrays.items():
        if name == "log_probability":
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_array_equal(array, expected[name])
    statistics = evaluation.per_example({**arrays, "keys": expected["keys"]})
    assert statistics.value(metrics.BLEU) == served.evaluation.metrics["bleu"]


def test_responses_do_not_depend_on_the_other_inputs(served: Served) -> None:
    texts = ["The cat sees the dog 2 times, {name}.", "", "tree", "The house, {name}. " * 9]
    alone = [served.ask(text)[0] for text in texts]
    for order in ([3, 1, 0, 2], [2, 2, 3, 0, 1]):
        for one, i in zip(served.ask(*(texts[i] for i in order)), order, strict=True):
            assert one.translation == alone[i].translation
            assert one.source_words == alone[i].source_words
            for name in ("log_probability", "score"):
                assert getattr(one, name) == pytest.approx(getattr(alone[i], name), abs=1e-3)


def test_a_text_without_words_has_an_empty_translation(served: Served) -> None:
    for response in served.ask("", " \n\t ", "\ufeff\x00"):
        assert (response.translation, response.split) == ("", False)
        assert (response.source_words, response.translations) == ([], [])


@pytest.mark.parametrize(
    "text", ["cat", "漢字かな交じり", "\U0001f600\U0001f601", "\ud800 cat", "%s", "...", "?" * 500]
)
def test_any_text_is_translated(served: Served, text: str) -> None:
    """Also with characters that are not in the training data, or as a single word."""
    (response,) = served.ask(text)
    assert np.isfinite(response.log_probability)
    assert response.log_probability < 0
    assert response.split == (len(text) == 500)
    assert "".join(response.source_words) == "".join(cleaning.normalise(text).split())


def test_translations_are_ranked_and_aligned(served: Served) -> None:
    text = "The cat sees the dog 2 times, {name}."
    (response,) = served.ask(text)
    (best,) = served.ask(text, top_k=1)
    ranked = response.translations
    assert len(ranked) == EVALUATION["beam_size"]
    assert best.translations == ranked[:1]
    assert response.source_words == text.split()
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    assert len({one.text for one in ranked}) > 1
    assert (response.translation, response.score) == (ranked[0].text, ranked[0].score)
    for one in ranked:
        assert "".join(one.words) == one.text.replace(" ", "")
        alignment = np.array(one.alignment)
        assert alignment.shape == (len(one.words), len(response.source_words))
        assert (alignment >= 0).all()
        assert (alignment.sum(axis=1) <= 1.001).all()  # the rest is on the source's eos
        assert alignment.max() > 0


def test_a_long_text_is_split_at_sentence_ends(served: Served) -> None:
    texts = [source for source, _ in served.data.texts("test")][:4]
    (response,) = served.ask(" ".join(texts))
    parts = served.ask(*texts)
    assert response.split
    assert not any(part.split for part in parts)
    assert response.translation == " ".join(part.translation for part in parts)
    total = sum(part.log_probability for part in parts)
    assert response.log_probability == pytest.approx(total, abs=1e-2)
    alignment = np.array(response.translations[0].alignment)
    rows = np.cumsum([0, *(len(part.translations[0].words) for part in parts)])
    columns = np.cumsum([0, *(len(part.source_words) for part in parts)])
    for i, part in enumerate(parts):
        block = alignment[rows[i] : rows[i + 1], columns[i] : columns[i + 1]]
        np.testing.assert_allclose(block, np.array(part.translations[0].alignment), atol=1e-3)
        block[:] = 0
    assert not alignment.any()


words = st.sampled_from(["cat", "sees.", "{name}", "<a href='x y'>", "%(n)s", "漢。", "?", "Dr."])


@settings(max_examples=60)
@given(text=st.lists(words | st.text(max_size=9), max_size=30).map(" ".join))
def test_parts_have_at_most_max_length_and_lose_no_text(served: Served, text: str) -> None:
    data, text = served.data, cleaning.normalise(text)
    parts = serving.split(text, data)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    for part, row in zip(parts, data.encode(parts), strict=True):
        assert part == part.strip() != ""
        assert len(row) <= MAX_LENGTH
    short = [p for p in cleaning.PLACEHOLDER.findall(text) if len(data.encode([p])[0]) < MAX_LENGTH]
    kept = [p for part in parts for p in cleaning.PLACEHOLDER.findall(part)]
    assert all(placeholder in kept for placeholder in short)


def test_a_text_that_is_too_long_is_rejected(served: Served) -> None:
    with pytest.raises(errors.RequestError, match=r"text 1: 100,001 characters, more than 100,000"):
        served.ask("cat", "c" * 100_001)


def test_the_example_is_an_input() -> None:
    serving.Input.model_validate(serving.SERVING.example)
    assert serving.SERVING.files == (
        "results/serving.npz",
        "data/source.model",
        "data/target.model",
    )
