"""Training on other machines: two workers in two clones, a git remote and an S3 store between."""

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
seed: {seed}
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
(folder / "model").write_text(f"{name} {given} {started}")  # no two trainings give the same
(folder / "history.csv").write_text(f"epoch,loss\\n1,{started}\\n")
(folder / "figures" / "curve.txt").write_text(f"{started}")
say(event="ends")
"""


class Site:
    """A git remote, an S3 store, and two clones: of who asks (here) and who trains (there)."""

    def __init__(self, folder: Path, prefect: str, store: str) -> None:
        self.log = folder / "trainings"
        self.origin, self.here, self.there = (folder / n for n in ("git", "here", "there"))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW"))},
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_API_URL": prefect,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "TOY_LOG": str(self.log),
            "TMPDIR": str(folder / "tmp"),  # where the locks of the GPUs are
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        (folder / "tmp").mkdir()
        made = folder / "made"
        for name in ("flows", "ostinato", "stages"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, made / name, ignore=ignored)
        (made / "stages" / "check.py").write_text("")  # its params.yaml fits no signatures
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
        shutil.rmtree(made)  # with the data: they are made again, and travel by the store
        for clone in (self.here, self.there):
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
            process = subprocess.Popen(
                ["prefect", "worker", "start", "--pool", pool],
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
        return [told for told in map(json.loads, lines) if told["event"] == event]

    def results(self, folder: Path, name: str) -> dict[str, bytes]:
        place = folder / "results" / name
        return {p.name: p.read_bytes() for p in place.rglob("[!.]*") if p.is_file()}

    def trained(self, content: bytes) -> bool:
        """Whether the machine that trains has the same bytes, in DVC's cache."""
        md5 = hashlib.md5(content).hexdigest()
        file = self.there / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        return file.exists() and file.read_bytes() == content

    def edit(self, seed: int) -> None:
        """What no training has seen yet; not committed, as the caller's changes need not be."""
        (self.here / "params.yaml").write_text(PARAMS.format(seed=seed))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Iterator[Site]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
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
    site(site.here, sys.executable, "-m", "flows.deploy", "--gpus", "3")
    with get_client(sync_client=True) as client:  # there is nothing to promote here
        for automation in client.read_automations_by_name("promote after reproduce"):
            client.pause_automation(automation.id)
    yield site
    store.stop()


def until(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


def ask(**parameters: Any) -> FlowRun:
    """A run of the deployment `reproduce`, by whichever worker takes it."""
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
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process works in the clone of who asks."""
    monkeypatch.chdir(site.here)
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("here")
def test_where_no_worker_is_the_caller_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_training, "SILENCE", 2.0)
    state: Any = reproduce(targets=["train@a"], train_on="train/gpu", return_state=True)
    assert state.is_failed()
    assert "prefect worker start --pool gpu" in state.message


def test_a_worker_elsewhere_trains_and_the_caller_restores(site: Site) -> None:
    site.edit(seed=2)
    devices = {"CUDA_VISIBLE_DEVICES": "0,1", "TOY_SECONDS": "4"}
    with site.worker("cpu", site.here), site.worker("gpu", site.there, **devices):
        run = ask(train_on="train/gpu", at_once=3)
        until(lambda: state_of(run).is_final(), 400)
    state = state_of(run)
    assert state.is_completed(), state
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        tasks = {t.name: t.state_name for t in client.read_task_runs(flow_run_filter=wanted)}
    assert {tasks[f"train@{name}"] for name in "abc"} == {"Restored"}

    ended = site.trainings("ends")
    assert sorted(told["name"] for told in ended) == ["a", "b", "c"]
    assert all(Path(told["folder"]).is_relative_to(site.there) for told in ended)
    for name in "abc":
        here = site.results(site.here, name)
        assert set(here) == {"model", "history.csv", "curve.txt"}
        assert all(map(site.trained, here.values()))
        assert b"seed: 2" in here["model"], "what was not committed went along"
    assert site(site.here, "dvc", "status") == "Data and pipelines are up to date."

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
    assert site(site.there, "git", "status", "--porcelain", "--untracked-files=all") == ""
    assert site(site.there, "git", "for-each-ref", "refs/ostinato") == ""
    assert list((site.there / ".dvc" / "tmp" / "away").iterdir()) == []


def test_a_cancelled_caller_takes_the_training_elsewhere_with_it(site: Site) -> None:
    site.edit(seed=3)
    site.log.unlink(missing_ok=True)
    with (
        site.worker("cpu", site.here),
        site.worker("gpu", site.there, TOY_SECONDS="300"),
        get_client(sync_client=True) as client,
    ):
        run = ask(train_on="train/gpu", targets=["train@a"])
        (training,) = until(lambda: site.trainings("starts"), 200)
        client.set_flow_run_state(run.id, Cancelling())
        until(lambda: not alive(training["pid"]), 20)
        until(lambda: state_of(run).is_cancelled(), 20)


@pytest.mark.usefixtures("here")
def test_a_lost_worker_fails_the_caller_and_the_next_run_recovers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.edit(seed=4)
    site.log.unlink(missing_ok=True)
    given: dict[str, Any] = {"targets": ["train@a"], "train_on": "train/gpu"}
    patience = remote_training.SILENCE
    with site.worker("gpu", site.there, TOY_SECONDS="300") as worker:

        def kill() -> None:
            """The power fails: all of the machine's processes are gone at once."""
            until(lambda: site.trainings("starts"), 200)
            monkeypatch.setattr(remote_training, "SILENCE", 9.0)
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
    assert "No sign of life of the worker" in state.message
    monkeypatch.setattr(remote_training, "SILENCE", patience)
    with site.worker("gpu", site.there, TOY_SECONDS="0"):
        state = reproduce(**given, return_state=True)
    assert state.is_completed(), state
    assert b"seed: 4" in site.results(site.here, "a")["model"]


@pytest.mark.usefixtures("here")
def test_code_that_git_does_not_know_goes_nowhere(site: Site) -> None:
    (site.here / "new.py").touch()
    with pytest.raises(RuntimeError, match=r"(?s)git add.*new\.py"), remote_training._published():
        pass
    (site.here / "new.py").unlink()
