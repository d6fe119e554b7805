"""A migration from one space to another over REST."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, normalise
from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey, Template
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from tests.integration.dashboard_api.conftest import FACE, GAIT, NOW, client_of, is_problem, vector
from tests.space_limits import ensure_with_limits

NEW = "face:new-8"
PATH = f"/api/v1/spaces/{NEW}/migration"
QUERY = {"from": FACE}
STEPS = ["record", "api", "people", "cameras", "removal"]


async def enroll(registry: Registry, user_id: str, *spaces: str, **more: Any) -> None:
    """Enroll with a template of eight dimensions in each space."""
    n = sum(user_id.encode())
    templates = tuple(Template(space, normalise(vector(n), 8)) for space in spaces)
    await registry.identities.enroll(EnrollIdentity(user_id, templates=templates, **more))


async def declare(registry: Registry, device_id: str, site: str, *spaces: str) -> None:
    await registry.devices.register(device_id, site)
    info = {"info": {"spaces": {space: {"dimension": 8} for space in spaces}}}
    await registry.mongo.db.devices.update_one({"_id": device_id}, {"$set": info})


async def shown(client: httpx.AsyncClient, old: str = FACE) -> dict[str, Any]:
    answer = await client.get(PATH, params={"from": old})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert [step["step"] for step in found["steps"]] == STEPS
    return found


def done(migration: dict[str, Any]) -> list[str]:
    return [step["step"] for step in migration["steps"] if step["done"]]


def site_of(migration: dict[str, Any], site_id: str | None) -> dict[str, Any]:
    (found,) = [site for site in migration["sites"] if site["site_id"] == site_id]
    return {name: value for name, value in found.items() if name != "site_id"}


@pytest.fixture
def new_app(registry: Registry, api_settings: ApiSettings) -> FastAPI:
    """Return the API as it is started again with the model of NEW."""
    moved = api_settings.model_copy(update={"default_spaces": {"face": NEW, "gait": GAIT}})
    return create_app(registry, moved, None)


async def test_the_steps_are_done_in_their_order(
    api: httpx.AsyncClient, new_app: FastAPI, registry: Registry
) -> None:
    """Record, API, people, cameras, removal; the answer stands after the removal."""
    for n in range(3):
        await enroll(registry, f"EMP-{n}", FACE, sites=("lobby",))
    await declare(registry, "cam-1", "lobby", FACE, GAIT)
    await registry.spaces.ensure(EmbeddingSpace(NEW, 8))
    assert done(await shown(api)) == []
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    begun = await shown(api)
    assert (done(begun), begun["api_space"], begun["old_is_default"]) == (["record"], FACE, True)
    async with client_of(new_app, "admin") as moved:
        assert done(await shown(moved)) == ["record", "api"]
        await enroll(registry, "EMP-0", NEW)
        assert not site_of(await shown(moved), "lobby")["ready"]
        for n in range(1, 3):
            await enroll(registry, f"EMP-{n}", NEW)
        enrolled = await shown(moved)
        assert done(enrolled) == ["record", "api", "people"]
        assert site_of(enrolled, "lobby") == {
            "identities": 3,
            "enrolled": 3,
            "missing": 0,
            "ready": True,
            "on_old": ["cam-1"],
            "on_new": [],
            "elsewhere": [],
            "warning": None,
        }
        is_problem(await moved.delete(f"/api/v1/spaces/{FACE}"), 409, "space-in-use")
        await declare(registry, "cam-1", "lobby", NEW, GAIT)
        assert done(await shown(moved)) == ["record", "api", "people", "cameras"]
        assert (await moved.delete(f"/api/v1/spaces/{FACE}")).status_code == 200
        assert done(await shown(moved)) == STEPS


async def test_people_are_counted_by_space_and_by_site(new_app: FastAPI, registry: Registry) -> None:
    """Deleted identities, those without templates and other modalities count nowhere."""
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    await enroll(registry, "both", FACE, NEW, sites=("lobby", "gate"))
    await enroll(registry, "old", FACE, sites=("lobby",))
    await enroll(registry, "old-everywhere", FACE)
    await enroll(registry, "old-there-and-everywhere", FACE, sites=("*", "gate"))
    await enroll(registry, "new", NEW, sites=("gate",))
    await enroll(registry, "deleted", FACE, sites=("lobby",))
    await registry.identities.delete("deleted")
    await enroll(registry, "bare", sites=("cellar",))
    await enroll(registry, "withheld", FACE, sites=("lobby",), consent={"face": False})
    walks = Template(GAIT, normalise(vector(1, 4), 4))
    await registry.identities.enroll(EnrollIdentity("walker", templates=(walks,)))
    await declare(registry, "cam-1", "roof")
    async with client_of(new_app, "viewer") as viewer:
        migration = await shown(viewer)
        counts = {
            name: migration[name] for name in ("in_both", "only_old", "only_new", "withheld", "missing")
        }
        assert counts == {"in_both": 1, "only_old": 4, "only_new": 1, "withheld": 1, "missing": 3}
        people = {
            site["site_id"]: (site["identities"], site["enrolled"], site["missing"], site["ready"])
            for site in migration["sites"]
        }
        # The cellar has a person without templates and no camera.
        assert people == {"gate": (4, 2, 2, False), "lobby": (4, 1, 3, False), "roof": (2, 0, 2, False)}
        for site, wanted in {
            None: ["old", "old-everywhere", "old-there-and-everywhere"],
            "gate": ["old-everywhere", "old-there-and-everywhere"],
            "nowhere": ["old-everywhere", "old-there-and-everywhere"],
        }.items():
            query = QUERY | ({"site": site} if site else {})
            page = (await viewer.get(f"{PATH}/missing", params=query)).json()
            assert ([item["user_id"] for item in page["items"]], page["next_cursor"]) == (wanted, None)


async def test_cameras_are_named_by_what_they_declare(new_app: FastAPI, registry: Registry) -> None:
    """A camera that changed before its people is a warning.

    A decommissioned camera is left out.
    """
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    await enroll(registry, "EMP-1", FACE, sites=("lobby",))
    await declare(registry, "cam-both", "lobby", FACE, NEW)
    await declare(registry, "cam-early", "lobby", NEW)
    await declare(registry, "cam-fine", "gate", NEW)
    await declare(registry, "cam-gait", "gate", GAIT)
    await declare(registry, "cam-gone", "gate", FACE)
    await registry.placements.decommission("cam-gone", by="admin", now=NOW)
    await registry.devices.record_contact(["cam-nowhere"])
    async with client_of(new_app, "viewer") as viewer:
        migration = await shown(viewer)
    lobby, gate = site_of(migration, "lobby"), site_of(migration, "gate")
    assert (lobby["on_old"], lobby["on_new"]) == (["cam-both"], ["cam-early"])
    assert "cam-early declares face:new-8 already, and 1 person" in lobby["warning"]
    assert (gate["on_new"], gate["elsewhere"], gate["ready"]) == (["cam-fine"], ["cam-gait"], True)
    assert gate["warning"] is None
    assert site_of(migration, None)["elsewhere"] == ["cam-nowhere"]
    cameras = migration["steps"][STEPS.index("cameras")]
    assert (cameras["done"], "cam-both declares face:test-8" in cameras["detail"]) == (False, True)
    assert "warning: cam-early" in cameras["detail"]


async def test_no_site_is_ready_before_record_and_api(api: httpx.AsyncClient, registry: Registry) -> None:
    """Everyone is enrolled, and cameras still wait: for limits, then for the API."""
    await registry.spaces.ensure(EmbeddingSpace(NEW, 8))
    await enroll(registry, "EMP-1", FACE, NEW, sites=("lobby",))
    await declare(registry, "cam-1", "lobby", NEW)
    for _ in range(2):
        lobby = site_of(await shown(api), "lobby")
        assert (lobby["missing"], lobby["ready"]) == (0, False)
        assert "before the steps record and api" in lobby["warning"]
        await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))


async def test_the_missing_are_listed_with_their_sources(api: httpx.AsyncClient, registry: Registry) -> None:
    """In pages; an identity with several keys has them all."""
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    await enroll(registry, "a", FACE, external=ExternalKey("alfred_catalog", "42"))
    await enroll(registry, "a", external=ExternalKey("hr", "x/y"), must_exist=True)
    await enroll(registry, "b", FACE, kind="visitor")
    await enroll(registry, "c", FACE, NEW)
    first = (await api.get(f"{PATH}/missing", params=QUERY | {"limit": 1})).json()
    sources = [
        {"source_system": "alfred_catalog", "external_id": "42"},
        {"source_system": "hr", "external_id": "x/y"},
    ]
    assert first["items"] == [{"user_id": "a", "kind": "employee", "sources": sources}]
    query = QUERY | {"cursor": first["next_cursor"]}
    last = (await api.get(f"{PATH}/missing", params=query)).json()
    assert last == {"items": [{"user_id": "b", "kind": "visitor", "sources": []}], "next_cursor": None}
    is_problem(await api.get(f"{PATH}/missing", params=QUERY | {"cursor": "zz"}), 422, "cursor-invalid")


async def test_a_removed_default_may_have_its_record_again(new_app: FastAPI, registry: Registry) -> None:
    """The record of the built-in model is made at each start.

    Without people the space still counts as removed.
    """
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    await registry.spaces.ensure_record(DEFAULT_FACE_SPACE)
    async with client_of(new_app, "admin") as client:
        old = DEFAULT_FACE_SPACE.space
        assert "removal" not in done(await shown(client, old))
        assert (await client.delete(f"/api/v1/spaces/{old}")).status_code == 200
        assert "removal" in done(await shown(client, old))
        await registry.spaces.ensure_record(DEFAULT_FACE_SPACE)
        assert "removal" in done(await shown(client, old))


@pytest.mark.parametrize("part", ["", "/missing"])
async def test_two_known_spaces_of_one_modality_are_needed(
    app: FastAPI, api: httpx.AsyncClient, registry: Registry, part: str
) -> None:
    """Each mistake has a sentence; a source has no role here."""
    await ensure_with_limits(registry, EmbeddingSpace(NEW, 8))
    for old, code in {
        NEW: "request-invalid",
        GAIT: "request-invalid",
        "face:typo": "space-unknown",
        "Face:Typo": "request-invalid",
        "": "request-invalid",
    }.items():
        is_problem(await api.get(PATH + part, params={"from": old}), 422, code)
    is_problem(await api.get(PATH + part), 422, "request-invalid")
    unknown = await api.get(f"/api/v1/spaces/face:typo/migration{part}", params=QUERY)
    is_problem(unknown, 404, "space-unknown")
    async with client_of(app, "source") as source:
        is_problem(await source.get(PATH + part, params=QUERY), 403, "role-insufficient")
