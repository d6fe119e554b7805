"""Measure a new camera's first sync beside a bare copy of the same bytes."""

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
from pydantic import SecretStr
from rich.progress import Progress

from broker_bridge.contract.embeddings import normalise
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.registry.mongo.client import MongoSettings
from deploy.local.fleet import LocalFleet
from deploy.local.stack import Program

from . import bare
from .scale import Scale
from .stats import Latency, Row

DEVICE = "cold-001"
SPACE = "face:resnet29-512"
DIMENSION = 512
MOST_TIMES_BARE = 1.5
MOST_GROWTH_MB = 300.0
_ENROLLED_AT_ONCE = 1000


@dataclass(frozen=True)
class ColdSync:
    """One camera's first sync.

    `seconds` run from its `online` to its `applied`; memory grows by so many MB.
    """

    seconds: float
    device_mb: float
    pages: Sequence[bytes]


class Observer:
    """An observer at the broker of a camera's status, applied versions and pages."""

    def __init__(self, fleet: LocalFleet, *, keep_pages: bool) -> None:
        self.pages: list[bytes] = []
        self.online_at: float | None = None
        self.applied_at: float | None = None
        self.online = threading.Event()
        self.applied = threading.Event()
        self._version = -1
        ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "bench-cold", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("operator", fleet.broker.users["operator"])
        self._client.on_message = self._receive
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect(fleet.broker.host, fleet.broker.port)
        self._client.loop_start()
        topics = ["up/status", "up/enrollment/applied", *(["down/enrollment/page"] if keep_pages else [])]
        self._client.subscribe([(f"wfm/v1/device/{DEVICE}/{topic}", 1) for topic in topics])
        if not ready.wait(10):
            raise TimeoutError("the broker did not answer a subscription")

    def expect(self, version: int) -> None:
        self._version = version

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _receive(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        now = time.perf_counter()
        if message.topic.endswith("/page"):
            self.pages.append(message.payload)
        elif message.topic.endswith("/status"):
            if not message.retain and json.loads(message.payload)["state"] == "online":
                self.online_at = now
                self.online.set()
        elif not message.retain and json.loads(message.payload)["version"] >= self._version:
            self.applied_at = now
            self.applied.set()


def measure(folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Measure `runs` cold syncs of `identities`.

    One of `largest_gallery` follows for its memory.
    """
    runs, count, largest = scale.runs, scale.identities, scale.largest_gallery
    with LocalFleet(folder, [DEVICE]) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        idle = resident_mb(fleet.bridge)
        task = progress.add_task("cold sync", total=runs + (4 if largest else 1))
        version = fill(fleet, 0, count)
        pages = cold_sync(fleet, folder, version, keep_pages=True).pages
        progress.advance(task)
        ours, wire, disk = [], [], []
        for number in range(runs):
            # Every change clears the bridge's page cache.
            version = fill(fleet, count + number, count + number + 1)
            ours.append(cold_sync(fleet, folder, version).seconds)
            wire.append(bare.copy_seconds(fleet.broker, DEVICE, pages))
            disk.append(bare.executemany_seconds(folder / "bare.db", pages))
            progress.advance(task)
        floor = Latency.from_seconds([one + two for one, two in zip(wire, disk, strict=True)])
        rows = [
            Row(
                f"cold sync of {count:,} people",
                Latency.from_seconds(ours),
                bare=floor,
                at_most=MOST_TIMES_BARE,
            ),
            Row("  bare MQTT, the same pages", Latency.from_seconds(wire)),
            Row("  bare SQLite executemany, the same rows", Latency.from_seconds(disk)),
        ]
        if largest:
            version = fill(fleet, count + runs, largest)
            progress.advance(task, 2)
            synced = cold_sync(fleet, folder, version)
            progress.advance(task)
            rows += [
                Row(f"cold sync of {largest:,} people", Latency.from_seconds([synced.seconds])),
                _growth("  the camera's memory has grown by (MB)", synced.device_mb),
                _growth("  the bridge's memory, from idle to its peak (MB)", peak_mb(fleet.bridge) - idle),
            ]
    return rows


def _growth(name: str, megabytes: float) -> Row:
    return Row(name, Latency(1, megabytes, megabytes, megabytes), MOST_GROWTH_MB)


def fill(fleet: LocalFleet, first: int, end: int, *, space: str = SPACE) -> int:
    """Enroll identities `first` to `end` - 1, one face each; return their version."""
    return asyncio.run(_fill(fleet, first, end, space))


async def _fill(fleet: LocalFleet, first: int, end: int, space: str) -> int:
    registry = await Registry.open(MongoSettings(uri=SecretStr(fleet.mongod.uri), database=fleet.database))
    source = np.random.default_rng(first)
    version = 0
    try:
        for start in range(first, end, _ENROLLED_AT_ONCE):
            orders = [
                EnrollIdentity(
                    f"EMP-{number:06}",
                    (Template(space, normalise(source.normal(size=DIMENSION), DIMENSION), 0.9),),
                )
                for number in range(start, min(end, start + _ENROLLED_AT_ONCE))
            ]
            version = (await registry.identities.enroll_many(orders))[-1].version
    finally:
        await registry.mongo.close()
    return version


def cold_sync(fleet: LocalFleet, folder: Path, version: int, *, keep_pages: bool = False) -> ColdSync:
    """Sync a camera without data up to `version`."""
    shutil.rmtree(folder / DEVICE, ignore_errors=True)
    observer = Observer(fleet, keep_pages=keep_pages)
    observer.expect(version)
    camera = fleet.make_simulator(
        DEVICE, folder, count=0, rate=0.001, arguments=["--space", SPACE, "--dimension", str(DIMENSION)]
    )
    try:
        camera.start()
        if not observer.online.wait(30):
            raise camera.failure("the camera did not connect")
        before = resident_mb(camera)
        if not observer.applied.wait(120):
            raise camera.failure(f"the camera did not come to version {version}")
        grown = peak_mb(camera) - before
    finally:
        camera.stop()
        observer.close()
    assert observer.online_at is not None
    assert observer.applied_at is not None
    return ColdSync(observer.applied_at - observer.online_at, grown, observer.pages)


def resident_mb(program: Program) -> float:
    """Return the memory of a program now."""
    return _status_mb(program, "VmRSS")


def peak_mb(program: Program) -> float:
    """Return the peak memory of a program."""
    return _status_mb(program, "VmHWM")


def _status_mb(program: Program, field: str) -> float:
    text = Path(f"/proc/{program.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) / 1024
