"""Programs that pause while MongoDB has no primary are at work again afterwards."""

import threading
import time
from collections.abc import Sequence

import pytest

from tests.faults.scene import Scene
from tests.faults.traffic import event_sender, requests_in_flight, write_identity

AT_WORK_SECONDS = 10.0
END_SECONDS = 10.0
# The driver checks its servers twice a second, and a lease is renewed about as often.
BETWEEN_PAUSES = 1.5


@pytest.mark.parametrize(
    "pauses",
    [
        pytest.param((1.2, 2.0, 4.0, 10.0), id="all"),
        *(pytest.param((pause,), marks=pytest.mark.long) for pause in (1.2, 2.0, 4.0, 10.0)),
    ],
)
def test_programs_that_pause_without_a_primary_work_again(scene: Scene, pauses: Sequence[float]) -> None:
    """Bridge and API store an event and an identity within 10 s, and end at SIGTERM.

    Cancelled calls of the driver once left the lock of its topology taken for ever.
    """
    fleet = scene.fleet
    programs = (fleet.bridge, fleet.api)
    with event_sender(scene) as sender:
        sender.receive(1, AT_WORK_SECONDS)
        fleet.mongod.kill()
        with requests_in_flight(scene):
            for pause in pauses:
                threading.Event().wait(BETWEEN_PAUSES)
                for program in programs:
                    program.freeze()
                threading.Event().wait(pause)
                for program in programs:
                    program.thaw()
            threading.Event().wait(BETWEEN_PAUSES)
        assert fleet.http.get("/healthz").status_code == 200
        assert fleet.http.get("/readyz").status_code == 503
        fleet.mongod.start()
        back = time.monotonic()
        sender.receive(2, AT_WORK_SECONDS)
        write_identity(scene, back + AT_WORK_SECONDS - time.monotonic())
    for program in programs:
        assert program.stop(END_SECONDS) == 0, program.output()
        assert "Traceback" not in program.output()
        assert "never retrieved" not in program.output()


@pytest.mark.parametrize("frozen", [False, pytest.param(True, marks=pytest.mark.long)])
def test_programs_end_while_mongodb_is_away(scene: Scene, frozen: bool) -> None:
    """SIGTERM ends bridge and API with status 0 although their calls still wait."""
    fleet = scene.fleet
    if frozen:
        fleet.mongod.program.freeze()
    else:
        fleet.mongod.kill()
    with requests_in_flight(scene):
        for program in (fleet.bridge, fleet.api):
            assert program.stop(END_SECONDS) == 0, program.output()
            assert "Traceback" not in program.output()
