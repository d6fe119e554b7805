"""People and templates in MongoDB: read whole, changed together, one writer at a time in a process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pymongo import InsertOne, ReplaceOne, UpdateOne

from broker_bridge.registry.mongo.client import Document, Mongo

from .documents import person_from_document, person_to_document, template_from_document, template_to_document
from .model import Identity, IdentityRecord, Template

T = TypeVar("T")


class IdentityStore:
    """Collections `identities` and `templates`. `None` as session reads outside of any."""

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo
        self.identities = mongo.db.identities
        self.templates = mongo.db.templates
        # Two writers of one process would only collide on the version counter and start over.
        self._writing = asyncio.Lock()

    async def transact(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run `work(session)` in one transaction; see Mongo.transact."""
        async with self._writing:
            return await self.mongo.transact(work)

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of identities."""
        return self.mongo.watch([{"$match": {"ns.coll": "identities"}}])

    async def find_by_id(self, session: Any, user_ids: Iterable[str]) -> dict[str, Identity]:
        """People and tombstones by user id."""
        return await self._found(session, {"_id": {"$in": list(user_ids)}})

    async def find_by_external_key(self, session: Any, external: Iterable[str]) -> dict[str, Identity]:
        """People and tombstones by the text of their external keys."""
        people = await self._found(session, {"external": {"$in": list(external)}})
        return {key.text: person for person in people.values() for key in person.external}

    async def merged_into(self, session: Any, user_id: str) -> dict[str, Identity]:
        """Whoever went into a person by a merge, also by way of others."""
        found: dict[str, Identity] = {}
        targets = [user_id]
        while targets:
            people = await self._found(session, {"merge.into": {"$in": targets}})
            targets = [key for key in people if key not in found]
            found |= people
        return found

    async def _found(self, session: Any, query: Document) -> dict[str, Identity]:
        cursor = self.identities.find(query, session=session)
        return {found["_id"]: person_from_document(found) async for found in cursor}

    async def page(self, query: Document, limit: int) -> list[Identity]:
        """Up to `limit` of the people who match, in order of user id."""
        cursor = self.identities.find(query).sort("_id", 1).limit(limit)
        return [person_from_document(found) async for found in cursor]

    async def read_records(self, session: Any, user_ids: Sequence[str]) -> dict[str, IdentityRecord]:
        """Each of `user_ids` with their templates; nobody where there is no such person."""
        known = await self.find_by_id(session, user_ids)
        templates = await self.templates_of(session, list(known))
        return {key: IdentityRecord(known.get(key), tuple(templates.get(key, ()))) for key in user_ids}

    async def templates_of(
        self, session: Any, user_ids: Sequence[str], spaces: Sequence[str] | None = None
    ) -> dict[str, list[Template]]:
        """Templates by user id, oldest first, parked ones too."""
        if not user_ids:
            return {}
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if spaces is not None:
            query["space"] = {"$in": list(spaces)}
        held: dict[str, list[Template]] = {}
        order = [("user_id", 1), ("created_at", 1), ("_id", 1)]
        async for found in self.templates.find(query, session=session).sort(order):
            held.setdefault(found["user_id"], []).append(template_from_document(found))
        return held

    async def write(
        self, session: Any, before: Mapping[str, IdentityRecord], after: Mapping[str, IdentityRecord]
    ) -> None:
        """Make what is kept of the people in `after` what it says; `before` is what there is."""
        people: list[InsertOne[Document] | ReplaceOne[Document]] = []
        templates: list[UpdateOne] = []
        added: list[Document] = []
        dropped: list[str] = []
        for user_id, held in after.items():
            known = before.get(user_id, IdentityRecord())
            if held == known or held.identity is None:
                continue
            document = person_to_document(held.identity)
            people.append(ReplaceOne({"_id": user_id}, document) if known.identity else InsertOne(document))
            fresh, gone, moved = _difference(user_id, known, held)
            added += fresh
            dropped += gone
            templates += moved
        if dropped:
            await self.templates.delete_many({"_id": {"$in": dropped}}, session=session)
        if templates:
            await self.templates.bulk_write(templates, session=session)
        if added:
            await self.templates.insert_many(added, session=session)
        if people:
            await self.identities.bulk_write(people, ordered=False, session=session)


def _difference(
    user_id: str, known: IdentityRecord, held: IdentityRecord
) -> tuple[list[Document], list[str], list[UpdateOne]]:
    """Templates to insert, ids of those to delete, and updates of those that are parked or brought back."""
    if held.templates is None or held.identity is None:
        return [], [], []
    now = held.identity.updated_at
    assert now is not None  # noqa: S101  # every rule sets it
    old = {one.template_id: one for one in known.templates or ()}
    added, moved = [], []
    for one in held.templates:
        before = old.pop(one.template_id, None)
        if before is None:
            added.append(template_to_document(user_id, one, now))
        elif before.superseded_by != one.superseded_by:
            moved.append(UpdateOne({"_id": one.template_id}, {"$set": {"parked_by": one.superseded_by}}))
    return added, list(old), moved
