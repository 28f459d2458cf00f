"""A model that doubles numbers, for tests of the server, and the server itself in a thread."""

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from pydantic import BaseModel, Field

from ostinato.errors import RegistryError, RequestError
from ostinato.serving.loading import Interface, Loaded, Source
from ostinato.serving.server import Server, create_app
from ostinato.serving.settings import Settings
from ostinato.task import Json

URL = "/v1/models/echo:predict"
BUG = 666  # an input on which the model fails
NAN = 667  # an input whose response is no number


class Input(BaseModel):
    """A number; negative ones are refused."""

    value: int
    note: str = Field(default="", description="is returned")


class Response(BaseModel):
    """Twice the number, and more."""

    doubled: int
    ratio: float | None
    note: str
    version: str
    scale: int


INTERFACE = Interface(Input, Response, {"scale": 1}, {"value": 1}, "Doubles numbers.")


@dataclass(eq=False)
class EchoService:
    """Answers, and keeps the size of each batch.

    Args:
        version: is in each response.
        seconds: that a batch takes.
    """

    version: str = "1"
    seconds: float = 0.0
    batches: list[list[int]] = field(default_factory=list)
    gate: threading.Event | None = None

    def predict(self, inputs: Sequence[Any], options: Mapping[str, Json]) -> list[Response]:
        self.batches.append([each.value for each in inputs])
        if self.gate:
            assert self.gate.wait(20)
        time.sleep(self.seconds)
        for number, each in enumerate(inputs):
            if each.value < 0:
                raise RequestError(f"number {number}: {each.value} is negative")
            if each.value == BUG:
                raise ZeroDivisionError(f"secret {each.note}")
        scale = options["scale"]
        return [
            Response(
                doubled=2 * each.value * scale,
                ratio=float("nan") if each.value == NAN else 0.5,
                note=each.note,
                version=self.version,
                scale=scale,
            )
            for each in inputs
        ]


class EchoSource:
    """Versions of the model; ``alias`` says which one should answer.

    Args:
        name: of the model.
        seconds: that a batch takes.
    """

    domain = "echo"
    interface = INTERFACE

    def __init__(self, name: str = "echo", seconds: float = 0.0) -> None:
        self.name, self.seconds, self.alias = name, seconds, "1"
        self.broken: set[str] = set()  # versions that do not load
        self.down = False  # whether the registry does not answer
        self.loads: list[str] = []
        self.services: list[weakref.ref[EchoService]] = []
        self.gate: threading.Event | None = None

    def current(self) -> str:
        if self.down:
            raise RegistryError("no registry")
        return self.alias

    def load(self, version: str) -> Loaded:
        self.loads.append(version)
        if version in self.broken:
            raise OSError(f"version {version}\nhas no weights")
        service = EchoService(version, self.seconds, gate=self.gate)
        self.services.append(weakref.ref(service))
        return Loaded(version, service, {"run": "echo"}, {"value": 1})

    def alive(self) -> int:
        """How many versions are in memory."""
        gc.collect()
        return sum(service() is not None for service in self.services)


@dataclass(frozen=True)
class Running:
    """A server on loopback."""

    http: httpx.Client
    server: Server
    uvicorn: uvicorn.Server
    url: str

    def ask(self, *values: int, **more: Any) -> httpx.Response:
        return self.http.post(URL, json={"inputs": [{"value": v} for v in values], **more})

    def wait(self, version: str) -> None:
        """Wait until a version answers."""
        until(lambda: self.models()["version"] == version)

    def models(self) -> Any:
        return self.http.get("/v1/models").json()[0]

    def stop(self) -> None:
        self.uvicorn.should_exit = True


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def running(
    *found: Source,
    ready: bool = True,
    keys: tuple[str, ...] = (),
    log_key: bytes = b"",
    **settings: Any,
) -> Iterator[Running]:
    """Serve until the block ends; wait until the models are loaded."""
    found = found or (EchoSource(),)
    values = {"models": ["echo"], "poll_s": 0.02, "log_interval_s": 0.05, **settings}
    app = create_app(Settings.model_validate(values), found, keys, log_key)
    config = uvicorn.Config(app, port=values.get("port", 0), log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=20) as http:
            if ready:
                until(lambda: http.get("/health/ready").status_code == 200)
            yield Running(http, app.state.server, server, url)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
