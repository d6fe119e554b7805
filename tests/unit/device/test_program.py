"""What a camera's program says of itself when its disk fails."""

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


def test_a_disk_that_takes_no_event_is_said_until_it_does(program):
    """Events that are lost are the worst that can happen to a device: it is degraded, and counts them."""
    assert send(program, 1).problems == []
    program.parts.db.close()
    readings = [send(program, number) for number in (2, 3)][-1]
    assert [one.code for one in readings.problems] == ["store-failed"]
    assert "events are lost" in readings.problems[0].detail
    assert readings.refusals["events_lost"] == 2
    program.parts.db.initialize()
    assert send(program, 4).problems == []
    assert program.parts.outbox.depth == 2
