"""Decide whether a face is enrolled, a new visitor, or ambiguous.

These are pure rules over values.
"""

import hashlib
import secrets
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from broker_bridge.contract.ids import EVENT_CODES, new_event_id
from broker_bridge.contract.messages import Event, Registered, WireError
from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.registry.identities.model import EnrollIdentity
from broker_bridge.vectors.index import Nearest

from .decisions import RegistrationDecision, RegistrationRequest, ambiguous

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def new_visitor_id() -> str:
    """Return a random user id."""
    return f"VIS-{secrets.token_hex(5)}"


def decide_visitor(
    registration: RegistrationRequest, nearest: Nearest | None, limits: SpaceLimits, new_user_id: str
) -> RegistrationDecision:
    """Return the decision about a visitor's face.

    `exists` from similarity `same_person` up, if no other identity is within `margin`; `created` below
    `look_alike`; `rejected` in between.
    """
    decision = registration.created
    if nearest is None or nearest.similarity < limits.look_alike:
        return replace(decision, user_id=new_user_id)
    similarity = min(1.0, float(nearest.similarity))
    if similarity >= limits.same_person and nearest.similarity - nearest.runner_up >= limits.margin:
        return replace(decision, result="exists", user_id=nearest.key, similarity=similarity)
    return ambiguous(decision, similarity, limits)


def enrollment_of(registration: RegistrationRequest, user_id: str) -> EnrollIdentity:
    """Return the change that creates a visitor of the device's site with one template."""
    return EnrollIdentity(
        user_id,
        templates=(registration.template,),
        display_name=registration.request.display_name,
        sites=(registration.site_id,),
        kind="visitor",
        must_be_new=True,
        by=registration.by,
    )


def visit_of(decision: RegistrationDecision, space: str) -> Event:
    """Return the visit of an existing identity.

    Its id follows from the request, so that a repeat is the same event.
    """
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
    """Return the answer to the device."""
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
