"""kill -9 of each part in the middle of a stream of events and enrollment changes."""

from collections.abc import Callable, Sequence

import pytest

from tests.faults.scene import DEVICES, Scene

EVENTS = 300
"""Per camera, at 60 a second."""


def kill_broker(scene: Scene) -> None:
    scene.fleet.broker.kill()
    scene.fleet.broker.start()


def kill_bridge(scene: Scene) -> None:
    scene.fleet.bridge.kill()
    scene.fleet.bridge.start()


def kill_api(scene: Scene) -> None:
    scene.fleet.api.kill()
    scene.fleet.api.start()


def kill_mongod(scene: Scene) -> None:
    scene.fleet.mongod.kill()
    scene.fleet.mongod.start()


KILLS = (kill_broker, kill_bridge, kill_api, kill_mongod)


@pytest.mark.parametrize(
    "kills",
    [KILLS, *(pytest.param((kill, kill), marks=pytest.mark.long, id=kill.__name__) for kill in KILLS)],
)
def test_killed_servers_lose_no_event_and_no_change(
    scene: Scene, kills: Sequence[Callable[[Scene], None]]
) -> None:
    """Kills in one stream lose no event and no change, and double none.

    Versions stay gapless and devices equal the registry. The short form kills each server once, the long
    ones kill one server twice.
    """
    scene.stream(events=EVENTS)
    for n, kill in enumerate(kills):
        scene.wait_for_events(100 + n * 400 // len(kills))
        kill(scene)
    scene.finish()
    scene.assert_nothing_lost_or_doubled()
    scene.assert_versions_gapless()
    scene.assert_cameras_equal_registry()


def test_a_killed_camera_sends_what_its_outbox_held(scene: Scene) -> None:
    """A camera that restarts sends the events of its outbox that have no receipt."""
    scene.stream(events=EVENTS)
    scene.wait_for_events(100)
    scene.cameras[DEVICES[0]].kill()
    scene.start_camera(DEVICES[0], EVENTS)
    scene.finish()
    scene.assert_nothing_lost_or_doubled(killed=True)
    scene.assert_versions_gapless()
    scene.assert_cameras_equal_registry()


def test_one_of_two_bridges_dies_and_the_other_takes_over(scene: Scene) -> None:
    """The surviving bridge gets all events, and leads once the lease has run out."""
    second = scene.fleet.make_bridge("bridge-2")
    scene.fleet.programs.append(second)
    second.start()
    second.wait_for_line("connected to the broker")
    scene.stream(events=EVENTS)
    scene.wait_for_events(100)
    scene.fleet.bridge.kill()
    scene.finish()
    second.wait_for_line("leader election won task=publisher", timeout=60)
    scene.assert_nothing_lost_or_doubled()
    scene.assert_versions_gapless()
    scene.assert_cameras_equal_registry()
