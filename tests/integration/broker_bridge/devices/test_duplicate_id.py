"""Two cameras with one id on a real broker, bridge and registry."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker_bridge.bootstrap import Bridge
from broker_bridge.common.clock import utc_now
from broker_bridge.registry import Registry
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mosquitto
from device.client.iot_client import IoTClient
from device.management.heartbeat import HeartbeatSender
from device.mqtt.config import IoTClientConfig
from device.mqtt.paho_connection import PahoConnection
from tests.conftest import FreshDevice
from tests.integration.dashboard_api.conftest import KEYS, Clock, FakeEmbedder, client_of
from tests.integration.device.conftest import config_for
from tests.waiting import until

WINDOW = 901.0
ADDRESSES = ("127.0.0.2", "127.0.0.3")


class ConnectionFrom(PahoConnection):
    """A connection that leaves this machine from another of its addresses."""

    def __init__(self, config: IoTClientConfig, address: str, *arguments: Any) -> None:
        super().__init__(config, *arguments)
        client: Any = self._client
        client.connect = partial(client.connect, bind_address=address)


class Cameras:
    """Cameras with one id and one monotonic clock, which the test advances."""

    def __init__(self, config: IoTClientConfig, folder: Path) -> None:
        self.now = 1000.0
        self.clients: list[IoTClient] = []
        self.heartbeats: list[HeartbeatSender] = []
        for address in ADDRESSES:
            path = folder / address / "device.db"
            client = IoTClient(config_with_path(config, path), clock=lambda: self.now)
            client.broker._open_connection = partial(ConnectionFrom, config, address)
            heartbeat = HeartbeatSender(
                client, client.sync, folder=folder, interval=30.0, clock=lambda: self.now, utc_now=utc_now
            )
            client.attach(heartbeat)
            self.clients.append(client)
            self.heartbeats.append(heartbeat)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for client in self.clients:
            client.submit(lambda: None)

    @property
    def connections(self) -> int:
        return sum(client.broker.counts["connections"] for client in self.clients)

    async def advance_to_the_next_turn(self) -> float:
        """Advance until the camera that waits connects; return the seconds of its pause."""
        started, before = self.now, [client.broker.counts["lost"] for client in self.clients]
        [waiting] = [client for client in self.clients if not client.is_connected]
        self.advance(max(0.0, waiting.broker._retry_at - self.now))
        holder = self.clients[1 - self.clients.index(waiting)]
        takeovers, count = waiting.broker.takeovers, waiting.broker.takeovers._count

        async def changed() -> bool:
            lost = holder.broker.counts["lost"] > before[self.clients.index(holder)]
            is_seen = takeovers._count > count and takeovers._is_own_info_retained
            return lost and is_seen and waiting.is_connected and not holder.is_connected

        await until(changed)
        return self.now - started

    def problems(self) -> list[list[str]]:
        return [
            [problem.code for problem in heartbeat.compose().problems if problem.code == "duplicate-id"]
            for heartbeat in self.heartbeats
        ]


def config_with_path(config: IoTClientConfig, path: Path) -> IoTClientConfig:
    fields = {name: getattr(config, name) for name in ("site_id", "mqtt", "spaces", "reconnect")}
    return IoTClientConfig(config.device_id, db_path=path, drain_seconds=0.0, **fields)


@pytest.fixture
def cameras(mosquitto: Mosquitto, fresh_device: FreshDevice, tmp_path: Path) -> Iterator[Cameras]:
    cameras = Cameras(config_for(mosquitto, fresh_device.id, fresh_device.site), tmp_path)
    yield cameras
    for client in cameras.clients:
        client.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(timezone.utc))


@pytest.fixture
async def api(registry: Registry, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    await registry.api_keys.create("viewer", "viewer", KEYS["viewer"])
    app = create_app(registry, ApiSettings(), FakeEmbedder(), now=clock)
    async with client_of(app, "viewer") as client:
        yield client


async def test_two_cameras_with_one_id_are_reported_and_do_not_storm(
    bridge: Bridge, fresh_device: FreshDevice, cameras: Cameras, api: httpx.AsyncClient, clock: Clock
) -> None:
    """Heartbeats and REST name the problem with both addresses, until one is off."""

    async def shown() -> list[str]:
        device = (await api.get(f"/api/v1/devices/{fresh_device.id}")).json()
        return [problem["detail"] for problem in device["problems"] if problem["code"] == "duplicate-id"]

    async def both_are_named() -> bool:
        return any(all(address in detail for address in ADDRESSES) for detail in await shown())

    async def nothing_is_shown() -> bool:
        return not await shown()

    first, second = cameras.clients

    async def is_up(client: IoTClient) -> bool:
        return client.is_connected and client.broker.takeovers._is_own_info_retained

    first.start()
    await until(partial(is_up, first))
    assert await nothing_is_shown()
    second.start()
    await until(partial(is_up, second))

    async def is_thrown_out() -> bool:
        return first.broker.counts["lost"] == 1

    await until(is_thrown_out)
    pauses = [await cameras.advance_to_the_next_turn() for _ in range(16)]
    assert cameras.connections == 18
    assert pauses[2:4] == pytest.approx([5, 5], abs=1)
    assert pauses[-2:] == pytest.approx([300, 300], abs=1)
    assert cameras.problems() == [["duplicate-id"], ["duplicate-id"]]
    # The bridge names both once it has seen the info of both, which a take-over may cut short.
    for _ in range(6):
        with suppress(asyncio.TimeoutError):
            await until(both_are_named, 4)
            break
        await cameras.advance_to_the_next_turn()
    assert await both_are_named()
    assert len(await shown()) == 1

    off = next(client for client in cameras.clients if client.is_connected)
    off.stop()
    left = cameras.clients[1 - cameras.clients.index(off)]
    cameras.advance(WINDOW)
    await until(partial(is_up, left))
    assert cameras.problems()[cameras.clients.index(left)] == []
    # Its return is the last turn that the bridge sees.
    clock.now = datetime.now(timezone.utc) + timedelta(seconds=WINDOW + 60)
    await until(nothing_is_shown, 20)
