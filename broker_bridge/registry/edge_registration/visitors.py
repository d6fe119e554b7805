"""Is a face somebody who is known, somebody new, or too near to tell? Pure decisions over what was found."""

import hashlib
import secrets
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event, Registered, WireError
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.registry.settings import SimilarityLimits
from broker_bridge.vectors.index import Nearest

from .decisions import RegistrationDecision, RegistrationRequest, ambiguous

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def new_visitor_id() -> str:
    """A user id that says nothing about its person."""
    return f"VIS-{secrets.token_hex(5)}"


def decide(
    asked: RegistrationRequest, nearest: Nearest | None, limits: SimilarityLimits, new_user_id: str
) -> RegistrationDecision:
    """`exists` from similarity `same_person` up, by `margin` before anybody else, `created` below
    `look_alike`; `rejected` is what nobody can tell."""
    begun = asked.begun
    if nearest is None or nearest.similarity < limits.look_alike:
        return replace(begun, user_id=new_user_id)
    similarity = min(1.0, float(nearest.similarity))
    if similarity >= limits.same_person and nearest.similarity - nearest.runner_up >= limits.margin:
        return replace(begun, result="exists", user_id=nearest.key, similarity=similarity)
    return ambiguous(begun, similarity, limits)


def order_of(asked: RegistrationRequest, user_id: str) -> EnrollIdentity:
    """The order that makes a visitor of the device's site, with this one template."""
    return EnrollIdentity(
        user_id,
        templates=(asked.template,),
        display_name=asked.request.display_name,
        sites=(asked.site_id,),
        kind="visitor",
        must_be_new=True,
        by=asked.by,
    )


def visit_of(decision: RegistrationDecision, space: str) -> Event:
    """The visit of somebody who exists. Its id follows from the request: a repeat is the same event."""
    suffix = hashlib.sha256(decision.key.encode()).hexdigest()[:12]
    similarity = decision.similarity or 0.0
    return Event(
        event_id=new_event_id(
            EVENT_CODES["visit"], (decision.at - _EPOCH) // timedelta(milliseconds=1), suffix
        ),
        device_id=decision.device_id,
        user_id=decision.user_id,
        event_type="visit",
        timestamp=decision.at,
        confidence=max(0.0, similarity),
        metadata={
            "distance": round(1.0 - similarity, 6),
            "space": space,
            "registration": decision.request_id,
        },
    )


def answer_of(decision: RegistrationDecision) -> Registered:
    """A decision as its device hears it."""
    error = None
    if decision.code:
        error = WireError(code=decision.code, detail=decision.detail or "")
    return Registered(
        request_id=decision.request_id,
        result=decision.result,
        user_id=decision.user_id,
        similarity=decision.similarity,
        error=error,
    )
