"""What an erasure does outside the registry of people: every step may be done again and goes on."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from broker_bridge.registry.detected_persons.removal import DetectedPersonRemoval
from broker_bridge.registry.events.dead_letters import DeadLetters
from broker_bridge.registry.events.events import EventStore
from broker_bridge.registry.events.pseudonyms import Pseudonyms
from broker_bridge.registry.mongo.client import Document, Mongo

from .erasure import ErasureSubject, renamed

_NAMING = {"subject": 1, "before": 1, "after": 1}
_ABOUT_PEOPLE = {"what": {"$not": {"$regex": "^(device|site|job)[.]"}}}


class ErasureSweep:
    """Events, registrations, dead letters, whom cameras have seen, and the audit."""

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
        self._registrations = mongo.db.registrations
        self._audit = mongo.db.audit

    async def steps(
        self, subject: ErasureSubject, pseudonym: str, at: datetime, now: datetime
    ) -> AsyncIterator[tuple[str, int]]:
        """Do all steps for who was erased at `at`; after each its name and how many documents it was."""
        # Of who has been given the id since, only what is older is the erased person's. Else time says
        # nothing: clocks differ, and a camera that was away knows the person still.
        anew = await self._pseudonyms.reassigned(subject.user_ids)
        ids = [user_id for user_id in subject.user_ids if user_id not in anew]
        parts = [(part, until) for part, until in ((ids, None), (sorted(anew), at)) if part]
        events = [await self._events.pseudonymise(part, pseudonym, until) for part, until in parts]
        yield "images", sum(images for _, images in events)
        yield "events", sum(changed for changed, _ in events)
        removed = [await self._removal.erase_linked(part, until, now) for part, until in parts]
        yield "detected_persons", sum(removed)
        yield "registrations", sum([await self._registered(part, pseudonym, until) for part, until in parts])
        yield "dead_letters", await self._dead_letters.delete_matching(subject.pattern())
        yield "audit", sum([await self._audited(part, pseudonym, until) for part, until in parts])

    async def _registered(self, user_ids: Sequence[str], pseudonym: str, until: datetime | None) -> int:
        """Decisions stay, so that a repeated request is answered; they name the pseudonym."""
        query: Document = {"user_id": {"$in": list(user_ids)}} | _up_to(until)
        changed = await self._registrations.update_many(query, {"$set": {"user_id": pseudonym}})
        return int(changed.modified_count)

    async def _audited(self, user_ids: Sequence[str], pseudonym: str, until: datetime | None) -> int:
        """The one exception to "never altered": who has changed what stays, about whom does not.

        Entries about others may name the person too, as a merge does, so all are looked through, as bytes.
        Not those about a device, a site or a job: it may happen to have the id that somebody had.
        """
        pattern = ErasureSubject(tuple(user_ids)).pattern()
        as_bytes = self._audit.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))
        named = [
            entry["_id"]
            async for entry in as_bytes.find(_up_to(until) | _ABOUT_PEOPLE, _NAMING)
            if pattern.search(entry.raw)
        ]
        for entry_id in named:
            entry: Document = await self._audit.find_one({"_id": entry_id}, _NAMING)
            change = renamed({key: value for key, value in entry.items() if key != "_id"}, pattern, pseudonym)
            await self._audit.update_one({"_id": entry_id}, {"$set": change})
        return len(named)


def _up_to(until: datetime | None) -> Document:
    return {} if until is None else {"at": {"$lte": until}}
