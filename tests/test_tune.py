"""Searches: real flows, most of them over a toy training without TensorFlow."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from ruamel.yaml import YAML

from bench import search as bench
from flows import tune as module
from flows.engine import search as search_settings
from flows.engine import search_workers, tuning_figures
from flows.engine.search import Range, Values, state_of
from flows.tune import tune
from ostinato import errors, params, store
from ostinato.training.machine import Machine
from stages import trial
from tests import servers
from tests.workspace import copy_code, default_values

ROOT = Path(__file__).parent.parent
PARAMS = """\
root: .
at: ""
seed: 7
runtime: {precision: float32}
ensembles: {}
runs:
  toy:
    data: toy
    domain: toys
    model: toy
    build: {x: 1, sizes: [1, 2], learning_rate: 0.5, does: well}
    fit: {epochs: 3, monitor: validation_loss}
"""
# The loss is x + 1/epoch; the training notes its parameters, and keeps a checkpoint.
TRIAL = """\
import json, os, select, sys, time
from pathlib import Path
if sys.argv[1] == "check":
    plan = json.loads(sys.argv[2])
    types = {"build.x": "int", "build.learning_rate": "float", "fit.epochs": "int"}
    print(json.dumps({
        "problems": ["x: too odd"] if 13 in plan["space"].get("build.x", []) else [],
        "types": {name: types.get(name, "other") for name in plan["space"]},
        "direction": "minimize",
        "files": json.loads(Path("files.json").read_text()),
    }))
    sys.exit()
def train(plan, folder):
    build = plan["run"]["build"]
    folder.mkdir(parents=True, exist_ok=True)
    done = int((folder / "epoch").read_text()) if (folder / "epoch").exists() else 0
    with open("trained", "a") as file:
        flow = os.environ.get("FLOW")
        note = {"build": build, "from": done, "process": os.getpid(), "flow": flow}
        file.write(json.dumps(note) + "\\n")
    flows = lambda: {json.loads(line)["flow"] for line in open("trained")}
    while build["does"] == "wait for another flow" and len(flows()) < 2:
        time.sleep(0.1)
    if build["does"] == "break" or build["does"] == "break at 2" and build["x"] == 2:
        print("Traceback (most recent call last):")
        sys.exit("ValueError: sizes do not fit")
    if build["does"] == "touch" and build["x"] == 1:
        while len(open("trained").readlines()) < 2:
            time.sleep(0.1)
        Path("model.py").write_text("changed")
    elif build["does"] == "touch":
        time.sleep(60)
    for epoch in range(1, plan["run"]["fit"]["epochs"] + 1):
        if epoch > 1 and build["x"] >= 1000:
            time.sleep(60 if build["x"] == 1000 else 0.2)
        if epoch == 3 and done < 2 and build["does"] == "hang":
            time.sleep(60)
        loss = float("nan") if build["does"] == "diverge" else build["x"] + 1 / epoch
        print("epoch", epoch)
        record = {"epoch": epoch, "loss": 0.0, "validation_loss": loss, "seconds": 0.1}
        (folder / "epoch").write_text(str(epoch))
        print(json.dumps({**record, "best": epoch}), flush=True)
        if select.select([sys.stdin], [], [], 0)[0]:
            return "stopped"
    return "completed"
trained = 0
while line := sys.stdin.readline():
    request = json.loads(line)
    if "plan" in request:
        ended = train(request["plan"], Path(request["folder"]))
        grows = request["plan"]["run"]["build"]["does"] == "grow"
        trained += 1
        print(json.dumps({"ended": ended, "memory": trained << (30 if grows else 20)}), flush=True)
"""
# A flow in a process of its own: `python FLOW PARAMETERS`.
FLOW = f"""\
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from flows.tune import tune
print("RESULT", json.dumps(tune(**json.loads(sys.argv[1]))))
"""


@pytest.fixture
def toy(
    tmp_path: Path, mlflow_tables: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> Iterator[Path]:
    """A checkout whose training is a toy."""
    shutil.copy(mlflow_tables, tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "model.py").write_text("as it was")
    digest = store.digest(tmp_path / "model.py")
    (tmp_path / "files.json").write_text(json.dumps({"model.py": digest}))
    for file, text in {"__init__": "", "check": "", "trial": TRIAL}.items():
        (tmp_path / "stages").mkdir(exist_ok=True)
        (tmp_path / "stages" / f"{file}.py").write_text(text)
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / "toy" / "manifest.json").write_text("{}")
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_settings, "HEARTBEAT_INTERVAL_S", 1)
    monkeypatch.setattr(search_settings, "HEARTBEAT_TIMEOUT_S", 8)
    yield tmp_path
    ours = {"params.yaml", "model.py", "files.json", "stages", "data", "trained", "scratch"}
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("ml")}
    assert left <= ours, "a search writes to scratch and MLflow only"


def does(what: str, **more: Any) -> None:
    """Set the behaviour of the toy training."""
    values = params.load()
    values["runs"]["toy"]["build"] |= {"does": what, **more}
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)


def search(**given: Any) -> dict[str, Any]:
    result: dict[str, Any] = tune(**given)
    return result


def trained() -> list[dict[str, Any]]:
    path = Path("trained")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def study(name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage="sqlite:///scratch/tune/studies.db")


def states(name: str) -> Counter[str]:
    return Counter(state_of(trial) for trial in study(name).get_trials())


def mlflow_runs() -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    ids = [e.experiment_id for e in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(ids)}


def artifact(key: str) -> str:
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        (latest, *_) = client.read_artifacts(artifact_filter=wanted)
    return str(latest.data)


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_grid_is_complete_and_the_best_entry_is_written(toy: Path) -> None:
    space = {
        "build.x": Range(low=2, high=6, step=2),
        "build.sizes": Values(values=[[1, 2], [3, 4]]),
    }
    given: dict[str, Any] = {"run": "toy", "space": space, "trials": 50, "sampler": "grid"}
    result = search(**given, pruner="none", max_concurrency=2)
    builds = [note["build"] for note in trained()]
    assert len(builds) == 6
    assert len({note["process"] for note in trained()}) <= 2, "a process trains several trials"
    assert {(b["x"], *b["sizes"]) for b in builds} == {
        (x, *s) for x in (2, 4, 6) for s in ((1, 2), (3, 4))
    }
    assert result["trials"] == 6
    assert result["validation_loss"] == pytest.approx(2 + 1 / 3)

    pasted = Path("params.yaml").read_text() + Path(result["entry"]).read_text()
    Path("scratch", "pasted.yaml").write_text(pasted)
    runs = params.load("scratch/pasted.yaml")["runs"]
    best = builds[0] | {"x": 2, "sizes": runs["toy-tuned"]["build"]["sizes"]}
    assert runs["toy-tuned"] == runs["toy"] | {"build": best}
    assert "# Found by `tune`" in pasted

    tracked = mlflow_runs()
    parent = tracked.pop(f"tune {result['name']}")
    assert parent.info.status == "FINISHED"
    assert len(tracked) == 6
    for run in tracked.values():
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        tags = {key: run.data.tags[key] for key in ("stage", "search", "state", "epochs")}
        expected = {"stage": "tune", "search": result["name"], "state": "complete"}
        assert tags == {**expected, "epochs": "3"}
        x = float(run.data.params["build.x"])
        assert run.data.metrics["validation_loss"] == pytest.approx(x + 1 / 3)
    files = {path.name for path in toy.glob("mlartifacts/**/artifacts/*")}
    assert files == {"best.yaml", "trials.csv", "trials.png", "curves.png", "parameters.png"}

    assert len(json.loads(artifact(f"tune-{result['name']}"))) == 6
    assert Path(result["entry"]).read_text() in artifact(f"tune-{result['name']}-best")

    again = search(**given, pruner="none")
    assert again == result, "the same search has the same name and the same result"
    assert len(trained()) == 6, "nothing was left to try"


def test_a_bad_trial_is_pruned(toy: Path) -> None:
    space = {"build.x": Values(values=[1, 2, 3, 4, 5, 1000])}
    began = time.monotonic()
    result = search(run="toy", space=space, sampler="grid", pruner="median", name="pruned")
    assert time.monotonic() - began < 60, "the search waited for it"
    assert states("pruned") == {"complete": 5, "pruned": 1}
    last = trained()[-1]
    assert last["build"]["x"] == 1000
    assert gone(last["process"])
    assert result["validation_loss"] == pytest.approx(1 + 1 / 3)
    run = mlflow_runs()["trial 5"]
    assert (run.data.tags["state"], run.data.tags["epochs"]) == ("pruned", "1")
    assert not list(Path("scratch/tune/pruned/trials").iterdir()), "no checkpoint stays"


def test_a_pruned_trial_ends_after_its_epoch_and_its_process_goes_on(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_workers, "STOP_GRACE_S", 60)  # the machine may be busy
    space = {"build.x": Values(values=[1, 2, 3, 4, 5, 1001, 6])}
    search(run="toy", space=space, sampler="grid", name="gentle")
    assert states("gentle") == {"complete": 5, "pruned": 2}
    assert len({note["process"] for note in trained()}) == 1
    stopped = study("gentle").get_trials()[5]
    assert len(stopped.user_attrs["history"]) == 1


def test_a_process_that_has_grown_is_replaced(toy: Path) -> None:
    does("grow")
    search(run="toy", space={"build.x": Values(values=[1, 2, 3, 4])}, sampler="grid", name="big")
    processes = [note["process"] for note in trained()]
    assert processes[0] == processes[1] == processes[2], "two GiB more is too much"
    assert processes[3] != processes[2]


def test_a_failed_trial_is_recorded_with_the_reason(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    does("break at 2")
    command = "tune toy build.x=[1,2,3] --sampler grid --name part"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert states("part") == {"complete": 2, "failed": 1}
    failed = study("part").get_trials()[1]
    assert failed.user_attrs["error"] == "ValueError: sizes do not fit"
    assert mlflow_runs()["trial 1"].info.status == "FAILED"
    table = pd.read_csv("scratch/tune/part/report/trials.csv")
    assert table.loc[1, "note"] == "ValueError: sizes do not fit"


@pytest.mark.parametrize(
    ("what", "reason"), [("break", "sizes do not fit"), ("diverge", "validation_loss is nan")]
)
def test_a_search_fails_with_the_reason_where_all_trials_fail(
    toy: Path, what: str, reason: str
) -> None:
    does(what)
    with pytest.raises(RuntimeError, match=f"none of 2 trials completed.*{reason} .2 times"):
        search(run="toy", space={"build.x": Values(values=[1, 2])}, sampler="grid", pruner="none")
    parent = next(run for name, run in mlflow_runs().items() if name.startswith("tune"))
    assert parent.info.status == "FAILED"


def test_the_same_parameters_are_trained_once(toy: Path) -> None:
    space = {"build.x": Values(values=[1, 2])}
    given: dict[str, Any] = {"sampler": "random", "pruner": "none", "name": "twins"}
    search(run="toy", space=space, trials=8, max_concurrency=3, **given)
    assert states("twins") == {"complete": 8}
    assert sorted(note["build"]["x"] for note in trained()) == [1, 2]
    assert all(copy.value is not None for copy in study("twins").get_trials()[2:])
    twins = [t for t in study("twins").get_trials() if "same_as" in t.user_attrs]
    assert len(twins) == 6
    for twin in twins:
        first = study("twins").get_trials()[twin.user_attrs["same_as"]]
        assert (first.params, first.value) == (twin.params, twin.value)


def test_a_search_repeats_and_a_resumed_one_has_the_same_trials(toy: Path) -> None:
    space = {
        "build.learning_rate": Range(low=0.001, high=1, log=True),
        "build.x": Range(low=1, high=99),
    }
    search(run="toy", space=space, trials=3, name="once")
    search(run="toy", space=space, trials=1, name="twice")
    search(run="toy", space=space, trials=3, name="twice")
    one, two = ([t.params for t in study(name).get_trials()] for name in ("once", "twice"))
    assert one == two
    assert len({trial["build.learning_rate"] for trial in one}) == 3
    for drawn in one:
        assert isinstance(drawn["build.x"], int)
        assert 0.001 <= drawn["build.learning_rate"] <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"build.y": Values(values=[1])}}, "no 'build.y'.*'build.x'"),
        ({"space": {"data": Values(values=["other"])}}, "runs.toy has no 'data'"),
        ({"space": {}}, "space: empty; name one of build.x"),
        ({"space": {"build.x": Values(values=[1, 13])}}, "x: too odd"),
        ({"space": {"build.does": Range(low=1, high=2)}}, "build.does: not a number: give values"),
        ({"space": {"build.x": Range(low=1, high=3, step=0.5)}}, "step must be a whole number"),
        (
            {"space": {"build.learning_rate": Range(low=0.1, high=1)}, "sampler": "grid"},
            "with a step",
        ),
        ({"run": "toi"}, "no entry 'toi'; did you mean 'toy'"),
        ({"objective": "test_loss"}, "'test_loss' is not of the validation split"),
    ],
)
def test_a_wrong_parameter_is_an_error_before_anything_runs(
    toy: Path, changes: dict[str, Any], message: str
) -> None:
    given = {"run": "toy", "space": {"build.x": Values(values=[1])}, "sampler": "random", **changes}
    with pytest.raises(errors.ParamsError, match=message):
        search(**given)
    assert trained() == []


def test_missing_data_are_an_error_with_the_command(toy: Path) -> None:
    shutil.rmtree("data/toy")
    with pytest.raises(errors.ParamsError, match="dvc repro prepare@toy"):
        search(run="toy", space={"build.x": Values(values=[1])})


@pytest.mark.parametrize("given", [{"low": 3, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_an_invalid_range_is_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"low \(3\) must be below|must be above 0"):
        Range(**given)


def test_another_search_of_the_same_name_is_an_error_with_the_differences(toy: Path) -> None:
    space = {"build.x": Values(values=[1, 2])}
    search(run="toy", space=space, trials=1, name="mine")
    does("well", x=99)
    # The values of searched parameters and the pruner do not determine a result.
    search(run="toy", space=space, trials=2, name="mine", pruner="hyperband")
    assert sum(states("mine").values()) == 2
    with pytest.raises(errors.ParamsError, match=r"sampler: stored 'bayesian', given 'random'"):
        search(run="toy", space=space, sampler="random", name="mine")
    other = {"build.x": Values(values=[1, 2, 3])}
    with pytest.raises(
        errors.ParamsError, match=r"build\.x\.values: stored \[1, 2\], given \[1, 2, 3\]"
    ):
        search(run="toy", space=other, name="mine")
    does("well", learning_rate=0.7)
    with pytest.raises(errors.ParamsError, match=r"build\.learning_rate: stored 0\.5, given 0\.7"):
        search(run="toy", space=space, name="mine")


def test_a_change_of_code_stops_the_search_and_its_trials(toy: Path) -> None:
    does("touch")
    space = {"build.x": Values(values=[1, 2])}
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"model\.py: changed since the search began"):
        search(run="toy", space=space, sampler="grid", max_concurrency=2, name="old")
    assert time.monotonic() - began < 50, "the search waited for it"
    assert all(gone(note["process"]) for note in trained())
    counts = states("old")
    assert counts["complete"] + counts["killed"] == 2
    assert counts["killed"] == counts["waiting"] >= 1, "a stopped trial is enqueued again"
    status = {name: run.info.status for name, run in mlflow_runs().items()}
    assert (status.pop("tune old"), status["trial 1"]) == ("FAILED", "KILLED")


def test_an_unavailable_tracking_server_loses_no_result(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"build.x": Values(values=[1, 2])}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@127.0.0.1:9")
    result = search(run="toy", space=space, sampler="grid")
    assert states(result["name"]) == {"complete": 2}
    assert mlflow_runs() == {}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    search(run="toy", space=space, sampler="grid")
    assert len(trained()) == 2
    tracked = mlflow_runs()
    assert len(tracked) == 3
    assert all(run.info.status == "FINISHED" for run in tracked.values())
    assert tracked["trial 0"].data.tags["epochs"] == "3"


def begin(folder: Path, server: str, label: str, **given: Any) -> subprocess.Popen[str]:
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / "scratch" / "flow.py").write_text(FLOW)
    return servers.start(
        [sys.executable, "scratch/flow.py", json.dumps(given)],
        cwd=folder,
        env={**os.environ, "PREFECT_API_URL": server, "FLOW": label},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_flows_share_a_search_and_train_nothing_twice(toy: Path, prefect_server: str) -> None:
    does("wait for another flow")
    given: dict[str, Any] = {"space": {"build.x": {"low": 1, "high": 900}}, "trials": 6}
    given |= {"run": "toy", "name": "shared", "pruner": "none"}
    flows = [begin(toy, prefect_server, label, **given) for label in ("one", "two")]
    outputs = [flow.communicate(timeout=100)[0] for flow in flows]
    assert [flow.returncode for flow in flows] == [0, 0], outputs
    assert {note["flow"] for note in trained()} == {"one", "two"}
    drawn = [note["build"]["x"] for note in trained()]
    assert len(drawn) == len(set(drawn)), "trained twice"
    assert states("shared") == {"complete": 6}, "as many as requested, over both"
    results = [re.findall("RESULT (.*)", text) for text in outputs]
    assert results[0] == results[1], "both have the results of the whole search"
    assert len(mlflow_runs()) == 7


def test_a_killed_search_resumes_from_the_last_checkpoint(toy: Path, prefect_server: str) -> None:
    does("hang")
    given: dict[str, Any] = {"run": "toy", "trials": 2, "sampler": "grid", "name": "killed"}
    space = {"values": [1, 2]}
    flow = begin(toy, prefect_server, "one", space={"build.x": space}, **given)
    until(lambda: list(toy.glob("scratch/tune/killed/trials/*/epoch")))
    until(lambda: next(toy.glob("scratch/tune/killed/trials/*/epoch")).read_text() == "2")
    flow.send_signal(signal.SIGKILL)
    flow.communicate()
    until(lambda: gone(trained()[0]["process"]), 10)

    (toy / "stages" / "trial.py").write_text(TRIAL.replace('== "hang"', '== ""'))
    search(space={"build.x": space}, **given)
    notes = [(note["build"]["x"], note["from"]) for note in trained()]
    assert sorted(notes) == [(1, 0), (1, 2), (2, 0)], "the first of them resumed after epoch 2"
    assert states("killed") == {"killed": 1, "complete": 2}
    status = {name: run.info.status for name, run in mlflow_runs().items()}
    assert status.pop("trial 0") == "KILLED"
    assert set(status.values()) == {"FINISHED"}


# Real trainings


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A checkout with a tiny data set and a run of two epochs."""
    folder = tmp_path_factory.mktemp("real")
    shutil.copy(mlflow_tables, folder / "mlflow.db")
    for name in ("ostinato", "stages", "dvc.yaml"):
        copy_code(name, folder)
    values = default_values()
    tiny = values["runs"]["sketches-gru"]
    tiny["fit"]["epochs"] = 2
    with (folder / "params.yaml").open("w") as file:
        YAML().dump({**values, "runs": {"tiny": tiny}}, file)
    sketches = values["data"]["sketches"]
    raw, data = folder / "data" / "raw", folder / "data" / "sketches"
    for path in (raw, data):
        path.mkdir(parents=True)
    block = {"categories": ["circle", "fish", "house"], "per_class": 20}
    sources = params.module("sketches", "sources")
    params.bind(sources.doodles, block)(raw, folder, values["seed"])
    examples = params.module("sketches", "dataset")
    params.bind(examples.prepare, sketches["prepare"])(raw, data)
    return folder


def repeatable(history: list[Any]) -> list[dict[str, Any]]:
    timed = ("seconds", "sequences_per_second", "best")
    return [{k: v for k, v in record.items() if k not in timed} for record in history]


@pytest.mark.slow
def test_a_training_of_the_best_entry_has_the_same_history(
    real: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real)
    space = {
        "fit.learning_rate": Range(low=0.001, high=0.1, log=True),
        "build.units": Range(low=2, high=5),
    }
    result = search(run="tiny", space=space, trials=2, name="real")
    best = study("real").get_trials()[result["best"]]
    entry = params.load(result["entry"])["tiny-tuned"]
    assert entry["fit"]["learning_rate"] == best.params["fit.learning_rate"], "to the last digit"

    values = params.load()
    values["runs"] |= {"tiny-tuned": entry}
    with Path("params.yaml").open("w") as file:
        YAML().dump(values, file)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    subprocess.run(
        [sys.executable, "-m", "stages.train", "params.yaml", "tiny-tuned"],
        check=True,
        env=environment,
    )
    with Path("results/tiny-tuned/history.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert repeatable(rows) == repeatable(best.user_attrs["history"])


@pytest.mark.slow
def test_a_worker_has_the_digits_of_a_fresh_process_for_each_trial(
    real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a training with other graphs, another precision, or another length."""
    monkeypatch.chdir(real)
    plan = bench.plan_of("params.yaml", "tiny")
    one = bench.with_fit(plan, learning_rate=0.01)
    longer = bench.with_fit(plan, learning_rate=0.02, epochs=3, batch_size=16)
    half = {**one, "runtime": {"precision": "mixed_bfloat16"}}
    (fresh,) = bench.train([one])
    *others, again = bench.train([longer, half, one])
    assert again == fresh
    assert fresh not in others
    assert [len(history) for history in others] == [3, 2]


@pytest.mark.slow
def test_a_killed_trial_resumes_with_the_same_history(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(real)
    values = params.load()
    plan = {key: values[key] for key in ("seed", "runtime")} | {"run": values["runs"]["tiny"]}
    plan["study"] = "params.yaml"
    monkeypatch.setattr(trial, "this_machine", Machine)  # TensorFlow has started here

    def train(folder: Path) -> tuple[str, list[dict[str, Any]]]:
        trial.train(**plan, folder=folder)
        printed = capsys.readouterr().out
        return printed, [json.loads(line) for line in printed.splitlines() if line.startswith("{")]

    _, whole = train(tmp_path / "whole")
    assert [record["epoch"] for record in whole] == [1, 2]
    command, pipe = [sys.executable, "-m", "stages.trial", "train"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        request = {"plan": plan, "folder": str(tmp_path / "cut")}
        print(json.dumps(request), file=process.stdin, flush=True)
        interrupted = json.loads(next(line for line in process.stdout if line.startswith("{")))
        process.kill()
    _, resumed = train(tmp_path / "cut")
    assert resumed[0]["seconds"] == interrupted["seconds"], "the first epoch ran once"
    assert repeatable(resumed) == repeatable(whole)


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({"build.units": [4, 0]}, "units: Input should be greater than or equal to 1, found 0"),
        ({"build.units": [4.5]}, "units: Input should be a valid integer"),
        ({"fit.learning_rate": [0.1, 11]}, "rate: Input should be less than or equal to 10"),
        ({"build.cell": ["gru", "gur"]}, "cell: Input should be 'simple', 'lstm' or 'gru'"),
    ],
)
def test_each_value_is_checked_against_the_signature(
    real: Path, monkeypatch: pytest.MonkeyPatch, space: dict[str, list[Any]], problem: str
) -> None:
    monkeypatch.chdir(real)
    values = params.load()
    plan = ("params.yaml", values["seed"], values["runtime"], values["runs"]["tiny"], space)
    checked = trial.check(*plan, "validation_accuracy")
    assert len(checked["problems"]) == 1
    assert problem in checked["problems"][0]
    assert checked["direction"] == "maximize"
    assert trial.check(*plan, "validation_loss")["direction"] == "minimize"
    kinds = {"build.units": "int", "fit.learning_rate": "float", "build.cell": "other"}
    assert checked["types"] == {name: kinds[name] for name in space}
    assert all(checked["files"].values())
    with pytest.raises(errors.ParamsError, match="no 'validation_acuracy'; did you mean"):
        trial.check(*plan, "validation_acuracy")


def test_the_figures_of_a_search_are_reproducible(tmp_path: Path) -> None:
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "state": ["complete", "failed", "complete", "pruned"],
            "value": [0.5, float("nan"), 0.3, 40.0],
            "fit.learning_rate": [0.001, 0.01, 0.1, 0.05],
            "build.cell": ["gru", "lstm", "gru", "lstm"],
        }
    )
    curves = pd.DataFrame(
        {"trial": [0, 0, 2, 3], "state": "complete", "epoch": [1, 2, 1, 1], "value": [2, 1, 1, 9.0]}
    )
    logs = {"fit.learning_rate": True, "build.cell": False}
    drawn = [
        lambda: tuning_figures.trials(trials, "validation_loss", True),
        lambda: tuning_figures.learning_curves(curves, 2, "validation_loss"),
        lambda: tuning_figures.parameters(trials, logs, "validation_loss"),
    ]
    for draw in drawn:
        for file in ("one.png", "two.png"):
            store.write_figure(tmp_path / file, draw())
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    (axes,) = drawn[0]().axes
    best = next(line for line in axes.lines if line.get_label() == "best so far")
    assert list(best.get_ydata()) == [0.5, 0.3]  # type: ignore[arg-type]
    assert axes.get_yscale() == "log", "the outlier hides the rest"
