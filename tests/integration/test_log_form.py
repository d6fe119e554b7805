"""Every log line of a demo run has the form of the house."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import sample_video
from deploy.local.event_tap import EventTap
from deploy.local.fleet import LocalFleet
from tests.log_form import LOG_MESSAGE
from tests.waiting import wait_until

CAMERAS = ("cam-entrance", "cam-lobby")
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +[\w.]+: (?P<message>.*)")


def misformed(log: str) -> list[str]:
    """Return the lines of a log in text or JSON that do not have the form."""
    return [line for line in log.splitlines() if not LOG_MESSAGE.match(message_of(line))]


def message_of(line: str) -> str:
    """Return the message of a line; a line of any other program is its own message."""
    if line.startswith("{"):
        message: str = json.loads(line)["message"]
        return message
    found = TEXT_LINE.fullmatch(line)
    return found["message"] if found else f"no log line: {line}="


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LocalFleet]:
    with LocalFleet(tmp_path, CAMERAS) as fleet:
        yield fleet


def test_every_log_line_of_a_demo_run_has_the_form_of_the_house(fleet: LocalFleet) -> None:
    """Bridge, API and two devices start, recognise, delete, lose the broker and stop."""
    [video] = sample_video.make_sample(
        fleet.folder / "videos", [sample_video.IDENTITIES["EMP-10001"]], cameras=1
    )
    for number, camera in enumerate(CAMERAS):
        log_format = {"WFM_LOG__FORMAT": "json" if number else "text"}
        device = fleet.make_device(camera, {"source": str(video.path), "loop": True, "heartbeat_seconds": 5})
        device.env.update(log_format)
    fleet.start_servers()
    fleet.start_backend()
    enroll(fleet, "EMP-10001")
    with EventTap(fleet.broker, quiet=True) as tap:
        for camera in CAMERAS:
            fleet.devices[camera].start()
        wanted = {(camera, "EMP-10001") for camera in CAMERAS}
        assert tap.wait_for(wanted, since=0.0, timeout=90.0) == wanted
    fleet.http.delete("/api/v1/identities/EMP-10001").raise_for_status()
    wait_until(lambda: confirmed(fleet, "EMP-10001") == set(CAMERAS), "both cameras confirm the deletion")
    fleet.broker.restart()
    fleet.bridge.wait_until(
        lambda: fleet.bridge.output().count("connected to the broker") > 1, "reconnect", 60
    )
    assert fleet.stop() == {}
    logs = {program.name: program.output() for program in fleet.programs}
    assert all(logs.values())
    assert {name: lines for name, log in logs.items() if (lines := misformed(log))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-15 10:00:00,000 INFO    uvicorn.error: Started server process [7]",
        "2026-01-15 10:00:00,000 INFO    device.x: camera opened.",
        "2026-01-15 10:00:00,000 INFO    device.x: 3 events wait",
        "2026-01-15 10:00:00,000 INFO    device.x: camera opened source=a b",
        '{"message": "Camera opened"}',
        "Traceback (most recent call last):",
    ],
)
def test_other_lines_are_found(line: str) -> None:
    """Capitals, periods, unquoted values and lines of other programs are misformed."""
    assert misformed(line) == [line]


def enroll(fleet: LocalFleet, user_id: str) -> None:
    photo = sample_video.enrollment_photo(sample_video.IDENTITIES[user_id])
    fleet.http.post("/api/v1/identities", json={"user_id": user_id}).raise_for_status()
    headers = {"Content-Type": "image/jpeg"}
    path = f"/api/v1/identities/{user_id}/photos"
    fleet.http.post(path, content=photo, headers=headers).raise_for_status()


def confirmed(fleet: LocalFleet, user_id: str) -> set[str]:
    answer = fleet.http.get(f"/api/v1/identities/{user_id}/confirmations").raise_for_status()
    return set(answer.json()["confirmed"])
