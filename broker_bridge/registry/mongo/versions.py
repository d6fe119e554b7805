"""Count versions so that they become visible in order.

A change and its version commit together. A plain `$inc` followed by a write would let a reader see 12 before
11 and miss 11 for ever. Inside one transaction the second writer collides on the counter and begins again, so
that the order of commits is the order of versions.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from .client import Mongo
from .errors import RegistryError

_KEY = {"_id": "versions"}


class HistoryMissingError(RegistryError):
    """The counter is missing: the database was dropped or is being restored."""


@dataclass(frozen=True)
class History:
    """The state of the version counter.

    `epoch` names the history; tombstones up to version `horizon` have been purged. `horizons` has the newest
    purged version by synced site of a tombstone: devices of a site need a snapshot sync only if they have
    missed a removal that concerns the site. `purged_until` is the deletion time of the newest purged
    tombstone, None before the first purge.
    """

    epoch: str
    version: int
    horizon: int
    horizons: Mapping[str, int] = field(default_factory=dict)
    purged_until: datetime | None = None

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
        found = await self._meta.find_one(_KEY, session=session)
        if found is None:
            raise _history_missing()
        return History(
            found["epoch"],
            found["version"],
            found["horizon"],
            found.get("horizons", {}),
            found.get("horizon_at"),
        )

    async def take(self, session: Any, count: int = 1) -> int:
        """Return the first of `count` new versions.

        Call it first in a transaction: it decides the order of transactions.
        """
        found = await self._meta.find_one_and_update(
            _KEY, {"$inc": {"version": count}}, return_document=ReturnDocument.AFTER, session=session
        )
        if found is None:
            raise _history_missing()
        last: int = found["version"]
        return last - count + 1

    async def take_after(self, session: Any, history: History) -> int | None:
        """Return the next version if nothing has changed since `history`, else None.

        Call it first in a transaction, like `take`.
        """
        unchanged = _KEY | {"epoch": history.epoch, "version": history.version}
        found = await self._meta.find_one_and_update(
            unchanged, {"$inc": {"version": 1}}, return_document=ReturnDocument.AFTER, session=session
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

    async def begin_epoch(self) -> History:
        """Begin another history, as after restoring a backup.

        Every device then needs a snapshot sync.
        """
        await self._meta.update_one(_KEY, {"$set": {"epoch": secrets.token_hex(8)}})
        return await self.read()


def _history_missing() -> HistoryMissingError:
    return HistoryMissingError(
        "the registry has no version counter: finish restoring it, then start bridge and API again"
    )
