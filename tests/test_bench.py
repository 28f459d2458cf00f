"""Smoke tests: every benchmark runs at toy size. What it measures there means nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from bench import __main__ as runner
from tests.workspace import Workspace

ROOT = Path(__file__).parent.parent
PEERS = {  # scripts for an interpreter that has another library
    "decoding_peer",
    "forecast_peer",
    "generation_peer",
    "reservoir_peer",
    "torch_peer",
    "translation_peer",
    "video_peer",
}
TOY = {  # arguments of benchmarks that need nothing but the project
    "decoding": ["--sentences", "4", "--batch", "4", "--rounds", "1", "--threads", "1"],
    "generation": ["--toy", "--steps", "2", "--rounds", "1", "--units", "4,8", "--drawings", "4"],
    "pairs_memory": ["--pairs", "2000", "--steps", "20"],
    "reading": ["--records", "500", "--rounds", "1"],
    "placement": [
        "--toy",
        "--steps",
        "1",
        "--rounds",
        "1",
        "--models",
        "lstm",
        "--micro-batches",
        "1",
    ],
    "ranks": ["--toy", "--steps", "2", "--rounds", "1"],
    "reservoir": ["--units", "5,20", "--steps", "400", "--rounds", "1"],
    "static_graph": ["--lengths", "3,5", "--steps", "2"],
    "series_memory": ["--series", "20", "--steps", "100", "--batches", "2"],
    "training": ["--toy", "--per-class", "8", "--batch-size", "64", "--rounds", "1"],
    "video": ["inference", "--rounds", "1"],
    "video_memory": ["--videos", "100"],
}
WITH_PEERS = {  # that measure only beside an interpreter with another library
    "forecast_ours",
    "forecast_peers",
    "forecast_speed",
    "translation",
    "video_decoding",
}
WITHOUT_DECLARATION = PEERS | {"forecast_ours"}  # they run for another benchmark
OWN_TEST = {"flows", "ingest", "memory", "postgres", "predict", "search", "serving", "transfer"}


def bench(name: str, *arguments: str | Path, folder: Path, timeout: float = 600) -> str:
    """The output of ``python -m bench.NAME`` in a folder that is not the checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ndjson files of random drawings, whole numbers in 0 to 255, so raw and simplified."""
    folder = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(1)
    for name in ("circle", "fish"):
        lines = []
        for number in range(60):
            strokes = [rng.integers(0, 256, (2, size)).tolist() for size in rng.integers(2, 9, 3)]
            lines.append(
                {"word": name, "key_id": f"{name}{number:09}", "recognized": True}
                | {"drawing": strokes}
            )
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_benchmark_has_a_test() -> None:
    modules = {path.stem for path in (ROOT / "bench").glob("[!_]*.py")}
    assert modules == PEERS | TOY.keys() | WITH_PEERS | OWN_TEST


def test_every_benchmark_has_a_declaration() -> None:
    modules = {path.stem for path in (ROOT / "bench").glob("[!_]*.py")}
    declared = runner.benchmarks()
    assert declared.keys() == modules - WITHOUT_DECLARATION
    lines = "\n".join(runner.rows(declared))
    for name, benchmark in declared.items():
        assert f"{name} (about {benchmark.minutes} min): {benchmark.measures}" in lines
        source = (ROOT / "bench" / f"{name}.py").read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in benchmark.peers)
    used = {name for benchmark in declared.values() for name in benchmark.peers.values()}
    assert used == runner.ENVIRONMENTS.keys()


@pytest.mark.parametrize("name", runner.ENVIRONMENTS)
def test_the_environment_of_a_peer_has_exact_versions(name: str) -> None:
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in runner.ENVIRONMENTS[name])


def test_a_peer_is_installed_once_and_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[list[str]] = []

    def run(words: Sequence[str | Path], check: bool) -> None:
        installed.append([str(word) for word in words])
        if len(installed) == 2:  # the first installation fails
            raise subprocess.CalledProcessError(1, installed[-1])
        if "venv" in installed[-1]:
            Path(words[-1]).mkdir()

    monkeypatch.setenv(runner.CACHE, str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run)
    benchmark = runner.benchmarks()["video_decoding"]
    with pytest.raises(subprocess.CalledProcessError):
        runner.command("video_decoding", benchmark, [])
    first = runner.command("video_decoding", benchmark, ["--rounds", "1"])
    assert len(installed) == 4
    assert installed[-1][-2:] == list(runner.ENVIRONMENTS["opencv"])
    assert runner.command("video_decoding", benchmark, ["--rounds", "1"]) == first
    assert len(installed) == 4
    assert first[1:6] == ["-m", "bench.video_decoding", "--rounds", "1", "--cv-python"]
    own = runner.command("video_decoding", benchmark, ["--cv-python", "mine"])
    assert own[1:] == ["-m", "bench.video_decoding", "--cv-python", "mine"]


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_script_of_a_peer_imports_nothing_of_the_project(name: str) -> None:
    source = (ROOT / "bench" / f"{name}.py").read_text(encoding="utf-8")
    compile(source, name, "exec")
    assert not [line for line in source.splitlines() if line.startswith(("from ost", "import ost"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITH_PEERS))
def test_a_benchmark_beside_peers_shows_its_options(name: str, tmp_path: Path) -> None:
    assert f"{name}.py" in bench(name, "--help", folder=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("name", "arguments"), TOY.items())
def test_a_benchmark_runs(name: str, arguments: Sequence[str], tmp_path: Path) -> None:
    assert bench(name, *arguments, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["simplified", "raw"])
def test_ingest_compares_ways_that_write_the_same_bytes(
    form: str, drawings: Path, tmp_path: Path
) -> None:
    options = ["--form", form, "--drawings", "300", "--rounds", "1"]
    output = bench("ingest", drawings, *options, folder=tmp_path)
    for side in ("tutorial", "libraries", "orjson parses", "TensorFlow writes", "prepare"):
        assert f"\n{side}" in output


@pytest.mark.long
def test_memory_prepares_and_reads(drawings: Path, tmp_path: Path) -> None:
    output = bench("memory", drawings, "--drawings", "400", folder=tmp_path)
    assert output.count("drawings/s") == 3


TRANSFER = """
from pathlib import Path
from ostinato import models, params
from ostinato.sketches import dataset, sources
from ostinato.task import TrainingContext
from ostinato.study import Study

study = Study.load()
raw, data = study.raw_folder("toys"), study.data_folder("toys")
for folder in (raw, data, Path("scratch")):
    folder.mkdir(parents=True)
block = study.entry("data", "toys")
sources.doodles(raw, Path("scratch"), 1, **block["fetch"]["doodles"])
dataset.prepare(raw, data, **block["prepare"])
run = study.entry("runs", "toys-nearest")
functions = models.load(run["domain"], run["model"])
loaded = dataset.load(data)
model = functions.build(loaded, **run["build"])
functions.fit(model, loaded, TrainingContext(Path("scratch"), 1), **run["fit"])
functions.save(model, study.result_folder("toys-nearest") / "model")
"""


@pytest.mark.slow
def test_transfer_shows_the_drawing_runs_of_a_study(drawings: Path, tmp_path: Path) -> None:
    nearest = {
        "data": "toys",
        "domain": "sketches",
        "model": "nearest",
        "build": {"references": 20, "neighbours": 3, "blur": 1.0, "prior_votes": 0.5},
        "fit": {"batch_size": 64},
    }
    prepare = {"tolerated_rejects": 0.0, "validation": 0.2, "test": 0.2, "max_points": 100}
    prepare |= {"only_recognised": False, "shard_size": 1000, "workers": 1}
    fetch = {
        "source": "doodles",
        "doodles": {"categories": ["circle", "fish", "house"], "per_class": 40},
    }
    study = {
        "root": ".",
        "at": "",
        "seed": 1,
        "data": {"toys": {"domain": "sketches", "fetch": fetch, "prepare": prepare}},
        "runs": {
            "weather": {"data": "weather", "domain": "forecasting", "model": "linear"},
            "toys-untrained": {**nearest, "model": "rnn"},
            "toys-nearest": nearest,
        },
        "ensembles": {},
    }
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(study, file)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRANSFER]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    output = bench("transfer", drawings, "--data", "toys", folder=tmp_path)
    header, untrained, trained = output.splitlines()
    assert header == "120 real drawings of 2 categories, raw"
    assert untrained.startswith("toys-untrained")
    assert "not trained" in untrained
    assert trained.startswith("toys-nearest")
    assert 0 <= float(trained.split()[1]) <= 1


@pytest.mark.long
def test_flows_compares_both_ways_to_run_a_study(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    Workspace(checkout)
    output = bench("flows", checkout, "--rounds", "1", folder=tmp_path, timeout=1200)
    assert "two at a time against one" in output


@pytest.mark.long
@pytest.mark.skipif(
    not Path("/usr/lib/postgresql").exists(), reason="needs apt-get install postgresql"
)
def test_postgres_runs_both_servers_on_one_cluster(tmp_path: Path) -> None:
    assert "PASS" in bench("postgres", folder=ROOT, timeout=1200)
