"""The limits of a match come from settings, registry or the model's record."""

import pytest

from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.spaces import SpaceLimits, SpaceRecord
from device.events.match_limits import MatchLimits
from device.recognition.assembly import limits_of
from device.recognition.limits import LimitsInUse
from device.settings import DeviceSection
from tests.networks import LIMITS

CONFIGURED = MatchLimits(0.1, 0.02)
REGISTRY = LIMITS.model_copy(update={"distance": 0.2})
SHIPPED = LIMITS.model_copy(update={"distance": 0.3})


@pytest.mark.parametrize(
    ("configured", "registry", "shipped", "distance", "source"),
    [
        (CONFIGURED, REGISTRY, SHIPPED, 0.1, "configured on this device"),
        (CONFIGURED, None, None, 0.1, "configured on this device"),
        (None, REGISTRY, SHIPPED, 0.2, "of the registry"),
        (None, REGISTRY, None, 0.2, "of the registry"),
        (None, None, SHIPPED, 0.3, "of the record beside the model"),
        (None, None, None, None, None),
    ],
)
def test_the_first_of_settings_registry_and_record_holds(
    configured: MatchLimits | None,
    registry: SpaceLimits | None,
    shipped: SpaceLimits | None,
    distance: float | None,
    source: str | None,
) -> None:
    """Limits that the registry drops do not hold any more."""
    limits = LimitsInUse(configured, shipped)
    before = limits.current
    limits.follow_registry(registry)
    found = limits.current
    assert (found and found.match.distance, found and found.source) == (distance, source)
    limits.follow_registry(None)
    assert limits.current == before


def test_thresholds_of_a_space_that_the_device_lacks_are_refused() -> None:
    """Those of its further spaces are not."""
    record = SpaceRecord(space="face:mine", dimension=8)
    base = {"id": "cam-001", "site": "lobby", "further_spaces": {"gait:walk": 8}}
    entry = {"distance": 0.3}
    fine = DeviceSection.model_validate({**base, "thresholds": {"face:mine": entry, "gait:walk": entry}})
    assert limits_of(fine, record).match_limits() == MatchLimits(0.3, 0.0)
    wrong = DeviceSection.model_validate({**base, "thresholds": {"face:mein": entry}})
    with pytest.raises(SettingsError, match="face:mein is no space of this device"):
        limits_of(wrong, record)
