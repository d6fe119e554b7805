"""What a device that polls has missed: since a version, or since the time of its last answer (seed 002)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker_bridge.registry.identities.model import DeltaPage
from broker_bridge.registry.mongo.client import Mongo
from broker_bridge.registry.mongo.versions import History, Versions

from .changes import DeltaQueries

MARGIN = timedelta(seconds=60)
"""A change is dated when it is written and seen when it is committed, up to 15 s later, by clocks of several
machines: who asks by time is told so much again."""


@dataclass(frozen=True)
class PollPosition:
    """Where a device says that it stands: at `version` of the history `epoch`, or as of `time`.

    Without `epoch` it is taken to mean the history there is. Where an answer goes on, `begun_at` is where the
    device stood before it, and `reset_head_version` that of a full snapshot, as in SyncRequest.
    """

    epoch: str | None = None
    version: int = 0
    time: datetime | None = None
    reset_head_version: int | None = None
    begun_at: int | None = None


@dataclass(frozen=True)
class PollAnswer:
    """What a device is told next. It has all up to `begun_at` from before the first page of this answer:
    `surely_held` are those whom its site cannot have been without since then. `last_dated` is when the last
    one told was changed."""

    changes: DeltaPage
    begun_at: int
    reset: bool
    surely_held: frozenset[str]
    last_dated: datetime | None


def starts_over(position: PollPosition, history: History, site_id: str, now: datetime) -> bool:
    """Whether a device needs a full snapshot: another history, nothing yet, or unseen tombstones purged.

    Also one whose time lies ahead: nobody can tell what it has missed.
    """
    if position.epoch not in {None, history.epoch}:
        return True
    if position.time is not None:
        purged = history.purged_until is not None and position.time <= history.purged_until
        return purged or position.time > now + MARGIN
    return not history.tells_since(site_id, position.version, position.reset_head_version)


class EdgePolling:
    """Answers without memory: the position says it all."""

    def __init__(self, mongo: Mongo, versions: Versions, changes: DeltaQueries) -> None:
        self._people = mongo.db.identities
        self._versions = versions
        self._changes = changes

    async def poll(
        self, site_id: str, position: PollPosition, spaces: Sequence[str], *, limit: int, max_bytes: int,
        now: datetime,
    ) -> PollAnswer:  # fmt: skip
        """What a device of the site needs next: at most `limit` people and about `max_bytes`."""
        history = await self._versions.read()
        reset = starts_over(position, history, site_id, now)
        while True:
            since = 0 if reset else await self._since(site_id, position, history)
            changes = await self._changes.site_deltas(
                site_id, since, spaces, limit, max_bytes, snapshot=reset
            )
            # A purge in between may have taken what this device had yet to hear of.
            if reset or not starts_over(position, changes.history, site_id, now):
                break
            reset = True
        begun_at = 0 if reset else await self._begun_at(site_id, position)
        surely_held, last_dated = await self._whereabouts(changes, begun_at)
        return PollAnswer(changes, begun_at, reset, surely_held, last_dated)

    async def _since(self, site_id: str, position: PollPosition, history: History) -> int:
        if position.time is None:
            return position.version
        version = await self._changes.version_at(site_id, position.time)
        # The history was read first: whatever was changed since then has a later version.
        return history.version if version is None else version

    async def _begun_at(self, site_id: str, position: PollPosition) -> int:
        if position.time is not None:
            return await self._changes.version_before(site_id, position.time)
        return position.version if position.begun_at is None else position.begun_at

    async def _whereabouts(self, changes: DeltaPage, begun_at: int) -> tuple[frozenset[str], datetime | None]:
        """Whom of `changes` the site has had since `begun_at` at the least, and the date of the last of them.

        Where somebody has been in several places, it is not known since when they are in each.
        """
        told = [change.identity.user_id for change in changes.deltas]
        fields = {"born": 1, "reach": 1, "updated_at": 1}
        cursor = self._people.find({"_id": {"$in": told}}, fields)
        found = {one["_id"]: one async for one in cursor}
        held = frozenset(
            user_id
            for user_id, one in found.items()
            if 0 < one.get("born", 0) <= begun_at and len(one["reach"]) == 1
        )
        last = found.get(told[-1]) if told else None
        return held, last["updated_at"] if last else None
