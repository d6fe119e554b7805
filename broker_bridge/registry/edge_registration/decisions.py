"""Keep the decisions about registrations of cameras.

A repeated request gets the same answer.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pymongo import ReturnDocument

from broker_bridge.contract.errors import FACE_AMBIGUOUS
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.devices.sites import Sites
from broker_bridge.registry.identities.model import EnrollIdentity, Identity, Kind, Template
from broker_bridge.registry.identities.service import Identities
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.versions import History

_LOOKS_ALIKE = (
    "the face resembles an enrolled identity: too similar to be another, too different to be the same"
)
_ONE_OF_TWO = "two enrolled identities are equally similar to the face; it may be either"


@dataclass(frozen=True)
class RegistrationDecision:
    """The answer to one request of one device.

    It has a user id, or `code` and `detail` of a rejection.

    `similarity` is that to the nearest identity enrolled before, None if none was near.
    """

    device_id: str
    site_id: str
    request_id: str
    result: Literal["created", "exists", "rejected"]
    at: datetime
    user_id: str | None = None
    similarity: float | None = None
    code: str | None = None
    detail: str | None = None

    @property
    def key(self) -> str:
        """`<device_id>/<request_id>`: neither has a slash."""
        return f"{self.device_id}/{self.request_id}"


@dataclass(frozen=True)
class RegistrationRequest:
    """An admissible request.

    `vector` is its vector in unit length, float32[d] as bytes.
    """

    request: RegisterIdentity
    device_id: str
    site_id: str
    vector: bytes
    at: datetime

    @property
    def created(self) -> RegistrationDecision:
        """A decision `created` without a user id, which the rules complete."""
        return RegistrationDecision(
            device_id=self.device_id,
            site_id=self.site_id,
            request_id=self.request.request_id,
            result="created",
            # As MongoDB keeps it, so that a decision that is read again yields the same event id.
            at=to_milliseconds(self.at),
        )

    @property
    def template(self) -> Template:
        return Template(self.request.space, self.vector, self.request.quality, "edge")

    @property
    def by(self) -> str:
        """The actor in audit entries."""
        return f"device:{self.device_id}"


def ambiguous(decision: RegistrationDecision, similarity: float, limits: SpaceLimits) -> RegistrationDecision:
    """Return the rejection of a vector whose similarity permits no decision."""
    detail = _ONE_OF_TWO if similarity >= limits.same_person else _LOOKS_ALIKE
    return replace(
        decision, result="rejected", similarity=min(1.0, similarity), code=FACE_AMBIGUOUS, detail=detail
    )


class RegistrationDecisions:
    """Collection `registrations`: decisions without vectors.

    A document expires after seven days.
    """

    def __init__(self, mongo: Mongo, identities: Identities, sites: Sites) -> None:
        self._registrations = mongo.db.registrations
        self._identities = identities
        self._sites = sites

    async def find(self, device_id: str, request_id: str) -> RegistrationDecision | None:
        """Return the decision about an earlier request, or None."""
        found = await self._registrations.find_one({"_id": f"{device_id}/{request_id}"})
        return found and _decision(found)

    async def keep(self, decision: RegistrationDecision) -> RegistrationDecision:
        """Store the decision unless the request has one already; return the stored one."""
        found = await self._registrations.find_one_and_update(
            {"_id": decision.key},
            {"$setOnInsert": asdict(decision)},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return _decision(found)

    async def create(
        self, decision: RegistrationDecision, change: EnrollIdentity, history: History, kind: Kind = "visitor"
    ) -> Identity | None:
        """Apply `change` together with its `decision` and return the identity.

        Returns None, and writes nothing, if the registry is no longer at `history` or a new user id is taken:
        then the decision has to be made again. Raises ContractError(`enrollment-closed`) if the site has been
        closed to that kind since.
        """

        async def record(session: Any, _: Identity) -> None:
            await self._sites.check_open(decision.site_id, kind, session)
            await self._registrations.insert_one({"_id": decision.key, **asdict(decision)}, session=session)

        return await self._identities.create_at(change, history, record)


def _decision(found: Document) -> RegistrationDecision:
    return RegistrationDecision(**{name: value for name, value in found.items() if name != "_id"})
