"""MLflow: versions and runs that are too old, and their removal from the database and the disk.

A run or version is first marked as deleted, so that MLflow can restore it; `mlflow gc` removes it
for good some days later. Only what Ostinato has logged is marked, found by its tags.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.engine import commands
from flows.engine.freed import Freed, MaintenanceError, size_of, vacuum
from ostinato.study import Study, studies
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import registry, relocation, runs
from ostinato.tracking.client import masked, pages
from ostinato.tracking.live import LIVE
from ostinato.tracking.registry import CHAMPION, MOVE, ROLLED_BACK

DATABASE = "MLFLOW_BACKEND_STORE_URI"  # of a server, as the server itself reads it
FLOWS = ("retrain", "promote", "tune", "monitor")  # tag stage of the runs of flows
MD5S = (runs.OUTS, "deps", f"evaluate.{runs.OUTS}", "evaluate.deps")  # tags: md5 by path, as JSON
OURS = {"study", "run", "model", "data"}  # tags of each version that Ostinato has registered
LOGGED_MODEL = re.compile(r"\bm-[0-9a-f]{32}\b")  # in the address of its files
SERVED = "-served"  # at the end of the name of a logged model that became a version

Lock = Callable[[str, str], AbstractContextManager[None]]  # of a study's path and a data set


@dataclass
class Registry:
    """The versions in the registry.

    Args:
        kept: versions that have an alias, are young, were rolled back, or are not Ostinato's.
        old: all other versions.
        champions: number of the studies' data sets that have a champion.
    """

    kept: list[Any] = field(default_factory=list)
    old: list[Any] = field(default_factory=list)
    champions: int = 0


def read_registry(days: float) -> Registry:
    """Sort the versions of all registered models.

    Raises:
        RegistryError: MLflow does not answer.
    """
    found, since = Registry(), _milliseconds_ago(days)
    ours = {
        registry.model_name(study.name, data)
        for study in _studies()
        for data in study.params["data"]
    }
    with registry.connected() as client:
        aliased: dict[str, set[str]] = {}
        for model in pages(client.search_registered_models):
            moving = json.loads(model.tags[MOVE])["to"] if MOVE in model.tags else {}
            aliases = {**model.aliases, **moving}
            aliased[model.name] = {str(number) for number in aliases.values()}
            found.champions += model.name in ours and CHAMPION in aliases
        for version in pages(client.search_model_versions):
            old = (
                str(version.version) not in aliased.get(version.name, set())
                and version.tags.keys() >= OURS
                and ROLLED_BACK not in version.tags  # `promote` must not take it again by itself
                and version.creation_timestamp < since
            )
            (found.old if old else found.kept).append(version)
    return found


def needed_md5s(kept: Iterable[Any]) -> set[str]:
    """DVC's md5s of all that these versions came from: model, data, raw data and evaluation."""
    needed: set[str] = set()
    with registry.connected() as client:
        for version in kept:
            data = version.tags.get("data")
            needed |= {version.tags.get("model", ""), data or ""}
            if run := version.run_id and _existing(client.get_run, version.run_id):
                needed |= _md5s(run)
                where = [run.info.experiment_id]
                if data:  # the run of the prepared data has the raw data among its dependencies
                    for prepared in client.search_runs(where, f"tags.outs LIKE '%{data}%'"):
                        needed |= _md5s(prepared)
    return needed - {""}


def restore_runs(kept: Iterable[Any], dry_run: bool) -> list[Freed]:
    """Restore the runs of versions that somebody has marked as deleted: `mlflow gc` spares none.

    Raises:
        MaintenanceError: the files of a version are marked as deleted, which cannot be undone.
    """
    restored = []
    with registry.connected() as client:
        for version in kept:
            run = version.run_id and _existing(client.get_run, version.run_id)
            if run and run.info.lifecycle_stage == "deleted":
                restored.append(f"{version.name} {version.version}")
                if not dry_run:
                    where = client.get_experiment(run.info.experiment_id)
                    if where.lifecycle_stage == "deleted":
                        client.restore_experiment(where.experiment_id)
                    client.restore_run(version.run_id)
            if any(_existing(client.get_logged_model, key) is None for key in model_ids(version)):
                raise MaintenanceError(
                    f"what MLflow has marked as deleted stays: the files of {version.name}, "
                    f"version {version.version}, are marked as deleted, or gone. Delete the "
                    "version; promote another one if it is the champion"
                )
    note = f"runs of {', '.join(restored)} had been deleted" if restored else ""
    return [Freed("MLflow", "restored runs of versions", len(restored), 0, note)] * bool(restored)


def mark_versions(found: Registry, lock: Lock, dry_run: bool) -> Freed:
    """Delete the old versions, and mark their files as deleted.

    Args:
        found: the versions.
        lock: excludes promotions of a data set's model.
        dry_run: only report.
    """
    used = {key for version in found.kept for key in model_ids(version)}
    count = 0
    for version in found.old:
        study, model = version.tags["study"], version.name
        name = Study(Path(study), {}).name
        data = model if name == "default" else model.removeprefix(f"{name}.")
        if dry_run:
            count += 1
            continue
        with lock(study, data), registry.connected() as client:
            if str(version.version) in registry.aliases(client, model).values():
                continue  # approved meanwhile
            for key in model_ids(version) - used:
                _existing(client.delete_logged_model, key)
            client.delete_model_version(model, version.version)
            count += 1
    return Freed("MLflow", "versions without an alias", count)


def mark_runs(
    found: Registry, needed: set[str], days: float, dry_run: bool
) -> tuple[Freed, Freed, Freed]:
    """Mark old runs as deleted, with the models that they logged.

    Args:
        found: the versions; their runs stay.
        needed: md5s that commits, the working tree and kept versions need; the runs of such
            results and prepared data stay, as they say what these came from.
        days: age from which a run is old.
        dry_run: only report.
    """
    since = _milliseconds_ago(days)
    sources = {version.run_id for version in found.kept}
    served = {key for version in found.kept for key in model_ids(version)}
    counts: Counter[str] = Counter()
    for experiment in _experiments():
        with registry.connected() as client:
            old = list(
                pages(
                    client.search_runs,
                    experiment_ids=[experiment],
                    filter_string=f"attributes.start_time < {since}",
                )
            )
            models = list(pages(client.search_logged_models, experiment_ids=[experiment]))
        flows = {run.info.run_id for run in old if run.data.tags.get("stage") in FLOWS}
        results = {
            run.info.run_id
            for run in old
            if runs.OUTS in run.data.tags or LIVE in run.data.tags
            if not _md5s(run, runs.OUTS, f"evaluate.{runs.OUTS}") & needed
        }
        counts["flows"] += len(flows - sources)
        counts["results"] += len(results - sources)
        gone = (flows | results) - sources
        logged = [
            model.model_id
            for model in models
            if model.model_id not in served
            and model.creation_timestamp < since
            and (model.source_run_id in gone or model.name.endswith(SERVED))
        ]
        counts["models"] += len(logged)
        if dry_run:
            continue
        for delete, keys in (("delete_logged_model", logged), ("delete_run", sorted(gone))):
            for key in keys:  # one connection each, so that a training can log in between
                with registry.connected() as client:
                    getattr(client, delete)(key)
    return (
        Freed("MLflow", "runs of retrain, promote and tune", counts["flows"]),
        Freed("MLflow", "runs of results that nothing refers to", counts["results"]),
        Freed("MLflow", "logged models of such runs and versions", counts["models"]),
    )


def end_lost_runs(days: float, dry_run: bool) -> Freed:
    """End the runs that began more than some days ago and still count as running.

    Their process was killed, and nothing continues them. A training that is still running ends its
    run a second time, as finished.
    """
    lost = f"attributes.status = 'RUNNING' and attributes.start_time < {_milliseconds_ago(days)}"
    count = 0
    for experiment in _experiments():
        with registry.connected() as client:
            found = pages(client.search_runs, experiment_ids=[experiment], filter_string=lost)
            for run in list(found):
                count += 1
                if not dry_run:
                    client.set_terminated(run.info.run_id, "KILLED")
    return Freed("MLflow", "lost runs, marked as killed", count)


def collect_garbage(days: float, vacuum_fraction: float, dry_run: bool) -> list[Freed]:
    """Remove for good what has been marked as deleted for some days, by `mlflow gc`.

    Raises:
        MaintenanceError: it failed.
    """
    database = _database()
    what = "deleted runs, models and experiments"
    if database is None:
        note = f"set {DATABASE} to the database of the server, without which nothing is removed"
        return [Freed("MLflow", what, note=note)]
    file = relocation.database_file(database)
    if dry_run:
        return [vacuum("MLflow", file, vacuum_fraction, dry_run)] if file else []
    folders = [mlflow_store.root() / name for name in (relocation.ARTIFACTS, "mlruns")]
    before = sum(map(size_of, folders))
    output = commands.run(
        *(sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database),
        *("--older-than", f"{days:g}d"),
        env={**mlflow_store.SETTINGS, "MLFLOW_TRACKING_URI": mlflow_store.uri()},
    )
    if output.code:
        text = masked("\n".join(output.lines[-5:]))
        raise MaintenanceError(f"`mlflow gc` ended with code {output.code}:\n{text}")
    kinds = Counter(
        match[1]
        for line in output.lines
        if (match := re.match(r"(\w[\w ]*) with ID \S+ has been permanently deleted", line))
    )
    note = ", ".join(f"{count} {kind.lower()}s" for kind, count in sorted(kinds.items()))
    _remove_empty_folders(folders)
    size = before - sum(map(size_of, folders)) if any(f.exists() for f in folders) else None
    freed = [Freed("MLflow", what, kinds.total(), size, note)]
    return [*freed, vacuum("MLflow", file, vacuum_fraction, dry_run)] if file else freed


def _remove_empty_folders(roots: Iterable[Path]) -> None:
    """Remove the folders of runs without artifacts; those of the last hour may be about to fill."""
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).timestamp()
    for root in roots:
        for folder in root.glob("*/*"):
            if folder.is_dir() and folder.stat().st_mtime < hour_ago:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def _database() -> str | None:
    """The address of the store's database; None where it is not known."""
    addresses = filter(None, (os.environ.get(DATABASE), mlflow_store.uri()))
    return next(filter(mlflow_store.is_database, addresses), None)


def _experiments() -> list[str]:
    """The ids of the experiments of the checkout's studies."""
    names = {study.name for study in _studies()}
    with registry.connected() as client:
        return [
            e.experiment_id
            for e in pages(client.search_experiments)
            if e.name.partition("/")[0] in names and "/" in e.name
        ]


def _studies() -> Iterator[Study]:
    return (Study.load(path) for path in studies())


def _md5s(run: Any, *tags: str) -> set[str]:
    """The md5s in the tags of a run."""
    found: set[str] = set()
    for tag in tags or MD5S:
        values: Mapping[str, str] = json.loads(run.data.tags.get(tag, "{}"))
        found |= set(values.values())
    return found


def model_ids(version: Any) -> set[str]:
    """The logged models that hold the files of a version, by its source too.

    A search for versions returns no ``model_id``.
    """
    return {*LOGGED_MODEL.findall(version.source or ""), *filter(None, [version.model_id])}


def _milliseconds_ago(days: float) -> int:
    return round((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000)


def _existing(call: Callable[[str], Any], key: str) -> Any | None:
    """The result of a call of MLflow's client with an id; None where the object is deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return call(key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
