"""A training of two ranks on workers in three clones, connected by a git remote and a folder."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows import deploy
from flows.engine import commands, remote_training
from flows.reproduce import reproduce
from ostinato import models
from ostinato.errors import FlowError
from tests import servers
from tests.workspace import Workspace

pytestmark = pytest.mark.slow

STAGE = "train@sketches-gru"
NAMES = ("one", "two", "three")


def until(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "timeout"
        time.sleep(0.5)
    return found


@contextlib.contextmanager
def workers(folder: Path, prefect: str) -> Iterator[None]:
    """A worker of the pool cpu in each clone, for one flow run at a time."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("DVC", "MLFLOW"))},
        "PREFECT_API_URL": prefect,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"]
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            process = servers.start(
                [*command, "--name", name, "--limit", "1"],
                cwd=folder / name,
                env=environment,
                stdout=stack.enter_context((folder / f"{name}.log").open("w")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(process.wait, 120)
            stack.callback(process.send_signal, signal.SIGTERM)
        yield


def create_deployment() -> None:
    """The deployment `train/cpu` with its pool, as `flows.deploy` creates it."""
    with get_client(sync_client=True) as client:
        deploy.create_pools(client)
        client.create_deployment(
            client.create_flow_from_name("train"),
            "cpu",
            work_pool_name="cpu",
            entrypoint="flows/engine/remote_training.py:train",
            pull_steps=[
                {"prefect.deployments.steps.set_working_directory": {"directory": "."}},
            ],
            job_variables={"working_dir": "."},
        )


def trainings(folder: Path) -> set[Path]:
    """The working directories of the processes that train below a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            cwd = (process / "cwd").readlink()
            if b"stages.train" in words and cwd.is_relative_to(folder):
                found.add(cwd)
    return found


def states(ranks: int) -> dict[str, str]:
    """The states of the flow runs of all trainings of so many ranks, by name and start."""
    names = [f"{STAGE} rank {rank} of {ranks}" for rank in range(ranks)]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=names))
        )
    return {f"{run.name} {run.id}": str(run.state and run.state.type.value) for run in runs}


@flow(name="caller")
def train_on_ranks(ranks: int) -> None:
    with commands.supervised():
        remote_training.run_remotely(STAGE, "train/cpu", ranks)


def test_two_ranks_train_as_one_process_does_and_all_start_or_none(
    tmp_path: Path, prefect_server: str, dvc_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Workspace(tmp_path / "caller", dvc_cache)

    def change(values: dict[str, Any]) -> None:
        run = values["runs"]["sketches-gru"]
        values["runs"] = {"sketches-gru": run}
        run["build"]["dropout"] = 0.0
        run["fit"] |= {"epochs": 2, "batch_size": 32}
        values["flows"]["stages"]["train@*"] |= {"retries": 0, "gpu": False}

    caller.edit(change)
    with (caller.folder / ".dvc" / "config").open("a") as file:
        file.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    caller.commit()
    caller("git", "clone", "--quiet", "--bare", ".", "../origin")
    caller("git", "remote", "add", "origin", "../origin")
    for name in NAMES:
        caller("git", "clone", "--quiet", "../origin", f"../{name}")
    create_deployment()
    with workers(tmp_path, prefect_server):
        caller("dvc", "repro", "--quiet", "prepare@sketches")
        caller.commit()
        caller(sys.executable, "-m", "stages.train", "params.yaml", "sketches-gru")
        shutil.move(caller.folder / "results", tmp_path / "alone")

        monkeypatch.chdir(caller.folder)
        monkeypatch.setenv("OSTINATO_RANKS_TIMEOUT", "3")
        with pytest.raises(FlowError) as raised:
            train_on_ranks(4)
        message = str(raised.value)
        assert "of 4 ranks had a worker within 3 s\n" in message
        assert "no worker took it" in message
        assert "Online workers of the pool cpu: one, three, two\n" in message
        until(lambda: set(states(4).values()) == {"CANCELLED"}, 60)

        monkeypatch.setenv("OSTINATO_RANKS_TIMEOUT", "300")
        wait = commands.wait_or_stop

        def wait_or_stop(seconds: float) -> None:
            if len(trainings(tmp_path)) == 2:
                raise commands.StoppedError("the flow was cancelled")
            wait(seconds)

        with monkeypatch.context() as patch:
            patch.setattr(commands, "wait_or_stop", wait_or_stop)
            with pytest.raises(commands.StoppedError):
                train_on_ranks(2)
        until(lambda: set(states(2).values()) == {"CANCELLED"}, 60)
        assert trainings(tmp_path) == set()

        monkeypatch.setattr("flows.reproduce.complete_tracking", lambda study: "")
        state: Any = reproduce([STAGE], train_on="train/cpu", ranks=2, return_state=True)
    assert state.is_completed(), state
    assert [row["outcome"] for row in state.result() if row["stage"] == STAGE] == ["restored"]
    assert sorted(states(2).values()) == ["CANCELLED", "CANCELLED", "COMPLETED", "COMPLETED"]
    together = caller.folder / "results" / "sketches-gru"
    assert '"ranks": 2' in (together / "training.json").read_text()
    alone = tmp_path / "alone" / "sketches-gru"
    expected, found = (pd.read_csv(folder / "history.csv") for folder in (alone, together))
    columns = [name for name in expected.columns if "second" not in str(name)]
    np.testing.assert_allclose(found[columns], expected[columns], rtol=1e-4, atol=1e-5)
    restore: Any = models.load("sketches", "rnn").restore
    ours, theirs = (restore(folder / "model").model.get_weights() for folder in (together, alone))
    for array, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-5)
    assert caller("git", "for-each-ref", "refs/ostinato") == ""
