"""Files over HTTP: the part that is wanted, several at once, resumed, and never taken for whole.

A transfer runs into ``<name>.partial`` beside the final name, with what is known of the remote
file in ``<name>.partial.json``. A killed or broken one goes on from there, by ``Range`` and
``If-Range`` (RFC 9110, sections 13 and 14), as long as the server's file is still the same. The
final name appears when everything wanted has come and its length agrees with the server's word.
"""

import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import httpx
import tenacity
from tqdm import tqdm

from ostinato import store
from ostinato.errors import DownloadError, UnreachableError

CONNECT = 5.0  # s; a host that takes longer to pick up is taken for absent
REDIRECTS = 5
CHUNK = 1 << 20  # bytes read from a local file at a time
LONGEST_WAIT = 30.0  # s between two tries, also where the server asks for more
HEADWAY = 1 << 20  # bytes; a transfer that breaks after so many is continued, not counted as failed
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another try


class _PassingError(DownloadError):
    """Worth another try, after ``wait`` seconds or more."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Part(Protocol):
    """How much of a file is wanted, told from its bytes in order."""

    def take(self, chunk: bytes) -> int | None:
        """The number of bytes of ``chunk`` with which the wanted part ends; None: read on."""

    def guess(self) -> int | None:
        """About how many more bytes are wanted; None: all there are."""


class Whole:
    """The whole file."""

    def take(self, chunk: bytes) -> int | None:
        """Never ends before the file does."""
        return None

    def guess(self) -> int | None:
        """All there are."""
        return None


class Lines:
    """The first ``count`` lines, which have about ``typical`` bytes each."""

    def __init__(self, count: int, typical: int) -> None:
        self.left = count
        self.found = self.read = 0
        self.typical = typical

    def take(self, chunk: bytes) -> int | None:
        """Ends after the last wanted line feed."""
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
        """By the mean length of the lines so far, and a little over."""
        mean = self.read / self.found if self.found else max(self.typical, self.read)
        return max(4096, int(1.1 * mean * self.left))


def inside(folder: Path, name: str) -> Path:
    """The path of the file ``name`` right in ``folder``.

    Raises:
        DownloadError: the name, which comes from outside, could lead out of the folder.
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
    """Get ``part`` of each URL or local path of ``files`` under its final path.

    Final paths that exist are left alone, so a second call goes on where the first one ended.

    Args:
        files: final path -> URL or local path.
        part: makes the description of what is wanted of a file.
        max_concurrency: transfers at the same time.
        timeout: seconds without a byte after which a transfer counts as broken.
        retries: further tries of a transfer that makes no headway.

    Raises:
        UnreachableError: a host does not answer, within seconds.
        DownloadError: names every file that could not be had; the others are there.
    """
    for where in files.values():
        check(where)
    missing = {path: where for path, where in files.items() if not path.exists()}
    stop, lock = threading.Event(), threading.Lock()
    failed: dict[Path, DownloadError] = {}
    with (
        client(timeout=timeout, max_concurrency=max_concurrency) as web,
        tqdm(total=len(files), initial=len(files) - len(missing), unit="file", disable=None) as bar,
        tqdm(unit="B", unit_scale=True, disable=None) as moved,
    ):

        def advance(count: int) -> None:
            if stop.is_set():
                raise DownloadError("stopped")
            with lock:
                moved.update(count)

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
                        bar.update()
                    except UnreachableError:
                        raise
                    except DownloadError as error:
                        failed[tasks[task]] = error
            finally:  # on an interruption too: no transfer goes on behind the caller's back
                stop.set()
                pool.shutdown(cancel_futures=True)
    if failed:
        lines = [str(failed[path]) for path in files if path in failed]
        raise DownloadError(
            "\n  ".join([f"{len(failed)} of {len(files)} files could not be had:", *lines])
        )


def client(*, timeout: float, max_concurrency: int) -> httpx.Client:
    """A client that connects within seconds, follows few redirects and asks for plain bytes."""
    return httpx.Client(
        timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT)),
        limits=httpx.Limits(max_connections=max_concurrency),
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers={"Accept-Encoding": "identity", "User-Agent": "ostinato"},
    )


def check(where: str) -> None:
    """Refuse a URL that is not one of http or https with a host; a local path passes."""
    if is_url(where):
        try:
            url = httpx.URL(where)
        except httpx.InvalidURL as error:
            raise DownloadError(f"{where}: not a URL: {error}") from None
        if url.scheme not in {"http", "https"} or not url.host:
            raise DownloadError(f"{where}: only http:// and https:// URLs are read")


def reach(web: httpx.Client, url: str) -> None:
    """Ask once whether the host of ``url`` answers, with whatever status.

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
        except Exception:  # it answered, if strangely: the transfer itself says what is wrong
            failure.clear()

    # In a thread of its own because looking up a name has no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * CONNECT)
    if failure:
        raise UnreachableError(f"{url}: cannot reach {httpx.URL(url).host}: {failure[0]}")


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
    """Get ``part`` of ``url`` under ``path``; ``advance`` is told the bytes as they come.

    Raises:
        UnreachableError: no connection, in ``retries`` + 1 tries.
        DownloadError: no such file, or transfers keep breaking; what came stays for the next call.
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
        raise kind(f"{error}; gave up after {retries + 1} tries") from error
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
    """One request that adds to ``partial``; whether all that is wanted is there now."""
    known: dict[str, Any] = {}
    if partial.exists() and _note(partial).exists():
        known = store.read_json(_note(partial))
    if known.get("url") != url:
        known = {"url": url, "validator": None, "total": None, "ranged": True}
    wanted = part()
    # Bytes that the server cannot match with its file are not gone on from.
    with partial.open("r+b" if known["ranged"] and known["validator"] else "w+b") as file:
        while chunk := file.read(CHUNK):
            end = wanted.take(chunk)
            if end is not None:
                file.truncate(file.tell() - len(chunk) + end)
                return True
        start = file.tell()
        if start and start == known["total"]:
            return True
        headers = {}
        if known["ranged"]:
            guess = wanted.guess()
            headers["Range"] = f"bytes={start}-{'' if guess is None else start + guess - 1}"
            if start:
                headers["If-Range"] = known["validator"]
        try:
            with web.stream("GET", url, headers=headers) as response:
                try:
                    left = _length(response, start, known)
                finally:
                    store.write_json(_note(partial), known)
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
            if known["ranged"] and file.tell() - start >= HEADWAY:
                return False
            raise _PassingError(f"{url}: {str(error) or type(error).__name__}") from error
        if left > 0:
            raise _PassingError(f"{url}: ended {left:.0f} bytes short of the length announced")
        return response.status_code == 200 or file.tell() == known["total"]


def _length(response: httpx.Response, start: int, known: dict[str, Any]) -> float:
    """The bytes that a response will bring; sets what ``known`` tells of the file.

    NaN where the response is chunked, which marks its own end.
    """
    url, status, headers = known["url"], response.status_code, response.headers
    problem = f"{url}: HTTP {status} {response.reason_phrase}"
    if status in PASSING:
        wait = headers.get("Retry-After", "")
        raise _PassingError(problem, float(wait) if wait.isdigit() else 0.0)
    if status not in {200, 206, 416}:
        raise DownloadError(problem)
    if headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{url}: sent as {headers['Content-Encoding']}, though not asked for")
    validator = headers.get("ETag", "W/")
    if validator.startswith("W/"):  # a weak one does not vouch for each byte
        validator = headers.get("Last-Modified")
    if status == 200:
        length = headers.get("Content-Length", "")
        if not length.isdigit() and headers.get("Transfer-Encoding") != "chunked":
            raise DownloadError(f"{url}: sent without a length, so its end cannot be told")
        known.update(validator=validator, ranged=False)
        known["total"] = int(length) if length.isdigit() else None
        return float(length or "nan")
    span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", headers.get("Content-Range", ""))
    total = int(span[3]) if span else None
    if status == 416 and total == start:  # there is nothing beyond what has come
        return 0
    if status == 416 or not span or int(span[1] or -1) != start or int(span[2]) < start:
        known["ranged"] = False
        raise _PassingError(f"{problem}: not the range asked for")
    if start and (validator, total) != (known["validator"], known["total"]):
        known["validator"] = None
        raise _PassingError(f"{url}: changed while it was read")
    known.update(validator=validator, total=total, ranged=bool(validator))
    return int(span[2]) + 1 - start


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds before the next try: exponential with jitter, or longer if the server says so."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _PassingError) else 0.0
    backoff = tenacity.wait_exponential(multiplier=0.25) + tenacity.wait_random(0, 0.25)
    return min(max(backoff(state), asked), LONGEST_WAIT)
