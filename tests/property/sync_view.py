"""Compute the expected galleries from the registry's documents, not by its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker_bridge.registry import Registry

Rows = frozenset[tuple[str, str, bytes]]
"""`(template id, space, vector)` of one identity."""


@dataclass(frozen=True)
class Known:
    """An identity in a document; `rows` are the templates that devices may store."""

    version: int
    sites: frozenset[str]
    reach: frozenset[str]
    deleted: bool
    flag: str | None
    name: str | None
    consent: Mapping[str, bool]
    rows: Rows

    def is_at(self, site: str) -> bool:
        return not self.deleted and bool(self.sites & {site, "*"})

    def is_heard_at(self, site: str) -> bool:
        return bool(self.reach & {site, "*"})


@dataclass(frozen=True)
class Held:
    """An identity as a device stores it."""

    flag: str | None
    name: str | None
    rows: Rows


@dataclass(frozen=True)
class View:
    """The whole registry at one time."""

    epoch: str
    version: int
    horizons: Mapping[str, int]
    people: Mapping[str, Known]

    @classmethod
    async def read(cls, registry: Registry) -> "View":
        database = registry.mongo.db
        history: dict[str, Any] = await database.meta.find_one({"_id": "versions"})
        templates: dict[str, list[dict[str, Any]]] = {}
        async for found in database.templates.find({"parked_by": None}):
            templates.setdefault(found["user_id"], []).append(found)
        people = {}
        async for found in database.identities.find():
            people[found["_id"]] = _known(found, templates.get(found["_id"], []))
        return cls(history["epoch"], history["version"], history.get("horizons", {}), people)

    def head_version(self, site: str) -> int:
        """Return the newest version that concerns the site."""
        purged = max(self.horizons.get(site, 0), self.horizons.get("*", 0))
        return max([purged, *(one.version for one in self.people.values() if one.is_heard_at(site))])

    def gallery(self, site: str, spaces: frozenset[str], *, with_names: bool) -> dict[str, Held]:
        """Return the identities that a device of `site` with these spaces must store."""
        found = {}
        for user_id, one in self.people.items():
            rows = frozenset(row for row in one.rows if row[1] in spaces)
            if one.is_at(site) and rows:
                found[user_id] = Held(one.flag, one.name if with_names else None, rows)
        return found


def _known(person: Mapping[str, Any], templates: list[dict[str, Any]]) -> Known:
    consent = dict(person["consent"])
    return Known(
        version=person["version"],
        sites=frozenset(person["sites"]),
        reach=frozenset(person["reach"]),
        deleted=person["deleted"],
        flag=person["flag"],
        name=person["display_name"],
        consent=consent,
        rows=frozenset(
            # Two bytes of BSON's header of a vector come first.
            (one["_id"], one["space"], bytes(one["vector"])[2:])
            for one in templates
            if consent[one["space"].partition(":")[0]]
        ),
    )
