"""A configured limit has an effect in each program, on each side of its default."""

import json
from typing import Any

import pytest

from broker_bridge.common.settings import load_settings
from broker_bridge.settings import BridgeProgram
from dashboard_api.settings import ApiProgram

TRIAL = "face:gabor-512"
ARCFACE = "face:arcface-w600k-r50"
OTHER = "face:other-128"
SPACES = (TRIAL, ARCFACE, OTHER)

Program = type[BridgeProgram] | type[ApiProgram]
BOTH = pytest.mark.parametrize("program", [BridgeProgram, ApiProgram])
IN_EACH_SPACE = pytest.mark.parametrize("space", SPACES)


def load(program: Program, section: str, **values: Any) -> BridgeProgram | ApiProgram:
    """Return the settings of a program whose environment has `values`."""
    environ = {
        f"WFM_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }
    return load_settings(program, None, environ)


@BOTH
@IN_EACH_SPACE
@pytest.mark.parametrize("same_person", [0.55, 0.65, 0.75, 0.9])
def test_the_general_same_person_limit_is_that_of_every_space(
    program: Program, space: str, same_person: float
) -> None:
    """Also where it equals the general default, which the trial space exceeds."""
    limits = load(program, "registry", same_person_similarity=same_person).registry.similarities_in(space)
    assert limits.same_person == same_person
    assert limits.look_alike <= same_person
    assert limits.floor <= same_person - limits.margin


@BOTH
@IN_EACH_SPACE
@pytest.mark.parametrize("look_alike", [0.3, 0.5, 0.6, 0.65])
def test_the_general_look_alike_limit_is_that_of_every_space(
    program: Program, space: str, look_alike: float
) -> None:
    """Alone, and with a limit for the same person."""
    alone = load(program, "registry", look_alike_similarity=look_alike).registry.similarities_in(space)
    assert alone.look_alike == look_alike
    both = load(program, "registry", look_alike_similarity=look_alike, same_person_similarity=0.7).registry
    assert (both.similarities_in(space).look_alike, both.similarities_in(space).same_person) == (
        look_alike,
        0.7,
    )


@BOTH
@pytest.mark.parametrize("own", [TRIAL, ARCFACE])
@pytest.mark.parametrize("entry", [(0.95, 0.9, 0.2), (0.45, 0.4, 0.0), (0.65, 0.5, 0.05)])
def test_an_entry_of_a_space_precedes_the_general_limits(
    program: Program, own: str, entry: tuple[float, float, float]
) -> None:
    """In its space alone; the other spaces keep the general limits."""
    same_person, look_alike, margin = entry
    values = {"same_person": same_person, "look_alike": look_alike, "margin": margin}
    registry = load(
        program,
        "registry",
        similarities={own: values},
        same_person_similarity=0.8,
        look_alike_similarity=0.7,
    ).registry
    assert registry.similarities_in(own).model_dump() == values
    for space in set(SPACES) - {own}:
        limits = registry.similarities_in(space)
        assert (limits.same_person, limits.look_alike) == (0.8, 0.7)


@BOTH
@IN_EACH_SPACE
@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.75, 0.9])
def test_the_general_threshold_of_tracking_is_that_of_every_space(
    program: Program, space: str, similarity: float
) -> None:
    """Also below the default by position, which then is no larger."""
    limits = load(program, "tracking", face_similarity_threshold=similarity).tracking.limits_in(space)
    assert limits.similarity == similarity
    assert limits.by_position <= similarity


@BOTH
@pytest.mark.parametrize("own", [TRIAL, ARCFACE])
@pytest.mark.parametrize("entry", [(0.95, 0.2, 0.9), (0.4, 0.0, 0.3), (0.6, 0.05, 0.45)])
def test_an_entry_of_tracking_precedes_the_general_threshold(
    program: Program, own: str, entry: tuple[float, float, float]
) -> None:
    """In its space alone."""
    similarity, margin, by_position = entry
    values = {"similarity": similarity, "margin": margin, "by_position": by_position}
    tracking = load(program, "tracking", faces={own: values}, face_similarity_threshold=0.85).tracking
    assert tracking.limits_in(own).model_dump() == values
    assert {tracking.limits_in(space).similarity for space in set(SPACES) - {own}} == {0.85}
