"""The same machine's floor: bare paho and bare inserts, with the same payload at the same rate."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

from deploy.local.stack import Mongod, Mosquitto

DURABLE = WriteConcern(w="majority", j=True)


def paced(count: int, rate: float) -> Iterator[int]:
    """0 to `count` - 1, one every 1/`rate` seconds by the clock, not by sleeping that long each time."""
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


def payload(number: int) -> dict[str, Any]:
    """An event like those that the simulator sends."""
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
    """Seconds from paho's publish to paho's on_message, QoS 1, through the same broker."""
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
    """Seconds that a bare `insert_many` of what arrives in between takes, majority and journaled."""
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
