"""Clear the retained messages of devices that were moved or decommissioned."""

import asyncio
import logging
from collections import Counter
from typing import Any, Protocol

from broker_bridge.change_streams import wake_on
from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import CHANNELS, Channel
from broker_bridge.registry import Registry, RegistryError

_log = logging.getLogger(__name__)

_OF_DEVICE = tuple(channel for channel in CHANNELS if channel.retain and channel.parameters == ("device_id",))
_CHANNELS = {"all": _OF_DEVICE, "applied": (channels.SYNC_APPLIED,)}


class ClearRetained(Protocol):
    """The signature of `BrokerLink.clear_retained`."""

    async def __call__(self, channel: Channel[Any], **ids: str) -> bool: ...


class RetainedCleaner:
    """Publishes empty retained messages where the registry asks for it.

    Otherwise the broker would report a device that is gone after every restart of a bridge.
    """

    def __init__(self, registry: Registry, clear: ClearRetained, poll_seconds: float) -> None:
        self._registry = registry
        self._clear = clear
        self._poll_seconds = poll_seconds
        self._changed = asyncio.Event()
        self.counters: Counter[str] = Counter()

    def wake(self) -> None:
        """Look for devices now."""
        self._changed.set()

    async def clear_regularly(self) -> None:
        """Clear until cancelled."""
        while True:
            await retry(self._clear_once, on=RegistryError, report=self._report_failure)
            try:
                await asyncio.wait_for(self._changed.wait(), self._poll_seconds)
            except asyncio.TimeoutError:
                self.counters["polls"] += 1
            self._changed.clear()

    async def watch_placements(self) -> None:
        """Wake at every move and decommissioning until cancelled."""
        await wake_on(self._registry.placements.watch, self.wake, self.counters)

    def _report_failure(self, error: Exception) -> None:
        self.counters["failed"] += 1
        _log.warning("retained messages cannot be looked up; they wait error=%s", type(error).__name__)

    async def _clear_once(self) -> None:
        for device_id, clearing in (await self._registry.placements.to_clear()).items():
            done = [await self._clear(channel, device_id=device_id) for channel in _CHANNELS[clearing]]
            if all(done):
                await self._registry.placements.mark_cleared(device_id, clearing)
                self.counters["cleared"] += 1
