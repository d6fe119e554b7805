"""Start real servers for the tests on first request, shared where that is safe."""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from pydantic import SecretStr
from pymongo import MongoClient

from broker_bridge.registry import MongoSettings, Registry
from deploy.local.stack import Mongod, Mosquitto, Program, free_port

# `make test` plays a few examples of each property, `make test-long` many.
settings.register_profile("short", max_examples=15)
settings.register_profile("long", max_examples=500)
settings.load_profile("short")

DEVICES = [f"cam-{n:03}" for n in range(1, 11)] + [f"sim-{n:03}" for n in range(1, 21)]
SITE = "lobby"


def _broker(folder: Path) -> Mosquitto:
    """Start a broker with service users and the devices above in one site.

    `admin` may publish and read every topic.
    """
    users = {name: secrets.token_hex(8) for name in ["admin", "bridge", "operator", *DEVICES]}
    return Mosquitto(folder, free_port(), users, dict.fromkeys(DEVICES, SITE)).start()


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """Start one mongod for the session.

    Use `mongo_database` in it; a test that kills its server uses `own_mongod`.
    """
    server = Mongod(tmp_path_factory.mktemp("mongod"), free_port()).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """Start one broker for the session.

    It holds retained messages of earlier tests: use a `fresh_device`.
    """
    server = _broker(tmp_path_factory.mktemp("mosquitto"))
    yield server
    server.kill()


@pytest.fixture
def own_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Start an empty broker for one test that kills and restarts it.

    Costs about 50 ms.
    """
    server = _broker(tmp_path / "mosquitto")
    yield server
    server.kill()


@pytest.fixture
def own_mongod(tmp_path: Path) -> Iterator[Mongod]:
    """A mongod for one test, to be killed and restarted at will. Costs seconds."""
    server = Mongod(tmp_path / "mongod", free_port()).start()
    yield server
    server.kill()


class SharedDatabase:
    """One indexed database of this worker, emptied between tests.

    Creating some 20 collections and 35 indexes takes far longer than most tests.
    """

    def __init__(self, mongod: Mongod) -> None:
        self.name = f"wfm_test_{secrets.token_hex(6)}"
        self._client: MongoClient[dict[str, Any]] = MongoClient(mongod.uri)
        self._database = self._client[self.name]
        asyncio.run(self._create(mongod))
        self._indexes = {
            name: self._database[name].index_information() for name in self._database.list_collection_names()
        }

    async def _create(self, mongod: Mongod) -> None:
        settings = MongoSettings(uri=SecretStr(mongod.uri), database=self.name)
        await (await Registry.open(settings)).close()

    def empty(self) -> None:
        """Delete every document; drop collections with other indexes than at the start."""
        for name in self._database.list_collection_names():
            collection = self._database[name]
            if self._indexes.get(name) == collection.index_information():
                collection.delete_many({})
            else:
                collection.drop()

    def close(self) -> None:
        self._client.drop_database(self.name)
        self._client.close()


@pytest.fixture(scope="session")
def shared_database(mongod: Mongod) -> Iterator[SharedDatabase]:
    """Create this worker's database once."""
    database = SharedDatabase(mongod)
    yield database
    database.close()


@pytest.fixture
def mongo_database(request: pytest.FixtureRequest, mongod: Mongod) -> Iterator[str]:
    """Yield the name of an empty database.

    A test that starts programs gets a new one: a program that is killed may still write for a moment.
    """
    if "start_program" not in request.fixturenames:
        shared: SharedDatabase = request.getfixturevalue("shared_database")
        yield shared.name
        shared.empty()
        return
    name = f"wfm_test_{secrets.token_hex(6)}"
    yield name
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongod.uri) as client:
        client.drop_database(name)


@dataclass(frozen=True)
class FreshDevice:
    """A device that the broker lets in and no other test has used."""

    id: str
    password: str
    site: str


@pytest.fixture
def fresh_device(mosquitto: Mosquitto) -> FreshDevice:
    """Register a device with a site of its own on the session's broker.

    No retained message of another test reaches it.
    """
    tail = secrets.token_hex(6)
    device = FreshDevice(f"cam-{tail}", secrets.token_hex(8), f"site-{tail}")
    mosquitto.add_device(device.id, device.password, device.site)
    return device


StartProgram = Callable[..., Program]


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[StartProgram]:
    """Return `start_program(args, env=None, name=...)`; programs end with the test."""
    started: list[Program] = []

    def start(args: list[str], env: Mapping[str, str] | None = None, name: str = "program") -> Program:
        program = Program(args, tmp_path / f"{name}-{len(started)}.log", env, name)
        started.append(program)
        program.start()
        return program

    yield start
    for program in started:
        program.kill()
