"""The scheduled flow: it trains where something asks for it, and loses nothing where a step fails.

Data sets of toys are fetched, prepared and compared for real, by DVC and in MLflow's registry; only
who wins there is not asked (`promote` is replaced). The slow test replaces nothing.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows import retrain as module
from flows.engine import commands
from flows.retrain import retrain
from ostinato import params, store
from ostinato.tracking import mirror
from tests.workspace import Workspace

ROOT = Path(__file__).parents[1]
CALM = [i % 97 for i in range(400)]
PARAMS = """\
data:
  toy: {domain: toys}
  other: {domain: others}
runs:
  one: {data: toy, domain: toys}
  two: {data: toy, domain: toys}
  alien: {data: other, domain: others}
drift: {psi: 0.2, ks: 0.15, level: 0.01, bins: 10}
"""
STAGES = """\
stages:
  fetch:
    foreach: ${data}
    do:
      cmd: python stage.py fetch ${key}
      outs: ["data/raw/${key}"]
  prepare:
    foreach: ${data}
    do:
      cmd: python stage.py prepare ${key}
      deps: ["data/raw/${key}"]
      outs: ["data/${key}"]
  evaluate:
    foreach: ${runs}
    do:
      cmd: python stage.py evaluate ${key} ${item.data}
      deps: ["data/${item.data}"]
      outs: ["results/${key}"]
  report:
    cmd: python stage.py report
    deps: [results]
    outs: [report.md]
"""
STAGE = """\
import json, sys, time
from collections import Counter
from pathlib import Path

def main(stage, name="", data=""):
    if stage == "report":
        return Path("report.md").write_text("all")
    source, folder = {
        "fetch": ("world", f"data/raw/{name}"),
        "prepare": (f"data/raw/{name}", f"data/{name}"),
        "evaluate": (f"data/{data}", f"results/{name}"),
    }[stage]
    file = Path(source, {"fetch": f"{name}.json", "prepare": "raw.json"}.get(stage, "profile.json"))
    if not file.exists():
        sys.exit(f"{file} is away")
    values = json.loads(file.read_text())
    if values == f"slow {stage}":
        Path("slow").touch()
        time.sleep(60)
    if stage == "prepare":
        values = {"numbers": {"x": sorted(values)}, "examples": len(values),
                  "counts": {"odd": Counter(str(value % 2) for value in values)}}
    elif stage == "evaluate" and values["examples"] == 13:
        sys.exit("13 examples are too many")
    Path(folder).mkdir(parents=True)
    name = {"fetch": "raw.json", "prepare": "profile.json"}.get(stage, "scores.json")
    Path(folder, name).write_text(json.dumps(values))

main(*sys.argv[1:])
"""


class Toys:
    """A checkout of toy data sets, and what the flow did in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judged: list[list[str]] = []  # domains that promote was asked about

    def promote(self, domains: list[str]) -> dict[str, Any]:
        self.judged.append(domains)
        return {domain: {"promoted": True, "reason": "it won"} for domain in domains}

    def world(self, name: str, values: Any) -> None:
        file = self.folder / "world" / f"{name}.json"
        file.unlink(missing_ok=True) if values is None else file.write_text(json.dumps(values))

    def crown(self, days: float = 1, profile: Any = None, data: str = "toy") -> None:
        """Make a version that was trained on the data as they are the champion."""
        known = self.folder / "data" / "toy" / "profile.json"
        source = self.folder / "models" / str(time.time_ns())
        store.write_json(source / "artifacts" / "profile.json", profile or store.read_json(known))
        trained = datetime.now(UTC) - timedelta(days=days)
        tags = {
            "run": "one",
            "trained": trained.isoformat(),
            "params": json.dumps({"data": data}),
            "data": "0",
        }
        with mirror.connected() as client:
            if not client.search_registered_models("name = 'toys'"):
                client.create_registered_model("toys")
            version = client.create_model_version("toys", source.as_uri(), tags=tags)
            client.set_registered_model_alias("toys", "champion", version.version)

    def __call__(self, *data: str, **changed: Any) -> Any:
        """The final state of a run of the flow."""
        self.judged.clear()
        return retrain(list(data) or ["toy"], return_state=True, **changed)

    def files(self) -> dict[str, str]:
        """All that a data set has in the checkout."""
        paths = [*self.folder.glob("data/**/*.json"), self.folder / "dvc.lock"]
        return {str(p.relative_to(self.folder)): p.read_text() for p in paths if p.exists()}

    def run(self, domain: str = "toys") -> Any:
        """The flow's latest run in MLflow, and the files in it."""
        with mirror.connected() as client:
            ids = [mirror.experiment(client, domain)]
            run, *_ = client.search_runs(ids, "tags.stage = 'retrain'")
        place = Path(run.info.artifact_uri.removeprefix("file://"))
        return run, {str(p.relative_to(place)): p for p in place.rglob("*") if p.is_file()}


def artifact(name: str) -> str:
    """The latest report in Prefect on a data set."""
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[f"retrain-{name}"]))
    with get_client(sync_client=True) as client:
        return str(
            client.read_artifacts(artifact_filter=key, sort=ArtifactSort.UPDATED_DESC)[0].data
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A checkout whose toys were made once, with a store of MLflow's."""
    folder = tmp_path_factory.mktemp("toys")
    for name, text in {"params.yaml": PARAMS, "dvc.yaml": STAGES, "stage.py": STAGE}.items():
        (folder / name).write_text(text)
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / "world").mkdir()
    for name in ("toy", "other"):
        (folder / "world" / f"{name}.json").write_text(json.dumps(CALM))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    shutil.copy(mlflow_tables, folder)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "-q"], cwd=folder, check=True, env=environment
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with mirror.connected() as client:
            mirror.experiment(client, "toys")
    return folder


@pytest.fixture
def toys(made: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Toys:
    folder = tmp_path / "toys"
    shutil.copytree(made, folder)
    toys = Toys(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "promote", toys.promote)
    monkeypatch.setattr(commands, "study", params.load)  # its domain has no signatures
    return toys


def test_without_a_champion_everything_is_made_and_judged(toys: Toys) -> None:
    toys.world("toy", CALM[:-1])
    state = toys()
    assert state.is_completed()
    assert state.message == "toy: retrained: toys has no champion yet. it won"
    assert state.result()["toy"]["promoted"]
    assert toys.judged == [["toys"]]
    assert store.read_json(toys.folder / "results" / "two" / "scores.json")["examples"] == 399
    assert "| evaluate@one | ran |" in artifact("toy")
    run, files = toys.run()
    assert run.info.status == "FINISHED"
    assert run.data.tags["retrained"] == run.data.tags["promoted"] == "true"
    assert files["report.md"].read_text().startswith("# toy: retrained")


def test_data_like_the_champions_are_not_trained_on_and_the_former_come_back(toys: Toys) -> None:
    toys.crown()
    before = toys.files()
    toys.world("toy", [*CALM, 5])
    state = toys()
    assert state.is_completed()
    told = "toy: not retrained: none of 2 features drifted (at most PSI 0.000 of x, KS 0.00"
    assert state.message.startswith(told)
    assert "version 1, is 1.0 days old" in state.message
    assert state.result()["toy"] == {
        "retrained": False,
        "promoted": False,
        "reason": state.message.removeprefix("toy: "),
    }
    assert toys.judged == []
    assert toys.files() == before
    assert "| x | " in artifact("toy")
    run, files = toys.run()
    assert run.data.tags["retrained"] == "false"
    assert run.data.metrics["ks/x"] < 0.01
    assert run.data.metrics["champion_age_days"] == pytest.approx(1, abs=0.01)
    assert files.keys() == {
        "report.md",
        "drift.csv",
        *(f"figures/{name}.png" for name in ("drift", "distributions", "shares_odd")),
    }


def test_data_that_drifted_are_trained_on_and_the_report_shows_it(toys: Toys) -> None:
    toys.crown()
    toys.world("toy", [2 * value for value in CALM])
    state = toys()
    assert state.is_completed()
    assert "toy: retrained: 2 of 2 features drifted (x: PSI" in state.message
    assert "0 50.5% to 100.0%, 1 49.5% to 0.0% (gone)" in state.message
    assert toys.judged == [["toys"]]
    assert store.read_json(toys.folder / "results" / "one" / "scores.json")["numbers"]["x"][-1] > 97
    run, files = toys.run()
    assert run.data.metrics["psi/x"] > 0.2
    assert (
        files["drift.csv"].read_text().startswith("feature,kind,psi,ks,p,drifted,why\nx,numbers,")
    )
    assert artifact("toy").count("](data:image/png;base64,iVBOR") == 3


def test_a_champion_that_is_old_or_of_other_data_and_a_wish_ask_for_a_training(toys: Toys) -> None:
    toys.crown(days=8)
    told = "retrained: it was forced; the champion, version 1, is 8.0 days old, more than 7. it won"
    assert told in toys(oldest=7, force=True).message
    toys.crown(data="another")
    assert "retrained: the champion, version 2, was trained on another" in toys().message


def test_a_fetch_that_fails_loses_nothing_and_stops_no_other_data_set(toys: Toys) -> None:
    toys.crown()
    before = toys.files()
    toys.world("toy", None)
    state = toys("toy", "other")
    assert state.is_failed()
    assert "toy: failed: fetch@toy: world/toy.json is away" in state.message
    assert "other: retrained: others has no champion yet" in state.message
    assert toys.judged == [["others"]]
    assert toys.files() == before
    assert artifact("toy").startswith("# toy: failed\n\nfetch@toy: world/toy.json is away")
    assert toys.run()[0].info.status == "FAILED"
    assert toys.run("others")[0].info.status == "FINISHED"


def test_new_data_that_cannot_be_prepared_are_put_aside(toys: Toys) -> None:
    before = toys.files()
    toys.world("toy", "nonsense")
    state = toys()
    assert "toy: failed: prepare@toy: " in state.message
    assert toys.files() == before


def test_a_training_that_fails_is_told_and_the_next_run_goes_on(toys: Toys) -> None:
    toys.crown()
    toys.world("toy", [1000] * 13)
    state = toys()
    assert state.is_failed()
    assert "13 examples are too many" in state.message
    assert toys.judged == []
    assert "Trained anew, because 2 of 2 features drifted" in artifact("toy")
    toys.world("toy", [1000] * 14)
    assert "toy: retrained: 2 of 2 features drifted" in toys().message
    toys.crown()
    before = toys.files()
    assert "toy: not retrained: none of 2" in toys().message
    assert toys.files() == before


def test_without_the_registry_nothing_is_touched_and_prefect_tells_why(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = toys.files()
    toys.world("toy", [7])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    state = toys()
    assert state.is_failed()
    assert "toy: failed: MLflow at http://***@127.0.0.1:9: " in state.message
    assert toys.files() == before
    assert artifact("toy").startswith("# toy: failed")
    assert "secret" not in artifact("toy") + state.message


def test_a_name_that_params_do_not_know_is_an_error_before_anything_is_fetched(toys: Toys) -> None:
    toys.world("toy", [7])
    before = toys.files()
    state = toys("toy", "toi")
    assert state.is_failed()
    assert "did you mean 'toy'?" in state.message
    assert toys.files() == before


RETRAIN = """
from flows import retrain, steps
from ostinato import params
steps.study = params.load
retrain.main()
"""


@pytest.mark.parametrize("stage", ["fetch", "prepare"])
def test_what_a_kill_leaves_is_put_right_by_the_next_run_even_if_its_fetch_fails(
    toys: Toys, prefect_server: str, stage: str
) -> None:
    toys.crown()
    before = toys.files()
    toys.world("toy", f"slow {stage}")
    child = subprocess.Popen(
        [sys.executable, "-c", RETRAIN, "toy"],
        cwd=toys.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": prefect_server},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (toys.folder / "slow").exists():
        assert child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert toys.files() != before, "DVC deletes what a stage is about to make"
    toys.world("toy", None)
    assert toys().is_failed()
    assert toys.files() == before
    assert not list(toys.folder.glob(".dvc/tmp/retrain*"))


@pytest.mark.slow
def test_the_whole_way_for_real(
    tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    workspace.edit(lambda values: values["gates"]["sketches"].update(at_least=0.0, margin=0.0))
    workspace.commit()
    monkeypatch.chdir(tmp_path)

    def run() -> Any:
        return retrain(return_state=True)

    first = run()
    assert "sketches: retrained: sketches has no champion yet" in first.message
    assert first.result()["sketches"]["promoted"]
    second = run()
    assert (
        "sketches: not retrained: none of 5 features drifted (at most PSI 0.000" in second.message
    )
    workspace.edit(
        lambda values: values["data"]["sketches"]["fetch"]["doodles"].update(
            categories=["circle", "star", "house"]
        )
    )
    third = run()
    assert third.is_completed(), third.message
    assert "fish 3" in third.message
    assert "(gone)" in third.message
    assert (tmp_path / "report.md").exists()
    assert artifact("sketches").count("data:image/png") == 3
