"""Training on another machine: workers in two clones, connected by a git remote and an S3 store."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from flows.engine import remote_training
from flows.reproduce import reproduce
from tests import servers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
BINARIES = Path(sys.executable).parent
PIPELINE = """
stages:
  prepare:
    cmd: mkdir data && echo numbers > data/numbers && echo more > data/more
    outs: [data]
  train:
    foreach: [a, b, c]
    do:
      cmd: python train.py ${item}
      params: [seed]
      deps: [train.py, data]
      outs: ["results/${item}/model"]
      plots:
        - results/${item}/history.csv: {cache: false}
        - results/${item}/figures: {cache: false}
"""
PARAMS = """
root: .
at: ""
seed: {seed}
runs: {{}}
ensembles: {{}}
flows:
  stages:
    train@*: {{retries: 0, delay: 0, timeout: null, gpu: true}}
"""
TRAIN = """
import json, os, sys, time
from pathlib import Path

name, started = sys.argv[1], time.time()
device = os.environ.get("CUDA_VISIBLE_DEVICES")

def say(**more):
    with open(os.environ["TOY_LOG"], "a") as file:
        about = {"name": name, "pid": os.getpid(), "folder": os.getcwd(), "device": device}
        file.write(json.dumps(about | {"time": time.time()} | more) + "\\n")

say(event="starts")
time.sleep(float(os.environ["TOY_SECONDS"]))
folder = Path("results", name)
(folder / "figures").mkdir(parents=True)
given = Path("data/numbers").read_text() + Path("params.yaml").read_text()
(folder / "model").write_text(f"{name} {given} {started}")  # differs in each training
(folder / "history.csv").write_text(f"epoch,loss\\n1,{started}\\n")
(folder / "figures" / "curve.txt").write_text(f"{started}")
say(event="ends")
"""


class Site:
    """A git remote, an S3 store, and two clones: of the caller and of the machine that trains."""

    def __init__(self, folder: Path, prefect: str, store: str) -> None:
        self.log = folder / "trainings"
        self.origin, self.caller, self.trainer = (
            folder / name for name in ("git", "caller", "trainer")
        )
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW"))},
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": prefect,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "TOY_LOG": str(self.log),
            "OSTINATO_LOCK_FOLDER": str(folder / "locks"),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        (folder / "locks").mkdir()
        made = folder / "made"
        for name in ("flows", "ostinato", "stages"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, made / name, ignore=ignored)
        (made / "stages" / "check.py").write_text("")  # the toy params.yaml fits no signatures
        for name in ("prefect.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, made / name)
        (made / "dvc.yaml").write_text(PIPELINE)
        (made / "train.py").write_text(TRAIN)
        (made / "params.yaml").write_text(PARAMS.format(seed=1))
        (made / ".dvc").mkdir()
        (made / ".dvc" / "config").write_text(
            "[core]\n    analytics = false\n    remote = store\n"
            f"['remote \"store\"']\n    url = s3://ostinato/dvc\n    endpointurl = {store}\n"
        )
        self(made, "git", "init", "--quiet", "--initial-branch=main")
        self(made, "git", "config", "user.email", "test@example.org")
        self(made, "git", "config", "user.name", "Test")
        self(made, "dvc", "repro", "--quiet", "prepare")
        self(made, "git", "add", "--all")
        self(made, "git", "commit", "--quiet", "--message", "a pipeline")
        self(folder, "git", "clone", "--quiet", "--bare", "made", "git")
        shutil.rmtree(made)  # with the data, which are computed again and transferred by the store
        for clone in (self.caller, self.trainer):
            self(folder, "git", "clone", "--quiet", "git", clone.name)

    def __call__(self, folder: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    @contextlib.contextmanager
    def worker(self, pool: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
        """`prefect worker start` in a clone, until the block ends."""
        with (folder.parent / f"worker-{pool}").open("a") as log:
            process = servers.start(
                [str(BINARIES / "prefect"), "worker", "start", "--pool", pool],
                cwd=folder,
                env=self.environment | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)

    def trainings(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def results(self, folder: Path, name: str) -> dict[str, bytes]:
        results = folder / "results" / name
        return {p.name: p.read_bytes() for p in results.rglob("[!.]*") if p.is_file()}

    def trained(self, content: bytes) -> bool:
        """Whether the machine that trains has the same bytes in DVC's cache."""
        md5 = hashlib.md5(content).hexdigest()
        file = self.trainer / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        return file.exists() and file.read_bytes() == content

    def edit(self, seed: int) -> None:
        """Change the parameters without a commit, so that no training is up to date."""
        (self.caller / "params.yaml").write_text(PARAMS.format(seed=seed))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Site]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line for each request
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    address = "http://{}:{}".format(*store.get_host_and_port())
    boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket="ostinato")
    site = Site(tmp_path_factory.mktemp("site"), prefect_server, address)
    site(site.caller, sys.executable, "-m", "flows.deploy", "--gpus", "3")
    with get_client(sync_client=True) as client:  # there is nothing to promote
        client.pause_deployment(client.read_deployment_by_name("promote/promote").id)
    yield site
    store.stop()


def until(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.2)
    return found


def start_run(**parameters: Any) -> FlowRun:
    """A run of the deployment `reproduce`, on any worker of its pool."""
    run = run_deployment("reproduce/reproduce", parameters=parameters, timeout=0)
    return cast(FlowRun, run)


def state_of(run: FlowRun) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


@pytest.fixture
def in_caller(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works in the caller's clone."""
    monkeypatch.chdir(site.caller)
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("in_caller")
def test_without_a_worker_the_caller_fails_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_training, "HEARTBEAT_TIMEOUT_S", 2.0)
    state: Any = reproduce(targets=["train@a"], train_on="train/gpu", return_state=True)
    assert state.is_failed()
    assert "prefect worker start --pool gpu" in state.message


def test_a_worker_trains_and_the_caller_restores_the_results(site: Site) -> None:
    site.edit(seed=2)
    devices = {"CUDA_VISIBLE_DEVICES": "0,1", "TOY_SECONDS": "4"}
    with site.worker("cpu", site.caller), site.worker("gpu", site.trainer, **devices):
        run = start_run(train_on="train/gpu", max_concurrency=3)
        until(lambda: state_of(run).is_final(), 400)
    state = state_of(run)
    assert state.is_completed(), state
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        tasks = {t.name: t.state_name for t in client.read_task_runs(flow_run_filter=wanted)}
    assert {tasks[f"train@{name}"] for name in "abc"} == {"Restored"}

    ended = site.trainings("ends")
    assert sorted(line["name"] for line in ended) == ["a", "b", "c"]
    assert all(Path(line["folder"]).is_relative_to(site.trainer) for line in ended)
    for name in "abc":
        found = site.results(site.caller, name)
        assert set(found) == {"model", "history.csv", "curve.txt"}
        assert all(map(site.trained, found.values()))
        assert b"seed: 2" in found["model"], "the snapshot has uncommitted changes"
    assert site(site.caller, "dvc", "status") == "Data and pipelines are up to date."

    # Two devices for three trainings: never two on one, and both are used.
    spans = [
        (one["device"], one["time"], two["time"])
        for one in site.trainings("starts")
        for two in ended
        if one["name"] == two["name"]
    ]
    assert {device for device, _, _ in spans} == {"0", "1"}
    for device, start, end in spans:
        others = [s for s in spans if s != (device, start, end) and s[0] == device]
        assert all(e <= start or s >= end for _, s, e in others), spans

    assert site(site.origin, "git", "for-each-ref", "refs/ostinato") == ""
    assert site(site.trainer, "git", "status", "--porcelain", "--untracked-files=all") == ""
    assert site(site.trainer, "git", "for-each-ref", "refs/ostinato") == ""
    assert list((site.trainer / ".dvc" / "tmp" / "remote-training").iterdir()) == []


def test_a_cancelled_caller_cancels_the_remote_training(site: Site) -> None:
    site.edit(seed=3)
    site.log.unlink(missing_ok=True)
    with (
        site.worker("cpu", site.caller),
        site.worker("gpu", site.trainer, TOY_SECONDS="300"),
        get_client(sync_client=True) as client,
    ):
        run = start_run(train_on="train/gpu", targets=["train@a"])
        (training,) = until(lambda: site.trainings("starts"), 200)
        client.set_flow_run_state(run.id, Cancelling())
        until(lambda: not alive(training["pid"]), 20)
        until(lambda: state_of(run).is_cancelled(), 20)


@pytest.mark.usefixtures("in_caller")
def test_a_lost_worker_fails_the_caller_and_the_next_run_succeeds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.edit(seed=4)
    site.log.unlink(missing_ok=True)
    given: dict[str, Any] = {"targets": ["train@a"], "train_on": "train/gpu"}
    timeout = remote_training.HEARTBEAT_TIMEOUT_S
    with site.worker("gpu", site.trainer, TOY_SECONDS="300") as worker:

        def kill() -> None:
            """Kill all processes of the machine at once, as a power failure does."""
            until(lambda: site.trainings("starts"), 200)
            monkeypatch.setattr(remote_training, "HEARTBEAT_TIMEOUT_S", 9.0)
            families: dict[int, list[int]] = {}
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    fields = stat.read_text().rpartition(")")[2].split()
                    families.setdefault(int(fields[1]), []).append(int(stat.parent.name))
            left = [worker.pid]
            while left:
                pid = left.pop()
                left += families.get(pid, [])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        state: Any = reproduce(**given, return_state=True)
        killer.join()
    assert state.is_failed()
    assert "The worker has sent no heartbeat" in state.message
    monkeypatch.setattr(remote_training, "HEARTBEAT_TIMEOUT_S", timeout)
    with site.worker("gpu", site.trainer, TOY_SECONDS="0"):
        state = reproduce(**given, return_state=True)
    assert state.is_completed(), state
    assert b"seed: 4" in site.results(site.caller, "a")["model"]


@pytest.mark.usefixtures("in_caller")
def test_code_that_git_does_not_track_is_an_error(site: Site) -> None:
    (site.caller / "new.py").touch()
    with pytest.raises(RuntimeError, match=r"(?s)git add.*new\.py"), remote_training._publish():
        pass
    (site.caller / "new.py").unlink()
