"""Erase a person outside of identities and templates.

These are events, registrations, dead letters, detected persons and the audit log. Every step can be repeated
and continues where it ended.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from broker_bridge.registry.detected_persons.removal import DetectedPersonRemoval
from broker_bridge.registry.events.dead_letters import DeadLetters
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.pseudonyms import Pseudonyms
from broker_bridge.registry.mongo.client import Document, Mongo

from .erasure import ErasureSubject, replace_names

_NAMING_FIELDS = {"subject": 1, "before": 1, "after": 1}
_ABOUT_PERSONS = {"what": {"$not": {"$regex": "^(device|site|job|space)[.]"}}}


class ErasureSweep:
    """Sweep of all collections outside of `identities` and `templates`."""

    def __init__(
        self,
        mongo: Mongo,
        events: EventStore,
        dead_letters: DeadLetters,
        pseudonyms: Pseudonyms,
        removal: DetectedPersonRemoval,
    ) -> None:
        self._events = events
        self._dead_letters = dead_letters
        self._pseudonyms = pseudonyms
        self._removal = removal
        self._registrations = mongo.patient_db.registrations
        self._audit = mongo.patient_db.audit

    async def steps(
        self, subject: ErasureSubject, pseudonym: str, at: datetime, now: datetime
    ) -> AsyncIterator[tuple[str, int]]:
        """Do all steps for a person erased at `at`.

        Yields the name of each step and the number of documents that it has changed.
        """
        # Where a user id was given to another identity since, only older documents are the erased person's.
        # Otherwise time decides nothing: clocks differ, and a camera that was away still knows the person.
        reassigned = await self._pseudonyms.reassigned(subject.user_ids)
        ids = [user_id for user_id in subject.user_ids if user_id not in reassigned]
        parts = [(part, until) for part, until in ((ids, None), (sorted(reassigned), at)) if part]
        events = [await self._events.pseudonymise(part, pseudonym, until) for part, until in parts]
        yield "images", sum(images for _, images in events)
        yield "events", sum(changed for changed, _ in events)
        removed = [await self._removal.erase_linked(part, until, now) for part, until in parts]
        yield "detected_persons", sum(removed)
        yield (
            "registrations",
            sum([await self._pseudonymise_registrations(part, pseudonym, until) for part, until in parts]),
        )
        yield "dead_letters", await self._dead_letters.delete_matching(subject.pattern())
        entries = [await self._pseudonymise_audit(part, pseudonym, until) for part, until in parts]
        yield "audit", sum(entries)

    async def _pseudonymise_registrations(
        self, user_ids: Sequence[str], pseudonym: str, until: datetime | None
    ) -> int:
        """Put the pseudonym into registration decisions.

        They stay, so that a repeated request is answered.
        """
        query: Document = {"user_id": {"$in": list(user_ids)}} | _up_to(until)
        changed = await self._registrations.update_many(query, {"$set": {"user_id": pseudonym}})
        return int(changed.modified_count)

    async def _pseudonymise_audit(
        self, user_ids: Sequence[str], pseudonym: str, until: datetime | None
    ) -> int:
        """Put the pseudonym into audit entries, the one exception to "never altered".

        Entries about other identities may name the person too, as that of a merge does: all are searched as
        bytes. Entries about a device, a site or a job are left out, since it may have the same id.
        """
        pattern = ErasureSubject(tuple(user_ids)).pattern()
        as_bytes = self._audit.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))
        named = [
            entry["_id"]
            async for entry in as_bytes.find(_up_to(until) | _ABOUT_PERSONS, _NAMING_FIELDS)
            if pattern.search(entry.raw)
        ]
        for entry_id in named:
            entry: Document = await self._audit.find_one({"_id": entry_id}, _NAMING_FIELDS)
            change = replace_names(
                {key: value for key, value in entry.items() if key != "_id"}, pattern, pseudonym
            )
            await self._audit.update_one({"_id": entry_id}, {"$set": change})
        return len(named)


def _up_to(until: datetime | None) -> Document:
    return {} if until is None else {"at": {"$lte": until}}
