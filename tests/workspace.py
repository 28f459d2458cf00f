"""A checkout with a tiny study, for tests that run whole pipelines."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from ostinato import params

ROOT = Path(__file__).parent.parent
TRACKED = [
    "flows",
    "ostinato",
    "stages",
    "dvc.yaml",
    "prefect.yaml",
    "pyproject.toml",
    ".dvcignore",
    ".gitignore",
]
# Three categories of drawings, a baseline and a network of one epoch.
PARAMS = """\
root: .
at: ""
seed: 20170428
runtime: {precision: float32}
data:
  sketches:
    domain: sketches
    fetch:
      source: doodles
      doodles: {categories: [circle, fish, house], per_class: 60}
    prepare:
      tolerated_rejects: 0.01
      validation: 0.2
      test: 0.2
      max_points: 400
      only_recognised: false
      shard_size: 1000
      workers: 1
evaluation:
  sketches:
    resamples: 200
    bins: 5
    prefix_fractions: [0.5, 1.0]
    max_examples: 20
    num_plots: 2
    batch_size: 64
    timed_requests: 3
drift: {psi_threshold: 0.2, ks_threshold: 0.15, significance: 0.01, bins: 10}
flows:
  stages:
    train@*: {retries: 1, delay: 1.0, timeout: 600.0, gpu: true}
    "*": {retries: 0, delay: 0.0, timeout: 600.0, gpu: false}
gates:
  sketches:
    metric: top1
    at_least: 0.9
    margin: 0.002
    confidence: 0.95
    resamples: 500
    max_examples: 1000
    approval: false
runs:
  sketches-gru:
    data: sketches
    domain: sketches
    model: rnn
    build:
      cell: gru
      units: 4
      num_layers: 2
      bidirectional: false
      pooling: last
      dropout: 0.2
      weight_decay: 0.0
    fit:
      epochs: 1
      batch_size: 8
      loss: sparse_categorical_crossentropy
      metrics: [accuracy]
      optimizer: adam
      learning_rate: 0.004
      schedule: cosine
      warmup_fraction: 0.05
      clip_norm: 1.0
      monitor: validation_loss
      patience: 4
  sketches-nearest:
    data: sketches
    domain: sketches
    model: nearest
    build: {references: 3000, neighbours: 5, blur: 1.0, prior_votes: 0.5}
    fit: {batch_size: 256}
ensembles: {}
"""

Values = dict[str, Any]


def default_values() -> Values:
    """The content of the tiny params.yaml."""
    values: Values = YAML(typ="safe").load(PARAMS)
    return values


def dvc_md5(path: Path) -> str:
    """The md5 that DVC records of a file or folder."""
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    entries = [
        {"md5": dvc_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    content = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"


# Of compiled code: what other processes are writing, and what only pytest's processes read.
NOT_COPIED = ("*.pyc.*", "*.tmp.*", "*.opt-jaxtyping*")


def copy_code(name: str, folder: Path, *ignored: str) -> None:
    """Copy a file or folder of the checkout.

    What Python and numba have compiled is copied too: to compile the parser of drawings again would
    take 13 s.
    """
    if (ROOT / name).is_dir():
        ignore = shutil.ignore_patterns(*NOT_COPIED, *ignored)
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    else:
        shutil.copy(ROOT / name, folder / name)


class Workspace:
    """A checkout with a tiny study and its own DVC and MLflow stores.

    Args:
        folder: of the checkout.
        cache: of DVC, shared with other checkouts: a stage that one of them ran is not run again.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in TRACKED:
            copy_code(name, folder)
        (folder / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
        if cache:
            (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n")
        (folder / "params.yaml").write_text(PARAMS)
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
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("DVC", "MLFLOW", "OSTINATO", "PYTHONDONTWRITE"))
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
        """The stages that DVC ran, by its output."""
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


@contextlib.contextmanager
def served(workspace: Workspace, *arguments: str) -> Iterator[httpx.Client]:
    """Run the command in a workspace until the block ends; it must end with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW"))}
    log = workspace.folder / "scratch" / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ostinato", "serve", *arguments, "--port", str(port)],
            cwd=workspace.folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            end = time.monotonic() + 200
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if http.get("/health/ready").status_code == 200:
                        break
                time.sleep(0.2)
            else:
                pytest.fail(log.read_text())
            yield http
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
