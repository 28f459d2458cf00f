"""A served translator answers raw texts as evaluation did, and says what it cannot answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import errors, params, store
from ostinato.task import Evaluation
from ostinato.translation import evaluation, serving
from ostinato.translation.dataset import cleaning
from tests.texts import SCORES, model_of, prepared, sentences

LONGEST = 40

Answered = tuple[Path, Any, Evaluation, Callable[..., Any]]


@pytest.fixture(scope="module")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    """The folder of a served model, its data, what evaluation told of it, and its answer."""
    folder = tmp_path_factory.mktemp("served")
    data = prepared(folder, {None: sentences(200)}, longest=LONGEST)
    model = model_of(data)
    scored = params.bind(evaluation.evaluate, SCORES)(model, data, 1)
    store.write_model(folder / "data" / "model.keras", model)
    store.write_table(folder / "data" / "search.csv", scored.tables["search"])
    about = {"domain": "translation", "model": "attention", "prepare": {"longest": LONGEST}}
    store.write_json(folder / "data" / "about.json", about)
    return folder, data, scored, serving.load(folder / "data")


def ask(answer: Callable[..., Any], *texts: str, best: int = 0) -> list[serving.Answer]:
    told: list[serving.Answer] = answer([serving.Text(text=text) for text in texts], best)
    return told


def test_raw_texts_are_answered_as_evaluation_did(served_model: Answered) -> None:
    folder, _, scored, answer = served_model
    keys = scored.arrays["keys"].tolist()
    asked = serving.questions(folder / "raw", folder / "data", keys)
    assert set(asked) == set(keys)
    told = answer([serving.Input.model_validate(asked[key]) for key in keys], 1)
    truth = scored.arrays["truth"].tolist()
    arrays = serving.arrays([a.model_dump() for a in told], truth, [])
    floats = {name for name, array in scored.arrays.items() if array.dtype.kind == "f"}
    assert floats <= set(arrays)
    assert arrays["text"].tolist() == scored.arrays["text"].tolist()
    for name in floats:
        np.testing.assert_allclose(arrays[name], scored.arrays[name], rtol=1e-4, atol=1e-4)


def test_neither_order_nor_company_changes_an_answer(served_model: Answered) -> None:
    _, _, _, answer = served_model
    texts = ["The cat sees the dog 2 times, {name}.", "", "tree", "The house, {name}. " * 9]
    alone = [ask(answer, text)[0] for text in texts]
    for order in ([3, 1, 0, 2], [2, 2, 3, 0, 1]):
        for one, i in zip(ask(answer, *(texts[i] for i in order)), order, strict=True):
            assert one.translation == alone[i].translation
            assert one.source == alone[i].source
            for name in ("log_probability", "score"):
                assert getattr(one, name) == pytest.approx(getattr(alone[i], name), abs=1e-3)


def test_what_has_no_words_has_no_translation(served_model: Answered) -> None:
    _, _, _, answer = served_model
    for told in ask(answer, "", " \n\t ", "\ufeff\x00"):
        assert (told.translation, told.cut, told.source, told.best) == ("", False, [], [])


@pytest.mark.parametrize(
    "text", ["cat", "漢字かな交じり", "\U0001f600\U0001f601", "\ud800 cat", "%s", "...", "?" * 500]
)
def test_any_text_is_answered(served_model: Answered, text: str) -> None:
    """Also one whose characters the training data have not, and one that is a single word."""
    _, _, _, answer = served_model
    (told,) = ask(answer, text)
    assert np.isfinite(told.log_probability)
    assert told.log_probability < 0
    assert told.cut == (len(text) == 500)
    assert "".join(told.source) == "".join(cleaning.uniform(text).split())


def test_the_best_are_told_in_their_order_with_what_they_attended_to(
    served_model: Answered,
) -> None:
    _, _, _, answer = served_model
    text = "The cat sees the dog 2 times, {name}."
    (told,) = ask(answer, text)
    (first,) = ask(answer, text, best=1)
    assert len(told.best) == SCORES["width"]
    assert first.best == told.best[:1]
    assert told.source == text.split()
    assert [way.score for way in told.best] == sorted((w.score for w in told.best), reverse=True)
    assert len({way.text for way in told.best}) > 1
    assert (told.translation, told.score) == (told.best[0].text, told.best[0].score)
    for way in told.best:
        assert "".join(way.words) == way.text.replace(" ", "")
        seen = np.array(way.alignment)
        assert seen.shape == (len(way.words), len(told.source))
        assert (seen >= 0).all()
        assert (seen.sum(axis=1) <= 1.001).all()  # the rest was on the end of the source
        assert seen.max() > 0


def test_a_long_text_is_cut_at_the_ends_of_its_sentences(served_model: Answered) -> None:
    _, data, _, answer = served_model
    each = [source for source, _ in data.texts("test")][:4]
    (told,) = ask(answer, " ".join(each))
    parts = ask(answer, *each)
    assert told.cut
    assert not any(part.cut for part in parts)
    assert told.translation == " ".join(part.translation for part in parts)
    total = sum(part.log_probability for part in parts)
    assert told.log_probability == pytest.approx(total, abs=1e-2)
    seen = np.array(told.best[0].alignment)
    rows = np.cumsum([0, *(len(part.best[0].words) for part in parts)])
    columns = np.cumsum([0, *(len(part.source) for part in parts)])
    for place, part in enumerate(parts):
        own = seen[rows[place] : rows[place + 1], columns[place] : columns[place + 1]]
        np.testing.assert_allclose(own, np.array(part.best[0].alignment), atol=1e-3)
        seen[rows[place] : rows[place + 1], columns[place] : columns[place + 1]] = 0
    assert not seen.any()


words = st.sampled_from(["cat", "sees.", "{name}", "<a href='x y'>", "%(n)s", "漢。", "?", "Dr."])


@settings(max_examples=60)
@given(text=st.lists(words | st.text(max_size=9), max_size=30).map(" ".join))
def test_parts_fit_and_nothing_of_a_text_is_lost(served_model: Answered, text: str) -> None:
    data, text = served_model[1], cleaning.uniform(text)
    parts = serving.split(text, data)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")
    for part, row in zip(parts, data.encode(parts), strict=True):
        assert part == part.strip() != ""
        assert len(row) <= LONGEST
    found = [p for p in cleaning.PLACEHOLDER.findall(text) if len(data.encode([p])[0]) < LONGEST]
    kept = [p for part in parts for p in cleaning.PLACEHOLDER.findall(part)]
    assert all(placeholder in kept for placeholder in found)


def test_a_text_that_is_a_book_is_refused(served_model: Answered) -> None:
    _, _, _, answer = served_model
    with pytest.raises(errors.RequestError, match=r"text 1: 100,001 characters, more than 100,000"):
        ask(answer, "cat", "c" * 100_001)


def test_the_example_of_the_card_is_an_input_and_the_files_are_there() -> None:
    serving.Input.model_validate(serving.EXAMPLE)
    assert serving.FILES == (
        "results/tables/search.csv",
        "data/source.model",
        "data/target.model",
    )
