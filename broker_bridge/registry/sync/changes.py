"""What has changed since a version: for a site, for every reader that follows the registry."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from broker_bridge.registry.identities.documents import person_from_document, template_from_document
from broker_bridge.registry.identities.model import (
    EVERY_SITE,
    DeltaPage,
    Identity,
    IdentityDelta,
    Template,
    template_bytes,
)
from broker_bridge.registry.identities.store import IdentityStore
from broker_bridge.registry.mongo.client import Document
from broker_bridge.registry.mongo.versions import History, Versions
from broker_bridge.registry.spaces import SpaceRegistry

# What a site is told of a person, and how much room it takes.
_TOLD = dict.fromkeys(
    ("version", "sites", "display_name", "flag", "deleted", "consent", "holdings.space", "holdings.count"), 1
)
_PERSON_BYTES = 160
_NAME_CHARACTER_BYTES = 6


class DeltaQueries:
    """Questions by version; every answer is of one point in time."""

    def __init__(self, store: IdentityStore, versions: Versions, spaces: SpaceRegistry) -> None:
        self._store = store
        self._versions = versions
        self._spaces = spaces

    def watch(self) -> AbstractAsyncContextManager[Any]:
        """Return a change stream of all that a head or a delta contains."""
        concerns = {"ns.coll": {"$in": ["identities", "sites", "spaces"]}}
        return self._store.mongo.watch([{"$match": concerns}])

    async def all_identities(self) -> tuple[History, list[Identity]]:
        """All people and tombstones in order of version."""
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._store.identities.find({}, session=session).sort("version", 1)
            return history, [person_from_document(found) async for found in cursor]

    async def deltas_after(
        self, version: int, limit: int, spaces: Sequence[str] | None = None
    ) -> tuple[History, list[IdentityDelta]]:
        """The next `limit` changes past `version` at any site, in order of version.

        With all templates that may be sent, or those of them in `spaces`.
        """
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._store.identities.find({"version": {"$gt": version}}, session=session)
            people = [person_from_document(found) async for found in cursor.sort("version", 1).limit(limit)]
            live = [person.user_id for person in people if not person.deleted]
            held = await self._store.templates_of(session, live, spaces)
            return history, list(_with_templates(people, held))

    async def site_deltas(
        self, site_id: str, version: int, spaces: Sequence[str], limit: int, max_bytes: int, *, snapshot: bool
    ) -> DeltaPage:
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
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            newest = await self._store.identities.find_one(
                {"reach": reach}, {"version": 1}, sort=[("version", -1)], session=session
            )
            head = max(newest["version"] if newest else 0, history.horizon_at(site_id))
            cursor = self._store.identities.find(query, _TOLD, session=session).sort("version", 1)
            found = await cursor.limit(limit + 1).to_list(None)
            page = _cut(found[:limit], dimensions, max_bytes)
            people = [_person(one) for one in page]
            held = await self._held(session, [p.user_id for p in people if p.belongs_to(site_id)], spaces)
            done = len(page) == len(found)
            told = max(head, version) if done else people[-1].version
            return DeltaPage(history, head, told, tuple(_with_templates(people, held)), done)

    async def _held(
        self, session: Any, user_ids: Sequence[str], spaces: Sequence[str]
    ) -> dict[str, list[Template]]:
        """As PeopleStore.templates_of, which has the server sort: here that would be a third of the time."""
        if not user_ids:
            return {}
        query = {"user_id": {"$in": list(user_ids)}, "space": {"$in": list(spaces)}}
        held: dict[str, list[Template]] = {}
        for found in await self._store.templates.find(query, session=session).to_list(None):
            held.setdefault(found["user_id"], []).append(template_from_document(found))
        for templates in held.values():
            if len(templates) > 1:
                templates.sort(key=lambda one: (one.created_at, one.template_id))
        return held

    async def version_at(self, site_id: str, since: Any) -> int | None:
        """The version after which everything lies that changed at the site at time `since` or later.

        None if nothing has changed since then.
        """
        query = {"reach": {"$in": [site_id, EVERY_SITE]}, "updated_at": {"$gte": since}}
        found = await self._store.identities.find_one(query, {"version": 1}, sort=[("version", 1)])
        return found and int(found["version"]) - 1

    async def version_before(self, site_id: str, time: datetime) -> int:
        """The last version that is known to be from before `time` at the site; 0 if none is."""
        query = {"reach": {"$in": [site_id, EVERY_SITE]}, "updated_at": {"$lt": time}}
        found = await self._store.identities.find_one(query, {"version": 1}, sort=[("version", -1)])
        return int(found["version"]) if found else 0


def _person(found: Document) -> Identity:
    """A person read with `_TOLD`."""
    return Identity(
        user_id=found["_id"],
        version=found["version"],
        sites=tuple(found["sites"]),
        synced_sites=(),
        display_name=found["display_name"],
        flag=found["flag"],
        deleted=found["deleted"],
        consent=found.get("consent", {}),
    )


def _cut(people: list[Document], dimensions: Mapping[str, int], max_bytes: int) -> list[Document]:
    """As many of `people`, read with `_TOLD`, as fit into `max_bytes`, at least one (of those there are)."""
    total = 0
    for place, found in enumerate(people):
        total += _PERSON_BYTES + len(found["_id"]) + _NAME_CHARACTER_BYTES * len(found["display_name"] or "")
        total += sum(
            held["count"] * template_bytes(4 * dimensions.get(held["space"], 0)) for held in found["holdings"]
        )
        if total > max_bytes and place:
            return people[:place]
    return people


def _with_templates(
    people: Iterable[Identity], held: Mapping[str, Sequence[Template]]
) -> Iterator[IdentityDelta]:
    """People with those of their templates that may be sent and that are not parked."""
    for person in people:
        kept_back = [modality for modality, given in person.consent.items() if not given]
        yield IdentityDelta(
            person,
            tuple(
                one
                for one in held.get(person.user_id, ())
                if one.superseded_by is None and not (kept_back and one.modality in kept_back)
            ),
        )
