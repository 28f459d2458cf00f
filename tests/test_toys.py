"""The contract carries tasks that no domain of the project has yet: five toys, from end to end."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

import ostinato
from ostinato import models, params, store
from ostinato.study import Study
from ostinato.task import Manifest, Profile, Record, TrainingContext
from ostinato.training.machine import Machine
from ostinato.training.runtime import runtime
from stages import check, evaluate, fetch, prepare, report, train
from tests.toys import autoencoder, endless, gan, ngram

TOYS: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "autoencoder": (autoencoder, autoencoder.PARAMS),
    "adversarial": (gan, gan.PARAMS),
    "generator": (ngram, ngram.RNN),
    "counts": (ngram, ngram.COUNTS),
    "endless": (endless, endless.PARAMS),
}
RUNTIME = {"precision": "float32"}
STUDY = "params.yaml"


def install(library: Path, domain: str, toy: ModuleType) -> None:
    """Write a domain's folder whose modules re-export the functions of a toy's file."""
    for part, names in {"layers": {}, "figures": {}, **toy.PARTS}.items():
        folder = part in ("sources", "dataset")
        file = library / domain / (f"{part}/__init__.py" if folder else f"{part}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"from {toy.__name__} import {old} as {new}" for new, old in names.items()]
        file.write_text("\n".join([*lines, f"__all__ = {list(names)}", ""]))
        for package in (file.parent, library / domain):
            (package / "__init__.py").touch()


def write_study(folder: Path) -> None:
    data, runs, evaluation = {}, {}, {}
    for name, (_, block) in TOYS.items():
        data[name] = {"domain": name, "fetch": block["fetch"], "prepare": block["prepare"]}
        evaluation[name] = block["evaluation"]
        runs[f"{name}-run"] = {"data": name, "domain": name, "model": block["model"]} | {
            part: block[part] for part in ("build", "fit")
        }
    values = {
        "root": ".", "at": "", "seed": 1, "runtime": RUNTIME, "data": data,
        "evaluation": evaluation, "runs": runs, "ensembles": {},
    }  # fmt: skip
    with (folder / STUDY).open("w") as file:
        YAML().dump(values, file)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study of the five toys, fetched and prepared; its domains are beside those of ostinato."""
    folder = tmp_path_factory.mktemp("toys")
    with pytest.MonkeyPatch.context() as patch:
        for name, (toy, _) in TOYS.items():
            install(folder / "library", name, toy)
        write_study(folder)
        patch.setattr(ostinato, "__path__", [*ostinato.__path__, str(folder / "library")])
        patch.chdir(folder)
        check.main(STUDY)
        for name in TOYS:
            fetch.main(STUDY, name)
            prepare.main(STUDY, name)
        yield Study.load(STUDY)
        for module in [m for m in sys.modules if m.split(".")[0:2][-1] in TOYS]:
            del sys.modules[module]


def train_toy(
    toy: str, name: str, on_epoch: Callable[[Record], None] = lambda record: None
) -> Path:
    """Train a toy in the study of the working directory; returns the folder of the model."""
    entry = Study.load(STUDY).entry("runs", f"{toy}-run")
    model = models.load(toy, entry["model"])
    data = params.module(toy, "dataset").load(Path("data", toy))
    folder = Path("scratch", "saved", f"{toy}-{name}")
    with params.bind(runtime, RUNTIME)(1, Machine()):
        built = params.bind(model.build, entry["build"])(data)
        context = TrainingContext(Path("scratch", "killed", f"{toy}-{name}"), 1, on_epoch)
        params.bind(model.fit, entry["fit"])(built, data, context)
        model.save(built, folder)
    return folder


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_goes_through_all_stages(
    toy: str, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{toy}-run"
    monkeypatch.setattr(train, "this_machine", Machine)  # this process has started TensorFlow
    train.main(STUDY, f"train@{name}")
    evaluate.main(STUDY, f"evaluate@{name}")
    data, results = study.data_folder(toy), study.result_folder(name)
    assert Manifest.read(data / "manifest.json").size("test") > 0
    assert Profile.read(data / "profile.json").examples > 0
    metric = params.module(toy, "reporting").REPORT.metrics[0]
    numbers = store.read_json(results / "metrics.json")
    assert numbers[f"{metric.name}_low"] <= numbers[metric.name] <= numbers[f"{metric.name}_high"]
    report.write(study)
    assert f"**{name}**" in Path("report.md").read_text()


@pytest.mark.parametrize(
    "toy",
    [
        "autoencoder",
        "adversarial",
        pytest.param("generator", marks=pytest.mark.slow),
        pytest.param("endless", marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_resumes_to_the_same_model(toy: str, study: Study) -> None:
    """It is killed in a process of its own, and resumes in this one."""
    script = f"""
import os, sys
from pathlib import Path
from ostinato.training.imports import import_keras_quietly
import_keras_quietly()
import ostinato
ostinato.__path__.append(str(Path("library").resolve()))
from tests.test_toys import train_toy
def on_epoch(record):
    if record["epoch"] == 2:
        os.kill(os.getpid(), 9)
train_toy({toy!r}, "killed", on_epoch)
"""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == -9
    resumed, whole = train_toy(toy, "killed"), train_toy(toy, "whole")
    files = [file.relative_to(whole) for file in whole.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()
