"""Configured limits come before recorded ones, in each program and each space."""

import json
from typing import Any

import pytest

from broker_bridge.common.settings import load_settings
from broker_bridge.registry.detected_persons.settings import TrackingSettings
from broker_bridge.settings import BridgeProgram
from dashboard_api.settings import ApiProgram
from tests.space_limits import LIMITS

ARCFACE = "face:arcface-w600k-r50"
OTHER = "face:other-128"
SPACES = (ARCFACE, OTHER)
WHOLE = LIMITS.model_dump()

Program = type[BridgeProgram] | type[ApiProgram]
BOTH = pytest.mark.parametrize("program", [BridgeProgram, ApiProgram])


def load(program: Program, section: str, **values: Any) -> BridgeProgram | ApiProgram:
    """Return the settings of a program whose environment has `values`."""
    environ = {
        f"WFM_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }
    return load_settings(program, None, environ)


@BOTH
@pytest.mark.parametrize("configured", [{}, *({name: value / 2} for name, value in WHOLE.items()), WHOLE])
def test_a_configured_limit_precedes_the_recorded_one(program: Program, configured: dict[str, float]) -> None:
    """Each limit by itself; the others stay, but for the one that it would cross."""
    (limits,) = load(program, "registry", limits={ARCFACE: configured}).registry.limits.values()
    effective = limits.over(LIMITS)
    assert effective is not None
    followers = {"same_person": "look_alike", "tracked_similarity": "tracked_by_position"}
    crossed = {followers[name]: value for name, value in configured.items() if name in followers}
    assert effective.model_dump() == {**WHOLE, **crossed, **configured}


@pytest.mark.parametrize("lower", ["look_alike", "tracked_by_position"])
def test_the_upper_limit_follows_the_lower_one_too(lower: str) -> None:
    """A configured limit holds, whichever of a pair it is."""
    registry = load(BridgeProgram, "registry", limits={ARCFACE: {lower: 0.9}}).registry
    effective = registry.limits[ARCFACE].over(LIMITS)
    assert effective is not None
    assert (effective.same_person, effective.tracked_similarity) == (
        (0.9, LIMITS.tracked_similarity) if lower == "look_alike" else (LIMITS.same_person, 0.9)
    )


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_some_limits_alone_are_none(missing: str) -> None:
    """Without recorded limits a part is not completed by general ones."""
    part = {name: value for name, value in WHOLE.items() if name != missing}
    registry = load(BridgeProgram, "registry", limits={ARCFACE: part, OTHER: WHOLE}).registry
    assert registry.limits[ARCFACE].over(None) is None
    assert registry.limits[OTHER].over(None) == LIMITS


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9])
def test_the_threshold_of_tracking_is_that_of_every_face_space(similarity: float) -> None:
    """Also below the limit by position, which then is no larger; gait keeps its own."""
    tracking = load(BridgeProgram, "tracking", face_similarity_threshold=similarity).tracking
    for space in SPACES:
        limits = tracking.tracked_limits(space, LIMITS)
        assert limits.tracked_similarity == similarity
        assert limits.tracked_by_position == min(LIMITS.tracked_by_position, similarity)
        assert limits.same_person == LIMITS.same_person
    assert tracking.tracked_limits("gait:own", LIMITS) == LIMITS
    assert TrackingSettings().tracked_limits(ARCFACE, LIMITS) == LIMITS
