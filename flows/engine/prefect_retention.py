"""Prefect: flow runs that ended long ago, with their artifacts and logs.

They are deleted through the API. The server removes the logs of a deleted flow run by itself, and
events after PREFECT_SERVER_EVENTS_RETENTION_PERIOD, 7 days by default.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_client, runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from prefect.states import Crashed

from flows.engine.freed import Freed, MaintenanceError, vacuum

BATCH = 50  # flow runs that the API deletes in one request
ACTIVE = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def clean_server(days: float, vacuum_fraction: float, dry_run: bool) -> Iterator[Freed]:
    """Delete the flow runs that ended more than some days ago, and what belongs to them.

    A flow run that began so long ago and still counts as active was killed without a worker that
    noticed it. It is marked as crashed, and deleted as many days later.
    """
    since: Any = datetime.now(UTC) - timedelta(days=days)  # the API has its own type
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*TERMINAL_STATES])),
        end_time=FlowRunFilterEndTime(before_=since),
    )
    active = FlowRunFilter(
        id=FlowRunFilterId(not_any_=[UUID(str(runtime.flow_run.id))]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ACTIVE)),
        start_time=FlowRunFilterStartTime(before_=since),
    )
    with get_client(sync_client=True) as client:
        count = lost = artifacts = 0
        if dry_run:
            count = client.count_flow_runs(flow_run_filter=ended)
            lost = client.count_flow_runs(flow_run_filter=active)
        while not dry_run and (found := client.read_flow_runs(flow_run_filter=ended, limit=BATCH)):
            artifacts += _delete_artifacts(client, found)
            deleted = _delete_runs(client, found)
            if not deleted:
                raise MaintenanceError(f"Prefect's server deletes none of {len(found)} flow runs")
            count += deleted
        while not dry_run and (found := client.read_flow_runs(flow_run_filter=active, limit=BATCH)):
            for run in found:
                state: State[Any] = Crashed(message="it ended without a report, as after a kill")
                client.set_flow_run_state(run.id, state, force=True)
            lost += len(found)
    yield Freed("Prefect", "flow runs with tasks and logs", count)
    yield Freed("Prefect", "artifacts of such flow runs", artifacts)
    yield Freed("Prefect", "lost flow runs, marked as crashed", lost)
    if file := _local_database():
        yield vacuum("Prefect", file, vacuum_fraction, dry_run)


def _delete_artifacts(client: SyncPrefectClient, runs: list[FlowRun]) -> int:
    """Delete the artifacts of flow runs, which a deleted flow run would leave behind."""
    of_runs = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id for run in runs]))
    count = 0
    while found := client.read_artifacts(artifact_filter=of_runs, limit=BATCH):
        for artifact in found:
            client.delete_artifact(artifact.id)
        count += len(found)
    return count


def _delete_runs(client: SyncPrefectClient, runs: list[FlowRun]) -> int:
    body: Any = {"flow_runs": {"id": {"any_": [str(run.id) for run in runs]}}, "limit": BATCH}
    response = client._client.post("/flow_runs/bulk_delete", json=body)  # no method has it
    response.raise_for_status()
    return len(response.json()["deleted"])


def _local_database() -> Path | None:
    """The SQLite database of the server, if this process can reach it: it has this flow run."""
    _, _, name = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "").partition(
        "sqlite+aiosqlite:///"
    )
    file = Path(name.partition("?")[0])
    if not name or not file.is_file():
        return None
    query = "SELECT count(*) FROM flow_run WHERE replace(id, '-', '') = ?"
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            key = str(runtime.flow_run.id).replace("-", "")
            ((count,),) = database.execute(query, [key]).fetchall()
    except sqlite3.Error:  # not a database of Prefect, or locked
        return None
    return file if count else None
