"""Check that devices equal a restored registry and confirm what is true."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from broker_bridge.enrollment import publisher

from .conftest import Stage
from .restore_world import RestoreWorld, restore_steps
from .sync_steps import Step

# No step of these changes what a device has or has confirmed.
_WITHOUT_EFFECT = {"back_up", "connect", "disconnect", "jump", "lose_message", "restart_api", "wait"}


@pytest.fixture(scope="module", autouse=True)
def _small_reads() -> Iterator[None]:
    """Read two changes at a time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publisher, "_MAX_CHANGES_PER_READ", 2)
        yield


@settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(steps=restore_steps)
def test_every_device_ends_equal_to_a_restored_registry(stage: Stage, steps: list[Step]) -> None:
    """After any order of restores, drops and restarts, with true confirmations."""
    play(stage, steps)


def play(stage: Stage, steps: list[Step]) -> None:
    """Play steps, check after each, let everything settle and compare."""
    with tempfile.TemporaryDirectory() as folder:
        world = RestoreWorld(stage, Path(folder))
        try:
            for step in steps:
                world.play(step)
                if step[0] not in _WITHOUT_EFFECT:
                    world.check()
            world.settle()
            world.check_equal()
        finally:
            world.close()


def _enroll(*numbers: int) -> list[Step]:
    return [("enroll", f"P{n % 4}", n) for n in numbers]


@pytest.mark.parametrize("later", [0, 3])
@pytest.mark.parametrize("poller", [0, 1])
def test_a_device_that_first_polled_after_the_backup_ends_equal(
    stage: Stage, poller: int, later: int
) -> None:
    """The restored registry has no record of what it was given."""
    lost: list[Step] = [*_enroll(0), ("back_up",), *_enroll(1, 2), ("poll", poller)]
    play(stage, [*lost, ("restore_backup",), ("restart_programs",), *_enroll(3, 4, 5)[:later]])
    deleted: list[Step] = [*_enroll(3), ("delete", "P0"), ("confirm", poller)]
    play(stage, [*lost, ("restore_backup",), ("restart_programs",), *deleted])


def test_a_device_asks_until_the_publisher_notices_the_restore(stage: Stage) -> None:
    """The retained head is of a version that the restored registry has not reached."""
    lost: list[Step] = [("back_up",), *_enroll(0), ("publish_changes",), ("catch_up", 0)]
    play(stage, [*lost, ("restore_with_drop",), ("catch_up", 0), ("catch_up", 1)])


def test_a_report_that_the_bridge_gets_before_it_notices_confirms_nothing(stage: Stage) -> None:
    """A deletion follows at a version that the device had in the lost history."""
    lost: list[Step] = [*_enroll(0), ("back_up",), *_enroll(1, 2, 3), ("publish_changes",), ("catch_up", 0)]
    play(stage, [*lost, ("restore_backup",), ("report", 0), ("delete", "P0")])
