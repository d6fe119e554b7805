"""People and their templates: every change takes the next version in the transaction that writes it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from pymongo import ReplaceOne

from broker_bridge.contract.embeddings import check_vector
from broker_bridge.contract.errors import TEMPLATES_TOO_MANY, ContractError
from broker_bridge.contract.wire import MAX_PERSON_BYTES

from .mongo import Document, Mongo
from .people import (
    EVERY_SITE,
    Changed,
    Enrollment,
    Person,
    SiteChanges,
    Template,
    amend,
    cut,
    in_chunks,
    person_from_document,
    person_to_document,
    remove,
    template_from_document,
    template_to_document,
    wire_bytes,
)
from .spaces import Spaces
from .versions import History, Versions

T = TypeVar("T")
PERSON_UNKNOWN = "person-unknown"


class Identities:
    """Collections `identities` and `templates`."""

    def __init__(self, mongo: Mongo, versions: Versions, spaces: Spaces) -> None:
        self._mongo = mongo
        self._versions = versions
        self._spaces = spaces
        self._people = mongo.db.identities
        self._templates = mongo.db.templates
        # Two writers of one process would only collide on the version counter and start over.
        self._writing = asyncio.Lock()

    # Orders

    async def enroll(self, order: Enrollment) -> Person:
        """Carry out one order; see enroll_many."""
        return (await self.enroll_many([order]))[0]

    async def enroll_many(self, orders: Sequence[Enrollment]) -> list[Person]:
        """Carry out `orders` (one per person), a transaction per 200 people, in order.

        Raises ContractError before anything is written if a vector or space of any order is not valid. An
        order that may not make its person (`person-unknown`), or leaves more templates than a message
        can carry (`templates-too-many`), ends it there: its transaction is not written.
        """
        dimensions = await self._check(orders)
        people: list[Person] = []
        for chunk in in_chunks(orders):
            people += await self._write(partial(self._enroll_chunk, orders=chunk, dimensions=dimensions))
        return people

    async def create_at(
        self,
        order: Enrollment,
        history: History,
        record: Callable[[Any, Person], Awaitable[None]],
    ) -> Person | None:
        """Make a person if the registry still stands at `history`; `record` writes to the same transaction.

        None, and nothing is written, if anything has changed since, or the user id was ever taken: so what
        was found out at `history` still holds where a person is made. Raises ContractError like enroll_many.
        """
        dimensions = await self._check([order])

        async def work(session: Any) -> Person | None:
            version = await self._versions.take_after(session, history)
            if version is None:
                return None
            (person,) = await self._enroll_chunk(session, [order], dimensions, version)
            await record(session, person)
            return person

        if await self._known(None, [order.user_id]):
            return None
        return await self._write(work)

    async def delete(self, user_id: str) -> Person:
        """Soft-delete: the person becomes a tombstone that every site they ever were in hears of."""

        async def work(session: Any) -> Person:
            version = await self._versions.take(session)
            person = remove(await self._live(session, user_id), version, _now())
            await self._people.replace_one({"_id": user_id}, person_to_document(person), session=session)
            return person

        return await self._write(work)

    async def remove_modality(self, user_id: str, modality: str) -> Person:
        """Drop a person's templates of one modality; the person stays."""

        async def work(session: Any) -> Person:
            version = await self._versions.take(session)
            known = await self._live(session, user_id)
            if not await self._drop(session, user_id, modality):
                raise ContractError(PERSON_UNKNOWN, f"{user_id} has no {modality} template")
            held = await self._held(session, [user_id])
            order = Enrollment(user_id)
            person = amend(known, order, held.get(user_id, []), version, _now())
            await self._people.replace_one({"_id": user_id}, person_to_document(person), session=session)
            return person

        return await self._write(work)

    # Questions

    async def get(self, user_id: str) -> Person:
        """The person, also a soft-deleted one; raises ContractError(`person-unknown`)."""
        found = await self._people.find_one({"_id": user_id})
        if found is None:
            raise ContractError(PERSON_UNKNOWN, f"there is no person {user_id}")
        return person_from_document(found)

    async def templates_of(self, user_ids: Sequence[str]) -> dict[str, list[Template]]:
        """Templates by user id, oldest first."""
        return await self._held(None, user_ids)

    async def page(self, *, after: str = "", limit: int = 100, deleted: bool = False) -> list[Person]:
        """Up to `limit` people with user ids past `after`, in order of user id."""
        query: Document = {"_id": {"$gt": after}}
        if not deleted:
            query["deleted"] = False
        cursor = self._people.find(query).sort("_id", 1).limit(limit)
        return [person_from_document(found) async for found in cursor]

    async def everyone(self) -> tuple[History, list[Person]]:
        """All people and tombstones in order of version, at one point in time."""
        async with self._mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._people.find({}, session=session).sort("version", 1)
            return history, [person_from_document(found) async for found in cursor]

    async def since(
        self, version: int, limit: int, spaces: Sequence[str] | None = None
    ) -> tuple[History, list[Changed]]:
        """The next `limit` changes past `version` at any site, in order of version.

        With all templates, or those in `spaces`.
        """
        async with self._mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._people.find({"version": {"$gt": version}}, session=session)
            people = [person_from_document(found) async for found in cursor.sort("version", 1).limit(limit)]
            return history, await self._with_templates(session, people, spaces)

    async def since_at_site(
        self, site_id: str, version: int, spaces: Sequence[str], limit: int, max_bytes: int, *, snapshot: bool
    ) -> SiteChanges:
        """What a site's device that stands at `version` needs next: at most `limit` people and `max_bytes`.

        With `snapshot` tombstones are left out: the device starts from nothing.
        """
        reach = {"$in": [site_id, EVERY_SITE]}
        query: Document = {"version": {"$gt": version}, "reach": reach}
        if snapshot:
            query |= {"deleted": False, "sites": reach}
        dimensions = {
            space: size for space, size in (await self._spaces.dimensions()).items() if space in spaces
        }
        async with self._mongo.snapshot() as session:
            history = await self._versions.read(session)
            newest = await self._people.find_one({"reach": reach}, sort=[("version", -1)], session=session)
            head = newest["version"] if newest else 0
            cursor = self._people.find(query, session=session).sort("version", 1).limit(limit + 1)
            people = [person_from_document(found) async for found in cursor]
            page = cut(people[:limit], dimensions, max_bytes)
            done = len(page) == len(people)
            told = max(head, version) if done else page[-1].version
            return SiteChanges(
                history, head, told, tuple(await self._with_templates(session, page, spaces, site_id)), done
            )

    # How it is done

    async def _write(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async with self._writing:
            return await self._mongo.transact(work)

    async def _check(self, orders: Sequence[Enrollment]) -> dict[str, int]:
        dimensions = await self._spaces.dimensions()
        for order in orders:
            for template in order.templates:
                if template.space not in dimensions:
                    await self._spaces.get(template.space)
                check_vector(template.vector, dimensions[template.space])
        return dimensions

    async def _enroll_chunk(
        self,
        session: Any,
        orders: Sequence[Enrollment],
        dimensions: Mapping[str, int],
        taken: int | None = None,
    ) -> list[Person]:
        """Carry out `orders`, one per person, from version `taken` on; None takes the next ones."""
        now = _now()
        first = taken or await self._versions.take(session, len(orders))
        user_ids = [order.user_id for order in orders]
        known = await self._known(session, user_ids)
        for order in orders:
            before = known.get(order.user_id)
            if order.must_exist and (before is None or before.deleted):
                raise ContractError(PERSON_UNKNOWN, f"there is no person {order.user_id}")
            if before and before.deleted:
                # Enrolling somebody again must not bring back the face that was deleted.
                await self._templates.delete_many({"user_id": order.user_id}, session=session)
            elif before and order.replace_modality:
                await self._drop(session, order.user_id, order.replace_modality)
        added = [
            template_to_document(order.user_id, template, now)
            for order in orders
            for template in order.templates
        ]
        if added:
            await self._templates.insert_many(added, session=session)
        held = await self._held(session, user_ids)
        people = [
            amend(known.get(order.user_id), order, held.get(order.user_id, []), first + place, now)
            for place, order in enumerate(orders)
        ]
        for person in people:
            if wire_bytes(person, dimensions) > MAX_PERSON_BYTES:
                raise ContractError(
                    TEMPLATES_TOO_MANY, f"{person.user_id} would have more than a message holds"
                )
        await self._people.bulk_write(
            [ReplaceOne({"_id": p.user_id}, person_to_document(p), upsert=True) for p in people],
            session=session,
        )
        return people

    async def _drop(self, session: Any, user_id: str, modality: str) -> int:
        spaces = [space for space in await self._spaces.dimensions() if space.startswith(f"{modality}:")]
        dropped = await self._templates.delete_many(
            {"user_id": user_id, "space": {"$in": spaces}}, session=session
        )
        count: int = dropped.deleted_count
        return count

    async def _known(self, session: Any, user_ids: Sequence[str]) -> dict[str, Person]:
        cursor = self._people.find({"_id": {"$in": list(user_ids)}}, session=session)
        return {found["_id"]: person_from_document(found) async for found in cursor}

    async def _live(self, session: Any, user_id: str) -> Person:
        person = (await self._known(session, [user_id])).get(user_id)
        if person is None or person.deleted:
            raise ContractError(PERSON_UNKNOWN, f"there is no person {user_id}")
        return person

    async def _held(
        self, session: Any, user_ids: Sequence[str], spaces: Sequence[str] | None = None
    ) -> dict[str, list[Template]]:
        query: Document = {"user_id": {"$in": list(user_ids)}}
        if spaces is not None:
            query["space"] = {"$in": list(spaces)}
        held: dict[str, list[Template]] = {}
        async for found in self._templates.find(query, session=session).sort(
            [("user_id", 1), ("created_at", 1)]
        ):
            held.setdefault(found["user_id"], []).append(template_from_document(found))
        return held

    async def _with_templates(
        self, session: Any, people: Sequence[Person], spaces: Sequence[str] | None, site_id: str | None = None
    ) -> list[Changed]:
        live = [p.user_id for p in people if not p.deleted and (site_id is None or p.belongs_to(site_id))]
        held = await self._held(session, live, spaces) if live else {}
        return [Changed(person, tuple(held.get(person.user_id, ()))) for person in people]


def _now() -> datetime:
    return datetime.now(timezone.utc)
