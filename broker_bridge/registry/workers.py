"""What people look at: templates without their vectors, the head of a site, whether a bridge is at work."""

from datetime import datetime

from .mongo.client import Document, Mongo

BRIDGE_PREFIX = "bridge:"
"""A bridge worker reports in `meta` under `bridge:<id>`, with the time in `at`."""
_WORKERS = {"$gte": BRIDGE_PREFIX, "$lt": BRIDGE_PREFIX[:-1] + ";"}


class Workers:
    """What bridge workers report of themselves. Each start is another worker: the gone are forgotten."""

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta

    async def report(self, bridge_id: str, health: Document, at: datetime) -> None:
        await self._meta.replace_one({"_id": BRIDGE_PREFIX + bridge_id}, {**health, "at": at}, upsert=True)

    async def leave(self, bridge_id: str) -> None:
        """Take back the report of a worker that stops."""
        await self._meta.delete_one({"_id": BRIDGE_PREFIX + bridge_id})

    async def forget(self, before: datetime) -> None:
        """Drop reports last made before a moment, by workers that could not take theirs back."""
        await self._meta.delete_many({"_id": _WORKERS, "at": {"$lt": before}})
