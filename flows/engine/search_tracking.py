"""The runs of a search in MLflow: one for each trial, below one for the search."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from optuna.trial import FrozenTrial, Trial
from prefect.logging import get_run_logger

from flows.engine.search import Search
from ostinato.tracking import client as mlflow_store
from ostinato.tracking import runs
from ostinato.tracking.client import masked

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "killed": "KILLED", "failed": "FAILED"}
MLFLOW_BATCH = 1000  # metrics that MLflow accepts at once


def log_trial(
    search: Search, trial: Trial | FrozenTrial, state: str, records: list[dict[str, Any]]
) -> bool:
    """Bring a trial's MLflow run up to date; returns whether that succeeded."""
    logged = False
    with log_and_continue(), mlflow_store.connected() as client:
        from mlflow.entities import Metric, RunTag

        run = mlflow_run(client, search, trial)
        if run.data.tags["state"] not in STATUS:
            now, metrics = run.info.start_time, []
            for record in records:
                now += round(1000 * record.get("seconds", 0))
                metrics += [
                    Metric(key, value, now, record["epoch"])
                    for key, value in record.items()
                    if key not in ("epoch", "best") and math.isfinite(value)
                    if record["epoch"] > int(run.data.tags["epochs"])
                ]
            tags = [RunTag("state", state), RunTag("epochs", str(len(records)))]
            for start in range(0, len(metrics), MLFLOW_BATCH):
                client.log_batch(run.info.run_id, metrics[start : start + MLFLOW_BATCH])
            client.log_batch(run.info.run_id, tags=tags)
            if state in STATUS:
                client.set_terminated(run.info.run_id, STATUS[state])
        logged = True
    return logged


def mlflow_run(client: Any, search: Search, trial: Trial | FrozenTrial | None = None) -> Any:
    """The MLflow run of a trial, or of the search, its parent; created where there is none."""
    from mlflow.entities import Param

    experiment_name = runs.experiment_name(search.study, search.plan["run"]["data"])
    experiment = mlflow_store.experiment(client, experiment_name)
    number = str(trial.number) if trial else "all"
    tags = {"stage": "tune", "search": search.name, "trial": number}
    wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    if found := client.search_runs([experiment], wanted):
        return found[0]
    tags |= {"run": search.run, "mlflow.source.name": "flows/tune.py"}
    if trial:
        parent = mlflow_run(client, search)
        tags |= {"mlflow.parentRunId": parent.info.run_id, "state": "running", "epochs": "0"}
        entry = search.entry(trial.params)
        values = {f"{part}.{key}": v for part in ("build", "fit") for key, v in entry[part].items()}
        title = f"trial {number}"
    else:
        identity = search.optuna_study.user_attrs["search"]
        settings = {key: identity[key] for key in ("objective", "sampler", "seed")}
        values = {**settings, **identity["space"], **identity["files"]}
        title = f"tune {search.name}"
    run = client.create_run(experiment, run_name=title, tags=tags)
    client.log_batch(
        run.info.run_id, params=[Param(key, str(value)[:6000]) for key, value in values.items()]
    )
    return run


def set_status(search: Search, status: str) -> None:
    """Set the status of the search's run in MLflow."""
    with log_and_continue(), mlflow_store.connected() as client:
        key = mlflow_run(client, search).info.run_id
        if status == "RUNNING":
            client.update_run(key, status)
        else:
            client.set_terminated(key, status)


@contextlib.contextmanager
def log_and_continue() -> Iterator[None]:
    """Log a fault of MLflow as a warning: Optuna has the state, and a later run logs the rest."""
    try:
        yield
    except FileNotFoundError:
        raise
    except mlflow_store.failures() as error:
        get_run_logger().warning(
            "not tracked in %s: %s; run the same search again later to complete it",
            masked(mlflow_store.uri()),
            masked(str(error))[:300],
        )
