"""Virtual devices without cameras, made of the real outbox, client and sync manager."""

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timezone
from pathlib import Path
from typing import BinaryIO

from apscheduler.schedulers.background import BackgroundScheduler

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.ids import new_event_id
from broker_bridge.contract.messages import Event, SpaceInfo

from .client.assembly import Assembly, assemble, software_version
from .management.heartbeat import HeartbeatSender
from .mqtt.config import IoTClientConfig


@dataclass(frozen=True)
class SimulatorOptions:
    """`rate` events a second and `count` events over all devices together; a `count` of 0 never ends."""

    devices: int
    prefix: str
    site: str
    rate: float
    count: int
    data_dir: Path
    image_kb: int
    space: str
    dimension: int
    ledger: Path | None
    settle_seconds: float
    heartbeat_seconds: float


@dataclass(frozen=True)
class SimulatorSummary:
    """What became of the events of this run and of those that an earlier one left behind."""

    events: int
    stored: int
    rejected: int
    pending: int
    seconds: float

    def to_json(self) -> str:
        return json.dumps(self.__dict__)


class Simulator:
    """Devices `<prefix>-001` and on; `run` emits pretended recognitions in turn until `request_stop`."""

    def __init__(self, mqtt: MqttSettings, options: SimulatorOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._scheduler = BackgroundScheduler(timezone=timezone.utc, daemon=True)
        self._random = random.Random()  # noqa: S311  # pretended confidences
        self.devices = [self._device(mqtt, number) for number in range(1, options.devices + 1)]

    def _device(self, mqtt: MqttSettings, number: int) -> Assembly:
        options = self._options
        device_id = f"{options.prefix}-{number:03}"
        if mqtt.username is None and mqtt.password is not None:
            mqtt = mqtt.model_copy(update={"username": device_id})
        config = IoTClientConfig(
            device_id=device_id,
            site_id=options.site,
            mqtt=mqtt,
            spaces={options.space: SpaceInfo(dimension=options.dimension)},
            software=f"{software_version()} simulator",
        )
        folder = options.data_dir / device_id
        parts = assemble(config, folder / "device.db", self._scheduler)
        heartbeat = HeartbeatSender(
            parts.client, parts.sync, folder=folder, clock=time.monotonic, utc_now=utc_now
        )
        parts.client.attach(heartbeat)
        self._scheduler.add_job(
            heartbeat.send,
            "interval",
            seconds=options.heartbeat_seconds,
            coalesce=True,
            misfire_grace_time=None,
        )
        return parts

    def request_stop(self) -> None:
        """End `run` soon; for any thread, not for a signal handler itself."""
        self._stop.set()

    def run(self) -> SimulatorSummary:
        """Emit, wait for receipts, stop. What has no receipt by then stays in the outboxes."""
        began = time.monotonic()
        for parts in self.devices:
            parts.client.start()
            parts.sync.start_periodic_sync()
        self._scheduler.start()
        try:
            events = self._emit_all(began)
            self._settle()
        finally:
            self._scheduler.shutdown(wait=False)
            _stop_together(self.devices)
        counts = [parts.client.delivery.counts for parts in self.devices]
        summary = SimulatorSummary(
            events=events,
            stored=sum(one["stored"] for one in counts),
            rejected=sum(one["rejected"] for one in counts),
            pending=sum(parts.outbox.depth for parts in self.devices),
            seconds=round(time.monotonic() - began, 3),
        )
        for parts in self.devices:
            parts.db.close()
        return summary

    def _emit_all(self, began: float) -> int:
        options = self._options
        emitted = 0
        ledger = options.ledger.open("ab") if options.ledger else None
        try:
            while not self._stop.is_set() and (options.count == 0 or emitted < options.count):
                event_id = self._emit(self.devices[emitted % len(self.devices)], emitted)
                if ledger:
                    _write_down(ledger, event_id)
                emitted += 1
                if options.rate > 0:
                    self._stop.wait(max(0.0, began + emitted / options.rate - time.monotonic()))
        finally:
            if ledger:
                ledger.close()
        return emitted

    def _emit(self, parts: Assembly, number: int) -> str:
        now = utc_now()
        distance = round(self._random.uniform(0.1, 0.3), 3)
        event = Event(
            event_id=new_event_id("EV1", int(now.timestamp() * 1000)),
            device_id=parts.client.config.device_id,
            user_id=f"EMP-{10001 + number % 500}",
            event_type="facial_id",
            timestamp=now,
            confidence=round(1 - distance, 3),
            metadata={"distance": distance, "frames_tracked": 5, "track_id": f"face_{number}", "seq": number},
        )
        parts.client.send_event(event, self._image())
        return event.event_id

    def _image(self) -> bytes | None:
        size = self._options.image_kb * 1000
        return b"\xff\xd8" + self._random.randbytes(size - 4) + b"\xff\xd9" if size else None

    def _settle(self) -> None:
        deadline = time.monotonic() + self._options.settle_seconds
        while time.monotonic() < deadline and any(parts.outbox.depth for parts in self.devices):
            if self._stop.wait(0.05):
                return


def _write_down(ledger: BinaryIO, event_id: str) -> None:
    """On disk when it returns: what stands in the ledger was in the outbox before."""
    ledger.write(event_id.encode() + b"\n")
    ledger.flush()
    os.fsync(ledger.fileno())


def _stop_together(devices: Sequence[Assembly]) -> None:
    threads = [threading.Thread(target=parts.client.stop) for parts in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
