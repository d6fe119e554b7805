"""Count the identities and cameras of two spaces while one replaces the other."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

from .audit import Audit
from .identities.model import EVERY_SITE, Identity, modality_of
from .identities.store import IdentityStore
from .mongo.client import Document


@dataclass(frozen=True)
class SiteMigration:
    """The identities and devices of a site during a migration.

    `identities` are those in either space whose templates may be sent, `enrolled` those of them in the new
    space. Devices that declare the old space are `on_old`, whatever else they declare; `elsewhere` are the
    devices that declare neither. `site_id` is None for devices that are registered at no site.
    """

    site_id: str | None
    identities: int = 0
    enrolled: int = 0
    on_old: tuple[str, ...] = ()
    on_new: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return self.identities - self.enrolled


@dataclass(frozen=True)
class MigrationState:
    """The identities in either space that are not deleted, and the sites.

    Decommissioned devices are left out. `withheld` are those of `only_old` whose templates may not be sent to
    devices: without consent they are not enrolled again.
    """

    in_both: int
    only_old: int
    only_new: int
    withheld: int
    sites: tuple[SiteMigration, ...]

    @property
    def missing(self) -> int:
        return self.only_old - self.withheld


class SpaceMigration:
    """Reads the state of a migration.

    Identities, sites and devices are read one after the other: a change meanwhile may show in one of them.
    """

    def __init__(self, store: IdentityStore, audit: Audit) -> None:
        self._store = store
        self._db = store.mongo.patient_db
        self._audit = audit

    async def state(self, old: str, new: str) -> MigrationState:
        """Return the counts of two spaces of one modality.

        It takes one pass over the identities.
        """
        cursor = self._db.identities.aggregate(_counting(old, new))
        if isawaitable(cursor):
            # PyMongo's asyncio client returns a coroutine here, Motor the cursor itself.
            cursor = await cursor
        counted = await anext(cursor)
        totals: dict[str, int] = defaultdict(int)
        for group in counted["totals"]:
            key = group["_id"]
            place = "in_both" if key["old"] and key["new"] else "only_old" if key["old"] else "only_new"
            totals[place] += group["count"]
            if place == "only_old" and not key["sent"]:
                totals["withheld"] += group["count"]
        return MigrationState(
            in_both=totals["in_both"],
            only_old=totals["only_old"],
            only_new=totals["only_new"],
            withheld=totals["withheld"],
            sites=await self._sites(old, new, counted["sites"]),
        )

    async def _sites(self, old: str, new: str, groups: Iterable[Document]) -> tuple[SiteMigration, ...]:
        people: dict[str, tuple[int, int]] = {
            group["_id"]: (group["identities"], group["enrolled"]) for group in groups
        }
        everywhere = people.pop(EVERY_SITE, (0, 0))
        devices: dict[str | None, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        wanted = {"site_id": 1, "info.spaces": 1}
        async for found in self._db.devices.find({"decommissioned_at": None}, wanted).sort("_id", 1):
            declared = (found.get("info") or {}).get("spaces") or {}
            place = "on_old" if old in declared else "on_new" if new in declared else "elsewhere"
            devices[found.get("site_id")][place].append(found["_id"])
        known = {found["_id"] async for found in self._db.sites.find({}, {"_id": 1})}
        named = sorted({*known, *people, *(site for site in devices if site is not None)})
        sites = [_site(None, (0, 0), (0, 0), devices[None])] if None in devices else []
        sites += [
            _site(site_id, people.get(site_id, (0, 0)), everywhere, devices[site_id]) for site_id in named
        ]
        return tuple(sites)

    async def page_missing(
        self, old: str, new: str, *, site_id: str | None, after: str, limit: int
    ) -> list[Identity]:
        """Return identities of the old space without a template in the new.

        They are in order of user ids. Those whose templates may not be sent are left out. A site has the
        identities of every site too.
        """
        query: Document = {
            "_id": {"$gt": after},
            "deleted": False,
            "holdings.space": {"$eq": old, "$ne": new},
            f"consent.{modality_of(old)}": {"$ne": False},
        }
        if site_id is not None:
            query["sites"] = {"$in": [site_id, EVERY_SITE]}
        return await self._store.page(query, limit)

    async def was_removed(self, space_id: str) -> bool:
        """Return whether the audit log has a removal of the space."""
        entries = await self._audit.page(subject=space_id)
        return any(entry.what == "space.removed" for entry in entries)


def _site(
    site_id: str | None, own: tuple[int, int], everywhere: tuple[int, int], devices: Mapping[str, list[str]]
) -> SiteMigration:
    """Return a site with its own identities and those of every site.

    Both are counts of all and of enrolled ones.
    """
    return SiteMigration(
        site_id,
        identities=own[0] + everywhere[0],
        enrolled=own[1] + everywhere[1],
        on_old=tuple(devices["on_old"]),
        on_new=tuple(devices["on_new"]),
        elsewhere=tuple(devices["elsewhere"]),
    )


def _counting(old: str, new: str) -> list[dict[str, Any]]:
    """Return the pipeline that counts identities by space, in all and by site."""
    flags = {
        "old": {"$in": [old, "$holdings.space"]},
        "new": {"$in": [new, "$holdings.space"]},
        # A document without the field is from before there was a choice.
        "sent": {"$ne": [f"$consent.{modality_of(old)}", False]},
        # An identity of every site counts once at each, also if it names some of them.
        "sites": {"$cond": [{"$in": [EVERY_SITE, "$sites"]}, [EVERY_SITE], "$sites"]},
    }
    by_flags = {"_id": {"old": "$old", "new": "$new", "sent": "$sent"}, "count": {"$sum": 1}}
    by_site = {
        "_id": "$sites",
        "identities": {"$sum": 1},
        "enrolled": {"$sum": {"$cond": ["$new", 1, 0]}},
    }
    return [
        {"$match": {"deleted": False, "holdings.space": {"$in": [old, new]}}},
        {"$project": flags},
        {
            "$facet": {
                "totals": [{"$group": by_flags}],
                "sites": [{"$match": {"sent": True}}, {"$unwind": "$sites"}, {"$group": by_site}],
            }
        },
    ]
