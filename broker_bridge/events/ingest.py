"""Events to the registry, and receipts back: what is not stored durably gets no receipt and comes again.

There is no linger: while one batch is being written the next gathers, so a batch is as large as the load is.
"""

import asyncio
import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker_bridge.common.clock import utc_now
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Decoded
from broker_bridge.contract.errors import DEVICE_UNKNOWN, EVENT_TIME_IMPLAUSIBLE
from broker_bridge.contract.messages import Event, Receipts, Rejection
from broker_bridge.contract.wire import format_time
from broker_bridge.link import Publish
from broker_bridge.registry import Registry, RegistryError
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.events import IncomingEvent
from broker_bridge.settings import BridgeSettings

_log = logging.getLogger(__name__)

_FUTURE = timedelta(days=1)
_RETRY_SECONDS = (0.2, 5.0)
# Receipts name at most this many events each, so that one never nears the broker's packet limit.
_RECEIPTS_AT_ONCE = 1000


@dataclass(frozen=True)
class _Arrival:
    event: Event
    size: int
    received_at: datetime


class EventIngest:
    """Takes events from the link, records them in micro-batches, and answers with receipts."""

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
        self._wake = asyncio.Event()
        self.counters: Counter[str] = Counter()
        self.failing_since: datetime | None = None
        """Since when MongoDB has not taken events; None while it does."""

    def accept_event(self, decoded: Decoded[Event], payload: bytes) -> None:
        """Queue an event. When the queue is full it is dropped and counted: its device has no receipt."""
        full = (
            len(self._waiting) >= self._settings.queue_events
            or self._waiting_bytes + len(payload) > self._settings.queue_bytes
        )
        if full:
            self.counters["dropped_queue_full"] += 1
            return
        self._waiting.append(_Arrival(decoded.message, len(payload), self._now()))
        self._waiting_bytes += len(payload)
        self._wake.set()

    async def ingest_events(self) -> None:
        """Record and answer until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._record(self._gather())

    async def drain(self) -> None:
        """Record all that is waiting, for an orderly stop."""
        while self._waiting:
            await self._record(self._gather())

    def _gather(self) -> list[_Arrival]:
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
        """Record one batch, however long MongoDB is away; meanwhile the queue fills up to its bound."""
        attempt = 0
        while True:
            try:
                receipts = await self._record_once(batch, repeated=attempt > 0)
                break
            except RegistryError as error:
                self._note_failure(error)
                shortest, longest = _RETRY_SECONDS
                await asyncio.sleep(min(longest, shortest * 2**attempt))
                attempt = min(attempt + 1, 10)
        if self.failing_since:
            _log.info("MongoDB takes events again after %s", self._now() - self.failing_since)
            self.failing_since = None
        await asyncio.gather(*(self._send(device_id, receipt) for device_id, receipt in receipts.items()))

    def _note_failure(self, error: Exception) -> None:
        self.counters["registry_failures"] += 1
        if self.failing_since is None:
            self.failing_since = self._now()
            _log.error("MongoDB does not take events, no receipts are sent: %s", type(error).__name__)

    async def _record_once(self, batch: Sequence[_Arrival], repeated: bool) -> dict[str, Receipts]:
        devices = await self._registry.devices.registered(
            sorted({arrival.event.device_id for arrival in batch})
        )
        fit: list[IncomingEvent] = []
        stored: dict[str, list[str]] = defaultdict(list)
        rejected: dict[str, list[Rejection]] = defaultdict(list)
        for arrival in batch:
            device = devices.get(arrival.event.device_id)
            refusal = self._judge(arrival, device)
            if refusal:
                rejected[arrival.event.device_id].append(refusal)
            else:
                fit.append(
                    IncomingEvent(arrival.event, device.site_id if device else None, arrival.received_at)
                )
        recorded = await self._registry.events.record(fit, expect_repeats=repeated)
        for item in fit:
            if item.key in recorded.stored:
                stored[item.event.device_id].append(item.event.event_id)
            else:
                rejected[item.event.device_id].append(recorded.rejected[item.key])
        self.counters["stored"] += len(recorded.stored) - recorded.repeats
        self.counters["repeats"] += recorded.repeats
        self.counters["rejected"] += sum(map(len, rejected.values()))
        return {
            device_id: Receipts(stored=stored[device_id], rejected=rejected[device_id])
            for device_id in {*stored, *rejected}
        }

    def _judge(self, arrival: _Arrival, device: Device | None) -> Rejection | None:
        event = arrival.event
        if device is None and not self._settings.auto_register:
            return Rejection(
                event_id=event.event_id,
                code=DEVICE_UNKNOWN,
                detail=f"{event.device_id} is not registered; register it under /api/v1/devices",
            )
        oldest = arrival.received_at - timedelta(days=self._settings.event_max_age_days)
        if not oldest <= event.timestamp <= arrival.received_at + _FUTURE:
            return Rejection(
                event_id=event.event_id,
                code=EVENT_TIME_IMPLAUSIBLE,
                detail=(
                    f"the event says {format_time(event.timestamp)}, the backend's clock "
                    f"{format_time(arrival.received_at)}: check the device's clock"
                ),
            )
        return None

    async def _send(self, device_id: str, receipts: Receipts) -> None:
        for start in range(0, max(len(receipts.stored), len(receipts.rejected)), _RECEIPTS_AT_ONCE):
            end = start + _RECEIPTS_AT_ONCE
            part = Receipts(stored=receipts.stored[start:end], rejected=receipts.rejected[start:end])
            if not await self._publish(channels.RECEIPT, part, device_id=device_id):
                self.counters["receipts_unsent"] += 1
