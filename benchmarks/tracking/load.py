"""Measure tracking: 1,000 active persons, 50 cameras, 100,000 persons stored."""

import asyncio
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import paho.mqtt.client as mqtt
import psutil
from pydantic import SecretStr
from rich.progress import Progress

from benchmarks.scale import Scale
from benchmarks.stats import Latency, Row
from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.messages import Assignment
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.detected_persons.model import DetectedPerson
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.tracking.active_person import ActivePerson
from broker_bridge.tracking.active_set import ActiveSet
from deploy.local.fleet import SITE, LocalFleet
from deploy.local.stack import Mosquitto, Program
from tests.space_limits import LIMITS, ensure_with_limits, tracked_limits
from tests.tracking_samples import SPACE, Faces, observed

from .observers import AssignmentLatencies, Load, observe

PEOPLE_EACH = 20
ACTIVE = 1000
_TRACKS, _KNOWS = "leader election won task=tracker", "face index ready"
_AT_ONCE = 2000


@dataclass(frozen=True)
class FigureRow(Row):
    """A row that has one figure of its own besides times: it must stay below `most`."""

    figure: float = 0.0
    most: float = 0.0
    unit: str = ""

    @property
    def holds(self) -> bool:
        return super().holds and self.figure <= self.most

    @property
    def must(self) -> str:
        state = "holds" if self.figure <= self.most else "MISSED"
        return f"{super().must}  {self.figure:.4g} of at most {self.most:g} {self.unit} {state}".strip()


def measure(folder: Path, progress: Progress, scale: Scale) -> list[Row]:
    """Run the three measurements, the last with `known_persons`."""
    task = progress.add_task("tracking", total=3)
    rows = _active(scale.matches)
    progress.advance(task)
    rows += _load(folder / "load", scale)
    progress.advance(task)
    rows += _start(folder / "start", scale.known_persons, scale.turns)
    progress.advance(task)
    return rows


# Among the active


def _active(rounds: int) -> list[Row]:
    faces = Faces(3)
    settings = TrackingSettings()
    people = ActiveSet(settings, tracked_limits(SPACE, LIMITS, settings))
    centres = [faces.person() for _ in range(ACTIVE)]
    matrix = np.stack([faces.of(centre) for centre in centres])
    for number, centre in enumerate(centres, start=1):
        face = FaceCentroid.from_vector(SPACE, matrix[number - 1], 0.9)
        people.add(ActivePerson(DetectedPerson.create(number, observed(centre)), {SPACE: face}))
    asked = [observed(faces.of(centres[number % ACTIVE]), at=number) for number in range(rounds)]
    limit = LIMITS.tracked_similarity
    ours, bare, wrong = [], [], 0
    for seen in asked:
        began = time.perf_counter()
        match = people.match(seen)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        similarities = np.vecdot(matrix, seen.vector)
        best = int(similarities.argmax())
        bare.append(time.perf_counter() - began)
        expected = best + 1 if similarities[best] >= limit else None
        wrong += (match and match.active.global_id) != expected
    floor = Latency.from_seconds(bare)
    return [
        FigureRow(
            f"match among {ACTIVE:,} active people",
            Latency.from_seconds(ours),
            limit=0.2,
            bare=floor,
            figure=wrong,
            most=0,
            unit="wrong",
        ),
        Row("  bare numpy product and argmax", floor),
    ]


# Fifty cameras


def _load(folder: Path, scale: Scale) -> list[Row]:
    cameras = [f"cam-{number:03}" for number in range(1, scale.observing_cameras + 1)]
    with LocalFleet(folder, cameras) as fleet:
        fleet.start_servers()
        asyncio.run(_register(fleet, cameras))
        load = _load_of(fleet, cameras, scale)
        with _echoing(fleet.broker):
            bare = _observed(load)
        fleet.bridge.start()
        fleet.bridge.wait_for_line(_TRACKS)
        ours = _observed(load)
        cpu = psutil.Process(fleet.bridge.pid).cpu_times()
    busy = (cpu.user + cpu.system) / (scale.seconds + scale.warm_up_seconds)
    what = f"{ours.rate:,.0f}/s of {len(cameras)} cameras for {scale.seconds:.0f} s"
    name = f"observation to assignment, {what} ({busy:.0%} of a core)"
    return [
        FigureRow(
            name,
            Latency.from_seconds(ours.seconds),
            limit=50.0,
            bare=Latency.from_seconds(bare.seconds),
            figure=ours.unanswered,
            most=0,
            unit="unanswered",
        ),
        Row("  bare echo: a client that answers at once", Latency.from_seconds(bare.seconds)),
        Row(
            f"  the first {len(cameras) * PEOPLE_EACH:,} strangers, all in the first second",
            Latency.from_seconds(ours.first_seconds),
        ),
    ]


def _load_of(fleet: LocalFleet, cameras: list[str], scale: Scale) -> Load:
    return Load(
        host=fleet.broker.host,
        port=fleet.broker.port,
        passwords={camera: fleet.broker.users[camera] for camera in cameras},
        people_each=PEOPLE_EACH,
        warm_up=scale.warm_up_seconds,
        seconds=scale.seconds,
    )


def _observed(load: Load) -> AssignmentLatencies:
    """Played in a process of its own, since the cameras would be on other machines."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(observe, load).result()


class _echoing:  # noqa: N801  # a context manager
    """Answers every observation at once, knowing nothing: what broker and client cost."""

    def __init__(self, broker: Mosquitto) -> None:
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "bench-echo", protocol=mqtt.MQTTv5)
        self._client.username_pw_set("bridge", broker.users["bridge"])
        self._client.on_message = self._answer
        self._client.connect(broker.host, broker.port)
        self._client.subscribe(channels.OBSERVATION.filter)

    def _answer(self, client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        track = re.search(rb'"track_id":"([^"]*)"', message.payload)
        assert track is not None
        told = Assignment(track_id=track[1].decode(), global_id=1).to_json()
        client.publish(channels.ASSIGNED.topic(device_id=message.topic.split("/")[3]), told)

    def __enter__(self) -> None:
        self._client.loop_start()

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


# To start with


def _start(folder: Path, count: int, turns: int) -> list[Row]:
    """Start a bridge without detected persons and one with `count`, in turns."""
    with LocalFleet(folder, []) as fleet:
        fleet.start_servers()
        fleet.database = "full"
        full = fleet.make_bridge("bridge-full")
        fleet.programs.append(full)
        asyncio.run(_fill(fleet, count))
        started = [(_started(fleet.bridge), _started(full)) for _ in range(turns)]
    empty = Latency.from_seconds([without.seconds for without, _ in started])
    return [
        FigureRow(
            f"start of a bridge, {count:,} people known",
            Latency.from_seconds([known.seconds for _, known in started]),
            p50_limit=10_000.0,
            bare=empty,
            figure=median(known.megabytes - without.megabytes for without, known in started),
            most=260,
            unit="MB for the index",
        ),
        Row("  of a bridge without detected persons", empty),
    ]


@dataclass(frozen=True)
class _Started:
    seconds: float
    megabytes: float


def _started(bridge: Program) -> _Started:
    """Start the bridge, wait until it leads with a ready index, stop it at the end."""
    began = time.perf_counter()
    bridge.start()
    bridge.wait_for_line(_KNOWS, 120)
    bridge.wait_for_line(_TRACKS, 120)
    seconds = time.perf_counter() - began
    memory = psutil.Process(bridge.pid).memory_info().rss / 1e6
    bridge.stop()
    return _Started(seconds, memory)


async def _register(fleet: LocalFleet, cameras: list[str]) -> None:
    registry = await _open(fleet)
    for camera in cameras:
        await registry.devices.register(camera, SITE)
    await registry.close()


async def _open(fleet: LocalFleet) -> Registry:
    registry = await Registry.open(MongoSettings(uri=SecretStr(fleet.mongod.uri), database=fleet.database))
    await ensure_with_limits(registry, EmbeddingSpace(SPACE, 512))
    return registry


async def _fill(fleet: LocalFleet, count: int) -> None:
    registry = await _open(fleet)
    random = np.random.default_rng(7)
    seen = datetime.now(timezone.utc) - timedelta(days=1)
    try:
        for _ in range(0, count, _AT_ONCE):
            ids = await registry.tracker_store.take_ids(_AT_ONCE)
            vectors = random.standard_normal((_AT_ONCE, 512), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            await registry.tracker_store.create(
                [
                    (
                        DetectedPerson(one, "lobby", seen, seen, {}, created_at=seen, updated_at=seen),
                        FaceCentroid.from_vector(SPACE, vector, 0.9),
                    )
                    for one, vector in zip(ids, vectors, strict=True)
                ]
            )
    finally:
        await registry.close()
