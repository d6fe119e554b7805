"""The decisions of the broker connection, with a scripted connection and clock."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from broker_bridge.common.retry import Backoff
from broker_bridge.contract import channels
from broker_bridge.contract.channels import decode
from broker_bridge.contract.messages import DeviceStatus, Receipts, SpaceInfo
from device.events.delivery import EventDelivery
from device.mqtt.config import IoTClientConfig
from device.mqtt.connection import ConnectionEvent
from device.mqtt.connection_loop import BrokerSession
from device.mqtt.link import SessionListener
from device.store.connection import StoreError
from device.store.db_manager import DatabaseManager
from device.store.outbox import Outbox
from tests.device_samples import DIMENSION, SPACE, Clock, event, seeded


class ScriptedPublish:
    def __init__(self) -> None:
        self.out = False

    def is_out(self) -> bool:
        return self.out

    def wait(self, seconds: float) -> None:
        self.out = True


class FakeConnection:
    """A connection that records its calls; the test reports its events."""

    def __init__(
        self, session: str, will: bytes, report: Callable[[ConnectionEvent], None], reachable: bool
    ) -> None:
        self.session = session
        self.will = will
        self.closed = False
        self.filters: list[str] = []
        self.sent: list[tuple[str, Any]] = []
        self.publishes: list[ScriptedPublish] = []
        self._report = report
        self._reachable = reachable

    def open(self) -> None:
        if not self._reachable:
            raise ConnectionRefusedError("connection refused")

    def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        self.filters += [name for name, _ in filters]

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> ScriptedPublish:
        self.sent.append((topic.rpartition("/up/")[2], decode(topic, payload).message))
        self.publishes.append(ScriptedPublish())
        return self.publishes[-1]

    def close(self) -> None:
        self.closed = True

    def happens(self, kind: Any, **details: Any) -> None:
        self._report(ConnectionEvent(self, kind, **details))


class Stage:
    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.connections: list[FakeConnection] = []
        self.reachable = True
        db = DatabaseManager(path)
        db.initialize()
        self.outbox = Outbox(db.connection, utc_now=self.clock.utc_now, source=seeded())
        config = IoTClientConfig(
            "cam-001", site_id="lobby", spaces={SPACE: SpaceInfo(dimension=DIMENSION)}, drain_seconds=3.0
        )
        self.broker = BrokerSession(
            config,
            db,
            self._open,
            is_drained=lambda: self.outbox.depth == 0,
            source=seeded(),
            clock=self.clock,
            utc_now=self.clock.utc_now,
        )
        self.delivery = EventDelivery(self.outbox, self.broker)
        self.broker.attach(self.delivery)

    def _open(self, session: str, will: bytes, report: Callable[[ConnectionEvent], None]) -> FakeConnection:
        self.connections.append(FakeConnection(session, will, report, self.reachable))
        return self.connections[-1]

    @property
    def connection(self) -> FakeConnection:
        return self.connections[-1]

    def step(self, times: int = 2) -> None:
        """Let the connection loop handle its queue and its due actions, without waiting."""
        for _ in range(times):
            self.broker.submit(lambda: None)
            self.broker._step()

    def connect(self) -> None:
        self.step(1)
        self.connection.happens("connected")
        self.step()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "device.db")


def test_the_device_subscribes_before_it_publishes_its_status(stage: Stage) -> None:
    """An answer to the status cannot be missed."""
    stage.connect()
    assert stage.connection.filters == [
        "wfm/v1/device/cam-001/down/event/receipt",
        "wfm/v1/device/cam-001/down/enrollment/page",
        "wfm/v1/site/lobby/enrollment/head",
        "wfm/v1/site/lobby/enrollment/delta",
        "wfm/v1/device/cam-001/down/enrollment/registered",
        "wfm/v1/device/cam-001/up/info",
        "wfm/v1/device/cam-001/down/command/+",
        "wfm/v1/device/cam-001/down/observation/assigned",
    ]
    assert [topic for topic, _ in stage.connection.sent] == ["status", "info"]


def test_the_last_will_has_the_session_of_its_connection(stage: Stage) -> None:
    """Every connection has a higher session than the one before."""
    stage.connect()
    stage.connection.happens("lost", reason="Keep alive timeout")
    stage.step()
    stage.clock.advance(5.0)
    stage.step()
    wills = [DeviceStatus.model_validate_json(connection.will) for connection in stage.connections]
    assert [will.state for will in wills] == ["lost", "lost"]
    assert [will.session for will in wills] == [connection.session for connection in stage.connections]
    assert int(wills[1].session, 16) > int(wills[0].session, 16)


def test_the_pauses_before_an_unreachable_broker_grow(stage: Stage) -> None:
    """A pause lasts between one second and one minute."""
    stage.reachable = False
    for _ in range(3600):
        stage.step(1)
        stage.clock.advance(1.0)
    assert 60 <= len(stage.connections) <= 300


def test_two_devices_with_one_id_reconnect_with_growing_pauses(stage: Stage) -> None:
    """A connection that is lost at once counts as a failure."""
    for _ in range(600):
        stage.step(1)
        if not stage.connection.closed and not stage.broker.is_up:
            stage.connection.happens("connected")
            stage.connection.happens("lost", reason="Session taken over")
        stage.clock.advance(0.1)
    assert len(stage.connections) <= 15


def test_a_broker_that_never_answers_connect_is_left(stage: Stage) -> None:
    """The next attempt starts after ten seconds."""
    stage.step(1)
    stage.clock.advance(10.0)
    stage.step()
    assert stage.connection.closed
    stage.clock.advance(2.0)
    stage.step()
    assert len(stage.connections) == 2


def test_events_of_an_older_connection_are_ignored(stage: Stage) -> None:
    """A late `lost` does not end the current connection."""
    stage.connect()
    old = stage.connection
    old.happens("lost")
    stage.step()
    stage.clock.advance(5.0)
    stage.connect()
    old.happens("lost")
    stage.step()
    assert stage.broker.is_up


def test_an_event_with_an_unsent_copy_is_not_sent_again(stage: Stage) -> None:
    """A slow connection gets no second copy of an event; a new connection does."""
    stage.connect()
    stage.outbox.put(event(1))
    stage.step()
    stage.clock.advance(60.0)
    stage.step()
    assert sum(topic.startswith("event/") for topic, _ in stage.connection.sent) == 1
    for publish in stage.connection.publishes:
        publish.out = True
    stage.clock.advance(60.0)
    stage.step()
    assert sum(topic.startswith("event/") for topic, _ in stage.connection.sent) == 2


def test_stopping_waits_a_limited_time_for_receipts(stage: Stage) -> None:
    """Events without a receipt stay on disk; the last message is the status `stopped`."""
    stage.connect()
    stage.outbox.put(event(1))
    stage.outbox.put(event(2))
    stage.step()
    stage.broker._begin_stop()
    receipt = Receipts(stored=[event(1).event_id])
    topic = channels.RECEIPT.topic(device_id="cam-001")
    stage.connection.happens("message", topic=topic, payload=receipt.to_json())
    stage.step()
    assert not stage.connection.closed
    stage.clock.advance(3.0)
    stage.step(1)
    assert stage.connection.closed
    assert stage.connection.sent[-1][1].state == "stopped"
    assert stage.outbox.depth == 1


def test_backoff_stays_within_its_bounds() -> None:
    """The bounds hold for more attempts than a float can double."""
    backoff = Backoff(1.0, 60.0)
    delays = [backoff.delay(attempt, random.Random(attempt)) for attempt in range(1, 3000)]
    assert all(1.0 <= delay <= 60.0 for delay in delays)
    assert delays[0] <= 2.0


class RecordingListener(SessionListener):
    """A listener that records every call and raises `fault`."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.calls: list[str] = []

    def record(self, call: str) -> None:
        self.calls.append(call)
        if self.fault is not None:
            raise self.fault

    def connected(self, now: float) -> None:
        self.record("connected")

    def disconnected(self) -> None:
        self.record("disconnected")

    def receive_message(self, decoded: Any) -> None:
        self.record("received")

    def tick(self, now: float) -> None:
        self.record("tick")


@pytest.mark.parametrize("fault", [StoreError("device.db: disk is full"), KeyError("?")])
def test_a_failing_listener_does_not_stop_the_others(
    stage: Stage, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk must not hide a model difference or a command from other listeners."""
    broken, sound = RecordingListener(fault), RecordingListener()
    stage.broker.attach(broken)
    stage.broker.attach(sound)
    stage.connect()
    payload = Receipts(stored=["EV1-1736942400000-a1b2c3"]).to_json()
    stage.connection.happens("message", topic="wfm/v1/device/cam-001/down/event/receipt", payload=payload)
    stage.step()
    stage.connection.happens("lost", reason="pulled")
    stage.step()
    assert [call for call in sound.calls if call != "tick"] == ["connected", "received", "disconnected"]
    assert stage.broker.counts["errors"] == len(broken.calls)
    assert "RecordingListener" in caplog.text
    # An error that an operator can mend is one sentence.
    assert ("Traceback" in caplog.text) == isinstance(fault, KeyError)


def test_a_failing_listener_is_called_again_after_a_pause(stage: Stage) -> None:
    """The others keep their times."""
    broken, sound = RecordingListener(StoreError("device.db: disk is full")), RecordingListener()
    stage.broker.attach(broken)
    stage.broker.attach(sound)
    stage.step(20)
    stage.clock.advance(2.0)
    stage.step(20)
    assert (len(broken.calls), sound.calls) == (2, ["tick"] * 40)
