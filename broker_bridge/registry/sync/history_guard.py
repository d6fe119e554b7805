"""Notice that the registry was restored from a backup while a program runs."""

import logging

from broker_bridge.registry.mongo.versions import History, Versions

_log = logging.getLogger(__name__)


class HistoryGuard:
    """The newest history that this program has seen.

    A registry without it was restored: the guard begins an epoch, so that every device syncs a snapshot.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._seen: History | None = None

    async def read(self) -> History:
        """Return the history, of another epoch if the registry was restored."""
        return await self.check(await self._versions.read())

    async def check(self, history: History) -> History:
        """Return `history`, or that of the epoch that begins since it lacks what was seen."""
        seen = self._seen
        if seen is not None and not history.includes(seen):
            begun = await self._versions.replace_lost(seen)
            if begun is None:
                # Nothing is lost and the read was behind, or another program has begun the epoch.
                return await self._versions.read()
            _log.warning(
                "registry was restored; an epoch begins and every device syncs a snapshot "
                "lost_epoch=%s lost_version=%d epoch=%s",
                seen.epoch,
                seen.version,
                begun.epoch,
            )
            history = begun
        if seen is None or seen.epoch != history.epoch or seen.version < history.version:
            self._seen = history
        return history
