"""Read and write identities with their templates in MongoDB."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pymongo import InsertOne, ReplaceOne, UpdateOne

from broker_bridge.registry.mongo.client import Document, Mongo

from .documents import (
    identity_from_document,
    identity_to_document,
    template_from_document,
    template_to_document,
)
from .model import Identity, IdentityRecord, Template

T = TypeVar("T")


class IdentityStore:
    """Collections `identities` and `templates`.

    With `None` as session a read is outside of transactions.
    """

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo
        self.identities = mongo.db.identities
        self.templates = mongo.db.templates
        # Two writers of one process would only collide on the version counter and begin again.
        self._write_lock = asyncio.Lock()

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return the result of `work(session)` in one transaction; see Mongo.transact."""
        async with self._write_lock:
            return await self.mongo.transact(work)

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of identities."""
        return self.mongo.watch([], "identities")

    async def find_by_id(self, session: Any, user_ids: Iterable[str]) -> dict[str, Identity]:
        """Return identities and tombstones by user id."""
        return await self._find(session, {"_id": {"$in": list(user_ids)}})

    async def find_by_external_key(self, session: Any, keys: Iterable[str]) -> dict[str, Identity]:
        """Return identities and tombstones by the text of their external keys."""
        holders = await self._find(session, {"external": {"$in": list(keys)}})
        return {key.text: identity for identity in holders.values() for key in identity.external}

    async def merged_into(self, session: Any, user_id: str) -> dict[str, Identity]:
        """Return the tombstones that were merged into an identity, also by way of others."""
        merged: dict[str, Identity] = {}
        targets = [user_id]
        while targets:
            found = await self._find(session, {"merge.into": {"$in": targets}})
            targets = [key for key in found if key not in merged]
            merged |= found
        return merged

    async def _find(self, session: Any, query: Document) -> dict[str, Identity]:
        cursor = self.identities.find(query, session=session)
        return {found["_id"]: identity_from_document(found) async for found in cursor}

    async def page(self, query: Document, limit: int) -> list[Identity]:
        """Return up to `limit` matches of `query` in the order of user ids."""
        cursor = self.identities.find(query).sort("_id", 1).limit(limit)
        return [identity_from_document(found) async for found in cursor]

    async def read_records(self, session: Any, user_ids: Sequence[str]) -> dict[str, IdentityRecord]:
        """Return the records of `user_ids`, with templates.

        An unknown id has an empty record.
        """
        known = await self.find_by_id(session, user_ids)
        templates = await self.templates_of(session, list(known))
        return {key: IdentityRecord(known.get(key), tuple(templates.get(key, ()))) for key in user_ids}

    async def templates_of(
        self, session: Any, user_ids: Sequence[str], spaces: Sequence[str] | None = None
    ) -> dict[str, list[Template]]:
        """Return templates by user id, oldest first, superseded ones included."""
        if not user_ids:
            return {}
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if spaces is not None:
            query["space"] = {"$in": list(spaces)}
        templates: dict[str, list[Template]] = {}
        oldest_first = [("user_id", 1), ("created_at", 1), ("_id", 1)]
        async for found in self.templates.find(query, session=session).sort(oldest_first):
            templates.setdefault(found["user_id"], []).append(template_from_document(found))
        return templates

    async def write(
        self, session: Any, before: Mapping[str, IdentityRecord], after: Mapping[str, IdentityRecord]
    ) -> None:
        """Write the difference between the records `before` and `after`.

        `before` is what is stored.
        """
        identities: list[InsertOne[Document] | ReplaceOne[Document]] = []
        updated: list[UpdateOne] = []
        added: list[Document] = []
        dropped: list[str] = []
        for user_id, record in after.items():
            known = before.get(user_id, IdentityRecord())
            if record == known or record.identity is None:
                continue
            document = identity_to_document(record.identity)
            identities.append(
                ReplaceOne({"_id": user_id}, document) if known.identity else InsertOne(document)
            )
            new, gone, moved = _difference(user_id, known, record)
            added += new
            dropped += gone
            updated += moved
        if dropped:
            await self.templates.delete_many({"_id": {"$in": dropped}}, session=session)
        if updated:
            await self.templates.bulk_write(updated, session=session)
        if added:
            await self.templates.insert_many(added, session=session)
        if identities:
            await self.identities.bulk_write(identities, ordered=False, session=session)


def _difference(
    user_id: str, before: IdentityRecord, after: IdentityRecord
) -> tuple[list[Document], list[str], list[UpdateOne]]:
    """Return templates to insert, ids of templates to delete, and updates."""
    if after.templates is None or after.identity is None:
        return [], [], []
    now = after.identity.updated_at
    assert now is not None  # noqa: S101  # every rule sets it
    gone = {template.template_id: template for template in before.templates or ()}
    added, updated = [], []
    for template in after.templates:
        stored = gone.pop(template.template_id, None)
        if stored is None:
            added.append(template_to_document(user_id, template, now))
        elif stored.superseded_by != template.superseded_by:
            change = {"$set": {"parked_by": template.superseded_by}}
            updated.append(UpdateOne({"_id": template.template_id}, change))
    return added, list(gone), updated
