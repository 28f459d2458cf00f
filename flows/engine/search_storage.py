"""Optuna's storage of searches: a file of SQLite, PostgreSQL, or Optuna's gRPC proxy of one.

Each storage assigns a trial's number and moves a trial from waiting to running in one step, for all
flows. PostgreSQL does so by locks on rows. SQLite, which has none, needs a lock on a file.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ostinato.errors import FlowError, SettingError, masked

CONNECT_TIMEOUT_S = 10  # of PostgreSQL and of the proxy
LOCK_TIMEOUT_S = 300  # of SQLite, and of the lock beside its file
TABLES_LOCK = 0x6F737469  # PostgreSQL's advisory lock while the tables are created
FAILURES = (SQLAlchemyError, StorageInternalError, grpc.RpcError)
"""What a storage raises that does not answer."""


def open_storage(address: str) -> BaseStorage:
    """Connect to a storage; its tables are created where there are none.

    Args:
        address: ``sqlite:///PATH``, ``postgresql://USER:PASSWORD@HOST/NAME``, another address of
            SQLAlchemy, or ``grpc://HOST:PORT`` of `flows.engine.search_proxy`.

    Raises:
        SettingError: the address has another form, or its driver is not installed.
        FlowError: the storage does not answer.
    """
    if address.startswith("grpc:"):
        return _connect_to_proxy(address)
    url = parse(address)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": LOCK_TIMEOUT_S}
    if url.get_backend_name() == "postgresql":
        options["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT_S}
    full = url.render_as_string(hide_password=False)
    try:
        with reports_failures(address), _creating_tables(url, options):
            return RDBStorage(full, engine_kwargs=options)
    except ImportError as error:
        raise SettingError(
            f"storage: {masked(address)}: {error.__cause__ or error}; install the driver, or use "
            "postgresql://, sqlite:// or grpc://"
        ) from None


def parse(address: str) -> URL:
    """SQLAlchemy's form of an address; the driver of PostgreSQL is psycopg2, which is installed.

    Raises:
        SettingError: it has another form.
    """
    try:
        url = make_url(address)
    except ArgumentError:
        raise SettingError(
            f"storage: found {masked(address)!r}; expected sqlite:///PATH, "
            "postgresql://USER:PASSWORD@HOST/NAME or grpc://HOST:PORT"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg2")
    return url


def _connect_to_proxy(address: str) -> BaseStorage:
    found = re.fullmatch(r"grpc://([\w.-]+|\[[\da-fA-F:]+\]):(\d+)/?", address)
    if not found:
        raise SettingError(f"storage: found {masked(address)!r}; expected grpc://HOST:PORT")
    with ignore_experimental_warnings():
        proxy = GrpcStorageProxy(host=found[1], port=int(found[2]))
    try:
        proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_S)
    except ConnectionError:
        raise FlowError(
            f"{address}: no proxy answers within {CONNECT_TIMEOUT_S} s; start "
            "`python -m flows.engine.search_proxy` on that machine"
        ) from None
    return proxy


@contextlib.contextmanager
def _creating_tables(url: URL, options: dict[str, Any]) -> Iterator[None]:
    """Let one flow create the tables of PostgreSQL; those of SQLite need the `storage_lock`."""
    if url.get_backend_name() != "postgresql":
        yield
        return
    engine = sqlalchemy.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"select pg_advisory_xact_lock({TABLES_LOCK})"))
            yield
    finally:
        engine.dispose()


@contextlib.contextmanager
def storage_lock(address: str) -> Iterator[None]:
    """Exclude all other flows from a file of SQLite; another storage has locks of its own.

    Raises:
        FlowError: another flow holds the lock.
    """
    url = None if address.startswith("grpc:") else parse(address)
    if not url or url.get_backend_name() != "sqlite" or not url.database:
        yield
        return
    file = Path(f"{url.database}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise FlowError(
            f"{file}: another flow holds the lock for {LOCK_TIMEOUT_S} s; stop that flow, or use "
            "postgresql:// for many flows"
        ) from None


@contextlib.contextmanager
def reports_failures(address: str) -> Iterator[None]:
    """Raise the failures of a storage as errors of the project.

    Raises:
        FlowError: the storage does not answer.
    """
    try:
        yield
    except FAILURES as error:
        detail = error.details() if isinstance(error, grpc.Call) else error
        reason = masked(str(detail)).strip().partition("\n")[0]
        raise FlowError(
            f"storage {masked(address)}: {reason}; when it answers again, run the same search "
            "again: it resumes"
        ) from error


@contextlib.contextmanager
def ignore_experimental_warnings() -> Iterator[None]:
    """Ignore Optuna's warnings that its proxy and the constant liar are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
