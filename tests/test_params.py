"""params.yaml binds strictly, and its errors say where to look."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest

from ostinato import errors, params
from ostinato.units import Fraction, Units


def layer(data: int, *, units: Units, dropout: Fraction, cell: Literal["gru", "lstm"]) -> Any:
    return data, units, dropout, cell


GOOD = {"units": 8, "dropout": 0.5, "cell": "gru"}


def test_bound_arguments_arrive() -> None:
    assert params.bind(layer, GOOD)(1) == (1, 8, 0.5, "gru")


def test_an_integer_serves_as_a_float_and_arrives_as_one() -> None:
    dropout = params.bind(layer, {**GOOD, "dropout": 0})(1)[2]
    assert (dropout, type(dropout)) == (0.0, float)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unit": 8}, r"unit: unknown; did you mean 'units'"),
        ({"units": None}, r"units: .*valid integer, found None"),
        ({"units": "8"}, r"units: .*valid integer, found '8'"),
        ({"units": True}, r"units: .*valid integer, found True"),
        ({"units": 8.0}, r"units: .*valid integer, found 8.0"),
        ({"units": 0}, r"units: .*greater than or equal to 1, found 0"),
        ({"dropout": 1.5}, r"dropout: .*less than or equal to 1, found 1.5"),
        ({"cell": "rnn"}, r"cell: .*'gru' or 'lstm', found 'rnn'"),
    ],
)
def test_what_does_not_fit_is_named_with_module_function_and_key(
    change: dict[str, Any], says: str
) -> None:
    with pytest.raises(errors.ParamsError, match=says) as caught:
        params.bind(layer, {**GOOD, **change})
    assert f"{__name__}.layer" in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(errors.ParamsError) as caught:
        params.bind(layer, {"unit": 8, "dropout": 2})
    assert re.findall(r"\n  (\w+):", str(caught.value)) == ["units", "dropout", "cell", "unit"]


@pytest.mark.parametrize("block", [3, "units", ["units"]])
def test_a_block_that_is_no_mapping_is_an_error(block: Any) -> None:
    with pytest.raises(errors.ParamsError, match="expected a mapping"):
        params.bind(layer, block)


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("rate: 1e-3\nlanguage: no\n")
    assert params.load(file) == {"learning_rate": 0.001, "language": "no"}


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "- 1", "a: \x00", "a: 2014-02-31"])
def test_broken_yaml_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(errors.ParamsError, match=r"params\.yaml"):
        params.load(file)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(errors.ParamsError, match="no such file"):
        params.load(tmp_path / "params.yaml")


def test_an_unknown_entry_names_its_near_misses() -> None:
    with pytest.raises(errors.ParamsError, match=r"runs: no entry 'sketches-gro'.*'sketches-gru'"):
        params.entry({"runs": {"sketches-gru": {}}}, "runs", "sketches-gro")


def test_the_path_is_the_name() -> None:
    assert params.module("sketches/stacked").__name__ == "ostinato.sketches.models.rnn"
    assert params.module("sketches", "stacked").__name__ == "ostinato.sketches.models.rnn"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (("sketches", "staked"), r"ostinato\.sketches: no module 'staked'.*'stacked'"),
        (("sketch", "stacked"), r"ostinato: no module 'sketch'.*'sketches'"),
        (("..", "stages", "train"), r"ostinato: no module '\.\.'"),
    ],
)
def test_an_unknown_module_names_its_near_misses(path: tuple[str, ...], says: str) -> None:
    with pytest.raises(errors.ParamsError, match=says):
        params.module(*path)


def test_an_unknown_function_names_its_near_misses() -> None:
    with pytest.raises(errors.ParamsError, match=r"no function 'lod'; did you mean 'load'"):
        params.function(params, "lod")
    assert params.function(params, "load") is params.load
