"""Find identities whose ids a person may mistake for each other."""

from collections.abc import Sequence

from pymongo import UpdateOne

from broker_bridge.common.plain_text import comparison_key
from broker_bridge.registry.mongo.client import Mongo

from .model import ExternalKey, Identity

FIELD = "similar_keys"
_MOST = 5
_BATCH = 1_000


def similarity_keys(user_id: str, external: Sequence[ExternalKey]) -> list[str]:
    """Return the comparison keys of a user id and of keys of other systems.

    Keys are compared within their source alone.
    """
    keys = {comparison_key(user_id)}
    keys |= {ExternalKey(key.source_system, comparison_key(key.external_id)).text for key in external}
    return sorted(keys)


class SimilarIds:
    """Similar ids of identities that are not deleted."""

    def __init__(self, mongo: Mongo) -> None:
        self._identities = mongo.db.identities

    async def find_similar(self, identities: Sequence[Identity]) -> dict[str, list[str]]:
        """Return, by user id, up to five user ids of others with a similar id.

        Identities without any are absent, and so are deleted ones.
        """
        keys = {
            identity.user_id: similarity_keys(identity.user_id, identity.external)
            for identity in identities
            if not identity.deleted
        }
        wanted = sorted(set().union(*keys.values()))
        if not wanted:
            return {}
        holders: dict[str, list[str]] = {}
        query = {FIELD: {"$in": wanted}, "deleted": False}
        async for found in self._identities.find(query, {FIELD: 1}).sort("_id", 1):
            for key in found[FIELD]:
                holders.setdefault(key, []).append(found["_id"])
        similar: dict[str, list[str]] = {}
        for user_id, own in keys.items():
            others = sorted({other for key in own for other in holders.get(key, ())} - {user_id})
            if others:
                similar[user_id] = others[:_MOST]
        return similar


async def add_missing_keys(mongo: Mongo) -> None:
    """Add the keys to identities that were written before there were any."""
    updates: list[UpdateOne] = []
    missing = {FIELD: {"$exists": False}}
    async for found in mongo.db.identities.find(missing, {"external": 1}):
        external = found.get("external", [])
        keys = similarity_keys(found["_id"], [ExternalKey.parse(text) for text in external])
        # A program that changes the identity meanwhile writes newer keys.
        updates.append(UpdateOne({"_id": found["_id"], **missing}, {"$set": {FIELD: keys}}))
        if len(updates) == _BATCH:
            await mongo.db.identities.bulk_write(updates, ordered=False)
            updates = []
    if updates:
        await mongo.db.identities.bulk_write(updates, ordered=False)
