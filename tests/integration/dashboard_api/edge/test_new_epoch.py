"""An operator begins an epoch after restoring a backup."""

from pydantic import SecretStr

from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.new_epoch import begin
from dashboard_api.settings import ApiProgram
from deploy.local.stack import Mongod


async def test_the_command_begins_an_epoch(registry: Registry, mongod: Mongod, mongo_database: str) -> None:
    before = await registry.versions.read()
    settings = MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database)
    begun = await begin(ApiProgram(mongo=settings))
    assert begun == await registry.versions.read()
    assert begun.epoch != before.epoch
    assert not begun.tells_since("lobby", before.version or 1)
