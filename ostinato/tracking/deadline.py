"""Time limits of whole calls to a server.

MLflow's own limit is the silence between two bytes, so a server that sends a byte a second would
hold a stage for hours.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CALL_S = 30.0  # longest call without files
DOWNLOAD_S = 3600.0  # longest download of a model
BYTES_PER_S = 100_000  # an upload may be as slow as this


def within(seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread, which is abandoned when the time is over.

    Raises:
        TimeoutError: the call has not returned in time.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    if not wait([future], seconds).done:
        raise TimeoutError(f"no complete answer within {seconds:g} s")
    return future.result()


class WithDeadlines:
    """A client whose calls have a time limit.

    Args:
        client: of a server.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            uploads = args[1:2] if name.startswith("log_") else ()
            size = sum(_size(Path(path)) for path in uploads if isinstance(path, str))
            return within(CALL_S + size / BYTES_PER_S, method, *args, **kwargs)

        return call


def _size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
