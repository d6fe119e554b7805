"""Provide a scripted peer that plays the bridge, and devices of the real parts."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from broker_bridge.common.retry import Backoff
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract import channels
from broker_bridge.contract.channels import Channel, Decoded, decode
from broker_bridge.contract.messages import Receipts, Rejection, SpaceInfo
from deploy.local.stack import Mosquitto
from device.client.assembly import Assembly, assemble
from device.mqtt.config import IoTClientConfig
from tests.device_samples import DIMENSION, SPACE, ModelRegistry
from tests.waiting import SECONDS


class Peer:
    """Receive all messages of devices; answer with receipts and pages if enabled."""

    def __init__(self, broker: Mosquitto, user: str = "bridge") -> None:
        self.received: list[Decoded[Any]] = []
        self.gives_receipts = True
        self.rejects: set[str] = set()
        self.registry: ModelRegistry | None = None
        self.page_limit: int | None = None
        self._broker = broker
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=f"{user}-{id(self)}", protocol=mqtt.MQTTv5
        )
        self._client.username_pw_set(user, broker.users[user])
        self._client.reconnect_delay_set(0.1, 0.2)
        self._client.on_socket_open = lambda _c, _u, opened: opened.setsockopt(6, 1, 1)  # TCP_NODELAY
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._ready = threading.Event()

    def start(self) -> "Peer":
        self._client.connect(self._broker.host, self._broker.port)
        self._client.loop_start()
        assert self._ready.wait(SECONDS)
        return self

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("wfm/v1/device/+/up/#", 1)

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        decoded = decode(message.topic, bytes(message.payload))
        self.received.append(decoded)
        device_id = decoded.ids["device_id"]
        if decoded.channel is channels.EVENT and self.gives_receipts:
            event_id = decoded.message.event_id
            if event_id in self.rejects:
                answer = Receipts(rejected=[Rejection(event_id=event_id, code="event-invalid", detail="no")])
            else:
                answer = Receipts(stored=[event_id])
            self.send(channels.RECEIPT, answer, device_id=device_id)
        elif decoded.channel is channels.SYNC_REQUEST and self.registry is not None:
            page = self.registry.answer(decoded.message, self.page_limit)
            self.send(channels.SYNC_PAGE, page, device_id=device_id)

    def send(self, channel: Channel[Any], message: Any, *, retain: bool | None = None, **ids: str) -> None:
        is_retained = channel.retain if retain is None else retain
        self.send_bytes(channel.topic(**ids), message.to_json(), retain=is_retained)

    def send_bytes(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain)

    def messages(self, channel: Channel[Any], device_id: str) -> list[Any]:
        return [
            decoded.message
            for decoded in list(self.received)
            if decoded.channel is channel and decoded.ids["device_id"] == device_id
        ]


def config_for(broker: Mosquitto, device_id: str, site: str, **changes: Any) -> IoTClientConfig:
    mqtt_settings = MqttSettings.model_validate(
        {"port": broker.port, "username": device_id, "password": broker.users.get(device_id, "none")}
    )
    fields = {
        "device_id": device_id,
        "site_id": site,
        "mqtt": mqtt_settings,
        "spaces": {SPACE: SpaceInfo(dimension=DIMENSION)},
        "reconnect": Backoff(0.05, 0.3),
        "drain_seconds": 0.5,
    }
    return IoTClientConfig(**{**fields, **changes})


StartDevice = Callable[..., Assembly]


@pytest.fixture
def start_device(tmp_path: Path) -> Iterator[StartDevice]:
    """Return a function that starts a device, which is stopped after the test.

    `start_device(broker, device_id, site, **changes)` returns the assembly.
    """
    started: list[Assembly] = []

    def start(
        broker: Mosquitto, device_id: str, site: str, *, path: Path | None = None, **changes: Any
    ) -> Assembly:
        config = config_for(broker, device_id, site, **changes)
        parts = assemble(config, path or tmp_path / device_id / "device.db")
        started.append(parts)
        parts.client.start()
        return parts

    yield start
    for parts in started:
        parts.client.stop()
        parts.db.close()


@pytest.fixture
def peer(mosquitto: Mosquitto) -> Iterator[Peer]:
    with closing(Peer(mosquitto).start()) as peer:
        yield peer


@pytest.fixture
def own_peer(own_mosquitto: Mosquitto) -> Iterator[Peer]:
    with closing(Peer(own_mosquitto).start()) as peer:
        yield peer
