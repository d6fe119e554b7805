"""Measure the bare parts: a paho subscriber, an insert, and both together."""

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from bson.binary import Binary
from pymongo import MongoClient

from benchmarks.bare import DURABLE
from deploy.local.fleet import LocalFleet

_BATCH = 1000
_PATIENCE_SECONDS = 120.0

Document = dict[str, Any]


class PahoSubscriber:
    """A bare paho subscriber of all events that hands on each payload.

    It speaks MQTT 5 with QoS 1.
    """

    def __init__(self, fleet: LocalFleet, receive: Callable[[bytes], None]) -> None:
        ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "bench-saturation", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("operator", fleet.broker.users["operator"])
        self._client.on_message = lambda _client, _data, message: receive(message.payload)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect(fleet.broker.host, fleet.broker.port)
        self._client.loop_start()
        self._client.subscribe("wfm/v1/device/+/up/event/#", 1)
        if not ready.wait(10):
            raise TimeoutError("the broker did not answer a subscription")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def receive_seconds(fleet: LocalFleet, count: int, send: Callable[[], object]) -> float:
    """Return the seconds from the first to the last message at a bare paho."""
    times: list[float] = []
    done = threading.Event()

    def note(_payload: bytes) -> None:
        times.append(time.perf_counter())
        if len(times) == count:
            done.set()

    subscriber = PahoSubscriber(fleet, note)
    try:
        send()
        if not done.wait(_PATIENCE_SECONDS):
            raise TimeoutError(f"{len(times)} of {count} messages arrived")
    finally:
        subscriber.close()
    return times[-1] - times[0]


def insert_seconds(fleet: LocalFleet, documents: Sequence[Document]) -> float:
    """Return the seconds of a bare `insert_many`, a thousand documents at once.

    Majority and journaled, without an index.
    """
    client: MongoClient[Document]
    with MongoClient(fleet.mongod.uri) as client:
        events = client["bare"].get_collection("events", write_concern=DURABLE)
        started = time.perf_counter()
        for start in range(0, len(documents), _BATCH):
            events.insert_many(documents[start : start + _BATCH], ordered=False)
        took = time.perf_counter() - started
        client.drop_database("bare")
    return took


def receive_and_insert_seconds(fleet: LocalFleet, count: int, send: Callable[[], object]) -> float:
    """Return the seconds of a bare paho with a bare `insert_many` behind it.

    Both run in one process.
    """
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    subscriber = PahoSubscriber(fleet, waiting.put)
    client: MongoClient[Document]
    sender = threading.Thread(target=send)
    with MongoClient(fleet.mongod.uri) as client:
        events = client["bare"].get_collection("events", write_concern=DURABLE)
        sender.start()
        left, started = count, 0.0
        while left:
            batch = [json.loads(waiting.get(timeout=_PATIENCE_SECONDS))]
            started = started or time.perf_counter()
            while len(batch) < _BATCH and not waiting.empty():
                batch.append(json.loads(waiting.get()))
            events.insert_many(batch, ordered=False)
            left -= len(batch)
        took = time.perf_counter() - started
        client.drop_database("bare")
    sender.join()
    subscriber.close()
    return took


def documents_like(fleet: LocalFleet, count: int, image_bytes: int) -> list[Document]:
    """Return new documents of the form of recorded events, with their images inside."""
    client: MongoClient[Document]
    with MongoClient(fleet.mongod.uri) as client:
        one = client[fleet.database].events.find_one({})
    if one is None:
        raise RuntimeError("no event was recorded")
    picture: Document = {"jpeg": Binary(b"\xff\xd8" + bytes(image_bytes))} if image_bytes else {}
    return [one | picture | {"_id": f"{one['_id']}-{number}"} for number in range(count)]
