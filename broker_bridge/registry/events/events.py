"""Store recognition events, each once, and their images.

Images are kept apart and expire.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from pymongo.errors import BulkWriteError, DuplicateKeyError

from broker_bridge.contract import channels
from broker_bridge.contract.messages import Rejection
from broker_bridge.registry.mongo.change_stream import ChangeStream
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first
from broker_bridge.registry.mongo.resume import BRIEF_WAIT_MS, check_unbroken

from .conflicts import COMPARED_FIELDS, find_conflict
from .dead_letters import DeadLetters
from .encoding import EncodedBatch, encode_batch, with_position
from .event_filter import EventFilter
from .model import EventRecord, IncomingEvent, RecordedEvents, to_event_record
from .positions import EventPositions
from .pseudonyms import NUMERIC_METADATA, Pseudonyms

_PSEUDONYMISE_BATCH = 500
_NEW_EVENTS = [{"$match": {"operationType": "insert"}}]


class EventStore:
    """Collections `events` and `event_images`."""

    def __init__(self, mongo: Mongo, pseudonyms: Pseudonyms, dead_letters: DeadLetters) -> None:
        self._mongo = mongo
        self._pseudonyms = pseudonyms
        self._dead_letters = dead_letters
        self._positions = EventPositions(mongo)
        self._events = mongo.db.events
        self._images = mongo.db.event_images
        # Two batches of one process would only collide on the counter of positions and begin again.
        self._write_lock = asyncio.Lock()

    async def record(self, batch: Sequence[IncomingEvent]) -> RecordedEvents:
        """Record `batch` in one transaction; a repeated event changes nothing.

        Events of erased identities are recorded under their pseudonym. An event whose id is recorded with
        other contents is rejected (`event-conflict`) and stored as a dead letter. Raises PyMongoError unless
        all of the batch is certainly durable: then no receipt may be sent, and the devices repeat.
        """
        if not batch:
            return RecordedEvents(frozenset(), {})
        pseudonymised = await self._pseudonyms.pseudonymise([item.event for item in batch])
        if pseudonymised:
            batch = [
                replace(item, event=pseudonymised.get(place, item.event)) for place, item in enumerate(batch)
            ]
        encoded = encode_batch(batch)
        present: dict[str, Document] = {}
        if encoded.documents:
            async with self._write_lock:
                present = await self._insert(encoded)
        conflicts = await self._reject_conflicts(batch, encoded, present)
        rejected = encoded.rejected | conflicts
        stored = (
            frozenset(encoded.documents)
            if not rejected
            else frozenset(item.key for place, item in enumerate(batch) if place not in rejected)
        )
        return RecordedEvents(stored, rejected, len(present.keys() & stored))

    async def _insert(self, encoded: EncodedBatch) -> dict[str, Document]:
        """Insert the new events with their images; return those that are present, by key.

        Repeats are looked up where one is marked, or else after an insert that collides.
        """
        repeats = any(event.metadata.get("replayed") is True for event in encoded.events.values())
        try:
            return await self._mongo.transact(partial(self._insert_within, encoded, look_up=repeats))
        except (BulkWriteError, DuplicateKeyError):
            # An earlier release wrote an image before its event, and may have ended between the two.
            await self._delete_images_without_event(list(encoded.images))
            return await self._mongo.transact(partial(self._insert_within, encoded, look_up=True))

    async def _insert_within(
        self, encoded: EncodedBatch, session: Any, *, look_up: bool
    ) -> dict[str, Document]:
        position = await self._positions.take(session, len(encoded.documents))
        present: dict[str, Document] = {}
        if look_up:
            query = {"_id": {"$in": list(encoded.documents)}}
            cursor = self._events.find(query, COMPARED_FIELDS, session=session)
            present = {found["_id"]: found async for found in cursor}
        fresh = [key for key in encoded.documents if key not in present]
        images = [encoded.images[key] for key in fresh if key in encoded.images]
        if images:
            await self._images.insert_many(images, ordered=False, session=session)
        if fresh:
            documents = [
                with_position(encoded.documents[key], position + offset) for offset, key in enumerate(fresh)
            ]
            await self._events.insert_many(documents, ordered=False, session=session)
        return present

    async def _delete_images_without_event(self, keys: Sequence[str]) -> None:
        cursor = self._events.find({"_id": {"$in": list(keys)}}, {"_id": 1})
        recorded = {found["_id"] async for found in cursor}
        await self._images.delete_many({"_id": {"$in": [key for key in keys if key not in recorded]}})

    async def _reject_conflicts(
        self, batch: Sequence[IncomingEvent], encoded: EncodedBatch, present: Mapping[str, Document]
    ) -> dict[int, Rejection]:
        """Return rejections by place; store the rejected events as dead letters."""
        conflicts: dict[int, Rejection] = {}
        if not present and len(encoded.documents) == len(batch):
            return conflicts
        for place, item in enumerate(batch):
            first = present.get(item.key) or encoded.events.get(item.key)
            if first is None or first is item.event:
                continue
            conflict = find_conflict(item.event, first)
            if conflict:
                conflicts[place] = conflict
                topic = channels.EVENT.topic(
                    device_id=item.event.device_id or "", event_type=item.event.event_type
                )
                await self._dead_letters.store(topic, item.event.to_json(), conflict.code, conflict.detail)
        return conflicts

    async def page(
        self, criteria: EventFilter, *, before: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[EventRecord]:
        """Return up to `limit` events, newest first by time of receipt.

        The page starts after the cursor `before`.
        """
        query = criteria.to_query()
        events = newest_first(self._events, query, "received_at", before=before, limit=limit)
        return [to_event_record(found) async for found in events]

    async def get(self, device_id: str, event_id: str) -> EventRecord | None:
        """Return one event, or None."""
        found = await self._events.find_one({"_id": f"{device_id}/{event_id}"})
        return found and to_event_record(found)

    async def image(self, device_id: str, event_id: str) -> bytes | None:
        """Return the JPEG of an event, or None if it had none or it has expired."""
        found = await self._images.find_one({"_id": f"{device_id}/{event_id}"})
        return bytes(found["jpeg"]) if found else None

    async def exist_for(self, user_ids: Sequence[str]) -> bool:
        """Return whether an event of one of `user_ids` is recorded."""
        return await self._events.find_one({"user_id": {"$in": list(user_ids)}}, {"_id": 1}) is not None

    async def batches_for(
        self, user_ids: Sequence[str], batch_size: int
    ) -> AsyncIterator[list[tuple[EventRecord, bytes | None]]]:
        """Yield all events of `user_ids` by time of receipt, in batches.

        Each event comes with its JPEG if it is kept.
        """
        batch: list[EventRecord] = []
        cursor = self._events.find({"user_id": {"$in": list(user_ids)}}).sort("received_at", 1)
        async for found in cursor.batch_size(batch_size):
            batch.append(to_event_record(found))
            if len(batch) == batch_size:
                yield await self._with_images(batch)
                batch = []
        if batch:
            yield await self._with_images(batch)

    async def _with_images(self, events: list[EventRecord]) -> list[tuple[EventRecord, bytes | None]]:
        query = {"_id": {"$in": [event.key for event in events if event.has_image]}}
        images = {found["_id"]: bytes(found["jpeg"]) async for found in self._images.find(query)}
        return [(event, images.get(event.key)) for event in events]

    async def pseudonymise(
        self, user_ids: Sequence[str], pseudonym: str, until: datetime | None = None
    ) -> tuple[int, int]:
        """Replace `user_ids` by a pseudonym in events and delete their images.

        `until` limits the events by their time.

        Returns the numbers of events and images. A repeated call continues an interrupted one.
        """
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if until is not None:
            query["timestamp"] = {"$lte": until}
        update = _pseudonymising_update(pseudonym)
        events = images = 0
        while True:
            cursor = self._events.find(query, {"_id": 1}).limit(_PSEUDONYMISE_BATCH)
            batch = {"_id": {"$in": [found["_id"] async for found in cursor]}}
            if not batch["_id"]["$in"]:
                return events, images
            # Images first: an event without its user id is not found again.
            images += (await self._images.delete_many(batch)).deleted_count
            events += (await self._events.update_many(batch, update)).modified_count

    def watch(self, resume_after: str | None = None) -> AbstractAsyncContextManager[ChangeStream]:
        """Return a change stream of new events.

        It starts now, or after a token of `resume_token`.
        """
        options = {"resume_after": {"_data": resume_after}} if resume_after else {}
        return self._mongo.watch(_NEW_EVENTS, "events", **options)

    @asynccontextmanager
    async def watch_missed(self, after: str, until: str) -> AsyncIterator[ChangeStream]:
        """Open a change stream of the events between two tokens.

        Read it until it has reached `until`.

        Raises a RegistryError that `cannot_resume` knows if the collection was replaced in between.
        """
        await check_unbroken(self._mongo, "events", after, until)
        options = {"resume_after": {"_data": after}, "max_await_time_ms": BRIEF_WAIT_MS}
        async with self._mongo.watch(_NEW_EVENTS, "events", **options) as stream:
            yield stream


def _pseudonymising_update(pseudonym: str) -> list[Document]:
    """Return the update that pseudonymises events in MongoDB.

    It does the same as Pseudonyms.pseudonymise.
    """
    metadata = {}
    for name in NUMERIC_METADATA:
        value = f"$metadata.{name}"
        is_number = {"$or": [{"$isNumber": value}, {"$eq": [{"$type": value}, "bool"]}]}
        metadata[name] = {"$cond": [is_number, value, "$$REMOVE"]}
    # $replaceWith rather than $set, which would merge the metadata into what is there.
    replaced = {"user_id": pseudonym, "has_image": False, "metadata": metadata}
    return [{"$replaceWith": {"$mergeObjects": ["$$ROOT", replaced]}}]
