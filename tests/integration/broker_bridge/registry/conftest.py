from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.mongo import client as mongo_client
from deploy.local.stack import Mongod

SPACE = EmbeddingSpace("face:test-8", 8)
GAIT = EmbeddingSpace("gait:test-4", 4)


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a server for 0.2 s; an option of the URI would not count."""
    monkeypatch.setitem(mongo_client._DEADLINES, "serverSelectionTimeoutMS", 200)


@pytest.fixture
def mongo_settings(mongod: Mongod, mongo_database: str) -> MongoSettings:
    """Return the settings of a fresh database, with PyMongo.

    `mongo/test_motor.py` has the tests with Motor.
    """
    return MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database)


@pytest.fixture
async def registry(mongo_settings: MongoSettings) -> AsyncIterator[Registry]:
    """Open a fresh registry with a face and a gait space."""
    opened = await Registry.open(mongo_settings)
    await opened.spaces.ensure(SPACE)
    await opened.spaces.ensure(GAIT)
    yield opened
    await opened.close()
