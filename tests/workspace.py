"""A checkout of its own with a tiny params.yaml, for the tests that run the whole way."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ostinato import params
from tests.tiny import shrunk_run

ROOT = Path(__file__).parent.parent
TRACKED = [
    "flows",
    "ostinato",
    "stages",
    "dvc.yaml",
    "prefect.yaml",
    ".dvcignore",
    ".gitignore",
    "requirements.txt",
]

Values = dict[str, Any]


class Workspace:
    """A checkout with its own DVC and MLflow stores and a tiny params.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in TRACKED:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, folder / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / ".dvc").mkdir()
        shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
        values = params.load(ROOT / "params.yaml")
        sketches = values["data"]["sketches"]
        values["data"] = {"sketches": sketches}
        sketches["fetch"]["doodles"] |= {"categories": ["circle", "fish", "house"], "per_class": 60}
        sketches["prepare"] |= {"validation": 0.2, "test": 0.2}
        runs = {name: shrunk_run(values["runs"][name]) for name in ("sketches-gru",)}
        values["data"] = {"sketches": sketches}  # what the runs below need
        runs["sketches-nearest"] = nearest(values)
        values["gates"] = {"sketches": values["gates"]["sketches"]}
        self.write({**values, "runs": runs, "ensembles": {}})
        (folder / "ensembles").mkdir()  # report reads it
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
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW", "OSTINATO"))
        }
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

    def runs(self) -> list[Values]:
        """Name, status, params, metrics and tags of all runs in the workspace's MLflow store."""
        code = """
import json, mlflow
client = mlflow.MlflowClient("sqlite:///mlflow.db")
ids = [e.experiment_id for e in client.search_experiments()]
print(json.dumps([dict(name=r.info.run_name, status=r.info.status, **r.data.to_dictionary())
                  for r in client.search_runs(ids)]))
"""
        return list(json.loads(self(sys.executable, "-c", code)))


def nearest(values: Values) -> Values:
    return dict(values["runs"]["sketches-nearest"])
