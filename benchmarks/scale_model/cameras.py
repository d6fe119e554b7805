"""Play cameras that cost little: one connection each, messages prepared."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from mqtt5 import PublishPacket
from pydantic import SecretStr

from broker_bridge.broker_connection import BrokerConnection
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract import channels
from broker_bridge.contract.messages import DeviceInfo, DeviceStatus, SpaceInfo
from broker_bridge.contract.wire import format_time
from deploy.local.fleet import SITE, LocalFleet

SPACE, DIMENSION = "face:resnet29-512", 512


@dataclass
class PlayedCamera:
    """One connection; `received` counts the messages that came.

    `waiting` has when each event was published, `took` the seconds until each receipt.
    """

    name: str
    connection: BrokerConnection
    received: int = 0
    waiting: dict[str, float] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    on_delta: Callable[["PlayedCamera", bytes], None] | None = None
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def receive(self, connection: BrokerConnection, packets: Sequence[PublishPacket]) -> None:
        for packet in packets:
            self.received += 1
            connection.acknowledge(packet)
            if packet.topic.endswith("/receipt"):
                self._note_receipts(bytes(packet.payload))
            elif self.on_delta is not None and packet.topic.endswith("/delta"):
                self.on_delta(self, bytes(packet.payload))

    def send_event(self, number: int, image: str | None = None) -> None:
        """Publish an event and wait for its receipt in `waiting`."""
        at = datetime.now(timezone.utc)
        event_id = f"EV1-{int(at.timestamp() * 1000)}-{number:06x}"
        self.waiting[event_id] = time.perf_counter()
        topic = channels.EVENT.topic(device_id=self.name, event_type="facial_id")
        self.send(topic, _event(self.name, event_id, number, at, image), 1)

    def _note_receipts(self, payload: bytes) -> None:
        now = time.perf_counter()
        for event_id in json.loads(payload)["stored"]:
            self.took.append(now - self.waiting.pop(event_id))

    def send(self, topic: str, payload: bytes, qos: int, *, retain: bool = False) -> None:
        """Publish without waiting; `settle` waits."""
        task = asyncio.ensure_future(self.connection.publish(topic, payload, qos, retain=retain))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def connect(fleet: LocalFleet, names: Sequence[str]) -> list[PlayedCamera]:
    """Connect each camera as a real one does: subscriptions, status and info."""
    loop = asyncio.get_running_loop()
    cameras = []
    for name in names:
        camera = PlayedCamera(name, None)  # type: ignore[arg-type]
        make = lambda camera=camera: BrokerConnection(camera.receive)  # noqa: E731
        _, camera.connection = await loop.create_connection(make, fleet.broker.host, fleet.broker.port)
        password = SecretStr(fleet.broker.users[name])
        settings = MqttSettings(username=name, password=password, keepalive_seconds=120)
        await camera.connection.log_in(settings, name)
        for topic in (f"wfm/v1/device/{name}/down/#", f"wfm/v1/site/{SITE}/#"):
            await camera.connection.subscribe(topic, 1, retain_as_published=False)
        status = DeviceStatus(device_id=name, state="online", session="be9c", at=datetime.now(timezone.utc))
        info = DeviceInfo(
            device_id=name, site_id=SITE, software="bench", spaces={SPACE: SpaceInfo(dimension=DIMENSION)}
        )
        camera.send(channels.STATUS.topic(device_id=name), status.to_json(), 1, retain=True)
        camera.send(channels.INFO.topic(device_id=name), info.to_json(), 1, retain=True)
        cameras.append(camera)
    await settle(cameras)
    return cameras


async def settle(cameras: Sequence[PlayedCamera]) -> None:
    """Wait until the broker has every message."""
    for camera in cameras:
        while camera.tasks:
            await asyncio.gather(*camera.tasks)


def _event(camera: str, event_id: str, number: int, at: datetime, image: str | None) -> bytes:
    body: dict[str, object] = {
        "event_id": event_id,
        "device_id": camera,
        "user_id": f"EMP-{10001 + number % 500}",
        "event_type": "facial_id",
        "timestamp": format_time(at),
        "confidence": 0.92,
        "metadata": {"distance": 0.28, "frames_tracked": 5, "inference_ms": 45, "seq": number},
    }
    if image is not None:
        body["image"] = image
    return json.dumps(body, separators=(",", ":")).encode()


def renamed(document: Mapping[str, object], camera: str, **fields: object) -> bytes:
    """Return a message of the contract's examples as `camera` would send it."""
    return json.dumps({**document, "device_id": camera, **fields}, separators=(",", ":")).encode()
