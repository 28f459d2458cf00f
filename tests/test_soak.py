"""Nights of `retrain` with drifting data, kills, a tracking server that is away, and two at once.

`pytest -m long tests/test_soak.py` runs a few nights; OSTINATO_SOAK_NIGHTS=200 runs that many, and
OSTINATO_SOAK_SECONDS ends earlier, and OSTINATO_SOAK_LOG=FILE gets a JSON line with the figures of
each night.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from tests import drifting, servers
from tests.soak import Proxy, Runner, usage

NIGHTS = int(os.environ.get("OSTINATO_SOAK_NIGHTS", "3"))
SECONDS = float(os.environ.get("OSTINATO_SOAK_SECONDS", "inf"))  # after which no night begins
LOG = os.environ.get("OSTINATO_SOAK_LOG")
DAY_S = 86_400.0
KEPT_NIGHTS = 15  # of which maintain keeps all
MAINTAIN_EVERY = 5
MAINTAIN_FROM = 40  # so that the growth without it can be seen


class Nights:
    """A checkout, its servers, and the processes in which its flows run."""

    def __init__(self, folder: Path, prefect: str, seed: int) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.checkout.mkdir()
        drifting.write_checkout(self.checkout)
        self.random = random.Random(seed)
        self.prefect = prefect
        self.counts: Counter[str] = Counter()
        self.seconds = {"calm": 8.0, "drift": 20.0}  # of a night, to choose when to kill it
        self.centre = 0.0
        self.nights: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.started = time.monotonic()

    @contextmanager
    def servers(self) -> Iterator[None]:
        port = servers.closed_port()
        log = (self.folder / "mlflow.log").open("w")
        self.mlflow = servers.start(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1"),
                *("--backend-store-uri", "sqlite:///mlflow.db"),
                *("--artifacts-destination", str(self.checkout / "mlartifacts")),
            ],
            cwd=self.checkout,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.proxy = Proxy(port)
        environment = {
            "PREFECT_API_URL": self.prefect,
            "PREFECT_HOME": str(self.folder),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.proxy.port}",
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.checkout / 'mlflow.db'}",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
        }
        try:
            deadline = time.monotonic() + 120
            while not servers._responds(f"http://127.0.0.1:{port}/health"):
                assert time.monotonic() < deadline, (self.folder / "mlflow.log").read_text()
                time.sleep(0.2)
            self.own = Runner(self.checkout, environment, self.folder / "own.log")
            self.other = Runner(self.checkout, environment, self.folder / "other.log")
            yield
        finally:
            self.proxy.close()
            self.own.close()
            self.other.close()
            servers.stop(self.mlflow)
            log.close()

    def night(self, number: int, *faults: str, drift: bool) -> None:
        """One night, with faults: killed, away (MLflow), twin (two runs at once)."""
        kind = "drift" if drift else "calm"
        if drift:
            self.centre += self.random.choice([-1, 1]) * self.random.uniform(2, 4)
        world = {"centre": self.centre, "seed": number}
        (self.checkout / "world.json").write_text(json.dumps(world))
        start, results = time.monotonic(), []
        if "away" in faults:
            delay = self.random.choice([0.0, self.random.uniform(0, self.seconds[kind])])
            self.own.send(flow="retrain")
            time.sleep(delay)
            self.proxy.cut()
            results.append(self.own.receive())
            self.proxy.open = True
        elif "killed" in faults:
            child = self.fork()
            time.sleep(self.random.uniform(0.0, 1.1 * self.seconds[kind]))
            os.kill(child["pid"], signal.SIGKILL)
            self.other(wait=child["pid"])
        elif "twin" in faults:
            child = self.fork()
            results.append(self.own(flow="retrain"))
            self.other(wait=child["pid"])
            results.append(json.loads(child["file"].read_text()))
        else:
            results.append(self.own(flow="retrain"))
            self.seconds[kind] = 0.5 * (self.seconds[kind] + results[0]["seconds"])
        self.counts.update([kind, *faults])
        for result in results:
            self.check_night(result, away="away" in faults)
        if number % MAINTAIN_EVERY == 0 and number >= MAINTAIN_FROM:
            self.maintain(KEPT_NIGHTS * 25.0 / DAY_S)
        if number % 9 == 1 and (self.checkout / "dvc.lock").exists():
            self.commit()
        self.nights.append(self.figures(number, kind, faults, start, results))
        if LOG:
            with Path(LOG).open("a") as file:
                file.write(json.dumps(self.nights[-1]) + "\n")

    def fork(self) -> dict[str, Any]:
        file = self.folder / "forked.json"
        file.unlink(missing_ok=True)
        return {"file": file, **self.other(flow="retrain", fork=True, file=str(file))}

    def check_night(self, result: dict[str, Any], away: bool) -> None:
        """The run is in both databases once; it has failed only where MLflow was away."""
        if away and result["state"] == "Failed":
            assert "MLflow" in result["message"] or "Not tracked" in result["message"], result
            self.counts["failed without MLflow"] += 1
            return
        assert result["state"] == "Completed", result
        self.counts["retrained" if ": retrained" in result["message"] else "not retrained"] += 1
        with get_client(sync_client=True) as client:
            run = client.read_flow_run(result["run"])
        assert run.state is not None
        assert run.state.is_completed()
        logged = [r for r in self.runs("retrain") if r.data.tags["flow_run"] == run.name]
        assert len(logged) == (0 if away and not logged else 1), run.name

    def maintain(self, days: float) -> None:
        result = self.own(
            flow="maintain", prefect_days=days, mlflow_days=days, undo_days=0, scratch_days=days
        )
        assert result["state"] == "Completed", result
        self.counts["maintained"] += 1

    def commit(self) -> None:
        drifting.git(self.checkout, "add", "-A")
        drifting.git(self.checkout, "commit", "-q", "--allow-empty", "-m", "results")
        self.commits.append(drifting.git(self.checkout, "rev-parse", "HEAD").strip())

    def figures(
        self, number: int, kind: str, faults: tuple[str, ...], start: float, results: list[Any]
    ) -> dict[str, Any]:
        def size(path: Path) -> int:
            return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file())

        return {
            "night": number,
            "kind": kind,
            "faults": faults,
            "seconds": round(time.monotonic() - start, 1),
            "total": round(time.monotonic() - self.started),
            "rss": usage(self.own.process.pid)["rss"],
            "files": usage(self.own.process.pid)["files"],
            "mlflow_rss": sum(usage(p)["rss"] for p in session(self.mlflow.pid)),
            "mlflow_files": sum(usage(p)["files"] for p in session(self.mlflow.pid)),
            "prefect.db": (self.folder / "prefect.db").stat().st_size,
            "mlflow.db": (self.checkout / "mlflow.db").stat().st_size,
            "mlartifacts": size(self.checkout / "mlartifacts"),
            "cache": size(self.checkout / ".dvc" / "cache"),
            "scratch": size(self.checkout / "scratch"),
            "messages": [r["message"][:60] for r in results],
        }

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.checkout / 'mlflow.db'}")

    def runs(self, stage: str | None = None) -> list[Any]:
        client = self.client()
        found = client.get_experiment_by_name("default/toy")
        query = f"tags.stage = '{stage}'" if stage else ""
        return list(client.search_runs([found.experiment_id], query, max_results=10_000))

    def check_end(self) -> None:
        """Aliases, lineage, lock files and databases agree; no run is unfinished."""
        client = self.client()
        assert {r.info.status for r in self.runs()} <= {"FINISHED", "FAILED", "KILLED"}
        (model,) = client.search_registered_models()
        assert {"champion", "previous"} <= model.aliases.keys()
        assert not model.tags.keys() & {"move"}
        tagged = {
            r.info.run_id: r.data.tags["alias"] for r in self.runs() if "alias" in r.data.tags
        }
        lock = YAML(typ="safe").load((self.checkout / "dvc.lock").read_text())["stages"]
        outs = {o["path"]: o["md5"] for stage in lock.values() for o in stage["outs"]}
        for alias in ("previous", "champion"):
            version = client.get_model_version("toy", model.aliases[alias])
            run = client.get_run(version.run_id)
            assert run.info.lifecycle_stage == "active"
            assert run.data.tags["model"] == version.tags["model"]
            if alias == "champion":
                assert tagged.pop(run.info.run_id) == "champion"
                assert outs[f"results/{version.tags['run']}/model"] == version.tags["model"]
                assert outs["data/toy"] == version.tags["data"]
            else:
                assert tagged.pop(run.info.run_id) == "previous"
            for md5 in (version.tags["model"], version.tags["data"]):
                self.assert_cached(md5)
            source = client.get_model_version_download_uri("toy", version.version)
            part = source.split("mlflow-artifacts:/")[1]
            served = self.checkout / "mlartifacts" / part / "artifacts" / "model" / "model.json"
            assert served.exists()
        assert tagged == {}
        assert drifting.dvc(self.checkout, "status").strip() == "Data and pipelines are up to date."
        for commit in self.commits:
            text = drifting.git(self.checkout, "show", f"{commit}:dvc.lock")
            for stage in YAML(typ="safe").load(text)["stages"].values():
                for out in stage["outs"]:
                    if not out["path"].endswith(("metrics.json", "report.md")):  # git has them
                        self.assert_cached(out["md5"])
        temporary = list((self.checkout / ".dvc" / "tmp").glob("retrain-*"))
        partial = list(self.checkout.glob("**/.partial.*"))
        assert temporary + partial + list((self.checkout / "scratch").glob("tmp*")) == []

    def check_runs(self) -> None:
        """No run in MLflow is doubled."""
        results = [r for r in self.runs() if "outs" in r.data.tags]
        doubled = Counter((r.data.tags["inputs"], r.data.tags["outs"]) for r in results)
        assert set(doubled.values()) == {1}
        names = Counter(r.data.tags["flow_run"] for r in self.runs("retrain"))
        assert set(names.values()) == {1}

    def assert_cached(self, md5: str) -> None:
        folder = self.checkout / ".dvc" / "cache" / "files" / "md5"
        file = folder / md5[:2] / md5[2:]
        assert file.exists(), md5
        if md5.endswith(".dir"):
            for entry in json.loads(file.read_text()):
                inner = entry["md5"]
                assert (folder / inner[:2] / inner[2:]).exists(), entry


def session(leader: int) -> list[int]:
    """The processes of a session."""
    out = subprocess.run(["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True)
    return [int(pid) for pid in out.stdout.split()]


def plan(number: int, chance: random.Random) -> tuple[list[str], bool]:
    """The faults of a night, and whether its data drift."""
    drift = number < 2 or chance.random() < 0.15
    if number % 5 == 1:
        return ["killed"], drift or chance.random() < 0.5
    if number % 15 == 0:
        return ["twin"], drift
    if number % 10 == 2:
        return ["away"], drift or (number > 2 and chance.random() < 0.3)
    return [], drift


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nights_with_faults_leave_a_consistent_checkout(tmp_path: Path) -> None:
    with servers.prefect(tmp_path) as server, temporary_settings({PREFECT_API_URL: server.url}):
        nights = Nights(tmp_path, server.url, seed=13)
        with nights.servers():
            for number in range(NIGHTS):
                if time.monotonic() - nights.started > SECONDS:
                    break
                faults, drift = plan(number, nights.random)
                nights.night(number, *faults, drift=drift)
            nights.night(NIGHTS, drift=False)  # without a fault
            nights.check_runs()
            nights.maintain(days=0.0)
            nights.check_end()
    print(json.dumps(nights.counts))
    settled = [n for n in nights.nights if n["night"] >= 5]
    if len(settled) > 20:
        early, late = settled[: len(settled) // 4], settled[-len(settled) // 4 :]
        for key, growth in {
            "rss": 1.1,
            "mlflow_rss": 1.2,
            "files": 1.1,
            "mlflow_files": 1.3,
        }.items():
            first, last = (max(n[key] for n in part) for part in (early, late))
            assert last <= growth * first, (key, first, last)
