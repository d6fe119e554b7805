"""The feed of events in order of receipt, for readers that must not miss one.

A page continues after a position. Positions become visible in order, so an event that a worker commits late
stands behind all that a reader has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne

from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.versions import Versions

from .event_filter import EventFilter
from .model import EventRecord, to_event_record
from .positions import POSITION, EventPositions


class FeedLostError(Exception):
    """The feed cannot continue at a cursor: it is of another history."""


@dataclass(frozen=True)
class FeedCursor:
    """A place in the feed: up to `position` of the history `epoch` was read."""

    epoch: str
    position: int


@dataclass(frozen=True)
class FeedPage:
    """Events in order of receipt; the feed continues at `cursor`.

    `more` says that further events wait now.
    """

    events: Sequence[EventRecord]
    cursor: FeedCursor
    more: bool


class EventFeed:
    """The collection `events` by position."""

    def __init__(self, mongo: Mongo, versions: Versions) -> None:
        self._mongo = mongo
        self._events = mongo.db.events
        self._versions = versions
        self._positions = EventPositions(mongo)

    async def read(self, criteria: EventFilter, after: FeedCursor | None, limit: int) -> FeedPage:
        """Return up to `limit` events that match, after the cursor or from the first one.

        Raises FeedLostError if a backup was restored since, or another database is connected: events may
        have the positions of others.
        """
        page = await self._read(criteria, after, limit)
        if page is None:
            # A new primary may lag behind what the old one has shown.
            await self._mongo.catch_up()
            page = await self._read(criteria, after, limit)
        if page is None:
            raise FeedLostError
        return page

    async def _read(self, criteria: EventFilter, after: FeedCursor | None, limit: int) -> FeedPage | None:
        """Return a page, None if the cursor is ahead of the feed or of another history."""
        async with self._mongo.snapshot() as session:
            epoch = (await self._versions.read(session)).epoch
            last = await self._positions.last(session)
            start = after.position if after else 0
            if start > last or (after and after.epoch != epoch):
                return None
            query = criteria.to_query() | {POSITION: {"$gt": start}}
            cursor = self._events.find(query, session=session).sort(POSITION, 1).limit(limit + 1)
            found = [document async for document in cursor]
        more = len(found) > limit
        # A full page ends at its last event; a last page covers all that was there, matching or not.
        end = found[limit - 1][POSITION] if more else last
        return FeedPage([to_event_record(each) for each in found[:limit]], FeedCursor(epoch, end), more)

    async def number_events(self, limit: int) -> int:
        """Give up to `limit` events of earlier releases a position; return their number.

        They come in the order in which they were stored.
        """

        async def number(session: Any) -> int:
            first = await self._positions.take(session, limit)
            cursor = self._events.find({POSITION: None}, {"_id": 1}, session=session).hint([(POSITION, 1)])
            found: list[Document] = [document async for document in cursor.limit(limit)]
            updates = [
                UpdateOne(document, {"$set": {POSITION: first + offset}})
                for offset, document in enumerate(found)
            ]
            if updates:
                await self._events.bulk_write(updates, ordered=False, session=session)
            return len(updates)

        if await self._events.find_one({POSITION: None}, {"_id": 1}, hint=[(POSITION, 1)]) is None:
            return 0
        return await self._mongo.transact(number)
