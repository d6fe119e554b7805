"""Store undecodable messages with topic, bytes and reason.

They are kept until an operator has looked at them.
"""

import hashlib
import re

from bson.binary import Binary

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.registry.mongo.client import Document, Mongo


class DeadLetters:
    """Collection `dead_letters`.

    The same bytes on the same topic are one letter with a count.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._letters = mongo.db.dead_letters

    async def store(self, topic: str, payload: bytes, code: str, detail: str) -> None:
        """Store one letter; `code` and `detail` are the reason of its rejection."""
        now = utc_now()
        key = hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()
        change = {
            "$setOnInsert": {"topic": topic, "payload": Binary(payload), "first_at": now},
            "$set": {"code": code, "detail": detail, "last_at": now},
            "$inc": {"count": 1},
        }
        await self._letters.update_one({"_id": key}, change, upsert=True)

    async def newest(self, limit: int = 100) -> list[Document]:
        """Return the last letters, newest first."""
        return [found async for found in self._letters.find({}).sort("last_at", -1).limit(limit)]

    async def delete_matching(self, pattern: re.Pattern[bytes]) -> int:
        """Delete letters that match `pattern` or may hold a vector.

        The owner of a vector in undecodable bytes is unknown. Returns the number of deleted letters.
        """
        ids = [
            letter["_id"]
            async for letter in self._letters.find({}, {"topic": 1, "payload": 1})
            if pattern.search(bytes(letter["payload"])) or _may_have_vector(letter["topic"])
        ]
        if ids:
            await self._letters.delete_many({"_id": {"$in": ids}})
        return len(ids)


def _may_have_vector(topic: str) -> bool:
    return any(channel.match(topic) for channel in (channels.REGISTER, channels.OBSERVATION))
