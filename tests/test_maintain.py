"""Maintenance frees what is old, and never what a version with an alias or a commit needs."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Running

from flows.engine import (
    cache_retention,
    mlflow_retention,
    prefect_retention,
    scratch_retention,
)
from flows.engine.commands import StoppedError
from flows.engine.freed import Freed, MaintenanceError, readable, size_of, vacuum
from flows.maintain import maintain
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import runs
from tests import drifting
from tests.workspace import dvc_md5

ALL: dict[str, Any] = dict.fromkeys(
    ("prefect_days", "mlflow_days", "undo_days", "scratch_days"), 0.0
)
ALIASES = ("champion", "previous", "challenger", "shadow")


class History:
    """A checkout with commits, results in DVC's cache, and versions in MLflow, made by hand."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.made = 0
        for name, text in {"params.yaml": drifting.PARAMS, "dvc.yaml": drifting.STAGES}.items():
            (folder / name).write_text(text)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\nanalytics = false\n")
        self.git("init", "-q", "-b", "main")
        (folder / ".gitignore").write_text(
            "/data/\n/results/\nmlflow.db*\nmlartifacts/\nscratch/\n"
        )
        (folder / ".dvc" / ".gitignore").write_text("/tmp\n/cache\n")

    def git(self, *arguments: str) -> str:
        return drifting.git(self.folder, *arguments)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "state")

    def object(self) -> str:
        """A folder in DVC's cache; returns its md5."""
        self.made += 1
        source = self.folder / "scratch" / "source"
        source.mkdir(parents=True)
        for name in "ab":
            (source / name).write_text(f"{name} {self.made} {self.random.random()}")
        md5 = dvc_md5(source)
        entries = [{"md5": dvc_md5(source / name), "relpath": name} for name in "ab"]
        for entry in entries:
            file = self.file(entry["md5"])
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / entry["relpath"], file)
        file = self.file(md5)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(entries))
        shutil.rmtree(source)
        return md5

    def file(self, md5: str) -> Path:
        return cache_retention.object_file(self.folder / ".dvc" / "cache", md5)

    def whole(self, md5: str) -> bool:
        """Whether the cache has an object with all files of its folder."""
        if not self.file(md5).exists():
            return False
        entries = json.loads(self.file(md5).read_text())
        return all(self.file(entry["md5"]).exists() for entry in entries)

    def train(self) -> tuple[str, str]:
        """A night: new data and a new model in the working tree and dvc.lock; their md5s."""
        data, model = self.object(), self.object()
        stages = {
            "prepare@toy": ([], "data/toy", data),
            "train@toy-mean": ([("data/toy", data)], "results/toy-mean/model", model),
        }
        lock = {
            "schema": "2.0",
            "stages": {
                name: {
                    "cmd": "run",
                    "deps": [{"path": path, "hash": "md5", "md5": md5} for path, md5 in deps],
                    "outs": [{"path": out, "hash": "md5", "md5": md5}],
                }
                for name, (deps, out, md5) in stages.items()
            },
        }
        text = json.dumps(lock, indent=1).replace('"md5": "', '"md5": "')
        (self.folder / "dvc.lock").write_text(text)
        entry = self.folder / ".dvc" / "cache" / "runs" / "ab" / f"ab{self.made}" / f"cd{self.made}"
        entry.parent.mkdir(parents=True)
        entry.write_text(json.dumps({"cmd": "run", "outs": [{"path": "x", "md5": model}]}))
        return data, model

    def register(self, data: str, model: str, *aliases: str, **tags: str) -> Any:
        """A version of a result with its run and its files."""
        with mlflow_store.connected() as client:
            where = mlflow_store.experiment(client, "default/toy")
            outs, deps = {"results/toy-mean/model": model}, {"data/toy": data}
            run = client.create_run(
                where,
                tags={"inputs": model, runs.OUTS: json.dumps(outs), "deps": json.dumps(deps)},
            )
            client.set_terminated(run.info.run_id)
            with runs.logged_model(client, run, "toy-mean-served") as (folder, described):
                (folder / "model.txt").write_text(model)
            if not client.search_registered_models("name = 'toy'"):
                client.create_registered_model("toy")
            own = {"study": "params.yaml", "run": "toy-mean", "model": model, "data": data}
            version = client.create_model_version(
                "toy",
                described.artifact_path,
                run.info.run_id,
                {**own, **tags},
                model_id=described.model_id,
            )
            for alias in aliases:
                client.set_registered_model_alias("toy", alias, version.version)
            for stage in ("retrain", "promote"):
                extra = client.create_run(where, tags={"stage": stage})
                client.set_terminated(extra.info.run_id)
        return version

    def files_of(self, version: Any) -> Path:
        return Path(version.source.removeprefix("file://")) / "model.txt"

    def versions(self) -> dict[str, Any]:
        with mlflow_store.connected() as client:
            return {str(v.version): v for v in client.search_model_versions("name = 'toy'")}

    def active_runs(self) -> set[str]:
        with mlflow_store.connected() as client:
            where = mlflow_store.experiment(client, "default/toy")
            return {run.info.run_id for run in client.search_runs([where])}


@pytest.fixture
def history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_tables: Path, request: Any
) -> History:
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", mlflow_retention.DATABASE):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(mlflow_tables, folder)
    return History(folder, getattr(request, "param", 0))


@pytest.fixture
def no_gc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `mlflow gc`, a process of seconds."""
    monkeypatch.setattr(mlflow_retention, "collect_garbage", lambda *arguments: [])


def run(**parameters: Any) -> Any:
    """The final state of the flow."""
    return maintain(**parameters, return_state=True)


def rows(state: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the flow's result by store and kind."""
    return {(row["store"], row["what"]): row for row in state.result()}


@pytest.mark.parametrize(
    "history",
    [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))],
    indirect=True,
)
def test_whatever_happened_before_all_that_is_needed_stays_and_the_rest_goes(
    history: History, prefect_server: str
) -> None:
    chance = history.random
    needed: set[str] = set()
    results = []
    history.commit()
    history.git("branch", "other")
    for night in range(8):
        data, model = history.train()
        results.append((data, model))
        if chance.random() < 0.4 or night == 2:
            history.commit()
            needed |= {data, model}
            if chance.random() < 0.5:
                lock = Path("dvc.lock").read_text()
                history.git("checkout", "-q", "other" if night % 2 else "main")
                Path("dvc.lock").write_text(lock)  # as a night has left it
    (data, model), copied = history.train(), Path("dvc.lock").read_text()
    Path(".dvc/tmp").mkdir(exist_ok=True)
    Path(".dvc/tmp/retrain-toy.lock").write_text(copied)  # of a killed `retrain`
    needed |= {data, model}
    history.train()
    needed |= set(json.loads(Path("dvc.lock").read_text())["stages"]["train@toy-mean"]["outs"][0][
        "md5"
    ].split())  # fmt: skip
    kept: list[Any] = []
    gone: list[Any] = []
    names = list(ALIASES)
    chance.shuffle(names)
    for number, (data, model) in enumerate(results):
        tags = {"rolled back": "to version 1"} if number == 3 else {}
        aliases = [names.pop()] if names and (chance.random() < 0.5 or number > 3) else []
        version = history.register(data, model, *aliases, **tags)
        (kept if aliases or tags else gone).append(version)
        if aliases or tags:
            needed |= {data, model}
    objects = {md5 for pair in results for md5 in pair}

    told = run(**ALL, dry_run=True)
    assert told.is_completed(), told.message
    assert len(history.versions()) == len(results)
    assert all(history.whole(md5) for md5 in objects | needed)
    state = run(**ALL)
    assert state.is_completed(), state.message

    assert [md5 for md5 in needed if not history.whole(md5)] == []
    assert [md5 for md5 in objects - needed if history.file(md5).exists()] == []
    assert history.versions().keys() == {str(version.version) for version in kept}
    assert all(history.files_of(version).read_text() for version in kept)
    assert not any(history.files_of(version).exists() for version in gone)
    committed = cache_retention.referenced()
    sources = {version.run_id for version in kept}
    sources |= {version.run_id for version in gone if version.tags["model"] in committed}
    assert history.active_runs() == sources
    for file in Path(".dvc/cache/runs").glob("*/*/*"):
        (out,) = json.loads(file.read_text())["outs"]
        assert history.whole(out["md5"])
    for key in (("DVC", "objects that nothing refers to"), ("MLflow", "versions without an alias")):
        assert rows(told)[key]["count"] == rows(state)[key]["count"] > 0


def test_young_things_stay(history: History, prefect_server: str, no_gc: None) -> None:
    history.commit()
    history.register(*history.train(), "champion")
    history.register(*history.train())
    before = history.active_runs()
    state = run()
    assert state.is_completed(), state.message
    assert len(history.versions()) == 2
    assert history.active_runs() == before


def test_the_raw_data_of_a_champion_stay_night_after_night(
    history: History, prefect_server: str, no_gc: None
) -> None:
    raw = history.object()
    data, model = history.train()
    history.register(data, model, "champion")
    with mlflow_store.connected() as client:
        tags = {runs.OUTS: json.dumps({"data/toy": data}), "deps": json.dumps({"data/raw": raw})}
        prepared = client.create_run(mlflow_store.experiment(client, "default/toy"), tags=tags)
        client.set_terminated(prepared.info.run_id)
    history.train()  # the working tree and dvc.lock have other data now
    for _ in range(2):
        state = run(**ALL)
        assert state.is_completed(), state.message
        assert prepared.info.run_id in history.active_runs()
        assert history.whole(raw)


def test_without_mlflow_the_cache_stays_and_the_flow_fails(
    history: History, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = history.train()
    history.train()
    (history.folder / "scratch" / "tmpabc").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    state = run(**ALL)
    assert state.is_failed()
    assert "MLflow and DVC: MLflow at http://***@127.0.0.1:9" in state.message
    assert "secret" not in state.message
    assert history.whole(data)
    assert not (history.folder / "scratch" / "tmpabc").exists()


def test_without_any_champion_the_cache_stays_and_the_report_says_so(
    history: History, prefect_server: str, no_gc: None
) -> None:
    data, _ = history.train()
    history.train()
    state = run(**ALL)
    assert state.is_completed()
    assert "MLflow has no champion" in rows(state)[("DVC", "objects")]["note"]
    assert history.whole(data)


def test_the_deleted_run_of_a_champion_is_restored(history: History, prefect_server: str) -> None:
    version = history.register(*history.train(), "champion")
    with mlflow_store.connected() as client:
        client.delete_experiment(client.get_run(version.run_id).info.experiment_id)
    state = run(**ALL)
    assert state.is_completed(), state.message
    assert "toy 1 had been deleted" in rows(state)[("MLflow", "restored runs of versions")]["note"]
    assert version.run_id in history.active_runs()
    assert history.files_of(version).exists()


def test_a_champion_whose_files_are_marked_as_deleted_stops_the_removal(
    history: History, prefect_server: str
) -> None:
    version = history.register(*history.train(), "champion")
    with mlflow_store.connected() as client:
        (key,) = mlflow_retention.model_ids(version)
        client.delete_logged_model(key)
    state = run(**ALL)
    assert state.is_failed()
    assert "the files of toy, version 1, are marked as deleted, or gone" in state.message
    assert history.files_of(version).exists()


def test_a_server_needs_the_address_of_its_database(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (row,) = mlflow_retention.collect_garbage(1.0, 0.1, False)
    assert "set MLFLOW_BACKEND_STORE_URI" in row.note


def test_a_stopped_flow_does_not_go_on_with_the_next_store(
    history: History, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> list[Freed]:
        raise StoppedError("the flow was stopped")

    monkeypatch.setattr(mlflow_retention, "collect_garbage", stopped)
    monkeypatch.setattr(prefect_retention, "clean_server", lambda *_: pytest.fail("it went on"))
    assert "the flow was stopped" in run(**ALL).message


# DVC's cache


def test_every_version_of_a_lock_file_counts_on_any_branch(history: History) -> None:
    folders = [Path(), Path("recipes/x")]
    (history.folder / "recipes" / "x").mkdir(parents=True)
    (history.folder / "recipes/x/params.yaml").write_text(
        drifting.PARAMS.replace("root: .", "root: ../..").replace('at: ""', "at: recipes/x/")
    )
    chance, written = history.random, set()

    def write() -> None:
        md5 = f"{chance.getrandbits(128):032x}.dir"
        written.add(md5)
        folder = chance.choice(folders)
        (folder / "dvc.lock").write_text(f"stages:\n  a:\n    outs:\n    - md5: {md5}\n")
        if chance.random() < 0.3:
            plain = f"{chance.getrandbits(128):032x}"
            written.add(plain)
            (folder / "raw.dvc").write_text(f"outs:\n- md5: {plain}\n  path: raw\n")
        history.commit()

    for number in range(12):
        write()
        match chance.randrange(4):
            case 0:
                history.git("checkout", "-q", "-b", f"branch-{number}")
            case 1:
                history.git("checkout", "-q", "main")
            case 2:
                history.git("merge", "-q", "-X", "ours", "--no-edit", "HEAD~0")
    if history.git("branch", "--list", "branch-*"):
        history.git("checkout", "-q", "main")
        (branch, *_) = history.git("branch", "--list", "branch-*").split()
        history.git("merge", "-q", "-s", "ours", "-m", "merge", branch)
    history.git("rm", "-q", "--ignore-unmatch", "dvc.lock", "recipes/x/dvc.lock", "raw.dvc")
    history.commit()
    history.git("checkout", "-q", "--detach")
    write()
    assert written <= cache_retention.referenced()


def test_every_stash_counts(history: History) -> None:
    (history.folder / "dvc.lock").write_text("stages: {}\n")
    history.commit()
    written = {f"{number:032x}" for number in range(3)}
    for md5 in written:
        (history.folder / "dvc.lock").write_text(f"outs:\n- md5: {md5}\n")
        history.git("stash", "-q")
    assert written <= cache_retention.referenced()


def test_a_shallow_clone_does_not_know_what_commits_need(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.train()
    history.commit()
    history.commit()
    clone = ("git", "clone", "-q", "--depth=1", f"file://{history.folder}", str(tmp_path / "clone"))
    subprocess.run(clone, check=True)
    monkeypatch.chdir(tmp_path / "clone")
    with pytest.raises(MaintenanceError, match="--unshallow"):
        cache_retention.referenced()


def test_outside_of_git_the_working_tree_counts(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = history.train()
    shutil.rmtree(".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(history.folder.parent))
    assert cache_retention.referenced() == {data, model}


def test_a_cache_that_others_use_stays(history: History, tmp_path: Path) -> None:
    with Path(".dvc/config").open("a") as config:
        config.write(f"[cache]\n    dir = {tmp_path / 'shared'}\n")
    with pytest.raises(MaintenanceError, match="outside of the checkout"):
        cache_retention.clean_cache([], dry_run=False)


# Prefect and scratch/


@flow(name="old")
def old() -> None:
    create_markdown_artifact("text", key="of-an-old-run")


def test_old_flow_runs_go_with_their_artifacts_and_lost_ones_are_marked(
    history: History, prefect_server: str, no_gc: None
) -> None:
    ended = old(return_state=True).state_details.flow_run_id
    with get_client(sync_client=True) as client:
        lost = client.create_flow_run(old, state=Running())
        state = run(**ALL)
        artifacts = ArtifactFilter(key=ArtifactFilterKey(any_=["of-an-old-run"]))
        assert client.read_artifacts(artifact_filter=artifacts) == []
        remaining = {run.id for run in client.read_flow_runs()}
        assert ended not in remaining
        assert state.state_details.flow_run_id in remaining
        marked = client.read_flow_run(lost.id).state
        assert marked is not None
        assert marked.is_crashed()
        run(**ALL)
        assert lost.id not in {run.id for run in client.read_flow_runs()}
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["maintain"]))
        (artifact,) = client.read_artifacts(artifact_filter=key)
    assert {row["store"] for row in json.loads(str(artifact.data))} == {
        "DVC", "MLflow", "Prefect", "scratch"
    }  # fmt: skip


def test_a_run_of_a_killed_process_is_ended(
    history: History, prefect_server: str, no_gc: None
) -> None:
    with mlflow_store.connected() as client:
        where = mlflow_store.experiment(client, "default/toy")
        lost = client.create_run(where, run_name="retrain toy").info.run_id
        elsewhere = client.create_run(client.create_experiment("mine"), run_name="mine").info.run_id

    def status(run: str) -> str:
        with mlflow_store.connected() as client:
            return str(client.get_run(run).info.status)

    for parameters, expected in (({"scratch_days": 1.0}, "RUNNING"), ({}, "KILLED")):
        state = run(**{**ALL, **parameters})
        count = rows(state)["MLflow", "lost runs, marked as killed"]["count"]
        assert (status(lost), count) == (expected, int(expected == "KILLED"))
    assert status(elsewhere) == "RUNNING"


def test_scratch_keeps_what_a_study_may_continue(history: History) -> None:
    week_ago = time.time() - 7 * scratch_retention.DAY_S

    def make(path: str, old: bool) -> Path:
        file = Path("scratch", path, "epoch.npz")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"12345")
        if old:
            for changed in (file, file.parent):
                os.utime(changed, (week_ago, week_ago))
        return file

    kept = [make("train/toy-mean/new", False), make("fetch/toy/new", False), make("tune/x", True)]
    kept += [make("tmpnew", False), make("checked/new", False)]
    gone = [make("train/toy-mean/old", True), make("train/no-run/new", False)]
    gone += [make("fetch/toy/old", True), make("tmpold", True)]
    told = list(scratch_retention.clean_scratch(5.0, dry_run=True))
    assert all(file.exists() for file in [*kept, *gone])
    freed = list(scratch_retention.clean_scratch(5.0, dry_run=False))
    assert all(file.exists() for file in kept)
    assert not any(file.exists() for file in gone)
    assert [row.count for row in freed] == [row.count for row in told] == [2, 1, 1]
    assert sum(row.size or 0 for row in freed) >= 20


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "some.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 500)
        connection.commit()
    return file


def test_a_vacuum_frees_what_was_deleted_and_nothing_where_that_is_little(database: Path) -> None:
    before = size_of(database)
    assert vacuum("MLflow", database, 0.1, False) == Freed(
        "MLflow", "unused pages of some.db", size=0
    )
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM t WHERE rowid > 10")
        connection.commit()
    told = vacuum("MLflow", database, 0.1, True)
    assert size_of(database) == before
    freed = vacuum("MLflow", database, 0.1, False)
    assert freed.size == before - size_of(database) > 400_000
    assert told.count == freed.count


def test_a_locked_database_is_left_for_the_next_run(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.engine.freed.VACUUM_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM t")
        connection.commit()
        connection.execute("BEGIN IMMEDIATE")
        assert "locked; the next run" in vacuum("MLflow", database, 0.1, False).note


def test_sizes_have_units() -> None:
    assert [readable(size) for size in (0, 999, 1500, 2_340_000_000)] == [
        "0 B", "999 B", "1.5 kB", "2.34 GB"
    ]  # fmt: skip
