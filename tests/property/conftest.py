import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.settings import RegistrySettings
from deploy.local.stack import Mongod
from device.store.db_manager import DatabaseManager

from .sync_registry import prepare
from .sync_world import SETUPS


@dataclass(frozen=True)
class Stage:
    """Hold what all examples share: a registry with its loop, an empty device file."""

    registry: Registry = field(repr=False)
    loop: asyncio.AbstractEventLoop = field(repr=False)
    empty: Path = field(repr=False)


@pytest.fixture(scope="module")
def stage(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Create the database that all examples empty and share."""
    loop = asyncio.new_event_loop()
    database = f"wfm_test_{secrets.token_hex(6)}"
    mongo = MongoSettings(uri=SecretStr(mongod.uri), database=database)
    registry = loop.run_until_complete(Registry.open(mongo, settings=RegistrySettings(templates_per_space=3)))
    loop.run_until_complete(prepare(registry, SETUPS))
    empty = tmp_path_factory.mktemp("empty") / "device.db"
    for dev_mode in (False, True):
        manager = DatabaseManager(empty, dev_mode)
        manager.initialize()
        manager.close()
    yield Stage(registry, loop, empty)
    loop.run_until_complete(registry.mongo.db.client.drop_database(database))
    loop.run_until_complete(registry.close())
    loop.close()
