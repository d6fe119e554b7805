"""Traffic of the tests that stop servers: events, requests, enrollments."""

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest

from broker_bridge.contract.wire import format_time
from tests.faults.scene import DEVICES, Scene

DEVICE = DEVICES[0]


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


def write_identity(scene: Scene, seconds: float) -> None:
    """Enroll an identity over REST, again after an error; fail after `seconds`."""
    body = {"name": "Asha", "modality": "face", "embedding": [1.0, *[0.0] * 511], "source_node": "faults"}
    deadline = time.monotonic() + seconds
    status = None
    while time.monotonic() < deadline:
        try:
            status = scene.fleet.http.post("/api/v1/identity/", json=body, timeout=seconds).status_code
        except httpx.TransportError:
            continue
        if status < httpx.codes.MULTIPLE_CHOICES:
            return
        threading.Event().wait(0.2)
    pytest.fail(f"no identity could be written within {seconds:g} s; the last status was {status}")
