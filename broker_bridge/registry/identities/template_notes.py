"""Read counts and template metadata of identities, never a vector."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from broker_bridge.registry.identities.model import EVERY_SITE
from broker_bridge.registry.mongo.client import Mongo
from broker_bridge.registry.workers import WORKER_IDS


@dataclass(frozen=True)
class TemplateNote:
    """Metadata of a template, without its vector."""

    template_id: str
    space: str
    quality: float | None
    source: str | None
    created_at: datetime


class Overview:
    """Queries of the dashboard that read no vectors."""

    def __init__(self, mongo: Mongo) -> None:
        self._identities = mongo.db.identities
        self._templates = mongo.db.templates
        self._meta = mongo.db.meta

    async def template_notes(self, user_ids: Sequence[str]) -> dict[str, list[TemplateNote]]:
        """Return templates by user id, oldest first.

        Those of deleted identities are included.
        """
        notes: dict[str, list[TemplateNote]] = {}
        not_superseded = {"user_id": {"$in": list(user_ids)}, "parked_by": None}
        cursor = self._templates.find(not_superseded, {"vector": 0})
        async for found in cursor.sort([("user_id", 1), ("created_at", 1)]):
            note = TemplateNote(
                found["_id"], found["space"], found["quality"], found["source"], found["created_at"]
            )
            notes.setdefault(found["user_id"], []).append(note)
        return notes

    async def site_head(self, site_id: str) -> int:
        """Return the newest version that concerns a site; 0 if none does."""
        newest = await self._identities.find_one(
            {"reach": {"$in": [site_id, EVERY_SITE]}}, {"version": 1}, sort=[("version", -1)]
        )
        return int(newest["version"]) if newest else 0

    async def bridge_seen_since(self, moment: datetime) -> bool:
        """Return whether any bridge worker has reported at `moment` or later."""
        return await self._meta.find_one({"_id": WORKER_IDS, "at": {"$gte": moment}}, {"_id": 1}) is not None
