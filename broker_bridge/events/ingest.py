"""Record events and answer with receipts: an event without a receipt comes again.

There is no waiting time: while one batch is written the next gathers, so a batch is as large as the load.
Under full load further batches are prepared meanwhile.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker_bridge.common.clock import utc_now
from broker_bridge.common.tasks import cancel_and_wait
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event, Receipts, Rejection
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.settings import BridgeSettings

_log = logging.getLogger(__name__)

_RETRY_SECONDS = (0.2, 2.0)
# Receipts name at most this many events each, far below the broker's packet limit.
_EVENTS_PER_RECEIPT = 1000
# One is written, one is prepared, one is answered.
_BATCHES_IN_WORK = 3


@dataclass
class _Arrival:
    event: Event
    size: int
    received_at: datetime
    settle: Callable[[], None] | None

    def settle_once(self) -> None:
        if self.settle is not None:
            self.settle()
            self.settle = None


class EventIngest:
    """Record events of the link in micro-batches and publish receipts."""

    def __init__(
        self,
        registry: Registry,
        publish: Publish,
        settings: BridgeSettings,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._publish = publish
        self._settings = settings
        self._now = now
        self._waiting: deque[_Arrival] = deque()
        self._waiting_bytes = 0
        self._recording: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.failing_since: datetime | None = None
        """The time since which MongoDB records no events; None while it does."""

    def accept_event(self, decoded: Decoded[Event], payload: bytes, settle: Callable[[], None]) -> None:
        """Queue an event, and settle it once it is durable.

        A full queue drops and counts it: without a receipt its device sends it again. While MongoDB records
        nothing events are settled at once, since they would hold up all other messages.
        """
        full = (
            len(self._waiting) >= self._settings.queue_events
            or self._waiting_bytes + len(payload) > self._settings.queue_bytes
        )
        if full:
            self.counters["dropped_queue_full"] += 1
            settle()
            return
        arrival = _Arrival(decoded.message, len(payload), self._now(), settle)
        if self.failing_since:
            arrival.settle_once()
        self._waiting.append(arrival)
        self._waiting_bytes += len(payload)
        self._wake.set()

    async def ingest_events(self) -> None:
        """Record and answer until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self.drain()
        finally:
            await cancel_and_wait(list(self._recording))

    async def drain(self) -> None:
        """Record every queued event."""
        while self._waiting or self._recording:
            if self._may_begin():
                self._recording.add(asyncio.create_task(self._record(self._next_batch())))
                continue
            woken = asyncio.create_task(self._wake.wait())
            try:
                await asyncio.wait([*self._recording, woken], return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
            self._wake.clear()
            done = {task for task in self._recording if task.done()}
            self._recording -= done
            for task in done:
                task.result()

    def _may_begin(self) -> bool:
        """Return whether to record the next batch now.

        A batch that is not full gathers until no other one is in work.
        """
        if not self._waiting or not self._recording:
            return bool(self._waiting)
        full = (
            len(self._waiting) >= self._settings.batch_events
            or self._waiting_bytes >= self._settings.batch_bytes
        )
        return full and len(self._recording) < _BATCHES_IN_WORK

    def _next_batch(self) -> list[_Arrival]:
        batch: list[_Arrival] = []
        size = 0
        while (
            self._waiting and len(batch) < self._settings.batch_events and size < self._settings.batch_bytes
        ):
            arrival = self._waiting.popleft()
            size += arrival.size
            batch.append(arrival)
        self._waiting_bytes -= size
        return batch

    async def _record(self, batch: Sequence[_Arrival]) -> None:
        """Record one batch, however long MongoDB is unavailable.

        The queue fills up to its bound meanwhile.

        The delay grows without jitter: one batch at a time needs no spreading.
        """
        attempt = 0
        while True:
            try:
                receipts = await self._record_once(batch)
                break
            except RegistryError as error:
                self._note_failure(error)
                for arrival in (*batch, *self._waiting):
                    arrival.settle_once()
                shortest, longest = _RETRY_SECONDS
                await asyncio.sleep(min(longest, shortest * 2**attempt))
                attempt = min(attempt + 1, 10)
        if self.failing_since:
            seconds = (self._now() - self.failing_since).total_seconds()
            _log.info("events are recorded again seconds=%.1f", seconds)
            self.failing_since = None
        for arrival in batch:
            arrival.settle_once()
        await asyncio.gather(*(self._send(device_id, receipt) for device_id, receipt in receipts.items()))

    def _note_failure(self, error: Exception) -> None:
        self.counters["registry_failures"] += 1
        if self.failing_since is None:
            self.failing_since = self._now()
            _log.error(
                "events cannot be recorded in MongoDB; no receipts are sent, devices repeat error=%s",
                type(error).__name__,
            )

    async def _record_once(self, batch: Sequence[_Arrival]) -> dict[str, Receipts]:
        device_ids = sorted({arrival.event.device_id for arrival in batch})
        devices = await self._registry.devices.registered(device_ids)
        gone = await self._registry.devices.decommissioned(set(device_ids) - devices.keys())
        admitted: list[IncomingEvent] = []
        stored: dict[str, list[str]] = defaultdict(list)
        rejected: dict[str, list[Rejection]] = defaultdict(list)
        for arrival in batch:
            device = devices.get(arrival.event.device_id)
            rejection = self._check(arrival, device, is_gone=arrival.event.device_id in gone)
            if rejection:
                rejected[arrival.event.device_id].append(rejection)
            else:
                site_id = device.site_id if device else None
                admitted.append(IncomingEvent(arrival.event, site_id, arrival.received_at))
        recorded = await self._registry.events.record(admitted)
        for place, item in enumerate(admitted):
            if place in recorded.rejected:
                rejected[item.event.device_id].append(recorded.rejected[place])
            else:
                stored[item.event.device_id].append(item.event.event_id)
        self.counters["stored"] += len(recorded.stored) - recorded.repeats
        self.counters["repeats"] += recorded.repeats
        self.counters["rejected"] += sum(map(len, rejected.values()))
        return {
            device_id: Receipts(stored=stored[device_id], rejected=rejected[device_id])
            for device_id in {*stored, *rejected}
        }

    def _check(self, arrival: _Arrival, device: Device | None, *, is_gone: bool) -> Rejection | None:
        event = arrival.event
        may_register = self._settings.auto_register and not is_gone
        try:
            self._registry.event_admission.check_event(
                event, device, arrival.received_at, auto_register=may_register
            )
        except ContractError as error:
            return Rejection(event_id=event.event_id, code=error.code, detail=error.detail)
        return None

    async def _send(self, device_id: str, receipts: Receipts) -> None:
        for start in range(0, max(len(receipts.stored), len(receipts.rejected)), _EVENTS_PER_RECEIPT):
            end = start + _EVENTS_PER_RECEIPT
            part = Receipts(stored=receipts.stored[start:end], rejected=receipts.rejected[start:end])
            if not await self._publish(channels.RECEIPT, part, device_id=device_id):
                self.counters["receipts_unsent"] += 1
