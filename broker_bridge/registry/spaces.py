"""Keep embedding spaces with their dimension and the hash of their model file."""

from collections.abc import Iterable

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.contract.errors import SPACE_MISMATCH, SPACE_UNKNOWN, ContractError

from .mongo.client import Mongo

FROM_DEVICES = 64
"""Most spaces that devices may add; settings of the backend may add more."""


class SpaceRegistry:
    """Collection `spaces`.

    A recorded space never changes; another model is another space.
    """

    def __init__(self, mongo: Mongo) -> None:
        self._spaces = mongo.db.spaces

    async def ensure(self, space: EmbeddingSpace) -> EmbeddingSpace:
        """Return the recorded space, and record it if it is new.

        The first recorded hash of a model stays. Raises ContractError(`space-mismatch`) if the space is
        recorded with another dimension.
        """
        new_space = {"dimension": space.dimension, "created_at": utc_now()}
        await self._spaces.update_one({"_id": space.id}, {"$setOnInsert": new_space}, upsert=True)
        if space.model_sha256:
            await self._spaces.update_one(
                {"_id": space.id, "model_sha256": None}, {"$set": {"model_sha256": space.model_sha256}}
            )
        known = await self.get(space.id)
        if known.dimension != space.dimension:
            raise ContractError(
                SPACE_MISMATCH, f"{space.id} has {known.dimension} dimensions here, not {space.dimension}"
            )
        return known

    async def declare(self, space: EmbeddingSpace) -> EmbeddingSpace:
        """Return the space of a device, and record it if it is new.

        At most FROM_DEVICES spaces are recorded in this way. Every head names every space: thousands of
        invented ones would not fit into a message. Raises ContractError(`space-unknown`, `space-mismatch`).
        """
        known = await self.dimensions()
        if space.id not in known and len(known) >= FROM_DEVICES:
            raise ContractError(
                SPACE_UNKNOWN, f"{space.id} is not recorded: devices add no spaces past {FROM_DEVICES}"
            )
        return await self.ensure(space)

    async def get(self, space_id: str) -> EmbeddingSpace:
        """Return the space. Raises ContractError(`space-unknown`)."""
        found = await self._spaces.find_one({"_id": space_id})
        if found is None:
            raise self.unknown(space_id, await self.dimensions())
        return EmbeddingSpace(found["_id"], found["dimension"], found.get("model_sha256"))

    @staticmethod
    def unknown(space_id: str, known: Iterable[str]) -> ContractError:
        named = ", ".join(sorted(known)) or "none"
        return ContractError(SPACE_UNKNOWN, f"there is no embedding space {space_id!r}; known are: {named}")

    async def dimensions(self) -> dict[str, int]:
        """Return the dimension by space id."""
        return {found["_id"]: found["dimension"] async for found in self._spaces.find({})}

    async def models(self) -> dict[str, str]:
        """Return the recorded SHA-256 of the model file by space id."""
        recorded = self._spaces.find({"model_sha256": {"$ne": None}})
        return {found["_id"]: found["model_sha256"] async for found in recorded}
