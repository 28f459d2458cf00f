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
from ostinato.translation.formats.placeholders import PLACEHOLDER
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


def test_a_text_in_which_nothing_is_visible_has_an_empty_translation(served: Served) -> None:
    invisible = ("\u200b", "\u200e", "\u00ad", "\u2060", "\u202a\u202c", "\u3164 \ufe0f")
    for response in served.ask("", " \n\t ", "\ufeff\x00", *invisible):
        assert (response.translation, response.split) == ("", False)
        assert (response.source_words, response.translations) == ([], [])


@pytest.mark.parametrize(
    "text", ["-", "42%", "123", "...", "{name}", "%s <b>", "\U0001f600", "? " * 10_000]
)
def test_a_text_without_letters_is_copied(served: Served, text: str) -> None:
    (response,) = served.ask(text)
    text = text.strip()
    assert (response.translation, response.split) == (text, False)
    assert (response.log_probability, response.score) == (0, 0)
    assert response.source_words == response.translations[0].words == text.split()
    assert len(response.translations) == 1
    assert response.translations[0].alignment is None
    assert response.translations[0].alignment_starts is None


def test_a_part_without_letters_is_copied(served: Served) -> None:
    sentences = " ".join(source for source, _ in served.data.texts("test")[:4])
    numbers = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20. " * 3
    (response,) = served.ask(f"{sentences} {numbers}")
    best = response.translations[0]
    assert response.split
    assert best.text.endswith("18 19 20.")
    assert best.alignment is not None
    assert best.alignment_starts is not None
    assert (
        best.alignment_starts[-1] + best.alignment[-1].index(1.0) == len(response.source_words) - 1
    )


@pytest.mark.parametrize(
    "text", ["cat", "漢字かな交じり", "\U0001f600 cat", "\ud800 cat", "a" * 500]
)
def test_any_text_is_translated(served: Served, text: str) -> None:
    """Also with characters that are not in the training data, or as a single word."""
    (response,) = served.ask(text)
    assert np.isfinite(response.log_probability)
    assert response.log_probability < 0
    assert response.split == (len(text) == 500)
    assert response.language == "fr"
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
    best, alignments, starts, first = response.translations[0], [], [], 0
    for part in parts:
        alignment = part.translations[0].alignment
        assert alignment is not None
        alignments += alignment
        starts += [first] * len(alignment)
        first += len(part.source_words)
    assert best.alignment is not None
    assert best.alignment_starts == starts
    for row, expected in zip(best.alignment, alignments, strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-3)


def test_the_size_of_a_response_is_proportional_to_the_text(served: Served) -> None:
    """Also where only the best translation is requested."""
    text = " ".join(source for source, _ in served.data.texts("test")[:10])
    sizes = [
        len(served.ask(" ".join([text] * count), top_k=1)[0].model_dump_json()) for count in (1, 4)
    ]
    assert sizes[1] < 4.5 * sizes[0]


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
    short = [p for p in PLACEHOLDER.findall(text) if len(data.encode([p])[0]) < MAX_LENGTH]
    kept = [p for part in parts for p in PLACEHOLDER.findall(part)]
    assert all(placeholder in kept for placeholder in short)


def test_a_text_or_a_request_that_is_too_long_is_rejected(served: Served) -> None:
    with pytest.raises(errors.RequestError, match=r"text 1: found 20,001 characters; expected at"):
        served.ask("cat", "c" * 20_001)
    with pytest.raises(
        errors.RequestError, match=r"found 520,000 characters in 26 texts; expected"
    ):
        served.ask(*["c" * 20_000] * 26)


@pytest.mark.parametrize("top_k", [-1, -4])
def test_a_number_of_translations_below_zero_is_rejected(served: Served, top_k: int) -> None:
    with pytest.raises(errors.RequestError, match="top_k"):
        served.ask("cat", top_k=top_k)
    assert len(served.ask("cat", top_k=10**30)[0].translations) == EVALUATION["beam_size"]


def test_the_example_is_an_input() -> None:
    serving.Input.model_validate(serving.SERVING.example)
    assert serving.SERVING.files == (
        "results/serving.npz",
        "data/source.model",
        "data/target.model",
    )
