"""`python -m flows.deploy` creates all objects once, and they work."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import emit_event
from ruamel.yaml import YAML

from ostinato import params
from ostinato.errors import FlowError
from ostinato.study import Study
from tests import servers

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]

Deployments = dict[str, DeploymentResponse]
Posts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, Posts]]:
    """An address on loopback, and the bodies that were posted to it."""
    posts: Posts = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posts
    server.shutdown()
    server.server_close()
    thread.join()


def run_deploy(server: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: v for key, v in os.environ.items() if key != "PREFECT_API_URL"}
    return subprocess.run(
        [sys.executable, "-m", "flows.deploy", *arguments],
        cwd=ROOT,
        env={**environment, **({"PREFECT_API_URL": server} if server is not None else {})},
        capture_output=True,
        text=True,
        timeout=300,
    )


def deploy(server: str, *arguments: str) -> str:
    done = run_deploy(server, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed(prefect_server: str, webhook: tuple[str, Posts]) -> Deployments:
    deploy(prefect_server, "--gpus", "2", "--notify", webhook[0])
    with get_client(sync_client=True) as client:
        return {str(d.entrypoint) + " " + d.name: d for d in client.read_deployments()}


def test_a_second_deployment_changes_nothing(prefect_server: str, deployed: Deployments) -> None:
    *lines, maintain, monitor, retrain = deploy(prefect_server, "--gpus", "2").splitlines()
    assert {line for line in lines if not line.startswith("unchanged: ")} == set()
    assert re.fullmatch(r"scheduled: maintain, next run \d{4}-\d\d-\d\d 05:00 UTC", maintain)
    assert re.fullmatch(r"scheduled: monitor, next run \d{4}-\d\d-\d\d 04:00 UTC", monitor)
    assert re.fullmatch(r"scheduled: retrain, next run \d{4}-\d\d-\d\d 02:00 UTC", retrain)
    for name in ("work pool gpu", "limit gpu", "deployment retrain", "automation announce"):
        assert any(name in line for line in lines), name


def test_the_next_nights_are_scheduled(deployed: Deployments) -> None:
    """Prefect 3.8 with SQLAlchemy 2.1 accepts a schedule and creates no run."""
    retrain = next(d for d in deployed.values() if d.name == "retrain")
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[retrain.id]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(deployment_filter=wanted)
    runs = [run for run in found if run.state and run.state.name == "Scheduled"]
    starts = sorted(run.expected_start_time for run in runs if run.expected_start_time)
    assert len(starts) >= 3
    assert {(start.hour, start.minute) for start in starts} == {(2, 0)}
    assert starts[0] > datetime.now(UTC)
    assert starts[1] - starts[0] == timedelta(days=1)


FLOW = """
from pathlib import Path
from prefect import flow

@flow
def tick(file: str):
    with Path(file).open("a") as opened:
        opened.write("x")
"""


def test_a_worker_completes_a_scheduled_run(
    deployed: Deployments, prefect_server: str, tmp_path: Path
) -> None:
    (tmp_path / "tick.py").write_text(FLOW)
    script = f"""
from prefect import flow
from prefect.client.schemas.schedules import IntervalSchedule
from datetime import timedelta
flow.from_source({str(tmp_path)!r}, "tick.py:tick").deploy(
    "tick", work_pool_name="cpu", parameters={{"file": {str(tmp_path / "ticks")!r}}},
    schedules=[IntervalSchedule(interval=timedelta(seconds=5))], print_next_steps=False,
)
"""
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_server,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    subprocess.run(
        [sys.executable, "-c", script], check=True, env=environment, timeout=120, cwd=tmp_path
    )
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("tick/tick")
        wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id]))

        def completed() -> bool:
            runs = client.read_flow_runs(deployment_filter=wanted)
            return any(
                run.auto_scheduled and run.state and run.state.is_completed() for run in runs
            )

        command = ["worker", "start", "--pool", "cpu", "--limit", "1"]
        worker = servers.start(
            [sys.executable, "-m", "prefect", *command],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(completed, seconds=120)
        finally:
            client.delete_deployment(deployment.id)
            servers.stop(worker)
    assert (tmp_path / "ticks").read_text().startswith("x")


def test_a_server_without_a_scheduler_is_an_error(tmp_path: Path) -> None:
    with servers.prefect(tmp_path, "--no-services") as server:
        done = run_deploy(server.url, "--gpus", "1", "--wait", "3")
        assert done.returncode == 1
        expected = (
            rf"FlowError: The server at {server.url}/ has scheduled no run of "
            r"(retrain|maintain|monitor) \(cron 0 [245] \* \* \*\) within 3 s, so its schedule "
            "never fires. It schedules a run on request, so its scheduler does"
        )
        assert re.match(expected, done.stderr)
        assert "prefect server services start" in done.stderr
        again = run_deploy(
            server.url, "--gpus", "1", "--wait", "1"
        )  # the run of the request is deleted
        assert again.returncode == 1


def test_a_server_that_cannot_schedule_is_an_error_with_its_response(
    monkeypatch: pytest.MonkeyPatch, deployed: Deployments
) -> None:
    from flows import deploy

    monkeypatch.setattr(deploy.Schedule, "runs", lambda self, client: [])
    with get_client(sync_client=True) as client:
        monkeypatch.setattr(
            client._client, "post", lambda path, json: httpx.Response(503, request=REQUEST)
        )
        with pytest.raises(FlowError, match="a run now: 503 Service Unavailable"):
            deploy.wait_for_runs(client, 0.0)


REQUEST = httpx.Request("POST", "http://127.0.0.1/api")


def test_without_an_address_nothing_is_deployed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    done = run_deploy(None)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("FlowError: PREFECT_API_URL is not set")
    assert "export PREFECT_API_URL=http://127.0.0.1:4200/api" in line


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "http://me:secret@127.0.0.1:9/api",
            r"=http://...@127.0.0.1:9/api: .*Connection refused",
        ),
        ("127.0.0.1:9/api", "127.0.0.1:9/api: .*missing an 'http://'"),
        ("{webhook}/api", "{webhook}/api: 501 "),
    ],
)
def test_a_wrong_address_is_an_error_in_one_line_that_names_it(
    address: str, message: str, webhook: tuple[str, Posts]
) -> None:
    done = run_deploy(address.format(webhook=webhook[0]))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("FlowError: No Prefect server responds at PREFECT_API_URL=")
    assert re.search(message.format(webhook=webhook[0]), line)
    assert "secret" not in line


def test_the_limits_are_the_number_of_gpus(deployed: Deployments) -> None:
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 2
        queues = {q.work_pool_name: q.concurrency_limit for q in client.read_work_queues()}
    assert queues["gpu"] == 2
    assert queues["cpu"] is None


def test_every_flow_has_a_deployment() -> None:
    flows = {
        f"{file.relative_to(ROOT).as_posix()}:{node.name}"
        for file in (ROOT / "flows").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if re.match(r"flow\b", ast.unparse(decorator))
    }
    assert len(flows) >= 6
    assert flows == {entry["entrypoint"] for entry in DEPLOYMENTS}


@pytest.mark.parametrize("entry", DEPLOYMENTS, ids=lambda entry: str(entry["name"]))
def test_every_parameter_has_a_type_and_a_description(
    deployed: Deployments, entry: dict[str, Any]
) -> None:
    schema: Any = deployed[f"{entry['entrypoint']} {entry['name']}"].parameter_openapi_schema
    for name, field in schema["properties"].items():
        assert len(field.get("description", "")) > 10, name
        assert {"type", "anyOf", "allOf", "$ref", "enum"} & set(field), name


def test_the_search_of_the_deployment_fits_the_default_study() -> None:
    (entry,) = [entry for entry in DEPLOYMENTS if entry["name"] == "tune"]
    given = entry["parameters"]
    run = Study(Path("params.yaml"), params.load(ROOT / "params.yaml")).entry("runs", given["run"])
    for name in given["space"]:
        part, _, key = name.partition(".")
        assert key in run[part], name


def test_retrain_monitor_and_maintain_are_scheduled(deployed: Deployments) -> None:
    crons = {d.name: [s.schedule.cron for s in d.schedules] for d in deployed.values()}  # type: ignore[union-attr]
    scheduled = {name: cron for name, cron in crons.items() if cron}
    hours = {"retrain": 2, "monitor": 4, "maintain": 5}
    assert scheduled == {name: [f"0 {hour} * * *"] for name, hour in hours.items()}


def test_no_deployment_contains_a_path_of_this_machine(deployed: Deployments) -> None:
    for deployment in deployed.values():
        assert str(ROOT) not in deployment.model_dump_json()


@pytest.fixture
def promotions(
    deployed: Deployments, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, dict[str, Any]], list[FlowRun]]:
    """Run `reproduce` by a deployment, in a study without stages; its runs of `promote`."""
    from flows import reproduce as module
    from flows.engine import dvc_graph

    (promote,) = [deployment.id for deployment in deployed.values() if deployment.name == "promote"]
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[promote]))
    study = Study(Path("recipes/x/params.yaml"), {"gates": {"a": {}}})
    monkeypatch.setattr(dvc_graph, "check_study", lambda path: study)
    monkeypatch.setattr(dvc_graph, "read_graph", lambda study: {"a": ()})
    monkeypatch.setattr(dvc_graph, "stale_stages", lambda *files: set())

    def run(deployment: str, values: dict[str, Any]) -> list[FlowRun]:
        study.params.clear()  # type: ignore[attr-defined]
        study.params.update(values)  # type: ignore[attr-defined]
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__NAME", deployment)
        with get_client(sync_client=True) as client:
            before = {run.id for run in client.read_flow_runs(deployment_filter=wanted)}
            module.reproduce(study=study.path.as_posix())
            after = client.read_flow_runs(deployment_filter=wanted)
        return [run for run in after if run.id not in before]

    return run


def test_promote_runs_after_the_deployment_reproduce_only(
    promotions: Callable[[str, dict[str, Any]], list[FlowRun]],
) -> None:
    """Without an event, which is lost where the server restarts meanwhile."""
    gates: dict[str, Any] = {"gates": {"a": {}}}
    assert promotions("retrain", gates) == []
    assert promotions("reproduce", {}) == []
    (run,) = promotions("reproduce", gates)
    assert run.deployment_id
    assert run.parameters == {"study": "recipes/x/params.yaml"}
    with get_client(sync_client=True) as client:
        assert not client.read_automations_by_name("promote after reproduce")
        client.pause_deployment(run.deployment_id)
        assert promotions("reproduce", gates) == []
        client.resume_deployment(run.deployment_id)


def test_what_an_operator_has_changed_stays(prefect_server: str, deployed: Deployments) -> None:
    by_name = {deployment.name: deployment for deployment in deployed.values()}
    retrain, tune = by_name["retrain"], by_name["tune"]
    (schedule,) = retrain.schedules
    (automation,) = automations("announce a champion")
    with get_client(sync_client=True) as client:
        client.update_deployment_schedule(
            retrain.id, schedule.id, active=False, schedule=CronSchedule(cron="0 3 * * *")
        )
        client.pause_deployment(tune.id)
        client.upsert_global_concurrency_limit_by_name("gpu", 5)
        client.pause_automation(automation.id)
        output = deploy(prefect_server)
        assert "updated: " not in output
        assert (
            "kept: retrain has cron 0 3 * * * UTC (paused); prefect.yaml has cron 0 2 * * * UTC "
            "(--reset-schedules takes it)" in output
        )
        assert "kept: tune has deployment paused; prefect.yaml has no schedule" in output
        assert "scheduled: retrain" not in output
        assert client.read_deployment(tune.id).paused
        (kept,) = client.read_deployment(retrain.id).schedules
        assert (kept.active, getattr(kept.schedule, "cron", "")) == (False, "0 3 * * *")
        assert client.read_global_concurrency_limit_by_name("gpu").limit == 5
        assert not automations("announce a champion")[0].enabled
        output = deploy(prefect_server, "--gpus", "2", "--reset-schedules")
        assert "kept: " not in output
        assert "scheduled: retrain" in output
        assert not client.read_deployment(tune.id).paused
        client.resume_automation(automation.id)


def automations(name: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return list(client.read_automations_by_name(name))


def test_outside_of_the_checkout_nothing_is_deployed(prefect_server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_API_URL": prefect_server, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}: no prefect.yaml; run in the root of the checkout" in done.stderr


def test_a_new_champion_is_posted_to_the_webhook(
    deployed: Deployments, webhook: tuple[str, Posts]
) -> None:
    payload = {"from": "3", "to": "4", "reason": 'better by 0.02 at 95%, "paired"'}
    emit_event(
        event="ostinato.champion.changed",
        resource={
            "prefect.resource.id": "ostinato.model.sketches",
            "prefect.resource.name": "sketches",
        },
        payload=payload,
    )
    until(lambda: webhook[1])
    (post,) = webhook[1]
    assert post.pop("occurred").startswith("20")
    assert post == {"event": "ostinato.champion.changed", "model": "sketches", "payload": payload}


COMPOSE = YAML(typ="safe").load(ROOT / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_names_in_compose_exist() -> None:
    named = {"configs": set(COMPOSE["configs"]), "volumes": set(COMPOSE["volumes"])}
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for other, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[other]), (name, other)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in named["volumes"], name
        for config in service.get("configs", []):
            assert config["source"] in named["configs"], name
        if target := service.get("build", {}).get("target"):
            assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^COPY (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert all((ROOT / source).exists() for source in stages)


@cache
def help_of(program: str, *words: str) -> str:
    """The help of a command."""
    command = [str(Path(sys.executable).parent / program), *words, "--help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert output.returncode == 0, output.stderr
    return output.stdout


@pytest.mark.parametrize("name", [n for n, service in SERVICES.items() if "build" in service])
def test_the_commands_in_compose_exist(name: str, deployed: Deployments) -> None:
    program, *rest = SERVICES[name]["command"].split()
    flags = {word for word in rest if word.startswith("--")}
    words = list(itertools.takewhile(lambda word: word not in flags, rest))
    text = help_of(program, *words)
    assert flags <= set(re.findall(r"--[a-z-]+", text))
    if "--pool" in rest:
        with get_client(sync_client=True) as client:
            client.read_work_pool(rest[rest.index("--pool") + 1])


def test_compose_opens_no_port_to_other_machines_and_contains_no_password() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert re.search(r":(v?[0-9]|RELEASE|cpu|gpu)", service["image"]), "no version"
        for key, value in service.get("environment", {}).items():
            assert value.startswith("${") or not re.search("PASSWORD|SECRET|KEY", key), (name, key)
    text = (ROOT / "compose.yaml").read_text()
    given = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert given == {"OSTINATO_GIT", "POSTGRES_PASSWORD", "STORE_PASSWORD", "STORE_USER"}
    assert not re.search(r"\$\{[A-Z_]*(PASSWORD|USER)[A-Z_]*:?-", text), "a default"


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.2)
