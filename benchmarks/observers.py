"""Cameras that see people come and go, at a steady rate, and how soon each is told who they are."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone

import aiomqtt

from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import Vector
from broker_bridge.contract.messages import Assignment, DeviceInfo, Observation, SpaceInfo
from deploy.local.fleet import SITE
from tests.tracking_samples import SPACE, Faces

_STAY_SECONDS = 30.0
_POOL = 3
"""So many times as many people as are in view come and go."""
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Load:
    """Each camera sees `people_each` people once a second, for `warm_up` and then for `seconds`."""

    host: str
    port: int
    passwords: Mapping[str, str]
    people_each: int
    warm_up: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """Seconds from publish to assignment: of the first second, and after the warm-up."""

    first_seconds: list[float]
    seconds: list[float]
    unanswered: int


def observe(load: Load) -> Outcome:
    """Play `load` and wait for the answers."""
    return asyncio.run(_Play(load).run())


@dataclass
class _Visitor:
    person: Vector
    track_id: str
    until: float


@dataclass
class _Play:
    load: Load
    faces: Faces = field(default_factory=lambda: Faces(5))
    sent: dict[str, float] = field(default_factory=dict)
    took: list[tuple[float, float]] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    began: float = 0.0
    pool: list[Vector] = field(default_factory=list)
    free: list[int] = field(default_factory=list)

    async def run(self) -> Outcome:
        load = self.load
        in_view = len(load.passwords) * load.people_each
        self.pool = [self.faces.person() for _ in range(_POOL * in_view)]
        self.free = list(range(len(self.pool)))
        self.faces.random.shuffle(self.free)
        async with AsyncExitStack() as stack:
            clients = {
                camera: await stack.enter_async_context(
                    aiomqtt.Client(
                        load.host, load.port, username=camera, password=password, identifier=camera,
                        protocol=aiomqtt.ProtocolVersion.V5,
                    )
                )
                for camera, password in load.passwords.items()
            }  # fmt: skip
            listening = []
            for camera, client in clients.items():
                client.pending_calls_threshold = 1000
                await client.subscribe(channels.ASSIGNED.topic(device_id=camera))
                info = DeviceInfo(site_id=SITE, software="bench", spaces={SPACE: SpaceInfo(dimension=512)})
                await client.publish(channels.INFO.topic(device_id=camera), info.to_json(), 1, retain=True)
                listening.append(asyncio.create_task(self._listen(client)))
            self.began = time.perf_counter()
            await asyncio.gather(*(self._camera(*one) for one in clients.items()))
            await self._await_answers()
            for task in listening:
                task.cancel()
        measured_from = self.began + load.warm_up
        return Outcome(
            [took for at, took in self.took if at < self.began + 1],
            [took for at, took in self.took if at >= measured_from],
            sum(at >= measured_from for at in self.sent.values()),
        )

    async def _await_answers(self) -> None:
        deadline = time.perf_counter() + _ANSWER_SECONDS
        while self.sent and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)

    async def _camera(self, camera: str, client: aiomqtt.Client) -> None:
        """Each person once a second, spread evenly over it."""
        each, total = self.load.people_each, self.load.warm_up + self.load.seconds
        slots: list[_Visitor | None] = [None] * each
        phase = float(self.faces.random.uniform(0, 1 / each))
        for step in range(int(total * each)):
            await asyncio.sleep(self.began + phase + step / each - time.perf_counter())
            place = step % each
            slots[place] = visitor = self._visitor(slots[place])
            # A number of its own, so that an answer is told from the one before.
            track = f"{visitor.track_id}.{next(self.numbers)}"
            seen = Observation(
                track_id=track,
                bbox=[90.0 * place, 10.0, 80.0, 100.0],
                frame_size=[1920, 1080],
                space=SPACE,
                vector=self.faces.of(visitor.person).astype("<f4").tobytes(),
                quality=0.9,
                captured_at=datetime.now(timezone.utc),
            ).to_json()
            self.sent[track] = time.perf_counter()
            await client.publish(channels.OBSERVATION.topic(device_id=camera), seen)

    def _visitor(self, visitor: _Visitor | None) -> _Visitor:
        now = time.perf_counter()
        if visitor is not None and now < visitor.until:
            return visitor
        number = self.free.pop()
        self.free.insert(0, number)
        stay = float(self.faces.random.exponential(_STAY_SECONDS))
        return _Visitor(self.pool[number], f"t{next(self.numbers)}", now + stay)

    async def _listen(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            told = Assignment.model_validate_json(message.payload)
            at = self.sent.pop(told.track_id)
            self.took.append((at, time.perf_counter() - at))
