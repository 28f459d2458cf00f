"""The command line: what describe and list print, and their exit codes."""

import contextlib
import copy
import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter
from ruamel.yaml import YAML

from ostinato import cli, params, units
from ostinato.task import Metric

ROOT = Path(__file__).parent.parent
STUDY: dict[str, Any] = {
    "root": ".",
    "at": "",
    "seed": 1,
    "runtime": {"precision": "float32"},
    "data": {
        "toys": {
            "domain": "sketches",
            "fetch": {
                "source": "doodles",
                "doodles": {"categories": "all", "per_class": 12_345},
                "quickdraw": {"per_class": 77, "form": "raw"},
            },
            "prepare": {"validation": 0.25},
        }
    },
    "runs": {
        "toys-cnn": {
            "data": "toys",
            "domain": "sketches",
            "model": "conv_bilstm",
            "build": {"filters": [3, 5]},
            "fit": {"epochs": 17},
        }
    },
    "ensembles": {},
    "evaluation": {"sketches": {"resamples": 321}},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a default study and a recipe, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    recipe = tmp_path / "recipes" / "large" / "params.yaml"
    recipe.parent.mkdir(parents=True)
    large = {**STUDY, "root": "../..", "at": "recipes/large/"}
    large["runs"] = {"large-cnn": STUDY["runs"]["toys-cnn"]}
    for path, values in ((tmp_path / "params.yaml", STUDY), (recipe, large)):
        with path.open("w") as file:
            YAML().dump(values, file)
    return tmp_path


@pytest.fixture
def described(study: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        assert cli.main(["describe", *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_an_overview_names_domains_sources_models_data_sets_and_runs(
    described: Callable[..., str],
) -> None:
    text = described()
    for name in (*params.domains(), "quickdraw", "conv_bilstm", "toys", "toys-cnn"):
        assert name in text.replace(",", " ").split()


def test_a_domain_shows_its_sources_and_the_first_sentence_of_each_model(
    described: Callable[..., str],
) -> None:
    text = described("sketches")
    for heading in (
        "sketches/quickdraw",
        "sketches/doodles",
        "sketches: prepare",
        "\n  conv_bilstm",
    ):
        assert heading in text
    assert "12345 (data.toys.fetch.doodles)" in text
    assert "321 (evaluation.sketches)" in text


@pytest.mark.parametrize("name", ["quickdraw", "sketches/quickdraw"])
def test_a_source_shows_type_bound_value_and_text_of_each_parameter(
    name: str, described: Callable[..., str]
) -> None:
    text = described(name)
    source = params.function(params.module("sketches", "sources"), "quickdraw")
    for parameter in params.arguments(source):
        assert f"\n  {parameter}: " in text
    assert "per_class: Count (an integer, at least 1)" in text
    assert "form: one of simplified, raw" in text
    assert "in params: 77 (data.toys.fetch.quickdraw)" in text


def test_a_name_of_several_domains_shows_all_of_them(described: Callable[..., str]) -> None:
    text = described("tfds")
    assert "sketches/tfds: a source" in text
    assert "video/tfds: a source" in text
    assert "video/tfds" not in described("sketches/tfds")


def test_a_data_set_shows_its_source_and_how_it_is_prepared(
    described: Callable[..., str],
) -> None:
    text = described("toys")
    assert "12345 (data.toys.fetch.doodles)" in text
    assert "0.25 (data.toys.prepare)" in text
    assert "quickdraw" not in text


def test_a_model_shows_the_values_of_each_of_its_runs(described: Callable[..., str]) -> None:
    text = described("conv_bilstm")
    assert "filters: a list of: Units (an integer, 1 to 65,536)" in text
    assert "in params: [3, 5] (runs.toys-cnn.build)" in text
    assert "in params: 17 (runs.toys-cnn.fit)" in text


def test_a_run_shows_its_values(described: Callable[..., str]) -> None:
    text = described("toys-cnn")
    assert "Data set toys, model sketches/conv_bilstm" in " ".join(text.split())
    assert "in params: 17 (runs.toys-cnn.fit)" in text


def test_another_study_is_described_by_its_path(described: Callable[..., str]) -> None:
    path = "recipes/large/params.yaml"
    assert f"a run of {path}" in described("large-cnn", "--study", path)


def test_without_a_study_names_are_described_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["describe", "sketches/quickdraw"]) == 0
    text = capsys.readouterr().out
    assert "per_class: Count" in text
    assert "in params" not in text
    assert cli.main(["describe", "--study", "params.yaml"]) == 2
    assert "params.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("sketch", "sketches"),
        ("quickdrawn", "quickdraw"),
        ("sketches/conv_bilstn", "sketches/conv_bilstm"),
        ("toys-cmn", "toys-cnn"),
    ],
)
def test_an_unknown_name_gives_near_misses_and_exit_code_2(
    wrong: str, right: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["describe", wrong]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert repr(right) in captured.err


@pytest.mark.parametrize("columns", [40, 57, 80, 500])
def test_text_is_wrapped_to_the_terminal(
    columns: int, described: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = described("toys").splitlines()
    width = min(columns, cli.MAX_WIDTH)
    words = [line for line in lines if len(line) > width]
    # Only a line without a space to break at is longer, or the heading of a function.
    assert all(" " not in line.strip() or line.endswith(")") for line in words), words
    assert max(map(len, lines)) > 0.8 * width


def test_describe_imports_tensorflow_only_for_a_model(study: Path) -> None:
    code = """
import sys
from ostinato.cli import main
for arguments in (["describe"], ["describe", "sketches"], ["describe", "toys"]):
    assert main(arguments) == 0
    assert not {"tensorflow", "keras"} & set(sys.modules), arguments
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=study,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_reference_to_a_documented_parameter_is_replaced_by_its_meaning() -> None:
    def fit(*, key: str) -> None:
        """A function of this module, which imports ``params``."""

    _, documented = cli.split_docstring(inspect.getdoc(params.unknown_key) or "")
    assert cli._resolved(fit, "key", "see `params.unknown_key`.") == documented["key"]
    assert cli._resolved(fit, "key", "a key; see `params.unknown_key`.").startswith("a key")


def test_the_module_is_a_command(study: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ostinato", "describe", "sketchs"],
        cwd=study,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'sketches'" in done.stderr
    assert "Traceback" not in done.stderr


# Types


ALIASES = {name: getattr(units, name) for name in cli._unit_texts()}


@pytest.mark.parametrize("name", ALIASES)
def test_the_text_of_a_unit_has_its_name_and_every_bound_of_its_json_schema(name: str) -> None:
    text = cli.type_text(ALIASES[name])
    assert text.startswith(f"{name} (")
    schema = TypeAdapter(ALIASES[name]).json_schema()
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems"):
        if keyword in schema:
            bound = schema[keyword]
            assert any(f"{bound:{how}}" in text for how in (",", "g")), (keyword, text)


def test_every_unit_has_a_text() -> None:
    public = {name for name in vars(units) if hasattr(getattr(units, name), "__metadata__")}
    assert public == set(ALIASES)
    assert all(cli._unit_texts().values())


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, "an integer or null"),
        (list[str] | Literal["all"], "a list of: text or the word all"),
        (Literal["simplified", "raw"], "one of simplified, raw"),
        (dict[str, float], "a mapping of text to a number"),
        (str | Callable[[Any], Any], "text"),
        (list[units.Count], "a list of: Count (an integer, at least 1)"),
        (Annotated[float, Field(gt=0, le=10)], "a number, above 0, at most 10"),
        (Annotated[str, Field(pattern="a+")], "text, that matches a+"),
    ],
)
def test_a_type_in_words(hint: Any, text: str) -> None:
    assert cli.type_text(hint) == text


def test_types_of_equal_bounds_keep_their_names() -> None:
    bounds = [repr(get_args(unit)) for unit in (units.Count, units.Patience)]
    assert bounds[0] == bounds[1]
    assert cli.type_text(units.Count).startswith("Count ")
    assert cli.type_text(units.Patience).startswith("Patience ")


def test_a_docstring_is_split_into_its_text_and_its_arguments() -> None:
    text, documented = cli.split_docstring(
        "A sentence.\n\nAnother: with a colon.\n\n"
        "Args:\n    one: first\n        line: two.\n    two: second.\n\n"
        "Raises:\n    Error: never."
    )
    assert text == "A sentence.\n\nAnother: with a colon."
    assert documented == {"one": "first line: two.", "two": "second."}


# list


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Domains that report the share of toys that are right, in percent."""
    own = Metric("right", "Right", unit="%", format=".1f")
    report = SimpleNamespace(REPORT=SimpleNamespace(metrics=(own,)))
    monkeypatch.setattr(params, "module", lambda *path: report)
    cli._primary_metric.cache_clear()


def test_list_shows_the_runs_of_all_studies_with_their_scores(
    study: Path, metric: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study / "results" / "toys-cnn"
    folder.mkdir(parents=True)
    values = {"right": 61.25, "right_low": 60.0, "right_high": 62.5, "other": 1.0}
    (folder / "metrics.json").write_text(json.dumps(values))
    assert cli.main(["list"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "default (params.yaml)",
        "run data set model score",
        "toys-cnn toys sketches/conv_bilstm Right 61.2 [60.0, 62.5] %",
        "",
        "large (recipes/large/params.yaml)",
        "run data set model score",
        "large-cnn toys sketches/conv_bilstm not evaluated",
    ]
    assert cli.main(["list", "--study", "recipes/large/params.yaml"]) == 0
    assert "toys-cnn" not in capsys.readouterr().out
    cli._primary_metric.cache_clear()


def test_list_names_a_file_of_metrics_that_is_not_json(
    study: Path, metric: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study / "results" / "toys-cnn" / "metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    assert cli.main(["list"]) == 2
    assert "results/toys-cnn/metrics.json: not JSON" in capsys.readouterr().err
    cli._primary_metric.cache_clear()


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"m": 0.5}, "M 0.500"),
        ({"m": 0.5, "m_low": 0.4, "m_high": 0.6}, "M 0.500 [0.400, 0.600]"),
        ({"m": None}, "no M"),
        ({}, "no M"),
    ],
)
def test_a_score_in_words(metrics: Mapping[str, float | None], text: str) -> None:
    assert cli.score_text(metrics, Metric("m", "M")) == text


# A params.yaml that is wrong


def paths(table: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of all values of a study."""
    found = []
    for key, value in table.items():
        path = (*prefix, key)
        found += [path, *(paths(value, path) if isinstance(value, dict) else [])]
    return found


@given(
    st.sampled_from(paths(STUDY)),
    st.sampled_from(["delete", None, True, 3, "x", [], [1], {}, {"a": 1}]),
)
@settings(max_examples=60)
def test_no_params_file_ends_in_a_traceback(path: tuple[str, ...], other: Any) -> None:
    values = copy.deepcopy(STUDY)
    table: Any = values
    for key in path[:-1]:
        table = table[key]
    if other == "delete":
        del table[path[-1]]
    else:
        table[path[-1]] = other
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with Path("params.yaml").open("w") as file:
            YAML().dump(values, file)
        for arguments in (["list"], ["describe"], ["describe", "sketches"], ["describe", "toys"]):
            assert cli.main(arguments) in (0, 2)
