"""Store undecodable messages with topic, bytes and reason.

They are kept until an operator has looked at them.
"""

import hashlib
import re
from typing import Final

from bson.binary import Binary

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.registry.mongo.client import Document, Mongo

DEVICE_BYTES: Final = 16 * 1024 * 1024
"""The limit of the dead letters of one device."""
# The cost of a letter besides its payload, so that empty ones are bounded too.
_LETTER_BYTES = 1024
_MAX_KNOWN_DEVICES = 10_000


class DeadLetters:
    """Collection `dead_letters`.

    The same bytes on the same topic are one letter with a count. The letters of a device have at most
    `device_bytes` together, with 1 KiB for each besides its payload: the oldest go first.
    """

    def __init__(self, mongo: Mongo, *, device_bytes: int = DEVICE_BYTES) -> None:
        self._letters = mongo.db.dead_letters
        self._device_bytes = device_bytes
        # The bytes of a device as this process knows them; other workers are seen at the next count.
        self._known_bytes: dict[str, int] = {}
        self._all_letters = mongo.patient_db.dead_letters

    async def store(self, topic: str, payload: bytes, code: str, detail: str) -> int:
        """Store one letter; `code` and `detail` are the reason of its rejection.

        Returns the number of older letters of its device that were deleted for it.
        """
        now = utc_now()
        key = hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()
        device_id = channels.sender_of(topic) or ""
        size = len(payload) + _LETTER_BYTES
        change = {
            "$setOnInsert": {
                "topic": topic,
                "payload": Binary(payload),
                "first_at": now,
                "device_id": device_id,
                "bytes": size,
            },
            "$set": {"code": code, "detail": detail, "last_at": now},
            "$inc": {"count": 1},
        }
        stored = await self._letters.update_one({"_id": key}, change, upsert=True)
        return await self._make_room(device_id, size) if stored.upserted_id is not None else 0

    async def _make_room(self, device_id: str, added: int) -> int:
        """Delete the oldest letters of a device that is over its limit."""
        known = self._known_bytes.get(device_id)
        if known is not None and known + added <= self._device_bytes:
            self._known_bytes[device_id] = known + added
            return 0
        kept, surplus = 0, []
        # A quarter of the limit is freed at once, so that a flood does not count at each letter.
        limit = self._device_bytes * 3 // 4
        newest = self._letters.find({"device_id": device_id}, {"bytes": 1}).sort("last_at", -1)
        sizes = [(letter["_id"], letter["bytes"]) async for letter in newest]
        is_over = sum(size for _, size in sizes) > self._device_bytes
        for letter_id, size in sizes:
            if is_over and kept + size > limit:
                surplus.append(letter_id)
            else:
                kept += size
        if surplus:
            await self._letters.delete_many({"_id": {"$in": surplus}})
        if len(self._known_bytes) >= _MAX_KNOWN_DEVICES:
            self._known_bytes.clear()
        self._known_bytes[device_id] = kept
        return len(surplus)

    async def newest(self, limit: int = 100) -> list[Document]:
        """Return the last letters, newest first."""
        return [found async for found in self._letters.find({}).sort("last_at", -1).limit(limit)]

    async def delete_matching(self, pattern: re.Pattern[bytes]) -> int:
        """Delete letters that match `pattern` or may hold a vector.

        The owner of a vector in undecodable bytes is unknown. Returns the number of deleted letters.
        """
        ids = [
            letter["_id"]
            async for letter in self._all_letters.find({}, {"topic": 1, "payload": 1})
            if pattern.search(bytes(letter["payload"])) or _may_have_vector(letter["topic"])
        ]
        if ids:
            await self._all_letters.delete_many({"_id": {"$in": ids}})
        return len(ids)


def _may_have_vector(topic: str) -> bool:
    return any(channel.match(topic) for channel in (channels.REGISTER, channels.OBSERVATION))
