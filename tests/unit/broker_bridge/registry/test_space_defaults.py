"""Configuration overrides the default limits of a space."""

from typing import Any

import pytest

from broker_bridge.registry.detected_persons.settings import FaceLimits, TrackingSettings
from broker_bridge.registry.settings import RegistrySettings, SimilarityLimits

TRIAL = "face:gabor-512"


@pytest.mark.parametrize(
    ("configured", "space", "expected"),
    [
        ({}, TRIAL, (0.75, 0.7, 0.05)),
        ({}, "face:other", (0.65, 0.5, 0.05)),
        ({"same_person_similarity": 0.8}, TRIAL, (0.8, 0.7, 0.05)),
        ({"look_alike_similarity": 0.4}, TRIAL, (0.75, 0.4, 0.05)),
        ({"same_person_similarity": 0.65, "look_alike_similarity": 0.5}, TRIAL, (0.65, 0.5, 0.05)),
        ({"same_person_similarity": 0.6}, TRIAL, (0.6, 0.6, 0.05)),
        ({"similarities": {TRIAL: {"same_person": 0.9, "look_alike": 0.8}}}, TRIAL, (0.9, 0.8, 0.05)),
        (
            {"same_person_similarity": 0.6, "similarities": {TRIAL: {"same_person": 0.9, "margin": 0.1}}},
            TRIAL,
            (0.9, 0.5, 0.1),
        ),
        ({"similarities": {TRIAL: {"same_person": 0.9}}}, "face:other", (0.65, 0.5, 0.05)),
    ],
)
def test_enrollment_limits_are_configured_before_they_are_defaults(
    configured: dict[str, Any], space: str, expected: tuple[float, float, float]
) -> None:
    """The space's entry precedes the general limits, these precede the defaults."""
    same_person, look_alike, margin = expected
    limits = SimilarityLimits(same_person=same_person, look_alike=look_alike, margin=margin)
    assert RegistrySettings.model_validate(configured).similarities_in(space) == limits


@pytest.mark.parametrize(
    ("configured", "space", "expected"),
    [
        ({}, TRIAL, (0.75, 0.05, 0.7)),
        ({}, "face:other", (0.6, 0.05, 0.45)),
        ({"face_similarity_threshold": 0.6}, TRIAL, (0.6, 0.05, 0.6)),
        ({"face_similarity_threshold": 0.8}, TRIAL, (0.8, 0.05, 0.7)),
        ({"face_similarity_threshold": 0.4}, "face:other", (0.4, 0.05, 0.4)),
        (
            {"face_similarity_threshold": 0.6, "faces": {TRIAL: {"similarity": 0.9, "margin": 0.1}}},
            TRIAL,
            (0.9, 0.1, 0.45),
        ),
    ],
)
def test_tracking_limits_are_configured_before_they_are_defaults(
    configured: dict[str, Any], space: str, expected: tuple[float, float, float]
) -> None:
    """The space's entry precedes the general threshold, this precedes the defaults."""
    similarity, margin, by_position = expected
    limits = FaceLimits(similarity=similarity, margin=margin, by_position=by_position)
    assert TrackingSettings.model_validate(configured).limits_in(space) == limits
