"""What all tests share: a quiet TensorFlow, one Prefect server, and empty tables of MLflow."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import servers

ROOT = Path(__file__).parent.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
for name, value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "OSTINATO_FOLDERS": tempfile.gettempdir(),  # tmp_path is no checkout
}.items():
    os.environ[name] = value


# A busy machine is no fault. The check repeats its examples; a plain `pytest` looks for new ones.
calm: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("calm", **calm)
settings.register_profile("check", **calm, derandomize=True)
settings.load_profile("calm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-shapes",
        action="store_true",
        help="do not check the named shapes of signatures (jaxtyping, tests/shapes.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the shapes of all of the library but its Keras layers.

    Keras reads the signature of ``__init__``, which the check would hide.
    """
    if config.getoption("--no-shapes"):
        return
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / "ostinato").rglob("*.py"))
        if file.name != "__init__.py" and "\nimport keras\n" not in file.read_text("utf-8")
    ]
    install_import_hook(modules, "tests.checked")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with a Prefect server last, and in them the tests without one first.

    The threads of Prefect's client draw from the module ``random``. Keras takes seeds there, so a
    model that is built beside them is not reproducible. xdist hands out whole files, in this order:
    of the last ones those with slow tests come first, so that no worker ends long before another.
    """

    def with_server(item: pytest.Item) -> bool:
        return "prefect_server" in getattr(item, "fixturenames", ())

    files = {item.path for item in items if with_server(item)}
    long = files & {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in files, item.path in files - long, with_server(item)))


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server on loopback with an empty database of its own.

    It has all of its services, and after all that the tests have made it do, its log has no error.
    """
    from prefect.context import _temporary_global_settings_context, get_settings_context
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with servers.prefect(tmp_path_factory.mktemp("prefect")) as server:
        with (
            temporary_settings({PREFECT_API_URL: server.url}),
            _temporary_global_settings_context(get_settings_context()),  # for threads, too
        ):
            yield server.url
        time.sleep(6)  # each service comes around once more
        assert server.errors() == [], server.log
    assert server.errors() == [], server.log


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store of MLflow, to be copied: making one takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def dvc_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of DVC for all workspaces, also those of the other workers of xdist."""
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "dvc-cache"
