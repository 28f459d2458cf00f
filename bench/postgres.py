"""Check Prefect and MLflow on PostgreSQL: a cluster, both servers, a worker and a whole run.

    apt-get install postgresql && python -m bench.postgres

Everything is created in a temporary folder, listens on loopback only, and is removed at the end,
after a failure and after Ctrl-C. A tiny checkout is deployed, `reproduce` runs on a worker, the
automation starts `promote`, which registers the champion, and the content of both databases is
checked.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg2  # type: ignore[import-untyped]

from ostinato import params
from ostinato.tracking.client import masked
from tests.servers import closed_port
from tests.workspace import Workspace

BENCHMARK = {
    "measures": "that Prefect and MLflow work on PostgreSQL, by a whole run",
    "minutes": 5,
    "needs": "PostgreSQL (apt-get install postgresql)",
}

USER = "ostinato"
HOST = "127.0.0.1"
TIMEOUT_S = 300.0  # of each step
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
}

Connect = Callable[[str], Any]


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, connect = stack.enter_context(cluster())
        with contextlib.closing(connect("postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute("create database prefect")
            connection.cursor().execute("create database mlflow")
        environment = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("DVC", "MLFLOW", "PREFECT"))
            },
            **ENVIRONMENT,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(root / "prefect"),
        }
        ports = {"prefect": closed_port(), "mlflow": closed_port()}
        urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
        servers = {
            "prefect": (
                f"prefect server start --host {HOST} --port {ports['prefect']}",
                {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg{address}/prefect"},
                "/api/health",
            ),
            "mlflow": (
                f"mlflow server --host {HOST} --port {ports['mlflow']} --workers 1 "
                f"--artifacts-destination {root / 'artifacts'}",
                {"MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2{address}/mlflow"},
                "/health",
            ),
        }
        for name, (command, secret, health) in servers.items():
            started = time.monotonic()
            stack.enter_context(running(command, root, environment | secret))
            wait_until(partial(responds, urls[name] + health), f"a response of {name}")
            report(f"{name} is up on PostgreSQL", started)

        environment |= {
            "PREFECT_API_URL": f"{urls['prefect']}/api",
            "MLFLOW_TRACKING_URI": urls["mlflow"],
        }
        (root / "checkout").mkdir()
        workspace = Workspace(root / "checkout")
        workspace.edit(lambda values: values["gates"]["sketches"].update(at_least=0.0))
        workspace.commit()
        started = time.monotonic()
        run("python -m flows.deploy", workspace.folder, environment)
        report("deployed", started)
        worker = running("prefect worker start --pool cpu", workspace.folder, environment)
        stack.enter_context(worker)
        started = time.monotonic()
        command = "prefect deployment run reproduce/reproduce --watch"
        run(command, workspace.folder, environment)
        report("reproduce finished on the worker", started)

        finished = "select f.name, r.state_type from flow_run r join flow f on f.id = r.flow_id"
        started = time.monotonic()
        wait_until(
            lambda: ("promote", "COMPLETED") in query(connect, "prefect", finished),
            "the automation's run of promote",
        )
        report("the automation finished promote", started)
        flows = query(connect, "prefect", finished)
        assert ("reproduce", "COMPLETED") in flows, flows
        tasks = dict(query(connect, "prefect", "select name, state_name from task_run"))
        trained = {
            f"train@{name}" for name in params.load(workspace.folder / "params.yaml")["runs"]
        }
        assert {tasks[name] for name in trained} == {"Ran"}, tasks
        runs = query(connect, "mlflow", "select name, status from runs")
        assert {("sketches-gru", "FINISHED"), ("sketches-nearest", "FINISHED")} <= set(runs), runs
        champions = query(
            connect,
            "mlflow",
            "select name, version from registered_model_aliases where alias='champion'",
        )
        assert [name for name, _ in champions] == ["sketches"], champions
        for name in ports:
            (size,) = query(
                connect, name, "select pg_size_pretty(pg_database_size(current_database()))"
            )
            print(f"database {name}: {size[0]}")
        print(f"{len(flows)} flow runs, {len(tasks)} task runs, {len(runs)} runs of MLflow")
    print("PASS: both databases have the run and the champion; all processes are stopped")


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, Connect]]:
    """Start a PostgreSQL cluster; yield its address with the password, and a connect function."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if not found:
        sys.exit("PostgreSQL is not installed: apt-get install postgresql")
    # PostgreSQL refuses to run as root; Debian's package creates the user postgres.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    as_user: dict[str, Any] = {"user": user, "group": user} if os.geteuid() == 0 else {}
    port, password = closed_port(), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder, "data"), Path(folder, "password")
        file.touch(mode=0o600)
        file.write_text(password)
        for path in (Path(folder), file):
            shutil.chown(path, user)
        started = time.monotonic()
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        subprocess.run(
            [found[-1] / "initdb", "-D", data, "-U", USER, f"--pwfile={file}", *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **as_user,
        )
        command = f"{found[-1] / 'postgres'} -D {data} -h {HOST} -p {port} -k {folder}"
        with running(command, Path(folder), dict(os.environ), signal.SIGINT, **as_user):

            def connect(database: str) -> Any:
                address = {"host": HOST, "port": port, "user": USER, "password": password}
                return psycopg2.connect(dbname=database, connect_timeout=5, **address)

            def is_up() -> bool:
                with contextlib.suppress(psycopg2.OperationalError):
                    connect("postgres").close()
                    return True
                return False

            wait_until(is_up, "a response of PostgreSQL")
            report(f"PostgreSQL {found[-1].parent.name} is up, as the user {user}", started)
            yield f"://{USER}:{password}@{HOST}:{port}", connect


@contextlib.contextmanager
def running(
    command: str,
    folder: Path,
    environment: Mapping[str, str],
    stop: signal.Signals = signal.SIGTERM,
    **as_user: Any,
) -> Iterator[None]:
    """Run a server during the block. Its log, in its folder, is printed if the block fails."""
    log = Path(folder, f"{command.split()[0].rpartition('/')[2]}-{command.split()[1]}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            command.split(),
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **as_user,
        )
    try:
        yield
    except Exception:
        tail = masked(log.read_text()[-3000:])
        print(f"--- the end of the log of `{command}`\n{tail}", file=sys.stderr)
        raise
    finally:
        process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(command: str, folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command.split(), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(masked(f"`{command}` failed:\n{done.stdout}{done.stderr}"[-6000:]))


def query(connect: Connect, database: str, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def responds(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url).is_success
    return False


def wait_until(condition: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {TIMEOUT_S:g} s for {name}")
        time.sleep(0.5)


def report(event: str, started: float) -> None:
    print(f"{event}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    main()
