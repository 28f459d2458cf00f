"""The MLflow store of a checkout: a database in it, or a server that the environment names."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

SETTINGS = {  # of MLflow, unless the environment says otherwise: a dead server costs seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # this package reports its errors, in one line
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_warned: list[str] = []  # the failure that this process has reported


@contextmanager
def connected() -> Iterator[Any]:
    """A client of the store; one process of this checkout at a time, as creating it races."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    with FileLock(root() / "mlflow.db.lock", timeout=60):
        from mlflow import MlflowClient

        yield MlflowClient(uri())


def root() -> Path:
    """The main checkout, also within an experiment's temporary folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def uri() -> str:
    """The tracking server or database: MLFLOW_TRACKING_URI, or mlflow.db in the checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def experiment(client: Any, name: str) -> str:
    """The id of an experiment, created where there is none of this name."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    local = uri().partition(":")[0].partition("+")[0] in DATABASE_ENGINES
    location = (root() / "mlartifacts" / name.replace("/", "-")).as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def log_and_continue() -> Iterator[None]:
    """Report a failure of tracking once, and continue: it must not stop a stage."""
    try:
        yield
    except Exception as error:
        if not _warned:
            _warned.append(brief(error))
            print(
                f"Not tracked in {masked(uri())}: {_warned[0]}. The stage continues and no result "
                "is lost: run `python -m ostinato.tracking` later.",
                file=sys.stderr,
            )


def brief(error: BaseException) -> str:
    """An error in one line of at most 300 characters, without passwords."""
    return masked(" ".join(f"{type(error).__name__}: {error}".split()))[:300]


def masked(text: str) -> str:
    """``text`` without the user and password of any address in it."""
    return re.sub(r"//[^/\s]*@", "//***@", text)
