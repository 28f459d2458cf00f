"""Servers and processes for tests, on 127.0.0.1: of files, with faults, and Prefect's.

Tests run in several processes at once (`pytest -n auto`), so each process has its own ports.
"""

import contextlib
import fcntl
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BLOCK = 16 << 10


@dataclass
class Site:
    """The files of a server, its behaviour (may be changed while it runs) and its statistics."""

    files: Mapping[str, bytes] | Path
    """Path without the leading slash -> content, or a folder."""
    url: str = ""
    ranges: bool = True
    """False: answers every request with the whole file and 200."""
    validators: bool = True
    """False: sends no ETag."""
    conditional: bool = True
    """False: If-Range is ignored."""
    lengths: bool = True
    """False: sends no Content-Length, so the connection ends with the body."""
    unavailable: int = 0
    """Number of GETs of each file that get a 503 before the first success."""
    drop_after: int | None = None
    """Connections are dropped after this number of bytes of a body."""
    drops: int | None = None
    """Number of dropped connections; None: all."""
    pause: float = 0.0
    """Seconds between two blocks of a body."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path without the leading slash -> target of a redirect."""
    sent: int = 0
    """Bytes of bodies sent so far."""
    gets: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of every GET."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, path: str) -> bytes | None:
        if isinstance(self.files, Path):
            found = self.files / path
            return found.read_bytes() if found.is_file() else None
        return self.files.get(path)

    def drop(self) -> bool:
        with self.lock:
            if self.drop_after is None or self.drops == 0:
                return False
            self.drops = None if self.drops is None else self.drops - 1
            return True


@contextlib.contextmanager
def serve(files: Mapping[str, bytes] | Path) -> Iterator[Site]:
    """Serve ``files`` until the block ends."""
    site = Site(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.respond(body=False)

        def do_GET(self) -> None:
            self.respond(body=True)

        def respond(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            requested = self.headers.get("Range", "")
            if body:
                with site.lock:
                    site.gets.append((path, requested))
                    earlier = sum(seen == path for seen, _ in site.gets) - 1
                if earlier < site.unavailable:
                    return self.reply(503, b"", {})
            if path in site.moved:
                return self.reply(302, b"", {"Location": site.moved[path]})
            content = site.read(path)
            if content is None:
                return self.reply(404, b"not here", {}, body)
            etag = f'"{sha256(content).hexdigest()[:16]}"'
            headers = {"ETag": etag} if site.validators else {}
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", requested)
            same = not site.conditional or self.headers.get("If-Range", etag) == etag
            if not (site.ranges and span and same):
                return self.reply(200, content, headers, body)
            start, stop = int(span[1]), min(int(span[2] or len(content)) + 1, len(content))
            if start >= len(content):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            return self.reply(206, content[start:stop], headers, body)

        def reply(
            self, status: int, content: bytes, headers: dict[str, str], body: bool = True
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if site.lengths:
                self.send_header("Content-Length", str(len(content)))
            else:
                self.close_connection = True
            self.end_headers()
            if not body:
                return
            stop = len(content)
            if status in {200, 206} and site.drop_after is not None and site.drop():
                stop = min(site.drop_after, stop)
                self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the client has read enough
                for start in range(0, stop, BLOCK):
                    block = content[start : min(start + BLOCK, stop)]
                    self.wfile.write(block)
                    with site.lock:
                        site.sent += len(block)
                    time.sleep(site.pause)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = super().get_request()
            # A small buffer, so that `sent` is close to the bytes that the client has read.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # clients that disconnect are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


PORTS = range(20_000, 32_000)  # below the range from which Linux takes ports for connections
_reserved: list[int] = []  # locks that this process holds as long as it runs


def closed_port() -> int:
    """A port of 127.0.0.1 on which nothing listens, reserved for this process.

    Several processes of pytest may ask at once, and a server takes seconds to bind its port, so a
    lock file for each port excludes the others.
    """
    folder = Path(tempfile.gettempdir(), f"ostinato-test-ports-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    first = os.getpid() % len(PORTS)
    for port in itertools.chain(PORTS[first:], PORTS[:first]):
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR)
        with contextlib.suppress(OSError), socket.socket() as probe:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            probe.bind(("127.0.0.1", port))
            _reserved.append(lock)
            return port
        os.close(lock)
    raise RuntimeError("no free port")


# The shell's `nohup pytest &` ignores SIGINT, and a child would inherit that.
DEFAULT_SIGNALS = """\
import os, signal, sys
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def start(command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
    """Start a process that handles SIGINT by default, also where the tests ignore it."""
    wrapper = [sys.executable, "-I", "-S", "-c", DEFAULT_SIGNALS]
    return subprocess.Popen([*wrapper, *map(str, command)], **options)


# Each service of Prefect runs several times within the tests, as within a day. SQLite has one
# writer and the machine may be busy, so the timeouts are long.
SERVER_SETTINGS = {
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": '["events", "flow_runs"]',
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
}


@dataclass(frozen=True)
class PrefectServer:
    """A running `prefect server start` with an empty database of its own."""

    url: str
    """Its API, as PREFECT_API_URL takes it."""
    log: Path

    def errors(self) -> list[str]:
        """The entries of its log at the level ERROR or CRITICAL, each with its traceback.

        Without conflicts of two writes in SQLite: clients and services of Prefect retry them.
        """
        text = self.log.read_text(encoding="utf-8")
        entries = re.split(r"^(?=\d\d:\d\d:\d\d\.\d+ \| )", text, flags=re.MULTILINE)
        errors = [entry for entry in entries if re.search(r"\b(ERROR|CRITICAL)\b", entry)]
        return [
            entry for entry in errors if "sqlite3.OperationalError) database is locked" not in entry
        ]


@contextlib.contextmanager
def prefect(folder: Path, *options: str, **settings: str) -> Iterator[PrefectServer]:
    """Run a Prefect server with all its services until the block ends.

    Args:
        folder: of its database and its log; exists.
        options: of `prefect server start`.
        settings: variables of its environment.
    """
    port = closed_port()
    server = PrefectServer(f"http://127.0.0.1:{port}/api", folder / "server.log")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    inherited = {key: v for key, v in os.environ.items() if not key.startswith("PREFECT_API")}
    with server.log.open("w") as log:
        process = start(
            [*command, "--port", str(port), *options],
            env={
                **inherited,
                **SERVER_SETTINGS,
                "PREFECT_HOME": str(folder),
                "NO_COLOR": "1",
                **settings,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not _responds(f"{server.url}/health"):
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        stop(process)


def stop(process: "subprocess.Popen[Any]") -> None:
    """Stop a process that leads its session; after 20 s kill the rest of the session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
