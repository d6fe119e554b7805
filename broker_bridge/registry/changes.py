"""What has changed since a version: for a site, for every reader that follows the registry."""

from collections.abc import Sequence
from typing import Any

from .mongo import Document
from .people import EVERY_SITE, Changed, Person, SiteChanges, cut
from .people_store import PeopleStore
from .person_documents import person_from_document
from .spaces import Spaces
from .versions import History, Versions


class Changes:
    """Questions by version; every answer is of one point in time."""

    def __init__(self, store: PeopleStore, versions: Versions, spaces: Spaces) -> None:
        self._store = store
        self._versions = versions
        self._spaces = spaces

    async def everyone(self) -> tuple[History, list[Person]]:
        """All people and tombstones in order of version."""
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._store.people.find({}, session=session).sort("version", 1)
            return history, [person_from_document(found) async for found in cursor]

    async def since(
        self, version: int, limit: int, spaces: Sequence[str] | None = None
    ) -> tuple[History, list[Changed]]:
        """The next `limit` changes past `version` at any site, in order of version.

        With all templates that may be sent, or those of them in `spaces`.
        """
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            cursor = self._store.people.find({"version": {"$gt": version}}, session=session)
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
        async with self._store.mongo.snapshot() as session:
            history = await self._versions.read(session)
            newest = await self._store.people.find_one(
                {"reach": reach}, sort=[("version", -1)], session=session
            )
            head = max(newest["version"] if newest else 0, history.horizon_at(site_id))
            cursor = self._store.people.find(query, session=session).sort("version", 1).limit(limit + 1)
            people = [person_from_document(found) async for found in cursor]
            page = cut(people[:limit], dimensions, max_bytes)
            done = len(page) == len(people)
            told = max(head, version) if done else page[-1].version
            return SiteChanges(
                history, head, told, tuple(await self._with_templates(session, page, spaces, site_id)), done
            )

    async def version_at(self, site_id: str, since: Any) -> int | None:
        """The version after which everything lies that changed at the site at time `since` or later.

        None if nothing has changed since then.
        """
        query = {"reach": {"$in": [site_id, EVERY_SITE]}, "updated_at": {"$gte": since}}
        found = await self._store.people.find_one(query, {"version": 1}, sort=[("version", 1)])
        return found and int(found["version"]) - 1

    async def _with_templates(
        self, session: Any, people: Sequence[Person], spaces: Sequence[str] | None, site_id: str | None = None
    ) -> list[Changed]:
        live = [p.user_id for p in people if not p.deleted and (site_id is None or p.belongs_to(site_id))]
        held = await self._store.templates_of(session, live, spaces)
        return [
            Changed(
                person,
                tuple(
                    one
                    for one in held.get(person.user_id, ())
                    if one.parked_by is None and person.may_be_sent(one.space)
                ),
            )
            for person in people
        ]
