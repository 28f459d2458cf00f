"""Who may call the server: API keys, and on loopback the names by which it is called."""

import hmac
import ipaddress
import os
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ostinato.errors import ParamsError
from ostinato.serving.settings import API_KEYS, LOG_KEY, Settings

MIN_KEY_CHARACTERS = 16
OPEN = {"/health/live", "/health/ready"}
"""Paths that need no key: an orchestrator asks for them."""


def api_keys(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys that clients may send; empty: none is needed.

    Raises:
        ParamsError: a key is too short.
    """
    keys = tuple(key.strip() for key in environment.get(API_KEYS, "").split(",") if key.strip())
    if any(len(key) < MIN_KEY_CHARACTERS for key in keys):
        raise ParamsError(
            f"{API_KEYS}: found a key of fewer than {MIN_KEY_CHARACTERS} characters; make one by "
            "`python -c 'import secrets; print(secrets.token_urlsafe())'`"
        )
    return keys


def log_key(settings: Settings, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key of the log's hashes.

    Raises:
        ParamsError: the settings ask for hashes, and there is none.
    """
    key = environment.get(LOG_KEY, "")
    if "hash" in (settings.log_inputs, settings.log_outputs) and len(key) < MIN_KEY_CHARACTERS:
        raise ParamsError(
            f"serve: hashes need a secret, or short inputs could be guessed; set {LOG_KEY} to at "
            f"least {MIN_KEY_CHARACTERS} characters"
        )
    return key.encode()


@lru_cache(1000)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(settings: Settings, keys: tuple[str, ...]) -> None:
    """Refuse to listen elsewhere than on loopback without a key.

    Raises:
        ParamsError: it would.
    """
    if not keys and not is_loopback(settings.host):
        raise ParamsError(
            f"serve: --host {settings.host}: others could call the server; set {API_KEYS} to the "
            "keys that they must send, or listen on 127.0.0.1"
        )


class Guard:
    """Lets requests through that have a key; without keys, those that call a loopback name.

    A page of another site can make a browser send requests to loopback under a name of its own
    (DNS rebinding); such a name is refused.

    Args:
        app: what is guarded.
        keys: of the clients.
        without_key: further paths that need no key.
    """

    def __init__(
        self, app: ASGIApp, keys: tuple[str, ...], without_key: Collection[str] = ()
    ) -> None:
        self.app, self.without_key = app, without_key
        self.digests = [sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may not pass."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            refusal = self._refusal(scope["path"], headers)
            if refusal:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        if not self.digests:
            return _foreign(headers)
        return None if path in self.without_key else self._without_key(headers)

    def _without_key(self, headers: Headers) -> JSONResponse | None:
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        key = sent.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = sha256(key.encode()).digest()
        matches = [hmac.compare_digest(digest, each) for each in self.digests]  # all: equal times
        if any(matches):
            return None
        text = "send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        response = error_response(401, "unauthorized", text)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def _foreign(headers: Headers) -> JSONResponse | None:
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if is_loopback(name.strip("[]")):
        return None
    text = f"this server is called as localhost or 127.0.0.1 only, unless {API_KEYS} is set"
    return error_response(421, "misdirected_request", text)


def error_response(
    status: int, code: str, message: str, details: Sequence[Mapping[str, object]] | None = None
) -> JSONResponse:
    """The body of every error of the server."""
    error: dict[str, object] = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    return JSONResponse({"error": error}, status)
