"""Remove a space with everything that is in it.

Templates go in batches, each a change of its identities: cameras and their digests follow by sync. A removal
that was interrupted is continued by the next one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.spaces import SpaceRecord
from broker_bridge.contract.wire import to_milliseconds

from .audit import Audit, AuditEntry
from .events.dead_letters import DeadLetters
from .identities.model import IdentityRecord, holdings
from .identities.store import IdentityStore
from .mongo.versions import Versions
from .spaces import SpaceRegistry

_BATCH = 200


@dataclass(frozen=True)
class RemovedSpace:
    """The record of a removed space, and what was removed with it."""

    record: SpaceRecord
    templates: int
    identities: int
    detected_faces: int


class SpaceRemoval:
    """Removes spaces. The caller decides whether a space is in use."""

    def __init__(
        self,
        store: IdentityStore,
        *,
        versions: Versions,
        spaces: SpaceRegistry,
        dead_letters: DeadLetters,
        audit: Audit,
    ) -> None:
        self._store = store
        self._versions = versions
        self._spaces = spaces
        self._dead_letters = dead_letters
        self._audit = audit
        self._detected_faces = store.mongo.patient_db.person_faces

    async def remove(self, space_id: str, *, by: str) -> RemovedSpace:
        """Remove the space and return what it had.

        That are its templates, also superseded ones and those of deleted identities, the faces of detected
        persons, undecodable messages that name it, and at last its record. Raises
        ContractError(`space-unknown`).
        """
        record = await self._spaces.record(space_id)
        counts = await self._remove_templates(space_id)
        faces = await self._remove_detected_faces(space_id)
        await self._dead_letters.delete_matching(re.compile(re.escape(space_id.encode())))
        while not await self._forget(record, counts, faces, by):
            more = await self._remove_templates(space_id)
            counts = counts[0] + more[0], counts[1] + more[1]
        await self._spaces.records()
        return RemovedSpace(record, *counts, faces)

    async def remove_orphans(self) -> int:
        """Remove faces of detected persons whose space is gone; return how many.

        A tracker may have written them after the removal.
        """
        known = await self._spaces.dimensions()
        found = await self._detected_faces.delete_many({"space": {"$nin": list(known)}})
        return int(found.deleted_count)

    async def _remove_templates(self, space_id: str) -> tuple[int, int]:
        """Return how many templates of how many identities were removed."""
        # One scan: templates are indexed by identity.
        query = {"space": space_id}
        owners = sorted(await self._store.mongo.patient_db.templates.distinct("user_id", query))
        removed = 0
        for start in range(0, len(owners), _BATCH):
            batch = owners[start : start + _BATCH]

            async def work(session: Any, batch: Sequence[str] = batch) -> int:
                return await self._remove_batch(session, space_id, batch)

            removed += await self._store.transact(work)
        return removed, len(owners)

    async def _remove_batch(self, session: Any, space_id: str, user_ids: Sequence[str]) -> int:
        first = await self._versions.take(session, len(user_ids))
        now = to_milliseconds(utc_now())
        before = await self._store.read_records(session, user_ids)
        after = {
            user_id: _without(before[user_id], space_id, version, now)
            for version, user_id in enumerate(user_ids, start=first)
        }
        await self._store.write(session, before, after)
        # Templates without an identity too.
        orphans = {"space": space_id, "user_id": {"$in": list(user_ids)}}
        await self._store.templates.delete_many(orphans, session=session)
        return sum(
            len(before[user_id].templates or ()) - len(after[user_id].templates or ()) for user_id in user_ids
        )

    async def _remove_detected_faces(self, space_id: str) -> int:
        found = await self._detected_faces.delete_many({"space": space_id})
        return int(found.deleted_count)

    async def _forget(self, record: SpaceRecord, counts: tuple[int, int], faces: int, by: str) -> bool:
        """Delete the record unless a template was enrolled meanwhile.

        Returns whether it is gone.
        """

        async def work(session: Any) -> bool:
            await self._versions.take(session)
            enrolled = await self._store.templates.find_one({"space": record.space}, {}, session=session)
            if enrolled is not None:
                return False
            stored = await self._spaces.forget(session, record.space)
            details = {"templates": counts[0], "identities": counts[1], "detected_faces": faces}
            before = stored.model_dump(exclude={"space"}, exclude_none=True) if stored else None
            entry = AuditEntry(by, "space.removed", record.space, utc_now(), before, {"removed": details})
            await self._audit.record(entry, session)
            return True

        return await self._store.transact(work)


def _without(before: IdentityRecord, space_id: str, version: int, now: datetime) -> IdentityRecord:
    """Return the record without the templates of a space.

    A tombstone keeps its version: no camera has its templates any more.
    """
    identity = before.identity
    templates = tuple(template for template in before.templates or () if template.space != space_id)
    if identity is None:
        return IdentityRecord(None, templates)
    counts = holdings(identity.user_id, templates)
    version = identity.version if identity.deleted else version
    return IdentityRecord(replace(identity, version=version, holdings=counts, updated_at=now), templates)
