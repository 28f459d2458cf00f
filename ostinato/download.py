"""Download files, or the first part of files, over HTTP: concurrent, resumable and complete.

A transfer writes to ``<name>.partial`` beside the final path, and the URL, validator and length of
the remote file to ``<name>.partial.json``. After an interruption it resumes from there by ``Range``
and ``If-Range`` (RFC 9110, sections 13 and 14), as long as the server's file is unchanged. The
final path appears when the requested part is complete and its length agrees with the server's.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import httpx
import tenacity

from ostinato import store
from ostinato.errors import DownloadError, UnreachableError
from ostinato.progress import Bar

CONNECT = 5.0  # s; a host that takes longer to connect counts as unreachable
REDIRECTS = 5
CHUNK = 1 << 20  # bytes read from a local file at a time
LONGEST_WAIT = 30.0  # s between two attempts, also where the server asks for more
HEADWAY = 1 << 20  # bytes; a transfer that breaks after more is resumed and is no failed attempt
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses of temporary failures


State = Mapping[str, str | None]  # of a remote file: etag, last_modified, length
_states: dict[str, State | None] = {}  # of the files that this process has read, by URL


class _PassingError(DownloadError):
    """A temporary failure: the transfer is retried after at least ``wait`` seconds."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Part(Protocol):
    """The requested part of a file, found from its bytes in order."""

    def take(self, chunk: bytes) -> int | None:
        """The number of bytes of ``chunk`` up to the end of the part; None: read on."""

    def guess(self) -> int | None:
        """An estimate of the number of bytes that are missing; None: all of the file."""


class Whole:
    """The whole file."""

    def take(self, chunk: bytes) -> int | None:
        """None: the part ends with the file."""
        return None

    def guess(self) -> int | None:
        """None: all of the file."""
        return None


class Lines:
    """The first ``count`` lines, of about ``typical`` bytes each."""

    def __init__(self, count: int, typical: int) -> None:
        self.left = count
        self.found = self.read = 0
        self.typical = typical

    def take(self, chunk: bytes) -> int | None:
        """The end of the last requested line."""
        lines = chunk.count(b"\n")
        if lines >= self.left:
            end = 0
            for _ in range(self.left):
                end = chunk.index(b"\n", end) + 1
            return end
        self.left -= lines
        self.found += lines
        self.read += len(chunk)
        return None

    def guess(self) -> int | None:
        """An estimate from the mean length of the lines so far, plus 10%."""
        mean = self.read / self.found if self.found else max(self.typical, self.read)
        return max(4096, int(1.1 * mean * self.left))


def inside(folder: Path, name: str) -> Path:
    """The path of the file ``name`` in ``folder``.

    Raises:
        DownloadError: the name could lead out of the folder.
    """
    if name in {"", ".", ".."} or re.search(r"[/\\:\x00-\x1f]", name):
        raise DownloadError(f"{name!r} is not a plain file name")
    return folder / name


def is_url(where: str) -> bool:
    """Whether ``where`` is a URL (of any scheme) and not a local path."""
    return "://" in where


def fetch_all(
    files: Mapping[Path, str],
    part: Callable[[], Part],
    *,
    max_concurrency: int,
    timeout: float,
    retries: int,
) -> None:
    """Download or copy ``part`` of each file to its final path.

    Final paths that exist are skipped, so a second call resumes the first one.

    Args:
        files: final path -> URL or local path.
        part: returns the requested part of a file.
        max_concurrency: transfers at the same time.
        timeout: seconds without a byte after which a transfer counts as broken.
        retries: further attempts of a transfer that breaks.

    Raises:
        UnreachableError: a host does not answer, within seconds.
        DownloadError: lists the files that failed; the others are complete.
    """
    for where in files.values():
        check(where)
    missing = {path: where for path, where in files.items() if not path.exists()}
    earlier = [where for path, where in files.items() if path not in missing and is_url(where)]
    _states.update(dict.fromkeys(earlier))  # read by a process that has ended: not known
    stop, lock = threading.Event(), threading.Lock()
    failed: dict[Path, DownloadError] = {}
    with (
        client(timeout=timeout, max_concurrency=max_concurrency) as web,
        Bar("downloading", len(files), unit="files", start=len(files) - len(missing)) as bar,
    ):
        began, moved = time.monotonic(), 0

        def advance(count: int) -> None:
            if stop.is_set():
                raise DownloadError("stopped")
            nonlocal moved
            with lock:
                moved += count
                speed = moved / 1e6 / max(time.monotonic() - began, 1e-3)
                bar.advance(0, f"{moved / 1e6:,.1f} MB, {speed:,.1f} MB/s")

        def get(path: Path, where: str) -> None:
            if stop.is_set():
                return
            if is_url(where):
                fetch(web, where, path, part, retries=retries, advance=advance)
            else:
                copy(Path(where), path, part, advance=advance)

        for url in {httpx.URL(w).netloc: w for w in missing.values() if is_url(w)}.values():
            reach(web, url)
        with ThreadPoolExecutor(max_concurrency) as pool:
            tasks: dict[Future[None], Path] = {
                pool.submit(get, path, where): path for path, where in missing.items()
            }
            try:
                for task in as_completed(tasks):
                    try:
                        task.result()
                        with lock:
                            bar.advance()
                    except UnreachableError:
                        raise
                    except DownloadError as error:
                        failed[tasks[task]] = error
            finally:  # also after an interruption: no transfer outlives the call
                stop.set()
                pool.shutdown(cancel_futures=True)
    if failed:
        lines = [str(failed[path]) for path in files if path in failed]
        raise DownloadError(
            "\n  ".join([f"{len(failed)} of {len(files)} files cannot be downloaded:", *lines])
        )


def client(*, timeout: float, max_concurrency: int) -> httpx.Client:
    """A client with a short connection timeout, few redirects and no compression."""
    return httpx.Client(
        timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT)),
        limits=httpx.Limits(max_connections=max_concurrency),
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers={"Accept-Encoding": "identity", "User-Agent": "ostinato"},
    )


def check(where: str) -> None:
    """Raise an error for a URL that is not http or https with a host; local paths pass."""
    if is_url(where):
        try:
            url = httpx.URL(where)
        except httpx.InvalidURL as error:
            raise DownloadError(f"{where}: not a URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise DownloadError(f"{where}: only http:// and https:// URLs are read")


def reach(web: httpx.Client, url: str) -> None:
    """Check once that the host of ``url`` answers, with any status.

    Raises:
        UnreachableError: it does not, within twice CONNECT seconds.
    """
    failure: list[str] = ["no answer"]

    def ask() -> None:
        try:
            web.head(url, timeout=CONNECT)
            failure.clear()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            failure[0] = str(error) or type(error).__name__
        except (httpx.HTTPError, httpx.InvalidURL):  # the transfer reports it
            failure.clear()

    # In a thread of its own, because a name lookup has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * CONNECT)
    if failure:
        raise UnreachableError(f"{url}: cannot reach {httpx.URL(url).host}: {failure[0]}")


def states() -> dict[str, State | None]:
    """The state of each remote file that this process has read, by its URL; None: not known."""
    return dict(_states)


def unchanged(states: Mapping[str, State | None], *, timeout: float, max_concurrency: int) -> bool:
    """Whether remote files certainly have the state in which they were read.

    Args:
        states: by URL, as `states` returns them.
        timeout: seconds for each request.
        max_concurrency: requests at the same time.

    Returns:
        False also where a server does not answer, or tells neither a version nor a date.
    """

    def same(url: str, state: State | None) -> bool:
        if not state or not (state["etag"] or state["last_modified"]):
            return False
        try:
            response = web.head(url)
        except httpx.HTTPError:
            return False
        length = response.headers.get("Content-Length")
        return response.status_code == 200 and _state(response.headers, length) == state

    with (
        client(timeout=timeout, max_concurrency=max_concurrency) as web,
        ThreadPoolExecutor(max_concurrency) as pool,
    ):
        return all(pool.map(same, states.keys(), states.values()))


def _state(headers: httpx.Headers, length: str | None) -> State:
    """The state of a remote file, by the headers of a response."""
    return {
        "etag": headers.get("ETag"),
        "last_modified": headers.get("Last-Modified"),
        "length": length or None,
    }


def copy(
    source: Path, path: Path, part: Callable[[], Part], *, advance: Callable[[int], None]
) -> None:
    """Copy ``part`` of a local file to ``path``, atomically."""
    wanted = part()
    try:
        with (
            source.open("rb") as file,
            store.atomic_file(path) as temporary,
            temporary.open("wb") as target,
        ):
            while chunk := file.read(CHUNK):
                end = wanted.take(chunk)
                advance(target.write(chunk[:end]))
                if end is not None:
                    break
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DownloadError(f"{source}: {error.strerror}") from None


def fetch(
    web: httpx.Client,
    url: str,
    path: Path,
    part: Callable[[], Part],
    *,
    retries: int,
    advance: Callable[[int], None],
) -> None:
    """Download ``part`` of ``url`` to ``path``; ``advance`` receives the number of bytes written.

    Raises:
        UnreachableError: no connection in ``retries`` + 1 attempts.
        DownloadError: no such file, or all attempts broke; the next call resumes the file.
    """
    check(url)
    partial = path.with_name(f"{path.name}.partial")
    grow = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_PassingError),
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=_pause,
        reraise=True,
    )
    try:
        while not grow(_step, web, url, partial, part, advance):
            pass
    except _PassingError as error:
        kind = DownloadError
        if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
            kind = UnreachableError
        raise kind(f"{error}; gave up after {retries + 1} attempts") from error
    with store.atomic_file(path) as temporary:
        partial.replace(temporary)
    _note(partial).unlink(missing_ok=True)


def _step(
    web: httpx.Client,
    url: str,
    partial: Path,
    part: Callable[[], Part],
    advance: Callable[[int], None],
) -> bool:
    """Send one request and append to ``partial``; return whether the part is complete."""
    remote: dict[str, Any] = {}
    if partial.exists() and _note(partial).exists():
        remote = store.read_json(_note(partial))
    if remote.get("url") != url:
        remote = {"url": url, "validator": None, "total": None, "ranged": True}
    wanted = part()
    # Without a validator the server cannot confirm that the bytes are of its file: start over.
    with partial.open("r+b" if remote["ranged"] and remote["validator"] else "w+b") as file:
        while chunk := file.read(CHUNK):
            end = wanted.take(chunk)
            if end is not None:
                file.truncate(file.tell() - len(chunk) + end)
                return True
        start = file.tell()
        if start and start == remote["total"]:
            return True
        headers = {}
        if remote["ranged"]:
            guess = wanted.guess()
            headers["Range"] = f"bytes={start}-{'' if guess is None else start + guess - 1}"
            if start:
                headers["If-Range"] = remote["validator"]
        try:
            with web.stream("GET", url, headers=headers) as response:
                try:
                    left = _length(response, start, remote)
                finally:
                    store.write_json(_note(partial), remote)
                if response.status_code == 416:
                    return True
                if response.status_code == 200:
                    file.truncate(file.seek(0))
                    wanted = part()
                for chunk in response.iter_raw():
                    end = wanted.take(chunk)
                    advance(file.write(chunk[:end]))
                    if end is not None:
                        return True
                    left -= len(chunk)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise DownloadError(f"{url}: {error}") from error
        except httpx.TransportError as error:
            if remote["ranged"] and file.tell() - start >= HEADWAY:
                return False
            raise _PassingError(f"{url}: {str(error) or type(error).__name__}") from error
        if left > 0:
            raise _PassingError(f"{url}: ended {left:.0f} bytes before the announced length")
        return response.status_code == 200 or file.tell() == remote["total"]


def _length(response: httpx.Response, start: int, remote: dict[str, Any]) -> float:
    """The number of bytes of a response's body; updates ``remote``.

    NaN where the response is chunked: it marks its own end.
    """
    url, status, headers = remote["url"], response.status_code, response.headers
    problem = f"{url}: HTTP {status} {response.reason_phrase}"
    if status in PASSING:
        wait = headers.get("Retry-After", "")
        raise _PassingError(problem, float(wait) if wait.isdigit() else 0.0)
    if status not in {200, 206, 416}:
        raise DownloadError(problem)
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(
            f"{url}: compressed as {headers['Content-Encoding']}, which was not requested"
        )
    validator = headers.get("ETag", "W/")
    if validator.startswith("W/"):  # a weak one does not identify each byte
        validator = headers.get("Last-Modified")
    if status == 200:
        length = headers.get("Content-Length", "")
        if not length.isdigit() and headers.get("Transfer-Encoding") != "chunked":
            raise DownloadError(
                f"{url}: sent without a length, so it cannot be checked for completeness"
            )
        remote.update(validator=validator, ranged=False)
        remote["total"] = int(length) if length.isdigit() else None
        _states[url] = _state(headers, length)
        return float(length or "nan")
    span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", headers.get("Content-Range", ""))
    total = int(span[3]) if span else None
    if status == 416 and total == start:  # the file ends here
        return 0
    if status == 416 or not span or int(span[1] or -1) != start or int(span[2]) < start:
        remote["ranged"] = False
        raise _PassingError(f"{problem}: not the requested range")
    if start and (validator, total) != (remote["validator"], remote["total"]):
        remote["validator"] = None
        raise _PassingError(f"{url}: changed while it was read")
    remote.update(validator=validator, total=total, ranged=bool(validator))
    _states[url] = _state(headers, str(total))
    return int(span[2]) + 1 - start


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: exponential with jitter, or as the server asks."""
    error = state.outcome.exception() if state.outcome else None
    requested = error.wait if isinstance(error, _PassingError) else 0.0
    backoff = tenacity.wait_exponential(multiplier=0.25) + tenacity.wait_random(0, 0.25)
    return min(max(backoff(state), requested), LONGEST_WAIT)
