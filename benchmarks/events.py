"""Measure from a camera's validated recognition to MongoDB, at 50 events a second."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from rich.progress import Progress

from deploy.local.fleet import LocalFleet

from . import bare
from .scale import Scale
from .stats import Latency, Row

RATE = 50.0
LIMIT_MS = 250.0
_STARTING = 100
DEVICES = tuple(f"{letter}-001" for letter in "abcde")


def measure(fleet: LocalFleet, folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Measure five simulated cameras with 10 events a second each.

    Cameras, bare MQTT and bare inserts take turns.
    """
    count = int(RATE * scale.seconds / scale.turns)
    task = progress.add_task("events to MongoDB", total=scale.turns * 3)
    seconds: tuple[list[float], list[float], list[float]] = ([], [], [])
    for turn in range(scale.turns):
        seconds[0].extend(_ours(fleet, folder / f"turn-{turn}", count))
        progress.advance(task)
        seconds[1].extend(bare.mqtt_latencies(fleet.broker, count, RATE))
        progress.advance(task)
        seconds[2].extend(bare.insert_latencies(fleet.mongod, count, RATE))
        progress.advance(task)
    ours, wire, insert = (Latency.from_seconds(each) for each in seconds)
    both = Latency(ours.count, wire.p50 + insert.p50, wire.p99 + insert.p99, wire.worst + insert.worst)
    return [
        Row("event: camera to MongoDB", ours, LIMIT_MS, both),
        Row("  bare paho, publisher to subscriber", wire),
        Row("  bare insert_many, majority and journal", insert),
    ]


def _ours(fleet: LocalFleet, folder: Path, count: int) -> list[float]:
    """Return the seconds from an event's timestamp until MongoDB has it.

    Events before them are left out: the cameras still start.
    """
    starting = min(count, _STARTING)
    count += starting
    with _watched(fleet, count) as took:
        cameras = [
            fleet.make_simulator(device, folder, count=count // len(DEVICES), rate=RATE / len(DEVICES))
            for device in DEVICES
        ]
        for camera in cameras:
            camera.start()
        for camera in cameras:
            if camera.wait(count / RATE + 60) != 0:
                raise camera.failure(f"{camera.name} did not get a receipt for every event")
    return took[starting:]


@contextmanager
def _watched(fleet: LocalFleet, count: int) -> Iterator[list[float]]:
    client: MongoClient[dict[str, Any]] = MongoClient(fleet.mongod.uri, tz_aware=True)
    took: list[float] = []
    stream = client[fleet.database].events.watch([{"$match": {"operationType": "insert"}}])

    def follow() -> None:
        took.extend(_age(change["fullDocument"]["timestamp"]) for change in itertools.islice(stream, count))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    yield took
    follower.join(30)
    stream.close()
    client.close()


def _age(at: datetime) -> float:
    return (datetime.now(timezone.utc) - at).total_seconds()
