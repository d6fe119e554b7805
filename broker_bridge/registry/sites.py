"""Sites: places whose cameras share one gallery, and what holds at each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from pymongo import ReturnDocument

from broker_bridge.contract.errors import ENROLLMENT_CLOSED, ContractError
from broker_bridge.contract.messages import EnrollmentPolicy

from .audit import Audit, AuditEntry
from .mongo import Mongo

CLOSED: EnrollmentPolicy = "closed"


@dataclass(frozen=True)
class Site:
    """A site. With the policy `visitors` its cameras may register people whom nobody knows."""

    site_id: str
    enrollment_policy: EnrollmentPolicy = CLOSED


class Sites:
    """Collection `sites`."""

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._sites = mongo.db.sites
        self._audit = audit

    async def ensure(self, site_id: str) -> None:
        """Record a site; one that is known stays as it is."""
        begun = {"created_at": datetime.now(timezone.utc)}
        await self._sites.update_one({"_id": site_id}, {"$setOnInsert": begun}, upsert=True)

    async def all(self) -> list[Site]:
        """Every site, in order of its id."""
        return [_site(found) async for found in self._sites.find({}).sort("_id", 1)]

    async def get(self, site_id: str) -> Site | None:
        """The site, or None."""
        found = await self._sites.find_one({"_id": site_id})
        return found and _site(found)

    async def check_open(self, site_id: str, session: Any = None) -> None:
        """Raise ContractError(`enrollment-closed`) unless the site's cameras may register visitors."""
        found = await self._sites.find_one({"_id": site_id}, session=session)
        if found is None or _site(found).enrollment_policy != "visitors":
            raise ContractError(ENROLLMENT_CLOSED, f"site {site_id} does not let cameras register people")

    async def set_policy(
        self, site_id: str, policy: EnrollmentPolicy, *, who: str, at: datetime
    ) -> Site | None:
        """Change a site's enrollment policy, with an audit entry if it was another; None for no such site."""

        async def work(session: Any) -> Site | None:
            found = await self._sites.find_one_and_update(
                {"_id": site_id},
                {"$set": {"enrollment_policy": policy}},
                return_document=ReturnDocument.BEFORE,
                session=session,
            )
            if found is None:
                return None
            before = _site(found).enrollment_policy
            if before != policy:
                entry = AuditEntry(
                    who=who,
                    what="site.enrollment-policy",
                    subject=site_id,
                    at=at,
                    before={"enrollment_policy": before},
                    after={"enrollment_policy": policy},
                )
                await self._audit.record(entry, session)
            return Site(site_id, policy)

        return await self._mongo.transact(work)


def _site(found: Mapping[str, Any]) -> Site:
    return Site(found["_id"], found.get("enrollment_policy", CLOSED))
