"""Purge tombstones past their retention.

Devices that were away for longer need a snapshot sync.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.detected_persons.removal import DetectedPersonRemoval
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.versions import Versions

_BATCH = 200


class Tombstones:
    """Tombstones of deleted identities, until they are purged."""

    def __init__(
        self, store: IdentityStore, versions: Versions, audit: Audit, detected: DetectedPersonRemoval
    ) -> None:
        self._detected = detected
        self._store = store
        self._versions = versions
        self._audit = audit

    async def purge(self, now: datetime, retention: timedelta) -> int:
        """Purge tombstones older than `retention` and return their number.

        A transaction has 200 of them. The same transaction raises the horizons of their synced sites and
        unlinks detected persons. The merge of a purged identity cannot be undone.
        """
        until = now - retention
        purged = 0
        while True:
            # Mostly none has expired, and a transaction would wait for its turn in vain.
            if not await self._store.identities.find_one(_expired(until), {"_id": 1}):
                return purged

            async def work(session: Any) -> int:
                return await self._purge_batch(session, now, until)

            purged += await self._store.transact(work)

    async def _purge_batch(self, session: Any, now: datetime, until: datetime) -> int:
        cursor = self._store.identities.find(_expired(until), session=session).sort("deleted_at", 1)
        expired: list[Document] = [found async for found in cursor.limit(_BATCH)]
        if not expired:
            return 0
        await self._versions.raise_horizons(session, _horizons(expired), expired[-1]["deleted_at"])
        user_ids = [found["_id"] for found in expired]
        await self._store.identities.delete_many({"_id": {"$in": user_ids}}, session=session)
        await self._store.templates.delete_many({"user_id": {"$in": user_ids}}, session=session)
        merged = {found["_id"]: found["merge"]["into"] for found in expired if "merge" in found}
        if merged:
            # Superseded templates are kept for an undo only.
            superseded = {"user_id": {"$in": list(merged.values())}, "parked_by": {"$in": list(merged)}}
            await self._store.templates.delete_many(superseded, session=session)
        await self._detected.unlink_purged(session, {user_id: merged.get(user_id) for user_id in user_ids})
        details = {"count": len(expired)}
        entry = AuditEntry(who=SYSTEM, what="people.purged", subject="people", at=now, after=details)
        await self._audit.record(entry, session)
        return len(expired)


def _expired(until: datetime) -> Document:
    return {"deleted": True, "deleted_at": {"$lt": until}}


def _horizons(expired: Sequence[Document]) -> dict[str, int]:
    """Return the newest purged version by synced site."""
    horizons: dict[str, int] = {}
    for found in expired:
        for site in found["reach"]:
            horizons[site] = max(horizons.get(site, 0), found["version"])
    return horizons
