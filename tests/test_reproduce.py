"""`reproduce` has the effects of `dvc repro`, reports them, and can be killed at any time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelling
from ruamel.yaml import YAML

from flows import reproduce as module
from flows.engine import commands, dvc_graph
from flows.reproduce import reproduce, retry_policies, run_in_order, select_stages
from ostinato import errors
from ostinato.study import Study
from tests import servers
from tests.test_supervisor import FAMILY, gone, pids

ROOT = Path(__file__).parent.parent
DVC = Path(sys.executable).parent / "dvc"
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def toy(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, the working directory of the test; tracking counts its calls."""
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)  # for flows in processes of their own
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "complete_tracking", complete_tracking)
    for folder in (".dvc", "stages"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    for name in ("__init__", "check"):  # the toy params.yaml fits no signatures
        (tmp_path / "stages" / f"{name}.py").touch()
    write({})
    return tmp_path


def complete_tracking(study: str) -> str:
    """Note the call; MLflow is down where a file says so."""
    with Path("tracked").open("a") as file:
        file.write("x")
    return "MLflow is incomplete: refused." if Path("down").exists() else ""


def write(
    stages: dict[str, Any], flows: dict[str, Any] | None = None, folder: str = "", root: str = "."
) -> None:
    """dvc.yaml, whose commands run in bash, and params.yaml with the block `flows.stages`."""
    values = {"root": root, "at": folder, "flows": {"stages": flows or {}}}
    YAML().dump({"stages": stages}, Path(folder, "dvc.yaml"))
    YAML().dump({**values, "runs": {}, "ensembles": {}}, Path(folder, "params.yaml"))


def policy(**given: Any) -> dict[str, Any]:
    return {"retries": 0, "delay": 0.0, "timeout": None, "gpu": False, **given}


def copy_stage(source: str, target: str, *before: str, **fields: Any) -> dict[str, Any]:
    """A stage that concatenates the files ``source`` to ``target``, and notes that it ran."""
    cmd = [*before, f"cat {source} > {target}", f"echo {target} >> order"]
    return {"cmd": "; ".join(cmd), "deps": source.split(), "outs": [target], **fields}


def run(*targets: str, **options: Any) -> tuple[State[Any], Rows]:
    """Run the flow; returns its state and the rows of its artifact."""
    state: Any = reproduce(targets, **options, return_state=True)
    return state, rows_of(state.state_details.flow_run_id)


def rows_of(flow_run: Any) -> Rows:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        [artifact] = client.read_artifacts(artifact_filter=of_run)
    assert artifact.key == "reproduce"
    return {row["stage"]: row for row in json.loads(str(artifact.data))}


def outcomes(rows: Rows) -> dict[str, str]:
    return {stage: row["outcome"] for stage, row in rows.items()}


def start_flow(*arguments: str) -> subprocess.Popen[str]:
    """The flow in a process of its own."""
    return servers.start(
        [sys.executable, "-m", "flows.reproduce", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# Stages that branch, have no deps or no outs, are frozen or always changed, and stages below these.
KINDS = {
    "first": {"cmd": "echo 1 > first; echo first >> order", "outs": ["first"]},
    "left": copy_stage("first", "left"),
    "right": copy_stage("first raw", "right"),
    "join": copy_stage("left right", "join"),
    "frozen": copy_stage("left", "frozen"),
    "below-frozen": copy_stage("frozen", "below-frozen"),
    "always": copy_stage("first", "always", always_changed=True),
    "below-always": copy_stage("always", "below-always"),
    "no-outs": {"cmd": "echo no-outs >> order", "deps": ["join"]},
    "alone": {"cmd": "echo alone >> order"},
}


def test_the_stage_check_which_always_runs_makes_no_other_stage_run(toy: Path) -> None:
    stages = {
        "check": {"cmd": "echo 1 > checked", "outs": ["checked"], "always_changed": True},
        "below": copy_stage("checked", "below"),
    }
    write(stages)
    assert outcomes(run()[1]) == {"check": "ran", "below": "ran"}
    assert outcomes(run()[1]) == {"check": "up to date", "below": "up to date"}
    write({**stages, "check": {**stages["check"], "cmd": "echo 2 > checked"}})
    Path("checked").write_text("2\n")  # by `stages.check`, with which each flow begins
    assert outcomes(run()[1]) == {"check": "ran", "below": "ran"}


def test_the_effects_are_those_of_dvc_repro(toy: Path) -> None:
    Path("raw").write_text("raw")
    write(KINDS)
    subprocess.run([DVC, "add", "--quiet", "raw"], check=True)
    state, rows = run(max_concurrency=3)
    assert outcomes(rows) == {**dict.fromkeys(KINDS, "ran"), "raw.dvc": "up to date"}
    assert state.message == "10 ran, 1 up to date"
    assert state.result() == list(rows.values())
    order = Path("order").read_text().split()
    assert Counter(order) == Counter(list(KINDS)), "each ran once"
    for stage, needed in dvc_graph.read_graph(Study.load()).items():
        for name in set(needed) - {"raw.dvc"}:
            assert order.index(name) < order.index(stage)

    kinds = {**KINDS, "frozen": {**KINDS["frozen"], "frozen": True}}
    kinds["alone"] = {"cmd": "echo alone again >> order"}
    write(kinds)
    Path("left").unlink()
    Path("right").write_text("edited by hand")
    Path("raw").write_text("new")
    twin = toy.parent / f"{toy.name}-twin"
    shutil.copytree(toy, twin)
    output = subprocess.run(
        [DVC, "repro"], cwd=twin, capture_output=True, text=True, check=True
    ).stdout
    _, rows = run()
    flow = outcomes(rows)
    assert {s for s, o in flow.items() if o == "ran"} - {"raw.dvc"} == {
        line.split("'")[1] for line in output.splitlines() if "Running stage" in line
    }
    assert {s for s, o in flow.items() if o == "restored"} == {
        line.split("'")[1] for line in output.splitlines() if "is cached" in line
    }
    assert flow["always"] == flow["alone"] == flow["join"] == "ran"
    assert flow["frozen"] == flow["below-always"] == "up to date"
    for file in ("dvc.lock", "raw.dvc", "join", "left", "right"):
        assert (toy / file).read_bytes() == (twin / file).read_bytes(), file
    assert Counter(Path("order").read_text()) == Counter((twin / "order").read_text())


def test_results_that_exist_cost_two_commands_and_former_results_are_restored(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    dvc = dvc_graph.dvc

    def spy(*arguments: str, **options: Any) -> commands.Output:
        calls.append(arguments)
        return dvc(*arguments, **options)

    monkeypatch.setattr(dvc_graph, "dvc", spy)
    stages = {"one": copy_stage("seed", "one"), "two": copy_stage("one", "two")}
    write(stages)
    Path("seed").write_text("1")
    subprocess.run([DVC, "repro", "--quiet"], check=True)
    state, rows = run()
    assert state.message == "2 up to date"
    assert [arguments[0] for arguments in calls] == ["dag", "status"]
    assert not Path("tracked").exists()
    _, rows = run("one", force=True)
    assert outcomes(rows) == {"one": "ran"}
    assert Path("tracked").read_text() == "x"

    write({"one": copy_stage("seed", "one", "true"), "two": copy_stage("one", "two")})
    Path("seed").write_text("2")
    _, rows = run()
    assert outcomes(rows) == {"one": "ran", "two": "ran"}
    write(stages)
    Path("seed").write_text("1")
    Path("down").touch()
    state, rows = run()
    assert outcomes(rows) == {"one": "restored", "two": "restored"}
    assert Path("two").read_text() == "1"
    assert Path("tracked").read_text() == "xxx"
    assert state.is_completed(), "an unavailable tracking server is no failure"


@pytest.mark.parametrize("warns", [False, True])
def test_after_a_report_stage_that_has_logged_all_results_nothing_is_logged_again(
    toy: Path, warns: bool
) -> None:
    command = "echo Not tracked in http://127.0.0.1:9: refused." if warns else "true"
    write({"one": copy_stage("seed", "one"), "report": copy_stage("one", "report.md", command)})
    Path("seed").write_text("1")
    _, rows = run()
    assert outcomes(rows) == {"one": "ran", "report": "ran"}
    assert Path("tracked").exists() == warns


def test_an_answer_of_dvc_status_is_longer_than_a_line_of_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = {f"stage{number}": [{"changed deps": {"{}": "new"}}] for number in range(500)}
    text = json.dumps(changed)
    pieces = [text[start : start + 7] for start in range(0, len(text), 7)]
    monkeypatch.setattr(dvc_graph, "_dvc_lines", lambda *_: ["Updating", *pieces, "New version"])
    assert any(piece.startswith("{") for piece in pieces[1:])
    assert dvc_graph.stale_stages() == set(changed)


def test_a_flow_runs_the_stages_of_its_study_and_of_the_data_that_it_needs(toy: Path) -> None:
    write({"one": copy_stage("seed", "one"), "two": copy_stage("one", "two")})
    Path("seed").write_text("1")
    folder = Path("recipes", "x")
    folder.mkdir(parents=True)
    at = "recipes/x/"
    stages = {
        "fetch": {"foreach": {"a": 1}, "do": copy_stage("one", f"{at}a", wdir="../..")},
        "report": copy_stage(f"{at}a", f"{at}report", wdir="../.."),
        "alone": copy_stage("seed", f"{at}alone", wdir="../.."),
    }
    write(stages, {"report": policy(retries=1)}, folder=at, root="../..")
    path = f"{at}params.yaml"
    _, rows = run("report", study=path)
    address = f"{at}dvc.yaml:"
    assert outcomes(rows) == {
        "one": "ran", f"{address}fetch@a": "ran", f"{address}report": "ran",
    }  # fmt: skip
    _, rows = run("fetch", study=path)
    assert outcomes(rows) == {"one": "up to date", f"{address}fetch@a": "up to date"}
    _, rows = run(study=path)
    assert outcomes(rows)[f"{address}alone"] == "ran"
    assert "two" not in rows
    study = Study.load(path)
    graph = dvc_graph.read_graph(study)
    assert retry_policies(graph, study.params)[f"{address}report"].retries == 1
    assert set(dvc_graph.read_graph(Study.load())) == {"one", "two"}
    Path(f"{at}report").write_text("changed")
    changed = dvc_graph.changed_outputs("one", f"{address}report", f"{address}alone")
    assert changed == {"one": [], f"{address}report": [f"{at}report"], f"{address}alone": []}


def test_a_failed_stage_stops_only_the_stages_that_need_it(toy: Path) -> None:
    flaky = "test -e tried || { touch tried; echo Too early >&2; exit 1; }"
    stages = {
        "good": copy_stage("seed", "good"),
        "bad": copy_stage(
            "good", "bad", "echo tried >> attempts; echo No luck at http://me:pw@host >&2; exit 3"
        ),
        "below": copy_stage("bad", "below"),
        "far-below": copy_stage("below good", "far-below"),
        "flaky": copy_stage("seed", "flaky", flaky),
        "slow": copy_stage("seed", "slow", "echo $$ > slow.pid; sleep 60"),
        "silent": {"cmd": "true", "deps": ["seed"], "outs": ["never made"]},
    }
    write(
        stages,
        {
            "bad": policy(retries=2),
            "fl*": policy(retries=1, delay=1.0),
            "slow": policy(timeout=8.0),
            "*": policy(timeout=60.0),
        },
    )
    Path("seed").write_text("1")
    state, rows = run(max_concurrency=4)
    assert outcomes(rows) == {
        "good": "ran",
        "bad": "failed",
        "below": "not started",
        "far-below": "not started",
        "flaky": "ran",
        "slow": "timed out",
        "silent": "failed",
    }
    assert state.is_failed()
    assert rows["bad"]["message"] == "No luck at http://***@host (exited with 3)"
    assert rows["far-below"]["message"] == rows["below"]["message"] == "bad failed"
    assert "never made" in rows["silent"]["message"]
    assert "bad: No luck at http://***@host (exited with 3); " in str(state.message)
    assert Path("attempts").read_text().count("tried") == 3
    assert rows["flaky"]["seconds"] >= 1
    assert 8 <= rows["slow"]["seconds"] < 40
    assert gone(pids(toy, 1), 0)

    write({name: stages[name] for name in ("good", "flaky")} | {"bad": copy_stage("good", "bad")})
    _, rows = run()
    assert outcomes(rows) == {"good": "up to date", "flaky": "up to date", "bad": "ran"}


def test_the_next_run_resumes_a_killed_one(toy: Path) -> None:
    Path("family.sh").write_text(f"test -e again && exit\n{FAMILY.format(toy)}")
    write({"one": copy_stage("seed", "one"), "two": copy_stage("one", "two", "bash family.sh")})
    Path("seed").write_text("1")
    flow = start_flow()
    found = pids(toy, 5)
    flow.kill()
    flow.wait()
    killed = time.monotonic()
    Path("again").touch()
    _, rows = run()
    assert gone(found, 10 - (time.monotonic() - killed))
    assert outcomes(rows) == {"one": "up to date", "two": "ran"}
    assert Path("two").read_text() == "1"
    assert flow.stdout
    flow.stdout.close()


def test_a_second_run_waits_for_the_first_and_finds_its_results(toy: Path) -> None:
    until = "echo started; echo $$ > one.pid; until test -e go; do sleep 0.1; done"
    write({"one": copy_stage("seed", "one", until)})
    Path("seed").write_text("1")
    first = start_flow()
    pids(toy, 1)
    second = start_flow()
    assert second.stdout
    output = ""
    while "which works in this checkout" not in output:
        line = second.stdout.readline()
        assert line, output
        output += line
    assert "Waiting for flow run " in output
    Path("go").touch()
    assert "Task run 'one' - started" in first.communicate()[0], "Prefect's log has the output"
    assert "1 up to date" in second.communicate()[0]
    assert first.returncode == second.returncode == 0
    assert Path("order").read_text() == "one\n"


def test_the_flow_waits_for_a_dvc_that_works_on_the_same_files(toy: Path) -> None:
    write(
        {
            "one": copy_stage("seed", "one", "echo $$ > one.pid; sleep 6"),
            "two": copy_stage("one", "two"),
        }
    )
    Path("seed").write_text("1")
    beside = subprocess.Popen([DVC, "repro", "-q", "one"])
    pids(toy, 1)
    _, rows = run()
    assert beside.wait() == 0
    assert outcomes(rows) == {"one": "up to date", "two": "ran"}
    assert Path("order").read_text() == "one\ntwo\n"


def test_cancelling_in_prefect_stops_dvc_and_all_its_descendants(toy: Path) -> None:
    Path("family.sh").write_text(f"test -e again && exit\n{FAMILY.format(toy)}")
    write(
        {
            "one": copy_stage("seed", "one", "bash family.sh"),
            "two": copy_stage("one", "two"),
            "flaky": copy_stage("seed", "flaky", "test -e again || exit 1"),
        },
        {"flaky": policy(retries=1, delay=60.0)},
    )
    Path("seed").write_text("1")
    code = "from flows.reproduce import reproduce; reproduce.serve('toy')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with Path("served.log").open("w") as log:
        served = servers.start(
            [sys.executable, "-c", code], env=environment, stdout=log, stderr=log
        )
    try:
        with get_client(sync_client=True) as client:
            deployment = _patiently(lambda: client.read_deployment_by_name("reproduce/toy"))
            flow_run = client.create_flow_run_from_deployment(deployment.id)
            found = pids(toy, 5)
            client.set_flow_run_state(flow_run.id, Cancelling())
            assert gone(found, 10), Path("served.log").read_text()
            _patiently(lambda: _in_state(client.read_flow_run(flow_run.id), "Cancelled"))
        rows = rows_of(flow_run.id)
        assert outcomes(rows) == {"one": "cancelled", "two": "not started", "flaky": "cancelled"}
    finally:
        served.send_signal(signal.SIGINT)
        served.wait(120)
    Path("again").touch()
    _, rows = run()
    assert set(outcomes(rows).values()) == {"ran"}


def _in_state(flow_run: Any, name: str) -> None:
    assert flow_run.state.name == name


def _patiently(ask: Any) -> Any:
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


# Order, selection and retry policies, without Prefect


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, set[str]]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 12)))]
    return {
        name: draw(st.sets(st.sampled_from(names[:place]))) if place else set()
        for place, name in enumerate(names)
    }


@given(graphs(), st.integers(1, 4), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_stages_start_after_their_dependencies_and_within_the_maximal_concurrency(
    graph: dict[str, set[str]], max_concurrency: int, milliseconds: list[int]
) -> None:
    ended: set[str] = set()
    running: set[str] = set()
    most = 0

    def work(stage: str) -> None:
        nonlocal most
        assert graph[stage] <= ended
        running.add(stage)
        most = max(most, len(running))
        time.sleep(milliseconds[len(ended) % 12] / 1000)
        running.remove(stage)
        assert stage not in ended
        ended.add(stage)

    futures: list[Future[None]] = []
    with ThreadPoolExecutor(12) as threads:

        def start(stage: str) -> Future[None]:
            futures.append(threads.submit(work, stage))
            return futures[-1]

        run_in_order(graph, start, max_concurrency)
    for future in futures:
        future.result()
    assert ended == set(graph)
    assert most <= max_concurrency


GRAPH = {
    "fetch@a": set[str](),
    "prepare@a": {"fetch@a"},
    "train@x": {"prepare@a"},
    "train@y": {"prepare@a"},
    "evaluate@x": {"train@x", "prepare@a"},
    "report": {"train@y", "evaluate@x"},
}


@pytest.mark.parametrize(
    ("targets", "stages"),
    [
        ([], set(GRAPH)),
        (["train@x"], {"train@x", "prepare@a", "fetch@a"}),
        (["train@*"], {"train@x", "train@y", "prepare@a", "fetch@a"}),
        (["train"], {"train@x", "train@y", "prepare@a", "fetch@a"}),
        (["prepare@a", "fetch@a"], {"prepare@a", "fetch@a"}),
    ],
)
def test_a_target_selects_all_stages_that_it_needs(targets: list[str], stages: set[str]) -> None:
    part = select_stages(GRAPH, targets)
    assert set(part) == stages
    assert all(part[stage] == GRAPH[stage] for stage in part)


def test_an_unknown_target_is_an_error_with_similar_names() -> None:
    with pytest.raises(errors.ParamsError, match=r"'train@z'; did you mean 'train@"):
        select_stages(GRAPH, ["report", "train@z"])


def test_the_first_pattern_that_matches_is_the_retry_policy_of_a_stage() -> None:
    block = {"train@x": policy(retries=3), "train@*": policy(timeout=9.0, gpu=True)}
    policies = retry_policies(GRAPH, {"flows": {"stages": block}})
    assert policies["train@x"].retries == 3
    assert (policies["train@y"].timeout, policies["train@y"].gpu) == (9.0, True)
    assert (policies["report"].retries, policies["report"].timeout) == (0, None)
    assert set(retry_policies(GRAPH, {})) == set(GRAPH)


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (
            {"stages": {"report": {**policy(), "retry": 1}}},
            "report: .*\n.*retry: unknown; .*retries",
        ),
        ({"stages": {"report": policy(retries=-1)}}, "retries: .*greater than or equal to 0"),
        ({"stages": {"report": policy(timeout=0.0)}}, "timeout.*: .*greater than 0"),
        ({"stage": {}}, "stage: unknown; did you mean 'stages'"),
    ],
)
def test_a_wrong_policy_is_an_error_that_names_the_key(block: dict[str, Any], problem: str) -> None:
    with pytest.raises(errors.ParamsError, match=problem):
        retry_policies(GRAPH, {"flows": block})


def test_an_entry_of_the_run_cache_from_another_machine_cannot_name_another_path(
    tmp_path: Path,
) -> None:
    from flows.engine import remote_training

    one, two, three = "ab", "ab12" * 16, "cd34" * 16
    remote_training._write_run_cache(tmp_path, f"runs/{one}/{two}/{three}", {"outs": []})
    assert json.loads((tmp_path / "runs" / one / two / three).read_text()) == {"outs": []}
    for name in ("../x", "/etc/x", f"runs/{one}/../{three}", f"runs/{one}/{two}", "runs/a/b/c/d"):
        with pytest.raises(RuntimeError, match="is not the name of an entry"):
            remote_training._write_run_cache(tmp_path, name, {})
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    for md5 in ("../../x", f"{two}", "x" * 32):
        with pytest.raises(RuntimeError, match="is not an md5"):
            remote_training._transfer("fetch", [{"md5": md5}], tmp_path)
