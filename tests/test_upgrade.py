"""Versions that were registered under the name of a domain move to the name of their data set."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato.tracking import registry, upgrade

STUDIES = {
    "params.yaml": {"sketches": "sketches", "weather": "forecasting"},
    "recipes/chicago/params.yaml": {"rail-week": "forecasting", "weather": "forecasting"},
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_tables: Path) -> Any:
    """A client of the store of a checkout with two studies."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(mlflow_tables, tmp_path)
    for path, data in STUDIES.items():
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        at = "" if file.parent == Path() else f"{file.parent}/"
        values: dict[str, Any] = {"root": "../.." if at else ".", "at": at}
        values["data"] = {name: {"domain": domain} for name, domain in data.items()}
        with file.open("w") as opened:
            YAML().dump(values, opened)
    with registry.connected() as client:
        return client


def register(client: Any, model: str, data: str, *aliases: str, **tags: str) -> Any:
    """A version as it was registered before."""
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model, {"domain": model})
    experiment = client.get_experiment_by_name("Default").experiment_id
    run = client.create_run(experiment)
    own = {"run": "some", "trained": "2026-11-01", "model": "0" * 32, "data": "1" * 32}
    version = client.create_model_version(
        model,
        f"file:///models/{data}",
        run.info.run_id,
        {**own, "params": json.dumps({"data": data}), **tags},
        description=f"# {data}",
    )
    for alias in aliases:
        client.set_registered_model_alias(model, alias, version.version)
    return version


def state(client: Any) -> dict[str, dict[str, str]]:
    """For each model the number and source of the versions, and the aliases."""
    found: dict[str, dict[str, str]] = {}
    for model in client.search_registered_models():
        versions = client.search_model_versions(f"name = '{model.name}'")
        sources = {str(v.version): v.source.rpartition("/")[2] for v in versions}
        aliases = {alias: str(number) for alias, number in model.aliases.items()}
        found[model.name] = {**sources, **aliases}
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    upgrade.main(arguments)
    return capsys.readouterr().out.splitlines()


def test_each_version_goes_to_its_data_set_with_all_that_it_had(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = register(client, "forecasting", "rail-week", "previous")
    register(client, "forecasting", "weather", "champion")
    second = register(client, "forecasting", "rail-week")
    register(client, "sketches", "sketches", "champion")
    before = state(client)
    told = run(capsys, "--dry-run")
    assert state(client) == before
    assert told[0] == (
        "forecasting 1: to chicago.rail-week (recipes/chicago/params.yaml), previous"
    )
    lines = run(capsys)
    assert lines[1] == "forecasting 2: moved to weather 1 (params.yaml), champion"
    assert "forecasting: deleted, as it has no version left" in lines
    assert "sketches 1: its name stays; it is of params.yaml" in lines
    assert state(client) == {
        "chicago.rail-week": {"1": "rail-week", "2": "rail-week", "previous": "1"},
        "sketches": {"1": "sketches", "champion": "1"},
        "weather": {"1": "weather", "champion": "1"},
    }
    moved = client.get_model_version("chicago.rail-week", "2")
    assert moved.run_id == second.run_id
    assert moved.description == "# rail-week"
    assert moved.tags["study"] == "recipes/chicago/params.yaml"
    assert moved.tags[upgrade.MOVED] == "forecasting 3"
    assert first.tags.items() <= client.get_model_version("chicago.rail-week", "1").tags.items()
    assert run(capsys) == ["No version is registered under the name of a domain."]


def test_the_named_study_comes_first(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    register(client, "forecasting", "weather")
    run(capsys, "recipes/chicago/params.yaml", "params.yaml")
    assert state(client) == {"chicago.weather": {"1": "weather"}}


def test_a_data_set_that_no_study_has_stays_and_is_named(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register(client, "forecasting", "wether")
    register(client, "video", "weather")  # a data set of this name is of another domain
    before = state(client)
    first, second = run(capsys)
    assert "forecasting 1: stays: no study has a data set 'wether'" in first
    assert "did you mean 'weather'?" in first
    assert "video 1: stays: no study has a data set 'weather' of video" in second
    assert state(client) == before


def test_a_champion_of_the_new_name_stays_champion(
    client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    register(client, "weather", "weather", "champion", study="params.yaml")
    register(client, "forecasting", "weather", "champion")
    assert run(capsys)[0] == "forecasting 1: moved to weather 2 (params.yaml)"
    assert state(client)["weather"] == {"1": "weather", "2": "weather", "champion": "1"}


def test_models_of_others_are_left_alone(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.create_registered_model("forecasting")
    client.create_model_version("forecasting", "file:///models/theirs")
    before = state(client)
    assert run(capsys) == ["No version is registered under the name of a domain."]
    assert state(client) == before


@pytest.mark.parametrize(
    "step",
    ["create_model_version", "set_registered_model_alias", "delete_model_version",
     "delete_registered_model"],
)  # fmt: skip
def test_a_move_that_was_killed_is_continued(
    client: Any, capsys: pytest.CaptureFixture[str], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    register(client, "forecasting", "weather", "previous")
    register(client, "forecasting", "weather", "champion")
    whole = getattr(MlflowClient, step)
    for when in ("before", "after"):

        def killed(self: Any, *arguments: Any, when: str = when, **named: Mapping[str, Any]) -> Any:
            if when == "after":
                whole(self, *arguments, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, killed)
            with pytest.raises(KeyboardInterrupt):
                run(capsys)
    run(capsys)
    assert state(client) == {
        "weather": {"1": "weather", "2": "weather", "previous": "1", "champion": "2"}
    }
