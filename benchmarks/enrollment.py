"""Measure from an enrollment change over REST until a camera confirms it."""

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from pymongo import MongoClient
from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import bare
from .scale import Scale
from .stats import Latency, Row

LIMIT_MS = 500.0
DEVICE = "enrolled-001"


class AppliedTap:
    """An observer of the versions that a camera applies."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._version = -1
        self._news = threading.Condition()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "bench-applied", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("operator", fleet.broker.users["operator"])
        self._client.on_connect = lambda client, *_: client.subscribe(
            f"wfm/v1/device/{DEVICE}/up/enrollment/applied", 1
        )
        self._client.on_message = self._receive
        self._client.connect(fleet.broker.host, fleet.broker.port)
        self._client.loop_start()

    def wait_for(self, version: int, timeout: float = 30.0) -> None:
        with self._news:
            if not self._news.wait_for(lambda: self._version >= version, timeout):
                raise TimeoutError(f"{DEVICE} did not apply version {version} in {timeout:g} s")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _receive(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        with self._news:
            self._version = json.loads(message.payload)["version"]
            self._news.notify_all()


def measure(fleet: LocalFleet, folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Measure `changes` enrollments and deletions over REST, one after the other.

    They take turns with bare transactions and bare MQTT.
    """
    changes = scale.changes
    task = progress.add_task("enrollment to applied", total=changes)
    tap = AppliedTap(fleet)
    people = _fill(fleet, min(1000, scale.identities))
    camera = fleet.make_simulator(DEVICE, folder, count=0, rate=0.001)
    camera.start()
    tap.wait_for(people)
    took: list[float] = []
    floor: list[float] = []
    hops: list[float] = []
    for turn in range(scale.turns):
        numbers = range(changes * turn // scale.turns, changes * (turn + 1) // scale.turns)
        took += [_change_seconds(fleet, tap, number) for number in numbers]
        floor += _bare_changes(fleet, numbers)
        hops += bare.mqtt_latencies(fleet.broker, len(numbers), 50)
        progress.advance(task, len(numbers))
    tap.close()
    camera.stop()
    wire, transaction = Latency.from_seconds(hops), Latency.from_seconds(floor)
    both = Latency(
        changes,
        transaction.p50 + 2 * wire.p50,
        transaction.p99 + 2 * wire.p99,
        transaction.worst + 2 * wire.worst,
    )
    return [
        Row("enrollment: REST to applied on camera", Latency.from_seconds(took), LIMIT_MS, both),
        Row("  bare transaction, majority and journal", transaction),
    ]


def _change_seconds(fleet: LocalFleet, tap: AppliedTap, number: int) -> float:
    started = time.perf_counter()
    tap.wait_for(_change(fleet, number))
    return time.perf_counter() - started


def _change(fleet: LocalFleet, number: int) -> int:
    user_id = f"EMP-{number % 50}"
    if number % 5 == 4:
        answer = fleet.http.delete(f"/api/v1/identities/EMP-{(number - 1) % 50}")
    else:
        answer = fleet.http.post("/api/v1/identity/", json=_face(user_id))
    answer.raise_for_status()
    version: int = answer.json()["version"]
    return version


def _fill(fleet: LocalFleet, people: int) -> int:
    version = 0
    for number in range(people):
        answer = fleet.http.post("/api/v1/identity/", json=_face(f"CROWD-{number}"))
        answer.raise_for_status()
        version = answer.json()["version"]
    return version


def _face(user_id: str) -> dict[str, Any]:
    values = [random.gauss(0, 1) for _ in range(512)]
    return {"name": user_id, "modality": "face", "embedding": values, "source_node": "bench"}


def _bare_changes(fleet: LocalFleet, numbers: range) -> list[float]:
    client: MongoClient[dict[str, Any]]
    took = []
    with MongoClient(fleet.mongod.uri) as client:
        db = client["bare"]
        for name in ("counter", "people", "templates"):
            db.create_collection(name)
        for number in numbers:
            started = time.perf_counter()
            with client.start_session() as session, session.start_transaction(write_concern=bare.DURABLE):
                db.counter.update_one({"_id": 1}, {"$inc": {"v": 1}}, upsert=True, session=session)
                db.people.replace_one({"_id": number}, {"v": number}, upsert=True, session=session)
                db.templates.insert_one({"user": number, "vector": b"\0" * 2048}, session=session)
            took.append(time.perf_counter() - started)
        client.drop_database("bare")
    return took
