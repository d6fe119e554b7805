"""Count versions so that they become visible in order.

A change and its version commit together. A plain `$inc` followed by a write would let a reader see 12 before
11 and miss 11 for ever. Inside one transaction the second writer collides on the counter and begins again, so
that the order of commits is the order of versions.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument

from broker_bridge.common.clock import utc_now

from .client import Document, Mongo
from .errors import RegistryError

_KEY = {"_id": "versions"}
# A follower looks every second at the latest, and at every change.
_MARKS = 64
EPOCH_STEP = 1_000_000
"""An epoch begins this far above the versions before it, so that no earlier version is one of its own."""
_CLAIM_PAUSE = timedelta(days=1)


class HistoryMissingError(RegistryError):
    """The counter is missing: the database was dropped or is being restored."""


@dataclass(frozen=True)
class History:
    """The state of the version counter.

    `epoch` names the history; tombstones up to version `horizon` have been purged. `horizons` has the newest
    purged version by synced site of a tombstone: devices of a site need a snapshot sync only if they have
    missed a removal that concerns the site. `purged_until` is the deletion time of the newest purged
    tombstone, None before the first purge. `marks` has a random mark for each of the last transactions, by
    its last version: another history with the same versions has other marks.
    """

    epoch: str
    version: int
    horizon: int
    horizons: Mapping[str, int] = field(default_factory=dict)
    purged_until: datetime | None = None
    marks: Mapping[int, str] = field(default_factory=dict)

    def includes(self, earlier: "History") -> bool:
        """Return whether `earlier` is a part of this history, as far as its marks show.

        If it is not, the registry was restored from a backup since. Another epoch includes all before it.
        """
        if earlier.epoch != self.epoch:
            return True
        if earlier.version > self.version:
            return False
        mark = earlier.marks.get(earlier.version)
        if mark is None or not self.marks or earlier.version < min(self.marks):
            return True
        return self.marks.get(earlier.version) == mark

    def horizon_at(self, site_id: str) -> int:
        """Return the newest purged version that concerns a site."""
        return max(self.horizons.get(site_id, 0), self.horizons.get("*", 0))

    def tells_since(self, site_id: str, version: int, reset_head_version: int | None = None) -> bool:
        """Return whether deltas bring a device of the site from `version` to the head.

        Otherwise it needs a snapshot sync: it has nothing yet, or removals that it lacks were purged. A
        snapshot sync under way (`reset_head_version` is the head of its first page) begins again only if a
        tombstone younger than its start was purged.
        """
        if not 0 < version <= self.version:
            return False
        horizon = self.horizon_at(site_id)
        return version >= horizon or (reset_head_version is not None and reset_head_version >= horizon)


class Versions:
    """The counter in `meta`."""

    def __init__(self, mongo: Mongo) -> None:
        self._meta = mongo.db.meta

    async def ensure(self) -> History:
        """Return the history, created if there is none."""
        new_history = {"epoch": secrets.token_hex(8), "version": 0, "horizon": 0}
        await self._meta.update_one(_KEY, {"$setOnInsert": new_history}, upsert=True)
        return await self.read()

    async def read(self, session: Any = None) -> History:
        """Return the history as `session` sees it. Raises HistoryMissingError."""
        found = await self._meta.find_one(_KEY, {"claims": 0}, session=session)
        if found is None:
            raise _history_missing()
        return _to_history(found)

    async def take(self, session: Any, count: int = 1) -> int:
        """Return the first of `count` new versions.

        Call it first in a transaction: it decides the order of transactions.
        """
        last = await self._raise(session, _KEY, count)
        if last is None:
            raise _history_missing()
        return last - count + 1

    async def take_after(self, session: Any, history: History) -> int | None:
        """Return the next version if nothing has changed since `history`, else None.

        Call it first in a transaction, like `take`.
        """
        unchanged = _KEY | {"epoch": history.epoch, "version": history.version}
        return await self._raise(session, unchanged, 1)

    async def _raise(self, session: Any, query: Document, count: int) -> int | None:
        last = {"$add": ["$version", count]}
        mark = [{"version": last, "mark": secrets.token_hex(8)}]
        earlier = {"$ifNull": ["$marks", []]}
        marks = {"$slice": [{"$concatArrays": [earlier, mark]}, -_MARKS]}
        found = await self._meta.find_one_and_update(
            query,
            [{"$set": {"version": last, "marks": marks}}],
            projection={"version": 1},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return found and int(found["version"])

    async def raise_horizons(
        self, session: Any, horizons: Mapping[str, int], purged_until: datetime | None = None
    ) -> None:
        """Record purged versions by synced site.

        `purged_until` is the deletion time of the newest purged tombstone.
        """
        raised: dict[str, Any] = {f"horizons.{site}": version for site, version in horizons.items()}
        raised["horizon"] = max(horizons.values())
        if purged_until is not None:
            raised["horizon_at"] = purged_until
        await self._meta.update_one(_KEY, {"$max": raised}, session=session)

    async def share_group(self) -> str:
        """Return the random group name by which all bridge workers share subscriptions.

        It cannot be guessed: a broker may let any client join a group by name, and take events out of it.
        """
        key = {"_id": "share-group"}
        await self._meta.update_one(key, {"$setOnInsert": {"name": secrets.token_hex(16)}}, upsert=True)
        name: str = (await self._meta.find_one(key))["name"]
        return name

    async def begin_epoch(self, session: Any = None) -> History:
        """Begin another history, as after restoring a backup.

        Every device then needs a snapshot sync.
        """
        found = await self._begin_epoch(_KEY, 0, session=session)
        if found is None:
            raise _history_missing()
        return found

    async def replace_lost(self, seen: History) -> History | None:
        """Begin an epoch if the registry no longer has `seen`, which a program has read.

        The write decides, on the newest state: a read may be behind for a moment after a failover. One of
        several programs begins the epoch; None for the others, and if nothing was lost.
        """
        lost: list[Document] = [{"version": {"$lt": seen.version}}]
        mark = seen.marks.get(seen.version)
        if mark is not None:
            own = {"version": seen.version, "mark": mark}
            lost.append({"marks": {"$not": {"$elemMatch": own}}, "marks.0.version": {"$lte": seen.version}})
        return await self._begin_epoch(_KEY | {"epoch": seen.epoch, "$or": lost}, seen.version)

    async def replace_claimed(self, device_id: str, epoch: str, version: int) -> History | None:
        """Begin an epoch since a device has a version that it was not given.

        The device may be at fault, so its claim counts once a day, and not for a version that is far ahead:
        then return None.
        """
        claim, now = f"claims.{device_id}", utc_now()
        believed = {
            "epoch": epoch,
            "version": {"$gte": version - EPOCH_STEP},
            claim: {"$not": {"$gt": now - _CLAIM_PAUSE}},
        }
        return await self._begin_epoch(_KEY | believed, version, {claim: now})

    async def _begin_epoch(
        self, query: Document, version: int, fields: Document | None = None, session: Any = None
    ) -> History | None:
        """Begin an epoch above `version` in one write, if `query` finds the counter.

        As if all tombstones had been purged now: whatever a device remembers, it needs a snapshot sync.
        """
        first = {"$add": [{"$max": ["$version", version]}, EPOCH_STEP]}
        found = await self._meta.find_one_and_update(
            query,
            [
                {"$set": {"epoch": secrets.token_hex(8), "version": first, "horizon": first}},
                {
                    "$set": {
                        "horizons": {"$mergeObjects": ["$horizons", {"*": "$version"}]},
                        "horizon_at": utc_now(),
                        "marks": [{"version": "$version", "mark": secrets.token_hex(8)}],
                        **(fields or {}),
                    }
                },
            ],
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return found and _to_history(found)


def _to_history(found: Document) -> History:
    return History(
        found["epoch"],
        found["version"],
        found["horizon"],
        found.get("horizons", {}),
        found.get("horizon_at"),
        {item["version"]: item["mark"] for item in found.get("marks", ())},
    )


def _history_missing() -> HistoryMissingError:
    return HistoryMissingError(
        "the registry has no version counter: finish restoring it, then start bridge and API again"
    )
