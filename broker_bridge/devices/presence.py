"""Write the reports of devices to the registry in batches.

The reports are status, info, heartbeat, applied and reported.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from broker_bridge.common.clock import utc_now
from broker_bridge.common.retry import retry
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.errors import CLOCK_WRONG, ContractError
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus, Heartbeat, SyncApplied
from broker_bridge.enrollment.evidence import Evidence
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.devices import is_reserved
from broker_bridge.registry.devices.reports import DeviceReport
from broker_bridge.registry.mongo.versions import History
from broker_bridge.settings import BridgeSettings

from .duplicates import DuplicateWatch

_log = logging.getLogger(__name__)

FOLLOWED = (
    channels.STATUS,
    channels.INFO,
    channels.HEARTBEAT,
    channels.SYNC_APPLIED,
    channels.CONFIG_REPORTED,
)
_LIMIT = 20_000
# A larger offset is a wrong clock; a heartbeat on its way takes less.
_CLOCK_SECONDS = 60.0
_AHEAD_WAIT = timedelta(seconds=10)

_Reports = dict[tuple[str, str], tuple[Decoded[Any], datetime]]


class Presence:
    """Collect reports of devices and write them in batches.

    The newest report of each kind counts. `on_written` is called after every batch. `judge` compares a
    confirmation with the site; one with other templates is recorded and confirms nothing.
    """

    def __init__(
        self,
        registry: Registry,
        settings: BridgeSettings,
        now: Callable[[], datetime] = utc_now,
        on_written: Callable[[], None] = lambda: None,
        judge: Callable[[str, SyncApplied, History], Evidence] | None = None,
    ) -> None:
        self._registry = registry
        self._on_written = on_written
        self._auto_register = settings.auto_register
        self._now = now
        # Every status is kept, in order of arrival: none may push the begin or the end of a session out.
        self._waiting: dict[tuple[str, str], tuple[Decoded[Any], datetime]] = {}
        self._batch: dict[tuple[str, str], tuple[Decoded[Any], datetime]] = {}
        self._wake = asyncio.Event()
        self._judge = judge
        self._ahead: _Reports = {}
        # Devices whose last confirmation does not have the templates of its version.
        self._different: set[str] = set()
        self._programs = DuplicateWatch()
        self._sessions = DuplicateWatch()
        # The model differences last logged per device: its info comes again with every connect.
        self._differing: dict[str, dict[str, str]] = {}
        self.counters: Counter[str] = Counter()

    def accept_report(self, decoded: Decoded[Any], _payload: bytes) -> None:
        """Queue a report; a later one of the same kind replaces it."""
        device_id = decoded.ids["device_id"]
        kind = decoded.channel.name
        if isinstance(decoded.message, DeviceStatus):
            status = decoded.message
            kind = f"{kind}/{status.session}/{status.state}/{status.at.isoformat()}"
        if (device_id, kind) not in self._waiting and len(self._waiting) >= _LIMIT:
            self.counters["dropped_queue_full"] += 1
            return
        self._ahead.pop((device_id, kind), None)
        self._waiting[device_id, kind] = (decoded, self._now())
        self._wake.set()

    async def write_reports(self) -> None:
        """Write reports until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await retry(self._write_waiting, on=RegistryError, report=self._report_failure)

    async def _write_waiting(self) -> None:
        """Write the queued reports.

        After a failure the next call writes them with newer ones.
        """
        self._batch, self._waiting = self._batch | self._waiting, {}
        if self._batch:
            await self._write(self._batch)
        self._batch = {}

    def _report_failure(self, error: Exception) -> None:
        self.counters["failed"] += 1
        _log.warning("device reports cannot be written; they wait error=%s", type(error).__name__)

    async def _write(self, batch: dict[tuple[str, str], tuple[Decoded[Any], datetime]]) -> None:
        infos = {
            decoded.ids["device_id"]: decoded.message
            for decoded, _ in batch.values()
            if isinstance(decoded.message, DeviceInfo)
        }
        for device_id, info in infos.items():
            await self._record_info(device_id, info)
        await self._registry.devices.record_contact(sorted({device_id for device_id, _ in batch}))
        stored = sorted({device_id for (device_id, _), (decoded, _) in batch.items() if decoded.stored})
        if stored:
            await self._registry.placements.request_clearing(stored)
        reports = self._reports((await self._judged(batch)).values())
        await self._registry.devices.record_reports(reports)
        self.counters["reports"] += len(reports)
        self._on_written()

    async def _judged(self, batch: _Reports) -> _Reports:
        """Return the reports that can be written, and note confirmations that differ.

        One of a version that the publisher has not reached yet waits for it.
        """
        applied = {key[0] for key, (decoded, _) in batch.items() if isinstance(decoded.message, SyncApplied)}
        if self._judge is None or not applied:
            return batch
        devices = await self._registry.devices.registered(sorted(applied))
        history = await self._registry.versions.read()
        judged: _Reports = {}
        for key, (decoded, received_at) in batch.items():
            device, message = devices.get(key[0]), decoded.message
            self._ahead.pop(key, None)
            if device is None or not isinstance(message, SyncApplied):
                judged[key] = decoded, received_at
                continue
            evidence = self._judge(device.site_id, message, history)
            if evidence is Evidence.AHEAD:
                await self._check_registry(key[0], message, history)
                if self._now() - received_at < _AHEAD_WAIT:
                    self._ahead[key] = decoded, received_at
                    continue
            is_same = evidence is Evidence.SAME or (
                evidence is Evidence.PAST and await self._is_on_record(key[0], message)
            )
            if not is_same:
                self.counters["differing"] += 1
                self._different.add(key[0])
            else:
                self._different.discard(key[0])
            judged[key] = decoded, received_at
        return judged

    async def _check_registry(self, device_id: str, message: SyncApplied, history: History) -> None:
        """Begin an epoch if the device has more than the registry."""
        if message.epoch == history.epoch and message.version > history.version:
            begun = await self._registry.versions.replace_claimed(device_id, history.epoch, message.version)
            if begun is not None:
                self.counters["registry_behind"] += 1
                _log.warning(
                    "registry is behind a device; an epoch begins device=%s version=%d",
                    device_id,
                    message.version,
                )

    async def _is_on_record(self, device_id: str, message: SyncApplied) -> bool:
        """Return whether the version is on record: a retained report comes again."""
        known = await self._registry.devices.get(device_id)
        applied = known and known.applied
        position = (message.epoch, message.version)
        return bool(
            applied and (applied["epoch"], applied["version"]) == position and not applied.get("differs")
        )

    def judge_again(self) -> None:
        """Judge the confirmations that were ahead of the publisher."""
        if self._ahead:
            self._waiting = self._ahead | self._waiting
            self._ahead = {}
            self._wake.set()

    def _reports(self, batch: Iterable[tuple[Decoded[Any], datetime]]) -> list[DeviceReport]:
        reports = []
        for decoded, received_at in batch:
            reports += self._note_duplicate(decoded, received_at)
            try:
                differs = decoded.ids["device_id"] in self._different
                reports += _to_reports(decoded, received_at, differs=differs)
            except ContractError as error:
                self.counters["unfit"] += 1
                device_id = decoded.ids["device_id"]
                _log.warning("device report rejected device=%s code=%s", device_id, error.code)
        return reports

    def _note_duplicate(self, decoded: Decoded[Any], received_at: datetime) -> list[DeviceReport]:
        """Return the report that two devices use one id, if this message shows it."""
        device_id, message = decoded.ids["device_id"], decoded.message
        addresses = None
        if isinstance(message, DeviceInfo) and not decoded.stored:
            source = message.instance or f"{message.hardware} {message.software}"
            addresses = self._programs.note(device_id, source, message.address, received_at)
        elif isinstance(message, DeviceStatus) and message.state == "online" and not decoded.stored:
            addresses = self._sessions.note(device_id, message.session, None, received_at)
        if addresses is None:
            return []
        self.counters["duplicate_ids"] += 1
        _log.warning("device id is used by two devices device=%s addresses=%s", device_id, addresses)
        return [DeviceReport.duplicate(device_id, addresses, received_at)]

    async def _record_info(self, device_id: str, info: DeviceInfo) -> None:
        """Register a new device where allowed, or record the spaces of a known one."""
        if self._auto_register and not is_reserved(device_id):
            try:
                await self._registry.devices.register(device_id, info.site_id, dev_mode=info.dev_mode)
            except ContractError as error:
                self.counters["decommissioned"] += 1
                _log.warning("device is not served device=%s detail=%r", device_id, error.detail)
                return
        elif device_id not in await self._registry.devices.registered([device_id]):
            self.counters["unknown_devices"] += 1
            _log.warning("device is not registered; it is listed, and not served device=%s", device_id)
            return
        differing = {}
        for space_id, space in info.spaces.items():
            try:
                known = await self._registry.spaces.declare(EmbeddingSpace(space_id, space.dimension))
            except ContractError as error:
                self.counters["space_conflicts"] += 1
                _log.error(
                    "device space rejected device=%s code=%s detail=%r", device_id, error.code, error.detail
                )
            else:
                if None not in (space.model_sha256, known.model_sha256) and (
                    space.model_sha256 != known.model_sha256
                ):
                    differing[space_id] = f"{space.model_sha256}, on record is {known.model_sha256}"
        self._note_models(device_id, differing)

    def _note_models(self, device_id: str, differing: dict[str, str]) -> None:
        self.counters["models_differ"] += len(differing)
        if differing and self._differing.get(device_id) != differing:
            for space_id, models in differing.items():
                _log.warning("device model differs device=%s space=%s models=%r", device_id, space_id, models)
        if differing:
            self._differing[device_id] = differing
        else:
            self._differing.pop(device_id, None)


def _to_reports(decoded: Decoded[Any], received_at: datetime, *, differs: bool) -> list[DeviceReport]:
    device_id, message = decoded.ids["device_id"], decoded.message
    if isinstance(message, DeviceStatus):
        return [
            DeviceReport.status(
                device_id, message.state, message.session, message.at, received_at, stored=decoded.stored
            )
        ]
    reports = []
    fields = message.model_dump(exclude_none=True, exclude={"device_id"})
    if differs and isinstance(message, SyncApplied):
        fields["differs"] = True
    if isinstance(message, Heartbeat):
        add_clock_offset(fields, (message.at - received_at).total_seconds())
        if message.session is not None and int(message.session, 16):
            reports.append(
                DeviceReport.heartbeat_session(device_id, message.session, message.at, received_at)
            )
    kind = {"sync_applied": "applied", "config_reported": "reported"}.get(
        decoded.channel.name, decoded.channel.name
    )
    return [*reports, DeviceReport.latest(device_id, kind, fields, received_at)]


def add_clock_offset(fields: dict[str, Any], offset: float) -> None:
    """Add the offset in seconds to a heartbeat, and the problem `clock-wrong`.

    Other firmware may not report the problem itself.
    """
    fields["clock_offset_ms"] = offset * 1000
    known = any(problem["code"] == CLOCK_WRONG for problem in fields["problems"])
    if known or abs(offset) <= _CLOCK_SECONDS:
        return
    side = "ahead of" if offset > 0 else "behind"
    detail = f"the clock is {abs(offset):.0f} s {side} the backend's: check NTP"
    fields["problems"] = [*fields["problems"], {"code": CLOCK_WRONG, "detail": detail}]
    fields["state"] = "degraded"
