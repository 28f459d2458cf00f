"""A tiny domain whose data drift, and a checkout of it: numbers around a centre that moves.

Its models are a mean and a median. Its stages are a script without heavy imports, so that a night
of `retrain` takes seconds.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from ostinato.task import Metric, PerExample, Reporting, Serving

ROOT = Path(__file__).parents[1]
DATA = "toy"
PARAMS = """\
root: .
at: ""
seed: 1
runtime: {precision: float32, devices: 1, intra_op: null, inter_op: null}
data:
  toy:
    domain: drifting
    fetch: {source: world, world: {}}
    prepare: {}
evaluation: {}
drift: {psi_threshold: 0.2, ks_threshold: 0.15, significance: 0.01, bins: 10}
gates:
  toy:
    metric: error
    at_most: 5.0
    margin: 0.0
    confidence: 0.95
    resamples: 200
    max_examples: 100
    approval: false
runs:
  toy-mean: {data: toy, domain: drifting, model: mean, build: {}, fit: {}}
  toy-median: {data: toy, domain: drifting, model: median, build: {}, fit: {}}
ensembles: {}
"""
STAGES = """\
stages:
  fetch:
    foreach: ${data}
    do:
      cmd: python stage.py fetch ${key}
      params: [seed, "data.${key}.domain", "data.${key}.fetch"]
      outs: ["data/raw/${key}"]
  prepare:
    foreach: ${data}
    do:
      cmd: python stage.py prepare ${key}
      params: ["data.${key}.domain", "data.${key}.prepare"]
      deps: ["data/raw/${key}"]
      outs: ["data/${key}"]
  train:
    foreach: ${runs}
    do:
      cmd: python stage.py train ${key} ${item.data} ${item.model}
      params: [seed, "runs.${key}"]
      deps: ["data/${item.data}", stage.py]
      outs: ["results/${key}/model"]
      plots: ["results/${key}/history.csv"]
  evaluate:
    foreach: ${runs}
    do:
      cmd: python stage.py evaluate ${key} ${item.data}
      params: [seed]
      deps: ["data/${item.data}", "results/${key}/model"]
      outs:
        - results/${key}/predictions.npz
        - results/${key}/serving.npz
        - results/${key}/speed.json
        - results/${key}/tables
        - results/${key}/figures
      metrics: ["results/${key}/metrics.json": {cache: false}]
  report:
    cmd: python stage.py report
    deps: [results]
    outs: [report.md: {cache: false}]
"""
STAGE = """\
import json, os, sys, time
from pathlib import Path

def write(folder, **files):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        Path(folder, name.replace("__", ".")).write_text(json.dumps(content))

def fetch(name):
    import random
    world = json.loads(Path("world.json").read_text())
    draw = random.Random(world["seed"])
    values = [round(draw.gauss(world["centre"], 1.0), 3) for _ in range(400)]
    write(f"data/raw/{name}", raw__json=values, manifest__json={"source": "world"})

def prepare(name):
    values = json.loads(Path("data/raw", name, "raw.json").read_text())
    splits = {"train": values[:200], "validation": values[200:300], "test": values[300:]}
    manifest = {"version": 1, "source": "world", "examples": "values", "classes": [],
                "splits": {split: {"values": len(part)} for split, part in splits.items()},
                "details": {}}
    profile = {"version": 1, "examples": 200, "numbers": {"value": sorted(splits["train"])},
               "counts": {}}
    write(f"data/{name}", splits__json=splits, manifest__json=manifest, profile__json=profile)

def train(run, data, model):
    import statistics
    values = json.loads(Path("data", data, "splits.json").read_text())["train"]
    learned = getattr(statistics, model)(values)
    write(f"results/{run}/model", model__json={"value": learned})
    noise = (repr(learned) * 20_000)[:100_000]  # so that a model has a size
    Path("results", run, "model", "weights.txt").write_text(noise)
    Path("results", run, "history.csv").write_text("epoch,loss,seconds\\n1,0.5,0.1\\n")
    time.sleep(0.2)

def evaluate(run, data):
    import numpy as np
    learned = json.loads(Path("results", run, "model", "model.json").read_text())["value"]
    splits = json.loads(Path("data", data, "splits.json").read_text())
    truth = np.array(splits["test"])
    keys = np.array([f"test-{i}" for i in range(len(truth))])
    error = float(np.abs(truth - learned).mean())
    folder = Path("results", run)
    np.savez(folder / "predictions.npz", keys=keys, truth=truth, y=np.full(len(truth), learned))
    np.savez(folder / "serving.npz", levels=np.array([0.8]))
    validation = float(np.abs(np.array(splits["validation"]) - learned).mean())
    write(folder, speed__json={"inference_ms_single": 1.0}, metrics__json={
        "samples": len(truth), "error": error, "error_low": error, "error_high": error,
        "parameters": 1, "validation_error": validation})
    for part in ("tables", "figures"):
        write(folder / part, some__json=[learned])

def report():
    Path("report.md").write_text("all\\n")

globals()[sys.argv[1]](*sys.argv[2:])
"""

MODULES = {  # of the domain -> the names that it re-exports from this file
    "metrics": "METRICS",
    "evaluation": "per_example",
    "reporting": "REPORT",
    "serving": "SERVING, Input, Response, from_responses, load, to_requests",
}
METRICS = {"error": Metric("error", "Mean absolute error", higher_is_better=False)}
REPORT = Reporting((METRICS["error"],), "numbers", (), "model", {}, "A toy.")
SERVING = Serving(limits="- A toy.")


class Input(pydantic.BaseModel):
    """A request."""

    x: list[float] = []


class Response(pydantic.BaseModel):
    """A response: the learned value."""

    y: float


class Service:
    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, inputs: Sequence[Input], options: Mapping[str, Any]) -> list[Response]:
        return [Response(y=self.value) for _ in inputs]


def load(artifacts: Path) -> Service:
    import json

    return Service(json.loads((artifacts / "model" / "model.json").read_text())["value"])


def per_example(arrays: Mapping[str, Any]) -> PerExample:
    error = np.abs(arrays["y"] - arrays["truth"])
    statistics = {"error": np.stack([error, np.ones_like(error)], axis=1)}
    return PerExample(arrays["keys"], np.arange(len(error)), statistics)


def to_requests(raw: Path, prepared: Path, keys: Sequence[str]) -> dict[str, Any]:
    return {key: {"x": []} for key in keys}


def from_responses(responses: Any, truth: Any, classes: Any) -> dict[str, Any]:
    return {"y": np.array([response["y"] for response in responses])}


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def write_checkout(folder: Path) -> None:
    """A checkout of the study with the library, its domain in it, and a first commit."""
    library = folder / "ostinato"
    ignored = shutil.ignore_patterns(
        "__pycache__", "sketches", "forecasting", "translation", "video"
    )
    shutil.copytree(ROOT / "ostinato", library, ignore=ignored)
    domain = library / "drifting"
    (domain / "models").mkdir(parents=True)
    for package in (domain, domain / "models"):
        (package / "__init__.py").touch()
    for name, names in MODULES.items():
        text = f'"""Numbers around a centre."""\n\nfrom tests.drifting import {names}\n'
        (domain / f"{name}.py").write_text(text)
    for name in ("mean", "median"):
        (domain / "models" / f"{name}.py").write_text(f'"""The {name} of the training split."""\n')
    for name, text in {"params.yaml": PARAMS, "dvc.yaml": STAGES, "stage.py": STAGE}.items():
        (folder / name).write_text(text)
    for name in (".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    with (folder / ".gitignore").open("a") as file:
        file.write("world.json\nlog/\n")
    git(folder, "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc")
    shutil.copy(ROOT / ".dvc" / ".gitignore", folder / ".dvc")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "study")
