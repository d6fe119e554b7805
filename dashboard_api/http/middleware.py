"""Before any route: how large a body may be, and which headers every answer has."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import too_large

PHOTO_PATH_END = "/photos"
SYNC_PATH = "/api/identities/sync"
INGEST_PATH = "/api/identities/ingest-embeddings"
SUBMIT_PATH = "/api/training/submit"
LINES_TYPE = "application/x-ndjson"


class BodyLimit:
    """Stops reading a body at its limit, whether or not its length was announced."""

    def __init__(
        self, app: ASGIApp, json_max_bytes: int, photo_max_bytes: int, ingest_max_bytes: int
    ) -> None:
        self._app = app
        self._json = json_max_bytes
        self._photo = photo_max_bytes
        self._ingest = ingest_max_bytes

    def _limit(self, path: str, headers: Headers) -> int | None:
        """The most bytes of a body; None for lines, which are bounded one by one as they are read."""
        if path.endswith(PHOTO_PATH_END):
            return self._photo
        if path == INGEST_PATH and media_type(headers) == LINES_TYPE:
            return None
        return self._ingest if path in (SYNC_PATH, INGEST_PATH, SUBMIT_PATH) else self._json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(scope["path"], headers)
        if limit is None:
            await self._app(scope, receive, send)
            return
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > limit:
            await too_large(limit).response()(scope, receive, send)
            return
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > limit:
                    # FastAPI lets only an HTTPException out of reading a body; all else becomes a 400.
                    raise HTTPException(413, too_large(limit).detail)
            return message

        await self._app(scope, counted, send)


def media_type(headers: Headers) -> str:
    """What a body says that it is, without parameters such as the character set."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Headers that hold for every answer; answers of the API itself are not to be kept by caches."""

    def __init__(self, app: ASGIApp, content_security_policy: str) -> None:
        self._app = app
        self._headers = {**SECURITY_HEADERS, "Content-Security-Policy": content_security_policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
