"""Fan out new events: one change stream per process, one bounded queue per client.

A resume token is the hex of a key that MongoDB orders by time (the server merges shards by it). Two tokens
can therefore be compared as text, which shows a resumed subscription where it has caught up.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker_bridge.common.retry import retry
from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.registry.events.model import to_event_record
from broker_bridge.registry.mongo.errors import RegistryError, cannot_resume
from dashboard_api.http.problems import Problem

_log = logging.getLogger(__name__)

RESUME_LOST = "resume-lost"


class Watchable(Protocol):
    """The part of `EventStore` that the hub uses."""

    def watch(self, resume_after: str | None = None) -> Any: ...


@dataclass(frozen=True)
class LiveEvent:
    """An event as JSON, with the token that resumes a stream after it."""

    token: str
    data: str


@dataclass(eq=False)
class Subscription:
    """One client of the live stream.

    Iteration ends when the hub stops, or when `limit` events wait in the queue.
    """

    position: str
    limit: int
    catching_up: Any = None
    _queue: "asyncio.Queue[LiveEvent | None]" = field(default_factory=asyncio.Queue)
    _ended: bool = False

    def offer(self, event: LiveEvent) -> bool:
        """Queue `event`; if the queue is full, end the subscription and return False."""
        if self._queue.qsize() >= self.limit:
            self.end()
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """End the iteration after the queued events."""
        self._ended = True
        self._queue.put_nowait(None)

    def drop(self) -> None:
        """End the iteration at once, without the queued events."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self.end()

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        last_token = ""
        if self.catching_up is not None:
            while not self._ended and self.catching_up.resume_token["_data"] < self.position:
                change = await self.catching_up.try_next()
                if change is not None:
                    event = _to_live_event(change)
                    last_token = event.token
                    yield event
        while (queued := await self._queue.get()) is not None:
            if queued.token > last_token:
                yield queued


class EventHub:
    """Follows new events while subscriptions exist. It belongs to one event loop."""

    def __init__(self, events: Watchable, queue_events: int = 1000) -> None:
        self._events = events
        self._queue_events = queue_events
        self._subscriptions: set[Subscription] = set()
        self._following: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._position: str | None = None
        self._subscriber_count = 0
        self._stopped = False

    @asynccontextmanager
    async def subscribe(self, after: str | None = None) -> AsyncIterator[Subscription]:
        """Yield a subscription to new events, or to all after the resume token `after`.

        Raises Problem 503 while the API stops, Problem 410 if the stream cannot resume at `after`, and
        RegistryError while MongoDB is unavailable.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._leave)
            self._subscriber_count += 1
            position = await self._open_shared_stream()
            subscription = Subscription(position, self._queue_events)
            self._subscriptions.add(subscription)
            stack.callback(self._subscriptions.discard, subscription)
            if after is not None:
                subscription.catching_up = await self._open_stream_after(after, stack)
            yield subscription

    async def stop(self) -> None:
        """End every subscription and reject further ones."""
        self._stopped = True
        self._end_all()
        await self._unfollow()

    async def _open_shared_stream(self) -> str:
        """Return the position of the shared change stream, which is opened if necessary."""
        if self._stopped:
            raise _stopping()
        if self._following is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._following = asyncio.create_task(self._follow(self._opened))
        if self._opened is not None:
            await asyncio.shield(self._opened)
        if self._position is None:
            raise _stopping()
        return self._position

    async def _open_stream_after(self, after: str, stack: AsyncExitStack) -> Any:
        try:
            return await stack.enter_async_context(self._events.watch(after))
        except RegistryError as error:
            if not cannot_resume(error):
                raise
            detail = "the stream cannot resume at this Last-Event-ID: load the list, then connect without it"
            raise Problem(410, RESUME_LOST, detail) from error

    def _leave(self) -> None:
        self._subscriber_count -= 1
        if not self._subscriber_count and self._following is not None:
            self._following.cancel()
            self._forget_stream()

    async def _unfollow(self) -> None:
        if self._following is not None:
            following = self._following
            self._forget_stream()
            await cancel_and_wait([following])

    def _forget_stream(self) -> None:
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self._following = None
        self._opened = None
        self._position = None

    def _end_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()

    async def _follow(self, opened: "asyncio.Future[None]") -> None:
        """Read the shared stream until cancelled, across failures of MongoDB.

        A failure before the stream has opened once ends the task and is the result of `opened`.
        """

        async def read() -> None:
            try:
                await self._read_stream(opened)
            except RegistryError as error:
                if opened.done():
                    raise
                self._following = self._opened = None
                opened.set_exception(error)

        await retry(read, on=RegistryError, report=self._report_break)

    async def _read_stream(self, opened: "asyncio.Future[None]") -> None:
        async with self._events.watch(self._position) as stream:
            self._position = stream.resume_token["_data"]
            if not opened.done():
                opened.set_result(None)
            while True:
                change = await stream.try_next()
                # No await from here to the new position, so that a new subscription either gets the event or
                # starts after it.
                if change is not None:
                    self._distribute(_to_live_event(change))
                self._position = stream.resume_token["_data"]

    def _report_break(self, error: Exception) -> None:
        _log.warning("event stream broke; it opens again in a second error=%s", type(error).__name__)
        if cannot_resume(error):
            self._position = None
            self._end_all()

    def _distribute(self, event: LiveEvent) -> None:
        full = [subscription for subscription in self._subscriptions if not subscription.offer(event)]
        self._subscriptions.difference_update(full)


def _stopping() -> Problem:
    return Problem(503, "stopping", "the API is about to stop; connect again")


def _to_live_event(change: Any) -> LiveEvent:
    wire = to_event_record(change["fullDocument"]).to_wire()
    return LiveEvent(change["_id"]["_data"], json.dumps(wire, ensure_ascii=False, separators=(",", ":")))
