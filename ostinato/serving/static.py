"""The page at /: the files of the folder ``page``, read when the server starts.

The page is public: it holds no data. What it shows comes from the other routes, with the key that
the page asks for.
"""

from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Cache-Control": "no-cache",  # browsers ask with the ETag, so an upgrade shows at once
    "Content-Security-Policy": (
        # blob: is for images that a request with the key has fetched
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes() -> list[Route]:
    """A route for each file: index.html is /, others are below /page/."""
    return [
        _route("/" if file.name == "index.html" else f"/page/{file.name}", file)
        for file in sorted(FOLDER.iterdir())
        if file.suffix in TYPES
    ]


def _route(path: str, file: Path) -> Route:
    content = file.read_bytes()
    headers = {**HEADERS, "ETag": f'"{sha256(content).hexdigest()[:20]}"'}

    async def answer(request: Request) -> Response:
        sent = request.headers.get("if-none-match", "")
        if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in sent.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=TYPES[file.suffix])

    return Route(path, answer)
