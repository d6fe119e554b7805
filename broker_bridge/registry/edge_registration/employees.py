"""Decide whether a device may enroll an employee with a vector.

These are pure rules over values.

The device states the user id, so the face has to confirm it: a device adds templates to an identity, and
never replaces, renames or restores one.
"""

from dataclasses import replace

import numpy as np

from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.errors import FACE_DIFFERS, PAYLOAD_INVALID, SITE_MISMATCH, ContractError
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.contract.spaces import SpaceLimits
from broker_bridge.registry.identities.model import (
    PERSON_MERGED,
    PERSON_UNKNOWN,
    EnrollIdentity,
    Identity,
    IdentityRecord,
)
from broker_bridge.vectors.index import Nearest

from .decisions import RegistrationDecision, RegistrationRequest, ambiguous


def requested_user_id(request: RegisterIdentity) -> str:
    """Return the user id of an employee's request.

    Raises ContractError(`payload-invalid`) without one.
    """
    if request.user_id is None:
        raise ContractError(PAYLOAD_INVALID, "user_id: an employee is registered by user id")
    return request.user_id


def check_enrollable(user_id: str, identity: Identity | None, site_id: str) -> None:
    """Raise ContractError if the site's devices may not add templates.

    The codes are `person-merged`, `person-unknown` and `site-mismatch`. A missing identity may be created.
    """
    if identity is None:
        return
    if identity.merge:
        raise ContractError(
            PERSON_MERGED, f"{user_id} was merged into {identity.merge.into}: register that id"
        )
    if identity.deleted:
        detail = f"{user_id} was deleted: an operator restores an identity, a device does not"
        raise ContractError(PERSON_UNKNOWN, detail)
    if not identity.belongs_to(site_id):
        detail = f"{user_id} does not belong to site {site_id}; a device changes identities of its own site"
        raise ContractError(SITE_MISMATCH, detail)


def decide_employee(
    registration: RegistrationRequest,
    record: IdentityRecord,
    nearest: Nearest | None,
    limits: SpaceLimits,
) -> RegistrationDecision:
    """Return the decision about an employee's vector.

    `record` is the named identity, `nearest` the nearest of all identities.

    `exists` with another user id from `same_person` up: the identity that was enrolled first wins. `created`
    for a missing identity; `exists` if the vector fits the identity's own, or it had none in this space.
    """
    decision, user_id = registration.created, requested_user_id(registration.request)
    own = own_similarity(record, registration.request.space, registration.vector)
    other = _other_identity(decision, own, nearest, user_id, limits) if nearest else None
    if other:
        return other
    if own is not None and own < limits.look_alike:
        detail = f"the face differs from that of {user_id}: an operator replaces the face of an identity"
        return replace(decision, result="rejected", similarity=own, code=FACE_DIFFERS, detail=detail)
    return replace(decision, result="exists" if record.live else "created", user_id=user_id, similarity=own)


def _other_identity(
    decision: RegistrationDecision,
    own: float | None,
    nearest: Nearest,
    user_id: str,
    limits: SpaceLimits,
) -> RegistrationDecision | None:
    """Return the decision if the vector may be another identity's."""
    is_own = nearest.key == user_id
    other = nearest.runner_up if is_own else nearest.similarity
    if other < limits.look_alike:
        return None
    # `own` comes from the record: the index lacks identities whose vectors may not leave the registry.
    if own is not None and own >= limits.look_alike and own - other >= limits.margin:
        return None
    second = max(nearest.runner_up, -1.0 if own is None else own)
    if not is_own and other >= limits.same_person and other - second >= limits.margin:
        return replace(decision, result="exists", user_id=nearest.key, similarity=min(1.0, other))
    return ambiguous(decision, other, limits)


def own_similarity(record: IdentityRecord, space: str, vector: bytes) -> float | None:
    """Return the cosine similarity to the nearest own template in a space.

    None if there is none.
    """
    if record.live is None:
        return None
    own = [
        to_array(template.vector)
        for template in record.templates or ()
        if template.space == space and template.superseded_by is None
    ]
    if not own:
        return None
    similarities = np.stack(own) @ to_array(vector)
    return max(-1.0, min(1.0, float(similarities.max())))


def enrollment_of(registration: RegistrationRequest, record: IdentityRecord) -> EnrollIdentity:
    """Return the change that adds the vector to the identity.

    A missing identity becomes an employee of the device's site.
    """
    user_id = requested_user_id(registration.request)
    templates = (registration.template,)
    if record.live:
        return EnrollIdentity(user_id, templates=templates, must_exist=True, by=registration.by)
    return EnrollIdentity(
        user_id,
        templates=templates,
        display_name=registration.request.display_name,
        sites=(registration.site_id,),
        kind="employee",
        must_be_new=True,
        by=registration.by,
    )
