"""Fan out new events: one change stream per process, one bounded queue per client.

A resume token is the hex of a key that MongoDB orders by time (the server merges shards by it). Two tokens
can therefore be compared as text, which shows a resumed subscription where it has caught up.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker_bridge.common.retry import retry
from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.registry.events.model import to_event_record
from broker_bridge.registry.mongo.change_stream import ChangeStream
from broker_bridge.registry.mongo.errors import RegistryError, cannot_resume
from broker_bridge.registry.mongo.resume import changes_until
from dashboard_api.http.problems import Problem

_log = logging.getLogger(__name__)

RESUME_LOST = "resume-lost"


class Watchable(Protocol):
    """The part of `EventStore` that the hub uses."""

    def watch(self, resume_after: str | None = None) -> AbstractAsyncContextManager[ChangeStream]: ...

    def watch_missed(self, after: str, until: str) -> AbstractAsyncContextManager[ChangeStream]: ...


@dataclass(frozen=True)
class LiveEvent:
    """An event as JSON, with the token that resumes a stream after it."""

    token: str
    data: str


class MissedEvents:
    """The events between two positions.

    They are `after`, of the client, and `until`, of the shared stream.
    """

    def __init__(self, stream: ChangeStream, after: str, until: str) -> None:
        self.after = after
        self._changes = changes_until(stream, until)
        self._first: LiveEvent | None = None

    async def read_first(self) -> None:
        """Read the first event. Raises RegistryError if the stream cannot resume."""
        async for event in self._events():
            self._first = event
            return

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        if self._first is not None:
            yield self._first
        async for event in self._events():
            yield event

    async def _events(self) -> AsyncIterator[LiveEvent]:
        async for change in self._changes:
            event = change and _to_live_event(change)
            if event:
                yield event


@dataclass(eq=False)
class Subscription:
    """One client of the live stream.

    Iteration ends when the hub stops, when `limit` events wait in the queue, and when the missed events
    cannot be read to their end: the client resumes after the last event that it got.
    """

    position: str
    limit: int
    missed: MissedEvents | None = None
    _queue: "asyncio.Queue[LiveEvent | None]" = field(default_factory=asyncio.Queue)
    _ended: bool = False

    def offer(self, event: LiveEvent) -> bool:
        """Queue `event`; return False if the queue is full, which then ends it."""
        if self._queue.qsize() >= self.limit:
            # Missed and queued events have no gap, and are still read.
            self._queue.put_nowait(None)
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """End after the queued events; while missed ones are read, at once."""
        self._ended = True
        self._queue.put_nowait(None)

    def drop(self) -> None:
        """End the iteration at once, without the queued events."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self.end()

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        last_token = ""
        if self.missed is not None:
            last_token = self.missed.after
            try:
                async for event in self.missed:
                    if self._ended:
                        # The queued events come after missed ones that were not read.
                        return
                    last_token = event.token
                    yield event
            except RegistryError as error:
                _log.warning(
                    "event stream cannot catch up; the client resumes error=%s", type(error).__name__
                )
                return
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
            if after:
                subscription.missed = await self._find_missed(after.upper(), position, stack)
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
        if self._following is None or self._following.done():
            self._opened = asyncio.get_running_loop().create_future()
            self._following = asyncio.create_task(self._follow())
        if self._opened is not None:
            await asyncio.shield(self._opened)
        if self._position is None:
            raise _stopping()
        return self._position

    async def _find_missed(self, after: str, until: str, stack: AsyncExitStack) -> MissedEvents:
        try:
            stream = await stack.enter_async_context(self._events.watch_missed(after, until))
            missed = MissedEvents(stream, after, until)
            await missed.read_first()
        except RegistryError as error:
            if not cannot_resume(error):
                raise
            detail = "the stream cannot resume at this Last-Event-ID: load the list, then connect without it"
            raise Problem(410, RESUME_LOST, detail) from error
        return missed

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

    async def _follow(self) -> None:
        """Read the shared stream until cancelled, across failures of MongoDB.

        A failure before the stream has opened ends the task and is the result of `_opened`.
        """
        await retry(self._read_until_broken, on=RegistryError, report=self._report_break)

    async def _read_until_broken(self) -> None:
        try:
            await self._read_stream()
        except RegistryError as error:
            if self._following is not asyncio.current_task():
                return
            if self._opened is None or self._opened.done():
                raise
            opened, self._opened, self._following = self._opened, None, None
            opened.set_exception(error)
            opened.exception()  # It may have no waiter.

    async def _read_stream(self) -> None:
        async with self._events.watch(self._position) as stream:
            self._position = stream.resume_token["_data"]
            if self._opened is not None and not self._opened.done():
                self._opened.set_result(None)
            while True:
                change = await stream.try_next()
                # No await from here to the new position, so that a new subscription either gets the event or
                # starts after it.
                event = change and _to_live_event(change)
                if event:
                    self._distribute(event)
                self._position = stream.resume_token["_data"]

    def _report_break(self, error: Exception) -> None:
        _log.warning("event stream broke; it opens again in a second error=%s", type(error).__name__)
        if cannot_resume(error):
            # New subscriptions wait until the stream is open again.
            self._opened = asyncio.get_running_loop().create_future()
            self._position = None
            self._end_all()

    def _distribute(self, event: LiveEvent) -> None:
        full = [subscription for subscription in self._subscriptions if not subscription.offer(event)]
        self._subscriptions.difference_update(full)


def _stopping() -> Problem:
    return Problem(503, "stopping", "the API is about to stop; connect again")


def _to_live_event(change: Any) -> LiveEvent | None:
    """Return the event of a change.

    None for a document that is no event: another program may have written it.
    """
    try:
        wire = to_event_record(change["fullDocument"]).to_wire()
        data = json.dumps(wire, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        _log.error("event stream skips a document that is no event error=%s", type(error).__name__)
        return None
    return LiveEvent(change["_id"]["_data"], data)
