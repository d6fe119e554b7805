"""Recognition events, recorded once, and their images, which lie apart and expire."""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import bson
from bson.binary import Binary
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from broker_bridge.contract.errors import EVENT_INVALID, IMAGE_INVALID, ContractError
from broker_bridge.contract.messages import Event, Rejection
from broker_bridge.contract.wire import decode_image, format_time
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first

from .event_filter import EventFilter
from .pseudonyms import FIGURES, Pseudonyms

_DUPLICATE_KEY = 11000
_ERASED_AT_ONCE = 500


@dataclass(frozen=True)
class IncomingEvent:
    """An event as it came in, with the site of its device."""

    event: Event
    site_id: str | None
    received_at: datetime

    @property
    def key(self) -> str:
        """`<device_id>/<event_id>`: neither id has a slash, so the `_id` index is the unique key of both."""
        return f"{self.event.device_id}/{self.event.event_id}"


@dataclass(frozen=True)
class RecordedEvents:
    """What became of a batch: keys stored (now or before), and rejections by key."""

    stored: frozenset[str]
    rejected: Mapping[str, Rejection]
    repeats: int = 0


@dataclass
class _Prepared:
    documents: dict[str, RawBSONDocument] = field(default_factory=dict)
    images: dict[str, RawBSONDocument] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)


class EventStore:
    """Collections `events` and `event_images`."""

    def __init__(self, mongo: Mongo, pseudonyms: Pseudonyms) -> None:
        self._mongo = mongo
        self._pseudonyms = pseudonyms
        self._events = mongo.db.events
        self._images = mongo.db.event_images

    async def record(self, batch: Sequence[IncomingEvent], *, expect_repeats: bool = False) -> RecordedEvents:
        """Store `batch` so that a repeat changes nothing, whoever has been erased under their pseudonym.

        Events marked as replayed are looked up first (with `expect_repeats` all are), since an insert that
        collides costs several times one that does not. Raises PyMongoError when it is not certain that all of
        the batch is stored durably: then no receipt may be sent, and the devices repeat.
        """
        hidden = await self._pseudonyms.pseudonymise([item.event for item in batch])
        if hidden:
            batch = [replace(item, event=hidden.get(place, item.event)) for place, item in enumerate(batch)]
        prepared = _prepare(batch)
        likely = [item.key for item in batch if expect_repeats or item.event.metadata.get("replayed") is True]
        present = await self._present(likely) if likely else set()
        fresh = [key for key in prepared.documents if key not in present]
        # Images first: an event that can be seen has its image.
        await self._insert(self._images, [prepared.images[key] for key in fresh if key in prepared.images])
        collided = await self._insert(self._events, [prepared.documents[key] for key in fresh])
        return RecordedEvents(frozenset(prepared.documents), prepared.rejected, len(present) + collided)

    async def _present(self, keys: Sequence[str]) -> set[str]:
        cursor = self._events.find({"_id": {"$in": list(keys)}}, {"_id": 1})
        return {found["_id"] async for found in cursor}

    async def _insert(self, collection: Any, documents: Sequence[RawBSONDocument]) -> int:
        """Insert all; the number that were there already. Any other failure is raised."""
        if not documents:
            return 0
        try:
            await collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details.get("writeErrors", [])
            if error.details.get("writeConcernErrors") or any(f["code"] != _DUPLICATE_KEY for f in failures):
                raise
            return len(failures)
        return 0

    async def page(
        self, criteria: EventFilter, *, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        """Return up to `limit` events, newest first by time of receipt, after the cursor `before`."""
        query = criteria.to_query()
        events = newest_first(self._events, query, "received_at", before=before, limit=limit)
        return [found async for found in events]

    async def get(self, device_id: str, event_id: str) -> Document | None:
        """One event, or None."""
        found: Document | None = await self._events.find_one({"_id": f"{device_id}/{event_id}"})
        return found

    async def image(self, device_id: str, event_id: str) -> bytes | None:
        """The JPEG of an event, or None if it had none or it has expired."""
        found = await self._images.find_one({"_id": f"{device_id}/{event_id}"})
        return bytes(found["jpeg"]) if found else None

    async def exist_for(self, user_ids: Sequence[str]) -> bool:
        """Whether there is an event of one of them."""
        return await self._events.find_one({"user_id": {"$in": list(user_ids)}}, {"_id": 1}) is not None

    async def batches_for(self, user_ids: Sequence[str], at_once: int) -> AsyncIterator[list[Document]]:
        """All events of these people, as received, `at_once` at a time, with their `jpeg` if it is kept."""
        chunk: list[Document] = []
        cursor = self._events.find({"user_id": {"$in": list(user_ids)}}).sort("received_at", 1)
        async for found in cursor.batch_size(at_once):
            chunk.append(found)
            if len(chunk) == at_once:
                yield await self._with_images(chunk)
                chunk = []
        if chunk:
            yield await self._with_images(chunk)

    async def _with_images(self, events: list[Document]) -> list[Document]:
        wanted = {"_id": {"$in": [event["_id"] for event in events if event["has_image"]]}}
        images = {found["_id"]: bytes(found["jpeg"]) async for found in self._images.find(wanted)}
        return [{**event, "jpeg": images.get(event["_id"])} for event in events]

    async def pseudonymise(
        self, user_ids: Sequence[str], pseudonym: str, until: datetime | None = None
    ) -> tuple[int, int]:
        """Put a pseudonym in place of `user_ids` in all events (with a time up to `until`), and delete their
        images. How many events and images it were; doing it again goes on where it was interrupted."""
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if until is not None:
            query["timestamp"] = {"$lte": until}
        hidden = _hiding(pseudonym)
        events = images = 0
        while True:
            cursor = self._events.find(query, {"_id": 1}).limit(_ERASED_AT_ONCE)
            concerned = {"_id": {"$in": [found["_id"] async for found in cursor]}}
            if not concerned["_id"]["$in"]:
                return events, images
            # Images first: whose event has lost the user id is not found again.
            images += (await self._images.delete_many(concerned)).deleted_count
            events += (await self._events.update_many(concerned, hidden)).modified_count

    def watch(self, resume_after: str | None = None) -> Any:
        """A change stream of new events, from now or from a token of `resume_token`."""
        options = {"resume_after": {"_data": resume_after}} if resume_after else {}
        return self._mongo.watch([{"$match": {"operationType": "insert"}}], "events", **options)


def _hiding(pseudonym: str) -> list[Document]:
    """What an event becomes whose person has been erased; the same as Pseudonyms.hide makes of it."""
    figures = {}
    for name in FIGURES:
        value = f"$metadata.{name}"
        is_figure = {"$or": [{"$isNumber": value}, {"$eq": [{"$type": value}, "bool"]}]}
        figures[name] = {"$cond": [is_figure, value, "$$REMOVE"]}
    # $replaceWith rather than $set, which would merge the figures into what is there.
    kept = {"user_id": pseudonym, "has_image": False, "metadata": figures}
    return [{"$replaceWith": {"$mergeObjects": ["$$ROOT", kept]}}]


def _prepare(batch: Sequence[IncomingEvent]) -> _Prepared:
    """Encode each event by itself: one that BSON cannot hold must not take its neighbours with it."""
    prepared = _Prepared()
    for item in batch:
        image, image_error = _image_of(item.event)
        try:
            prepared.documents[item.key] = _raw(_document(item, image is not None, image_error))
        except (BSONError, OverflowError, ValueError) as error:
            detail = f"the event cannot be stored: {error}"[:1000]
            prepared.rejected[item.key] = Rejection(
                event_id=item.event.event_id, code=EVENT_INVALID, detail=detail
            )
            continue
        if image is not None:
            prepared.images[item.key] = _raw(
                {"_id": item.key, "jpeg": Binary(image), "stored_at": item.received_at}
            )
    return prepared


def _raw(document: Document) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, check_keys=False))


def _image_of(event: Event) -> tuple[bytes | None, str | None]:
    """The JPEG, or why there is none. A spoilt picture does not cost the attendance that it belongs to."""
    if event.image is None:
        return None, None
    try:
        return decode_image(event.image), None
    except ContractError:
        return None, IMAGE_INVALID


def _document(item: IncomingEvent, has_image: bool, image_error: str | None) -> Document:
    event = item.event
    document: Document = {
        "_id": item.key,
        "device_id": event.device_id,
        "event_id": event.event_id,
        "site_id": item.site_id,
        "user_id": event.user_id,
        "event_type": event.event_type,
        "timestamp": event.timestamp,
        "received_at": item.received_at,
        "confidence": event.confidence,
        "metadata": event.metadata,
        "has_image": has_image,
    }
    if event.emotion_code:
        document["emotion_code"] = event.emotion_code
    if image_error:
        document["image_error"] = image_error
    return document


def event_to_wire(found: Document, image: bytes | None = None) -> Document:
    """An event document as REST and the live stream show it: the payload of the wire and what we added."""
    shown = {key: value for key, value in found.items() if key != "_id" and value is not None}
    for key in ("timestamp", "received_at"):
        shown[key] = format_time(shown[key])
    if image is not None:
        shown["image"] = base64.b64encode(image).decode("ascii")
    return shown
