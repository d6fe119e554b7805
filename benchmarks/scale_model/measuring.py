"""Measure the unit costs: `python -m benchmarks.scale_model.measuring [SECONDS]`.

CPU times come from the kernel's accounting, so that other work on the machine changes them little. What a
program spends without work is subtracted.
"""

import asyncio
import base64
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cold_sync
from benchmarks.stats import Latency
from broker_bridge.contract import channels
from broker_bridge.contract.wire import format_time
from deploy.local.fleet import LocalFleet
from tests.contract import golden_messages

from .cameras import DIMENSION, SPACE, PlayedCamera, connect, renamed, settle
from .meter import Meter, Reading

CAMERAS = [f"unit-{number:03}" for number in range(1, 101)]
_SETTLE_SECONDS = 2.0
# The bridge publishes what was enrolled to the cameras that listen, beside the sync to be measured.
_PUBLISH_SECONDS = 6.0
_IMAGE_BYTES = 50_000
_PEOPLE = 4
_EVENT_RUNS = ((100, 100), (300, 1), (1000, 1), (1000, 100), (2000, 100), (3000, 2), (3000, 100))
"""Rates a second and numbers of cameras: batches and receipts of different sizes."""
_HEARTBEAT_RATES = (50, 300, 1000)
_IMAGE_RATE = 300
_OUTSTANDING = 2000


@dataclass(frozen=True)
class Spent:
    """What `count` units of one kind of traffic have spent."""

    name: str
    count: int
    used: Reading
    received: int = 0
    took: Sequence[float] = ()

    def show(self) -> str:
        used, count = self.used, self.count
        cpu = " ".join(f"{name} {1e6 * seconds / count:.0f}" for name, seconds in used.cpu.items())
        return (
            f"{self.name}: {count} in {used.at:.1f} s; CPU us each {cpu}; broker bytes each in"
            f" {used.bytes_in / count:.0f} out {used.bytes_out / count:.0f}; documents written each"
            f" {used.writes / count:.2f}; commits each {used.commits / count:.3f}; journal bytes each"
            f" {used.journal / count:.0f}; messages down each {self.received / count:.2f}"
            f"; updates each {used.updates / count:.3f}" + self._latency()
        )

    def _latency(self) -> str:
        if not self.took:
            return ""
        latency = Latency.from_seconds(self.took)
        return f"; receipt p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms"


class Measuring:
    """Runs one kind of traffic after the other through a fleet."""

    def __init__(self, fleet: LocalFleet, cameras: Sequence[PlayedCamera], seconds: float) -> None:
        self._fleet = fleet
        self._cameras = cameras
        self._seconds = seconds
        self._meter = Meter(fleet)
        self._idle: dict[str, float] = {}
        self._numbers = itertools.count()

    async def measure_all(self) -> list[Spent]:
        """Return every kind; the first is a wait without work."""
        spent = [await self._rest()]
        for rate, cameras in _EVENT_RUNS:
            chosen = self._cameras[:cameras]
            spent.append(await self._play(f"event {rate}/s of {cameras}", rate, chosen, self._send_event))
        spent.append(await self._saturate())
        image = base64.b64encode(b"\xff\xd8" + os.urandom(_IMAGE_BYTES - 2)).decode()
        spent.append(
            await self._play(
                f"event {_IMAGE_RATE}/s of {len(self._cameras)} with an image of 50 KB",
                _IMAGE_RATE,
                self._cameras,
                lambda camera: camera.send_event(next(self._numbers), image),
            )
        )
        faces = {camera.name: _faces(position) for position, camera in enumerate(self._cameras)}
        plain: list[tuple[str, float, Callable[[PlayedCamera], None]]] = [
            *((f"heartbeat {rate}/s", rate, _send_heartbeat) for rate in _HEARTBEAT_RATES),
            (
                "observation of new people 250/s",
                250,
                lambda camera: _send_observation(camera, faces[camera.name]),
            ),
            ("observation 250/s", 250, lambda camera: _send_observation(camera, faces[camera.name])),
            ("observation 1000/s", 1000, lambda camera: _send_observation(camera, faces[camera.name])),
        ]
        for name, rate, send in plain:
            spent.append(await self._play(name, rate, self._cameras, send))
        return spent

    async def _rest(self) -> Spent:
        began = self._meter.read()
        await asyncio.sleep(2 * self._seconds)
        used = self._meter.read().since(began, {})
        self._idle = {name: cpu / used.at for name, cpu in used.cpu.items()}
        return Spent("idle second", max(1, round(used.at)), used)

    async def _play(
        self, name: str, rate: float, cameras: Sequence[PlayedCamera], send: Callable[[PlayedCamera], None]
    ) -> Spent:
        began, received = self._begin()
        started, count = time.perf_counter(), int(rate * self._seconds)
        order = [camera for _ in range(count // len(cameras) + 1) for camera in _mixed(cameras)][:count]
        for number, camera in enumerate(order):
            if (ahead := started + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            send(camera)
        await settle(cameras)
        await asyncio.sleep(_SETTLE_SECONDS)
        return self._end(name, count, began, received)

    def _send_event(self, camera: PlayedCamera) -> None:
        camera.send_event(next(self._numbers))

    async def _saturate(self) -> Spent:
        """Keep many events on their way; the name has the rate of receipts."""
        began, received = self._begin()
        started = time.perf_counter()
        most = _OUTSTANDING // len(self._cameras)
        while time.perf_counter() < started + self._seconds:
            for camera in self._cameras:
                for _ in range(most - len(camera.waiting)):
                    self._send_event(camera)
            await asyncio.sleep(0.001)
        count = sum(len(camera.took) for camera in self._cameras)
        rate = count / (time.perf_counter() - started)
        await settle(self._cameras)
        await asyncio.sleep(_SETTLE_SECONDS)
        count = sum(len(camera.took) for camera in self._cameras)
        return self._end(f"event at saturation {rate:.0f}/s", count, began, received)

    def _begin(self) -> tuple[Reading, int]:
        for camera in self._cameras:
            camera.took = []
        return self._meter.read(), sum(camera.received for camera in self._cameras)

    def _end(self, name: str, count: int, began: Reading, received: int) -> Spent:
        used = self._meter.read().since(began, self._idle)
        came = sum(camera.received for camera in self._cameras) - received
        return Spent(name, count, used, came, [took for camera in self._cameras for took in camera.took])

    async def measure_changes(self, changes: int) -> list[Spent]:
        """Return enrollment changes over REST with so many listening cameras."""
        applied = golden_messages.BY_NAME["sync_applied"].document

        def confirm(camera: PlayedCamera, payload: bytes) -> None:
            delta, topic = json.loads(payload), channels.SYNC_APPLIED.topic(device_id=camera.name)
            position = {"epoch": delta["epoch"], "version": delta["version"], "spaces": {}}
            camera.send(topic, renamed(applied, camera.name, **position), 1, retain=True)

        for camera in self._cameras:
            camera.on_delta = confirm
        began, received = self._begin()
        for number in range(changes):
            await asyncio.to_thread(self._enroll, number)
            await asyncio.sleep(0.05)
        await asyncio.sleep(_SETTLE_SECONDS)
        await settle(self._cameras)
        return [self._end(f"enrollment change, {len(self._cameras)} cameras", changes, began, received)]

    def _enroll(self, number: int) -> None:
        values = [random.gauss(0, 1) for _ in range(DIMENSION)]
        body = {"name": f"NEW-{number}", "modality": "face", "embedding": values, "source_node": "bench"}
        self._fleet.http.post("/api/v1/identity/", json=body).raise_for_status()

    def measure_cold_sync(self, folder: Path, identities: int) -> Spent:
        """Return the first sync of a camera, per identity."""
        version = cold_sync.fill(self._fleet, 0, identities)
        time.sleep(_PUBLISH_SECONDS)
        began = self._meter.read()
        cold_sync.cold_sync(self._fleet, folder, version)
        return Spent("cold sync, per identity", identities, self._meter.read().since(began, self._idle))


def _mixed(cameras: Sequence[PlayedCamera]) -> Iterator[PlayedCamera]:
    return iter(random.sample(cameras, len(cameras)))


def _send_heartbeat(camera: PlayedCamera) -> None:
    document: Mapping[str, Any] = golden_messages.BY_NAME["heartbeat"].document
    topic = channels.HEARTBEAT.topic(device_id=camera.name)
    camera.send(topic, renamed(document, camera.name, at=format_time(datetime.now(timezone.utc))), 0)


def _faces(seed: int) -> "itertools.cycle[tuple[str, str]]":
    """Cycle over track id and face, base64, of people that stay before one camera."""
    vectors = np.random.default_rng(seed).standard_normal((_PEOPLE, DIMENSION)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return itertools.cycle(
        [(f"t{number}", base64.b64encode(one.tobytes()).decode()) for number, one in enumerate(vectors)]
    )


def _send_observation(camera: PlayedCamera, faces: "itertools.cycle[tuple[str, str]]") -> None:
    track, vector = next(faces)
    payload = (
        f'{{"track_id":"{track}","bbox":[90,10,80,100],"frame_size":[1920,1080],"space":"{SPACE}",'
        f'"vector":"{vector}","quality":0.9,"captured_at":"{format_time(datetime.now(timezone.utc))}"}}'
    )
    camera.send(channels.OBSERVATION.topic(device_id=camera.name), payload.encode(), 0)


async def _measure(folder: Path, seconds: float) -> list[Spent]:
    with LocalFleet(folder, [*CAMERAS, cold_sync.DEVICE]) as fleet:
        fleet.start_servers()
        await asyncio.to_thread(fleet.start_backend)
        connecting = Meter(fleet)
        began = connecting.read()
        cameras = await connect(fleet, CAMERAS)
        await asyncio.sleep(_SETTLE_SECONDS)
        connected = Spent("connect", len(CAMERAS), connecting.read().since(began, {}))
        keeping = [asyncio.ensure_future(camera.connection.keep_alive()) for camera in cameras]
        await asyncio.sleep(_SETTLE_SECONDS)
        measuring = Measuring(fleet, cameras, seconds)
        spent = [connected, *await measuring.measure_all()]
        spent += await measuring.measure_changes(40)
        for camera in cameras[10:]:
            camera.connection.disconnect()
        await asyncio.sleep(_SETTLE_SECONDS)
        few = Measuring(fleet, cameras[:10], seconds)
        spent += [await few._rest(), *await few.measure_changes(40)]  # noqa: SLF001
        spent.append(await asyncio.to_thread(few.measure_cold_sync, folder, 3000))
        for task in keeping:
            task.cancel()
        return spent


def main() -> int:
    """Print the unit costs."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory(prefix="wfm-bench-") as name:
        for spent in asyncio.run(_measure(Path(name), seconds)):
            print(spent.show())
    return 0


if __name__ == "__main__":
    sys.exit(main())
