"""May a device enroll this employee with this vector? Pure decisions over what the registry holds.

The user id is the device's word, so the face has to bear it out: a device adds to a person, and never
replaces one, renames one or brings one back.
"""

from dataclasses import replace

import numpy as np

from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.errors import FACE_DIFFERS, PAYLOAD_INVALID, SITE_MISMATCH, ContractError
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.registry.identities.model import (
    PERSON_MERGED,
    PERSON_UNKNOWN,
    EnrollIdentity,
    Identity,
    IdentityRecord,
)
from broker_bridge.registry.settings import SimilarityLimits
from broker_bridge.vectors.index import Nearest

from .decisions import RegistrationDecision, RegistrationRequest, ambiguous


def named(request: RegisterIdentity) -> str:
    """The user id of an employee's request; raises ContractError(`payload-invalid`) without one."""
    if request.user_id is None:
        raise ContractError(PAYLOAD_INVALID, "user_id: an employee is registered by user id")
    return request.user_id


def check_enrollable(user_id: str, person: Identity | None, site_id: str) -> None:
    """Raise ContractError(`person-merged`, `person-unknown`, `site-mismatch`) for whom a device of the site
    may not add to; nobody at all may be made."""
    if person is None:
        return
    if person.merge:
        raise ContractError(PERSON_MERGED, f"{user_id} went into {person.merge.into}: register there")
    if person.deleted:
        detail = f"{user_id} was deleted: a device does not bring anybody back, an operator restores them"
        raise ContractError(PERSON_UNKNOWN, detail)
    if not person.belongs_to(site_id):
        raise ContractError(
            SITE_MISMATCH, f"{user_id} does not belong to site {site_id}, whose devices change only their own"
        )


def decide(
    asked: RegistrationRequest, held: IdentityRecord, nearest: Nearest | None, limits: SimilarityLimits
) -> RegistrationDecision:
    """Whose the vector is, given what the named person has `held` and who of all is `nearest`.

    `exists` with somebody else's user id from `same_person` up: whoever was enrolled first wins. `created`
    for a person who was not there, `exists` for one whose vector this is, or who had none in this space.
    """
    begun, user_id = asked.begun, named(asked.request)
    own = own_similarity(held, asked.request.space, asked.vector)
    elsewhere = _somebody_else(begun, own, nearest, user_id, limits) if nearest else None
    if elsewhere:
        return elsewhere
    if own is not None and own < limits.look_alike:
        detail = f"{user_id} looks different: an operator replaces the face of a person"
        return replace(begun, result="rejected", similarity=own, code=FACE_DIFFERS, detail=detail)
    return replace(begun, result="exists" if held.live else "created", user_id=user_id, similarity=own)


def _somebody_else(
    begun: RegistrationDecision, own: float | None, nearest: Nearest, user_id: str, limits: SimilarityLimits
) -> RegistrationDecision | None:
    """The decision where the vector is, or may be, that of another person than `user_id`."""
    is_own = nearest.key == user_id
    other = nearest.runner_up if is_own else nearest.similarity
    if other < limits.look_alike:
        return None
    # Not the index's word: it knows nobody whose vectors may not leave the registry.
    if own is not None and own >= limits.look_alike and own - other >= limits.margin:
        return None
    second = max(nearest.runner_up, -1.0 if own is None else own)
    if not is_own and other >= limits.same_person and other - second >= limits.margin:
        return replace(begun, result="exists", user_id=nearest.key, similarity=min(1.0, other))
    return ambiguous(begun, other, limits)


def own_similarity(held: IdentityRecord, space: str, vector: bytes) -> float | None:
    """Cosine similarity to the nearest of the person's own templates in a space; None if there is none."""
    if held.live is None:
        return None
    own = [one.vector for one in held.templates or () if one.space == space and one.superseded_by is None]
    if not own:
        return None
    similarities = np.stack([to_array(one) for one in own]) @ to_array(vector)
    return max(-1.0, min(1.0, float(similarities.max())))


def order_of(asked: RegistrationRequest, held: IdentityRecord) -> EnrollIdentity:
    """The order that adds the vector to the person, or makes an employee of the device's site of it."""
    user_id = named(asked.request)
    if held.live:
        return EnrollIdentity(user_id, templates=(asked.template,), must_exist=True, by=asked.by)
    return EnrollIdentity(
        user_id,
        templates=(asked.template,),
        display_name=asked.request.display_name,
        sites=(asked.site_id,),
        kind="employee",
        must_be_new=True,
        by=asked.by,
    )
