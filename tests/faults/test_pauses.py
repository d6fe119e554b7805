"""Programs that pause while MongoDB has no primary are at work again afterwards."""

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest

from broker_bridge.contract.wire import format_time
from tests.faults.scene import DEVICES, Scene

AT_WORK_SECONDS = 10.0
END_SECONDS = 10.0
# The driver checks its servers twice a second, and a lease is renewed about as often.
BETWEEN_PAUSES = 1.5
DEVICE = DEVICES[0]


@pytest.mark.parametrize(
    "pauses",
    [
        pytest.param((1.2, 2.0, 4.0, 10.0), id="all"),
        *(pytest.param((pause,), marks=pytest.mark.long) for pause in (1.2, 2.0, 4.0, 10.0)),
    ],
)
def test_programs_that_pause_without_a_primary_work_again(scene: Scene, pauses: Sequence[float]) -> None:
    """Bridge and API store an event and an identity within 10 s, and end at SIGTERM.

    Cancelled calls of the driver once left the lock of its topology taken for ever.
    """
    fleet = scene.fleet
    programs = (fleet.bridge, fleet.api)
    with event_sender(scene) as sender:
        sender.receive(1, AT_WORK_SECONDS)
        fleet.mongod.kill()
        with requests_in_flight(scene):
            for pause in pauses:
                threading.Event().wait(BETWEEN_PAUSES)
                for program in programs:
                    program.freeze()
                threading.Event().wait(pause)
                for program in programs:
                    program.thaw()
            threading.Event().wait(BETWEEN_PAUSES)
        assert fleet.http.get("/healthz").status_code == 200
        assert fleet.http.get("/readyz").status_code == 503
        fleet.mongod.start()
        back = time.monotonic()
        sender.receive(2, AT_WORK_SECONDS)
        write_identity(scene, back + AT_WORK_SECONDS)
    for program in programs:
        assert program.stop(END_SECONDS) == 0, program.output()
        assert "Traceback" not in program.output()
        assert "never retrieved" not in program.output()


def test_programs_end_while_mongodb_is_away(scene: Scene) -> None:
    """SIGTERM ends bridge and API with status 0 although their calls still wait."""
    fleet = scene.fleet
    fleet.mongod.kill()
    with requests_in_flight(scene):
        for program in (fleet.bridge, fleet.api):
            assert program.stop(END_SECONDS) == 0, program.output()
            assert "Traceback" not in program.output()


class EventSender:
    """A device that sends an event again until it has a receipt."""

    def __init__(self, client: mqtt.Client, receipts: "queue.Queue[dict[str, Any]]") -> None:
        self._client = client
        self._receipts = receipts

    def receive(self, number: int, seconds: float) -> None:
        """Send event `number` until a receipt names it; fail after `seconds`."""
        event_id = f"EV1-{int(time.time() * 1000)}-{number:06x}"
        event = {
            "event_id": event_id,
            "device_id": DEVICE,
            "user_id": "EMP-1",
            "event_type": "facial_id",
            "timestamp": format_time(datetime.now(timezone.utc)),
            "confidence": 0.92,
            "metadata": {"distance": 0.28},
        }
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._client.publish(f"wfm/v1/device/{DEVICE}/up/event/facial_id", json.dumps(event), 1)
            try:
                receipt = self._receipts.get(timeout=1.0)
            except queue.Empty:
                continue
            if event_id in receipt.get("stored", []):
                return
            assert not receipt.get("rejected"), receipt
        pytest.fail(f"no receipt within {seconds:g} s")


@contextmanager
def event_sender(scene: Scene) -> Iterator[EventSender]:
    """Connect as the device and follow its receipts."""
    receipts: queue.Queue[dict[str, Any]] = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=DEVICE, protocol=mqtt.MQTTv5)
    client.username_pw_set(DEVICE, scene.fleet.broker.users[DEVICE])
    client.on_connect = lambda *_: client.subscribe(f"wfm/v1/device/{DEVICE}/down/event/receipt", 1)
    client.on_message = lambda _c, _u, message: receipts.put(json.loads(message.payload))
    client.connect(scene.fleet.broker.host, scene.fleet.broker.port)
    client.loop_start()
    try:
        yield EventSender(client, receipts)
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def requests_in_flight(scene: Scene) -> Iterator[None]:
    """Keep requests of every kind waiting at the API: reads, writes and checks."""
    ended = threading.Event()
    paths = ("/readyz", "/api/v1/devices", "/api/v1/events/stream", "/api/v1/identities")

    def ask(path: str) -> None:
        with httpx.Client(base_url=scene.fleet.url, headers=scene.fleet.http.headers, timeout=1.3) as client:
            while not ended.is_set():
                try:
                    client.get(path)
                except httpx.TransportError:
                    # Given up by the client, which is what the program has to stand.
                    ended.wait(0.05)

    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def write_identity(scene: Scene, deadline: float) -> None:
    """Enroll an identity over REST; fail unless that succeeds by `deadline`."""
    body = {"name": "Asha", "modality": "face", "embedding": [1.0, *[0.0] * 511], "source_node": "pauses"}
    status = None
    while time.monotonic() < deadline:
        try:
            status = scene.fleet.http.post("/api/v1/identity/", json=body, timeout=5).status_code
        except httpx.TransportError:
            continue
        if status < 300:
            return
        threading.Event().wait(0.2)
    pytest.fail(f"no identity could be written in time; the last status was {status}")
