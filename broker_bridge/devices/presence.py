"""What devices say of themselves (status, info, heartbeat, applied), written to the registry in batches."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus, Heartbeat
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.devices import is_reserved
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.settings import BridgeSettings

_log = logging.getLogger(__name__)

FOLLOWED = (
    channels.STATUS,
    channels.INFO,
    channels.HEARTBEAT,
    channels.SYNC_APPLIED,
    channels.CONFIG_REPORTED,
)
_LIMIT = 20_000
_RETRY_SECONDS = 1.0


class Presence:
    """Collects what devices say and writes it in batches: of each kind only a device's last word counts."""

    def __init__(
        self,
        registry: Registry,
        settings: BridgeSettings,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._auto_register = settings.auto_register
        self._now = now
        # A status is kept per session too, so that an older one cannot push a newer one out.
        self._waiting: dict[tuple[str, str], tuple[Decoded[Any], datetime]] = {}
        self._wake = asyncio.Event()
        # What was last logged about the models of a device: its info comes again with every connect.
        self._differing: dict[str, dict[str, str]] = {}
        self.counters: Counter[str] = Counter()

    def accept_report(self, decoded: Decoded[Any], _payload: bytes) -> None:
        """Queue a report; a later one of the same kind takes its place."""
        device_id = decoded.ids["device_id"]
        kind = decoded.channel.name
        if isinstance(decoded.message, DeviceStatus):
            kind = f"{kind}/{decoded.message.session}"
        if (device_id, kind) not in self._waiting and len(self._waiting) >= _LIMIT:
            self.counters["dropped_queue_full"] += 1
            return
        self._waiting[device_id, kind] = (decoded, self._now())
        self._wake.set()

    async def write_reports(self) -> None:
        """Write reports until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, {}
            while batch:
                try:
                    await self._write(batch)
                    break
                except RegistryError as error:
                    self.counters["failed"] += 1
                    _log.warning("reports of devices have to wait: %s", type(error).__name__)
                    await asyncio.sleep(_RETRY_SECONDS)
                    batch, self._waiting = batch | self._waiting, {}

    async def _write(self, batch: dict[tuple[str, str], tuple[Decoded[Any], datetime]]) -> None:
        infos = {
            decoded.ids["device_id"]: decoded.message
            for decoded, _ in batch.values()
            if isinstance(decoded.message, DeviceInfo)
        }
        for device_id, info in infos.items():
            await self._introduce(device_id, info)
        await self._registry.devices.record_contact(sorted({device_id for device_id, _ in batch}))
        reports = self._reports(batch.values())
        await self._registry.devices.record_reports(reports)
        self.counters["reports"] += len(reports)

    def _reports(self, batch: Iterable[tuple[Decoded[Any], datetime]]) -> list[DeviceReport]:
        reports = []
        for decoded, received_at in batch:
            try:
                reports.append(_report(decoded, received_at))
            except ContractError as error:
                self.counters["unfit"] += 1
                _log.warning("%s: %s", decoded.ids["device_id"], error)
        return reports

    async def _introduce(self, device_id: str, info: DeviceInfo) -> None:
        """Register a new device where that is allowed, and record the spaces of a known one."""
        if self._auto_register and not is_reserved(device_id):
            await self._registry.devices.register(device_id, info.site_id, dev_mode=info.dev_mode)
        elif device_id not in await self._registry.devices.registered([device_id]):
            self.counters["unknown_devices"] += 1
            _log.warning("%s is not registered: it is shown, but not served", device_id)
            return
        differing = {}
        for space_id, space in info.spaces.items():
            try:
                known = await self._registry.spaces.declare(
                    EmbeddingSpace(space_id, space.dimension, space.model_sha256)
                )
            except ContractError as error:
                self.counters["space_conflicts"] += 1
                _log.error("%s: %s", device_id, error)
            else:
                if space.model_sha256 not in (None, known.model_sha256):
                    differing[space_id] = f"{space.model_sha256}, on record is {known.model_sha256}"
        self._note_models(device_id, differing)

    def _note_models(self, device_id: str, differing: dict[str, str]) -> None:
        self.counters["models_differ"] += len(differing)
        if differing and self._differing.get(device_id) != differing:
            for space_id, which in differing.items():
                _log.warning("%s: its model for %s has the SHA-256 %s", device_id, space_id, which)
        if differing:
            self._differing[device_id] = differing
        else:
            self._differing.pop(device_id, None)


def _report(decoded: Decoded[Any], received_at: datetime) -> DeviceReport:
    device_id, message = decoded.ids["device_id"], decoded.message
    if isinstance(message, DeviceStatus):
        return DeviceReport.status(device_id, message.state, message.session, message.at, received_at)
    said = message.model_dump(exclude_none=True, exclude={"device_id"})
    if isinstance(message, Heartbeat):
        said["clock_offset_ms"] = (message.at - received_at).total_seconds() * 1000
    kind = {"sync_applied": "applied", "config_reported": "reported"}.get(
        decoded.channel.name, decoded.channel.name
    )
    return DeviceReport.latest(device_id, kind, said, received_at)
