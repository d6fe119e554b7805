"""Under which name events are kept whose person has been erased.

An erasure knows whom it was about by a keyed hash, a mark, so that an event which comes later, from a camera
that was offline, is recognised and stored under the erasure's pseudonym without the user id being kept.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson.binary import Binary
from pymongo import ReturnDocument

from broker_bridge.contract.messages import Event
from broker_bridge.registry.mongo.client import Document, Mongo

_KEY = {"_id": "erasure-key"}
_MARK_BYTES = 16
_LOOK_SECONDS = 1.0
_MOST_OTHERS = 200_000

FIGURES = (
    "distance",
    "duration_ms",
    "frames_tracked",
    "gallery_version",
    "inference_ms",
    "intensity",
    "margin",
    "replayed",
    "seq",
)
"""What is kept of an erased person's event's metadata, as long as it is a number or yes and no: firmware may
have written anything else there, names too."""


@dataclass(frozen=True)
class ErasedIdentity:
    """An erasure of a user id: until when the id was this person, and what they are called since."""

    at: datetime
    pseudonym: str


class Pseudonyms:
    """Knows by their marks who has been erased. `clock` is monotonic, in seconds.

    What is erased in this process counts at once, what is erased elsewhere within a second: a batch in
    between is caught when the erasure's sweep is repeated. So most batches ask MongoDB nothing.
    """

    def __init__(self, mongo: Mongo, clock: Callable[[], float] = time.monotonic) -> None:
        self._erasures = mongo.db.erasures
        self._people = mongo.db.identities
        self._meta = mongo.db.meta
        self._clock = clock
        self._key = b""
        self._look_at = float("-inf")
        self._counted = 0
        self._erased: dict[bytes, list[ErasedIdentity]] = {}
        # Who was looked up and not found, so that not every event costs a hash.
        self._others: set[str] = set()

    async def ensure_key(self) -> None:
        """Make the key, once, and keep it in `meta`; before a transaction, which would not see it else."""
        made = {"$setOnInsert": {"key": Binary(secrets.token_bytes(32)), "erasures": 0}}
        found = await self._meta.find_one_and_update(
            _KEY, made, upsert=True, return_document=ReturnDocument.AFTER
        )
        self._key = bytes(found["key"])

    async def marks(self, user_ids: Iterable[str]) -> dict[str, Binary]:
        """The mark of each user id: 16 bytes of keyed BLAKE2b."""
        if not self._key:
            await self.ensure_key()
        return {user_id: Binary(self._mark(user_id)) for user_id in user_ids}

    def _mark(self, user_id: str) -> bytes:
        return hashlib.blake2b(user_id.encode(), digest_size=_MARK_BYTES, key=self._key).digest()

    async def count_erasure(self, session: Any) -> None:
        """Let every process see, with the transaction, that there is another erasure."""
        await self._meta.update_one(_KEY, {"$inc": {"erasures": 1}}, session=session)

    def invalidate(self) -> None:
        """Look for further erasures at the next question."""
        self._look_at = float("-inf")

    async def reassigned(self, user_ids: Sequence[str]) -> set[str]:
        """Those of `user_ids`, all of them erased once, that somebody else has been given since."""
        cursor = self._people.find({"_id": {"$in": list(user_ids)}, "erased": {"$ne": True}}, {"_id": 1})
        return {found["_id"] async for found in cursor}

    async def pseudonymise(self, events: Sequence[Event]) -> dict[int, Event]:
        """Those of `events`, by place, that are an erased person's, as they may be kept: under the pseudonym
        and without picture."""
        await self._catch_up()
        if not self._erased:
            return {}
        known = {place: erased for place, event in enumerate(events) if (erased := self._of(event.user_id))}
        if not known:
            return {}
        anew = await self.reassigned([events[place].user_id or "" for place in known])
        hidden = {}
        for place, erased in known.items():
            event = events[place]
            pseudonym = pseudonym_at(erased, event.timestamp, given_anew=event.user_id in anew)
            if pseudonym is not None:
                hidden[place] = _hidden(event, pseudonym)
        return hidden

    def _of(self, user_id: str | None) -> list[ErasedIdentity] | None:
        if user_id is None or user_id in self._others:
            return None
        erased = self._erased.get(self._mark(user_id))
        if erased is None:
            if len(self._others) >= _MOST_OTHERS:
                self._others.clear()
            self._others.add(user_id)
        return erased

    async def _catch_up(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        found: Document = await self._meta.find_one(_KEY) or {"key": b"", "erasures": 0}
        if found["erasures"] != self._counted or bytes(found["key"]) != self._key:
            erased: dict[bytes, list[ErasedIdentity]] = {}
            cursor = self._erasures.find({}, {"marks": 1, "pseudonym": 1, "requested_at": 1})
            async for one in cursor.sort("requested_at", 1):
                for mark in one["marks"]:
                    erased.setdefault(bytes(mark), []).append(
                        ErasedIdentity(one["requested_at"], one["pseudonym"])
                    )
            self._key, self._counted, self._erased = bytes(found["key"]), found["erasures"], erased
            self._others.clear()
        self._look_at = now + _LOOK_SECONDS


def pseudonym_at(erased: Sequence[ErasedIdentity], at: datetime, *, given_anew: bool) -> str | None:
    """Who somebody was at `at`, of whose user id there are these erasures, oldest first.

    None if the id was somebody's then who has not been erased. Until it is given anew, a camera that still
    knows it means the last who was erased.
    """
    for one in erased:
        if at <= one.at:
            return one.pseudonym
    return erased[-1].pseudonym if erased and not given_anew else None


def _hidden(event: Event, pseudonym: str) -> Event:
    figures = {
        name: value for name in FIGURES if isinstance(value := event.metadata.get(name), bool | int | float)
    }
    return event.model_copy(update={"user_id": pseudonym, "image": None, "metadata": figures})
