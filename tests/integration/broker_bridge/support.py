"""Provide a scripted device and a bridge in this process."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Any

import aiomqtt
import numpy as np

from broker_bridge.bootstrap import Bridge
from broker_bridge.contract.channels import Decoded, decode
from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.messages import SyncRequest
from broker_bridge.contract.wire import WireModel, format_time
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import Template
from broker_bridge.settings import BridgeProgram
from deploy.local.stack import Mosquitto
from tests.conftest import FreshDevice
from tests.waiting import SECONDS, until

SPACE = "face:test-8"


def face(seed: int) -> Template:
    return Template(SPACE, normalise(np.random.default_rng(seed).standard_normal(8), 8))


def event(n: int, device: str, **changed: object) -> dict[str, Any]:
    return {
        "event_id": f"EV1-1736942400000-{n:06x}",
        "device_id": device,
        "user_id": "EMP-12345",
        "event_type": "facial_id",
        "timestamp": format_time(datetime.now(timezone.utc)),
        "confidence": 0.92,
        "metadata": {"distance": 0.28},
    } | changed


class Peer:
    """A scripted device: sends on request and queues what it receives."""

    def __init__(self, client: aiomqtt.Client, device: FreshDevice) -> None:
        self.client = client
        self.device = device
        self.received: asyncio.Queue[Decoded[Any]] = asyncio.Queue()

    async def send(
        self, tail: str, payload: bytes | WireModel, *, qos: int = 1, retain: bool = False
    ) -> None:
        body = payload.to_json() if isinstance(payload, WireModel) else payload
        await self.client.publish(f"wfm/v1/device/{self.device.id}/up/{tail}", body, qos, retain)

    async def receive(self, name: str) -> Any:
        """Return the next message of the named channel, skipping others before it."""
        while True:
            decoded = await asyncio.wait_for(self.received.get(), SECONDS)
            if decoded.channel.name == name:
                return decoded.message

    async def request_page(self, since: int = 0, epoch: str | None = None, **fields: Any) -> Any:
        request = SyncRequest(
            request_id=secrets.token_hex(4),
            site_id=fields.pop("site_id", self.device.site),
            epoch=epoch,
            since_version=since,
            spaces=[SPACE],
            **fields,
        )
        await self.send("enrollment/request", request)
        page = await self.receive("sync_page")
        assert page.request_id == request.request_id
        return page

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            if not message.payload:
                continue
            self.received.put_nowait(decode(str(message.topic), message.payload))


@asynccontextmanager
async def connected(broker: Mosquitto, device: FreshDevice) -> AsyncIterator[Peer]:
    """Connect a peer that follows its own topics and its site's."""
    async with aiomqtt.Client(
        broker.host, broker.port, username=device.id, password=device.password, identifier=device.id,
        protocol=aiomqtt.ProtocolVersion.V5,
    ) as client:  # fmt: skip
        await client.subscribe(f"wfm/v1/device/{device.id}/down/#", 1)
        await client.subscribe(f"wfm/v1/site/{device.site}/#", 1)
        peer = Peer(client, device)
        listening = asyncio.create_task(peer.listen())
        yield peer
        listening.cancel()


@asynccontextmanager
async def running(registry: Registry, program: BridgeProgram) -> AsyncIterator[Bridge]:
    """Run a connected bridge worker in this process."""
    worker = Bridge(registry, program, await registry.versions.share_group())
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))

    async def ready() -> bool:
        return worker.link.connected or task.done()

    await until(ready)
    yield worker
    stop.set()
    await asyncio.wait_for(task, 10)
