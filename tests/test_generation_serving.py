"""Requests to generators: what is asked for is drawn, in its place, and repeats."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ostinato import store
from ostinato.errors import RequestError
from ostinato.generation import serving
from ostinato.generation.dataset.loader import Drawings
from ostinato.generation.evaluation import per_example
from ostinato.generation.formats import drawings
from ostinato.generation.formats.latent import spherical
from ostinato.generation.serving import GenerationService, Input, drawing_seed
from ostinato.serving import kinds, openapi, requests
from ostinato.serving.loading import Interface, Loaded
from ostinato.serving.prediction.predict import predict
from ostinato.sketches.formats import strokes
from tests.generators import CLASSES, LONGEST, TEMPERATURE, Judge, Stairs, manifest, service

ANGLE = [[10, 10, 110], [20, 220, 220]]  # simplified: three points
LINE = [[0, 40], [0, 0]]


@pytest.fixture
def stairs(tmp_path: Path) -> GenerationService:
    return service(Stairs(), tmp_path, judge=Judge())


def ask(found: GenerationService, *inputs: Any, **options: Any) -> list[list[serving.Drawing]]:
    read = [Input.model_validate({"class": "fish", **each}) for each in inputs]
    return [each.drawings for each in found.predict(read, {"svg": False, **options})]


def points(drawing: serving.Drawing) -> Any:
    return np.concatenate([np.array(stroke).T for stroke in drawing.strokes])


# Drawings


def test_new_drawings_fill_the_box_and_are_judged(stairs: GenerationService) -> None:
    (found,) = ask(stairs, {"class": "house", "count": 3, "seed": 5, "temperature": 0.5})
    for k, each in enumerate(found):
        assert (each.kind, each.label, each.probability) == ("sample", "fish", 0.75)
        steps = np.random.default_rng(drawing_seed(5, k)).integers(5, 60, 4)
        extent = points(each).max(axis=0)
        assert extent[0] == 255
        assert extent[1] == pytest.approx((1 + 10 + 50) * 255 / steps[1:].sum(), abs=1)
        assert all(type(x) is int for stroke in each.strokes for values in stroke for x in values)
        assert each.svg is None
    (usual,), (told,) = ask(stairs, {}, {"temperature": TEMPERATURE})
    assert usual == told


def test_the_same_seed_gives_the_same_drawings_whatever_is_asked_beside_it(
    stairs: GenerationService,
) -> None:
    (alone,) = ask(stairs, {"seed": 7, "count": 2})
    other, (*longer, _) = ask(stairs, {"seed": 8, "count": 2}, {"seed": 7, "count": 3})
    assert longer == alone
    assert all(a != b for a, b in zip(other, alone, strict=True))
    assert alone[0] != alone[1]
    assert drawing_seed(7, 0) == 7
    assert all(0 <= drawing_seed(2**32 - 1, k) < 2**32 for k in range(100))


def test_all_inputs_are_drawn_at_once(stairs: GenerationService) -> None:
    ask(stairs, {"count": 50}, {"strokes": [LINE]}, {"count": 9})
    assert stairs.generator.calls == 1
    ask(stairs, {"strokes": [ANGLE], "other": [LINE]}, {"strokes": [LINE]})
    assert stairs.generator.calls == 3, "one call with given latent vectors, one without"


@pytest.mark.parametrize("unit", [0.001, 0.5, 1, 4.5])
def test_a_beginning_is_kept_exactly_and_finished_in_its_place(
    stairs: GenerationService, unit: float
) -> None:
    beginning = [[[unit * x + 3.25 for x in xs], [unit * y - 7 for y in ys]] for xs, ys in [ANGLE]]
    timed = [[*stroke, [0, 10, 20]] for stroke in beginning]
    (found,) = ask(stairs, {"strokes": [[[], []], *timed], "size": 400 * unit, "count": 2})
    for k, each in enumerate(found):
        assert each.kind == "completion"
        assert each.strokes[:1] == beginning
        (new,) = each.strokes[1:]
        steps = np.cumsum(np.random.default_rng(drawing_seed(0, k)).integers(5, 60, 4))
        # A pixel of the finished drawing is 400 / 255 units.
        assert new[0] == pytest.approx(110 * unit + 3.25 + steps * 400 / 255 * unit, abs=2 * unit)
        assert new[1][0] == pytest.approx(220 * unit - 7, abs=2 * unit)


def test_a_beginning_is_simplified_in_the_size_of_the_finished_drawing(
    stairs: GenerationService,
) -> None:
    # The bend is 3 units high: 3 pixels of a drawing of 255, less than the tolerance of one of 510.
    bent = Input.model_validate({"strokes": [[[0, 50, 100], [0, 3, 0]]], "class": "fish"})
    for size, count in ((255, 3), (510, 2)):
        (order,) = stairs._orders(0, bent.model_copy(update={"size": float(size)}))
        assert len(order.beginning) == count
    (order,) = stairs._orders(0, bent)
    assert (len(order.beginning), order.page.unit) == (3, 1)
    large = {"strokes": [[[0, 500], [0, 3]]], "class": "fish"}
    (order,) = stairs._orders(0, Input.model_validate(large))
    assert order.beginning[:, :2].tolist() == [[0, 0], [255, 2]]


def test_a_simplified_beginning_is_read_as_it_is(stairs: GenerationService) -> None:
    (order,) = stairs._orders(
        0, Input.model_validate({"class": "fish", "strokes": [ANGLE], "simplified": True})
    )
    np.testing.assert_array_equal(order.beginning, strokes.to_stroke3([np.array(ANGLE).T]))
    ((found,),) = ask(stairs, {"strokes": [ANGLE], "simplified": True})
    assert found.strokes[0] == ANGLE
    assert found.strokes[1][0][0] == 110 + np.random.default_rng(0).integers(5, 60, 4)[0]


def test_drawings_lie_between_two(stairs: GenerationService) -> None:
    pair = {"strokes": [[[0, 200], [0, 0]]], "other": [[[5, 5], [0, 9]]]}
    (found,) = ask(stairs, {**pair, "count": 3})
    extents = [points(each).max(axis=0).tolist() for each in found]
    assert extents == [[255, 0], [255, 255], [0, 255]], "first, middle of the arc, other"
    ((middle,),) = ask(stairs, pair)
    assert middle.strokes == found[1].strokes
    ((same,),) = ask(stairs, {"strokes": [ANGLE], "other": [ANGLE], "simplified": True})
    assert points(same).max(axis=0).tolist() in ([127, 255], [128, 255])


def test_spherical_interpolation_keeps_the_length_and_halves_the_angle() -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(size=(2, 8))
    other *= np.linalg.norm(one) / np.linalg.norm(other)
    found = spherical(one, other, np.linspace(0, 1, 5))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(one), rtol=1e-6)
    np.testing.assert_allclose(found[[0, -1]], [one, other], rtol=1e-6)
    angles = [a @ b for a, b in zip(found[:-1].astype(float), found[1:].astype(float), strict=True)]
    np.testing.assert_allclose(angles, angles[0], rtol=1e-5)
    np.testing.assert_allclose(spherical(one, one, np.array([0.3])), [one], rtol=1e-6)
    np.testing.assert_allclose(spherical(0 * one, one, np.array([0.5])), [one / 2], rtol=1e-6)


def test_pictures_are_an_option(stairs: GenerationService) -> None:
    ((found,),) = ask(stairs, {}, svg=True)
    assert found.svg
    assert found.svg.startswith("<svg ")
    (response,) = stairs.predict([Input.model_validate({"class": "fish"})], {"svg": False})
    written = json.loads(response.model_dump_json())
    assert written["drawings"][0]["strokes"][0][0][0] == 0
    assert requests.check_options({"svg": True}, serving.SERVING.options) == {"svg": True}
    with pytest.raises(RequestError, match=r"params\.svg: expected true or false, found 1"):
        requests.check_options({"svg": 1}, serving.SERVING.options)


def test_a_drawing_without_points_has_no_label(tmp_path: Path) -> None:
    class Empty(Stairs):
        def draw(self, labels: Any, *arguments: Any, **more: Any) -> list[Any]:
            return [np.zeros((k % 2, 3), np.int16) for k in range(len(labels))]

    (found,) = ask(service(Empty(), tmp_path, judge=Judge()), {"count": 2}, svg=True)
    assert [(each.label, each.probability) for each in found] == [(None, None)] * 2
    assert found[0].strokes == []


# Classes


def test_a_model_of_one_class_or_none_needs_no_class(tmp_path: Path) -> None:
    unconditional = service(Stairs(classes=0), tmp_path, judge=Judge())
    assert unconditional.reads["classes"] == []
    (named,), (unnamed,) = ask(unconditional, {}, {"class": None})
    assert named == unnamed
    single = service(Stairs(classes=1), tmp_path, ["fish"])
    ((found,),) = ask(single, {"class": None})
    assert (found.label, found.probability) == (None, None), "there is no classifier"


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "no class": ({"class": None}, "class: found null; expected one of fish, house, ice cream"),
    "near miss": ({"class": "icecream"}, "class: found 'icecream', which is not known; "
                  "did you mean 'ice cream'?"),
    "cold": ({"temperature": 0}, "temperature: found 0; expected a number above 0, at most 2"),
    "hot": ({"temperature": 2.5}, "temperature: found 2.5; "),
    "nan": ({"temperature": float("nan")}, "temperature: found nan; "),
    "none": ({"count": 0}, "count: found 0; expected 1 to 100"),
    "many": ({"count": 101}, "count: found 101; "),
    "negative seed": ({"seed": -1}, "seed: found -1; expected 0 to 4294967295"),
    "large seed": ({"seed": 2**32}, "seed: found 4294967296; "),
    "broken": ({"strokes": [[[1, 2], [3]]]}, "strokes: stroke 0 has 2 x and 1 y"),
    "text": ({"strokes": [[["1"], [3]]]}, "strokes: stroke 0 has \"1\" in xs"),
    "a dot": ({"strokes": [[[1], [3]]]}, "strokes: no ink"),
    "broken other": ({"strokes": [ANGLE], "other": [[1]]}, "other: stroke 0 has 1 in place of xs"),
    "lone other": ({"other": [ANGLE]}, "other: found a drawing, but no strokes"),
    "not simplified": ({"strokes": [[[0, 300], [0, 0]]], "simplified": True},
                       "strokes: a coordinate is not an integer in 0 to 255"),
    "small": ({"strokes": [[[0, 300], [0, 0]]], "size": 299},
              "size: found 299; expected 300 or more"),
    "infinite": ({"strokes": [[[0, 300], [0, 0]]], "size": float("inf")}, "size: found inf; "),
    "two sizes": ({"strokes": [ANGLE], "simplified": True, "size": 255}, "size: found 255; "
                  "expected null"),
    "long": ({"strokes": [[list(range(LONGEST)), [0, 9] * (LONGEST // 2)]], "simplified": True},
             "strokes: found a beginning of 12 points; the model draws 12 at most"),
    "long whole": ({"whole": [[list(range(22)), [0, 9] * 11]], "simplified": True},
                   "whole: found 22 points; the model knows drawings of 20 at most"),
    "whole and count": ({"whole": [ANGLE], "count": 2}, "whole: found count, too"),
    "whole and strokes": ({"whole": [ANGLE], "strokes": []}, "whole: found strokes, too"),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), ERRORS.values(), ids=ERRORS)
def test_an_error_names_drawing_and_field(
    stairs: GenerationService, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        ask(stairs, {}, wrong)
    assert str(caught.value).startswith(f"drawing 1: {message}")
    assert caught.value.item == 1


def test_a_model_without_encoder_says_which_has_one(tmp_path: Path) -> None:
    found = service(Stairs(latent_size=0), tmp_path)
    with pytest.raises(
        RequestError, match=r"drawing 0: other: this model has no encoder.*sketch_rnn"
    ):
        ask(found, {"strokes": [ANGLE], "other": [LINE]})
    assert found.reads["encoder"] is False


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(RequestError, match=r"inputs\[0\]\.temprature: Extra inputs"):
        requests.read_inputs([{"temprature": 1}], Input)


# Servers and promotion


def test_clients_learn_the_kind_the_class_and_the_encoder(stairs: GenerationService) -> None:
    interface = Interface.of("generation")
    assert kinds.kind_of(interface.Input) == "generation"
    assert kinds.reads(manifest(), stairs) == {
        "classes": CLASSES, "encoder": True, "temperature": TEMPERATURE, "max_count": 100,
    }  # fmt: skip
    schema = Input.model_json_schema()["properties"]
    assert next(iter(schema)) == "class"
    request = openapi.request_type("generation", interface, 8)
    sent: Any = request.model_validate_json('{"inputs": [{"class": "a"}], "params": {"svg": true}}')
    assert sent.params.model_dump() == {"svg": True}
    assert sent.inputs[0].model_dump_json(exclude_unset=True) == '{"class":"a"}'
    with pytest.raises(ValueError, match="valid boolean"):
        request.model_validate_json('{"inputs": [{}], "params": {"svg": 1}}')


def prepared(folder: Path) -> list[Any]:
    """Write a test split of three drawings."""
    rows = [
        strokes.to_stroke3([np.array(ANGLE).T, np.array(LINE).T]),
        strokes.to_stroke3([np.array(LINE).T]),
        strokes.to_stroke3([np.array([[0, 0], [255, 9], [3, 80], [70, 0]])]),
    ]
    store.write_json(
        folder / "manifest.json",
        {**manifest().to_json(), "splits": {"test": {"drawings": 3, "points": 11}}},
    )
    split = Drawings(
        np.concatenate(rows),
        np.cumsum([len(each) for each in rows]),
        np.array([0, 1, 2], np.int32),
        np.array(["a", "b", "c"]),
    )
    store.write_arrays(folder / "test.npz", vars(split))
    return rows


@pytest.mark.parametrize("latent_size", [0, 2])
def test_requests_of_test_drawings_are_answered_as_evaluation_draws_them(
    tmp_path: Path, latent_size: int
) -> None:
    rows = prepared(tmp_path)
    sent = serving.to_requests(tmp_path, tmp_path, ["c", "a"])
    assert list(sent) == ["a", "c"]
    generator = Stairs(latent_size)
    asked = service(generator, tmp_path, judge=Judge())
    found = [response for each in sent.values() for response in ask(asked, each)]
    judge, chosen = Judge(), [0, 2]
    seeds = [drawings.seed_of(key) for key in "ac"]
    arguments: Any = (np.array(chosen), seeds, np.full(2, TEMPERATURE))
    begun = [drawings.prefix(rows[i], 0.5) for i in chosen]
    completed = generator.draw(*arguments, beginnings=begun)
    for (completion, *_), own in zip(found, completed, strict=True):
        assert completion.strokes == drawings.strokes_of(own)
    read = [Input.model_validate(each) for each in sent.values()]
    responses = [json.loads(each.model_dump_json()) for each in asked.predict(read, {})]
    arrays = serving.from_responses(responses, ["fish", "ice cream"], CLASSES)
    assert arrays["truth"].tolist() == chosen
    labels = judge([drawings.fitted(each) for each in completed])[0].argmax(axis=1)
    assert arrays["completion_label"].tolist() == labels.tolist()
    if latent_size:
        latent = generator.encode([rows[i] for i in chosen], np.array(chosen))
        again = generator.draw(*arguments, latent=latent)
        assert [each[1].strokes for each in found] == [
            drawings.strokes_of(drawings.fitted(each)) for each in again
        ]
        assert arrays["reconstruction_label"].tolist() == [0, 0]
        losses, _ = generator.measure([rows[i] for i in chosen], chosen, seeds)
        assert arrays["reconstruction_loss"].tolist() == losses.tolist()
    else:
        rated = per_example({"keys": np.array(["a", "c"]), **arrays})
        missing = {name for name, rows in rated.statistics.items() if np.isnan(rows).all()}
        assert missing == {"recognised_reconstructions", "reconstruction_loss"}
        assert np.isnan(arrays["reconstruction_label"]).all()
        assert np.isnan(arrays["reconstruction_loss"]).all()


def test_a_file_of_requests_is_answered_in_a_table(tmp_path: Path) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text(
        '{"class": "fish", "count": 2, "seed": 5}\n'
        '{"class": "fisch"}\n'
        "{broken\n"
        '{"class": "house", "colour": "red"}\n'
        f'{{"class": "house", "strokes": {json.dumps([ANGLE])}}}\n'
    )
    source: Any = SimpleNamespace(
        name="drawings",
        domain="generation",
        interface=Interface.of("generation"),
        current=lambda: "1",
        load=lambda version: Loaded("1", service(Stairs(), tmp_path, judge=Judge()), {}),
    )
    summary = predict(source, file, tmp_path / "out.ndjson", options={"svg": True})
    found = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [(row["line"], row["number"], row["kind"]) for row in found] == [
        (1, 0, "sample"), (1, 1, "sample"), (5, 0, "completion"),
    ]  # fmt: skip
    assert found[2]["strokes"][0] == ANGLE
    assert found[0]["svg"].startswith("<svg")
    assert [reject.place for reject in summary.rejects] == ["line 2", "line 3", "line 4"]
    assert "colour" in summary.rejects[2].reason
    predict(source, file, tmp_path / "out.parquet", options={})
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 3
