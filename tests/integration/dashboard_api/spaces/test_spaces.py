"""The records of embedding spaces over REST."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from broker_bridge.registry.spaces import MAX_RECORDS
from tests.integration.dashboard_api.conftest import FACE, GAIT, client_of, is_problem, vector
from tests.space_limits import LIMITS

OWN = "face:own-4"
PATH = f"/api/v1/spaces/{OWN}"
SHA, OTHER_SHA = "a" * 64, "b" * 64
RECORD: dict[str, Any] = {
    "dimension": 4,
    "model_sha256": SHA,
    "detector": "scrfd",
    "alignment": "landmarks",
    "limits": LIMITS.model_dump(),
}
CALIBRATED = {"kind": "calibrated", "at": "2026-01-15T10:00:00.000Z", "pairs": 2442, "note": "17 people"}


async def enroll(registry: Registry, user_id: str, n: int, space: str = OWN, dimension: int = 4) -> None:
    template = Template(space, normalise(vector(n, dimension), dimension))
    await registry.identities.enroll(EnrollIdentity(user_id, templates=(template,)))


async def test_a_record_is_made_listed_and_changed(api: httpx.AsyncClient, registry: Registry) -> None:
    """PUT replaces the whole record; the audit log has the limits before and after."""
    made = await api.put(PATH, json=RECORD)
    assert made.status_code == 201
    assert made.json()["source"]["kind"] == "configured"
    changed = RECORD | {"limits": RECORD["limits"] | {"distance": 0.6}, "source": CALIBRATED}
    assert (await api.put(PATH, json=changed)).status_code == 200
    shown = (await api.get(PATH)).json()
    assert shown == {
        "space": OWN,
        **changed,
        "templates": 0,
        "identities": 0,
        "devices": [],
        "default": False,
    }
    listed = (await api.get("/api/v1/spaces")).json()["items"]
    assert [item["space"] for item in listed] == [OWN, FACE, GAIT]
    assert [item["default"] for item in listed] == [False, True, True]
    newest, first = await registry.audit.page(subject=OWN)
    assert (first.who, first.what, first.before) == ("admin", "space.recorded", None)
    assert newest.before is not None
    assert newest.after is not None
    assert (newest.before["limits"]["distance"], newest.after["limits"]["distance"]) == (0.35, 0.6)
    assert newest.after["source"]["pairs"] == 2442


async def test_the_same_record_again_is_no_change(api: httpx.AsyncClient, registry: Registry) -> None:
    """A repeated PUT leaves one audit entry."""
    record = RECORD | {"source": CALIBRATED}
    assert [(await api.put(PATH, json=record)).status_code for _ in range(2)] == [201, 200]
    assert len(await registry.audit.page(subject=OWN)) == 1


WRONG: list[dict[str, Any]] = [
    {"dimension": 0},
    {"dimension": 4097},
    {"dimension": None},
    {"model_sha256": SHA.upper()},
    {"model_sha256": "aa"},
    {"detector": "mtcnn"},
    {"alignment": "eyes"},
    {"limits": {"distance": 0.3}},
    {"limits": LIMITS.model_dump() | {"look_alike": 0.9}},
    {"limits": LIMITS.model_dump() | {"tracked_by_position": 0.9}},
    {"limits": LIMITS.model_dump() | {"margin": "much"}},
    {"limits": LIMITS.model_dump() | {"distance": 2.1}},
    {"limits": LIMITS.model_dump() | {"threshold": 0.5}},
    {"limits": None, "source": CALIBRATED},
    {"source": {"kind": "calibrated", "at": CALIBRATED["at"]}},
    {"source": {"kind": "guessed"}},
    {"space": OWN},
    {"surprise": 1},
]


async def test_a_wrong_record_is_refused(api: httpx.AsyncClient, registry: Registry) -> None:
    """Each mistake is a 422, and nothing is recorded."""
    for wrong in WRONG:
        is_problem(await api.put(PATH, json=RECORD | wrong), 422, "request-invalid")
    assert OWN not in await registry.spaces.records()


async def test_numbers_that_json_does_not_have_are_refused(api: httpx.AsyncClient) -> None:
    """NaN is no limit."""
    body = '{"dimension": 4, "limits": {"distance": NaN}}'
    answer = await api.put(PATH, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


STATUS_BY_NAME = {
    "face%3Aown-4": 201,
    "gait:own-4": 201,
    "face:Own": 422,
    "face:own_4": 422,
    "face:": 422,
    "iris:own": 422,
    "face:own%2F4": 404,
    "face:own%00": 422,
    "face:" + "x" * 64: 422,
}


async def test_a_space_has_a_name_of_the_contract(api: httpx.AsyncClient) -> None:
    """A name may be percent-encoded; one that no device can have is refused."""
    answers = {
        name: await api.put(f"/api/v1/spaces/{name}", json={"dimension": 4}) for name in STATUS_BY_NAME
    }
    assert {name: answer.status_code for name, answer in answers.items()} == STATUS_BY_NAME


async def test_only_faces_have_a_detector(api: httpx.AsyncClient) -> None:
    """A record of gait has neither detector nor alignment."""
    is_problem(await api.put("/api/v1/spaces/gait:own", json=RECORD), 422, "request-invalid")
    plain = {name: value for name, value in RECORD.items() if name not in {"detector", "alignment"}}
    assert (await api.put("/api/v1/spaces/gait:own", json=plain)).status_code == 201


@pytest.mark.parametrize(("role", "lists"), [("operator", True), ("viewer", True), ("source", False)])
async def test_only_an_admin_changes_spaces(
    app: FastAPI, api: httpx.AsyncClient, role: str, lists: bool
) -> None:
    """Others read at most; a source reads the record that its vectors have to fit."""
    await api.put(PATH, json=RECORD)
    async with client_of(app, role) as client:
        is_problem(await client.put(PATH, json=RECORD), 403, "role-insufficient")
        is_problem(await client.delete(PATH), 403, "role-insufficient")
        assert (await client.get(PATH)).status_code == 200
        assert (await client.get("/api/v1/spaces")).status_code == (200 if lists else 403)


@pytest.mark.parametrize("changed", [{"dimension": 8}, {"model_sha256": OTHER_SHA}])
async def test_another_model_needs_another_space(
    api: httpx.AsyncClient, registry: Registry, changed: dict[str, Any]
) -> None:
    """Dimension and model file stay while templates are stored; limits may change."""
    await api.put(PATH, json=RECORD)
    await enroll(registry, "EMP-1", 1)
    is_problem(await api.put(PATH, json=RECORD | changed), 409, "space-mismatch")
    assert (await api.put(PATH, json=RECORD | {"limits": None})).status_code == 200
    await registry.identities.remove_modality("EMP-1", "face")
    assert (await api.put(PATH, json=RECORD | changed)).status_code == 200


@pytest.mark.parametrize("changed", [{"dimension": 4}, {"model_sha256": SHA}])
async def test_no_other_model_takes_the_name_of_the_default(
    api: httpx.AsyncClient, changed: dict[str, Any]
) -> None:
    """The built-in space may be calibrated, and keeps its model."""
    own = DEFAULT_FACE_SPACE.model_dump(mode="json", exclude={"space"}, exclude_none=True)
    path = f"/api/v1/spaces/{DEFAULT_FACE_SPACE.space}"
    is_problem(await api.put(path, json=own | changed), 409, "space-mismatch")
    assert (await api.put(path, json=own | {"source": CALIBRATED})).status_code == 201


async def test_a_removed_space_leaves_nothing(api: httpx.AsyncClient, registry: Registry) -> None:
    """Templates go as changes of their identities, also those of tombstones."""
    await api.put(PATH, json=RECORD)
    for n in range(3):
        await enroll(registry, f"EMP-{n}", n)
    await enroll(registry, "EMP-0", 1, FACE, 8)
    await registry.identities.delete("EMP-2")
    before = await registry.versions.read()
    await registry.mongo.db.person_faces.insert_one({"_id": f"7 {OWN}", "person": 7, "space": OWN})
    answer = await api.delete(PATH)
    assert answer.json() == {"space": OWN, "templates": 3, "identities": 3, "detected_faces": 1}
    for collection in ("templates", "person_faces"):
        assert await registry.mongo.db[collection].find_one({"space": OWN}) is None
    _, deltas = await registry.deltas.deltas_after(before.version, 10)
    assert [(delta.identity.user_id, len(delta.templates)) for delta in deltas] == [
        ("EMP-0", 1),
        ("EMP-1", 0),
    ]
    assert [holding.space for holding in (await registry.identities.get("EMP-0")).holdings] == [FACE]
    is_problem(await api.get(PATH), 404, "space-unknown")
    is_problem(await api.delete(PATH), 404, "space-unknown")
    (removed, _) = await registry.audit.page(subject=OWN)
    assert removed.what == "space.removed"
    assert removed.after == {"removed": {"templates": 3, "identities": 3, "detected_faces": 1}}
    assert (await registry.identities.restore("EMP-2")).holdings == ()


async def test_a_space_in_use_is_not_removed(api: httpx.AsyncClient, registry: Registry) -> None:
    """A default space and a declared one stay, until the camera is decommissioned."""
    await api.put(PATH, json=RECORD)
    is_problem(await api.delete(f"/api/v1/spaces/{GAIT}"), 409, "space-in-use")
    await registry.devices.register("cam-001", "lobby")
    declared = {"info": {"spaces": {OWN: {"dimension": 4}}}}
    await registry.mongo.db.devices.update_one({"_id": "cam-001"}, {"$set": declared})
    assert (await api.get(PATH)).json()["devices"] == ["cam-001"]
    assert "cam-001" in is_problem(await api.delete(PATH), 409, "space-in-use")["detail"]
    await api.delete("/api/v1/devices/cam-001")
    assert (await api.delete(PATH)).status_code == 200


async def test_records_are_bounded(api: httpx.AsyncClient, registry: Registry) -> None:
    """A head has room for 32 spaces; spaces that devices only declare do not count."""
    for n in range(MAX_RECORDS + 1):
        await registry.spaces.declare(EmbeddingSpace(f"face:declared-{n}", 4))
    recorded = len(await registry.spaces.records()) - MAX_RECORDS - 1
    for n in range(MAX_RECORDS - recorded):
        assert (await api.put(f"/api/v1/spaces/face:own-{n}", json=RECORD)).status_code == 201
    is_problem(await api.put("/api/v1/spaces/face:one-more", json=RECORD), 409, "spaces-too-many")
    assert (await api.put("/api/v1/spaces/face:own-0", json=RECORD)).status_code == 200
