"""Tracking: each result has one complete run in MLflow, also after failures of the server."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from ostinato import store
from ostinato.errors import TrackingError
from ostinato.evaluation import undefined
from ostinato.study import Study
from ostinato.tracking import __main__ as tracking
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import deadline, dvc_lock, live, mirror
from ostinato.tracking import runs as tracked
from ostinato.tracking.champions import log_champion
from tests.servers import closed_port
from tests.workspace import dvc_md5

ROOT = Path(__file__).parent.parent

PARAMS = """\
root: .
at: ""
seed: 7
runtime: {precision: float32}
evaluation: {sketches: {resamples: 10}}
data:
  toy:
    domain: sketches
    fetch: {source: quickdraw, quickdraw: {url: "http://anna:hunter2@example.org/bucket"}}
    prepare: {rate: 1e-3, language: no}
runs:
  toy-a: {data: toy, domain: sketches, model: rnn, build: {units: [4, 4]}, fit: {epochs: 3}}
ensembles: {}
"""

GRAPH = """\
stages:
  prepare:
    foreach: ${data}
    do:
      cmd: python work.py prepare ${key}
      params: ["data.${key}.domain", "data.${key}.prepare"]
      deps: [work.py, "data/raw/${key}"]
      outs: ["data/${key}"]
  train:
    foreach: ${runs}
    do:
      cmd: python work.py train ${key}
      params: [seed, runtime.precision, "runs.${key}"]
      deps: [work.py, code, "data/${item.data}"]
      outs: ["results/${key}/model", "results/${key}/training.json"]
      plots: ["results/${key}/history.csv": {cache: false}]
  evaluate:
    foreach: ${runs}
    do:
      cmd: python work.py evaluate ${key}
      params: ["evaluation.${item.domain}"]
      deps: [work.py, "results/${key}/model"]
      outs:
        - results/${key}/speed.json
        - results/${key}/tables
        - results/${key}/figures
      metrics: ["results/${key}/metrics.json": {cache: false}]
"""

WORK = """\
import csv, json, shutil, sys
from pathlib import Path
stage, name = sys.argv[1:]
folder = Path("data" if stage == "prepare" else "results", name)
folder.mkdir(parents=True, exist_ok=True)
if stage == "prepare":
    numbers = {"drawings": 12, "splits": {"train": 8, "test": 4}, "categories": ["a", "b"]}
    (folder / "manifest.json").write_text(json.dumps(numbers))
    (folder / "sub").mkdir()
    (folder / "sub" / "hôtel de ville.txt").write_text("x")
    (folder / "empty").mkdir()
elif stage == "train":
    (folder / "model").mkdir()
    shutil.copy("made.keras", folder / "model" / "model.keras")
    rows = [{"epoch": n, "loss": 1 / n, "learning_rate": 0.1, "seconds": 0.25 + n / 3}
            for n in (1, 2, 3)]
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "training.json").write_text(json.dumps({
        "device": "CPU", "names": [], "cores": 2, "intra_op": 1, "inter_op": 2,
        "precision": "float32", "tensorflow": "2.21.0"}))
else:
    (folder / "metrics.json").write_text(json.dumps({"top1": 0.75, "samples": 4}))
    (folder / "speed.json").write_text(json.dumps({"inference_ms": 1.5}))
    for part, file in (("tables", "per_class.csv"), ("figures", "confusion.png")):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / file).write_text("class,f1\\n")
"""

DEVICE = {"device": "CPU (cores 2, intra_op 1, inter_op 2)", "tensorflow": "2.21.0"}
EPOCHS = [
    {"epoch": n, "loss": 1 / n, "learning_rate": 0.1, "seconds": 0.25 + n / 3} for n in (1, 2, 3)
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A workspace after `dvc repro`, with an empty MLflow store."""
    import keras

    from ostinato.layers import MaskedPooling

    folder = tmp_path_factory.mktemp("made")
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", GRAPH), ("work.py", WORK)):
        (folder / name).write_text(text)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\nanalytics = false\n")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / ".dvcignore").write_text("__pycache__/\n*.pyc\nmlflow.db*\nmlartifacts/\n")
    (folder / ".gitignore").write_text("mlflow.db*\nmlartifacts/\nmade.keras\n")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ostinato", folder / "ostinato", ignore=ignored)  # for a logged model
    (folder / "code" / "__pycache__").mkdir(parents=True)
    (folder / "code" / "a.py").write_text("a = 1\n")
    (folder / "code" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"cache")
    (folder / "data" / "raw" / "toy").mkdir(parents=True)
    (folder / "data" / "raw" / "toy" / "manifest.json").write_text('{"bytes": 99}')
    inputs = keras.Input((None, 3))
    mask = keras.layers.Masking()(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(MaskedPooling("max")(mask))
    store.write_model(folder / "made.keras", keras.Model(inputs, outputs))
    for command in (
        ["git", "init", "-q", "-b", "main"],
        ["git", "config", "user.email", "test@example.org"],
        ["git", "config", "user.name", "Test"],
        [sys.executable, "-m", "dvc", "repro", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-q", "-m", "made"],
    ):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, cwd=folder, check=True, env={**os.environ, "PATH": path})
    shutil.copy(mlflow_tables, folder)
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(made, folder, symlinks=True)
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mlflow_store, "_warned", [])
    return folder


def client(folder: Path = Path()) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")


def runs(folder: Path = Path()) -> list[Any]:
    found = client(folder)
    experiments = [e.experiment_id for e in found.search_experiments()]
    return list(found.search_runs(experiments, order_by=["attributes.start_time ASC"]))


def training(folder: Path = Path()) -> Any:
    (run,) = [run for run in runs(folder) if run.info.run_name == "toy-a"]
    return run


def steps(run: Any, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client().get_metric_history(run.info.run_id, key)]


def dump(folder: Path) -> dict[str, Any]:
    """All rows of the store and all artifacts."""
    with sqlite3.connect(folder / "mlflow.db") as connection:
        rows = list(connection.iterdump())
    connection.close()
    files = (path for path in (folder / "mlartifacts").rglob("*") if path.is_file())
    return {"rows": rows, "files": {str(path): path.read_bytes() for path in files}}


def log_results() -> dict[str, bool]:
    """Mirror the study; returns for each result whether it was missing."""
    outcomes = list(mirror.mirror(Study.load()))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    return {outcome.name: outcome.missing for outcome in outcomes}


def train_live(before: Callable[[int], object] = lambda epoch: None) -> None:
    """The tracking of the train stage, with the epochs of the outputs on disk."""
    with live.track(Study.load(), "toy-a", DEVICE) as on_epoch:
        for epoch in EPOCHS:
            before(int(epoch["epoch"]))
            on_epoch(epoch)


@pytest.fixture
def live_store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the store, as live tracking needs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'mlflow.db'}")


def test_dvc_lock_is_read_as_dvc_has_written_it(workspace: Path) -> None:
    records = dvc_lock.read(Study.load())
    assert set(records) == {"prepare@toy", "train@toy-a", "evaluate@toy-a"}
    train = records["train@toy-a"]
    assert train.command == "python work.py train toy-a"
    assert train.params["runtime.precision"] == "float32"
    for record in records.values():
        for path, md5 in record.outs.items():
            assert dvc_md5(Path(path)) == md5
    log_results()
    (given,) = training().inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("toy", train.deps["data/toy"])


def test_a_mirrored_result_has_a_complete_run(workspace: Path) -> None:
    log_results()
    prepared, run = sorted(runs(), key=lambda run: str(run.info.run_name))
    assert (prepared.info.run_name, run.info.run_name) == ("prepare toy", "toy-a")
    assert {run.info.status for run in (prepared, run)} == {"FINISHED"}
    assert prepared.data.metrics == {
        "drawings": 12, "splits.train": 8, "splits.test": 4, "raw/bytes": 99,
    }  # fmt: skip
    assert run.data.params == {
        "seed": "7", "runtime.precision": "float32", "data": "toy", "domain": "sketches",
        "model": "rnn", "build.units": "[4, 4]", "fit.epochs": "3", "data.domain": "sketches",
        "data.prepare.rate": "0.001", "data.prepare.language": "no",
    }  # fmt: skip
    assert steps(run, "loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert run.data.metrics["test/top1"] == 0.75
    assert run.data.metrics["speed/inference_ms"] == 1.5
    artifacts = Path("mlartifacts", "default-toy", run.info.run_id, "artifacts")
    assert {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()} == {
        "history.csv", "training.json", "test/metrics.json", "speed/speed.json",
        "figures/01-confusion.png", "tables/per_class.csv",
    }  # fmt: skip
    (output,) = run.outputs.model_outputs
    model = client().get_logged_model(output.model_id)
    assert (model.name, str(model.status)) == ("toy-a", "READY")
    linked = {m.key: (m.dataset_name, m.dataset_digest) for m in model.metrics}
    data = ("toy", dvc_lock.read(Study.load())["train@toy-a"].deps["data/toy"])
    assert linked["test/top1"] == linked["speed/inference_ms"] == data
    folder = Path("mlartifacts", "default-toy", "models", model.model_id, "artifacts")
    assert DEVICE.items() <= run.data.tags.items()
    made = Path("results/toy-a/model/model.keras").read_bytes()
    assert (folder / "data" / "model.keras").read_bytes() == made
    assert run.data.tags["model"] == dvc_md5(Path("results/toy-a/model"))
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pyc")]


def test_figures_are_in_the_order_of_the_report(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[list[str]] = []
    store_client: Any = SimpleNamespace(
        log_artifacts=lambda run, folder, into: logged.append(
            sorted(p.name for p in Path(folder).iterdir())
        )
    )
    report = SimpleNamespace(figures={"mistakes": "", "no_such": "", "confusion": ""})
    monkeypatch.setattr("ostinato.sketches.reporting.REPORT", report)
    folder = workspace / "figures"
    folder.mkdir()
    for name in ("calibration", "confusion", "per_class", "mistakes"):
        (folder / f"{name}.png").touch()
    tracked._log_figures(store_client, "run", folder, "sketches")
    names = ["01-mistakes.png", "02-confusion.png", "03-calibration.png", "04-per_class.png"]
    assert logged == [names]


def test_an_experiment_has_its_kind_description_and_views(workspace: Path) -> None:
    log_results()

    def tags() -> dict[str, str]:
        return dict(client().get_experiment_by_name("default/toy").tags)

    first = tags()
    assert first["mlflow.experimentKind"] == "custom_model_development"
    assert "viewStateShareKey=scores" in first["mlflow.note.content"]
    for key, name in (("scores", "Scores"), ("champions", "Champions")):
        view = json.loads(first[f"mlflow.sharedViewState.{key}"])
        assert (view["name"], type(view["createdAt"])) == (name, int)
        state = json.loads(view["state"])
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections
        names = [chart["uuid"] for chart in state["compareRunCharts"]]
        assert len(set(names)) == len(names)
        assert all(len(tag) <= 5000 for tag in first.values())  # MLflow's limit
    scores = json.loads(json.loads(first["mlflow.sharedViewState.scores"])["state"])
    assert scores["orderByKey"] == "metrics.`test/validation_top1`"
    assert scores["orderByAsc"] is False
    (experiment,) = [e for e in client().search_experiments() if e.name == "default/toy"]
    found = client().search_runs([experiment.experiment_id], scores["searchFilter"])
    assert [run.info.run_name for run in found] == ["toy-a"]
    # What somebody has written stays.
    client().set_experiment_tag(experiment.experiment_id, "mlflow.note.content", "mine")
    log_results()
    assert tags() == {**first, "mlflow.note.content": "mine"}


def test_the_scores_of_champions_are_steps_of_one_run(workspace: Path) -> None:
    log_results()
    experiment = client().get_experiment_by_name("default/toy").experiment_id
    for number, top1 in ((1, 0.5), (3, 0.75), (1, 0.5)):  # the last one is a rollback
        scores = {"top1": top1, "top1_low": top1 - 0.1, "validation_top1": 0.9, "note": "text"}
        version = SimpleNamespace(name="toy", version=number, tags={"scores": json.dumps(scores)})
        log_champion(client(), experiment, version)
    (run,) = client().search_runs([experiment], "tags.stage = 'champion'")
    assert steps(run, "champion/top1") == [(1, 0.5), (2, 0.75), (3, 0.5)]
    assert steps(run, "champion/version") == [(1, 1.0), (2, 3.0), (3, 1.0)]
    assert set(run.data.metrics) == {"champion/top1", "champion/top1_low", "champion/version"}
    assert run.info.status == "FINISHED"


def test_mirroring_twice_adds_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log_results() == {"toy": True, "toy-a": True}
    once = dump(workspace)
    assert log_results() == {"toy": False, "toy-a": False}
    assert dump(workspace) == once
    tracking.main([])
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["default/toy: already complete", "default/toy-a: already complete"]


def test_without_a_named_server_a_training_does_not_import_mlflow(workspace: Path) -> None:
    code = """
import sys
from ostinato.study import Study
from ostinato.tracking import live
with live.track(Study.load(), "toy-a", {}) as on_epoch:
    on_epoch({"epoch": 1, "loss": 1.0})
assert not [name for name in sys.modules if name.startswith(("mlflow", "sqlalchemy"))]
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert runs() == []


@pytest.mark.usefixtures("live_store")
def test_epochs_are_logged_while_a_training_runs(workspace: Path) -> None:
    def before(epoch: int) -> None:
        run = training()
        assert (run.info.status, run.data.params["fit.epochs"]) == ("RUNNING", "3")
        assert DEVICE.items() <= run.data.tags.items()
        assert steps(run, "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS[: epoch - 1]]

    train_live(before)
    log_results()
    assert training().info.status == "FINISHED"


@pytest.mark.usefixtures("live_store")
def test_a_run_logged_live_equals_a_mirrored_one(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("mlflow.db", tmp_path)
    train_live()
    log_results()
    first = training()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    log_results()
    second = training(tmp_path)
    assert first.data.metrics == second.data.metrics
    assert second.data.params.items() <= first.data.params.items()
    assert second.data.tags.keys() <= first.data.tags.keys()
    assert first.inputs.to_dictionary() == second.inputs.to_dictionary()


@pytest.mark.usefixtures("live_store")
def test_a_killed_training_has_one_run_after_it_was_resumed(workspace: Path) -> None:
    killed = live.track(Study.load(), "toy-a", DEVICE)
    on_epoch = killed.__enter__()
    on_epoch(EPOCHS[0])
    on_epoch(EPOCHS[1])
    assert training().info.status == "RUNNING"
    with live.track(Study.load(), "toy-a", DEVICE) as resumed:  # from its checkpoint
        for epoch in EPOCHS:
            resumed({**epoch, "seconds": epoch["seconds"] + (epoch["epoch"] == 3)})
    log_results()
    run = training()
    assert run.info.status == "FINISHED"
    assert steps(run, "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]
    assert steps(run, "seconds")[:2] == [(e["epoch"], e["seconds"]) for e in EPOCHS[:2]]


@pytest.mark.usefixtures("live_store")
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such layer"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_failed_training_is_marked_and_its_error_propagates(
    workspace: Path, error: BaseException, status: str
) -> None:
    def before(epoch: int) -> None:
        if epoch == 2:
            raise error

    with pytest.raises(type(error)) as raised:
        train_live(before)
    assert raised.value is error
    run = training()
    assert (run.info.status, steps(run, "loss")) == (status, [(1, 1.0)])
    assert run.data.tags["error"] == f"{type(error).__name__}: {error}".strip()
    train_live()  # once more, without the error: the same run
    log_results()
    assert (training().info.status, len(steps(training(), "loss"))) == ("FINISHED", 3)


def test_the_latest_scores_of_a_model_are_logged_with_its_run(workspace: Path) -> None:
    log_results()
    assert training().data.metrics["test/top1"] == 0.75
    file = workspace / "results/toy-a/metrics.json"
    for value in (0.5, 0.25):
        store.write_json(file, {"top1": value})
        os.utime(file, (time.time() + 1 / value, time.time() + 1 / value))
        edit_lock("evaluate@toy-a", "outs", "results/toy-a/metrics.json", dvc_md5(file))
        log_results()
        assert training().data.metrics["test/top1"] == value


def test_a_metric_that_is_not_defined_has_its_reason_as_a_tag(workspace: Path) -> None:
    results = workspace / "results/toy-a"
    file = results / "metrics.json"
    for number, reasons in enumerate([{"top1": "no classes"}, {}]):
        store.write_json(file, {"top1": None if reasons else 0.5, "samples": 4})
        store.write_table(results / "tables" / "undefined.csv", undefined.to_table(reasons))
        edit_lock("evaluate@toy-a", "outs", "results/toy-a/metrics.json", dvc_md5(file))
        log_results()
        run = training()
        assert run.data.metrics["test/samples"] == 4
        assert ("test/top1" in run.data.metrics) == bool(number)
        assert run.data.tags.get("undefined.top1") == reasons.get("top1")


def test_scores_of_an_earlier_model_are_not_logged_with_a_new_one(workspace: Path) -> None:
    edit_lock("train@toy-a", "outs", "results/toy-a/model", f"{'0' * 32}.dir")
    log_results()
    assert "test/top1" not in training().data.metrics
    edit_lock("evaluate@toy-a", "deps", "results/toy-a/model", f"{'0' * 32}.dir")
    log_results()
    assert training().data.metrics["test/top1"] == 0.75


def edit_lock(stage: str, side: str, path: str, md5: str) -> None:
    """Change an md5 in dvc.lock."""
    file = Path("dvc.lock")
    content = YAML().load(file)
    (entry,) = [entry for entry in content["stages"][stage][side] if entry["path"] == path]
    entry["md5"] = md5
    YAML().dump(content, file)


def test_a_result_that_is_not_on_disk_is_not_logged(workspace: Path) -> None:
    shutil.rmtree("results/toy-a/model")
    assert log_results() == {"toy": True}
    assert [run.info.run_name for run in runs()] == ["prepare toy"]


def test_an_experiment_in_a_temporary_folder_writes_to_the_main_store(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = tmp_path / "main"
    main.mkdir()
    shutil.copy("mlflow.db", main)
    (workspace / "mlflow.db").unlink()
    monkeypatch.setenv("DVC_ROOT", str(main))
    monkeypatch.setenv("DVC_EXP_NAME", "noisy-oboe")
    log_results()
    assert training(main).data.tags["experiment"] == "noisy-oboe"
    assert list((main / "mlartifacts").rglob("model.keras"))
    assert not (workspace / "mlflow.db").exists()
    assert not (workspace / "mlartifacts").exists()


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that refuses, never answers, drips, or answers 500."""
    if request.param == "refuses":
        yield f"127.0.0.1:{closed_port()}"
        return
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if request.param == "hangs":
                released.wait(30)
            if request.param == "drips":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                while not released.wait(0.2):
                    self.wfile.write(b" ")
            self.send_error(500)

        do_POST = do_GET

        def log_message(self, *args: object) -> None: ...

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client has gone
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        released.set()
        server.shutdown()


@pytest.mark.parametrize("hostile", ["refuses", "hangs", "drips", "answers 500"], indirect=True)
def test_an_unavailable_server_costs_seconds_and_one_line_without_a_password(
    workspace: Path,
    hostile: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:hunter2@{hostile}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(deadline, "CALL_S", 2.0)
    began = time.monotonic()
    train_live()
    assert time.monotonic() - began < 8
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert f"Not tracked in http://***@{hostile}" in printed.err
    assert "python -m ostinato.tracking" in printed.err
    with pytest.raises(SystemExit, match=r"Cannot log to http://\*\*\*@") as stopped:
        tracking.main([])
    assert "hunter2" not in printed.err + str(stopped.value)
    if "refused" in printed.err:  # the end of the long message, which says why
        assert "Connection refused" in printed.err
    assert not Path("mlflow.db.lock").exists(), "no lock is held over the network"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    log_results()
    assert steps(training(), "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]


def test_no_password_of_an_address_is_logged(workspace: Path) -> None:
    lock = Path("dvc.lock").read_text()
    fetched = {
        "cmd": "true", "deps": [], "outs": [], "params": {"params.yaml": {
            "data.toy.fetch": {"url": "http://anna:hunter2@example.org/bucket"}}},
    }  # fmt: skip
    Path("dvc.lock").write_text(f"{lock}\n  fetch@toy: {json.dumps(fetched)}\n")
    log_results()
    assert training().data.params["data.fetch.url"] == "http://***@example.org/bucket"
    assert "hunter2" not in "".join(dump(workspace)["rows"])


def test_three_processes_that_create_a_store_at_once_do_not_fail(workspace: Path) -> None:
    (workspace / "mlflow.db").unlink()
    shutil.rmtree("results")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "ostinato.tracking", "params.yaml"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in started:
        _, printed = process.communicate(timeout=120)
        assert (process.returncode, printed) == (0, b"")
    (run,) = runs()
    assert (run.info.status, run.data.metrics["drawings"]) == ("FINISHED", 12)


# Each result stands for itself


def add_data_set() -> None:
    """Give the study a second data set, with an experiment of its own."""
    shutil.copytree("data/toy", "data/other")
    for file, table, name in (
        ("params.yaml", "data", "{}"),
        ("dvc.lock", "stages", "prepare@{}"),
    ):
        content = YAML(typ="safe").load(Path(file))
        entry = json.dumps(content[table][name.format("toy")])
        content[table][name.format("other")] = json.loads(entry.replace("toy", "other"))
        Path(file).write_text(json.dumps(content))  # JSON is YAML


def outcomes() -> dict[str, mirror.Outcome]:
    return {outcome.name: outcome for outcome in mirror.mirror(Study.load())}


def test_a_deleted_experiment_stops_no_other_result_and_is_named_with_the_command(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_results()
    experiment = client().get_experiment_by_name("default/toy").experiment_id
    client().delete_experiment(experiment)
    add_data_set()
    found = outcomes()
    assert found["other"] == ("other", True, "")
    for name in ("toy", "toy-a"):
        assert "experiment 'default/toy' was deleted in MLflow" in found[name].error
        assert f"mlflow experiments restore --experiment-id {experiment}`" in found[name].error
        assert f"MLFLOW_TRACKING_URI=sqlite:///{workspace}/mlflow.db mlflow" in found[name].error
    with pytest.raises(SystemExit, match=r"2 results are not in sqlite.*default/toy: Tracking"):
        tracking.main([])
    assert "default/other: already complete" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workspace / 'mlflow.db'}")
    train_live()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("no result is lost: run `python -m ostinato.tracking` after that.")
    client().restore_experiment(experiment)
    assert log_results() == {"toy": False, "other": False, "toy-a": False}


def test_names_that_mlflow_refuses_are_logged_in_a_form_that_it_accepts(workspace: Path) -> None:
    odd = ["a//b", "../up", ".", "x/", "50 %", "größe", "n" * 300, "a:b", "tab\tb"]
    store.write_json(Path("results/toy-a/metrics.json"), dict.fromkeys(odd, 0.5) | {"top1": 0.75})
    log_results()
    metrics = training().data.metrics
    assert metrics["test/top1"] == 0.75
    assert len([name for name in metrics if name.startswith("test/")]) == len(odd) + 1
    assert "test/größe" in metrics


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2)])
def test_a_result_that_failed_is_completed_later_in_the_same_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(tracked, "_log_model", fail)
        for _ in range(2):
            found = outcomes()
            assert not found["toy"].error
            assert type(error).__name__ in found["toy-a"].error
    assert log_results() == {"toy": False, "toy-a": True}
    assert len(training().outputs.model_outputs) == 1  # and `training` finds one run


def test_a_bug_of_the_mirror_keeps_its_traceback(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(tracked, "_log_model", fail)
    with pytest.raises(KeyError):
        outcomes()


def test_a_result_that_params_yaml_does_not_name_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = YAML(typ="safe").load(Path("params.yaml"))
    del content["runs"]["toy-a"]
    store.write_json(Path("params.yaml"), content)  # JSON is YAML
    tracking.main([])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("default/toy-a: left out, as params.yaml has no entry of this name")


def test_the_advice_of_an_experiment_in_a_temporary_folder_is_to_apply_it(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = ConnectionError("refused")
    assert mlflow_store.advice(error) == "run `python -m ostinato.tracking` later"
    monkeypatch.setenv("DVC_EXP_NAME", "noisy-oboe")
    assert mlflow_store.advice(error) == "run `python -m ostinato.tracking` later"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert mlflow_store.advice(error).startswith("apply the experiment (`dvc exp apply noisy-oboe`")


# The place of the store


@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_a_checkout_at_another_place_writes_nothing_to_the_old_one(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    copied: bool,
) -> None:
    from mlflow.tracking._tracking_service import utils

    log_results()
    before = dump(workspace)
    moved = tmp_path / "with 100% ü"
    shutil.copytree(workspace, moved, symlinks=True)
    monkeypatch.chdir(moved)
    if not copied:
        shutil.rmtree(workspace)
    store.write_json(Path("results/toy-a/metrics.json"), {"top1": 0.5})
    edit_lock(
        "evaluate@toy-a", "outs", "results/toy-a/metrics.json",
        dvc_md5(Path("results/toy-a/metrics.json")),
    )  # fmt: skip
    with pytest.raises(TrackingError, match=f"was made in {workspace}.*--relocate") as raised:
        list(mirror.mirror(Study.load()))
    assert str(moved) in str(raised.value)
    tracking.main(["--relocate"])
    utils._artifact_repos_cache.clear()  # of this process, which was at the old place
    assert re.search(r"[1-9]\d* paths point to ", capsys.readouterr().out)
    assert log_results() == {"toy": False, "toy-a": True}
    assert training(moved).data.metrics["test/top1"] == 0.5
    if copied:
        assert dump(workspace) == before
    else:
        assert not workspace.exists()
    with sqlite3.connect("mlflow.db") as database:
        assert str(workspace) not in "".join(database.iterdump())
    database.close()


def test_an_address_of_another_computer_is_told(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shutil.copy("mlflow.db", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("DVC_ROOT", str(gone))
    log_results()
    monkeypatch.delenv("DVC_ROOT")
    shutil.rmtree(gone)
    assert "there is no " + str(gone) in outcomes()["toy"].error
    assert not gone.exists()


def test_a_folder_whose_name_has_a_question_mark_is_an_error_in_one_line(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with?query").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "with?query"))
    with pytest.raises(TrackingError, match="a question mark in its name; rename the folder"):
        log_results()
    assert list(tmp_path.glob("with")) == []


def test_the_code_of_a_logged_model_is_one_archive(workspace: Path) -> None:
    log_results()
    (output,) = training().outputs.model_outputs
    folder = workspace / "mlartifacts" / "default-toy" / "models" / output.model_id / "artifacts"
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert "code/ostinato.zip" in files
    assert len(files) < 15


def test_a_call_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "CALL_S", 0.05)
    released = threading.Event()

    class Client:
        def search_runs(self) -> bool:
            return released.wait(20)

        def log_artifact(self, run: str, path: str) -> bool:
            return released.wait(0.3)

        def get_run(self, run: str) -> str:
            raise ValueError(run)

    bounded = deadline.WithDeadlines(Client())
    with pytest.raises(TimeoutError, match=r"no complete answer within 0\.05 s"):
        bounded.search_runs()
    with pytest.raises(ValueError, match="7"):
        bounded.get_run("7")
    released.set()
    assert bounded.search_runs()


def test_an_upload_has_time_for_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "CALL_S", 0.05)
    (tmp_path / "large").write_bytes(bytes(100_000))

    class Client:
        def log_artifacts(self, run: str, folder: str) -> str:
            time.sleep(0.3)
            return folder

    assert deadline.WithDeadlines(Client()).log_artifacts("run", str(tmp_path)) == str(tmp_path)


@pytest.mark.slow
def test_a_server_that_dies_during_a_training_stops_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = closed_port()
    address = f"http://127.0.0.1:{port}"

    def serve() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1", "--artifacts-destination", "served"),
                *("--backend-store-uri", "sqlite:///server.db"),
            ],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(120):
            time.sleep(0.5)
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
            except OSError:
                assert process.poll() is None
            else:
                return process
        raise AssertionError("the server does not start")

    def kill(process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    server = serve()
    try:
        train_live(lambda epoch: kill(server) if epoch == 3 else None)
        assert capsys.readouterr().err.count("Not tracked") == 1
        server = serve()
        log_results()
        from mlflow import MlflowClient

        served = MlflowClient(address)
        experiment = served.get_experiment_by_name("default/toy").experiment_id
        (run,) = served.search_runs([experiment], "attributes.run_name = 'toy-a'")
        history = served.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(e["epoch"], e["loss"]) for e in EPOCHS]
        assert run.info.status == "FINISHED"
        assert run.outputs.model_outputs
        assert list(Path("served").rglob("01-confusion.png"))
    finally:
        if server.poll() is None:
            kill(server)


@pytest.mark.slow
def test_a_logged_model_has_the_same_predictions_without_the_checkout(
    workspace: Path, tmp_path: Path
) -> None:
    import numpy as np

    log_results()
    (output,) = training().outputs.model_outputs
    folder = workspace / "mlartifacts" / "default-toy" / "models" / output.model_id / "artifacts"
    example = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
    np.save(tmp_path / "example.npy", example)
    code = (
        "import sys, numpy as np, mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "assert model.input_example is not None\n"
        "assert str(model.metadata.signature.inputs.inputs[0].shape) == '(-1, -1, 3)'\n"
        "np.save('predictions.npy', model.predict(np.load('example.npy')))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment)
    model = store.read_model(Path("results/toy-a/model/model.keras"))
    predictions = np.load(tmp_path / "predictions.npy")
    np.testing.assert_array_equal(predictions, np.asarray(model(example)))
