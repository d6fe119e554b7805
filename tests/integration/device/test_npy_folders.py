"""Test the watched folders of `python -m device` on a real broker."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from broker_bridge.contract import channels
from broker_bridge.contract.embeddings import to_array
from broker_bridge.contract.messages import Registered, Upsert, WireTemplate
from deploy.local.stack import Mosquitto, Program
from tests.conftest import FreshDevice
from tests.device_samples import ModelRegistry, vector
from tests.integration.device.conftest import Peer
from tests.integration.device.test_device_program import PYTHON, camera, run
from tests.waiting import wait_until

StartProgram = Callable[..., Program]
FACE, GAIT = "face:gabor-512", "gait:gait-256"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.full((120, 160, 3), 90, dtype=np.uint8))
    return folder


def template(number: int, space: str, dimension: int) -> WireTemplate:
    return WireTemplate(template_id=f"t{number}", space=space, vector=vector(number, dimension), quality=0.9)


def test_files_are_registered_and_identities_are_mirrored_as_files(
    mosquitto: Mosquitto,
    peer: Peer,
    fresh_device: FreshDevice,
    start_program: StartProgram,
    pictures: Path,
    tmp_path: Path,
) -> None:
    """Face and gait folders work in both directions.

    Problems are in the heartbeat, and SIGTERM ends the program.
    """
    folder = tmp_path / "npy"
    registry = peer.registry = ModelRegistry()
    registry.version = 1
    registry.people["EMP-1"] = Upsert(
        user_id="EMP-1", version=1, templates=[template(1, FACE, 512), template(2, GAIT, 256)]
    )
    env = {
        **camera(mosquitto, fresh_device, pictures, tmp_path / "data"),
        "WFM_DEVICE__NPY_DIR": str(folder),
        "WFM_DEVICE__MIRROR_NPY": "true",
        "WFM_DEVICE__WATCH_SECONDS": "0.2",
        "WFM_DEVICE__HEARTBEAT_SECONDS": "0.2",
        "WFM_DEVICE__FURTHER_SPACES": json.dumps({GAIT: 256}),
    }
    program = start_program(PYTHON, env)

    def files(name: str) -> list[str]:
        return sorted(file.name for file in (folder / name).glob("*.npy"))

    wait_until((folder / "gait_db" / "EMP-1.npy").exists, "the mirrored gait", 30.0)
    wait_until(lambda: files("face_db") == ["EMP-1.npy"], "the mirrored face")
    assert np.load(folder / "gait_db" / "EMP-1.npy").tobytes() == vector(2, 256)
    info = peer.messages(channels.INFO, fresh_device.id)[-1]
    assert {space: space_info.dimension for space, space_info in info.spaces.items()} == {
        FACE: 512,
        GAIT: 256,
    }
    applied = peer.messages(channels.SYNC_APPLIED, fresh_device.id)[-1]
    assert applied.spaces[GAIT].digest == registry.digest(GAIT).hex

    np.save(folder / "gait_db" / "EMP-2.npy", to_array(vector(3, 256)))
    np.save(folder / "face_db" / "EMP-3.npy", np.ones(512))
    wait_until(lambda: peer.messages(channels.REGISTER, fresh_device.id), "the registration")
    request = peer.messages(channels.REGISTER, fresh_device.id)[0]
    assert (request.user_id, request.space, request.kind) == ("EMP-2", GAIT, "employee")
    peer.send(
        channels.REGISTERED,
        Registered(request_id=request.request_id, result="created", user_id="EMP-2"),
        device_id=fresh_device.id,
    )

    def heartbeat_has_both() -> bool:
        heartbeat = peer.messages(channels.HEARTBEAT, fresh_device.id)[-1]
        return "EMP-3.npy" in str(heartbeat.problems) and heartbeat.refusals.get("files_registered") == 1

    wait_until(heartbeat_has_both, "a heartbeat that names the file and counts the other")
    beat = peer.messages(channels.HEARTBEAT, fresh_device.id)[-1]
    assert [
        (problem.code, problem.detail) for problem in beat.problems if problem.code == "file-invalid"
    ] == [("file-invalid", "face_db/EMP-3.npy: its type is float64, expected float32")]

    peer.send(channels.SYNC_DELTA, registry.delete("EMP-1"), site_id=fresh_device.site)
    wait_until(lambda: files("face_db") == ["EMP-3.npy"], "the file of the deleted identity is gone")
    wait_until(lambda: files("gait_db") == ["EMP-2.npy"], "in both folders, and no other")
    program.stop()
    assert program.running is False
    # Sent again only if a busy machine did not answer in time.
    assert {one.request_id for one in peer.messages(channels.REGISTER, fresh_device.id)} == {
        request.request_id
    }


def test_an_ambiguous_space_ends_the_program_with_a_sentence(tmp_path: Path) -> None:
    """With two gait spaces the space of a file in `gait_db` is unknown."""
    finished = run(
        [],
        {
            "WFM_DEVICE__ID": "cam-001",
            "WFM_DEVICE__SITE": "lobby",
            "WFM_DEVICE__DATA_DIR": str(tmp_path / "data"),
            "WFM_DEVICE__NPY_DIR": str(tmp_path / "npy"),
            "WFM_DEVICE__FURTHER_SPACES": '{"gait:a": 256, "gait:b": 256}',
        },
    )
    assert finished.returncode == 2
    assert "gait_db needs one space, and the device supports several: gait:a, gait:b" in finished.stderr
    assert "Traceback" not in finished.stderr
