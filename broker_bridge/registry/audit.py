"""Record every change in the audit log; entries are never altered."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from .mongo.client import Document, Mongo
from .mongo.paging import newest_first


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the audit log.

    The author is the name of an API key, or `device:<id>`. `what` is the act, such as
    `site.enrollment-policy`, and `subject` the id of the changed object. `before` and `after` hold the
    changed fields, never a vector, a picture or a key.
    """

    who: str
    what: str
    subject: str
    at: datetime
    before: Document | None = None
    after: Document | None = None
    # Hex rather than an ObjectId, since it is part of cursors.
    entry_id: str = field(default_factory=lambda: secrets.token_hex(12))


_KEPT = tuple(one.name for one in fields(AuditEntry) if one.name != "entry_id")


class Audit:
    """Collection `audit`."""

    def __init__(self, mongo: Mongo) -> None:
        self._entries = mongo.db.audit

    async def record(self, entry: AuditEntry, session: Any) -> None:
        """Write an entry in the transaction of the change."""
        await self.record_all([entry], session)

    async def record_all(self, entries: Sequence[AuditEntry], session: Any) -> None:
        """Write entries of several changes of one transaction."""
        # `asdict` would copy the entries, at a third of the cost of a bulk import.
        documents = [
            {"_id": entry.entry_id, **{name: getattr(entry, name) for name in _KEPT}} for entry in entries
        ]
        if documents:
            await self._entries.insert_many(documents, session=session)

    async def page(
        self, *, subject: str | None = None, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Return up to `limit` entries (about `subject`, or all), newest first.

        They come after the cursor `before` of time and id.
        """
        query: Document = {"subject": subject} if subject else {}
        entries = newest_first(self._entries, query, "at", before=before, limit=limit)
        return [AuditEntry(entry_id=found.pop("_id"), **found) async for found in entries]
