"""The decision on an employee that a device registers, as a pure function."""

from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.registry.edge_registration.decisions import RegistrationRequest
from broker_bridge.registry.edge_registration.employees import (
    check_enrollable,
    decide_employee,
    enrollment_of,
    own_similarity,
    requested_user_id,
)
from broker_bridge.registry.identities.model import Identity, IdentityMerge, IdentityRecord, Template
from broker_bridge.registry.settings import SimilarityLimits
from broker_bridge.vectors.index import Nearest

AT = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
LIMITS = SimilarityLimits(same_person=0.65, look_alike=0.5)
SPACE = "face:test-4"
VECTOR = normalise([1.0, 0.0, 0.0, 0.0], 4)
PERSON = Identity("EMP-1", 3, ("lobby",), ("lobby",))
NO_IDENTITY = IdentityRecord()


def asked(**changed: object) -> RegistrationRequest:
    fields = {"request_id": "r-1", "space": SPACE, "vector": VECTOR, "kind": "employee", "user_id": "EMP-1"}
    return RegistrationRequest(
        RegisterIdentity.model_validate(fields | changed), "cam-001", "lobby", VECTOR, AT
    )


def at_similarity(similarity: float) -> bytes:
    return normalise([similarity, float(np.sqrt(1 - similarity**2)), 0.0, 0.0], 4)


def holding(similarity: float | None, space: str = SPACE) -> IdentityRecord:
    """EMP-1, with a template so similar to the one asked about; None: without any."""
    templates = () if similarity is None else (Template(space, at_similarity(similarity)),)
    return IdentityRecord(PERSON, templates)


@pytest.mark.parametrize(
    ("held", "nearest", "result", "user_id", "code"),
    [
        # No identity is near.
        (NO_IDENTITY, None, "created", "EMP-1", None),
        (holding(None), None, "exists", "EMP-1", None),
        (holding(0.1, "face:other"), None, "exists", "EMP-1", None),
        (holding(0.49), None, "rejected", None, "face-differs"),
        # The person's own face.
        (holding(0.51), Nearest("EMP-1", 0.51, -1.0), "exists", "EMP-1", None),
        (holding(1.0), Nearest("EMP-1", 1.0, 0.3), "exists", "EMP-1", None),
        (holding(0.9), Nearest("EMP-1", 0.9, 0.84), "exists", "EMP-1", None),
        # The face of another identity: the first enrollment keeps it.
        (NO_IDENTITY, Nearest("EMP-2", 0.65, 0.3), "exists", "EMP-2", None),
        (holding(0.1), Nearest("EMP-2", 0.9, 0.1), "exists", "EMP-2", None),
        (holding(None), Nearest("EMP-2", 0.9, 0.1), "exists", "EMP-2", None),
        # Too near to another identity for a decision.
        (NO_IDENTITY, Nearest("EMP-2", 0.5, 0.3), "rejected", None, "face-ambiguous"),
        (NO_IDENTITY, Nearest("EMP-2", 0.8, 0.76), "rejected", None, "face-ambiguous"),
        (holding(0.9), Nearest("EMP-1", 0.9, 0.86), "rejected", None, "face-ambiguous"),
        (holding(0.6), Nearest("EMP-2", 0.64, 0.6), "rejected", None, "face-ambiguous"),
        (holding(0.1), Nearest("EMP-2", 0.6, 0.1), "rejected", None, "face-ambiguous"),
        # Without consent the person is in no index, and is compared with all the same.
        (holding(0.9), Nearest("EMP-2", 0.6, -1.0), "exists", "EMP-1", None),
        (holding(0.66), Nearest("EMP-2", 0.68, -1.0), "rejected", None, "face-ambiguous"),
    ],
)
def test_the_face_has_to_bear_out_the_user_id(
    held: IdentityRecord, nearest: Nearest | None, result: str, user_id: str | None, code: str | None
) -> None:
    """The face is new, its own, of another identity, or ambiguous."""
    decision = decide_employee(asked(), held, nearest, LIMITS)
    assert (decision.result, decision.user_id, decision.code) == (result, user_id, code)
    assert bool(decision.detail) == bool(code)


@pytest.mark.parametrize(
    ("person", "code"),
    [
        (replace(PERSON, deleted=True), "person-unknown"),
        (replace(PERSON, deleted=True, erased=True), "person-unknown"),
        (replace(PERSON, deleted=True, merge=IdentityMerge("EMP-2", 2, (), {})), "person-merged"),
        (replace(PERSON, sites=("gate",)), "site-mismatch"),
    ],
)
def test_a_device_restores_no_identity_and_changes_none_of_another_site(person: Identity, code: str) -> None:
    """Also where the person was of this site once."""
    with pytest.raises(ContractError) as refused:
        check_enrollable("EMP-1", person, "lobby")
    assert refused.value.code == code


@pytest.mark.parametrize("person", [None, PERSON, replace(PERSON, sites=("*",))])
def test_a_device_enrolls_new_identities_and_those_of_its_site(person: Identity | None) -> None:
    """An identity of every site belongs to this one."""
    check_enrollable("EMP-1", person, "lobby")


def test_a_new_employee_belongs_to_the_site_and_a_known_one_stays_as_they_are() -> None:
    """A device names a new identity, and changes no name, kind or sites."""
    request = asked(display_name="Ana", quality=0.8)
    made = enrollment_of(request, NO_IDENTITY)
    assert (made.sites, made.kind, made.display_name) == (("lobby",), "employee", "Ana")
    assert (made.must_be_new, made.by) == (True, "device:cam-001")
    added = enrollment_of(request, holding(None))
    assert (added.sites, added.kind, added.display_name, added.must_exist) == (None, None, None, True)
    assert [(one.space, one.quality, one.source) for one in added.templates] == [(SPACE, 0.8, "edge")]


def test_parked_templates_and_those_of_the_deleted_are_not_compared() -> None:
    """They are kept for an undo, or for a restore."""
    parked = IdentityRecord(PERSON, (Template(SPACE, VECTOR, superseded_by="EMP-2"),))
    deleted = IdentityRecord(replace(PERSON, deleted=True), (Template(SPACE, VECTOR),))
    assert [own_similarity(held, SPACE, VECTOR) for held in (parked, deleted)] == [None, None]


def test_an_employee_without_a_user_id_is_refused() -> None:
    """By a code of the contract, before anything is searched."""
    with pytest.raises(ContractError, match="payload-invalid"):
        requested_user_id(asked(user_id=None).request)
