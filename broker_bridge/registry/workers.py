"""Record the health that bridge workers report."""

from datetime import datetime

from .mongo.client import Document, Mongo

BRIDGE_PREFIX = "bridge:"
"""A bridge worker reports in `meta` under `bridge:<id>`, with the time in `at`."""
WORKER_IDS = {"$gte": BRIDGE_PREFIX, "$lt": BRIDGE_PREFIX[:-1] + ";"}
"""The condition that `_id` of such a report fulfils."""


class Workers:
    """Health reports of bridge workers.

    A worker that starts again reports under another id.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta

    async def report(self, bridge_id: str, health: Document, at: datetime) -> None:
        await self._meta.replace_one({"_id": BRIDGE_PREFIX + bridge_id}, {**health, "at": at}, upsert=True)

    async def leave(self, bridge_id: str) -> None:
        """Delete the report of a worker that stops."""
        await self._meta.delete_one({"_id": BRIDGE_PREFIX + bridge_id})

    async def forget(self, before: datetime) -> None:
        """Delete reports older than `before`, by workers that ended without `leave`."""
        await self._meta.delete_many({"_id": WORKER_IDS, "at": {"$lt": before}})
