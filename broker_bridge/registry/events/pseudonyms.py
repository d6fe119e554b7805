"""Replace the user ids of erased identities in events by pseudonyms.

An erasure keeps a keyed hash of each user id, a mark. A later event from an offline camera is recognised
by the mark and recorded under the erasure's pseudonym, without the user id being kept.
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
_PREFIX = "ERASED-"
_MARK_BYTES = 16
_REFRESH_SECONDS = 1.0
_MOST_UNERASED = 200_000

NUMERIC_METADATA = (
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
"""Metadata that a pseudonymised event keeps, if it is a number or a boolean.

Firmware may have written anything else there, also names.
"""


@dataclass(frozen=True)
class ErasedIdentity:
    """An erasure of a user id.

    Up to `at` the id meant this identity, which has the pseudonym since.
    """

    at: datetime
    pseudonym: str


def new_pseudonym() -> str:
    return f"{_PREFIX}{secrets.token_hex(6)}"


def is_pseudonym(user_id: str | None) -> bool:
    """Return whether `user_id` has the form of a pseudonym."""
    return user_id is not None and user_id.startswith(_PREFIX)


class Pseudonyms:
    """The marks of erased user ids. `clock` is monotonic, in seconds.

    An erasure in this process counts at once, one of another process within a second; the repeated sweep of
    the erasure covers a batch in between. So most batches need no query.
    """

    def __init__(self, mongo: Mongo, clock: Callable[[], float] = time.monotonic) -> None:
        self._erasures = mongo.db.erasures
        self._identities = mongo.db.identities
        self._meta = mongo.db.meta
        self._clock = clock
        self._key = b""
        self._refresh_at = float("-inf")
        self._counted = 0
        self._erased: dict[bytes, list[ErasedIdentity]] = {}
        # User ids without an erasure, so that not every event costs a hash.
        self._unerased: set[str] = set()

    async def ensure_key(self) -> None:
        """Create the key in `meta` once.

        Call it before a transaction, which would not see the key.
        """
        created = {"$setOnInsert": {"key": Binary(secrets.token_bytes(32)), "erasures": 0}}
        found = await self._meta.find_one_and_update(
            _KEY, created, upsert=True, return_document=ReturnDocument.AFTER
        )
        self._key = bytes(found["key"])

    async def marks(self, user_ids: Iterable[str]) -> dict[str, Binary]:
        """Return the mark of each user id: 16 bytes of keyed BLAKE2b."""
        if not self._key:
            await self.ensure_key()
        return {user_id: Binary(self._mark(user_id)) for user_id in user_ids}

    def _mark(self, user_id: str) -> bytes:
        return hashlib.blake2b(user_id.encode(), digest_size=_MARK_BYTES, key=self._key).digest()

    async def count_erasure(self, session: Any) -> None:
        """Raise the number of erasures in the transaction.

        Every process then reads them again.
        """
        await self._meta.update_one(_KEY, {"$inc": {"erasures": 1}}, session=session)

    def invalidate(self) -> None:
        """Read the erasures again before the next batch."""
        self._refresh_at = float("-inf")

    async def reassigned(self, user_ids: Sequence[str]) -> set[str]:
        """Return those of `user_ids` that were assigned again since their erasure."""
        cursor = self._identities.find({"_id": {"$in": list(user_ids)}, "erased": {"$ne": True}}, {"_id": 1})
        return {found["_id"] async for found in cursor}

    async def pseudonymise(self, events: Sequence[Event]) -> dict[int, Event]:
        """Return the events of erased identities by position, pseudonymised.

        They have no image.
        """
        await self._refresh()
        if not self._erased:
            return {}
        known = {
            position: erasures
            for position, event in enumerate(events)
            if (erasures := self._erasures_of(event.user_id))
        }
        if not known:
            return {}
        reassigned = await self.reassigned([events[position].user_id or "" for position in known])
        pseudonymised = {}
        for position, erasures in known.items():
            event = events[position]
            is_reassigned = event.user_id in reassigned
            pseudonym = pseudonym_at(erasures, event.timestamp, reassigned=is_reassigned)
            if pseudonym is not None:
                pseudonymised[position] = _pseudonymised(event, pseudonym)
        return pseudonymised

    def _erasures_of(self, user_id: str | None) -> list[ErasedIdentity] | None:
        if user_id is None or user_id in self._unerased:
            return None
        erasures = self._erased.get(self._mark(user_id))
        if erasures is None:
            if len(self._unerased) >= _MOST_UNERASED:
                self._unerased.clear()
            self._unerased.add(user_id)
        return erasures

    async def _refresh(self) -> None:
        now = self._clock()
        if now < self._refresh_at:
            return
        found: Document = await self._meta.find_one(_KEY) or {"key": b"", "erasures": 0}
        if found["erasures"] != self._counted or bytes(found["key"]) != self._key:
            erased: dict[bytes, list[ErasedIdentity]] = {}
            cursor = self._erasures.find({}, {"marks": 1, "pseudonym": 1, "requested_at": 1})
            async for erasure in cursor.sort("requested_at", 1):
                for mark in erasure["marks"]:
                    erased.setdefault(bytes(mark), []).append(
                        ErasedIdentity(erasure["requested_at"], erasure["pseudonym"])
                    )
            self._key, self._counted, self._erased = bytes(found["key"]), found["erasures"], erased
            self._unerased.clear()
        self._refresh_at = now + _REFRESH_SECONDS


def pseudonym_at(erasures: Sequence[ErasedIdentity], at: datetime, *, reassigned: bool) -> str | None:
    """Return the pseudonym of a user id at `at`.

    `erasures` are those of the id, oldest first.

    None if the id belonged to an identity that is not erased. Until the id is reassigned, a camera that still
    has it means the last erased identity.
    """
    for erasure in erasures:
        if at <= erasure.at:
            return erasure.pseudonym
    return erasures[-1].pseudonym if erasures and not reassigned else None


def _pseudonymised(event: Event, pseudonym: str) -> Event:
    metadata = {
        name: value
        for name in NUMERIC_METADATA
        if isinstance(value := event.metadata.get(name), bool | int | float)
    }
    return event.model_copy(update={"user_id": pseudonym, "image": None, "metadata": metadata})
