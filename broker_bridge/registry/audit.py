"""Who changed what, and when: one entry per change, never altered."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from .mongo.client import Document, Mongo
from .mongo.paging import newest_first


@dataclass(frozen=True)
class AuditEntry:
    """`who` is the name of an API key, or `device:<id>`; `what` the act, such as `site.enrollment-policy`.

    `subject` is the id of what was changed; `before` and `after` hold what the change is about, never a
    vector, a picture or a key.
    """

    who: str
    what: str
    subject: str
    at: datetime
    before: Document | None = None
    after: Document | None = None
    # Hex of its own rather than an ObjectId: it stands in cursors.
    entry_id: str = field(default_factory=lambda: secrets.token_hex(12))


_KEPT = tuple(one.name for one in fields(AuditEntry) if one.name != "entry_id")


class Audit:
    """Collection `audit`."""

    def __init__(self, mongo: Mongo) -> None:
        self._entries = mongo.db.audit

    async def record(self, entry: AuditEntry, session: Any) -> None:
        """Write an entry in the transaction of the change that it tells of."""
        await self.record_all([entry], session)

    async def record_all(self, entries: Sequence[AuditEntry], session: Any) -> None:
        """As record, for several changes of one transaction."""
        # Not `asdict`: it copies what entries hold, at a third of the cost of a bulk import.
        documents = [
            {"_id": entry.entry_id, **{name: getattr(entry, name) for name in _KEPT}} for entry in entries
        ]
        if documents:
            await self._entries.insert_many(documents, session=session)

    async def page(
        self, *, subject: str | None = None, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Up to `limit` entries (about `subject`, or all), newest first, past the cursor of time and id."""
        query: Document = {"subject": subject} if subject else {}
        entries = newest_first(self._entries, query, "at", before=before, limit=limit)
        return [AuditEntry(entry_id=found.pop("_id"), **found) async for found in entries]
