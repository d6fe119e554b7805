"""Purging who was deleted long ago: devices that were away for longer start over."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.detected_persons.removal import DetectedPersonRemoval
from broker_bridge.registry.identities.model import SYSTEM
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.versions import Versions

_AT_ONCE = 200


class Tombstones:
    """Deleted people, as long as they can be restored and devices are told of their removal."""

    def __init__(
        self, store: IdentityStore, versions: Versions, audit: Audit, detected: DetectedPersonRemoval
    ) -> None:
        self._detected = detected
        self._store = store
        self._versions = versions
        self._audit = audit

    async def purge(self, now: datetime, retention: timedelta) -> int:
        """Forget everybody deleted longer than `retention` before `now`, a transaction per 200; how many.

        In the same transaction the horizons of their sites rise, and whom cameras took for them is parted. A
        merge can then be undone no more.
        """
        until = now - retention
        purged = 0
        while True:
            # Most of the time there is nobody, and a transaction would wait for its turn for nothing.
            if not await self._store.identities.find_one(_expired(until), {"_id": 1}):
                return purged

            async def work(session: Any) -> int:
                return await self._purge_some(session, now, until)

            purged += await self._store.transact(work)

    async def _purge_some(self, session: Any, now: datetime, until: datetime) -> int:
        cursor = self._store.identities.find(_expired(until), session=session).sort("deleted_at", 1)
        expired: list[Document] = [found async for found in cursor.limit(_AT_ONCE)]
        if not expired:
            return 0
        await self._versions.raise_horizons(session, _horizons(expired), expired[-1]["deleted_at"])
        user_ids = [found["_id"] for found in expired]
        await self._store.identities.delete_many({"_id": {"$in": user_ids}}, session=session)
        await self._store.templates.delete_many({"user_id": {"$in": user_ids}}, session=session)
        merged = {found["_id"]: found["merge"]["into"] for found in expired if "merge" in found}
        if merged:
            # Kept for an undo that is possible no more.
            parked = {"user_id": {"$in": list(merged.values())}, "parked_by": {"$in": list(merged)}}
            await self._store.templates.delete_many(parked, session=session)
        await self._detected.unlink_purged(session, {user_id: merged.get(user_id) for user_id in user_ids})
        said = {"count": len(expired)}
        entry = AuditEntry(who=SYSTEM, what="people.purged", subject="people", at=now, after=said)
        await self._audit.record(entry, session)
        return len(expired)


def _expired(until: datetime) -> Document:
    return {"deleted": True, "deleted_at": {"$lt": until}}


def _horizons(expired: Sequence[Document]) -> dict[str, int]:
    """The newest version by entry of `reach`."""
    horizons: dict[str, int] = {}
    for found in expired:
        for site in found["reach"]:
            horizons[site] = max(horizons.get(site, 0), found["version"])
    return horizons
