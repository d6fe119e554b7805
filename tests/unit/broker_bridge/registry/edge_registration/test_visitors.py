"""Known, new or too near to tell: the pure part of registration at the edge."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from broker_bridge.contract.channels import EVENT
from broker_bridge.contract.messages import RegisterIdentity
from broker_bridge.registry.edge_registration.decisions import RegistrationDecision, RegistrationRequest
from broker_bridge.registry.edge_registration.visitors import (
    answer_of,
    decide_visitor,
    enrollment_of,
    new_visitor_id,
    visit_of,
)
from broker_bridge.registry.settings import RegistrySettings
from broker_bridge.vectors.index import Nearest
from tests.space_limits import LIMITS

AT = datetime(2026, 1, 15, 10, 0, 0, 123_456, tzinfo=timezone.utc)
REQUEST = RegisterIdentity(request_id="r-1", space="face:test-4", vector=b"\0" * 16, kind="visitor")


ASKED = RegistrationRequest(REQUEST, "cam-001", "lobby", b"vector", AT)


def decided(similarity: float | None) -> RegistrationDecision:
    nearest = None if similarity is None else Nearest("EMP-1", similarity, 0.3)
    return decide_visitor(ASKED, nearest, LIMITS, "VIS-new")


@pytest.mark.parametrize(
    ("similarity", "result", "user_id", "code"),
    [
        (None, "created", "VIS-new", None),
        (0.4999, "created", "VIS-new", None),
        (0.5, "rejected", None, "face-ambiguous"),
        (0.6499, "rejected", None, "face-ambiguous"),
        (0.65, "exists", "EMP-1", None),
        (1.0000001, "exists", "EMP-1", None),
    ],
)
def test_similarity_decides(
    similarity: float | None, result: str, user_id: str | None, code: str | None
) -> None:
    """Known from `same_person` up, new below `look_alike`, and neither in between."""
    decision = decided(similarity)
    assert (decision.result, decision.user_id, decision.code) == (result, user_id, code)
    answer = answer_of(decision)
    assert (answer.request_id, answer.result, answer.user_id) == ("r-1", result, user_id)
    assert (answer.error and answer.error.code) == code
    assert answer.similarity is None or answer.similarity <= 1


@pytest.mark.parametrize(
    ("runner_up", "result"), [(0.80, "rejected"), (0.7501, "rejected"), (0.7499, "exists"), (-1.0, "exists")]
)
def test_a_face_equally_near_to_two_identities_is_ambiguous(runner_up: float, result: str) -> None:
    """Twins, or a double enrollment: a visit must not go to the wrong identity."""
    nearest = Nearest("EMP-1", 0.8, runner_up)
    decision = decide_visitor(ASKED, nearest, LIMITS, "VIS-new")
    assert decision.result == result
    assert (decision.code == "face-ambiguous") == (result == "rejected")


def test_the_search_reaches_as_far_down_as_the_decision() -> None:
    """The runner-up that decides the margin is found exactly too."""
    assert LIMITS.enrollment_floor == 0.5
    assert LIMITS.model_copy(update={"look_alike": 0.65}).enrollment_floor == pytest.approx(0.6)
    assert LIMITS.model_copy(update={"same_person": 0.02, "look_alike": 0.01}).enrollment_floor == 0.0


def test_a_visit_is_a_valid_event_that_a_repeat_does_not_double() -> None:
    """The visit's id follows from device, request and a time in milliseconds."""
    decision = decided(0.9)
    assert decision.at == AT.replace(microsecond=123_000)
    visit = visit_of(decision, "face:test-4")
    assert EVENT.decode(visit.to_json()) == visit
    assert visit.event_id.startswith("EV3-1768471200123-")
    assert (visit.user_id, visit.device_id, visit.confidence) == ("EMP-1", "cam-001", 0.9)
    assert visit_of(replace(decision), "face:test-4") == visit
    others = [
        replace(decision, request_id="r-2"),
        replace(decision, device_id="cam-002"),
        replace(decision, at=decision.at + timedelta(milliseconds=1)),
    ]
    assert len({visit_of(other, "face:test-4").event_id for other in [decision, *others]}) == 4


def test_a_visitor_belongs_to_the_site_of_the_camera_alone() -> None:
    """A visitor has the site of its camera and one template with its source.

    The id reveals nothing about the person.
    """
    order = enrollment_of(ASKED, "VIS-1")
    assert (order.sites, order.kind, order.templates[0].source) == (("lobby",), "visitor", "edge")
    assert len({new_visitor_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"same_person": 0.4, "look_alike": 0.5},
        {"tracked_similarity": 0.4, "tracked_by_position": 0.5},
        {"look_alike": 1.5},
        {"same_person": -0.1},
        {"distance": 2.1},
        {"distance": float("nan")},
        {"margin": True},
    ],
)
def test_limits_in_the_wrong_order_are_refused_at_start(wrong: dict[str, object]) -> None:
    """A look-alike that is nearer than the person itself makes no sense."""
    with pytest.raises(ValidationError, match=r"must be at most|than or equal|finite|not be true"):
        RegistrySettings.model_validate({"limits": {"face:own": wrong}})
