"""The whole way, from fetch to report.md and MLflow, in a workspace of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sequences import params
from tests.tiny import shrunk_run

ROOT = Path(__file__).parent.parent
TRACKED = ["sequences", "stages", "dvc.yaml", ".dvcignore", ".gitignore", "requirements.txt"]

pytestmark = pytest.mark.slow

Values = dict[str, Any]


class Workspace:
    """A checkout with its own DVC and MLflow stores and a tiny params.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in TRACKED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
        values = params.load(ROOT / "params.yaml")
        sketches = values["data"]["sketches"]
        sketches["fetch"]["doodles"] |= {"categories": ["circle", "fish", "house"], "per_class": 60}
        sketches["prepare"] |= {"validation": 0.2, "test": 0.2}
        runs = {name: shrunk_run(values["runs"][name]) for name in ("sketches-gru",)}
        self.write({**values, "runs": {**runs, "sketches-nearest": nearest(values)}})
        self("git", "init", "-q", "-b", "main")
        self("git", "config", "user.email", "test@example.org")
        self("git", "config", "user.name", "Test")
        self.commit()

    def write(self, values: Values) -> None:
        with (self.folder / "params.yaml").open("w") as file:
            YAML().dump(values, file)

    def edit(self, change: Callable[[Values], Any]) -> None:
        values = params.load(self.folder / "params.yaml")
        change(values)
        self.write(values)

    def commit(self) -> None:
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", "state")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW"))}
        binaries = Path(sys.executable).parent
        environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=500
        )

    def __call__(self, *command: str) -> str:
        done = self.run(*command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def ran(self, output: str) -> list[str]:
        """The stages that DVC says it ran."""
        return [line.split("'")[1] for line in output.splitlines() if "Running stage" in line]

    def tracked(self) -> dict[str, Values]:
        """Run name to params, metrics and tags, of all runs in the workspace's MLflow store."""
        code = """
import json, mlflow
client = mlflow.MlflowClient("sqlite:///mlflow.db")
ids = [e.experiment_id for e in client.search_experiments()]
print(json.dumps([dict(name=r.info.run_name, status=r.info.status, **r.data.to_dictionary())
                  for r in client.search_runs(ids)]))
"""
        return {run["name"]: run for run in json.loads(self(sys.executable, "-c", code))}


def nearest(values: Values) -> Values:
    return dict(values["runs"]["sketches-nearest"])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def test_repro_makes_every_result_and_then_nothing(workspace: Workspace) -> None:
    ran = workspace.ran(workspace("dvc", "repro"))
    assert set(ran) == {
        "fetch@sketches",
        "prepare@sketches",
        "train@sketches-gru",
        "train@sketches-nearest",
        "evaluate@sketches-gru",
        "evaluate@sketches-nearest",
        "report",
    }
    assert workspace.ran(workspace("dvc", "repro")) == []
    report = (workspace.folder / "report.md").read_text()
    assert "sketches-gru" in report
    assert "sketches-nearest" in report
    metrics = json.loads(workspace("dvc", "metrics", "show", "--json"))
    assert len(metrics[""]["data"]) == 2
    plots = json.loads(workspace("dvc", "plots", "show", "--json"))
    assert "results/sketches-gru/history.csv" in plots["data"]
    runs = workspace.tracked()
    assert {"sketches-gru", "sketches-nearest"} <= set(runs)
    assert all(run["status"] == "FINISHED" for run in runs.values())
    assert workspace("git", "status", "--porcelain", "--ignored", "scratch") in (
        "",
        "!! scratch/\n",
    )
    workspace.commit()


def test_the_same_again_is_the_same_to_the_last_byte(workspace: Workspace) -> None:
    lock = YAML(typ="safe").load(workspace.folder / "dvc.lock")
    workspace("dvc", "repro", "--force")
    again = YAML(typ="safe").load(workspace.folder / "dvc.lock")
    timed = ("history.csv", "speed.json", "figures", "report.md", "results")
    for name, stage in lock["stages"].items():
        for one, two in zip(stage["outs"], again["stages"][name]["outs"], strict=True):
            if not one["path"].endswith(timed):
                assert one["md5"] == two["md5"], one["path"]


def test_a_new_model_is_one_file_and_one_entry(workspace: Workspace) -> None:
    source = '''
"""The mean point of a drawing, and a dense layer on it."""

import keras

from sequences.layers import MaskedPooling
from sequences.training import fit
from sequences.units import Units

__all__ = ["build", "fit"]


def build(data, *, units: Units):
    strokes = keras.Input((None, 3))
    hidden = MaskedPooling("mean")(keras.layers.Masking()(strokes))
    hidden = keras.layers.Dense(units, "relu")(hidden)
    classes = keras.layers.Dense(len(data.classes), "softmax", dtype="float32")(hidden)
    return keras.Model(strokes, classes)
'''
    (workspace.folder / "sequences" / "sketches" / "mean_point.py").write_text(source)

    def add(values: Values) -> None:
        run = values["runs"]["sketches-gru"]
        values["runs"]["sketches-mean"] = {**run, "model": "mean_point", "build": {"units": 4}}

    workspace.edit(add)
    ran = workspace.ran(workspace("dvc", "repro"))
    assert ran == ["train@sketches-mean", "evaluate@sketches-mean", "report"]
    assert "sketches-mean" in (workspace.folder / "report.md").read_text()
    workspace("dvc", "params", "diff")
    workspace.commit()


def test_a_misspelt_key_stops_the_run_and_says_where(workspace: Workspace) -> None:
    def misspell(values: Values) -> None:
        values["runs"]["sketches-gru"]["build"]["unitz"] = 3

    before = (workspace.folder / "params.yaml").read_text()
    workspace.edit(misspell)
    done = workspace.run("dvc", "repro")
    assert done.returncode != 0
    assert "sequences.sketches.stacked.build" in done.stderr
    assert "unitz: unknown; did you mean 'units'" in done.stderr
    assert "Traceback" not in done.stderr
    (workspace.folder / "params.yaml").write_text(before)
    workspace("dvc", "repro")
