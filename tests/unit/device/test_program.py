"""The problems that a device reports when its disk fails."""

import numpy as np
import pytest

from device.bootstrap import build
from device.settings import DeviceSettings
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import FaceBox
from tests.device_samples import event

FRAME = Frame(np.full((120, 160, 3), 90, np.uint8), 0, 0.0)


@pytest.fixture
def program(tmp_path):
    device = {"id": "cam-001", "site": "lobby", "data_dir": str(tmp_path)}
    program = build(DeviceSettings.model_validate({"device": device}))
    yield program
    program.parts.db.close()


def send(program, number):
    program._send(event(number), FaceBox(40, 30, 60, 60), FRAME)
    return program.vision_readings()


def test_a_disk_that_stores_no_event_is_a_problem_until_it_does(program):
    """Lost events are counted, and the device is degraded."""
    assert send(program, 1).problems == []
    program.parts.db.close()
    readings = [send(program, number) for number in (2, 3)][-1]
    assert [problem.code for problem in readings.problems] == ["store-failed"]
    assert "events are lost" in readings.problems[0].detail
    assert readings.refusals["events_lost"] == 2
    program.parts.db.initialize()
    assert send(program, 4).problems == []
    assert program.parts.outbox.depth == 2
