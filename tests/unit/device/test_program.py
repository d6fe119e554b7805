"""The problems that a device reports when its disk fails."""

import time

import numpy as np
import pytest

from broker_bridge.common.clock import utc_now
from device.bootstrap import build
from device.management.heartbeat import HeartbeatSender
from device.settings import DeviceSettings
from device.store.event_queue import buffered_rows
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


def test_a_disk_that_stores_no_event_is_a_problem_until_it_does(program, monkeypatch):
    """The events are kept in memory, none is lost, and the heartbeat says so."""
    monkeypatch.setattr(buffered_rows, "_RETRY_SECONDS", 0.0)
    heartbeat = HeartbeatSender(
        program.parts.client,
        program.parts.sync,
        folder=program.parts.db.connection.path.parent,
        interval=30.0,
        clock=time.monotonic,
        utc_now=utc_now,
        vision=program.vision_readings,
    )
    send(program, 1)
    assert heartbeat.compose().problems == []
    program.parts.db.close()
    for number in (2, 3):
        send(program, number)
    sent = heartbeat.compose()
    assert sent.state == "degraded"
    [problem] = [each for each in sent.problems if each.code == "store-failed"]
    assert problem.detail.startswith("2 events are in memory only")
    assert (sent.outbox_depth, sent.outbox_dropped) == (3, 0)
    program.parts.db.initialize()
    send(program, 4)
    assert "events_lost" not in program.vision_readings().refusals
    assert (heartbeat.compose().problems, program.parts.outbox.depth) == ([], 4)


def test_a_repeated_picture_is_not_recognised_and_is_reported(program):
    """The second of two equal frames does no work; ten seconds of them are a problem."""
    rng = np.random.default_rng(1)
    picture = np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    for number in range(12):
        program._process_frame(Frame(picture, number, float(number)))
    assert program._pipeline.stats.counts["frames"] == 1
    assert [problem.code for problem in program.health.problems() if "camera" in problem.code] == [
        "camera-frozen"
    ]
    program._process_frame(Frame(picture[:, ::-1], 12, 12.0))
    assert program._pipeline.stats.counts["frames"] == 2
    assert not [problem for problem in program.health.problems() if "camera" in problem.code]
