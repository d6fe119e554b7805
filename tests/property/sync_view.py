"""Compute the expected galleries from the registry's documents, not by its code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker_bridge.registry import Registry

Rows = frozenset[tuple[str, str, bytes]]
"""`(template id, space, vector)` of one identity."""


@dataclass(frozen=True)
class ExpectedIdentity:
    """An identity in a document; `rows` are the templates that devices may store."""

    version: int
    sites: frozenset[str]
    synced_sites: frozenset[str]
    deleted: bool
    flag: str | None
    name: str | None
    consent: Mapping[str, bool]
    rows: Rows

    def is_at(self, site: str) -> bool:
        return not self.deleted and bool(self.sites & {site, "*"})

    def is_synced_to(self, site: str) -> bool:
        return bool(self.synced_sites & {site, "*"})


@dataclass(frozen=True)
class StoredIdentity:
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
    identities: Mapping[str, ExpectedIdentity]

    @classmethod
    async def read(cls, registry: Registry) -> "View":
        database = registry.mongo.db
        history: dict[str, Any] = await database.meta.find_one({"_id": "versions"})
        templates: dict[str, list[dict[str, Any]]] = {}
        async for found in database.templates.find({"parked_by": None}):
            templates.setdefault(found["user_id"], []).append(found)
        identities = {}
        async for found in database.identities.find():
            identities[found["_id"]] = _expected_identity(found, templates.get(found["_id"], []))
        return cls(history["epoch"], history["version"], history.get("horizons", {}), identities)

    def head_version(self, site: str) -> int:
        """Return the newest version that concerns the site."""
        purged = max(self.horizons.get(site, 0), self.horizons.get("*", 0))
        return max(
            [
                purged,
                *(identity.version for identity in self.identities.values() if identity.is_synced_to(site)),
            ]
        )

    def gallery(self, site: str, spaces: frozenset[str], *, with_names: bool) -> dict[str, StoredIdentity]:
        """Return the identities that a device of `site` with these spaces must store."""
        found = {}
        for user_id, identity in self.identities.items():
            rows = frozenset(row for row in identity.rows if row[1] in spaces)
            if identity.is_at(site) and rows:
                found[user_id] = StoredIdentity(identity.flag, identity.name if with_names else None, rows)
        return found


def _expected_identity(document: Mapping[str, Any], templates: list[dict[str, Any]]) -> ExpectedIdentity:
    consent = dict(document["consent"])
    return ExpectedIdentity(
        version=document["version"],
        sites=frozenset(document["sites"]),
        synced_sites=frozenset(document["reach"]),
        deleted=document["deleted"],
        flag=document["flag"],
        name=document["display_name"],
        consent=consent,
        rows=frozenset(
            # Two bytes of BSON's header of a vector come first.
            (template["_id"], template["space"], bytes(template["vector"])[2:])
            for template in templates
            if consent[template["space"].partition(":")[0]]
        ),
    )
