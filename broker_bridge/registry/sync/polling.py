"""Answer devices that poll for changes (seed 002).

A device asks for the changes since a version, or since the time of its last answer.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from broker_bridge.common.retry import Backoff, repeat
from broker_bridge.registry.identities.model import DeltaPage
from broker_bridge.registry.mongo.client import Mongo
from broker_bridge.registry.mongo.errors import RegistryError
from broker_bridge.registry.mongo.versions import History, Versions

from .changes import DeltaQueries
from .history_guard import HistoryGuard
from .poll_positions import PollPositions, PollPositionStore

_log = logging.getLogger(__name__)

_WATCH_SECONDS = 5.0
MARGIN = timedelta(seconds=60)
"""Overlap of answers by time. A change is dated when it is written and visible when it is committed, up to
15 s later, and the clocks of several machines differ."""


@dataclass(frozen=True)
class VersionCursor:
    """The position of a device that has all up to `version`.

    `epoch` names the history of the version; None means the current one. On the next page of an answer,
    `reset_head_version` is the head of a snapshot sync, as in SyncRequest, and `begun_at` the version at
    which the device stood before the first page.
    """

    version: int
    epoch: str | None = None
    reset_head_version: int | None = None
    begun_at: int | None = None

    def is_known(self, history: History, positions: PollPositions) -> bool:
        """Return whether the registry may have given this position to the device.

        A position of another epoch is one that it need not know.
        """
        if not self.version or _is_other_history(self.epoch, history):
            return True
        return self.version <= history.version and positions.has_version(history.epoch, self.version)

    def needs_snapshot(self, history: History, site_id: str) -> bool:
        """Return whether deltas cannot bring the device up to date."""
        return _is_other_history(self.epoch, history) or not history.tells_since(
            site_id, self.version, self.reset_head_version
        )


@dataclass(frozen=True)
class TimeCursor:
    """The position of a device that has all as of `time`.

    `epoch` names the history; None means the current one.
    """

    time: datetime
    epoch: str | None = None

    def is_known(self, history: History, positions: PollPositions) -> bool:
        """Return whether the registry may have given this position to the device."""
        return _is_other_history(self.epoch, history) or positions.has_time(history.epoch, self.time)

    def needs_snapshot(self, history: History, now: datetime) -> bool:
        """Return whether a page of deltas cannot bring the device up to date.

        Tombstones after `time` were purged, or `time` is ahead of the clock.
        """
        if _is_other_history(self.epoch, history) or self.time > now + MARGIN:
            return True
        return history.purged_until is not None and self.time <= history.purged_until


PollCursor = VersionCursor | TimeCursor


class _ReadPage(Protocol):
    """Read the page of the polled site after a version."""

    async def __call__(self, version: int, *, snapshot: bool) -> DeltaPage: ...


def _is_other_history(epoch: str | None, history: History) -> bool:
    return epoch not in {None, history.epoch}


@dataclass(frozen=True)
class PollAnswer:
    """The next page of changes for a device; `reset` begins a snapshot sync.

    The device has all up to version `begun_at` from before the first page. `surely_held` are the user ids of
    the page that its site has had since then at the latest. `last_dated` is the time of the last change.
    """

    page: DeltaPage
    begun_at: int
    reset: bool
    surely_held: frozenset[str]
    last_dated: datetime | None


class EdgePolling:
    """Answers to polling devices.

    The cursor has all that an answer depends on. What a device was given is recorded to recognise a cursor
    of a history that a backup has replaced.
    """

    def __init__(self, mongo: Mongo, versions: Versions, deltas: DeltaQueries) -> None:
        self._identities = mongo.db.identities
        self._versions = versions
        self._guard = HistoryGuard(versions)
        self._positions = PollPositionStore(mongo)
        self._deltas = deltas

    async def history(self) -> History:
        """Return the history; an epoch begins if this program has seen more of it."""
        return await self._guard.read()

    async def watch_history(self, interval: float = _WATCH_SECONDS) -> None:
        """Look every `interval` seconds for a restored registry, until cancelled."""

        def report(error: Exception) -> None:
            _log.debug("history cannot be read error=%s", type(error).__name__)

        async def look() -> None:
            await self.history()

        await repeat(look, on=RegistryError, report=report, backoff=Backoff(interval, interval))

    async def may_confirm(self, device_id: str, epoch: str, version: int) -> bool:
        """Return whether the device was given all changes up to `version`."""
        return (await self._positions.of(device_id)).reaches(epoch, version)

    async def poll(
        self, device_id: str, site_id: str, cursor: PollCursor, spaces: Sequence[str], *, limit: int,
        max_bytes: int, now: datetime,
    ) -> PollAnswer:  # fmt: skip
        """Return the next page after `cursor` to a device.

        It has at most `limit` identities and about `max_bytes`.
        """

        async def read(version: int, *, snapshot: bool) -> DeltaPage:
            return await self._deltas.site_deltas(
                site_id, version, spaces, limit, max_bytes, snapshot=snapshot
            )

        positions = await self._positions.of(device_id)
        history = await self.history()
        answer = None
        if not cursor.is_known(history, positions):
            history = await self._judge_claim(device_id, cursor, history, positions)
        elif isinstance(cursor, VersionCursor):
            answer = await self._by_version(site_id, cursor, history, read)
        else:
            answer = await self._by_time(site_id, cursor, history, read, now)
        answer = answer or await self._answer(await read(0, snapshot=True), 0, reset=True)
        await self._record(device_id, cursor, answer, positions, now)
        return answer

    async def _judge_claim(
        self, device_id: str, cursor: PollCursor, history: History, positions: PollPositions
    ) -> History:
        """Return the history after a position that the device was not given.

        One past all that it was given, with the epoch, shows that the registry was restored.
        """
        if not isinstance(cursor, VersionCursor) or cursor.epoch != history.epoch:
            return history
        is_past_all = positions.is_past_all(history.epoch, cursor.version)
        if cursor.version <= history.version and not is_past_all:
            return history
        begun = await self._versions.replace_claimed(device_id, history.epoch, cursor.version)
        if begun is None:
            return history
        _log.warning(
            "registry is behind a polling device; an epoch begins device=%s version=%d",
            device_id,
            cursor.version,
        )
        return begun

    async def _record(
        self, device_id: str, cursor: PollCursor, answer: PollAnswer, positions: PollPositions, now: datetime
    ) -> None:
        stands_at = None
        if isinstance(cursor, VersionCursor) and cursor.version and not answer.reset:
            stands_at = cursor.version
        by_time = isinstance(cursor, TimeCursor) or not cursor.version
        page = answer.page
        after = positions.after(page.history.epoch, stands_at, page.to_version, now if by_time else None)
        if after != positions:
            await self._positions.record(device_id, after)

    async def _by_version(
        self, site_id: str, cursor: VersionCursor, history: History, read: _ReadPage
    ) -> PollAnswer | None:
        """Return the page after a version; None if the device needs a snapshot sync."""
        if cursor.needs_snapshot(history, site_id):
            return None
        page = await read(cursor.version, snapshot=False)
        # A purge since `history` was read may have removed tombstones that the device lacks.
        if cursor.needs_snapshot(page.history, site_id):
            return None
        return await self._answer(page, cursor.version if cursor.begun_at is None else cursor.begun_at)

    async def _by_time(
        self, site_id: str, cursor: TimeCursor, history: History, read: _ReadPage, now: datetime
    ) -> PollAnswer | None:
        """Return the page after a time; None if the device needs a snapshot sync."""
        if cursor.needs_snapshot(history, now):
            return None
        version = await self._deltas.version_at(site_id, cursor.time)
        # `history` was read first: every change since then has a later version.
        page = await read(history.version if version is None else version, snapshot=False)
        if cursor.needs_snapshot(page.history, now):
            return None
        return await self._answer(page, await self._deltas.version_before(site_id, cursor.time))

    async def _answer(self, page: DeltaPage, begun_at: int, *, reset: bool = False) -> PollAnswer:
        """Return the answer with a page.

        It names the identities that the site has had since `begun_at`. An identity with several synced sites
        is left out: since when each site has it is not recorded.
        """
        user_ids = [delta.identity.user_id for delta in page.deltas]
        fields = {"born": 1, "reach": 1, "updated_at": 1}
        cursor = self._identities.find({"_id": {"$in": user_ids}}, fields)
        found = {document["_id"]: document async for document in cursor}
        surely_held = frozenset(
            user_id
            for user_id, document in found.items()
            if 0 < document.get("born", 0) <= begun_at and len(document["reach"]) == 1
        )
        last = found.get(user_ids[-1]) if user_ids else None
        return PollAnswer(page, begun_at, reset, surely_held, last["updated_at"] if last else None)
