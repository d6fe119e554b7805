"""Lease exclusive work to one process at a time, by the clock of MongoDB."""

from datetime import datetime, timezone

from pymongo import ReturnDocument

from .client import Mongo

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Lease:
    """The lease `name` in `meta`, held by `holder` for `seconds` at a time."""

    def __init__(self, mongo: Mongo, name: str, holder: str, seconds: float) -> None:
        self._meta = mongo.db.meta
        self._key = f"lease:{name}"
        self._holder = holder
        self._milliseconds = int(seconds * 1000)

    async def take(self) -> bool:
        """Take or renew the lease; return False while another holder has it."""
        may_take = {
            "$or": [
                {"$eq": ["$holder", self._holder]},
                {"$lt": [{"$ifNull": ["$until", _LONG_AGO]}, "$$NOW"]},
            ]
        }
        ours = {"$add": ["$$NOW", self._milliseconds]}
        change = {
            "holder": {"$cond": [may_take, self._holder, "$holder"]},
            "until": {"$cond": [may_take, ours, "$until"]},
        }
        found = await self._meta.find_one_and_update(
            {"_id": self._key}, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
        )
        return bool(found["holder"] == self._holder)

    async def release(self) -> None:
        """Release the lease at once, if this holder has it."""
        await self._meta.delete_one({"_id": self._key, "holder": self._holder})
