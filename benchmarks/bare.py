"""Measure the machine's floor: bare paho and bare inserts of the same payload."""

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from deploy.local.stack import Mongod, Mosquitto
from device.store.connection import StoreConnection

DURABLE = WriteConcern(w="majority", j=True)
DIMENSION = 512
_INSERT = """
    INSERT INTO enrolled_users (user_id, model, embedding, embedding_dim, sync_version, synced_at, created_at,
                                template_id, space, quality)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def paced(count: int, rate: float) -> Iterator[int]:
    """Yield 0 to `count` - 1, one every 1/`rate` seconds by the clock."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


def payload(number: int) -> dict[str, Any]:
    """Return an event like those of the simulator."""
    return {
        "event_id": f"EV1-{int(time.time() * 1000)}-{number:012x}",
        "device_id": "bare-001",
        "user_id": f"EMP-{10001 + number % 500}",
        "event_type": "facial_id",
        "timestamp": "2026-01-15T10:00:00.000Z",
        "confidence": 0.92,
        "metadata": {"distance": 0.28, "frames_tracked": 5, "track_id": f"face_{number}", "seq": number},
    }


def mqtt_latencies(broker: Mosquitto, count: int, rate: float) -> list[float]:
    """Return the seconds from paho's publish to its on_message, QoS 1."""
    sent: dict[int, float] = {}
    took: list[float] = []
    done = threading.Event()

    def receive(_client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        took.append(time.perf_counter() - sent[json.loads(message.payload)["metadata"]["seq"]])
        if len(took) == count:
            done.set()

    ready = threading.Event()
    subscriber, publisher = _client(broker, "operator"), _client(broker, "bare-001")
    subscriber.on_message = receive
    subscriber.on_subscribe = lambda *_: ready.set()
    for client in (subscriber, publisher):
        client.connect(broker.host, broker.port)
        client.loop_start()
    subscriber.subscribe("wfm/v1/device/+/up/event/#", 1)
    ready.wait(10)
    for number in paced(count, rate):
        body = json.dumps(payload(number))
        sent[number] = time.perf_counter()
        publisher.publish("wfm/v1/device/bare-001/up/event/facial_id", body, 1)
    done.wait(30)
    for client in (subscriber, publisher):
        client.disconnect()
        client.loop_stop()
    return took


def insert_latencies(mongod: Mongod, count: int, rate: float) -> list[float]:
    """Return the seconds of bare `insert_many` calls, majority and journaled."""
    client: MongoClient[dict[str, Any]]
    took = []
    with MongoClient(mongod.uri) as client:
        events = client["bare"].get_collection("events", write_concern=DURABLE)
        for number in paced(count, rate):
            document = payload(number)
            started = time.perf_counter()
            events.insert_many([document], ordered=False)
            took.append(time.perf_counter() - started)
        client.drop_database("bare")
    return took


def _client(broker: Mosquitto, user: str) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"bench-{user}", protocol=mqtt.MQTTv5)
    client.username_pw_set(user, broker.users[user])
    return client


def copy_seconds(broker: Mosquitto, device: str, payloads: Sequence[bytes]) -> float:
    """Return the seconds that a bare paho takes to copy `payloads`, QoS 1.

    They run from the first publish of one client to the last message at another.
    """
    arrived = 0
    done, ready = threading.Event(), threading.Event()

    def receive(_client: object, _userdata: object, _message: mqtt.MQTTMessage) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == len(payloads):
            done.set()

    topic = f"wfm/v1/device/{device}/down/enrollment/page"
    publisher, subscriber = _client(broker, "bridge"), _client(broker, device)
    subscriber.on_message = receive
    subscriber.on_subscribe = lambda *_: ready.set()
    for client in (publisher, subscriber):
        client.connect(broker.host, broker.port)
        client.loop_start()
    subscriber.subscribe(topic, 1)
    if not ready.wait(10):
        raise TimeoutError("the broker did not answer a subscription")
    started = time.perf_counter()
    for payload_ in payloads:
        publisher.publish(topic, payload_, 1)
    if not done.wait(60):
        raise TimeoutError(f"{arrived} of {len(payloads)} messages arrived")
    took = time.perf_counter() - started
    for client in (publisher, subscriber):
        client.disconnect()
        client.loop_stop()
    return took


def executemany_seconds(file: Path, pages: Sequence[bytes]) -> float:
    """Return the seconds that sqlite3 takes to insert the rows of `pages`.

    Table, schema and pragmas are a camera's, with a transaction per page; reading the pages is not
    counted.
    """
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink()
    batches = [_rows(page) for page in pages]
    store = StoreConnection(file)
    store.open()
    try:
        with store.reading() as connection:
            started = time.perf_counter()
            for batch in batches:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, batch)
                connection.execute("COMMIT")
            return time.perf_counter() - started
    finally:
        store.close()


def _rows(page: bytes) -> list[tuple[object, ...]]:
    return [
        (
            person["user_id"], "resnet29-512", base64.b64decode(template["vector"]), DIMENSION,
            person["version"], "2026-01-15T10:00:00.000Z", "2026-01-15T10:00:00.000Z",
            template["template_id"], template["space"], template["quality"],
        )
        for person in json.loads(page)["upserts"]
        for template in person["templates"]
    ]  # fmt: skip
