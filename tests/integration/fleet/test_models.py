"""Test `wfm-fleet model` on a real API: add, calibrate, list, remove."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import normalise, to_base64
from tests.integration.fleet.conftest import Api
from tests.networks import save_arcface_like
from tests.unit.fleet.model.conftest import portrait, save
from tests.unit.fleet.model.test_offline import LIMITS

SPACE = "face:other-64"
SPACES = f"/api/v1/spaces/{SPACE}"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_arcface_like(tmp_path / "other.onnx", dimension=64)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Return a folder with two photos of each of three people."""
    for face, name in enumerate(("anna", "ben", "chris")):
        for variant in range(2):
            save(tmp_path / "faces" / name / f"{variant}.png", portrait(face, variant))
    return tmp_path / "faces"


def enroll(api: Api, count: int, *, spread: float = 1.0) -> None:
    """Enroll people in SPACE; a small `spread` makes them look alike."""
    random = np.random.default_rng(1)
    centre = random.normal(size=64)
    people = []
    for number in range(count):
        vector = normalise(centre * (1 - spread) + random.normal(size=64) * spread, 64)
        people.append(
            {"user_id": f"EMP-{number}", "templates": [{"space": SPACE, "vector": to_base64(vector)}]}
        )
    answer = api.post("/api/v1/identities/bulk", {"people": people})
    assert answer.status_code == 200, answer.text
    assert [item["result"] for item in answer.json()["items"]] == ["created"] * count


def space(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get(SPACES).json()
    return found


def test_a_model_is_recorded_listed_and_removed(api: Api, network: Path, tmp_path: Path) -> None:
    added = api.invoke("model", "add", network, "--space", SPACE)
    assert added.exit_code == 0, added.output
    beside = json.loads(network.with_suffix(".json").read_text())
    assert {name: space(api)[name] for name in beside} == beside
    assert space(api)["limits"] is None
    enroll(api, 3)
    listed = api.invoke("model", "list")
    assert listed.exit_code == 0, listed.output
    row = next(line for line in listed.output.splitlines() if SPACE in line)
    assert [word in row for word in ("64", "nothing is matched", "3")] == [True] * 3
    assert f"{DEFAULT_FACE_SPACE.space} (default)" in listed.output
    spaces = json.loads(api.invoke("model", "list", "--json").output)
    assert {item["space"]: item["templates"] for item in spaces}[SPACE] == 3
    asked = api.invoke("model", "remove", SPACE, stdin=b"n\n")
    assert (asked.exit_code, "3 templates of 3 people" in asked.output) == (1, True)
    assert space(api)["templates"] == 3
    removed = api.invoke("model", "remove", SPACE, "--yes")
    assert removed.exit_code == 0, removed.output
    assert api.get(SPACES).status_code == 404
    assert network.with_suffix(".json").exists()
    again = api.invoke("model", "remove", SPACE, "--yes")
    assert (again.exit_code, f"no space {SPACE}" in again.output) == (2, True)


def test_another_file_is_refused_while_there_are_templates(api: Api, network: Path, tmp_path: Path) -> None:
    """The registry keeps its record, and no record is written beside the file."""
    api.invoke("model", "add", network, "--space", SPACE)
    enroll(api, 1)
    before = space(api)
    other = save_arcface_like(tmp_path / "another.onnx", dimension=64, seed=8)
    refused = api.invoke("model", "add", other, "--space", SPACE)
    assert (refused.exit_code, "refuses (409)" in refused.output) == (2, True)
    assert space(api) == before
    assert not other.with_suffix(".json").exists()


def test_the_space_of_the_api_is_not_removed(api: Api) -> None:
    refused = api.invoke("model", "remove", DEFAULT_FACE_SPACE.space, "--yes")
    assert (refused.exit_code, "refuses (409)" in refused.output) == (2, True)
    assert api.get(f"/api/v1/spaces/{DEFAULT_FACE_SPACE.space}").status_code == 200


@pytest.mark.parametrize("role", ["viewer", "operator", "source"])
def test_another_role_records_and_removes_nothing(api: Api, network: Path, role: str) -> None:
    for arguments in (["add", network, "--space", SPACE], ["remove", DEFAULT_FACE_SPACE.space, "--yes"]):
        refused = api.invoke("model", *arguments, role=role)
        assert (refused.exit_code, "key" in refused.output or "refuses" in refused.output) == (2, True)
    assert not network.with_suffix(".json").exists()
    assert api.get(SPACES).status_code == 404


def test_a_calibration_is_written_to_the_registry(api: Api, network: Path, faces: Path) -> None:
    """Three people show nothing: it takes force. A later `add` keeps the limits."""
    api.invoke("model", "add", network, "--space", SPACE)
    wanted = ["model", "calibrate", faces, "--model", network, "--people", "5", "--far", "0.1"]
    refused = api.invoke(*wanted, "--yes")
    assert (refused.exit_code, space(api)["limits"]) == (1, None)
    assert "too few to show this chance" in refused.output
    asked = api.invoke(*wanted, "--force", stdin=b"n\n")
    assert (asked.exit_code, space(api)["limits"]) == (1, None)
    done = api.invoke(*wanted, "--force", stdin=b"y\n")
    assert done.exit_code == 0, done.output
    found = space(api)
    assert found["limits"]["look_alike"] == found["limits"]["tracked_similarity"]
    assert (found["source"]["kind"], found["source"]["pairs"]) == ("calibrated", 15)
    assert "limits" not in json.loads(network.with_suffix(".json").read_text())
    for options in ([], ["--space", SPACE]):
        assert api.invoke("model", "add", network, *options).exit_code == 0
        assert (space(api)["limits"], space(api)["source"]) == (found["limits"], found["source"])
    limits = network.with_name("limits.json")
    limits.write_text(json.dumps(LIMITS))
    assert api.invoke("model", "add", network, "--limits", limits, "--force").exit_code == 0
    assert (space(api)["limits"], space(api)["source"]["kind"]) == (LIMITS, "shipped")


def test_limits_that_join_people_enrolled_need_force(api: Api, network: Path, faces: Path) -> None:
    """The people of this gallery look alike: every pair lies within the limits."""
    api.invoke("model", "add", network, "--space", SPACE)
    enroll(api, 6, spread=0.02)
    wanted = ["model", "calibrate", faces, "--model", network, "--people", "5", "--far", "0.1", "--yes"]
    refused = api.invoke(*wanted)
    assert (refused.exit_code, space(api)["limits"]) == (1, None)
    assert "15 of 15 pairs of people enrolled lie within these limits" in refused.output
    assert "most alike of the people enrolled: EMP-" in refused.output


def test_a_model_that_the_registry_does_not_know_is_not_calibrated(
    api: Api, network: Path, faces: Path, tmp_path: Path
) -> None:
    """Nor is one that the registry knows as another file."""
    size = ["--people", "5", "--far", "0.1", "--yes"]
    unknown = api.invoke("model", "calibrate", faces, "--model", network, "--space", SPACE, *size)
    assert (unknown.exit_code, "record it with wfm-fleet model add" in unknown.output) == (2, True)
    api.invoke("model", "add", network, "--space", SPACE)
    other = save_arcface_like(tmp_path / "another.onnx", dimension=64, seed=8)
    differs = api.invoke("model", "calibrate", faces, "--model", other, "--space", SPACE, *size)
    assert (differs.exit_code, "as another model" in differs.output) == (2, True)
