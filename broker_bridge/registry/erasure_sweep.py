"""What an erasure does outside the registry of people: every step may be done again and goes on."""

from collections.abc import AsyncIterator
from datetime import datetime

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from .dead_letters import DeadLetters
from .erasure import Subject, renamed
from .events import Events
from .mongo import Document, Mongo
from .pseudonyms import Pseudonyms


class Sweep:
    """Events, registrations, dead letters and the audit."""

    def __init__(
        self, mongo: Mongo, events: Events, dead_letters: DeadLetters, pseudonyms: Pseudonyms
    ) -> None:
        self._events = events
        self._dead_letters = dead_letters
        self._pseudonyms = pseudonyms
        self._registrations = mongo.db.registrations
        self._audit = mongo.db.audit

    async def steps(self, subject: Subject, pseudonym: str, at: datetime) -> AsyncIterator[tuple[str, int]]:
        """Do all steps for who was erased at `at`; after each its name and how many documents it was."""
        # Who has been given the id since is somebody else.
        anew = await self._pseudonyms.given_anew(subject.user_ids)
        free = [user_id for user_id in subject.user_ids if user_id not in anew]
        events, images = await self._events.erase(free, pseudonym)
        more, more_images = await self._events.erase(sorted(anew), pseudonym, at)
        yield "images", images + more_images
        yield "events", events + more
        yield "registrations", await self._registered(subject, pseudonym, at)
        yield "dead_letters", await self._dead_letters.forget(subject.pattern())
        yield "audit", await self._audited(subject, pseudonym, at)

    async def _registered(self, subject: Subject, pseudonym: str, at: datetime) -> int:
        """Decisions stay, so that a repeated request is answered; they name the pseudonym."""
        query = {"user_id": {"$in": list(subject.user_ids)}, "at": {"$lte": at}}
        changed = await self._registrations.update_many(query, {"$set": {"user_id": pseudonym}})
        return int(changed.modified_count)

    async def _audited(self, subject: Subject, pseudonym: str, at: datetime) -> int:
        """The one exception to "never altered": who has changed what stays, about whom does not.

        Entries about others may name the person too, as a merge does, so all are looked through, as bytes.
        """
        pattern = Subject(subject.user_ids).pattern()
        as_bytes = self._audit.with_options(codec_options=CodecOptions(document_class=RawBSONDocument))
        named = [
            entry["_id"]
            async for entry in as_bytes.find({"at": {"$lte": at}}, {"subject": 1, "before": 1, "after": 1})
            if pattern.search(entry.raw)
        ]
        for entry_id in named:
            entry: Document = await self._audit.find_one(
                {"_id": entry_id}, {"subject": 1, "before": 1, "after": 1}
            )
            change = renamed({key: value for key, value in entry.items() if key != "_id"}, pattern, pseudonym)
            await self._audit.update_one({"_id": entry_id}, {"$set": change})
        return len(named)
