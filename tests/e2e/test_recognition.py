"""Test recognition end to end: visitors, emotions, commands, another model."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.local import sample_video
from deploy.local.fleet import SITE, LocalFleet
from tests.liveness_checks import STEADY
from tests.networks import save_arcface_like, save_network, save_record
from tests.waiting import wait_until

FIRST, SECOND = "cam-001", "cam-002"
KNOWN = "EMP-10001"
SECONDS = 60.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    """Run servers and backend, with one identity enrolled."""
    folder = tmp_path_factory.mktemp("fleet")
    with LocalFleet(folder, [FIRST, SECOND]) as fleet:
        fleet.start_servers()
        fleet.start_backend()
        call(fleet, "POST", "/api/v1/identities", {"user_id": KNOWN})
        photo = sample_video.enrollment_photo(sample_video.IDENTITIES[KNOWN])
        headers = {"Content-Type": "image/jpeg"}
        fleet.http.post(
            f"/api/v1/identities/{KNOWN}/photos", content=photo, headers=headers
        ).raise_for_status()
        yield fleet


def call(fleet: LocalFleet, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = fleet.http.request(method, path, json=body)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def events(fleet: LocalFleet, **fields: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = call(fleet, "GET", "/api/v1/events?limit=500")["items"]
    return [event for event in items if all(event.get(key) == value for key, value in fields.items())]


@pytest.fixture(scope="module")
def camera(fleet: LocalFleet) -> LocalFleet:
    """Run a camera that finds every face happy, and surely a living one."""
    videos = sample_video.make_sample(fleet.folder / "videos", [sample_video.IDENTITIES[KNOWN]], cameras=1)
    smiles = save_network(
        fleet.folder / "smiles.onnx", *smiling(), input_shape=("n", 1, 64, 64), outputs=[("output", ("n", 3))]
    )
    emotion = {
        "model": str(smiles),
        "classes": ["neutral", "happy", "sad"],
        "codes": {"happy": "EV2.2"},
        "min_duration_ms": 300,
    }
    camera = fleet.make_device(
        FIRST,
        {
            "source": str(videos[0].path),
            "loop": True,
            "cooldown_seconds": 5,
            "heartbeat_seconds": 1,
            "emotion": emotion,
            "liveness": "report",
            "liveness_check": STEADY,
            "record_scores": str(fleet.folder / "scores"),
        },
    )
    camera.start()
    wait_until(lambda: events(fleet, user_id=KNOWN), "the camera recognises a face", SECONDS)
    return fleet


def smiling() -> tuple[list[Any]]:
    """Return nodes that return happy for every face."""
    from onnx import TensorProto, helper  # noqa: PLC0415

    answer = helper.make_tensor("answer", TensorProto.FLOAT, [1, 3], [0.05, 0.9, 0.05])
    return (
        [
            helper.make_node("Constant", [], ["answer"], value=answer),
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Sub", ["flat", "flat"], ["zero"]),
            helper.make_node("Add", ["zero", "answer"], ["output"]),
        ],
    )


def test_only_a_recognised_identity_has_emotion_events(camera: LocalFleet) -> None:
    """An emotion event of seed 003 has code, intensity and duration."""
    wait_until(lambda: events(camera, event_type="emotion"), "an emotion", SECONDS)
    for event in events(camera, event_type="emotion"):
        assert (event["user_id"], event["emotion_code"]) == (KNOWN, "EV2.2")
        assert event["event_id"].startswith("EV2.2-")
        assert event["metadata"]["intensity"] == pytest.approx(0.9, abs=0.01)
        assert event["metadata"]["duration_ms"] >= 300


def test_every_event_has_the_liveness_that_the_camera_measured(camera: LocalFleet) -> None:
    """The score of the firmware's check reaches the REST view of each type of event."""
    for kind in ("facial_id", "emotion", "unknown"):
        wait_until(partial(events, camera, event_type=kind), f"an event of type {kind}", SECONDS)
        for event in events(camera, event_type=kind):
            assert event["metadata"]["liveness"] == {"score": 0.93, "method": "depth"}


def test_an_unknown_face_is_an_event_and_no_visitor_at_a_closed_site(
    camera: LocalFleet,
) -> None:
    """Sites are closed by default."""
    wait_until(lambda: events(camera, event_type="unknown"), "the unknown face", SECONDS)
    assert call(camera, "GET", "/api/v1/sites")["items"][0]["enrollment_policy"] == "closed"
    assert [identity["user_id"] for identity in call(camera, "GET", "/api/v1/identities")["items"]] == [KNOWN]


def test_a_canary_command_of_the_dashboard_is_run(camera: LocalFleet) -> None:
    """The running camera reports its result and stays `ok`."""
    command = call(camera, "POST", "/api/v1/commands", {"device_id": FIRST, "name": "run_canary"})

    def answer() -> dict[str, Any]:
        return call(camera, "GET", f"/api/v1/commands/{command['id']}")

    wait_until(lambda: answer()["state"] == "done", "the canary", SECONDS)
    assert "face:resnet29-512" in answer()["detail"]
    health = call(camera, "GET", f"/api/v1/devices/{FIRST}")
    assert health["heartbeat"]["state"] == "ok"
    assert health["problems"] == []


def test_an_open_site_registers_visitors_and_recognises_them(camera: LocalFleet) -> None:
    """The unknown face becomes a visitor and is recognised on the next pass."""
    call(camera, "PATCH", f"/api/v1/sites/{SITE}", {"enrollment_policy": "visitors"})

    def visitors() -> list[str]:
        identities = call(camera, "GET", "/api/v1/identities")["items"]
        return [identity["user_id"] for identity in identities if identity["user_id"].startswith("VIS-")]

    wait_until(visitors, "a visitor", SECONDS)
    [visitor] = visitors()
    wait_until(lambda: events(camera, event_type="facial_id", user_id=visitor), "the visitor again", SECONDS)
    identity = call(camera, "GET", f"/api/v1/identities/{visitor}")
    assert (identity["kind"], identity["sites"]) == ("visitor", [SITE])


def test_recordings_of_the_camera_have_only_scores(camera: LocalFleet) -> None:
    """They contain no picture and no vector."""
    recording = b"".join(file.read_bytes() for file in Path(camera.folder / "scores").iterdir())
    assert KNOWN.encode() in recording
    assert b"distance" in recording
    assert b"vector" not in recording
    assert max(map(len, recording.split(b"\n"))) < 2000


def test_a_camera_with_another_model_sends_no_event_and_is_degraded(
    camera: LocalFleet,
) -> None:
    """The dashboard shows the problem `model-differs`."""
    model = save_record(save_arcface_like(camera.folder / "other.onnx"), "face:other")
    call(camera, "PUT", "/api/v1/spaces/face:other", {"dimension": 512, "model_sha256": "0" * 64})
    [video] = sample_video.make_sample(camera.folder / "more", [sample_video.IDENTITIES[KNOWN]], cameras=1)
    second_camera = camera.make_device(
        SECOND,
        {
            "source": str(video.path),
            "loop": True,
            "model": str(model),
            "heartbeat_seconds": 1,
        },
    )
    second_camera.start()

    def problems() -> list[str]:
        found = camera.http.get(f"/api/v1/devices/{SECOND}")
        heartbeat = (found.json().get("heartbeat") or {}) if found.status_code == 200 else {}
        refused = (heartbeat.get("refusals") or {}).get("quarantined", 0)
        return [problem["code"] for problem in heartbeat.get("problems", [])] if refused > 20 else []

    wait_until(lambda: "model-differs" in problems(), "twenty refusals for the model", SECONDS)
    assert events(camera, device_id=SECOND) == []
    second_camera.stop()
