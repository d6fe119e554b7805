"""Play cameras at a steady rate, and measure the time to each assignment.

They would be on fifty other machines: here they are to cost as little as can be, so their payloads are
prepared and their MQTT (3.1.1, QoS 0) is as much as that takes.
"""

import asyncio
import base64
import contextlib
import itertools
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from broker_bridge.contract import channels
from broker_bridge.contract.messages import DeviceInfo, SpaceInfo
from broker_bridge.contract.wire import format_time
from deploy.local.fleet import SITE
from tests.tracking_samples import SPACE, Faces

_STAY_SECONDS = 30.0
_POOL = 3
"""So many times as many people as are in view come and go."""
_FACES_EACH = 12
_ANSWER_SECONDS = 10.0
_TRACK = re.compile(rb'"track_id":"([^"]*)"')
_CONNECT, _PUBLISH, _SUBSCRIBE = 0x10, 0x30, 0x82


@dataclass(frozen=True)
class Load:
    """Each camera sees `people_each` persons a second, for `warm_up` and `seconds`."""

    host: str
    port: int
    passwords: Mapping[str, str]
    people_each: int
    warm_up: float
    seconds: float


@dataclass(frozen=True)
class AssignmentLatencies:
    """Seconds from publish to assignment: of the first second, and after the warm-up.

    `rate` is how many a second were sent in truth, since a busy machine may play slower than it was asked to.
    """

    first_seconds: list[float]
    seconds: list[float]
    unanswered: int
    rate: float


class ObservingCamera(asyncio.Protocol):
    """One connection; `told` is called with the payload of each message that comes."""

    def __init__(self, name: str, password: str, told: Callable[[bytes], None]) -> None:
        self._topic = _text(channels.OBSERVATION.topic(device_id=name))
        self._told = told
        self._buffer = b""
        info = DeviceInfo(site_id=SITE, software="bench", spaces={SPACE: SpaceInfo(dimension=512)})
        self._greeting = (
            _packet(
                _CONNECT, _text("MQTT") + b"\x04\xc2\x00\x3c" + _text(name) + _text(name) + _text(password)
            )
            + _packet(_SUBSCRIBE, b"\x00\x01" + _text(channels.ASSIGNED.topic(device_id=name)) + b"\x00")
            + _packet(_PUBLISH | 1, _text(channels.INFO.topic(device_id=name)) + info.to_json())
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._greeting)

    def observe(self, payload: bytes) -> None:
        self._transport.write(_packet(_PUBLISH, self._topic + payload))

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while (frame := _frame(buffer)) is not None:
            start, end = frame
            if buffer[0] & 0xF0 == _PUBLISH:
                topic = int.from_bytes(buffer[start : start + 2], "big")
                self._told(buffer[start + 2 + topic : end])
            buffer = buffer[end:]
        self._buffer = buffer


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(kind: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (0x80 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def _frame(buffer: bytes) -> tuple[int, int] | None:
    """Where the body of the first packet begins and ends; None while it is not whole."""
    size, shift = 0, 0
    for place in range(1, min(5, len(buffer))):
        size |= (buffer[place] & 0x7F) << shift
        shift += 7
        if not buffer[place] & 0x80:
            end = place + 1 + size
            return (place + 1, end) if end <= len(buffer) else None
    return None


def observe(load: Load) -> AssignmentLatencies:
    """Play `load` and wait for the answers."""
    return asyncio.run(_Play(load).run())


@dataclass
class _Visitor:
    faces: "itertools.cycle[str]"
    track_id: str
    until: float


@dataclass
class _Play:
    load: Load
    faces: Faces = field(default_factory=lambda: Faces(5))
    sent: dict[bytes, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    took: list[tuple[float, float]] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    began: float = 0.0

    async def run(self) -> AssignmentLatencies:
        load, loop = self.load, asyncio.get_running_loop()
        people = _POOL * len(load.passwords) * load.people_each
        # A walker that leaves comes back after all others, so none is in two places.
        self.pool = itertools.cycle([self._person() for _ in range(people)])
        cameras = []
        for name, password in load.passwords.items():
            make = lambda name=name, password=password: ObservingCamera(name, password, self._hear)  # noqa: E731
            cameras.append((await loop.create_connection(make, load.host, load.port))[1])
        self.began = time.perf_counter()
        await asyncio.gather(*(self._stand(camera) for camera in cameras))
        await self._await_assignments()
        for camera in cameras:
            camera.close()
        measured_from = self.began + load.warm_up
        unanswered = [at for waiting in self.sent.values() for at in waiting if at >= measured_from]
        answered = [at for at, _ in self.took if at >= measured_from]
        return AssignmentLatencies(
            [took for at, took in self.took if at < self.began + 1],
            [took for at, took in self.took if at >= measured_from],
            len(unanswered),
            len(unanswered + answered) / (max(unanswered + answered) - measured_from),
        )

    def _person(self) -> "itertools.cycle[str]":
        centre = self.faces.person()
        faces = [self.faces.of(centre).astype("<f4").tobytes() for _ in range(_FACES_EACH)]
        return itertools.cycle([base64.b64encode(face).decode() for face in faces])

    async def _await_assignments(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._all_answered(), _ANSWER_SECONDS)

    async def _all_answered(self) -> None:
        while any(self.sent.values()):
            await asyncio.sleep(0.05)

    async def _stand(self, camera: ObservingCamera) -> None:
        """Each person once a second, spread evenly over it."""
        each, total = self.load.people_each, self.load.warm_up + self.load.seconds
        visitors: list[_Visitor | None] = [None] * each
        phase = float(self.faces.random.uniform(0, 1 / each))
        for step in range(int(total * each)):
            await asyncio.sleep(self.began + phase + step / each - time.perf_counter())
            place = step % each
            visitors[place] = visitor = self._visitor(visitors[place])
            track = visitor.track_id
            seen = (
                f'{{"track_id":"{track}","bbox":[{90 * place},10,80,100],"frame_size":[1920,1080],'
                f'"space":"{SPACE}","vector":"{next(visitor.faces)}","quality":0.9,'
                f'"captured_at":"{format_time(datetime.now(timezone.utc))}"}}'
            )
            self.sent[track.encode()].append(time.perf_counter())
            camera.observe(seen.encode())

    def _visitor(self, visitor: _Visitor | None) -> _Visitor:
        now = time.perf_counter()
        if visitor is not None and now < visitor.until:
            return visitor
        stay = float(self.faces.random.exponential(_STAY_SECONDS))
        return _Visitor(next(self.pool), f"t{next(self.numbers)}", now + stay)

    def _hear(self, payload: bytes) -> None:
        track = _TRACK.search(payload)
        assert track is not None
        # A track's answers come in the order of its observations.
        at = self.sent[track[1]].popleft()
        self.took.append((at, time.perf_counter() - at))
