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
from broker_bridge.vectors.index import Nearest
from tests.space_limits import LIMITS

AT = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
SPACE = "face:test-4"
VECTOR = normalise([1.0, 0.0, 0.0, 0.0], 4)
IDENTITY = Identity("EMP-1", 3, ("lobby",), ("lobby",))
UNKNOWN = IdentityRecord()


def registration(**changed: object) -> RegistrationRequest:
    fields = {"request_id": "r-1", "space": SPACE, "vector": VECTOR, "kind": "employee", "user_id": "EMP-1"}
    return RegistrationRequest(
        RegisterIdentity.model_validate(fields | changed), "cam-001", "lobby", VECTOR, AT
    )


def at_similarity(similarity: float) -> bytes:
    return normalise([similarity, float(np.sqrt(1 - similarity**2)), 0.0, 0.0], 4)


def holding(similarity: float | None, space: str = SPACE) -> IdentityRecord:
    """Return EMP-1 with a template at `similarity` to the request, or without one."""
    templates = () if similarity is None else (Template(space, at_similarity(similarity)),)
    return IdentityRecord(IDENTITY, templates)


@pytest.mark.parametrize(
    ("stored", "nearest", "result", "user_id", "code"),
    [
        # No identity is near.
        (UNKNOWN, None, "created", "EMP-1", None),
        (holding(None), None, "exists", "EMP-1", None),
        (holding(0.1, "face:other"), None, "exists", "EMP-1", None),
        (holding(0.49), None, "rejected", None, "face-differs"),
        # The identity's own face.
        (holding(0.51), Nearest("EMP-1", 0.51, -1.0), "exists", "EMP-1", None),
        (holding(1.0), Nearest("EMP-1", 1.0, 0.3), "exists", "EMP-1", None),
        (holding(0.9), Nearest("EMP-1", 0.9, 0.84), "exists", "EMP-1", None),
        # The face of another identity: the first enrollment keeps it.
        (UNKNOWN, Nearest("EMP-2", 0.65, 0.3), "exists", "EMP-2", None),
        (holding(0.1), Nearest("EMP-2", 0.9, 0.1), "exists", "EMP-2", None),
        (holding(None), Nearest("EMP-2", 0.9, 0.1), "exists", "EMP-2", None),
        # Too near to another identity for a decision.
        (UNKNOWN, Nearest("EMP-2", 0.5, 0.3), "rejected", None, "face-ambiguous"),
        (UNKNOWN, Nearest("EMP-2", 0.8, 0.76), "rejected", None, "face-ambiguous"),
        (holding(0.9), Nearest("EMP-1", 0.9, 0.86), "rejected", None, "face-ambiguous"),
        (holding(0.6), Nearest("EMP-2", 0.64, 0.6), "rejected", None, "face-ambiguous"),
        (holding(0.1), Nearest("EMP-2", 0.6, 0.1), "rejected", None, "face-ambiguous"),
        # Without consent the identity is in no index, but its templates are compared.
        (holding(0.9), Nearest("EMP-2", 0.6, -1.0), "exists", "EMP-1", None),
        (holding(0.66), Nearest("EMP-2", 0.68, -1.0), "rejected", None, "face-ambiguous"),
    ],
)
def test_the_face_must_agree_with_the_user_id(
    stored: IdentityRecord, nearest: Nearest | None, result: str, user_id: str | None, code: str | None
) -> None:
    """The face is new, its own, of another identity, or ambiguous."""
    decision = decide_employee(registration(), stored, nearest, LIMITS)
    assert (decision.result, decision.user_id, decision.code) == (result, user_id, code)
    assert bool(decision.detail) == bool(code)


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        (replace(IDENTITY, deleted=True), "person-unknown"),
        (replace(IDENTITY, deleted=True, erased=True), "person-unknown"),
        (replace(IDENTITY, deleted=True, merge=IdentityMerge("EMP-2", 2, (), {})), "person-merged"),
        (replace(IDENTITY, sites=("gate",)), "site-mismatch"),
    ],
)
def test_a_device_restores_no_identity_and_changes_none_of_another_site(
    identity: Identity, code: str
) -> None:
    """An identity that left the site is one of another site."""
    with pytest.raises(ContractError) as refused:
        check_enrollable("EMP-1", identity, "lobby")
    assert refused.value.code == code


@pytest.mark.parametrize("identity", [None, IDENTITY, replace(IDENTITY, sites=("*",))])
def test_a_device_enrolls_new_identities_and_those_of_its_site(identity: Identity | None) -> None:
    """An identity of every site belongs to this one."""
    check_enrollable("EMP-1", identity, "lobby")


def test_a_new_employee_gets_the_site_and_a_known_one_is_unchanged() -> None:
    """A device names a new identity, and changes no name, kind or sites."""
    request = registration(display_name="Ana", quality=0.8)
    made = enrollment_of(request, UNKNOWN)
    assert (made.sites, made.kind, made.display_name) == (("lobby",), "employee", "Ana")
    assert (made.must_be_new, made.by) == (True, "device:cam-001")
    added = enrollment_of(request, holding(None))
    assert (added.sites, added.kind, added.display_name, added.must_exist) == (None, None, None, True)
    assert [(template.space, template.quality, template.source) for template in added.templates] == [
        (SPACE, 0.8, "edge")
    ]


def test_superseded_templates_and_those_of_deleted_identities_are_not_compared() -> None:
    """They are stored for an undo or a restore."""
    superseded = IdentityRecord(IDENTITY, (Template(SPACE, VECTOR, superseded_by="EMP-2"),))
    deleted = IdentityRecord(replace(IDENTITY, deleted=True), (Template(SPACE, VECTOR),))
    assert [own_similarity(stored, SPACE, VECTOR) for stored in (superseded, deleted)] == [None, None]


def test_an_employee_without_a_user_id_is_refused() -> None:
    """The code is `payload-invalid`, and no vector is searched."""
    with pytest.raises(ContractError, match="payload-invalid"):
        requested_user_id(registration(user_id=None).request)
