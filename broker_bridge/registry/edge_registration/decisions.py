"""What was decided about registrations at the edge, so that a repeated request is answered as before."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pymongo import ReturnDocument

from broker_bridge.contract.errors import FACE_AMBIGUOUS
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.devices.sites import Sites
from broker_bridge.registry.identities.model import EnrollIdentity, Identity, Kind, Template
from broker_bridge.registry.identities.service import Identities
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.settings import SimilarityLimits

_LOOKS_ALIKE = "somebody who is known looks alike: too near for another person, too far to be the same"
_ONE_OF_TWO = "two people who are known are equally near: nobody can tell which of them it is"


@dataclass(frozen=True)
class RegistrationDecision:
    """The answer to one request of one device: who the face belongs to, or (`code`, `detail`) why to nobody.

    `similarity` is that to the nearest person known before, if anybody was near.
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
    """A request that may be decided: `vector` is its own brought to unit length, float32[d] as bytes."""

    request: RegisterIdentity
    device_id: str
    site_id: str
    vector: bytes
    at: datetime

    @property
    def begun(self) -> RegistrationDecision:
        """A decision to begin with: `created`, and of whom is not said yet."""
        return RegistrationDecision(
            device_id=self.device_id,
            site_id=self.site_id,
            request_id=self.request.request_id,
            result="created",
            # As MongoDB keeps it, so that what is derived from it is the same when it is read again.
            at=to_milliseconds(self.at),
        )

    @property
    def template(self) -> Template:
        return Template(self.request.space, self.vector, self.request.quality, "edge")

    @property
    def by(self) -> str:
        """Who asks, as the audit says it."""
        return f"device:{self.device_id}"


def ambiguous(
    begun: RegistrationDecision, similarity: float, limits: SimilarityLimits
) -> RegistrationDecision:
    """The decision where nobody can tell whose a vector is that is so similar to somebody's."""
    detail = _ONE_OF_TWO if similarity >= limits.same_person else _LOOKS_ALIKE
    return replace(
        begun, result="rejected", similarity=min(1.0, similarity), code=FACE_AMBIGUOUS, detail=detail
    )


class RegistrationDecisions:
    """Collection `registrations`: decisions without vectors, forgotten after seven days."""

    def __init__(self, mongo: Mongo, identities: Identities, sites: Sites) -> None:
        self._registrations = mongo.db.registrations
        self._identities = identities
        self._sites = sites

    async def find(self, device_id: str, request_id: str) -> RegistrationDecision | None:
        """What was decided before, or None."""
        found = await self._registrations.find_one({"_id": f"{device_id}/{request_id}"})
        return found and _decision(found)

    async def keep(self, decision: RegistrationDecision) -> RegistrationDecision:
        """The decision that stands: this one, or one that was made meanwhile for the same request."""
        found = await self._registrations.find_one_and_update(
            {"_id": decision.key},
            {"$setOnInsert": asdict(decision)},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        return _decision(found)

    async def create(
        self, decision: RegistrationDecision, order: EnrollIdentity, history: History, kind: Kind = "visitor"
    ) -> Identity | None:
        """Carry out `order` together with its `decision`.

        None, and nothing is written, unless the registry still stands at `history` and who must be new is:
        somebody else may have been quicker, and the decision has to be made again. Raises
        ContractError(`enrollment-closed`) if the site has been closed to that kind since.
        """

        async def record(session: Any, _: Identity) -> None:
            await self._sites.check_open(decision.site_id, kind, session)
            await self._registrations.insert_one({"_id": decision.key, **asdict(decision)}, session=session)

        return await self._identities.create_at(order, history, record)


def _decision(found: Document) -> RegistrationDecision:
    return RegistrationDecision(**{name: value for name, value in found.items() if name != "_id"})
