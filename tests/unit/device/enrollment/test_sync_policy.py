"""What is done with deltas, heads and pages: decisions over values."""

import pytest

from broker_bridge.contract.messages import Removal, SpaceDigest, SyncDelta, SyncPage, WireTemplate
from device.enrollment.sync_policy import (
    DeltaDecision,
    HeadDecision,
    PageDecision,
    decide_on_delta,
    decide_on_head,
    decide_on_page,
    plan_change,
)
from device.store.cursor import SyncCursor
from tests.device_samples import DIMENSION, SPACE, ModelRegistry, person, vector

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
    """It holds everything of (previous, version]; what is older is known, what leaves a gap is asked for."""
    delta = SyncDelta(epoch=epoch, prev_version=previous, version=version)
    assert decide_on_delta(AT_10, delta) is decision


def test_an_equal_version_with_another_digest_is_drift() -> None:
    """Only the spaces that are held count."""
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


def page(start: int, end: int, epoch: str = "aa", *, reset: bool = False) -> SyncPage:
    return SyncPage(
        request_id="r",
        epoch=epoch,
        from_version=start,
        to_version=end,
        head_version=99,
        reset=reset,
        done=False,
    )


@pytest.mark.parametrize(
    ("staged", "since", "answer", "decision"),
    [
        (None, 10, page(10, 15), PageDecision.APPLY),
        (None, 8, page(8, 10), PageDecision.SKIP),
        (None, 10, page(12, 15), PageDecision.REQUEST),
        (None, 10, page(10, 15, "bb"), PageDecision.REQUEST),
        (None, 10, page(0, 15, "bb", reset=True), PageDecision.BEGIN_RESET),
        (None, 0, page(0, 15), PageDecision.BEGIN_RESET),
        (5, 5, page(5, 9), PageDecision.STAGE),
        (5, 5, page(5, 9, reset=True), PageDecision.STAGE),
        (5, 5, page(0, 9, "bb", reset=True), PageDecision.BEGIN_RESET),
        (5, 5, page(7, 9), PageDecision.REQUEST),
    ],
)
def test_a_page_is_applied_staged_or_asked_for_again(
    staged: int | None, since: int, answer: SyncPage, decision: PageDecision
) -> None:
    """A full snapshot is staged, whether it says so or follows from asking from zero."""
    progress = SyncCursor("lobby", (SPACE,), "aa", staged) if staged is not None else None
    assert decide_on_page(AT_10, progress, since, answer) is decision


def test_templates_of_other_spaces_are_left_out_and_bad_ones_named() -> None:
    """The neighbours apply; the error names person and template and quotes no vector."""
    good, other = person("A", 1, 5), person("A", 1, 6, space="gait:test-4")
    bad = WireTemplate(template_id="t9", space=SPACE, vector=vector(1, 4))
    mixed = good.model_copy(update={"templates": [bad, *other.templates, *good.templates]})

    change = plan_change([mixed, person("B", 2)], [], {SPACE: DIMENSION})

    assert change.upserts == (good, person("B", 2))
    assert change.error is not None
    assert change.error.code == "vector-invalid"
    assert "t9 of A" in change.error.detail


def test_each_person_counts_once_at_the_highest_version() -> None:
    """Whatever the order inside one message."""
    change = plan_change(
        [person("A", 5), person("A", 3), person("B", 2), person("C", 9)],
        [Removal(user_id="B", version=4), Removal(user_id="C", version=8), Removal(user_id="D", version=1)],
        {SPACE: DIMENSION},
    )
    assert {one.user_id: one.version for one in change.upserts} == {"A": 5, "C": 9}
    assert set(change.removals) == {"B", "D"}
