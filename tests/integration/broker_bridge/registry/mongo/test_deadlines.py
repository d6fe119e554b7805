"""How long a call of MongoDB may take."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker_bridge.registry.mongo import client as mongo_client
from broker_bridge.registry.mongo.client import Mongo, MongoSettings
from broker_bridge.registry.mongo.errors import RegistryError
from deploy.local.stack import Mongod

# The server takes this long for each of the documents.
SLOW = {"$where": "sleep(400) || true"}


@pytest.fixture
async def hurried(
    mongod: Mongod, mongo_database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Mongo]:
    """A client that waits a tenth of a second for an answer, on two documents."""
    monkeypatch.setitem(mongo_client._DEADLINES, "socketTimeoutMS", 100)
    mongo = Mongo(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await mongo.patient_db.meta.insert_many([{"_id": 1}, {"_id": 2}])
    yield mongo
    await mongo.close()


async def test_a_server_that_does_not_answer_is_given_up(hurried: Mongo) -> None:
    """A frozen server would hold a call up for ever."""
    with pytest.raises(RegistryError):
        await hurried.db.meta.find_one(SLOW)


async def test_work_in_the_background_has_more_time(hurried: Mongo) -> None:
    """An index or a sweep of a large collection takes minutes."""
    found = [one["_id"] async for one in hurried.patient_db.meta.find(SLOW).sort("_id", 1)]
    assert found == [1, 2]
    changed = await hurried.patient_db.meta.update_many(SLOW, {"$set": {"seen": True}})
    assert changed.modified_count == 2
