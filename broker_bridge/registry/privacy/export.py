"""Export all personal data of one identity as one JSON document.

The document is written while it is read, so that memory does not grow with the events.
"""

import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from broker_bridge.contract.wire import format_time
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.detected_persons.export import export_person, export_segment
from broker_bridge.registry.detected_persons.merge_groups import MergeGroup
from broker_bridge.registry.detected_persons.queries import DetectedPersonQueries
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.model import EventRecord
from broker_bridge.registry.identities.documents import identity_to_document
from broker_bridge.registry.identities.model import Identity, Template
from broker_bridge.registry.identities.rules import identity_unknown
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document, Mongo

from .erasure import Erasure
from .erasures import Erasures

# With images of 50 KB some 2 MB of memory.
_EVENT_BATCH = 40
_SEGMENT_PAGE = 1000


class PersonalDataExport:
    """Export from every collection that may have data of a person."""

    def __init__(
        self,
        mongo: Mongo,
        *,
        store: IdentityStore,
        events: EventStore,
        erasures: Erasures,
        audit: Audit,
        detected: DetectedPersonQueries,
    ) -> None:
        self._store = store
        self._events = events
        self._erasures = erasures
        self._audit = audit
        self._detected = detected
        self._entries = mongo.db.audit
        self._registrations = mongo.db.registrations

    async def export_identity(self, user_id: str, *, by: str, now: datetime) -> AsyncIterator[bytes]:
        """Return the pieces of the document, and record the request in the audit log.

        Raises ContractError(`person-unknown`) if nothing is stored.
        """
        identities = await self._store.find_by_id(None, [user_id])
        if not identities and not await self._has_remains(user_id):
            raise identity_unknown(user_id)
        merged = await self._store.merged_into(None, user_id)
        entry = AuditEntry(who=by, what="person.exported", subject=user_id, at=now)
        await self._audit.record(entry, None)
        return self._pieces(user_id, identities.get(user_id), merged, now)

    async def _has_remains(self, user_id: str) -> bool:
        return await self._events.exist_for([user_id]) or bool(
            await self._detected.groups_linked_to([user_id])
        )

    async def _pieces(
        self, user_id: str, identity: Identity | None, merged: dict[str, Identity], now: datetime
    ) -> AsyncIterator[bytes]:
        user_ids = [user_id, *merged]
        yield _json({"user_id": user_id, "exported_at": now, "person": identity and _identity(identity)})[:-1]
        templates = await self._store.templates_of(None, user_ids)
        visits = _Visits()
        detected = await self._detected.groups_linked_to(user_ids)
        global_ids = [global_id for group in detected for global_id in group.ids]
        sections: dict[str, AsyncIterator[Any]] = {
            "merged": _each([_identity(tombstone) for tombstone in merged.values()]),
            "templates": _each([_template(key, one) for key in user_ids for one in templates.get(key, ())]),
            "events": self._events_of(user_ids, visits),
            # They were counted while the events were written.
            "visits": visits.by_site(),
            "registrations": self._registrations_of(user_ids),
            "detected_persons": self._detected_persons(detected),
            "trails": self._trails_of(global_ids),
            "audit": self._audit_of([*user_ids, *(f"#{global_id}" for global_id in global_ids)]),
            "erasures": _each([_erasure(one) for one in await self._erasures.erasures_of(user_ids)]),
        }
        for name, items in sections.items():
            yield b',\n"' + name.encode() + b'": ['
            separator = b"\n"
            async for item in items:
                yield separator + _json(item)
                separator = b",\n"
            yield b"]"
        yield b"}\n"

    async def _events_of(self, user_ids: list[str], visits: "_Visits") -> AsyncIterator[Document]:
        async for chunk in self._events.batches_for(user_ids, _EVENT_BATCH):
            for event, jpeg in chunk:
                visits.count(event)
                yield event.to_wire(jpeg)

    async def _registrations_of(self, user_ids: list[str]) -> AsyncIterator[Document]:
        async for found in self._registrations.find({"user_id": {"$in": user_ids}}, {"_id": 0}):
            yield found

    async def _detected_persons(self, groups: list[MergeGroup]) -> AsyncIterator[Document]:
        for group in groups:
            faces = await self._detected.centroids(group.ids)
            for one in group.members:
                yield export_person(one, faces.get(one.global_id, []))

    async def _trails_of(self, global_ids: list[int]) -> AsyncIterator[Document]:
        before = None
        while segments := await self._detected.trail(global_ids, before=before, limit=_SEGMENT_PAGE):
            for key, segment in segments:
                yield export_segment(segment)
                before = segment.since, key

    async def _audit_of(self, subjects: list[str]) -> AsyncIterator[Document]:
        query = {"subject": {"$in": subjects}}
        async for found in self._entries.find(query, {"_id": 0}).sort("at", 1):
            yield found


class _Visits:
    """Number of visits by site, with the first and the last."""

    def __init__(self) -> None:
        self._by_site: dict[str | None, Document] = {}

    def count(self, event: EventRecord) -> None:
        if event.event_type != "visit":
            return
        at = event.timestamp
        no_visits = {"site_id": event.site_id, "visits": 0, "first_at": at, "last_at": at}
        counted = self._by_site.setdefault(event.site_id, no_visits)
        counted["visits"] += 1
        counted["first_at"] = min(counted["first_at"], at)
        counted["last_at"] = max(counted["last_at"], at)

    async def by_site(self) -> AsyncIterator[Document]:
        for counted in self._by_site.values():
            yield counted


async def _each(items: list[Document]) -> AsyncIterator[Document]:
    for item in items:
        yield item


def _identity(identity: Identity) -> Document:
    document = identity_to_document(identity)
    return {"user_id": document.pop("_id"), **document}


def _template(user_id: str, template: Template) -> Document:
    return {
        "user_id": user_id,
        "template_id": template.template_id,
        "space": template.space,
        "quality": template.quality,
        "source": template.source,
        "created_at": template.created_at,
        "merged_from": template.merged_from,
        "parked_by": template.superseded_by,
        "vector": base64.b64encode(template.vector).decode(),
    }


def _erasure(erasure: Erasure) -> Document:
    return {
        "erasure_id": erasure.erasure_id,
        "pseudonym": erasure.pseudonym,
        "requested_by": erasure.requested_by,
        "requested_at": erasure.requested_at,
        "state": erasure.state,
        "completed_at": erasure.completed_at,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, default=_time, ensure_ascii=False).encode()


def _time(value: Any) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    raise TypeError(f"{type(value).__name__} is not a type of the registry's documents")
