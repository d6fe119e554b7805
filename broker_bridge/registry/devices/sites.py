"""Store sites and their enrollment settings.

The cameras of a site share one gallery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from broker_bridge.common.clock import utc_now
from broker_bridge.contract.errors import ENROLLMENT_CLOSED, ContractError
from broker_bridge.contract.messages import EnrollmentPolicy
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.identities.model import Kind
from broker_bridge.registry.mongo.client import Mongo

CLOSED: EnrollmentPolicy = "closed"


@dataclass(frozen=True)
class Site:
    """A site and its enrollment settings.

    With the policy `visitors` its cameras may register unknown faces. If it `registers_employees`, its
    devices may enroll employees by user id, for example from a watched folder.
    """

    site_id: str
    enrollment_policy: EnrollmentPolicy = CLOSED
    registers_employees: bool = False

    def allows_registration(self, kind: Kind) -> bool:
        """Return whether devices of this site may register identities of a kind."""
        return self.registers_employees if kind == "employee" else self.enrollment_policy == "visitors"


class Sites:
    """Collection `sites`."""

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._sites = mongo.db.sites
        self._audit = audit

    async def ensure(self, site_id: str) -> None:
        """Create a site; an existing one stays as it is."""
        created = {"created_at": utc_now()}
        await self._sites.update_one({"_id": site_id}, {"$setOnInsert": created}, upsert=True)

    async def all(self) -> list[Site]:
        """Return every site, in order of id."""
        return [_site(found) async for found in self._sites.find({}).sort("_id", 1)]

    async def get(self, site_id: str) -> Site | None:
        """Return the site, or None."""
        found = await self._sites.find_one({"_id": site_id})
        return found and _site(found)

    async def check_open(self, site_id: str, kind: Kind, session: Any = None) -> None:
        """Raise ContractError unless the site's devices may register this kind.

        The code is `enrollment-closed`.
        """
        found = await self._sites.find_one({"_id": site_id}, session=session)
        if found is None or not _site(found).allows_registration(kind):
            raise ContractError(ENROLLMENT_CLOSED, f"site {site_id} does not let devices register {kind}s")

    async def set_policy(
        self, site_id: str, policy: EnrollmentPolicy, *, by: str, at: datetime
    ) -> Site | None:
        """Change a site's enrollment policy and return the site; see change."""
        return await self.change(site_id, {"enrollment_policy": policy}, by=by, at=at)

    async def change(
        self, site_id: str, settings: Mapping[str, Any], *, by: str, at: datetime
    ) -> Site | None:
        """Change settings of a site and return it; None if it is missing.

        `settings` are by the names of Site's fields.

        Each changed setting gets an audit entry, for example `site.enrollment-policy`.
        """

        async def work(session: Any) -> Site | None:
            found = await self._sites.find_one_and_update(
                {"_id": site_id},
                {"$set": dict(settings)},
                return_document=ReturnDocument.BEFORE,
                session=session,
            )
            if found is None:
                return None
            before = _site(found)
            entries = [
                AuditEntry(
                    who=by,
                    what=f"site.{name.replace('_', '-')}",
                    subject=site_id,
                    at=at,
                    before={name: getattr(before, name)},
                    after={name: value},
                )
                for name, value in settings.items()
                if getattr(before, name) != value
            ]
            await self._audit.record_all(entries, session)
            return replace(before, **settings)

        return await self._mongo.transact(work)


def _site(found: Mapping[str, Any]) -> Site:
    return Site(found["_id"], found.get("enrollment_policy", CLOSED), found.get("registers_employees", False))
