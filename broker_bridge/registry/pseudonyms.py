"""Under which name events are kept whose person has been erased.

An erasure knows whom it was about by a keyed hash, a mark, so that an event which comes later, from a camera
that was offline, is recognised and stored under the erasure's pseudonym without the user id being kept.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bson.binary import Binary
from pymongo import ReturnDocument

from broker_bridge.contract.messages import Event

from .mongo import Document, Mongo

_KEY = {"_id": "erasure-key"}
_MARK_BYTES = 16

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
class Erased:
    """An erasure of a user id: until when the id was this person, and what they are called since."""

    at: datetime
    pseudonym: str


class Pseudonyms:
    """Reads collection `erasures`, by the marks that it knows people by."""

    def __init__(self, mongo: Mongo) -> None:
        self._erasures = mongo.db.erasures
        self._people = mongo.db.identities
        self._meta = mongo.db.meta
        self._key: bytes | None = None

    async def marks(self, user_ids: Iterable[str]) -> dict[str, Binary]:
        """The mark of each user id: 16 bytes of keyed BLAKE2b. The key is made once and kept in `meta`."""
        if self._key is None:
            made = {"$setOnInsert": {"key": Binary(secrets.token_bytes(32))}}
            found = await self._meta.find_one_and_update(
                _KEY, made, upsert=True, return_document=ReturnDocument.AFTER
            )
            self._key = bytes(found["key"])
        key = self._key
        return {
            user_id: Binary(hashlib.blake2b(user_id.encode(), digest_size=_MARK_BYTES, key=key).digest())
            for user_id in user_ids
        }

    async def given_anew(self, user_ids: Sequence[str]) -> set[str]:
        """Those of `user_ids`, all of them erased once, that somebody else has been given since."""
        cursor = self._people.find({"_id": {"$in": list(user_ids)}, "erased": {"$ne": True}}, {"_id": 1})
        return {found["_id"] async for found in cursor}

    async def put_on(self, events: Sequence[Event]) -> list[Event]:
        """`events` as they may be kept: those of the erased under their pseudonym, without picture."""
        marks = await self.marks({event.user_id for event in events if event.user_id is not None})
        erased = await self._erased(marks) if marks else {}
        if not erased:
            return list(events)
        anew = await self.given_anew(list(erased))
        return [
            _hidden(event, erased.get(event.user_id or "", ()), event.user_id in anew) for event in events
        ]

    async def _erased(self, marks: Mapping[str, Binary]) -> dict[str, list[Erased]]:
        user_ids = {bytes(mark): user_id for user_id, mark in marks.items()}
        concerns: Document = {"marks": {"$in": list(marks.values())}}
        erased: dict[str, list[Erased]] = {}
        cursor = self._erasures.find(concerns, {"marks": 1, "pseudonym": 1, "requested_at": 1})
        async for found in cursor.sort("requested_at", 1):
            for mark in found["marks"]:
                if bytes(mark) in user_ids:
                    known = erased.setdefault(user_ids[bytes(mark)], [])
                    known.append(Erased(found["requested_at"], found["pseudonym"]))
        return erased


def pseudonym_at(erased: Sequence[Erased], at: datetime, *, given_anew: bool) -> str | None:
    """Who somebody was at `at`, of whose user id there are these erasures, oldest first.

    None if the id was somebody's then who has not been erased. Until it is given anew, a camera that still
    knows it means the last who was erased.
    """
    for one in erased:
        if at <= one.at:
            return one.pseudonym
    return erased[-1].pseudonym if erased and not given_anew else None


def _hidden(event: Event, erased: Sequence[Erased], given_anew: bool) -> Event:
    pseudonym = pseudonym_at(erased, event.timestamp, given_anew=given_anew)
    if pseudonym is None:
        return event
    figures = {
        name: value for name in FIGURES if isinstance(value := event.metadata.get(name), bool | int | float)
    }
    return event.model_copy(update={"user_id": pseudonym, "image": None, "metadata": figures})
