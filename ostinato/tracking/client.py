"""The MLflow store of a checkout: a database in it, or a server that the environment names."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ostinato.errors import TrackingError
from ostinato.errors import masked as masked
from ostinato.tracking import relocation
from ostinato.tracking.deadline import WithDeadlines

SETTINGS = {  # of MLflow, unless the environment says otherwise: a dead server costs seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # this package reports its errors, in one line
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
LOCK_S = 60  # longest wait for another process that uses the database
MAX_ERROR_CHARS = 300
COMMAND = "python -m ostinato.tracking"
_warned: list[str] = []  # the failure that this process has reported


@contextmanager
def connected() -> Iterator[Any]:
    """A client of the store.

    One process of the checkout at a time uses a database, as its creation races. A server has no
    lock, and each call to it has a time limit.

    Raises:
        TrackingError: the database was made in another checkout.
    """
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    address = uri()
    with lock("mlflow.db.lock") if is_database(address) else nullcontext():
        from mlflow import MlflowClient

        if not is_database(address):
            yield WithDeadlines(MlflowClient(address))
            return
        client = MlflowClient(address)
        if relocation.database_file(address) == root() / relocation.DATABASE:
            relocation.check(client, root())
        yield client


@contextmanager
def lock(name: str, timeout: float = LOCK_S) -> Iterator[None]:
    """Exclude other processes of this checkout.

    Args:
        name: of the lock file.
        timeout: longest wait in seconds.

    Raises:
        TimeoutError: another process holds the lock.
    """
    held = FileLock(root() / name)
    try:
        held.acquire(timeout=timeout)
    except Timeout:
        raise TimeoutError(
            f"another process of this checkout has held {held.lock_file} for {timeout:g} s"
        ) from None
    try:
        yield
    finally:
        held.release()


def root() -> Path:
    """The main checkout, also within an experiment's temporary folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def uri() -> str:
    """The tracking server or database: MLFLOW_TRACKING_URI, or mlflow.db in the checkout.

    Raises:
        TrackingError: the checkout's folder cannot hold a database.
    """
    if address := os.environ.get("MLFLOW_TRACKING_URI"):
        return address
    file = root() / relocation.DATABASE
    if "?" in str(file):
        raise TrackingError(
            f"{file.parent}: SQLite cannot open a database below a folder with a question mark in "
            "its name; rename the folder, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{file}"


def is_database(address: str) -> bool:
    """Whether an address is that of a database, and not that of a server."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    return address.partition(":")[0].partition("+")[0] in DATABASE_ENGINES


def experiment(client: Any, name: str) -> str:
    """The id of an experiment, created where there is none of this name.

    Raises:
        TrackingError: the experiment was deleted, or its files are in a folder that is gone.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if not found:
        location = None
        if is_database(uri()):
            location = (root() / relocation.ARTIFACTS / name.replace("/", "-")).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process has created it
            if not found:
                raise
    if found.lifecycle_stage == "deleted":
        key = found.experiment_id
        named = os.environ.get("MLFLOW_TRACKING_URI")
        variable = "" if named else f"MLFLOW_TRACKING_URI={shlex.quote(uri())} "
        raise TrackingError(
            f"experiment {name!r} was deleted in MLflow and keeps its name, so nothing can be "
            f"logged to it; restore it with `{variable}mlflow experiments restore "
            f"--experiment-id {key}`, or delete it for good with `mlflow gc`"
        )
    relocation.check_location(found.name, found.artifact_location)
    return str(found.experiment_id)


def failures() -> tuple[type[Exception], ...]:
    """The errors that are expected of a store; any other error is a bug.

    It is away or refuses, its database is locked or of another version, its disk is full, or a
    package that it needs is not installed.
    """
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        return (ModuleNotFoundError, OSError)
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    expected = (MlflowException, SQLAlchemyError, CommandError, ModuleNotFoundError, OSError)
    return (*expected, TrackingError)


def responds(client: Any) -> bool:
    """Whether the store answers a simple question now."""
    try:
        client.search_experiments(max_results=1)
    except failures():
        return False
    return True


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """All results of a search of MLflow's client, which returns them in pages."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def log_and_continue() -> Iterator[None]:
    """Report a fault of the store once, and continue: it must not stop a stage.

    A missing file is no fault of the store: the result is incomplete.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except failures() as error:
        if not _warned:
            _warned.append(brief(error))
            print(
                f"Not tracked in {masked(address())}: {_warned[0]}. The stage continues and no "
                f"result is lost: {advice(error)}.",
                file=sys.stderr,
            )


def advice(error: Exception) -> str:
    """When and how to log what is missing after a failure."""
    command = f"run `{COMMAND}`"
    if (name := os.environ.get("DVC_EXP_NAME")) and Path.cwd().resolve() != root():
        command = f"apply the experiment (`dvc exp apply {name}`), then {command}"
    return f"{command} {'after that' if isinstance(error, TrackingError) else 'later'}"


def address() -> str:
    """The address of the store for a message, also where it cannot be used."""
    try:
        return uri()
    except TrackingError:
        return str(root() / relocation.DATABASE)


def brief(error: BaseException) -> str:
    """An error in one line without passwords; of a long one the beginning and the end."""
    text = masked(" ".join(f"{type(error).__name__}: {error}".split())).rstrip(".")
    if isinstance(error, TrackingError) or len(text) <= MAX_ERROR_CHARS:
        return text
    half = MAX_ERROR_CHARS // 2
    return f"{text[:half]} ... {text[-half:]}"
