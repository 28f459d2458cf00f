"""A block of params.yaml binds strictly to a signature, and each error names the key."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

from ostinato import errors, params
from ostinato.study import OPTIONAL, REQUIRED
from ostinato.training import machine
from ostinato.units import Fraction, LearningRate, NonNegative, Units


class Augmentation(TypedDict):
    frame_rate: float


def layer(data: int, *, units: Units, dropout: Fraction, cell: Literal["gru", "lstm"]) -> Any:
    return data, units, dropout, cell


def optimizer(*, learning_rate: LearningRate, augment: Augmentation) -> Any:
    return learning_rate, augment


BLOCK = {"units": 8, "dropout": 0.5, "cell": "gru"}


def test_bind_passes_the_values_of_the_block() -> None:
    assert params.bind(layer, BLOCK)(1) == (1, 8, 0.5, "gru")


def test_an_integer_is_converted_to_a_float() -> None:
    dropout = params.bind(layer, {**BLOCK, "dropout": 0})(1)[2]
    assert (dropout, type(dropout)) == (0.0, float)


@pytest.mark.parametrize(
    ("change", "message"),
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
def test_an_error_names_module_function_and_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.ParamsError, match=message) as caught:
        params.bind(layer, {**BLOCK, **change})
    assert f"{__name__}.layer" in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused_at_any_depth(value: float) -> None:
    for block in (
        {"learning_rate": value, "augment": {"frame_rate": 1.0}},
        {"learning_rate": 0.1, "augment": {"frame_rate": value}},
    ):
        with pytest.raises(errors.ParamsError, match="finite number"):
            params.bind(optimizer, block)

    def clip(*, clip_norm: NonNegative, several: list[float] | None) -> None: ...

    for norm, several in ((value, None), (1.0, [value])):
        with pytest.raises(errors.ParamsError, match="finite number"):
            params.bind(clip, {"clip_norm": norm, "several": several})


@pytest.mark.parametrize("domain", ["sketches", "translation", "video"])
@pytest.mark.parametrize("share", [0.0, 1.0, 0, 1])
def test_a_split_has_neither_nothing_nor_all(domain: str, share: float) -> None:
    prepare = params.module(domain, "dataset").prepare
    _, problems = params.validate(prepare, {"test": share, "validation": share})
    wrong = {problem.key for problem in problems if problem.kind == "invalid"}
    assert wrong == {"test", "validation"}


def test_a_dropout_of_everything_is_refused() -> None:
    for domain in params.domains():
        folder = Path(str(params.module(domain, "models").__file__)).parent
        for file in sorted(folder.glob("[!_]*.py")):
            build = getattr(params.model_module(domain, file.stem), "build", None)
            if build and "dropout" in params.arguments(build):
                _, problems = params.validate(build, {"dropout": 1.0})
                assert "dropout" in {p.key for p in problems if p.kind == "invalid"}, file


def test_an_error_lists_all_problems() -> None:
    with pytest.raises(errors.ParamsError) as caught:
        params.bind(layer, {"unit": 8, "dropout": 2})
    assert re.findall(r"\n  (\w+):", str(caught.value)) == ["units", "dropout", "cell", "unit"]


@pytest.mark.parametrize("block", [3, "units", ["units"]])
def test_a_block_must_be_a_mapping(block: Any) -> None:
    with pytest.raises(errors.ParamsError, match="expected a mapping"):
        params.bind(layer, block)


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("learning_rate: 1e-3\nlanguage: no\n")
    assert params.load(file) == {"learning_rate": 0.001, "language": "no"}


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "- 1", "a: \x00", "a: 2014-02-31"])
def test_the_error_of_broken_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text)
    with pytest.raises(errors.ParamsError, match=r"params\.yaml"):
        params.load(file)


def test_the_error_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(errors.ParamsError, match=r"params\.yaml: no such file"):
        params.load(tmp_path / "params.yaml")


def test_an_unknown_entry_is_reported_with_similar_names() -> None:
    with pytest.raises(errors.ParamsError, match=r"runs: no entry 'sketches-gro'.*'sketches-gru'"):
        params.entry({"runs": {"sketches-gru": {}}}, "runs", "sketches-gro")


def test_the_path_of_a_module_is_its_name() -> None:
    assert params.module("sketches", "evaluation").__name__ == "ostinato.sketches.evaluation"
    assert params.model_module("sketches", "rnn").__name__ == "ostinato.sketches.models.rnn"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("sketches", "evaluatoin"), r"ostinato\.sketches: no module 'evaluatoin'.*'evaluation'"),
        (("sketch", "evaluation"), r"ostinato: no module 'sketch'.*'sketches'"),
        (("..", "stages", "train"), r"ostinato: no module '\.\.'"),
        (
            ("sketches", "models", "nearst"),
            r"ostinato\.sketches\.models: no module 'nearst'; .*'nearest'",
        ),
    ],
)
def test_an_unknown_module_is_reported_with_similar_names(
    path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(errors.ParamsError, match=message):
        params.module(*path)


def test_an_unknown_function_is_reported_with_similar_names() -> None:
    with pytest.raises(errors.ParamsError, match=r"no function 'lod'; did you mean 'load'"):
        params.function(params, "lod")
    assert params.function(params, "load") is params.load


# Names of earlier versions


def all_present_keys() -> set[str]:
    """The parameters of all sources, data sets, models, evaluations and policies."""
    from ostinato.data import drift
    from ostinato.promotion import Gate

    keys = {*REQUIRED, *OPTIONAL, *params.arguments(drift.compare), *params.arguments(Gate)}
    for domain in params.domains():
        sources = params.functions(params.module(domain, "sources")).values()
        functions = [*sources, params.module(domain, "dataset").prepare]
        functions.append(params.module(domain, "evaluation").evaluate)
        folder = Path(str(params.module(domain, "models").__file__)).parent
        for file in folder.glob("[!_]*.py"):
            module = params.model_module(domain, file.stem)
            functions += [
                getattr(module, name) for name in ("build", "fit") if name in vars(module)
            ]
        for function in functions:
            keys |= params.arguments(function).keys()
    return keys


def test_every_old_name_leads_to_parameters_that_exist() -> None:
    present = {name for names in params.OLD_NAMES.values() for name in names}
    assert present - all_present_keys() == set()


def test_keys_that_describe_the_computer_lead_to_its_variables() -> None:
    variables = {machine.DEVICES, machine.INTRA_OP, machine.INTER_OP}
    assert set(params.NOW_VARIABLES.values()) == variables
    assert set(params.NOW_VARIABLES) & all_present_keys() == set()


@pytest.mark.parametrize(("old", "present"), params.OLD_MODELS.items())
def test_an_old_model_is_an_error_with_its_present_name(old: str, present: str) -> None:
    domains = [d for d in params.domains() if present in model_names(d)]
    assert domains
    for domain in domains:
        with pytest.raises(errors.ParamsError, match=f"'{old}'; it is called {present} now"):
            params.model_module(domain, old)


def model_names(domain: str) -> set[str]:
    folder = Path(str(params.module(domain, "models").__file__)).parent
    return {file.stem for file in folder.glob("[!_]*.py")}


def test_an_old_key_is_one_error_with_its_present_name() -> None:
    with pytest.raises(errors.ParamsError) as caught:
        params.bind(optimizer, {"rate": 0.1, "augment": {"frame_rate": 1.0}})
    assert str(caught.value) == (
        f"{__name__}.optimizer: 1 wrong\n  rate: unknown; it is called learning_rate now"
    )


def test_the_present_name_is_the_one_of_the_block() -> None:
    with pytest.raises(
        errors.ParamsError, match=r"augment\.rate: unknown; it is called frame_rate"
    ):
        params.bind(optimizer, {"learning_rate": 0.1, "augment": {"rate": 1.0}})


def test_an_old_key_that_the_function_never_had_is_unknown() -> None:
    with pytest.raises(errors.ParamsError, match=r"rate: unknown; there is cell, dropout, units"):
        params.bind(layer, {**BLOCK, "rate": 0.1})
