from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker_bridge.bootstrap import Bridge, open_registry
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.settings import BridgeProgram, BridgeSettings
from deploy.local.stack import Mongod, Mosquitto
from tests.conftest import FreshDevice
from tests.integration.broker_bridge.support import SPACE, Peer, connected, running
from tests.space_limits import ensure_with_limits
from tests.waiting import until


@pytest.fixture
def program(mosquitto: Mosquitto, mongod: Mongod, mongo_database: str) -> BridgeProgram:
    """Return the settings of a bridge with the session's servers and a new database."""
    return BridgeProgram(
        mqtt=MqttSettings(
            host=mosquitto.host,
            port=mosquitto.port,
            username="bridge",
            password=SecretStr(mosquitto.users["bridge"]),
        ),
        mongo=MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database),
        # The interval is so long that a test passes only by the change stream.
        bridge=BridgeSettings(default_spaces={SPACE: 8}, poll_seconds=60),
    )


@pytest.fixture
async def registry(program: BridgeProgram, fresh_device: FreshDevice) -> AsyncIterator[Registry]:
    """Open this test's registry, with its device registered."""
    opened = await open_registry(program)
    spaces = [EmbeddingSpace(*item) for item in program.bridge.default_spaces.items()]
    await ensure_with_limits(opened, *spaces)
    await opened.devices.register(fresh_device.id, fresh_device.site)
    yield opened
    await opened.close()


@pytest.fixture
async def bridge(registry: Registry, program: BridgeProgram) -> AsyncIterator[Bridge]:
    """Run one bridge worker that leads."""
    async with running(registry, program) as worker:

        async def leading() -> bool:
            return worker.publisher_election.is_leading

        await until(leading)
        yield worker


@pytest.fixture
async def peer(bridge: Bridge, mosquitto: Mosquitto, fresh_device: FreshDevice) -> AsyncIterator[Peer]:
    """Connect a device's side of the wire to a running bridge."""
    async with connected(mosquitto, fresh_device) as device:
        yield device
