"""Check that devices equal the registry after any faults of network and processes."""

import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_bridge.enrollment import page_reader, publisher, sync_responder
from broker_bridge.registry.identities.model import DeleteIdentity, EnrollIdentity

from .conftest import Stage
from .sync_steps import FACE, Step, sample, steps
from .sync_world import SyncWorld


@pytest.fixture(scope="module", autouse=True)
def _small_messages() -> object:
    """Make reads and messages so small that a few changes need several."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publisher, "_MAX_CHANGES_PER_READ", 2)
        patched.setattr(publisher, "MAX_PAGE_BYTES", 1200)
        patched.setattr(page_reader, "_BLOCK_IDENTITIES", 3)
        patched.setattr(page_reader, "cut_pages", partial(page_reader.cut_pages, max_bytes=1200))
        yield


@settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(steps=steps, checked_seconds=st.sampled_from([0.0, 1e9]))
def test_every_device_ends_equal_to_the_registry(
    stage: Stage, steps: list[Step], checked_seconds: float
) -> None:
    """Devices end equal and never store invalid or removed identities.

    This also holds if the bridge serves the pages of one read for as long as devices request them in a row.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sync_responder, "_CHECKED_SECONDS", checked_seconds)
        play(stage, steps, may_be_late=checked_seconds > 0)


def play(stage: Stage, steps: list[Step], *, may_be_late: bool = False) -> None:
    """Play steps, check after each, deliver every message and compare."""
    with tempfile.TemporaryDirectory() as folder:
        world = SyncWorld(stage.registry, stage.loop, Path(folder), stage.empty, may_be_late=may_be_late)
        try:
            for step in steps:
                world.play(step)
                world.check()
            world.settle()
            world.check_equal()
        finally:
            world.close()


def _enroll(user_id: str, seed: int) -> Step:
    return ("apply_changes", [EnrollIdentity(user_id, templates=(sample(FACE, seed),))])


_TWO_ARE_KNOWN: list[Step] = [_enroll("P0", 0), _enroll("P1", 1), ("publish_changes",), ("catch_up", 0)]
_P1_IS_DELETED_AND_PURGED: list[Step] = [("apply_changes", [DeleteIdentity("P1")]), ("purge", 1)]


def test_a_delta_does_not_step_over_a_removal_that_was_purged(stage: Stage) -> None:
    """The publisher missed the removal: its delta must make the device send a request."""
    later = [("restart_bridge",), ("publish_changes",), _enroll("P2", 2), ("publish_changes",)]
    play(stage, [*_TWO_ARE_KNOWN, *_P1_IS_DELETED_AND_PURGED, *later, ("deliver", 0, -2)])
    play(stage, [*_TWO_ARE_KNOWN, *_P1_IS_DELETED_AND_PURGED, *later[2:], ("deliver", 0, -2)])


def test_a_removal_that_is_purged_while_a_page_is_read_is_not_stepped_over(stage: Stage) -> None:
    """A purge between decision and read makes the bridge send a snapshot."""
    deliveries = [
        ("publish_changes",),
        ("deliver_all", 0),
        ("wait", 1.0),
        ("answer_during_change", 0, ("purge", 1)),
        ("deliver_all", 0),
    ]
    deleted = [("apply_changes", [DeleteIdentity("P1")]), ("publish_changes",), ("lose_message", 0, 0)]
    play(stage, [*_TWO_ARE_KNOWN, *deleted, *deliveries])
