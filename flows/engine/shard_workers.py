"""Preparing a data set on several workers that share the disk of the checkout.

The stage `prepare` makes shards, and so does each flow run of a deployment of the flow `prepare`:
each takes a shard that nobody makes. Only the stage joins them, so DVC records the data set as
usual. A flow run that is lost or late costs nothing but its share of the work.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.utilities.urls import url_for

from flows.engine import commands
from flows.engine.dvc_graph import dvc_file, short_name
from flows.engine.errors import fails_with_message
from flows.engine.remote_training import cancelled_at_end
from ostinato.errors import FlowError
from ostinato.study import Study
from ostinato.tracking.client import masked

SETTLE_S = 15.0  # that the flow runs have to end by themselves once the data set is whole
POLL_INTERVAL_S = 1.0


@flow(name="prepare")
@fails_with_message
def prepare(stage: str) -> None:
    """Make shards for a stage `prepare` that runs in this checkout, until none is left.

    Started by `reproduce` with its parameter `prepare_on`, not by hand.

    Args:
        stage: DVC's address of the stage, such as `prepare@sketches`.
    """
    command = (sys.executable, "-m", "stages.prepare_shards", str(_params(stage)))
    logger = get_run_logger()
    with commands.supervised():
        output = commands.run(
            *command, short_name(stage), on_line=lambda line: logger.info(masked(line))
        )
    if output.code:
        reason = next((line for line in reversed(output.lines) if line.strip()), "")
        raise FlowError(f"{masked(reason)} (exited with {output.code})")


def has_shards(stage: str) -> bool:
    """Whether a stage is `prepare` of a domain that prepares in shards.

    Args:
        stage: its address; all stages that it needs are up to date.
    """
    name, _, data = short_name(stage).partition("@")
    return name == "prepare" and Study.load(_params(stage)).shards_folder(data) is not None


@contextmanager
def with_helpers(stage: str, deployment: str, runs: int) -> Iterator[None]:
    """Flow runs that make shards for the stage which the block runs.

    Args:
        stage: its address.
        deployment: its name in Prefect, such as `prepare/cpu`.
        runs: number of flow runs.
    """
    logger = get_run_logger()
    with get_client(sync_client=True) as client, cancelled_at_end(client) as started:
        for number in range(1, runs + 1):
            name = f"{stage} worker {number} of {runs}"
            parameters = {"stage": stage}
            run = cast(
                FlowRun,
                run_deployment(deployment, parameters=parameters, flow_run_name=name, timeout=0),
            )
            started.append(run)
            logger.info(f"{name} was sent to {deployment}, flow run {url_for(run) or run.id}")
        yield
        _settle(client, started)


def _settle(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> None:
    """Wait until those flow runs have ended that had begun."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        states = [client.read_flow_run(run.id).state for run in runs]
        if not any(state and state.is_running() for state in states):
            return
        commands.wait_or_stop(POLL_INTERVAL_S)


def _params(stage: str) -> Path:
    return Path(dvc_file(stage)).parent / "params.yaml"
