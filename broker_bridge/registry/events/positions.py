"""Number events in the order in which they become visible.

The number of an event and the event commit together. A worker that numbers a batch while another one does
collides on the counter and begins again, so that the order of numbers is the order of commits: a reader that
has seen a number has seen all lower ones.
"""

from typing import Any, Final

from pymongo import ReturnDocument

from broker_bridge.registry.mongo.client import Mongo

POSITION: Final = "position"
"""The field of an event that has its number; events of earlier releases lack it."""

_KEY = {"_id": "event-positions"}


class EventPositions:
    """The counter in `meta`."""

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta
        self._events = mongo.db.events

    async def take(self, session: Any, count: int) -> int:
        """Return the first of `count` new positions.

        Call it first in a transaction: it decides the order of transactions.
        """
        found = await self._meta.find_one_and_update(
            _KEY, {"$inc": {POSITION: count}}, return_document=ReturnDocument.AFTER, session=session
        )
        if found is None:
            first = await self._newest(session) + 1
            await self._meta.insert_one(_KEY | {POSITION: first + count - 1}, session=session)
            return first
        last: int = found[POSITION]
        return last - count + 1

    async def last(self, session: Any) -> int:
        """Return the newest position that `session` sees, 0 before the first event."""
        found = await self._meta.find_one(_KEY, session=session)
        return int(found[POSITION]) if found else await self._newest(session)

    async def _newest(self, session: Any) -> int:
        """Return the highest position of an event: the counter may be lost."""
        found = await self._events.find_one({}, {POSITION: 1}, sort=[(POSITION, -1)], session=session)
        return int((found or {}).get(POSITION) or 0)
