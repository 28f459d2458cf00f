"""Learning curves in MLflow while a training runs, where the environment names a server.

Without MLFLOW_TRACKING_URI the report stage mirrors all results at once, so a training does not
pay for the import of MLflow.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ostinato.study import Study
from ostinato.task import Record

LIVE = "live"  # tag of a run that a training writes to: the digest of its parameters


@contextmanager
def track(study: Study, name: str, tags: Mapping[str, str]) -> Iterator[Callable[[Record], None]]:
    """Track the training of a run: yields a function that takes the record of each epoch.

    Epochs that the MLflow run has already (a resumed training hands them in again) are not logged
    again. The run stays open for `ostinato.tracking.mirror`, which completes it from the files;
    when the block raises, the run is marked as failed and the error is raised again.

    Args:
        study: of the run.
        name: of the run.
        tags: of the run in MLflow: the devices that it is trained on.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield lambda record: None
        return
    from ostinato.tracking import runs
    from ostinato.tracking.client import brief, connected, log_and_continue

    run: Any = None
    records: list[Record] = []
    with log_and_continue(), connected() as client:
        run = runs.open_live(client, study, name, tags)
    failed = run is None

    def on_epoch(record: Record) -> None:
        nonlocal failed
        records.append(record)
        if not failed:
            failed = True  # a failure ends live tracking; the mirror completes the run
            with log_and_continue(), connected() as client:
                runs.log_epochs(client, run, records)
                failed = False

    try:
        yield on_epoch
    except BaseException as error:
        if run is not None:
            with log_and_continue(), connected() as client:
                client.set_tag(run.info.run_id, "error", brief(error))
                status = "FAILED" if isinstance(error, Exception) else "KILLED"
                client.set_terminated(run.info.run_id, status)
        raise
