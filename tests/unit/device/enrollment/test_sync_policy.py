"""The decisions on deltas and heads."""

import pytest

from broker_bridge.contract.messages import SpaceDigest, SyncDelta
from device.enrollment.sync_policy import DeltaDecision, HeadDecision, decide_on_delta, decide_on_head
from device.store.cursor import SyncCursor
from tests.device_samples import SPACE, ModelRegistry

AT_10 = SyncCursor("lobby", (SPACE,), "aa", 10)


@pytest.mark.parametrize(
    ("epoch", "previous", "version", "decision"),
    [
        ("aa", 10, 11, DeltaDecision.APPLY),
        ("aa", 7, 14, DeltaDecision.APPLY),
        ("aa", 9, 10, DeltaDecision.IGNORE),
        ("aa", 3, 4, DeltaDecision.IGNORE),
        ("aa", 11, 12, DeltaDecision.REQUEST),
        ("bb", 10, 11, DeltaDecision.REQUEST),
    ],
)
def test_a_delta_applies_when_it_holds_all_that_is_missing(
    epoch: str, previous: int, version: int, decision: DeltaDecision
) -> None:
    """A delta has all of (previous, version]; a known one is ignored, a gap requested."""
    delta = SyncDelta(epoch=epoch, prev_version=previous, version=version)
    assert decide_on_delta(AT_10, delta) is decision


def test_an_equal_version_with_another_digest_is_drift() -> None:
    """Only the device's own spaces count."""
    registry = ModelRegistry()
    registry.enroll("A", 1)
    cursor = SyncCursor("lobby", (SPACE,), "aa", 1)
    digest = registry.digest()
    same = {SPACE: SpaceDigest(count=1, digest=digest.hex)}
    assert decide_on_head(cursor, same, registry.head()) is HeadDecision.CURRENT
    assert decide_on_head(cursor, {}, registry.head()) is HeadDecision.CURRENT
    other = {SPACE: SpaceDigest(count=1, digest="0" * 16)}
    assert decide_on_head(cursor, other, registry.head()) is HeadDecision.DRIFT
    assert decide_on_head(AT_10, same, registry.head()) is HeadDecision.REQUEST
