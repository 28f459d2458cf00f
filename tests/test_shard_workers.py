"""Flow runs that help to prepare drawings: they are started, may fail, and never stay."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas import State
from prefect.states import Completed, Failed, Running, Scheduled

from flows.engine import commands, remote_training, shard_workers
from ostinato import store
from ostinato.errors import MissingFileError, ParamsError
from ostinato.study import Study
from stages import fetch, prepare, prepare_shards
from tests.workspace import default_values


class Server:
    """Prefect's server as the caller sees it, with the states of its runs one after another."""

    def __init__(self, *states: list[State[Any]]) -> None:
        self.states = {uuid4(): list(each) for each in states}
        self.started: list[tuple[str, Any]] = []
        self.cancelled: list[int] = []

    def run_deployment(self, name: str, *, parameters: Any, **_: Any) -> Any:
        self.started.append((name, parameters))
        return SimpleNamespace(id=list(self.states)[len(self.started) - 1])

    def read_flow_run(self, run: Any) -> Any:
        states = self.states[run]
        return SimpleNamespace(state=states.pop(0) if len(states) > 1 else states[0])

    def set_flow_run_state(self, run: Any, state: Any) -> None:
        assert state.is_cancelling()
        self.cancelled.append(list(self.states).index(run))


def helped(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(shard_workers, "get_client", lambda **_: nullcontext(server))
    monkeypatch.setattr(shard_workers, "run_deployment", server.run_deployment)
    monkeypatch.setattr(shard_workers, "url_for", lambda run: None)
    monkeypatch.setattr(shard_workers, "get_run_logger", lambda: SimpleNamespace(info=print))
    monkeypatch.setattr(commands, "wait_or_stop", lambda seconds: None)
    monkeypatch.setattr(remote_training, "CANCEL_INTERVAL_S", 0.0)
    with shard_workers.with_helpers("prepare@a", "prepare/cpu", len(server.states)):
        assert server.started == [("prepare/cpu", {"stage": "prepare@a"})] * len(server.states)
        assert server.cancelled == []


def test_helpers_that_end_by_themselves_are_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([Running(), Running(), Completed()], [Failed()])
    helped(monkeypatch, server)
    assert server.cancelled == []


def test_helpers_that_have_not_begun_or_do_not_end_are_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_workers, "SETTLE_S", 0.05)
    server = Server([Scheduled()], [Running()], [Completed()])
    helped(monkeypatch, server)
    assert server.cancelled == [0, 1]


# The stage, and a process that helps it


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Unchecked: a check imports Keras.
    for stage in (fetch, prepare, prepare_shards):
        monkeypatch.setattr(stage, "load_study", Study.load)
    store.write_json(Path("scratch/params.yaml"), default_values())  # JSON is YAML
    Path("scratch/params.yaml").rename("params.yaml")
    return tmp_path


def test_only_the_stage_that_prepares_drawings_has_shards(checkout: Path) -> None:
    fetch.main("params.yaml", "fetch@sketches")
    assert shard_workers.has_shards("prepare@sketches")
    assert not shard_workers.has_shards("train@sketches")
    study = Study.load()
    folder = study.shards_folder("sketches")
    store.write_text(Path("data/raw/sketches/manifest.json"), "{}")
    assert folder != study.shards_folder("sketches")
    values = default_values()
    values["data"]["sketches"]["domain"] = "forecasting"
    assert Study(Path("params.yaml"), values).shards_folder("sketches") is None


def test_the_stage_leaves_nothing_and_continues_what_a_helper_has_made(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.main("params.yaml", "fetch@sketches")
    monkeypatch.setattr(prepare_shards, "START_S", 0.0)
    monkeypatch.setattr(prepare_shards, "POLL_S", 0.0)
    with pytest.raises(MissingFileError, match="has not started"):
        prepare_shards.main("params.yaml", "prepare@sketches")
    folder = Study.load().shards_folder("sketches")
    assert folder
    for name in ("read", "shards"):
        (folder / name).mkdir(parents=True)
    prepare_shards.main("params.yaml", "prepare@sketches")
    assert len(list(folder.glob("shards/*.npz"))) == 1
    links = {file.name: file.stat().st_ino for file in folder.glob("shards/sketches-*")}
    prepare.main("params.yaml", "prepare@sketches")
    assert len(links) == 6
    for name, inode in links.items():
        assert Path("data/sketches", name).stat().st_ino == inode
    assert not Path("scratch/prepare/sketches").exists()


def test_a_domain_without_shards_has_no_helpers(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "shards_folder", lambda self, data: None)
    with pytest.raises(ParamsError, match="domain sketches, which prepares a data set in one"):
        prepare_shards.main("params.yaml", "prepare@sketches")
