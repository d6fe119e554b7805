"""Find merged identities that were purged since, in the audit log.

A purge deletes the tombstone that names the target of a merge. The audit log is the one record of the merge
that databases of every age have, that survives a purge of the target, and that stays complete while programs
of two versions run. It is read for erasures only.
"""

from collections.abc import Sequence

from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Mongo


class MergeHistory:
    """Queries of the audit log about identities that no longer exist."""

    def __init__(self, mongo: Mongo, store: IdentityStore) -> None:
        self._entries = mongo.db.audit
        self._store = store

    async def has_entries(self, user_id: str) -> bool:
        """Return whether the audit log has an entry about an identity."""
        about = {"subject": user_id, "what": {"$regex": "^person[.]"}}
        return await self._entries.find_one(about) is not None

    async def purged_merges(self, user_ids: Sequence[str]) -> set[str]:
        """Return purged user ids that were merged into one of `user_ids`.

        Merges by way of others count.
        """
        purged: set[str] = set()
        targets = list(user_ids)
        while targets:
            concerns_target = [{"after.into": {"$in": targets}}, {"after.from": {"$in": targets}}]
            query = {"what": {"$in": ["person.merged", "person.unmerged"]}, "$or": concerns_target}
            entries = self._entries.find(query, {"subject": 1, "what": 1}).sort("at", 1)
            last = {entry["subject"]: entry["what"] async for entry in entries}
            merged = [key for key, what in last.items() if what == "person.merged" and key not in purged]
            existing = await self._store.find_by_id(None, merged)
            targets = [user_id for user_id in merged if user_id not in existing]
            purged |= set(targets)
        return purged
