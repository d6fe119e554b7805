"""`/api/v1/identities`: enroll, patch, page and confirm."""

import base64
from datetime import datetime, timezone
from typing import Any

import httpx
import numpy as np

from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport
from tests.integration.dashboard_api.conftest import FACE, is_problem, vector

PATH = "/api/v1/identities"
NOW = datetime.now(timezone.utc)


def identity(user_id: str = "EMP-12345", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "templates": [{"space": FACE, "embedding": vector(1)}], **more}


async def applied(registry: Registry, device_id: str, version: int, epoch: str | None = None) -> None:
    epoch = epoch or (await registry.versions.read()).epoch
    await registry.devices.record_reports(
        [DeviceReport.latest(device_id, "applied", {"epoch": epoch, "version": version}, NOW)]
    )


async def test_an_identity_is_created_and_shown_without_vectors(api: httpx.AsyncClient) -> None:
    """The answer is a 201 with the version; the detail lists templates."""
    created = await api.post(
        PATH, json=identity(display_name="Sample Person Å", flag="vip", sites=["lobby", "gate"])
    )
    shown = await api.get(f"{PATH}/EMP-12345")
    assert created.status_code == 201
    assert created.json()["version"] == 1
    assert created.json()["sites"] == ["gate", "lobby"]
    (template,) = shown.json()["template_list"]
    assert (template["space"], template["source"]) == (FACE, "api")
    assert "vector" not in shown.text
    assert "embedding" not in shown.text


async def test_base64_and_numbers_are_the_same_vector(api: httpx.AsyncClient, registry: Registry) -> None:
    """Both forms become one unit vector, and a template is not added twice."""
    long = np.asarray(vector(1), dtype="<f4") * 40
    text = base64.b64encode(long.tobytes()).decode()
    await api.post(PATH, json=identity())
    repeated = await api.post(PATH, json=identity(templates=[{"space": FACE, "vector": text}]))
    stored = (await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]
    assert repeated.status_code == 200
    assert len(stored) == 1
    assert np.linalg.norm(np.frombuffer(stored[0].vector, "<f4")) == np.float32(1)


async def test_numbers_in_double_precision_are_the_same_template_as_their_float32(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """A source may send numbers today and base64 tomorrow."""
    random = np.random.default_rng(1)
    for n, numbers in enumerate(random.normal(size=(20, 8))):
        text = base64.b64encode(numbers.astype("<f4").tobytes()).decode()
        forms = [{"space": FACE, "embedding": numbers.tolist()}, {"space": FACE, "vector": text}]
        await api.post(PATH, json=identity(user_id=f"EMP-{n}", templates=forms))
    stored = await registry.identities.templates_of([f"EMP-{n}" for n in range(20)])
    assert [len(templates) for templates in stored.values()] == [1] * 20


async def test_repeating_a_request_adds_no_template(api: httpx.AsyncClient, registry: Registry) -> None:
    """A client that lost the answer can repeat it; another face is added."""
    for n in (1, 1, 2, 2):
        body = identity(templates=[{"space": FACE, "embedding": vector(n), "quality": 0.5}])
        await api.post(PATH, json=body)
    assert len((await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]) == 2


async def test_an_identity_keeps_the_most_different_templates(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """Five per space are kept, and only one of similar ones."""
    alike = [{"space": FACE, "embedding": [1.0, n / 1000, 0, 0, 0, 0, 0, 0]} for n in range(40)]
    others = [
        {"space": FACE, "embedding": [float(n == position) for n in range(8)]} for position in range(1, 5)
    ]
    assert (await api.post(PATH, json=identity(templates=[*alike, *others]))).status_code == 201
    stored = (await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]
    assert len(stored) == 5
    vectors = np.stack([np.frombuffer(item.vector, "<f4") for item in stored])
    assert np.abs(vectors @ vectors.T - np.eye(5)).max() < 0.05


async def test_a_patch_changes_its_fields_and_null_clears(api: httpx.AsyncClient) -> None:
    """It is a JSON Merge Patch; without sites the identity belongs everywhere."""
    await api.post(PATH, json=identity(display_name="Ana", flag="vip", sites=["lobby"]))
    first = (await api.patch(f"{PATH}/EMP-12345", json={"flag": None})).json()
    second = (await api.patch(f"{PATH}/EMP-12345", json={"sites": None, "display_name": "Bea"})).json()
    assert (first["flag"], first["display_name"], first["sites"], first["version"]) == (
        None, "Ana", ["lobby"], 2
    )  # fmt: skip
    assert (second["display_name"], second["sites"], second["version"]) == ("Bea", ["*"], 3)


async def test_a_patch_neither_creates_nor_restores_an_identity(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """The answer is a 404, and the version stays."""
    is_problem(await api.patch(f"{PATH}/EMP-1", json={"flag": "vip"}), 404, "person-unknown")
    await api.post(PATH, json=identity())
    await api.delete(f"{PATH}/EMP-12345")
    is_problem(await api.patch(f"{PATH}/EMP-12345", json={"flag": "vip"}), 404, "person-unknown")
    assert (await registry.versions.read()).version == 2


async def test_a_deleted_identity_is_shown_as_a_tombstone_without_templates(api: httpx.AsyncClient) -> None:
    """It is listed on request only and cannot be deleted again."""
    await api.post(PATH, json=identity())
    first_answer = await api.delete(f"{PATH}/EMP-12345")
    detail = (await api.get(f"{PATH}/EMP-12345")).json()
    assert (first_answer.json()["version"], first_answer.json()["deleted"]) == (2, True)
    assert (detail["deleted"], detail["template_list"]) == (True, [])
    assert (await api.get(PATH)).json()["items"] == []
    await api.post(PATH, json=identity("EMP-2"))
    for deleted, shown in (("true", ["EMP-12345", "EMP-2"]), ("only", ["EMP-12345"]), ("false", ["EMP-2"])):
        listed = (await api.get(PATH, params={"deleted": deleted})).json()["items"]
        assert [item["user_id"] for item in listed] == shown
    is_problem(await api.delete(f"{PATH}/EMP-12345"), 404, "person-unknown")


async def test_pages_show_each_identity_once(api: httpx.AsyncClient) -> None:
    """Following next_cursor to its end visits each identity exactly once."""
    for n in range(5):
        await api.post(PATH, json=identity(f"EMP-{n}"))
    user_ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get(PATH, params={"limit": "2", **cursor})).json()
        assert len(page["items"]) <= 2
        user_ids += [item["user_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert user_ids == [f"EMP-{n}" for n in range(5)]


async def test_confirmations_list_the_devices_that_applied_the_last_change(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """They have its version or a later one of this history."""
    for device_id, site in [
        ("cam-001", "lobby"),
        ("cam-002", "lobby"),
        ("cam-003", "gate"),
        ("cam-004", "lab"),
    ]:
        await registry.devices.register(device_id, site)
    await api.post(PATH, json=identity(sites=["lobby", "gate"]))
    await api.patch(f"{PATH}/EMP-12345", json={"sites": ["lobby"]})
    await api.delete(f"{PATH}/EMP-12345")
    await applied(registry, "cam-001", 3)
    await applied(registry, "cam-002", 2)
    await applied(registry, "cam-003", 9, epoch="0ld")
    document = (await api.get(f"{PATH}/EMP-12345/confirmations")).json()
    assert (document["version"], document["confirmed"], document["waiting"]) == (
        3,
        ["cam-001"],
        ["cam-002", "cam-003"],
    )
    assert (document["confirmed_count"], document["device_count"]) == (1, 3)
    assert document["summary"] == "1 of 3 devices"


async def test_an_identity_of_every_site_is_confirmed_by_all_devices(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """A device of a later site counts too."""
    await api.post(PATH, json=identity())
    await registry.devices.register("cam-001", "lobby")
    await applied(registry, "cam-001", 7)
    assert (await api.get(f"{PATH}/EMP-12345/confirmations")).json()["summary"] == "1 of 1 devices"
    is_problem(await api.get(f"{PATH}/EMP-9/confirmations"), 404, "person-unknown")
