"""Run the examples of seed 003, after which firmware was written, unchanged.

A real broker and bridge answer. Only the package name, the broker's URL with its key and the path are
replaced.
"""

import asyncio
import base64
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from pymongo import MongoClient
from skimage.data import astronaut

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import normalise, to_array
from broker_bridge.contract.ids import new_event_id
from broker_bridge.contract.messages import Event
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry import MongoSettings, Registry, Retention
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from deploy.local.stack import Mongod, Mosquitto, free_port
from device.enrollment.sync_status import DeviceSyncStatus
from tests.conftest import StartProgram
from tests.waiting import wait_until

DATABASE_MANAGER = """
from iot_integration import DatabaseManager

db = DatabaseManager("/path/to/faces.db", dev_mode=False)
db.initialize()

# Add/update enrollment
db.upsert_enrollment("EMP-123", embedding_array, "ArcFace")

# Get all embeddings for matching
embeddings = db.get_all_enrollments()  # {user_id: np.array}
"""

EVENT_VALIDATOR = """
from iot_integration import EventValidator

validator = EventValidator(
    device_id="cam-001",
    confirmation_frames=5,       # Need 5 consecutive frames
    consistency_threshold=0.8,   # 80% must be same user
    cooldown_seconds=30          # 30s between same-user events
)
"""

FOR_EACH_RECOGNITION = """
# For each recognition result:
event = validator.process_recognition(
    track_id="face_0",
    user_id="EMP-123",
    distance=0.28,
    frame_id=100
)

if event:
    # Event validated! Send to broker
    iot_client.send_event(event)
"""

IOT_CLIENT = """
from iot_integration import IoTClient, IoTClientConfig

config = IoTClientConfig(
    device_id="cam-001",
    broker_url="https://iot-broker.example.com",
    api_key="your-api-key"
)

client = IoTClient(config)
client.start()

# Send events (async, queued)
client.send_event(event, image=frame, face_bbox=[x, y, w, h])

# Or synchronous
client.send_event_sync(event)

# Request enrollment sync
response = client.request_sync(since_version=100)

client.stop()
"""

SYNC_MANAGER = """
from iot_integration import SyncManager, SyncManagerFactory

# Easy setup with factory
sync_mgr, db, client = SyncManagerFactory.create(
    db_path="/path/to/faces.db",
    device_id="cam-001",
    broker_url="https://iot-broker.example.com"
)

# Start periodic sync (every 15 minutes)
sync_mgr.start_periodic_sync(interval_minutes=15)

# Or manual sync
sync_mgr.sync_now()

# Check status
status = sync_mgr.get_sync_status()
"""

IMAGE_UTILS = """
from iot_integration import compress_image_for_event

# Compress image for event payload (target: 50KB JPEG)
b64_image = compress_image_for_event(
    frame,
    target_size_kb=50,
    face_bbox=[x, y, w, h]
)
"""

DEVICE = "cam-001"
SPACE = DEFAULT_FACE_SPACE.space
VECTOR = normalise(np.random.default_rng(3).normal(size=512), 512)


class TlsMosquitto(Mosquitto):
    """Local broker with a second listener, for TLS, and a self-signed certificate."""

    tls_port: int

    @property
    def certificate(self) -> Path:
        return self.folder / "broker.crt"

    def _write_configuration(self) -> None:
        super()._write_configuration()
        key = self.folder / "broker.key"
        listener = f"\nlistener {self.tls_port} 127.0.0.1\ncertfile {self.certificate}\nkeyfile {key}\n"
        with (self.folder / "mosquitto.conf").open("a") as conf:
            conf.write(listener)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TlsMosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=broker "
        "-addext subjectAltName=IP:127.0.0.1 -keyout broker.key -out broker.crt"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    users = {"admin": "admin", "bridge": "for-the-bridge", DEVICE: "key-of-cam-001"}
    server = TlsMosquitto(folder, free_port(), users, {DEVICE: "default"})
    server.tls_port = free_port()
    server.start()
    yield server
    server.kill()


@dataclass
class Firmware:
    """Run snippets in one namespace, as the lines of one program."""

    url: str
    login: str
    key: str
    faces_db: Path
    names: dict[str, Any] = field(default_factory=dict)

    def run(self, snippet: str, *, url_with_login: bool = False, **changed: str) -> None:
        scheme, _, host = self.url.partition("://")
        url = f"{scheme}://{self.login}:{self.key}@{host}" if url_with_login else self.url
        for written, meant in {
            "iot_integration": "device",
            "https://iot-broker.example.com": url,
            "your-api-key": self.key,
            "/path/to/faces.db": str(self.faces_db),
            **changed,
        }.items():
            snippet = snippet.replace(written, meant)
        exec(snippet, self.names)


@pytest.fixture
def mongo(
    broker: TlsMosquitto, mongod: Mongod, mongo_database: str, start_program: StartProgram
) -> Iterator[Any]:
    """Return the database behind a running bridge; EMP-777 is enrolled for all sites."""

    async def enroll() -> None:
        settings = MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database)
        registry = await Registry.open(settings, Retention(30, 30))
        await registry.identities.enroll(EnrollIdentity("EMP-777", (Template(SPACE, VECTOR),)))
        await registry.close()

    environment = {
        "WFM_MQTT__HOST": broker.host,
        "WFM_MQTT__PORT": str(broker.port),
        "WFM_MQTT__USERNAME": "bridge",
        "WFM_MQTT__PASSWORD": broker.users["bridge"],
        "WFM_MONGO__URI": mongod.uri,
        "WFM_MONGO__DATABASE": mongo_database,
        "WFM_BRIDGE__AUTO_REGISTER": "true",
    }
    bridge = start_program([sys.executable, "-m", "broker_bridge"], environment, "bridge")
    bridge.wait_for_line("connected to the broker")
    asyncio.run(enroll())
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod.uri) as client:
        yield client[mongo_database]


def recognition() -> Event:
    now = to_milliseconds(utc_now())
    return Event(
        event_id=new_event_id("EV1", int(now.timestamp() * 1000)),
        device_id=DEVICE,
        user_id="EMP-123",
        event_type="facial_id",
        timestamp=now,
        confidence=0.92,
        metadata={"distance": 0.28},
    )


@pytest.fixture
def firmware(broker: TlsMosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Firmware:
    """Return the runner in an empty working directory, with the snippets' names."""
    monkeypatch.chdir(tmp_path)
    # A broker URL without a ca_file is checked with the system's certificate authorities.
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificate))
    frame = np.ascontiguousarray(astronaut()[..., ::-1])
    names = {
        "embedding_array": np.linspace(-1.0, 1.0, 512),
        "frame": frame,
        "x": 170,
        "y": 60,
        "w": 110,
        "h": 110,
    }
    url = f"mqtt://{broker.host}:{broker.port}"
    return Firmware(url, DEVICE, broker.users[DEVICE], tmp_path / "faces.db", names)


def test_the_database_manager_keeps_embeddings_for_matching(firmware: Firmware) -> None:
    """An embedding is one row in the columns of seed 003 and is read as a unit vector."""
    firmware.run(DATABASE_MANAGER)
    [(user_id, embedding)] = firmware.names["embeddings"].items()
    assert user_id == "EMP-123"
    expected = to_array(normalise(firmware.names["embedding_array"], 512))
    np.testing.assert_array_equal(embedding, expected)
    firmware.names["db"].close()
    with closing(sqlite3.connect(firmware.faces_db)) as file:
        rows = file.execute(
            "SELECT user_id, model, embedding_dim, display_name FROM enrolled_users"
        ).fetchall()
    assert rows == [("EMP-123", "arcface", 512, None)]


def test_the_validators_event_reaches_the_backend(firmware: Firmware, mongo: Any) -> None:
    """Five consecutive frames of one identity make one event, which is stored."""
    from device import IoTClient, IoTClientConfig  # noqa: PLC0415  # as firmware does

    config = IoTClientConfig(device_id=DEVICE, broker_url=firmware.url, api_key=firmware.key)
    firmware.names["iot_client"] = client = IoTClient(config)
    client.start()
    firmware.run(EVENT_VALIDATOR)
    events = []
    for frame_id in range(100, 106):
        firmware.run(FOR_EACH_RECOGNITION, **{"frame_id=100": f"frame_id={frame_id}"})
        events.append(firmware.names["event"])
    assert [event is not None for event in events] == [False] * 4 + [True, False]
    wait_until(lambda: client.outbox.depth == 0, "the receipt")
    client.stop()
    [stored] = mongo.events.find()
    assert (stored["device_id"], stored["event_id"], stored["user_id"]) == (
        DEVICE,
        events[4].event_id,
        "EMP-123",
    )


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_the_client_sends_events_and_fetches_enrollments(
    firmware: Firmware, mongo: Any, broker: TlsMosquitto, tmp_path: Path, scheme: str
) -> None:
    """An event that is sent twice is stored once with its picture.

    The sync is in the device's file.
    """
    if scheme == "mqtts":
        firmware.url = f"mqtts://{broker.host}:{broker.tls_port}"
    firmware.names["event"] = event = recognition()

    firmware.run(IOT_CLIENT)

    [stored] = mongo.events.find()
    assert stored["event_id"] == event.event_id
    [image] = mongo.event_images.find()
    picture = next(bytes(value) for value in image.values() if isinstance(value, bytes))
    assert picture.startswith(b"\xff\xd8")
    response = firmware.names["response"]
    assert isinstance(response, DeviceSyncStatus)
    assert (response.version, response.spaces[SPACE].count, response.in_progress) == (1, 1, False)
    with closing(sqlite3.connect(tmp_path / "device.db")) as file:
        assert file.execute("SELECT user_id, embedding FROM enrolled_users").fetchall() == [
            ("EMP-777", VECTOR)
        ]
        assert file.execute("SELECT COUNT(*) FROM outbox").fetchone() == (0,)
    assert firmware.key not in repr(firmware.names["config"])


def test_the_factory_sets_up_a_device_that_syncs(firmware: Firmware, mongo: Any) -> None:
    """The first sync removes the local enrollment: only the registry enrolls."""
    firmware.run(DATABASE_MANAGER)
    firmware.names["db"].close()

    firmware.run(SYNC_MANAGER, url_with_login=True)

    db, client, sync = (firmware.names[name] for name in ("db", "client", "sync_mgr"))
    assert isinstance(firmware.names["status"], DeviceSyncStatus)
    wait_until(lambda: list(db.get_all_enrollments()) == ["EMP-777"], "the registry's gallery")
    assert sync.get_sync_status().error is None
    assert sync._requests.interval == 15 * 60
    client.start()
    assert client.request_sync().version == 1
    client.stop()


def test_an_event_image_is_a_small_jpeg_in_base64(firmware: Firmware) -> None:
    """The image has at most 50 KB and is cropped around the face."""
    firmware.run(IMAGE_UTILS)
    jpeg = base64.b64decode(firmware.names["b64_image"])
    assert jpeg.startswith(b"\xff\xd8")
    assert len(jpeg) <= 50_000
