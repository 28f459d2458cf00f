"""Servers on 127.0.0.1 for tests: one of files, which can misbehave, and Prefect's own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BLOCK = 16 << 10


@dataclass
class Site:
    """What the server has, how it behaves (may be changed while it runs) and what it has seen."""

    files: Mapping[str, bytes] | Path
    """Path without the leading slash -> content, or a folder."""
    url: str = ""
    ranges: bool = True
    """False: answers every request with the whole file and 200."""
    validators: bool = True
    """False: sends no ETag."""
    conditional: bool = True
    """False: If-Range is not looked at."""
    lengths: bool = True
    """False: sends no Content-Length, so that the end of the body is the end of the connection."""
    unavailable: int = 0
    """The next so many GETs of each file get a 503."""
    drop_after: int | None = None
    """Connections are dropped after so many bytes of a body, though its length is announced."""
    drops: int | None = None
    """How often they are dropped, in all; None: always."""
    pause: float = 0.0
    """Seconds between two blocks of a body."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path without the leading slash -> where it redirects to."""
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
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            asked = self.headers.get("Range", "")
            if body:
                with site.lock:
                    site.gets.append((path, asked))
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
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
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
            # Little is under way, so that `sent` is about what the client has taken.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that goes away is part of the tests

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


def closed_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


# Each service of Prefect comes around several times within the tests, as it does within a day.
# SQLite has one writer, and a busy machine is slow: nothing is an error that only waits.
QUICK = {
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

        Two writes that meet in SQLite are no error: Prefect keeps them out of uvicorn's log too,
        its clients try again, and its services come around again.
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
    kept = {key: v for key, v in os.environ.items() if not key.startswith("PREFECT_API")}
    with server.log.open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            env={**kept, **QUICK, "PREFECT_HOME": str(folder), "NO_COLOR": "1", **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{server.url}/health"):
            assert process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        stop(process)


def stop(process: "subprocess.Popen[Any]") -> None:
    """End a process that leads its session, and whatever is left of the session after 20 s."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
