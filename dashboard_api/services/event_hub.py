"""New events to everybody who watches: one change stream per process, fanned out to bounded queues.

A resume token is the hex of a key that MongoDB orders by time (the server merges shards by it), so that two
tokens can be compared as text: that is how a subscriber who catches up knows that he has reached the others.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker_bridge.registry.events.events import event_to_wire
from broker_bridge.registry.mongo.errors import RegistryError, cannot_resume
from dashboard_api.http.problems import Problem

_log = logging.getLogger(__name__)

RESUME_LOST = "resume-lost"
_RETRY_SECONDS = 1.0


class Watchable(Protocol):
    """`registry.Events`, as far as it is needed here."""

    def watch(self, resume_after: str | None = None) -> Any: ...


@dataclass(frozen=True)
class LiveEvent:
    """An event as JSON, and the token with which a stream goes on behind it."""

    token: str
    data: str


@dataclass(eq=False)
class Subscription:
    """One watcher. Iterating ends when the hub stops, or when he has fallen `limit` events behind."""

    position: str
    limit: int
    catching_up: Any = None
    _queue: "asyncio.Queue[LiveEvent | None]" = field(default_factory=asyncio.Queue)
    _ended: bool = False

    def offer(self, event: LiveEvent) -> bool:
        """Queue `event`; False if the queue was full, after which the subscription ends."""
        if self._queue.qsize() >= self.limit:
            self.end()
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """Deliver what is queued, and nothing after it."""
        self._ended = True
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        seen = ""
        if self.catching_up is not None:
            while not self._ended and self.catching_up.resume_token["_data"] < self.position:
                change = await self.catching_up.try_next()
                if change is not None:
                    event = _live(change)
                    seen = event.token
                    yield event
        while (queued := await self._queue.get()) is not None:
            if queued.token > seen:
                yield queued


class EventHub:
    """Follows new events as long as somebody watches. It belongs to one event loop."""

    def __init__(self, events: Watchable, queue_events: int = 1000) -> None:
        self._events = events
        self._queue_events = queue_events
        self._subscriptions: set[Subscription] = set()
        self._following: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._position: str | None = None
        self._waiting = 0
        self._stopped = False

    @asynccontextmanager
    async def subscribe(self, after: str | None = None) -> AsyncIterator[Subscription]:
        """New events from now, or from behind the token `after`, none left out.

        Raises Problem 503 while the API stops, Problem 410 if `after` cannot be gone on from, and
        RegistryError while MongoDB is away.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._leave)
            self._waiting += 1
            position = await self._follow_from()
            subscription = Subscription(position, self._queue_events)
            self._subscriptions.add(subscription)
            stack.callback(self._subscriptions.discard, subscription)
            if after is not None:
                subscription.catching_up = await self._open_from(after, stack)
            yield subscription

    async def stop(self) -> None:
        """End every subscription; nobody can subscribe any more."""
        self._stopped = True
        self._end_all()
        await self._unfollow()

    async def _follow_from(self) -> str:
        """Where the one change stream stands, opened now if it was not."""
        if self._stopped:
            raise Problem(503, "stopping", "the API is about to stop; connect again")
        if self._following is None:
            self._opened = asyncio.get_running_loop().create_future()
            self._following = asyncio.create_task(self._follow(self._opened))
        if self._opened is not None:
            await asyncio.shield(self._opened)
        if self._position is None:
            raise Problem(503, "stopping", "the API is about to stop; connect again")
        return self._position

    async def _open_from(self, after: str, stack: AsyncExitStack) -> Any:
        try:
            return await stack.enter_async_context(self._events.watch(after))
        except RegistryError as error:
            if not cannot_resume(error):
                raise
            detail = "events cannot be told from this Last-Event-ID on: load the list, connect without it"
            raise Problem(410, RESUME_LOST, detail) from error

    def _leave(self) -> None:
        self._waiting -= 1
        if not self._waiting and self._following is not None:
            self._following.cancel()
            self._forget()

    async def _unfollow(self) -> None:
        if self._following is not None:
            following = self._following
            self._forget()
            # More than once: before Python 3.12 `asyncio.wait_for`, which the driver uses, may lose it.
            while not following.done():
                following.cancel()
                await asyncio.wait([following], timeout=_RETRY_SECONDS)

    def _forget(self) -> None:
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
        """Read the stream for ever, over failures; the first failure is the first subscriber's to hear."""
        while True:
            try:
                async with self._events.watch(self._position) as stream:
                    self._position = stream.resume_token["_data"]
                    if not opened.done():
                        opened.set_result(None)
                    while True:
                        change = await stream.try_next()
                        # No await between these: who subscribes gets the event, or a position behind it.
                        if change is not None:
                            self._hand_out(_live(change))
                        self._position = stream.resume_token["_data"]
            except RegistryError as error:
                if not opened.done():
                    self._following = self._opened = None
                    opened.set_exception(error)
                    return
                _log.warning("the stream of events broke and is opened again: %s", type(error).__name__)
                if cannot_resume(error):
                    self._position = None
                    self._end_all()
                await asyncio.sleep(_RETRY_SECONDS)

    def _hand_out(self, event: LiveEvent) -> None:
        for subscription in [one for one in self._subscriptions if not one.offer(event)]:
            self._subscriptions.discard(subscription)


def _live(change: Any) -> LiveEvent:
    wire = event_to_wire(change["fullDocument"])
    return LiveEvent(change["_id"]["_data"], json.dumps(wire, ensure_ascii=False, separators=(",", ":")))
