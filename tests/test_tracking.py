"""Tracking: every result has one complete run, whatever happens to the server on the way."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ostinato import params, store
from ostinato.tracking import mirror

ROOT = Path(__file__).parent.parent

# What MLflow 3.17 does on being imported: it asks SQLAlchemy 2.1 for a loading strategy that is
# going away, and warns of type hints of its own.
PARAMS = """\
seed: 7
machine: {precision: float32}
scores: {sketches: {resamples: 10}}
data:
  toy:
    domain: sketches
    fetch: {source: quickdraw, quickdraw: {url: "http://anna:hunter2@example.org/bucket"}}
    prepare: {rate: 1e-3, language: no}
runs:
  toy-a: {data: toy, domain: sketches, model: stacked, build: {units: [4, 4]}, fit: {epochs: 3}}
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
      params: [seed, machine, "runs.${key}"]
      deps: [work.py, code, "data/${item.data}"]
      outs: ["results/${key}/model.keras"]
      plots: ["results/${key}/history.csv": {cache: false}]
  evaluate:
    foreach: ${runs}
    do:
      cmd: python work.py evaluate ${key}
      params: ["scores.${item.domain}"]
      deps: [work.py, "results/${key}/model.keras"]
      outs:
        - results/${key}/speed.json: {cache: false}
        - results/${key}/tables: {cache: false}
        - results/${key}/figures: {cache: false}
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
    shutil.copy("made.keras", folder / "model.keras")
    rows = [{"epoch": n, "loss": 1 / n, "learning_rate": 0.1, "seconds": 0.25 + n / 3}
            for n in (1, 2, 3)]
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
else:
    (folder / "metrics.json").write_text(json.dumps({"top1": 0.75, "samples": 4}))
    (folder / "speed.json").write_text(json.dumps({"inference_ms": 1.5}))
    for part, file in (("tables", "per_class.csv"), ("figures", "confusion.png")):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / file).write_text("class,f1\\n")
"""

EPOCHS = [
    {"epoch": n, "loss": 1 / n, "learning_rate": 0.1, "seconds": 0.25 + n / 3} for n in (1, 2, 3)
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A workspace as `dvc repro` leaves it, and an empty MLflow store."""
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
    shutil.copytree(ROOT / "ostinato", folder / "ostinato", ignore=ignored)
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
    monkeypatch.setattr(mirror, "_said", [])
    return folder


def client(folder: Path = Path()) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder.resolve() / 'mlflow.db'}")


def runs(folder: Path = Path()) -> list[Any]:
    found = client(folder)
    experiments = [e.experiment_id for e in found.search_experiments()]
    return list(found.search_runs(experiments, order_by=["attributes.start_time ASC"]))


def training(folder: Path = Path()) -> Any:
    (run,) = [run for run in runs(folder) if run.data.tags["stage"] == "train"]
    return run


def steps(run: Any, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client().get_metric_history(run.info.run_id, key)]


def dump(folder: Path) -> dict[str, Any]:
    """All rows of the store and all artifacts, apart from times of reading."""
    with sqlite3.connect(folder / "mlflow.db") as connection:
        rows = list(connection.iterdump())
    connection.close()
    files = (path for path in (folder / "mlartifacts").rglob("*") if path.is_file())
    return {"rows": rows, "files": {str(path): path.read_bytes() for path in files}}


def train_live(before: Callable[[int], object] = lambda epoch: None) -> None:
    """What the train stage does, with the outputs that are there."""
    with mirror.live("toy-a") as record:
        for epoch in EPOCHS:
            before(int(epoch["epoch"]))
            record(epoch)


def test_md5s_are_those_of_dvc(workspace: Path) -> None:
    lock = params.load("dvc.lock")["stages"]
    assert set(lock) == {"prepare@toy", "train@toy-a", "evaluate@toy-a"}
    for address, entry in lock.items():
        ours = mirror.current(*address.split("@"))
        assert ours["cmd"] == entry["cmd"]
        assert ours["params"] == entry["params"]["params.yaml"]
        for side in ("deps", "outs"):
            assert ours[side] == {item["path"]: item["md5"] for item in entry[side]}
    mirror.main()
    (given,) = training().inputs.dataset_inputs
    assert given.dataset.name == "toy"
    assert given.dataset.digest == lock["prepare@toy"]["outs"][0]["md5"]


def test_a_result_without_a_run_gets_one_with_all_of_it(workspace: Path) -> None:
    mirror.main()
    prepared, run = sorted(runs(), key=lambda run: run.data.tags["stage"])
    assert (prepared.info.run_name, run.info.run_name) == ("prepare toy", "toy-a")
    assert {run.info.status for run in (prepared, run)} == {"FINISHED"}
    assert prepared.data.metrics == {
        "drawings": 12, "splits.train": 8, "splits.test": 4, "raw/bytes": 99,
    }  # fmt: skip
    assert run.data.params == {
        "seed": "7", "machine.precision": "float32", "data": "toy", "domain": "sketches",
        "model": "rnn", "build.units": "[4, 4]", "fit.epochs": "3", "data.domain": "sketches",
        "data.prepare.learning_rate": "0.001", "data.prepare.language": "no",
    }  # fmt: skip
    assert steps(run, "loss") == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert run.data.metrics["test/top1"] == 0.75
    assert run.data.metrics["speed/inference_ms"] == 1.5
    artifacts = Path("mlartifacts", "sketches", run.info.run_id, "artifacts")
    assert {str(p.relative_to(artifacts)) for p in artifacts.rglob("*") if p.is_file()} == {
        "history.csv", "test/metrics.json", "speed/speed.json", "figures/confusion.png",
        "tables/per_class.csv",
    }  # fmt: skip
    (output,) = run.outputs.model_outputs
    model = client().get_logged_model(output.model_id)
    assert (model.name, str(model.status)) == ("toy-a", "READY")
    assert {"test/top1", "speed/inference_ms"} <= {metric.key for metric in model.metrics}
    folder = Path("mlartifacts", "sketches", "models", model.model_id, "artifacts")
    made = Path("results/toy-a/model.keras").read_bytes()
    assert (folder / "data" / "model.keras").read_bytes() == made
    assert run.data.tags["model"] == hashlib.md5(made).hexdigest()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pyc")]


def test_mirroring_twice_adds_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.main()
    once = dump(workspace)
    assert capsys.readouterr().out.count(": logged") == 2
    mirror.main()
    mirror.mirror("prepare", "toy")
    mirror.mirror("evaluate", "toy-a")
    train_live()
    printed = capsys.readouterr()
    assert (printed.out.count("complete"), printed.err) == (2, "")
    assert dump(workspace) == once


def test_epochs_are_there_while_training_goes_on(workspace: Path) -> None:
    def before(epoch: int) -> None:
        run = training()
        assert (run.info.status, run.data.params["fit.epochs"]) == ("RUNNING", "3")
        assert steps(run, "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS[: epoch - 1]]

    train_live(before)
    assert training().info.status == "FINISHED"


def test_a_training_logged_live_and_one_mirrored_later_are_the_same(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("mlflow.db", tmp_path)
    train_live()
    live = training()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    mirror.main()
    later = training(tmp_path)
    assert (live.data.params, live.data.metrics) == (later.data.params, later.data.metrics)
    assert live.data.tags == later.data.tags
    assert live.inputs.to_dictionary() == later.inputs.to_dictionary()


def test_a_training_that_was_killed_is_completed_and_not_doubled(workspace: Path) -> None:
    killed = mirror.live("toy-a")
    record = killed.__enter__()
    record(EPOCHS[0])
    record(EPOCHS[1])
    assert training().info.status == "RUNNING"
    with mirror.live("toy-a") as resumed:  # hands the epochs of its checkpoint in again
        for epoch in EPOCHS:
            resumed({**epoch, "seconds": epoch["seconds"] + (epoch["epoch"] == 3)})
    run = training()
    assert run.info.status == "FINISHED"
    assert steps(run, "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]
    mirror.main()
    assert steps(training(), "seconds")[:2] == [(e["epoch"], e["seconds"]) for e in EPOCHS[:2]]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such layer"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_training_that_fails_is_marked_and_its_error_goes_on(
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
    assert (training().info.status, len(steps(training(), "loss"))) == ("FINISHED", 3)


def test_code_edited_while_training_goes_on_makes_no_second_run(workspace: Path) -> None:
    train_live(lambda epoch: Path("code/a.py").write_text(f"a = {epoch}\n"))
    assert training().info.status == "FINISHED"
    deps = mirror.current("train", "toy-a")["deps"]  # what DVC takes for the inputs now
    assert json.loads(training().data.tags["deps"]) == deps


def test_scores_go_to_the_run_of_their_model_and_the_latest_count(workspace: Path) -> None:
    train_live()
    assert training().data.metrics["test/top1"] == 0.75  # dvc.lock knows them: the same model
    later = workspace / "results/toy-a/metrics.json"
    for value in (0.5, 0.25):
        store.write_json(later, {"top1": value})
        os.utime(later, (time.time() + 1 / value, time.time() + 1 / value))
        mirror.mirror("evaluate", "toy-a")
        assert training().data.metrics["test/top1"] == value


def test_scores_of_an_earlier_model_are_not_those_of_a_new_one(workspace: Path) -> None:
    model = store.read_model(Path("made.keras"))
    model.set_weights([weights + 1 for weights in model.get_weights()])
    store.write_model(Path("results/toy-a/model.keras"), model)
    train_live()
    assert "test/top1" not in training().data.metrics
    mirror.mirror("evaluate", "toy-a")
    assert training().data.metrics["test/top1"] == 0.75


@pytest.mark.parametrize("changed", [True, False])
def test_what_is_not_as_dvc_left_it_is_not_taken_for_its_result(
    workspace: Path, changed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if changed:
        Path("results/toy-a/history.csv").write_text("epoch,loss\n1,0.0\n")
    else:
        Path("results/toy-a/model.keras").unlink()
    mirror.main()
    assert "train@toy-a: not on disk as dvc.lock has it" in capsys.readouterr().out
    assert [run.data.tags["stage"] for run in runs()] == ["prepare"]


def test_an_experiment_in_a_temporary_folder_writes_to_the_main_store(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy("mlflow.db", elsewhere)
    (workspace / "mlflow.db").unlink()
    monkeypatch.setenv("DVC_ROOT", str(elsewhere))
    monkeypatch.setenv("DVC_EXP_NAME", "noisy-oboe")
    train_live()
    assert training(elsewhere).data.tags["experiment"] == "noisy-oboe"
    assert list((elsewhere / "mlartifacts").rglob("model.keras"))
    assert not (workspace / "mlflow.db").exists()
    assert not (workspace / "mlartifacts").exists()


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that refuses, never answers, or answers 500."""
    if request.param == "refuses":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            yield f"127.0.0.1:{free.getsockname()[1]}"
        return
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if request.param == "hangs":
                released.wait(30)
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


@pytest.mark.parametrize("hostile", ["refuses", "hangs", "answers 500"], indirect=True)
def test_a_dead_server_costs_seconds_one_line_and_no_secret(
    workspace: Path,
    hostile: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:hunter2@{hostile}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    began = time.monotonic()
    train_live()
    assert time.monotonic() - began < 8
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert f"Not tracked in http://***@{hostile}" in printed.err
    assert "python -m ostinato.tracking.mirror" in printed.err
    with pytest.raises(SystemExit, match=r"Cannot log to http://\*\*\*@") as stopped:
        mirror.main()
    assert "hunter2" not in printed.err + str(stopped.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mirror.main()
    assert steps(training(), "loss") == [(e["epoch"], e["loss"]) for e in EPOCHS]


def test_no_password_of_an_address_is_logged(workspace: Path) -> None:
    lock = Path("dvc.lock").read_text()
    fetched = {
        "cmd": "true", "deps": [], "outs": [], "params": {"params.yaml": {
            "data.toy.fetch": {"url": "http://anna:hunter2@example.org/bucket"}}},
    }  # fmt: skip
    Path("dvc.lock").write_text(f"{lock}\n  fetch@toy: {json.dumps(fetched)}\n")
    mirror.main()
    assert training().data.params["data.fetch.url"] == "http://***@example.org/bucket"
    assert "hunter2" not in "".join(dump(workspace)["rows"])


def test_three_processes_at_once_on_a_new_store_all_log(workspace: Path) -> None:
    (workspace / "mlflow.db").unlink()
    code = "from stages import tracking; tracking.mirror('prepare', 'toy')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        _, printed = process.communicate(timeout=120)
        assert (process.returncode, printed) == (0, b"")
    (run,) = runs()
    assert (run.info.status, run.data.metrics["drawings"]) == ("FINISHED", 12)


@pytest.mark.slow
def test_a_server_that_dies_in_mid_training_stops_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
        mirror.main()
        from mlflow import MlflowClient

        served = MlflowClient(address)
        experiment = served.get_experiment_by_name("sketches").experiment_id
        (run,) = served.search_runs([experiment], "tags.stage = 'train'")
        history = served.get_metric_history(run.info.run_id, "loss")
        assert [(m.step, m.value) for m in history] == [(e["epoch"], e["loss"]) for e in EPOCHS]
        assert run.info.status == "FINISHED"
        assert run.outputs.model_outputs
        assert list(Path("served").rglob("confusion.png"))
    finally:
        if server.poll() is None:
            kill(server)


@pytest.mark.slow
def test_a_logged_model_loads_anywhere_and_predicts_the_same(
    workspace: Path, tmp_path: Path
) -> None:
    import numpy as np

    mirror.main()
    (output,) = training().outputs.model_outputs
    folder = workspace / "mlartifacts" / "sketches" / "models" / output.model_id / "artifacts"
    example = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
    np.save(tmp_path / "example.npy", example)
    code = (
        "import sys, numpy as np, mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "assert model.input_example is not None\n"
        "assert str(model.metadata.signature.inputs.inputs[0].shape) == '(-1, -1, 3)'\n"
        "np.save('answer.npy', model.predict(np.load('example.npy')))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment)
    model = store.read_model(Path("results/toy-a/model.keras"))
    answer = np.load(tmp_path / "answer.npy")
    np.testing.assert_array_equal(answer, np.asarray(model(example)))
