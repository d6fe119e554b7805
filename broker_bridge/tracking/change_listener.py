"""What others do with detected persons and with enrolled people, to the tracker's ears."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from broker_bridge.change_streams import wake_on
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.detected_persons.edit_stream import DetectedPersonEdit, watch_edits

from .tracker import Tracker

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
# Thousands may be enrolled at once.
_PAUSE_SECONDS = 0.2


class DetectedPersonChanges:
    """Tells the tracker who was deleted, merged or linked, and that enrolled people have changed."""

    def __init__(
        self, registry: Registry, tracker: Tracker, counters: Counter[str], now: Callable[[], datetime]
    ) -> None:
        self._registry = registry
        self._tracker = tracker
        self._counters = counters
        self._now = now
        self._people_changed = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        await asyncio.gather(
            self._follow(),
            wake_on(self._registry.identity_store.watch, self._people_changed.set, self._counters),
            self._tell_people_changed(),
        )

    async def _tell_people_changed(self) -> None:
        """At once: whoever is deleted must not be told for another second."""
        while True:
            await self._people_changed.wait()
            self._people_changed.clear()
            try:
                await self._tracker.refresh_identities()
                await asyncio.sleep(_PAUSE_SECONDS)
            except RegistryError as error:
                _log.warning("enrolled people could not be read anew: %s", type(error).__name__)
                self._people_changed.set()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        while True:
            try:
                async with watch_edits(self._registry.mongo) as edits:
                    # What happened while nobody listened is seen when people are read anew: a read with
                    # majority may be behind where the stream begins.
                    await self._registry.mongo.catch_up()
                    await self._tracker.reload_all(self._now())
                    async for edit in edits:
                        await self._tell(edit)
            except RegistryError as error:
                self._counters["stream_breaks"] += 1
                _log.warning("the stream of detected persons broke: %s", type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _tell(self, edit: DetectedPersonEdit) -> None:
        if edit.kind == "deleted":
            await self._tracker.drop_deleted([edit.global_id])
        elif edit.kind == "updated":
            await self._tell_update(edit.global_id, edit.updated_fields)
        else:
            await self._tracker.reload_all(self._now())

    async def _tell_update(self, global_id: int, updated: Any) -> None:
        concerned = {global_id}
        if updated.get("merged_into") is not None:
            concerned.add(updated["merged_into"])
        elif "merged_into" in updated:
            # Parted: whoever it was merged into is known by its faces no more.
            await self._tracker.reload_all(self._now())
            return
        if set(updated) & {"merged_into", "not_users"} or not self._tracker.is_linked(
            global_id, updated.get("user_id")
        ):
            await self._tracker.reload(concerned, self._now())
