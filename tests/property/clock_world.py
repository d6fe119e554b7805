"""One camera with a clock that jumps, and a backend that knows the time."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from broker_bridge.contract import channels
from broker_bridge.contract.channels import decode
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event, Heartbeat, Receipts, Rejection, SpaceInfo, SyncPage
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.admission import EventAdmission
from device.client.iot_client import IoTClient
from device.management.heartbeat import HeartbeatSender
from device.mqtt.config import IoTClientConfig
from device.mqtt.connection_loop import ConnectionEvent
from device.store.db_manager import DatabaseManager
from device.timing.boot import Boot
from tests.device_samples import DIMENSION, NOON, SPACE, Out, event, seeded

HEARTBEAT_SECONDS = 30.0
SYNC_MINUTES = 15.0
BOOTED = datetime.fromisoformat("1970-01-01T00:00:20+00:00")
_DEVICE = Device("cam-001", "lobby")
_STEP = 5.0
_LATENCY = 0.2


class WaitingOut(Out):
    def wait(self, seconds: float) -> None:
        """Return at once: everything is out."""


class Connection:
    """A connection whose messages the backend takes at once, and answers later."""

    def __init__(self, world: "ClockWorld", report: Callable[[ConnectionEvent], None]) -> None:
        self._world = world
        self._report = report

    def open(self) -> None:
        if not self._world.reachable:
            raise ConnectionRefusedError("connection refused")
        self.happens("connected")

    def happens(self, kind: Any, **details: Any) -> None:
        self._report(ConnectionEvent(self, kind, **details))

    def answer(self, topic: str, message: Any) -> None:
        self.happens("message", topic=f"wfm/v1/device/cam-001/down/{topic}", payload=message.to_json())

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None: ...

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> WaitingOut:
        decoded = decode(topic, payload)
        if decoded.channel in (channels.EVENT, channels.SYNC_REQUEST):
            self._world.in_flight.append((self, decoded))
        elif decoded.channel is channels.HEARTBEAT:
            self._world.heartbeats.append((self._world.boot_seconds(), decoded.message))
        return WaitingOut()

    def close(self) -> None: ...


@dataclass
class ClockWorld:
    """The true time passes in steps; every other clock is derived from it."""

    path: Path
    empty: Path
    seconds: float = 0.0
    offset: timedelta = timedelta(0)
    boot_number: int = 0
    booted_at: float = -100.0
    reachable: bool = True
    answers: bool = True
    happened: dict[str, datetime] = field(default_factory=dict)
    stored: dict[str, Event] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    in_flight: list[tuple[Connection, Any]] = field(default_factory=list)
    heartbeats: list[tuple[float, Heartbeat]] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    boots: dict[str, int] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        shutil.copy(self.empty, self.path)
        self.start_program()

    def now(self) -> datetime:
        """Return the true time, which the backend has."""
        return NOON + timedelta(seconds=self.seconds)

    def wall(self) -> datetime:
        return self.now() + self.offset

    def boot_seconds(self) -> float:
        return self.seconds - self.booted_at

    def start_program(self) -> None:
        self.db = DatabaseManager(self.path, utc_now=self.wall)
        self.db.initialize()
        config = IoTClientConfig("cam-001", site_id="lobby", spaces={SPACE: SpaceInfo(dimension=DIMENSION)})
        self.client = IoTClient(
            config,
            self.db,
            source=seeded(),
            clock=self.boot_seconds,
            utc_now=self.wall,
            boot=Boot(f"boot-{self.boot_number}", self.boot_seconds),
        )
        self.client.broker._open_connection = lambda _session, _will, report: Connection(self, report)
        self.client.attach(
            HeartbeatSender(
                self.client,
                self.client.sync,
                folder=self.path.parent,
                interval=HEARTBEAT_SECONDS,
                clock=self.boot_seconds,
                utc_now=self.wall,
            )
        )
        self.client.sync.start_periodic_sync(SYNC_MINUTES)

    def restart(self) -> None:
        """End the program without a goodbye, and start it again."""
        self.db.close()
        self.in_flight.clear()
        self.heartbeats.clear()
        self.requests.clear()
        self.start_program()

    def reboot(self, wall: datetime | None) -> None:
        """Switch the camera off and on; its clock shows `wall`, or goes on."""
        self.seconds += 40.0
        self.boot_number += 1
        self.booted_at = self.seconds
        self.offset = wall - self.now() if wall else self.offset
        self.restart()

    def recognise(self) -> None:
        number = len(self.happened)
        at = self.wall()
        made = event(number, timestamp=at)
        self.happened[made.event_id] = self.now()
        self.boots[made.event_id] = self.boot_number
        self.client.outbox.put(made)

    @property
    def comparable(self) -> set[str]:
        """The events of boots in which the backend gave its time."""
        return {event_id for event_id, boot in self.boots.items() if boot in self.answered}

    def drop(self) -> None:
        """Lose the connection and everything on it."""
        self.in_flight.clear()
        connection = self.client.broker._connection
        if isinstance(connection, Connection):
            connection.happens("lost", reason="pulled")
        self.step(0.0)

    def wait(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.step(min(_STEP, end - self.seconds))

    def step(self, seconds: float) -> None:
        self.seconds += seconds
        for _ in range(3):
            self._loop()
            if self.in_flight:
                self.seconds += _LATENCY
                self._answer()
        self._loop()

    def _loop(self) -> None:
        self.client.broker.submit(lambda: None)
        self.client.broker._step()

    def _answer(self) -> None:
        in_flight, self.in_flight = self.in_flight, []
        for connection, decoded in in_flight:
            if decoded.channel is channels.EVENT:
                if self.answers:
                    connection.answer("event/receipt", self._receipts(decoded.message))
                continue
            self.requests.append(self.boot_seconds())
            if self.answers:
                request = decoded.message
                page = SyncPage(
                    request_id=request.request_id,
                    epoch="aa",
                    from_version=request.since_version,
                    to_version=request.since_version,
                    head_version=request.since_version,
                    reset=request.epoch != "aa",
                    done=True,
                    at=self.now() - timedelta(seconds=_LATENCY / 2),
                )
                connection.answer("enrollment/page", page)
                self.answered.add(self.boot_number)

    def _receipts(self, received: Event) -> Receipts:
        try:
            EventAdmission().check_event(received, _DEVICE, self.now())
        except ContractError as error:
            self.rejected.append(received.event_id)
            return Receipts(
                rejected=[Rejection(event_id=received.event_id, code=error.code, detail=error.detail)]
            )
        self.stored.setdefault(received.event_id, received)
        return Receipts(stored=[received.event_id])
