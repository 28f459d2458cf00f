"""Make all that an operator needs in Prefect, or bring it up to date: ``python -m flows.deploy``.

Work pools, limits, the deployments of prefect.yaml and the automations. A second time changes
nothing. The server is the one of PREFECT_API_URL.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import WorkQueueFilter, WorkQueueFilterName
from prefect.events.actions import CallWebhook, DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from flows import steps

POOLS = {
    "cpu": "Flows, and training on machines without a GPU",
    "gpu": "Training, on machines with a GPU",
}
LIMIT = "gpu"
WEBHOOK = "champion"
CHANGED = "ostinato.champion.changed"  # flows/promote.py emits it
# What the webhook posts: who became champion, whose place it took, and why.
EVENT = """{
  "event": {{ event.event | tojson }},
  "model": {{ event.resource.name | tojson }},
  "occurred": {{ event.occurred | string | tojson }},
  "payload": {{ event.payload | tojson }}
}"""
_OWN = {"id", "created", "updated"}
VOLATILE: Any = {
    **dict.fromkeys([*_OWN, "last_polled", "status", "active_slots"], True),
    "schedules": {"__all__": _OWN},
    "global_concurrency_limit": {"updated", "active_slots"},
}


def main() -> None:
    """Make what is missing, update what differs, and say what it was."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument(
        "--gpus",
        type=int,
        help="trainings on GPUs at once, of all machines; those of this machine unless given",
    )
    parser.add_argument(
        "--notify", metavar="URL", help="post an event there when a champion changes"
    )
    arguments = parser.parse_args()
    gpus = arguments.gpus or max(1, len(steps.gpus()))
    with get_client(sync_client=True) as client:
        before = _state(client)
        _pools(client, gpus)
        client.upsert_global_concurrency_limit_by_name(LIMIT, gpus)
        prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
        done = subprocess.run([*prefect, "deploy", "--all"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"`prefect deploy --all` failed:\n{done.stdout}{done.stderr}")
        _announce(client, arguments.notify)
        after = _state(client)
    for name, content in after.items():
        was = before.get(name)
        print(f"{'made' if was is None else 'unchanged' if was == content else 'updated'}: {name}")


def _pools(client: SyncPrefectClient, gpus: int) -> None:
    """The work pools of process workers; the queue of `gpu` runs no more than there are GPUs."""
    for name, description in POOLS.items():
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            pool = WorkPoolCreate(name=name, type="process", description=description)
            client.create_work_pool(pool)
    (queue,) = client.read_work_queues(
        work_pool_name="gpu",
        work_queue_filter=WorkQueueFilter(name=WorkQueueFilterName(any_=["default"])),
    )
    client.update_work_queue(queue.id, concurrency_limit=gpus)


def _announce(client: SyncPrefectClient, url: str | None) -> None:
    """The automation that tells the world of a new champion, if there is an address to tell."""
    if url:
        Webhook(url=SecretStr(url)).save(WEBHOOK, overwrite=True)
    try:
        block = client.read_block_document_by_name(WEBHOOK, "webhook")
        action: Any = CallWebhook(block_document_id=block.id, payload=EVENT)
    except ObjectNotFound:
        action = DoNothing()  # the event stands in the feed of the UI all the same
    automation = AutomationCore(
        name="announce a champion",
        description="Posts an event when the alias `champion` of a model moves",
        trigger=EventTrigger(expect={CHANGED}, posture=Posture.Reactive, threshold=1),
        actions=[action],
    )
    if known := client.read_automations_by_name(automation.name):
        client.update_automation(known[0].id, automation)
    else:
        client.create_automation(automation)


def _state(client: SyncPrefectClient) -> Mapping[str, Any]:
    """All that this makes, by name, without what changes by itself."""
    things = {
        **{f"work pool {pool.name}": pool for pool in client.read_work_pools()},
        **{f"work queue {q.work_pool_name}/{q.name}": q for q in client.read_work_queues()},
        **{
            f"limit {n.name}": n for n in client.read_global_concurrency_limits() if n.name == LIMIT
        },
        **{f"deployment {d.name}": d for d in client.read_deployments()},
        **{f"automation {a.name}": a for a in client.read_automations()},
    }
    return {name: thing.model_dump(exclude=VOLATILE) for name, thing in things.items()}


if __name__ == "__main__":
    main()
