import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from deploy.local.stack import Mongod
from tests.space_limits import ensure_with_limits
from tests.tracking_samples import SPACE, Faces


@pytest.fixture
async def registry(mongod: Mongod, mongo_database: str) -> AsyncIterator[Registry]:
    """Open a fresh registry with the space of the samples and a running search."""
    opened = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await ensure_with_limits(opened, EmbeddingSpace(SPACE, 512))
    following = asyncio.create_task(opened.face_search.follow_changes())
    yield opened
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await opened.close()


@pytest.fixture
def faces() -> Faces:
    return Faces()
