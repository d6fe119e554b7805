"""Middleware: the size limit of request bodies, and security headers of responses."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import too_large

PHOTO_PATH_END = "/photos"
ENROLLMENTS_PATH = "/api/v1/enrollments"
SYNC_PATH = "/api/identities/sync"
INGEST_PATH = "/api/identities/ingest-embeddings"
SUBMIT_PATH = "/api/training/submit"
NDJSON_MEDIA_TYPE = "application/x-ndjson"


class BodyLimit:
    """Stops reading a body at its limit, with or without an announced length."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        json_max_bytes: int,
        photo_max_bytes: int,
        enrollment_max_bytes: int,
        ingest_max_bytes: int,
    ) -> None:
        self._app = app
        self._json_max_bytes = json_max_bytes
        self._photo_max_bytes = photo_max_bytes
        self._enrollment_max_bytes = enrollment_max_bytes
        self._ingest_max_bytes = ingest_max_bytes

    def _limit(self, path: str, headers: Headers) -> int | None:
        """Return the most bytes of a body; None for NDJSON, limited line by line."""
        if path.endswith(PHOTO_PATH_END):
            return self._photo_max_bytes
        if path == ENROLLMENTS_PATH:
            return self._enrollment_max_bytes
        if path == INGEST_PATH and media_type(headers) == NDJSON_MEDIA_TYPE:
            return None
        is_ingest = path in (SYNC_PATH, INGEST_PATH, SUBMIT_PATH)
        return self._ingest_max_bytes if is_ingest else self._json_max_bytes

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

        async def receive_limited() -> Message:
            nonlocal total
            message = await receive()
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > limit:
                    # FastAPI lets only an HTTPException out of reading a body; all else becomes a 400.
                    raise HTTPException(413, too_large(limit).detail)
            return message

        await self._app(scope, receive_limited, send)


def media_type(headers: Headers) -> str:
    """Return the declared type of a body without parameters such as the character set."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeaders:
    """Adds security headers to every response; caches must not store API responses."""

    def __init__(self, app: ASGIApp, content_security_policy: str) -> None:
        self._app = app
        self._headers = {**SECURITY_HEADERS, "Content-Security-Policy": content_security_policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)
