"""Virtual devices without cameras, on the real outbox, client and sync manager."""

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.ids import new_event_id
from broker_bridge.contract.messages import Event, SpaceInfo

from .client.assembly import Assembly, assemble, software_version
from .management.heartbeat import HeartbeatSender
from .mqtt.config import IoTClientConfig


@dataclass(frozen=True)
class SimulatorOptions:
    """The options of a simulation.

    `rate` is events a second and `count` the number of events, over all devices; a `count` of 0 never ends.
    """

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
    """The outcome of the events of this run.

    It includes events that an earlier run left in the outboxes.
    """

    events: int
    stored: int
    rejected: int
    pending: int
    seconds: float

    def to_json(self) -> str:
        return json.dumps(self.__dict__)


class Simulator:
    """Devices `<prefix>-001` and on, which emit simulated recognitions in turn."""

    def __init__(self, mqtt: MqttSettings, options: SimulatorOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._random = random.Random()  # noqa: S311  # simulated confidences
        self.devices = [self._build_device(mqtt, number) for number in range(1, options.devices + 1)]

    def _build_device(self, mqtt: MqttSettings, number: int) -> Assembly:
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
        parts = assemble(config, folder / "device.db")
        heartbeat = HeartbeatSender(
            parts.client,
            parts.sync,
            folder=folder,
            interval=options.heartbeat_seconds,
            clock=time.monotonic,
            utc_now=utc_now,
        )
        parts.client.attach(heartbeat)
        return parts

    def request_stop(self) -> None:
        """End `run` soon; for any thread, but not for a signal handler."""
        self._stop.set()

    def run(self) -> SimulatorSummary:
        """Emit events, wait for receipts, stop.

        Events without a receipt stay in the outboxes.
        """
        started = time.monotonic()
        for parts in self.devices:
            parts.client.start()
            parts.sync.start_periodic_sync()
        try:
            events = self._emit_events(started)
            self._wait_for_receipts()
        finally:
            _stop_clients(self.devices)
        counts = [parts.client.delivery.counts for parts in self.devices]
        summary = SimulatorSummary(
            events=events,
            stored=sum(count["stored"] for count in counts),
            rejected=sum(count["rejected"] for count in counts),
            pending=sum(parts.outbox.depth for parts in self.devices),
            seconds=round(time.monotonic() - started, 3),
        )
        for parts in self.devices:
            parts.db.close()
        return summary

    def _emit_events(self, started: float) -> int:
        options = self._options
        emitted = 0
        ledger = options.ledger.open("ab") if options.ledger else None
        try:
            while not self._stop.is_set() and (options.count == 0 or emitted < options.count):
                event_id = self._emit_event(self.devices[emitted % len(self.devices)], emitted)
                if ledger:
                    _append_to_ledger(ledger, event_id)
                emitted += 1
                if options.rate > 0:
                    self._stop.wait(max(0.0, started + emitted / options.rate - time.monotonic()))
        finally:
            if ledger:
                ledger.close()
        return emitted

    def _emit_event(self, parts: Assembly, number: int) -> str:
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

    def _wait_for_receipts(self) -> None:
        deadline = time.monotonic() + self._options.settle_seconds
        while time.monotonic() < deadline and any(parts.outbox.depth for parts in self.devices):
            if self._stop.wait(0.05):
                return


def _append_to_ledger(ledger: BinaryIO, event_id: str) -> None:
    """Append `event_id` to the file on disk, after the outbox has the event."""
    ledger.write(event_id.encode() + b"\n")
    ledger.flush()
    os.fsync(ledger.fileno())


def _stop_clients(devices: Sequence[Assembly]) -> None:
    threads = [threading.Thread(target=parts.client.stop) for parts in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
