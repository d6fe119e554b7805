"""Watch the API keys of requests in progress, and note when keys are used.

A request is checked once, when it begins. A live stream or a long transfer goes on for hours: while one is
open, its key is read again several times a second.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_bridge.registry.api_keys import ApiKeyRecord, ApiKeys
from broker_bridge.registry.mongo.errors import RegistryError

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.25
"""Time between two looks at the keys of open requests; with a look it stays well below a second."""
USE_RESOLUTION = timedelta(minutes=1)
"""The last use of a key is written at most so often."""
KEY_INVALID_DETAIL = "this API key is unknown, was revoked, or has expired"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="wfm"'}

_STATE_NAME = "open_request"


@dataclass(eq=False)
class OpenRequest:
    """A request in progress, with the id of its key once that is known.

    `on_revoked` ends a response in good order, such as a live stream. Without it, or if the response has not
    ended by the next look, the client is disconnected.
    """

    key_id: str | None = None
    on_revoked: Callable[[], None] | None = None
    revoked: bool = False
    response_started: bool = False
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    def revoke(self) -> None:
        """End the request: first in good order if it can, then by force."""
        if self.revoked or self.on_revoked is None:
            self.cut.set()
        else:
            self.on_revoked()
        self.revoked = True

    async def receive(self, receive: Receive) -> Message:
        """Return the next message of the client, or its end as soon as the key is revoked."""
        if self.key_id is None:
            return await receive()
        message = asyncio.ensure_future(receive())
        cut = asyncio.ensure_future(self.cut.wait())
        try:
            await asyncio.wait([message, cut], return_when=asyncio.FIRST_COMPLETED)
            if not self.cut.is_set():
                return message.result()
        finally:
            message.cancel()
            cut.cancel()
        if self.response_started:
            return {"type": "http.disconnect"}
        # FastAPI lets only an HTTPException out of reading a body; all else becomes a 400.
        raise HTTPException(401, KEY_INVALID_DETAIL, CHALLENGE)


class KeyWatch:
    """Knows every open request of this process. It belongs to one event loop."""

    def __init__(self, keys: ApiKeys, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now
        self._open: set[OpenRequest] = set()
        self._used_at: dict[str, datetime] = {}
        self._stopped = asyncio.Event()

    @contextmanager
    def request(self) -> Iterator[OpenRequest]:
        """Watch a request while the body runs."""
        opened = OpenRequest()
        self._open.add(opened)
        try:
            yield opened
        finally:
            self._open.discard(opened)

    def admit(self, request: Request, record: ApiKeyRecord) -> None:
        """Bind a request to its key and note the use of the key."""
        key_id, used_at = record.key.key_id, self._now()
        opened = open_request_of(request)
        if opened is not None:
            opened.key_id = key_id
        if record.last_used_at is None or used_at - record.last_used_at >= USE_RESOLUTION:
            self._used_at.setdefault(key_id, used_at)

    async def run(self) -> None:
        """Look at the keys until `stop`; across failures of MongoDB."""
        while not self._stopped.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), INTERVAL_SECONDS)
            try:
                await self.look()
            except RegistryError as error:
                # No revocation can be written either while no primary answers.
                _log.debug("key watch cannot read the registry error=%s", type(error).__name__)

    def stop(self) -> None:
        self._stopped.set()

    async def look(self) -> None:
        """End the open requests of keys that work no more, and write when keys were used."""
        watched = [(opened, opened.key_id) for opened in self._open if opened.key_id is not None]
        if watched:
            working = await self._keys.working({key_id for _, key_id in watched}, self._now())
            for opened, key_id in watched:
                if key_id not in working:
                    _end(opened, key_id)
        used_at = dict(self._used_at)
        await self._keys.note_use(used_at)
        for key_id in used_at:
            del self._used_at[key_id]


def _end(opened: OpenRequest, key_id: str) -> None:
    if not opened.revoked:
        _log.info("api request ends; its key was revoked or has expired key_id=%s", key_id)
    opened.revoke()


def open_request_of(request: Request) -> OpenRequest | None:
    """Return the open request of the middleware; None where an app has none."""
    opened: OpenRequest | None = getattr(request.state, _STATE_NAME, None)
    return opened


class WatchKeys:
    """Middleware that makes each request known to the watch and ends it with its key."""

    def __init__(self, app: ASGIApp, watch: KeyWatch) -> None:
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._watch.request() as opened:
            scope.setdefault("state", {})[_STATE_NAME] = opened

            async def receive_watched() -> Message:
                return await opened.receive(receive)

            async def send_watched(message: Message) -> None:
                opened.response_started = True
                await send(message)

            await self._app(scope, receive_watched, send_watched)
