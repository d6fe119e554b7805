"""What could not be parsed, kept with topic, bytes and reason until somebody has looked at it."""

import hashlib
import re

from bson.binary import Binary

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.registry.mongo.client import Document, Mongo


class DeadLetters:
    """Collection `dead_letters`: the same bytes on the same topic are one letter with a count."""

    def __init__(self, mongo: Mongo) -> None:
        self._letters = mongo.db.dead_letters

    async def store(self, topic: str, payload: bytes, code: str, detail: str) -> None:
        """Record one letter; `code` and `detail` say why it could not be used."""
        now = utc_now()
        key = hashlib.sha256(topic.encode() + b"\0" + payload).hexdigest()
        begun = {"topic": topic, "payload": Binary(payload), "first_at": now}
        change = {
            "$setOnInsert": begun,
            "$set": {"code": code, "detail": detail, "last_at": now},
            "$inc": {"count": 1},
        }
        await self._letters.update_one({"_id": key}, change, upsert=True)

    async def newest(self, limit: int = 100) -> list[Document]:
        """The last letters, newest first."""
        return [found async for found in self._letters.find({}).sort("last_at", -1).limit(limit)]

    async def delete_matching(self, named: re.Pattern[bytes]) -> int:
        """Delete the letters whose bytes match `named`, and all that may hold a face's vector: nobody can
        tell whose it is. The number that is gone."""
        gone = [
            letter["_id"]
            async for letter in self._letters.find({}, {"topic": 1, "payload": 1})
            if named.search(bytes(letter["payload"])) or _has_vector(letter["topic"])
        ]
        if gone:
            await self._letters.delete_many({"_id": {"$in": gone}})
        return len(gone)


def _has_vector(topic: str) -> bool:
    return any(channel.match(topic) for channel in (channels.REGISTER, channels.OBSERVATION))
