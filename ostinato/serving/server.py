"""The HTTP server of `ostinato serve`: any number of models, from a registry or from disk.

GET  /                            the page, for people
POST /v1/models/{name}:predict    one or many inputs
GET  /v1/models                   what is served: versions, lineage, failures
POST /v1/feedback                 what an answer should have been
GET  /v1/monitoring               the reports of the monitor (`ostinato.serving.monitoring`)
POST /invocations                 the first model, as `mlflow models serve` answers
GET  /health/live, /health/ready, /metrics, /openapi.json
"""

import asyncio
import json
import logging
import os
import random
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ostinato import params
from ostinato.errors import INPUT_NUMBER, OstinatoError, RequestError
from ostinato.serving import access, kinds, monitoring, openapi, static
from ostinato.serving.batching import Answer, Batch, Batcher, QueueFullError, origin
from ostinato.serving.loading import Interface, ServedModel, Source, Watcher, sources
from ostinato.serving.prometheus import CONTENT_TYPE, MULTIPROCESS, Metrics
from ostinato.serving.request_log import Exchange, RequestLog
from ostinato.serving.requests import check_finite
from ostinato.serving.settings import Settings
from ostinato.task import Json

SETTINGS = "OSTINATO_SERVE_SETTINGS"
"""Environment variable by which the processes of one server get its settings, as JSON."""

BODIES_AT_ONCE = 16
"""Requests of the maximal size that are in memory together; more are answered with 429."""
MAX_DETAILS = 20  # errors that an answer lists
MAX_TRUTH_BYTES = 64 << 10  # of the body of a feedback
DRAIN_S = 1.0  # for which a body that is too large is read and discarded, so that 413 arrives
JSON_TYPE = "application/json"

log = logging.getLogger(__name__)


class ApiError(OstinatoError):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people.
        details: a dict for each problem of an input: item, field, message.
        retry_after_s: when to try again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Sequence[Mapping[str, object]] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.details = status, code, details
        self.retry_after_s = retry_after_s


class Feedback(BaseModel):
    """What the answer to an input should have been."""

    model_config = ConfigDict(extra="forbid")

    request_id: str = Field(pattern="^[0-9a-f]{32}$", description="of the answer")
    item: int = Field(0, ge=0, lt=1 << 31, description="number of the input in its request, from 0")
    model: str = Field(description="name of the model")
    truth: Json = Field(description="the label, the translation or the values, as in a response")


class Endpoint:
    """A served model with its batches and the types of its requests."""

    def __init__(self, source: Source, settings: Settings, metrics: Metrics) -> None:
        self.name, self.interface, self.metrics = source.name, source.interface, metrics
        self.request_type = openapi.request_type(source.name, source.interface, settings.max_items)
        self.model = ServedModel(source, settings.batch_size, self._changed)
        self._version = ""
        self.waiting = metrics.queue.labels(self.name)
        self._batch_items = metrics.batch_items.labels(self.name)
        self._batch_seconds = metrics.batch_seconds.labels(self.name)
        self.batcher = Batcher(
            self.model.in_use,
            batch_size=settings.batch_size,
            wait_s=settings.batch_wait_ms / 1000,
            max_queue=settings.max_queue,
            observe=self._observe,
        )

    def _observe(self, batch: Batch) -> None:
        self._batch_items.observe(batch.items)
        self._batch_seconds.observe(batch.seconds)

    def _changed(self) -> None:
        self.metrics.failing.labels(self.name).set(self.model.failure is not None)
        version = self.model.loaded.version if self.model.loaded else ""
        if version != self._version:
            if self._version:
                self.metrics.version.labels(self.name, self._version).set(0)
            self.metrics.version.labels(self.name, version).set(1)
            self._version = version


class Server:
    """The endpoints of one process.

    Args:
        settings: of the server.
        found: the sources of the models.
        log_key: of the log's hashes.
    """

    def __init__(self, settings: Settings, found: Sequence[Source], log_key: bytes) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.endpoints = {each.name: Endpoint(each, settings, self.metrics) for each in found}
        self.max_body = int(settings.max_body_mb * 1e6)
        self.body_bytes = 0  # of the requests that are in memory
        models = [endpoint.model for endpoint in self.endpoints.values()]
        self.watcher = Watcher(models, settings.poll_s)
        self.log: RequestLog | None = None
        if settings.log_folder:
            self.log = RequestLog(
                settings.log_folder,
                interval_s=settings.log_interval_s,
                max_bytes=int(settings.log_max_mb * 1e6),
                inputs=settings.log_inputs,
                outputs=settings.log_outputs,
                key=log_key,
            )

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Load the models while the server listens; in the end, write the log."""
        for endpoint in self.endpoints.values():
            endpoint.batcher.start()
        self.watcher.start()
        try:
            yield
        finally:
            for endpoint in self.endpoints.values():
                await endpoint.batcher.stop()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self.watcher.stop)
            if self.log:
                await loop.run_in_executor(None, self.log.close)
            self.metrics.close()

    # Requests

    async def predict(self, name: str, request: Request) -> Response:
        """Answer the inputs of a request."""
        endpoint = self._endpoint(name)
        answer, outputs, request_id = await self._answer(endpoint, request)
        head = orjson.dumps({"model": name, "version": answer.version, "request_id": request_id})
        content = head[:-1] + b',"responses":[' + b",".join(outputs) + b"]}"
        return Response(content, media_type=JSON_TYPE, headers={"X-Request-Id": request_id})

    async def invocations(self, request: Request) -> Response:
        """Answer as `mlflow models serve` does, also where a request is wrong."""
        endpoint = next(iter(self.endpoints.values()))
        try:
            _, outputs, request_id = await self._answer(endpoint, request)
        except ApiError as error:
            status = 400 if error.status == 422 else error.status
            known = {400: "INVALID_PARAMETER_VALUE", 429: "REQUEST_LIMIT_EXCEEDED"}
            code = known.get(status, "TEMPORARILY_UNAVAILABLE" if status == 503 else "BAD_REQUEST")
            wrong = json.dumps({"error_code": code, "message": str(error)})
            return Response(wrong, status, _retry_after(error), JSON_TYPE)
        content = b'{"predictions": [' + b",".join(outputs) + b"]}"
        return Response(content, media_type=JSON_TYPE, headers={"X-Request-Id": request_id})

    async def feedback(self, request: Request) -> Response:
        """Keep what an answer should have been."""
        if self.log is None:
            raise ApiError(
                404, "no_feedback", "this server keeps no feedback; start it with --log-folder"
            )
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                body = await self._body(request, min(MAX_TRUTH_BYTES, self.max_body))
        except TimeoutError:
            raise self._late() from None
        try:
            sent = Feedback.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from None
        self._endpoint(sent.model)
        if not self.log.add_feedback(sent.request_id, sent.item, sent.model, sent.truth):
            raise ApiError(503, "log_full", "there is no room for more feedback", None, 60)
        return Response('{"accepted": true}', 202, media_type=JSON_TYPE)

    async def _answer(
        self, endpoint: Endpoint, request: Request
    ) -> tuple[Answer, list[bytes], str]:
        started, model = time.perf_counter(), endpoint.model
        if model.loaded is None:
            raise ApiError(503, "not_ready", f"{endpoint.name} is being loaded", None, 5)
        reserved = 0
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                reserved = self._reserve(request)
                body = await self._body(request, self.max_body)
                inputs, options = self._parse(endpoint, body)
                endpoint.waiting.inc(len(inputs))
                try:
                    answer = await endpoint.batcher.answer(inputs, options)
                finally:
                    endpoint.waiting.dec(len(inputs))
            outputs = [_to_json(number, each) for number, each in enumerate(answer.responses)]
        except TimeoutError:
            raise self._late() from None
        except RequestError as error:
            raise _refused(error, endpoint.interface) from None
        except QueueFullError as error:
            raise ApiError(429, "queue_full", str(error), None, error.retry_after_s) from None
        except OstinatoError as error:
            if isinstance(error, ApiError):
                raise
            raise ApiError(500, "model_failed", str(error)) from None
        finally:
            self.body_bytes -= reserved
        request_id = secrets.token_hex(16)
        wanted = request.headers.get("x-log") != "no"  # such as an unfinished drawing of the page
        if self.log and wanted and random.random() < self.settings.log_share:
            self.log.add(
                Exchange(
                    request_id=request_id,
                    model=endpoint.name,
                    version=answer.version,
                    options=options,
                    inputs=inputs,
                    outputs=outputs,
                    body_bytes=len(body),
                    latency_ms=(time.perf_counter() - started) * 1000,
                    batch_items=answer.batch_items,
                )
            )
        return answer, outputs, request_id

    def _late(self) -> ApiError:
        text = f"no answer within {self.settings.timeout_s:g} s"
        return ApiError(503, "timeout", text, None, 1)

    def _endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            hint = params.near(name, self.endpoints)
            raise ApiError(404, "unknown_model", f"no model {name!r}; {hint}")
        return self.endpoints[name]

    def _reserve(self, request: Request) -> int:
        """Reserve memory for a body; returns how much."""
        size = min(_declared(request) or self.max_body, self.max_body)
        if self.body_bytes + size > BODIES_AT_ONCE * self.max_body:
            raise ApiError(429, "too_many_bytes", "too many large requests at once", None, 1)
        self.body_bytes += size
        return size

    async def _body(self, request: Request, limit: int) -> bytes:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
            raise ApiError(415, "no_json", f"expected Content-Type: {JSON_TYPE}")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ApiError(415, "encoded", "expected a body without Content-Encoding")
        size, chunks = 0, []
        if (_declared(request) or 0) <= limit:
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    break
                chunks.append(chunk)
            else:
                return b"".join(chunks)
        with_limit = f"the body has more than {limit:,} bytes"
        try:
            async with asyncio.timeout(DRAIN_S):
                async for _ in request.stream():
                    pass
        except (TimeoutError, RuntimeError):
            pass
        raise ApiError(413, "body_too_large", with_limit)

    def _parse(
        self, endpoint: Endpoint, body: bytes
    ) -> tuple[Sequence[BaseModel], Mapping[str, Json]]:
        try:
            sent: Any = endpoint.request_type.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from None
        return sent.inputs, sent.params.model_dump() if sent.params else endpoint.interface.options

    # The state of the server

    async def models(self) -> list[dict[str, Any]]:
        """What is served."""
        return [
            {
                **endpoint.model.describe(),
                "about": endpoint.interface.about,
                "options": endpoint.interface.options,
                "example": endpoint.model.loaded and endpoint.model.loaded.example,
                "kind": kinds.kind_of(endpoint.interface.Input),
                "reads": dict(endpoint.model.loaded.reads) if endpoint.model.loaded else {},
                "limits": {"body_bytes": self.max_body, "items": self.settings.max_items},
                "waiting": endpoint.batcher.waiting,
            }
            for endpoint in self.endpoints.values()
        ]

    async def ready(self) -> Response:
        """Whether all models are loaded."""
        loading = [name for name, each in self.endpoints.items() if each.model.loaded is None]
        content = json.dumps({"ready": not loading, "loading": loading})
        return Response(content, 503 if loading else 200, media_type=JSON_TYPE)

    async def live(self) -> dict[str, bool]:
        """Whether the process answers."""
        return {"live": True}

    async def prometheus(self) -> Response:
        """The metrics."""
        if self.log:
            for writer in (self.log.requests, self.log.feedback):
                rows = partial(self.metrics.log_rows.labels, writer.folder.name)
                rows("written").set(writer.written)
                rows("dropped").set(writer.dropped)
        return Response(self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


class Observed:
    """Counts requests, and measures their time, by route; other paths are "other"."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.paths = app, paths
        self._requests, self._seconds = (
            cache(metrics.requests.labels),
            cache(metrics.seconds.labels),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status: int | None = None
        started = time.perf_counter()

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, observe)
        except Exception as error:  # a bug: its text may quote an input
            log.error("%s: %s", scope["path"], origin(error))
            if status is None:
                text = "a fault of the server; its log has more"
                await access.error_response(500, "internal", text)(scope, receive, observe)
        finally:
            route = scope["path"] if scope["path"] in self.paths else "other"
            self._requests(route, status).inc()
            self._seconds(route).observe(time.perf_counter() - started)


class Direct:
    """Answers predictions without the framework's router, a fifth of the time outside the model.

    Args:
        app: answers all other requests.
        handlers: of POST requests, by path.
    """

    def __init__(
        self, app: ASGIApp, handlers: Mapping[str, Callable[[Request], Awaitable[Response]]]
    ) -> None:
        self.app, self.handlers = app, handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        handler = self.handlers.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except ApiError as error:
            response = await _api_error(request, error)
        except ClientDisconnect as error:
            response = await _disconnected(request, error)
        await response(scope, receive, send)


def create_app(
    settings: Settings,
    found: Sequence[Source],
    keys: tuple[str, ...] = (),
    log_key: bytes = b"",
) -> FastAPI:
    """The application of one process.

    Args:
        settings: of the server.
        found: the sources of the models.
        keys: that clients must send.
        log_key: of the log's hashes.
    """
    server = Server(settings, found, log_key)
    app = FastAPI(
        title="Ostinato",
        summary="Models of sequences: drawings, series, texts, videos.",
        docs_url=None,  # its page loads scripts from the network
        redoc_url=None,
        lifespan=server.lifespan,
    )
    app.state.server = server
    # Starlette's routes: `Server` reads and checks bodies within its limits, not FastAPI.
    direct = {
        openapi.predict_path(name): _with_name(server.predict, name) for name in server.endpoints
    }
    direct["/invocations"] = server.invocations
    for path, handler in direct.items():
        app.add_route(path, handler, ["POST"])  # for other methods, and the paths of metrics
    app.add_route("/v1/models/{name}:predict", _with_any_name(server.predict), ["POST"])
    app.add_api_route("/v1/feedback", server.feedback, methods=["POST"], response_class=Response)
    app.add_api_route("/v1/models", server.models)
    monitoring.add_routes(app, settings.monitoring)
    app.add_api_route("/health/live", server.live)
    app.add_api_route("/health/ready", server.ready, response_class=Response)
    app.add_api_route("/metrics", server.prometheus, response_class=Response)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.openapi = partial(openapi.document, app, server.endpoints, Feedback)  # type: ignore[method-assign]
    app.routes.extend(pages := static.routes())
    app.add_middleware(Direct, handlers=direct)
    app.add_middleware(access.Guard, keys=keys, without_key={route.path for route in pages})
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    paths = {route.path for route in app.routes if isinstance(route, Route)}
    app.add_middleware(Observed, metrics=server.metrics, paths=paths)
    return app


def _with_name(
    handler: Callable[[str, Request], Awaitable[Response]], name: str
) -> Callable[[Request], Awaitable[Response]]:
    async def predict(request: Request) -> Response:
        return await handler(name, request)

    return predict


def _with_any_name(
    handler: Callable[[str, Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def predict(request: Request) -> Response:
        return await handler(request.path_params["name"], request)

    return predict


def _declared(request: Request) -> int | None:
    """The size of a body as its client says."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None


def _retry_after(error: ApiError) -> dict[str, str]:
    return {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}


def _to_json(number: int, response: BaseModel) -> bytes:
    """A response as JSON; null is also what JSON has for a number that is not finite."""
    content = response.model_dump_json().encode()
    if b"null" in content:
        try:
            check_finite([response])
        except RequestError as error:
            raise error.renumbered(number) from None
    return content


def _invalid(error: ValidationError) -> ApiError:
    """The problems of a body, each with the number of its input and the field."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    details = []
    for problem in problems[:MAX_DETAILS]:
        top, *rest = [*problem["loc"], None]
        item = rest.pop(0) if top == "inputs" and isinstance(rest[0], int) else None
        path = [
            part for part in ([*rest] if item is not None else [top, *rest]) if part is not None
        ]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        message = {"item": item, "field": field.lstrip(".") or None, "message": problem["msg"]}
        details.append(message)
    first = details[0]
    where = "" if first["item"] is None else f"input {first['item']}: "
    where += "" if first["field"] is None else f"{first['field']}: "
    more = f" ({len(problems)} problems)" if len(problems) > 1 else ""
    return ApiError(422, "invalid_input", f"{where}{first['message']}{more}", details)


def _refused(error: RequestError, interface: Interface) -> ApiError:
    """What a model says of an input: its field is the only one, or the first that is mentioned."""
    fields = interface.Input.model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    text = INPUT_NUMBER.sub("", str(error), count=1)
    words = [form for word in re.findall(r"\w+", text) for form in (word, f"{word}s", word[:-1])]
    mentioned = required if len(required) == 1 else [word for word in words if word in fields]
    field = mentioned[0] if mentioned else None
    details = [{"item": error.item, "field": field, "message": str(error)}]
    return ApiError(422, "invalid_input", str(error), details)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    response = access.error_response(error.status, error.code, str(error), error.details)
    response.headers.update(_retry_after(error))
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
    response = access.error_response(error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _disconnected(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


# Processes


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; what was accepted is answered. Returns the exit code.

    Raises:
        OstinatoError: a model does not exist, or the address needs a key.
    """
    access.check_address(settings, access.api_keys())
    access.log_key(settings)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again in the end
        signal.signal(name, _exit)
    if settings.workers == 1:
        config = uvicorn.Config(_app(settings), **_options(settings))
        server = uvicorn.Server(config)
        server.run()
        return 0 if server.started else 1
    sources(settings.models)  # errors are told before processes start
    with tempfile.TemporaryDirectory(prefix="ostinato-metrics-") as folder:
        os.environ |= {SETTINGS: settings.model_dump_json(), MULTIPROCESS: folder}
        uvicorn.run(
            "ostinato.serving.server:worker",
            factory=True,
            workers=settings.workers,
            timeout_worker_healthcheck=60,
            **_options(settings),
        )
    return 0


def _exit(*ignored: object) -> None:
    sys.exit(0)


def worker() -> FastAPI:
    """The application of one of several processes."""
    logging.basicConfig(level=logging.INFO)
    return _app(Settings.model_validate_json(os.environ[SETTINGS]))


def _app(settings: Settings) -> FastAPI:
    from ostinato.training.imports import import_keras_quietly

    found = sources(settings.models)
    import_keras_quietly()  # now, because it hides what is written to standard error meanwhile
    return create_app(settings, found, access.api_keys(), access.log_key(settings))


def _options(settings: Settings) -> Mapping[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": int(settings.timeout_s) + 5,
    }
