from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker_bridge.bootstrap import Bridge, open_registry
from broker_bridge.common.settings import MqttSettings
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.settings import BridgeProgram, BridgeSettings
from deploy.local.stack import Mongod, Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, Peer, connected, running
from tests.waiting import until


@pytest.fixture
def program(mosquitto: Mosquitto, mongod: Mongod, mongo_database: str) -> BridgeProgram:
    """The settings of a bridge on the session's servers and this test's database."""
    return BridgeProgram(
        mqtt=MqttSettings(
            host=mosquitto.host,
            port=mosquitto.port,
            username="bridge",
            password=SecretStr(mosquitto.users["bridge"]),
        ),
        mongo=MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database),
        # Long enough that only a change stream can be what made a test pass.
        bridge=BridgeSettings(default_spaces={SPACE: 8}, poll_seconds=60),
    )


@pytest.fixture
async def registry(program: BridgeProgram, fresh_device: FreshDevice) -> AsyncIterator[Registry]:
    """This test's registry, with its device registered."""
    opened = await open_registry(program)
    await opened.devices.register(fresh_device.id, fresh_device.site)
    yield opened
    await opened.close()


@pytest.fixture
async def bridge(registry: Registry, program: BridgeProgram) -> AsyncIterator[Bridge]:
    """One bridge worker that leads."""
    async with running(registry, program) as worker:

        async def leading() -> bool:
            return worker.leadership.leading

        await until(leading)
        yield worker


@pytest.fixture
async def peer(bridge: Bridge, mosquitto: Mosquitto, fresh_device: FreshDevice) -> AsyncIterator[Peer]:
    """A device's side of the wire beside a running bridge."""
    async with connected(mosquitto, fresh_device) as device:
        yield device
