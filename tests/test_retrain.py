"""The scheduled flow: it retrains where there is a reason, and loses no data where a step fails.

Toy data sets are fetched, prepared and compared by DVC and MLflow's registry; only `promote` is
replaced. The slow test replaces nothing.
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

from flows import reproduce
from flows import retrain as module
from flows.engine import dvc_graph
from flows.retrain import retrain
from ostinato import store
from ostinato.promotion import Verdict
from ostinato.study import Study
from ostinato.task import Profile
from ostinato.tracking import relocation
from ostinato.tracking.client import connected, experiment
from tests import servers
from tests.workspace import Workspace

ROOT = Path(__file__).parents[1]
CALM = [i % 97 for i in range(400)]
PARAMS = """\
root: .
at: ""
data:
  toy: {domain: toys}
  other: {domain: toys}
  unguarded: {domain: toys}
gates: {toy: {}, other: {}}
runs:
  one: {data: toy, domain: toys}
  two: {data: toy, domain: toys}
  of-other: {data: other, domain: toys}
ensembles: {}
drift: {psi_threshold: 0.2, ks_threshold: 0.15, significance: 0.01, bins: 10}
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
        sys.exit(f"{file} is missing")
    values = json.loads(file.read_text())
    if values == f"slow {stage}":
        Path("slow").touch()
        time.sleep(60)
    if stage == "prepare":
        values = {"version": 1, "numbers": {"x": sorted(values)}, "examples": len(values),
                  "counts": {"odd": Counter(str(value % 2) for value in values)}}
    elif stage == "evaluate" and values["examples"] == 13:
        sys.exit("13 examples are too many")
    Path(folder).mkdir(parents=True)
    name = {"fetch": "raw.json", "prepare": "profile.json"}.get(stage, "scores.json")
    Path(folder, name).write_text(json.dumps(values))

main(*sys.argv[1:])
"""


class Toys:
    """A checkout of toy data sets, and the calls of promote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judged: list[list[str]] = []  # data sets that promote was called with

    def promote(self, data: list[str], study: str) -> dict[str, Verdict]:
        assert study == "params.yaml"
        self.judged.append(data)
        return {name: Verdict(name, promoted=True, reason="it is better") for name in data}

    def world(self, name: str, values: Any) -> None:
        file = self.folder / "world" / f"{name}.json"
        file.unlink(missing_ok=True) if values is None else file.write_text(json.dumps(values))

    def promote_version(self, days: float = 1, profile: Profile | None = None) -> None:
        """Make a version that was trained on the present data champion."""
        present = self.folder / "data" / "toy" / "profile.json"
        source = self.folder / "models" / str(time.time_ns())
        content = profile.to_json() if profile else store.read_json(present)
        store.write_json(source / "artifacts" / "profile.json", content)
        trained = datetime.now(UTC) - timedelta(days=days)
        tags = {"run": "one", "trained": trained.isoformat(), "data": "0"}
        with connected() as client:
            if not client.search_registered_models("name = 'toy'"):
                client.create_registered_model("toy")
            version = client.create_model_version("toy", source.as_uri(), tags=tags)
            client.set_registered_model_alias("toy", "champion", version.version)

    def __call__(self, *data: str, **changed: Any) -> Any:
        """The final state of a run of the flow."""
        self.judged.clear()
        return retrain(list(data) or ["toy"], return_state=True, **changed)

    def files(self) -> dict[str, str]:
        """The files of the data sets in the checkout."""
        paths = [*self.folder.glob("data/**/*.json"), self.folder / "dvc.lock"]
        return {str(p.relative_to(self.folder)): p.read_text() for p in paths if p.exists()}

    def run(self, data: str = "toy") -> Any:
        """The flow's latest run in MLflow, and its files."""
        with connected() as client:
            ids = [experiment(client, f"default/{data}")]
            run, *_ = client.search_runs(ids, "tags.stage = 'retrain'")
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        return run, {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def artifact(name: str) -> str:
    """The latest report in Prefect on a data set."""
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[f"retrain-{name}"]))
    with get_client(sync_client=True) as client:
        return str(
            client.read_artifacts(artifact_filter=key, sort=ArtifactSort.UPDATED_DESC)[0].data
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A checkout with results of the toys, and an MLflow store."""
    folder = tmp_path_factory.mktemp("toys")
    for name, text in {"params.yaml": PARAMS, "dvc.yaml": STAGES, "stage.py": STAGE}.items():
        (folder / name).write_text(text)
    shutil.copy(ROOT / ".dvcignore", folder)
    (folder / "world").mkdir()
    for name in ("toy", "other", "unguarded"):
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
        with connected() as client:
            experiment(client, "default/toy")
    return folder


@pytest.fixture
def toys(made: Path, tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Toys:
    folder = tmp_path / "toys"
    shutil.copytree(made, folder)
    relocation.relocate(folder)
    toys = Toys(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "promote", toys.promote)
    monkeypatch.setattr(dvc_graph, "check_study", Study.load)  # the toy domain has no signatures
    monkeypatch.setattr(reproduce, "complete_tracking", lambda study: "")
    return toys


def test_without_a_champion_all_runs_are_trained_and_judged(toys: Toys) -> None:
    toys.world("toy", CALM[:-1])
    state = toys()
    assert state.is_completed()
    assert state.message == "toy: retrained: toy has no champion yet. it is better"
    assert state.result()["toy"]["promoted"]
    assert toys.judged == [["toy"]]
    assert store.read_json(toys.folder / "results" / "two" / "scores.json")["examples"] == 399
    assert "| evaluate@one | ran |" in artifact("toy")
    run, files = toys.run()
    assert run.info.status == "FINISHED"
    assert run.data.tags["retrained"] == run.data.tags["promoted"] == "true"
    assert files["report.md"].read_text().startswith("# toy: retrained")


def test_without_drift_nothing_is_trained_and_the_former_data_are_restored(toys: Toys) -> None:
    toys.promote_version()
    before = toys.files()
    toys.world("toy", [*CALM, 5])
    state = toys()
    assert state.is_completed()
    start = "toy: not retrained: none of 2 features drifted (at most PSI 0.000 of x, KS 0.00"
    assert state.message.startswith(start)
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
        *(f"figures/{name}.png" for name in ("drift", "distributions", "category_shift_odd")),
    }


def test_drift_is_a_reason_to_retrain_and_the_report_shows_it(toys: Toys) -> None:
    toys.promote_version()
    toys.world("toy", [2 * value for value in CALM])
    state = toys()
    assert state.is_completed()
    assert "toy: retrained: 2 of 2 features drifted (x: PSI" in state.message
    assert "0 50.5% to 100.0%, 1 49.5% to 0.0% (gone)" in state.message
    assert toys.judged == [["toy"]]
    assert store.read_json(toys.folder / "results" / "one" / "scores.json")["numbers"]["x"][-1] > 97
    run, files = toys.run()
    assert run.data.metrics["psi/x"] > 0.2
    assert (
        files["drift.csv"].read_text().startswith("feature,kind,psi,ks,p,drifted,why\nx,numbers,")
    )
    assert artifact("toy").count("](data:image/png;base64,iVBOR") == 3


def test_an_old_champion_and_force_are_reasons_to_retrain(toys: Toys) -> None:
    toys.promote_version(days=8)
    message = (
        "retrained: retraining was forced; the champion, version 1, is 8.0 days old, more than 7"
    )
    assert message in toys(max_age_days=7, force=True).message


def test_a_failed_fetch_loses_no_data_and_does_not_stop_other_data_sets(toys: Toys) -> None:
    toys.promote_version()
    before = toys.files()
    toys.world("toy", None)
    state = toys("toy", "other")
    assert state.is_failed()
    assert "toy: failed: fetch@toy: world/toy.json is missing" in state.message
    assert "other: retrained: other has no champion yet" in state.message
    assert toys.judged == [["other"]]
    assert toys.files() == before
    assert artifact("toy").startswith("# toy: failed\n\nfetch@toy: world/toy.json is missing")
    assert toys.run()[0].info.status == "FAILED"
    assert toys.run("other")[0].info.status == "FINISHED"


def test_a_deleted_experiment_does_not_stop_other_data_sets(toys: Toys) -> None:
    toys.promote_version()
    with connected() as client:
        client.delete_experiment(experiment(client, "default/toy"))
    state = toys("toy", "other")
    assert state.is_completed(), state.message
    assert "other: retrained: other has no champion yet" in state.message
    assert artifact("toy").startswith("# toy: not retrained")


def test_data_that_cannot_be_prepared_are_replaced_by_the_former_data(toys: Toys) -> None:
    before = toys.files()
    toys.world("toy", "nonsense")
    state = toys()
    assert "toy: failed: prepare@toy: " in state.message
    assert toys.files() == before


def test_a_failed_training_is_reported_and_the_next_run_resumes(toys: Toys) -> None:
    toys.promote_version()
    toys.world("toy", [1000] * 13)
    state = toys()
    assert state.is_failed()
    assert "13 examples are too many" in state.message
    assert toys.judged == []
    assert "Reason to retrain: 2 of 2 features drifted" in artifact("toy")
    toys.world("toy", [1000] * 14)
    assert "toy: retrained: 2 of 2 features drifted" in toys().message
    toys.promote_version()
    before = toys.files()
    assert "toy: not retrained: none of 2" in toys().message
    assert toys.files() == before


def test_without_the_registry_nothing_changes_and_prefect_has_the_reason(
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


def test_an_unknown_data_set_is_an_error_before_anything_is_fetched(toys: Toys) -> None:
    toys.world("toy", [7])
    before = toys.files()
    state = toys("toy", "toi")
    assert state.is_failed()
    assert "did you mean 'toy'?" in state.message
    assert toys.files() == before


def test_only_data_sets_with_a_gate_have_a_champion_to_retrain(toys: Toys) -> None:
    state = toys("unguarded")
    assert state.is_failed()
    assert "params.yaml: data set unguarded has no gate" in state.message
    assert [r.data for r in module.new_reports(Study.load(), [])] == ["toy", "other"]


def test_a_bug_ends_the_flow_with_its_traceback(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(report: Any) -> Any:
        raise KeyError("psi")

    toys.promote_version()
    monkeypatch.setattr(module, "find_drift", bug)
    state = toys()
    assert state.is_failed()
    with pytest.raises(KeyError, match="psi"):
        state.result()


RETRAIN = """
from flows import retrain
from flows.engine import dvc_graph
from ostinato.study import Study
dvc_graph.check_study = Study.load
retrain.main()
"""


@pytest.mark.parametrize("stage", ["fetch", "prepare"])
def test_the_run_after_a_kill_restores_the_data_even_if_its_fetch_fails(
    toys: Toys, prefect_server: str, stage: str
) -> None:
    toys.promote_version()
    before = toys.files()
    toys.world("toy", f"slow {stage}")
    child = servers.start(
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
    assert toys.files() != before, "DVC deletes the outputs of a stage before it runs"
    toys.world("toy", None)
    assert toys().is_failed()
    assert toys.files() == before
    assert not list(toys.folder.glob(".dvc/tmp/retrain*"))


@pytest.mark.slow
def test_the_flow_with_real_stages(
    tmp_path: Path, dvc_cache: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path, dvc_cache)
    workspace.edit(lambda values: values["gates"]["sketches"].update(at_least=0.0, margin=0.0))
    workspace.edit(lambda values: values["runs"].pop("sketches-gru"))
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
