"""Create or update the objects of Prefect that an operator needs: ``python -m flows.deploy``.

Work pools, limits, the deployments of prefect.yaml and the automations. A second run changes
nothing. What an operator has changed on the server stays: schedules, pauses, limits and automations
of objects that exist. The server is that of PREFECT_API_URL. The command then waits until each
active schedule has a flow run in state Scheduled; if the server creates none, it fails with the
server's response.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
    WorkQueueFilter,
    WorkQueueFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.events.actions import CallWebhook, DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from pydantic import SecretStr

from flows.engine import devices
from flows.engine.errors import command
from ostinato import params, store
from ostinato.errors import FlowError
from ostinato.tracking.client import masked

POOLS = {
    "cpu": "Flows, and training on machines without a GPU",
    "gpu": "Training, on machines with a GPU",
}
WEBHOOK = "champion"
AUTOMATION = "announce a champion"
PREFECT_FILE = Path("prefect.yaml")
CHANGED = "ostinato.champion.changed"  # event of flows/promote.py
# The body that the webhook posts: the new champion, the former one, and the reason.
EVENT = """{
  "event": {{ event.event | tojson }},
  "model": {{ event.resource.name | tojson }},
  "occurred": {{ event.occurred | string | tojson }},
  "payload": {{ event.payload | tojson }}
}"""
_SERVER_FIELDS = {"id", "created", "updated"}
VOLATILE: Any = {  # fields that change by themselves
    **dict.fromkeys([*_SERVER_FIELDS, "last_polled", "status", "active_slots"], True),
    "schedules": {"__all__": _SERVER_FIELDS},
    "global_concurrency_limit": {"updated", "active_slots"},
}


@command
def main() -> None:
    """Create missing objects, update objects that differ, and print the changes."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument(
        "--gpus",
        type=int,
        help="GPUs of all machines together (default: the limit on the server, or those of this "
        "machine where there is none)",
    )
    parser.add_argument(
        "--reset-schedules",
        action="store_true",
        help="replace the schedules on the server by those of prefect.yaml, not paused",
    )
    parser.add_argument(
        "--notify", metavar="URL", help="post an event to URL when a champion changes"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="longest wait for the server to schedule a run (default: %(default)g)",
    )
    arguments = parser.parse_args()
    if not PREFECT_FILE.exists():
        raise FlowError(f"{Path.cwd()}: no {PREFECT_FILE}; run in the root of the checkout")
    with server() as client:
        before = read_objects(client)
        create_pools(client)
        set_limits(client, arguments.gpus)
        create_deployments(client, reset=arguments.reset_schedules)
        create_automation(client, arguments.notify)
        after = read_objects(client)
        for name, content in after.items():
            former = before.get(name)
            same = former == content
            change = "created" if former is None else "unchanged" if same else "updated"
            print(f"{change}: {name}")
        for line in changed_schedules(client):
            print(line)
    with server() as client:
        wait_for_runs(client, arguments.wait)


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client of the server at PREFECT_API_URL; fails in one line if no server responds.

    Without an address Prefect would start a temporary server, which ends with this process.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise FlowError(
            "PREFECT_API_URL is not set, so there is no server to deploy to. Start one with "
            "`prefect server start`, and set its address: "
            "export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    with get_client(sync_client=True) as client:
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                client.api_version()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            raise FlowError(
                f"No Prefect server responds at PREFECT_API_URL={masked(url)}: {_brief(error)}. "
                + (
                    "Does the server need PREFECT_API_AUTH_STRING or PREFECT_API_KEY?"
                    if status in (401, 403)
                    else "Is it running, and does the address end with /api, as in "
                    "http://127.0.0.1:4200/api?"
                )
            ) from None
        yield client


class Schedule(NamedTuple):
    """An active schedule of a deployment."""

    deployment: str
    deployment_id: UUID
    id: UUID
    when: str

    def runs(self, client: SyncPrefectClient) -> list[FlowRun]:
        """The schedule's flow runs in state Scheduled."""
        found = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[self.deployment_id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Scheduled"]))
            ),
        )
        return [run for run in found if run.created_by and run.created_by.id == self.id]


def wait_for_runs(client: SyncPrefectClient, seconds: float) -> None:
    """Wait until each active schedule has a flow run in state Scheduled, and print the next run.

    A server can accept a schedule, report that it is healthy, and never create a run.

    Args:
        client: of the server.
        seconds: longest wait; after it the command fails with the server's response.
    """
    start = time.monotonic()
    for schedule in schedules(client):
        if not schedule.runs(client):
            print(f"waiting for the server to schedule {schedule.deployment} ...", flush=True)
        while not (runs := schedule.runs(client)):
            if time.monotonic() - start > seconds:
                raise FlowError(
                    f"The server at {masked(str(client.api_url))} has scheduled no run of "
                    f"{schedule.deployment} ({schedule.when}) within {seconds:g} s, so its "
                    f"schedule never fires. {_diagnosis(client, schedule)}"
                )
            time.sleep(0.5)
        first = min(run.expected_start_time for run in runs if run.expected_start_time)
        print(f"scheduled: {schedule.deployment}, next run {first:%Y-%m-%d %H:%M} UTC")


def schedules(client: SyncPrefectClient) -> list[Schedule]:
    """The active schedules of the deployments of prefect.yaml that are not paused."""
    declared = declared_deployments()
    return [
        Schedule(deployment.name, deployment.id, schedule.id, _when(schedule.schedule))
        for deployment in client.read_deployments()
        if (deployment.entrypoint, deployment.name) in declared and not deployment.paused
        for schedule in deployment.schedules
        if schedule.active and schedule.id
    ]


def declared_deployments() -> dict[tuple[str, str], dict[str, Any]]:
    """The deployments of prefect.yaml by entry point and name."""
    entries = params.read_yaml(PREFECT_FILE)["deployments"]
    return {(entry["entrypoint"], entry["name"]): entry for entry in entries}


def create_deployments(client: SyncPrefectClient, *, reset: bool) -> None:
    """Create or update the deployments of prefect.yaml.

    A deployment that exists keeps its schedules and its pause: Prefect would replace them.

    Args:
        client: of the server.
        reset: take the schedules of prefect.yaml, not paused, also where a deployment exists.

    Raises:
        FlowError: Prefect refuses.
    """
    content = params.read_yaml(PREFECT_FILE)
    existing = {(d.entrypoint, d.name): d for d in client.read_deployments()}
    for entry in content["deployments"]:
        known = existing.get((entry["entrypoint"], entry["name"]))
        if known and not reset:
            entry.pop("schedules", None)
            entry["paused"] = known.paused
    with store.temporary_folder() as folder:
        file = folder / "prefect.yaml"
        store.write_json(file, content)  # JSON is YAML
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(
            [*command, "--prefect-file", str(file)], capture_output=True, text=True
        )
    if done.returncode:
        raise FlowError(f"`prefect deploy --all` failed:\n{done.stdout}{done.stderr}")


def changed_schedules(client: SyncPrefectClient) -> Iterator[str]:
    """A line for each deployment whose schedules or pause an operator has changed."""
    declared = declared_deployments()
    for deployment in client.read_deployments():
        entry = declared.get((str(deployment.entrypoint), deployment.name))
        if entry is None:
            continue
        wanted = [_schedule_text(schedule, True) for schedule in entry.get("schedules", [])]
        there = [
            _schedule_text(schedule.schedule.model_dump(exclude_none=True), schedule.active)
            for schedule in deployment.schedules
        ]
        found = ["deployment paused"] if deployment.paused else []
        if sorted(there) != sorted(wanted):
            found += there or ["no schedule"]
        if found:
            yield (
                f"kept: {deployment.name} has {', '.join(found)}; prefect.yaml has "
                f"{', '.join(wanted) or 'no schedule'} (--reset-schedules takes it)"
            )


def _schedule_text(values: Mapping[str, Any], active: bool) -> str:
    when = ", ".join(
        f"{key} {values[key]}" for key in ("cron", "interval", "rrule") if key in values
    )
    return f"{when} {values.get('timezone', 'UTC')}{'' if active else ' (paused)'}"


def _when(schedule: Any) -> str:
    values = schedule.model_dump(exclude_none=True)
    return ", ".join(
        f"{key} {values[key]}" for key in ("cron", "interval", "rrule") if key in values
    )


def _diagnosis(client: SyncPrefectClient, schedule: Schedule) -> str:
    """The server's response to a request to schedule a run now; the run is deleted again."""
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            path = f"/deployments/{schedule.deployment_id}/schedule"
            client._client.post(path, json={"max_runs": 1}).raise_for_status()
    except httpx.HTTPError as error:
        return (
            f"Its response to a request to schedule a run now: {_brief(error)}. Its log has the "
            "reason in the lines with ERROR"
        )
    for run in schedule.runs(client):
        client.delete_flow_run(run.id)
    return (
        "It schedules a run on request, so its scheduler does not run: was it started with "
        "--no-services or PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED=false? If so, start "
        "`prefect server services start`"
    )


def _brief(error: Exception) -> str:
    """An error in one line without credentials: the status of a response, or the message."""
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        return f"{response.status_code} {response.reason_phrase}"
    return masked(str(error).partition("\n")[0]).rstrip(".") or type(error).__name__


def create_pools(client: SyncPrefectClient) -> None:
    """Create the work pools of process workers."""
    for name, description in POOLS.items():
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            pool = WorkPoolCreate(name=name, type="process", description=description)
            client.create_work_pool(pool)


def set_limits(client: SyncPrefectClient, gpus: int | None) -> None:
    """Limit trainings, and the queue of the pool `gpu`, to the number of GPUs.

    Args:
        client: of the server.
        gpus: None: limits that exist stay, others are the GPUs of this machine.
    """
    try:
        client.read_global_concurrency_limit_by_name(devices.LIMIT)
        known = True
    except ObjectNotFound:
        known = False
    number = gpus or max(1, len(devices.list_gpus()))
    if gpus or not known:
        client.upsert_global_concurrency_limit_by_name(devices.LIMIT, number)
    (queue,) = client.read_work_queues(
        work_pool_name="gpu",
        work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=["default"])),
    )
    if gpus or queue.concurrency_limit is None:
        client.update_work_queue(queue.id, concurrency_limit=number)


def create_automation(client: SyncPrefectClient, url: str | None) -> None:
    """Create the automation that posts an event on a new champion, if there is an address.

    An automation that exists is only updated with an address, and stays enabled or disabled.
    """
    existing = client.read_automations_by_name(AUTOMATION)
    if existing and not url:
        return
    if url:
        Webhook(url=SecretStr(url)).save(WEBHOOK, overwrite=True)
    try:
        block = client.read_block_document_by_name(WEBHOOK, "webhook")
        action: Any = CallWebhook(block_document_id=block.id, payload=EVENT)
    except ObjectNotFound:
        action = DoNothing()  # the event is in the feed of the UI in any case
    automation = AutomationCore(
        name=AUTOMATION,
        enabled=existing[0].enabled if existing else True,
        description="Posts an event when the alias `champion` of a model moves",
        trigger=EventTrigger(expect={CHANGED}, posture=Posture.Reactive, threshold=1),
        actions=[action],
    )
    if existing:
        client.update_automation(existing[0].id, automation)
    else:
        client.create_automation(automation)


def read_objects(client: SyncPrefectClient) -> Mapping[str, Any]:
    """The objects that this module creates, by name, without their volatile fields."""
    objects = {
        **{f"work pool {pool.name}": pool for pool in client.read_work_pools()},
        **{f"work queue {q.work_pool_name}/{q.name}": q for q in client.read_work_queues()},
        **{
            f"limit {n.name}": n
            for n in client.read_global_concurrency_limits()
            if n.name == devices.LIMIT
        },
        **{f"deployment {d.name}": d for d in client.read_deployments()},
        **{f"automation {a.name}": a for a in client.read_automations()},
    }
    return {name: found.model_dump(exclude=VOLATILE) for name, found in objects.items()}


if __name__ == "__main__":
    main()
