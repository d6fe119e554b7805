"""Begin an epoch at the request of an operator who has restored a backup."""

from datetime import datetime
from typing import Any

from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Mongo
from broker_bridge.registry.mongo.versions import History, Versions


class Epochs:
    """Epochs that an operator begins, each with its entry in the audit log."""

    def __init__(self, mongo: Mongo, versions: Versions, audit: Audit) -> None:
        self._mongo = mongo
        self._versions = versions
        self._audit = audit

    async def begin(self, *, by: str, now: datetime) -> History:
        """Begin an epoch and return it; every device then needs a snapshot sync.

        Raises HistoryMissingError while the database is being restored.
        """

        async def work(session: Any) -> History:
            history = await self._versions.begin_epoch(session)
            after = {"version": history.version}
            entry = AuditEntry(who=by, what="sync.epoch-begun", subject=history.epoch, at=now, after=after)
            await self._audit.record(entry, session)
            return history

        return await self._mongo.transact(work)
