"""Test `wfm-fleet model migrate` on a real API.

It enrolls into the built-in space.
"""

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pymongo import MongoClient

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import normalise, to_base64
from broker_bridge.contract.spaces import SpaceLimits
from tests.integration.fleet.conftest import KEYS, Api
from tests.space_limits import LIMITS
from tests.unit.fleet.model.conftest import portrait, save

OLD, NEW = "face:old-8", DEFAULT_FACE_SPACE.space
PHOTOGRAPHED = ("anna", "ben", "chris")


def request(api: Api, method: str, path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {KEYS['admin']}"}
    answer = httpx.request(method, api.url + path, json=body, headers=headers, timeout=30)
    assert answer.is_success, answer.text


def enroll(api: Api, user_id: str, space: str, dimension: int, **more: Any) -> None:
    vector = normalise(np.random.default_rng(sum(user_id.encode())).normal(size=dimension), dimension)
    template = {"space": space, "vector": to_base64(vector)}
    request(api, "POST", "/api/v1/identities", {"user_id": user_id, "templates": [template], **more})


def record_limits(api: Api, limits: SpaceLimits | None = LIMITS) -> None:
    """Record the new space with limits, or without."""
    new = DEFAULT_FACE_SPACE.model_copy(update={"limits": limits, "source": None})
    body = new.model_dump(mode="json", exclude={"space"}, exclude_none=True)
    request(api, "PUT", f"/api/v1/spaces/{NEW}", body)


def declare(api: Api, device_id: str, site: str, space: str) -> None:
    request(api, "POST", "/api/v1/devices", {"device_id": device_id, "site_id": site})
    update(api, "devices", device_id, {"info": {"spaces": {space: {"dimension": 8}}}})


def update(api: Api, collection: str, key: str, fields: dict[str, Any]) -> None:
    client: MongoClient[dict[str, Any]]
    with MongoClient(api.mongo_uri) as client:
        client[api.database][collection].update_one({"_id": key}, {"$set": fields})


@pytest.fixture
def old(api: Api) -> Api:
    """Return the API with five people in the old space.

    Three are at the lobby, one at the gate, one everywhere.
    """
    record_limits(api, None)
    request(api, "PUT", f"/api/v1/spaces/{OLD}", {"dimension": 8})
    for name in PHOTOGRAPHED:
        enroll(api, name, OLD, 8, sites=["lobby"])
    enroll(api, "dora", OLD, 8, sites=["gate"])
    enroll(api, "emil", OLD, 8)
    return api


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of photos of three people and a stranger.

    It has a vector of an old model too.
    """
    folder = tmp_path / "photos"
    for face, name in enumerate((*PHOTOGRAPHED, "stranger")):
        save(folder / name / "1.png", portrait(face))
    np.save(folder / "anna" / "old.npy", np.ones(8, np.float32))
    return folder


def marks(output: str) -> list[str]:
    """Return done, next or open of each step."""
    rows = [line.split() for line in output.splitlines() if line.startswith("│")]
    return [row[5] for row in rows if row[1].isdigit() and row[5] in {"done", "next", "open"}]


def test_a_migration_goes_step_by_step(old: Api, photos: Path, tmp_path: Path) -> None:
    """Photos, the others by hand, the cameras, the removal of the old space."""
    migrate = ("model", "migrate", OLD, NEW)
    shown = old.invoke(*migrate)
    assert shown.exit_code == 0, shown.output
    assert marks(shown.output) == ["next", "done", "open", "done", "open"]
    early = old.invoke(*migrate, "--photos", photos)
    assert (early.exit_code, "the step record comes first" in early.output) == (2, True), early.output
    record_limits(old)
    site = old.invoke(*migrate, "--site", "lobby")
    assert (site.exit_code, "4 people are missing" in site.output) == (1, True), site.output

    enrolled = old.invoke(*migrate, "--photos", photos, role="operator")
    assert enrolled.exit_code == 0, enrolled.output
    assert "photos added" in enrolled.output
    assert old.get("/api/v1/identities/stranger").status_code == 404
    assert len(old.get("/api/v1/identities/anna").json()["template_list"]) == 2
    again = old.invoke(*migrate, "--photos", photos)
    assert (again.exit_code, "photos added" in again.output) == (0, False), again.output

    listed = tmp_path / "missing.csv"
    assert old.invoke(*migrate, "--missing", listed, role="viewer").exit_code == 0
    assert [row["user_id"] for row in csv.DictReader(listed.open())] == ["dora", "emil"]
    refused = old.invoke(*migrate, "--remove-old", "--yes")
    assert (refused.exit_code, "the step people comes first" in refused.output) == (2, True)
    enroll(old, "emil", NEW, DEFAULT_FACE_SPACE.dimension)
    lobby = old.invoke(*migrate, "--site", "lobby")
    assert (lobby.exit_code, f"the cameras of lobby may change to {NEW}" in lobby.output) == (0, True)
    assert old.invoke(*migrate, "--site", "gate").exit_code == 1
    request(old, "DELETE", "/api/v1/identities/dora", {})

    declare(old, "cam-1", "lobby", OLD)
    refused = old.invoke(*migrate, "--remove-old", "--yes")
    assert (refused.exit_code, "the step cameras comes first" in refused.output) == (2, True)
    declare(old, "cam-1", "lobby", NEW)
    asked = old.invoke(*migrate, "--remove-old", stdin=b"n\n")
    assert (asked.exit_code, "4 templates of 4 people" in asked.output) == (1, True), asked.output
    assert old.get(f"/api/v1/spaces/{OLD}").status_code == 200
    for _ in range(2):
        removed = old.invoke(*migrate, "--remove-old", "--yes")
        assert (removed.exit_code, marks(removed.output)) == (0, ["done"] * 5), removed.output
    assert old.get(f"/api/v1/spaces/{OLD}").status_code == 404
    assert [one["space"] for one in old.get("/api/v1/identities/anna").json()["template_list"]] == [NEW]


def test_the_missing_are_written_with_their_sources(old: Api) -> None:
    """As JSON lines on standard output, the tables elsewhere; of one site, or of all."""
    update(old, "identities", "dora", {"external": ["alfred_catalog/42"]})
    written = old.invoke("model", "migrate", OLD, NEW, "--missing", "-", "--site", "gate")
    items = [json.loads(line) for line in written.stdout.splitlines()]
    assert [item["user_id"] for item in items] == ["dora", "emil"]
    assert items[0]["sources"] == [{"source_system": "alfred_catalog", "external_id": "42"}]
    assert items[1] == {"user_id": "emil", "kind": "employee", "sources": []}


def test_photos_wait_for_the_api(old: Api, photos: Path) -> None:
    """While the API enrolls into the old space, photos and batches are refused."""
    request(old, "PUT", f"/api/v1/spaces/{OLD}", {"dimension": 8, "limits": LIMITS.model_dump()})
    enroll(old, "anna", NEW, DEFAULT_FACE_SPACE.dimension)
    before = old.dump()
    for arguments in (["--photos", photos], ["--batch", "alfred_catalog", "batch_1"]):
        refused = old.invoke("model", "migrate", NEW, OLD, *arguments)
        assert (refused.exit_code, "the step api comes first" in refused.output) == (2, True)
        assert f"the API enrolls into {NEW}" in refused.output
    assert old.dump() == before


def test_a_refused_photo_is_reported(old: Api, tmp_path: Path) -> None:
    """The others are enrolled; the status is 1 and the person stays missing."""
    record_limits(old)
    save(tmp_path / "photos" / "anna" / "1.png", portrait(0))
    save(tmp_path / "photos" / "ben" / "1.png", np.full((64, 64, 3), 90, np.uint8))
    report = tmp_path / "refused.jsonl"
    run = old.invoke("model", "migrate", OLD, NEW, "--photos", tmp_path / "photos", "--report", report)
    assert run.exit_code == 1, run.output
    (refusal,) = map(json.loads, report.read_text().splitlines())
    assert (refusal["user_id"], refusal["where"]) == ("ben", "ben/1.png")
    missing = old.invoke("model", "migrate", OLD, NEW, "--missing", "-").stdout
    assert [json.loads(line)["user_id"] for line in missing.splitlines()] == ["ben", "chris", "dora", "emil"]


def test_a_batch_is_queued_for_workers(old: Api) -> None:
    """The job has the ids of the catalog alone."""
    record_limits(old)
    run = old.invoke("model", "migrate", OLD, NEW, "--batch", "alfred_catalog", "batch_1")
    assert run.exit_code == 0, run.output
    (job,) = old.get("/api/training/jobs").json()["items"]
    assert (job["job_type"], job["source_system"], job["batch_id"]) == (
        "face_detect_embed",
        "alfred_catalog",
        "batch_1",
    )
    assert job["job_id"] in run.output


WRONG: list[tuple[list[str], str]] = [
    ([OLD, OLD], "cannot replace itself"),
    (["gait:default-256", NEW], "different modalities"),
    (["face:typo", NEW], "no embedding space 'face:typo'"),
    ([OLD, "face:typo"], "no embedding space 'face:typo'"),
    (["Face:Old", NEW], "expected a space"),
    ([OLD, NEW, "--site", "nowhere"], "there is no site nowhere"),
    ([OLD, NEW, "--site", "No Where"], "expected a site"),
    ([OLD, NEW, "--site", "lobby", "--remove-old"], "for all sites"),
    (["gait:default-256", "gait:other", "--photos", "."], "photos have faces alone"),
    ([OLD, NEW, "--photos", "/nowhere/at/all"], "no such folder"),
    ([OLD, NEW, "--missing", "/nowhere/at/all.csv"], "cannot be written"),
]


def test_a_mistake_has_a_sentence_and_changes_nothing(old: Api) -> None:
    """The status is 2."""
    record_limits(old)
    request(old, "PUT", "/api/v1/spaces/gait:other", {"dimension": 256})
    declare(old, "cam-1", "lobby", OLD)
    before = old.dump()
    for arguments, sentence in WRONG:
        run = old.invoke("model", "migrate", *arguments)
        assert (run.exit_code, sentence in " ".join(run.output.split())) == (2, True), (arguments, run.output)
    assert old.dump() == before
