"""The version counter: versions become visible in order, because a change and its version commit together.

A plain `$inc` followed by a write lets a reader see 12 before 11 and miss 11 for ever. Inside one transaction
the second writer collides on the counter and starts over, so commit order is version order.
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
    """The counter is not there: the database was dropped or is being restored under a running program."""


@dataclass(frozen=True)
class History:
    """Where the registry stands: `epoch` names the history, tombstones up to `horizon` have been purged.

    `horizons` has the newest purged version by entry of a tombstone's `reach`: a site's devices start over
    only when they have missed a removal that concerned them. `purged_until` is when the newest of the purged
    was deleted, None before the first purge.
    """

    epoch: str
    version: int
    horizon: int
    horizons: Mapping[str, int] = field(default_factory=dict)
    purged_until: datetime | None = None

    def horizon_at(self, site_id: str) -> int:
        """The newest version that was purged of what this site heard."""
        return max(self.horizons.get(site_id, 0), self.horizons.get("*", 0))

    def tells_since(self, site_id: str, version: int, reset_head_version: int | None = None) -> bool:
        """Whether a device of the site that stands at `version` can be told the rest of this history: else it
        has to start over, since it has nothing yet, or since removals that it has not heard of were purged.

        A full snapshot that goes on (`reset_head_version` is the head that its first page had) is begun
        again only if a tombstone younger than its start was purged.
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
        """The history, begun if there is none."""
        begun = {"epoch": secrets.token_hex(8), "version": 0, "horizon": 0}
        await self._meta.update_one(_KEY, {"$setOnInsert": begun}, upsert=True)
        return await self.read()

    async def read(self, session: Any = None) -> History:
        """The history as `session` sees it; raises HistoryMissingError."""
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
        """The first of `count` new versions. Call it first in a transaction: it settles who goes first."""
        found = await self._meta.find_one_and_update(
            _KEY, {"$inc": {"version": count}}, return_document=ReturnDocument.AFTER, session=session
        )
        if found is None:
            raise _history_missing()
        last: int = found["version"]
        return last - count + 1

    async def take_after(self, session: Any, history: History) -> int | None:
        """The next version if nothing has changed since `history`, else None. Call it first, like `take`."""
        unchanged = _KEY | {"epoch": history.epoch, "version": history.version}
        found = await self._meta.find_one_and_update(
            unchanged, {"$inc": {"version": 1}}, return_document=ReturnDocument.AFTER, session=session
        )
        return found and int(found["version"])

    async def raise_horizons(
        self, session: Any, horizons: Mapping[str, int], purged_until: datetime | None = None
    ) -> None:
        """Note, by entry of `reach`, up to which version tombstones have been purged, and when the newest of
        them was deleted."""
        raised: dict[str, Any] = {f"horizons.{reach}": version for reach, version in horizons.items()}
        raised["horizon"] = max(horizons.values())
        if purged_until is not None:
            raised["horizon_at"] = purged_until
        await self._meta.update_one(_KEY, {"$max": raised}, session=session)

    async def share_group(self) -> str:
        """The name under which bridge workers share subscriptions: random, the same for all of them.

        A broker may let anybody join a group by its name, and so take events out of it: nobody can guess it.
        """
        key = {"_id": "share-group"}
        await self._meta.update_one(key, {"$setOnInsert": {"name": secrets.token_hex(16)}}, upsert=True)
        name: str = (await self._meta.find_one(key))["name"]
        return name

    async def begin_epoch(self) -> History:
        """Start another history, as after restoring a backup: every device then takes a full snapshot."""
        await self._meta.update_one(_KEY, {"$set": {"epoch": secrets.token_hex(8)}})
        return await self.read()


def _history_missing() -> HistoryMissingError:
    return HistoryMissingError(
        "the registry has no version counter: finish restoring it, then start bridge and API again"
    )
