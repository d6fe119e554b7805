"""An erasure leaves nothing in any collection or in the device's file.

Device and bridge sync over a real broker.
"""

import base64
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pydantic import SecretStr

from broker_bridge.bootstrap import open_registry
from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.messages import Event, SpaceInfo
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.detected_persons.centroid import FaceCentroid
from broker_bridge.registry.events.model import IncomingEvent
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey
from broker_bridge.settings import BridgeProgram, BridgeSettings
from deploy.local.stack import Mongod, Mosquitto
from device.client.assembly import Assembly, assemble
from device.mqtt.config import IoTClientConfig
from tests.conftest import FreshDevice
from tests.detected_samples import face_vector, seen, write_person
from tests.integration.broker_bridge.support import SPACE, event, face, running
from tests.waiting import until

NAME = "Sample Person Ångström"
JPEG = b"\xff\xd8\xff\xe0 the only picture of EMP-12345 \xff\xd9"
# The vector as MongoDB stores it, normalised once more.
FOLLOWED = FaceCentroid.from_vector(SPACE, face_vector(7), 0.8).unit.tobytes()
SECRETS = (
    face(1).vector,
    base64.b64encode(face(1).vector),
    NAME.encode(),
    b"person-4711",
    JPEG,
    base64.b64encode(JPEG),
    FOLLOWED,
    base64.b64encode(FOLLOWED),
)


@pytest.fixture
def program(mosquitto: Mosquitto, mongod: Mongod, mongo_database: str) -> BridgeProgram:
    return BridgeProgram(
        mqtt=MqttSettings(
            host=mosquitto.host,
            port=mosquitto.port,
            username="bridge",
            password=SecretStr(mosquitto.users["bridge"]),
        ),
        mongo=MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database),
        bridge=BridgeSettings(default_spaces={SPACE: 8}),
    )


@pytest.fixture
async def registry(program: BridgeProgram, fresh_device: FreshDevice) -> AsyncIterator[Registry]:
    """Open a registry with two identities and a device in dev mode.

    The test erases EMP-12345, which is linked to a detected person.
    """
    opened = await open_registry(program)
    await opened.devices.register(fresh_device.id, fresh_device.site, dev_mode=True)
    key = ExternalKey("alfred", "person-4711")
    await opened.identities.enroll(EnrollIdentity("EMP-12345", (face(1),), display_name=NAME, external=key))
    await opened.identities.enroll(EnrollIdentity("EMP-2", (face(2),), display_name="Other Name"))
    picture = base64.b64encode(JPEG).decode()
    recognition = Event.model_validate(event(1, fresh_device.id, image=picture, metadata={"name": NAME}))
    await opened.events.record([IncomingEvent(recognition, fresh_device.site, to_milliseconds(utc_now()))])
    observation = seen(fresh_device.id, to_milliseconds(utc_now()), face=face_vector(7), space=SPACE)
    followed = await write_person(opened, [observation], user_id="EMP-12345")
    await opened.detected_person_edits.rename(followed, NAME, by="desk", now=to_milliseconds(utc_now()))
    assert await collections_with(opened, FOLLOWED) == {"person_faces"}
    assert await collections_with(opened, NAME.encode()) >= {"identities", "persons"}
    yield opened
    await opened.close()


@contextmanager
def device(mosquitto: Mosquitto, fresh: FreshDevice, path: Path) -> Iterator[Assembly]:
    """Run the connected device on its own file."""
    mqtt = MqttSettings(port=mosquitto.port, username=fresh.id, password=SecretStr(fresh.password))
    spaces = {SPACE: SpaceInfo(dimension=8)}
    config = IoTClientConfig(fresh.id, site_id=fresh.site, mqtt=mqtt, spaces=spaces, dev_mode=True)
    parts = assemble(config, path)
    parts.client.start()
    try:
        yield parts
    finally:
        parts.client.stop()
        parts.db.close()


def raw(path: Path) -> bytes:
    """Return all bytes of the database and of its write-ahead log."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


async def wait_for_sync(path: Path) -> None:
    async def has_both() -> bool:
        return all(template.vector in raw(path) for template in (face(1), face(2))) and NAME.encode() in raw(
            path
        )

    await until(has_both)


async def collections_with(registry: Registry, needle: bytes) -> set[str]:
    as_bytes: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    database = registry.mongo.db
    return {
        name
        for name in await database.list_collection_names()
        async for found in database[name].with_options(codec_options=as_bytes).find({})
        if needle in found.raw
    }


@pytest.mark.parametrize("delivery", ["as a delta", "in a page", "as a reset"])
async def test_nothing_of_an_erased_identity_is_left(
    registry: Registry,
    program: BridgeProgram,
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    tmp_path: Path,
    delivery: str,
) -> None:
    """The camera is online, returns later, or returns after the tombstone's purge."""
    path = tmp_path / "device" / "faces.db"
    async with running(registry, program):
        with device(mosquitto, fresh_device, path):
            await wait_for_sync(path)
            if delivery == "as a delta":
                erasure_id = await erase(registry)
                await wait_for_confirmation(registry, erasure_id)
        if delivery != "as a delta":
            erasure_id = await erase(registry)
            if delivery == "as a reset":
                assert (
                    await registry.tombstones.purge(
                        to_milliseconds(utc_now()) + timedelta(days=1), timedelta(0)
                    )
                    == 1
                )
            with device(mosquitto, fresh_device, path):
                await wait_for_confirmation(registry, erasure_id)

    file_bytes = raw(path)
    assert face(2).vector in file_bytes
    assert b"Other Name" in file_bytes
    assert [secret for secret in SECRETS if secret in file_bytes] == []
    assert re.search(rb"EMP-12345", file_bytes) is None
    assert [await collections_with(registry, secret) for secret in SECRETS] == [set()] * len(SECRETS)
    receipt = await registry.erasures.note_confirmations(erasure_id, to_milliseconds(utc_now()))
    (proof,) = receipt.devices
    assert proof.device_id == fresh_device.id
    assert proof.confirmed_at is not None
    assert proof.confirmed_at >= receipt.requested_at


async def erase(registry: Registry) -> str:
    erasure = await registry.erasures.erase("EMP-12345", by="privacy-desk", now=to_milliseconds(utc_now()))
    return (
        await registry.erasures.continue_erasure(erasure.erasure_id, to_milliseconds(utc_now()))
    ).erasure_id


async def wait_for_confirmation(registry: Registry, erasure_id: str) -> None:
    async def is_confirmed() -> bool:
        receipt = await registry.erasures.note_confirmations(erasure_id, to_milliseconds(utc_now()))
        return [device.state for device in receipt.devices] == ["confirmed"]

    await until(is_confirmed)
