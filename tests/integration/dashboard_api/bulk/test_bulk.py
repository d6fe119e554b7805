"""Bulk import answers each identity, and an export can be imported again."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from bson import json_util
from fastapi import FastAPI
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod
from tests.integration.dashboard_api.conftest import FACE, GAIT, KEYS, client_of, is_problem, vector

PATH = "/api/v1/identities/bulk"


def identity(user_id: str = "EMP-12345", n: int = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "templates": [{"space": FACE, "embedding": vector(n)}], **more}


def key(external_id: str, source_system: str = "hr") -> dict[str, str]:
    return {"source_system": source_system, "external_id": external_id}


async def post_identities(api: httpx.AsyncClient, *identities: Any, dry_run: bool = False) -> dict[str, Any]:
    answer = await api.post(PATH, json={"people": list(identities), "dry_run": dry_run})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def all_documents(registry: Registry) -> str:
    """Return every document of every collection."""
    names = sorted(await registry.mongo.db.list_collection_names())
    return json_util.dumps(
        {name: await registry.mongo.db[name].find({}).sort("_id", 1).to_list(None) for name in names}
    )


async def test_each_identity_gets_a_result_and_a_repeat_changes_nothing(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """It is created, then unchanged at the same version, then changed by new data."""
    first = await post_identities(api, identity("EMP-1", 1), identity("EMP-2", 12, flag="vip"))
    repeated = await post_identities(api, identity("EMP-1", 1), identity("EMP-2", 12, flag="red"))
    assert [item["result"] for item in first["items"]] == ["created", "created"]
    assert [item["result"] for item in repeated["items"]] == ["unchanged", "changed"]
    assert (first["created"], repeated["unchanged"], repeated["changed"], repeated["refused"]) == (2, 1, 1, 0)
    assert repeated["items"][0]["version"] == first["items"][0]["version"]
    assert repeated["items"][1]["version"] > first["items"][1]["version"]
    assert (await registry.identities.get("EMP-2")).flag == "red"


HOSTILE = "HOSTILE-VALUE"
REFUSED = {
    "no object": (7, "request-invalid"),
    "nothing": ({}, "request-invalid"),
    "a wildcard for an id": (identity("EMP/+/#"), "request-invalid"),
    "NUL in an id": (identity("EMP\0"), "request-invalid"),
    "an operator for an id": (identity({"$where": "1"}), "request-invalid"),  # type: ignore[arg-type]
    "a letter that only looks like E": (identity("\u0395MP-1"), "request-invalid"),
    "a long id": (identity("E" * 100_000), "request-invalid"),
    "a long name": (identity(display_name="x" * 100_000), "request-invalid"),
    "half a character in a name": (identity(display_name="\ud800"), "request-invalid"),
    "an unknown field": (identity(photo=HOSTILE), "request-invalid"),
    "an unknown field of half a character": (identity(**{"\ud800": 1}), "request-invalid"),
    "a bad site": (identity(sites=["Lobby/#"]), "request-invalid"),
    "a bad flag": (identity(flag=HOSTILE), "request-invalid"),
    "a consent that is none": (identity(consent={"face": "yes"}), "request-invalid"),
    "an unknown modality": (
        identity(templates=[{"modality": "smell", "embedding": vector(1)}]),
        "request-invalid",
    ),
    "a list for a modality": (
        identity(templates=[{"modality": ["face"], "embedding": vector(1)}]),
        "request-invalid",
    ),
    "a modality without a space": (
        identity(templates=[{"modality": "speaker", "embedding": vector(1)}]),
        "space-unknown",
    ),
    "an unknown space": (
        identity(templates=[{"space": "face:other", "embedding": vector(1)}]),
        "space-unknown",
    ),
    "a vector of another length": (
        identity(templates=[{"space": FACE, "embedding": [1.0]}]),
        "vector-invalid",
    ),
    "a zero vector": (identity(templates=[{"space": FACE, "embedding": [0.0] * 8}]), "vector-invalid"),
    "no base64": (identity(templates=[{"space": FACE, "vector": "!"}]), "vector-invalid"),
    "neither vector nor numbers": (identity(templates=[{"space": FACE}]), "vector-invalid"),
    "too many templates": (
        identity(templates=[{"space": FACE, "embedding": vector(1)}] * 65),
        "request-invalid",
    ),
    "a key with a slash": (identity(external=[key("1", "h/r")]), "request-invalid"),
    "a key twice": (identity(external=[key("1"), key("1")]), "request-invalid"),
    "another's key": (identity(external=[key("taken")]), "external-taken"),
    "another's second key": (identity(external=[key("free"), key("taken")]), "external-taken"),
    "a merged identity": (identity("MERGED"), "person-merged"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_rejected_identity_has_a_reason_and_stops_no_other(
    api: httpx.AsyncClient, registry: Registry, name: str
) -> None:
    """Each reason has a code; no value is quoted and nothing is stored."""
    await registry.identities.enroll_many(
        [EnrollIdentity("TAKEN", external=ExternalKey("hr", "taken")), EnrollIdentity("MERGED")]
    )
    await registry.identity_merges.merge("MERGED", "TAKEN", by="test")
    hostile, code = REFUSED[name]
    body = {"people": [identity("EMP-7", 3), hostile, identity("EMP-9", 24)]}
    # Escaped as ASCII, since half a character cannot be sent otherwise.
    answer = await api.post(PATH, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert [item["result"] for item in document["items"]] == ["created", "refused", "created"]
    assert document["items"][1]["code"] == code
    assert len(document["items"][1]["detail"]) <= 500
    assert HOSTILE not in answer.text
    identities = {found_item.user_id for found_item in await registry.identities.page()}
    assert identities == {"TAKEN", "EMP-7", "EMP-9"}
    assert (await registry.identities.get("TAKEN")).holdings == ()


async def test_nan_rejects_its_identity_alone(api: httpx.AsyncClient) -> None:
    """A source may send NaN, which Python's JSON accepts."""
    first = identity("EMP-1", templates=[{"space": FACE, "embedding": [float("nan")] * 8}])
    body = json.dumps({"people": [first, identity("EMP-2", 12)]})
    answer = await api.post(PATH, content=body, headers={"Content-Type": "application/json"})
    results = [(item["result"], item.get("code")) for item in answer.json()["items"]]
    assert results == [("refused", "vector-invalid"), ("created", None)]


async def test_two_identities_of_one_request_cannot_share_a_key(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """The first gets the key; the second is rejected and not merged into the first."""
    document = await post_identities(
        api, identity("EMP-1", 1, external=[key("1")]), identity("EMP-2", 12, external=[key("1")])
    )
    assert [item["result"] for item in document["items"]] == ["created", "refused"]
    assert document["items"][1]["code"] == "external-taken"
    assert len((await registry.identities.templates_of(["EMP-1"]))["EMP-1"]) == 1


async def test_a_template_may_name_its_modality_alone(api: httpx.AsyncClient, registry: Registry) -> None:
    """It goes into the default space of that modality."""
    await post_identities(
        api, {"user_id": "EMP-1", "templates": [{"modality": "gait", "embedding": vector(1, 4)}]}
    )
    (stored,) = (await registry.identities.get("EMP-1")).holdings
    assert stored.space == GAIT


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_look_alike_is_reported(api: httpx.AsyncClient, dry_run: bool) -> None:
    """Identities of the same request are compared too."""
    document = await post_identities(api, identity("EMP-1"), identity("EMP-2"), dry_run=dry_run)
    (near,) = document["items"][1]["look_alikes"]
    assert (near["nearest_user_id"], near["space"], near["similarity"]) == ("EMP-1", FACE, 1.0)
    assert "look_alikes" not in document["items"][0]


async def test_a_dry_run_reports_results_and_writes_nothing(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """No collection changes; the results are those of the real run that follows."""
    await post_identities(api, identity("EMP-1", 1), identity("EMP-2", 12))
    await registry.identities.delete("EMP-2")
    identities = [
        identity("EMP-1", 1),
        identity("EMP-1", 3),
        identity("EMP-2", 12),
        identity("EMP-3", 24),
        identity("/"),
    ]
    identities[3]["external"] = [key("1"), key("2")]
    before = await all_documents(registry)
    dry_run = await post_identities(api, *identities, dry_run=True)
    assert await all_documents(registry) == before
    real = await post_identities(api, *identities)
    results = [item["result"] for item in dry_run["items"]]
    assert results == ["unchanged", "changed", "created", "created", "refused"]
    assert [item["result"] for item in real["items"]] == results
    assert (dry_run["dry_run"], real["dry_run"]) == (True, False)


async def test_an_export_is_imported_byte_for_byte(
    api: httpx.AsyncClient, registry: Registry, mongod: Mongod, mongo_database: str
) -> None:
    """Name, flag, sites, consent, kind, keys and every bit of every vector survive."""
    generator = np.random.default_rng(4)
    templates = [
        {"space": FACE, "embedding": generator.normal(size=8).tolist(), "quality": 0.25}
        for _ in range(3 * 40)
    ]
    identities = [
        {"user_id": f"EMP-{n:03}", "templates": templates[3 * n : 3 * n + 3], "display_name": f"Person Å {n}"}
        for n in range(40)
    ]
    identities[0] |= {"flag": "vip", "sites": ["lobby", "gate"], "external": [key("1"), key("2"), key("3")]}
    identities[1] |= {"kind": "visitor", "consent": {"face": False, "gait": True}}
    identities[2]["templates"] = []
    await post_identities(api, *identities)
    exported = await export_all(api, limit=7)
    assert len(exported) == 40
    assert (await post_identities(api, *exported))["unchanged"] == 40
    await registry.mongo.db.client.drop_database(mongo_database)
    fresh = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    await fresh.spaces.ensure(EmbeddingSpace(FACE, 8))
    await fresh.api_keys.create("admin", "admin", KEYS["admin"])
    async with client_of(create_app(fresh, ApiSettings(default_spaces={"face": FACE})), "admin") as fresh_api:
        assert (await post_identities(fresh_api, *exported))["created"] == 40
        assert with_sorted_templates(await export_all(fresh_api)) == with_sorted_templates(exported)
    await fresh.close()


def with_sorted_templates(identities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return exported identities with their templates in a stable order."""
    return [
        {**identity, "templates": sorted(identity["templates"], key=lambda t: t["vector"])}
        for identity in identities
    ]  # fmt: skip


async def export_all(api: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    identities: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        page = (await api.get(PATH, params={**query, **more})).json()
        identities += page["items"]
        cursor = page["next_cursor"]
    return identities


async def test_an_export_omits_deleted_identities_and_on_request_vectors(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """An export without vectors contains no templates."""
    await post_identities(api, identity("EMP-1", 1), identity("EMP-2", 12))
    await registry.identities.delete("EMP-2")
    (shown,) = await export_all(api, vectors="false")
    assert shown == {
        "user_id": "EMP-1", "kind": "employee", "sites": [], "consent": {"face": True}
    }  # fmt: skip
    (with_vectors,) = await export_all(api)
    assert len(base64.b64decode(with_vectors["templates"][0]["vector"])) == 32


async def test_an_export_of_many_pages_leaves_one_audit_entry(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """The entry has the key, the time and whether vectors were included."""
    await post_identities(api, identity("EMP-1", 1), identity("EMP-2", 12), identity("EMP-3", 24))
    await export_all(api, limit=1)
    (entry,) = [
        found_item for found_item in await registry.audit.page() if found_item.what == "people.exported"
    ]
    assert (entry.who, entry.after) == ("admin", {"vectors": True})


@pytest.mark.parametrize(
    ("role", "import_status", "export_status"),
    [
        ("admin", 200, 200),
        ("operator", 200, 200),
        ("source", 200, 403),
        ("viewer", 403, 403),
        ("edge", 403, 403),
    ],
)  # fmt: skip
async def test_sources_import_and_operators_export(
    app: FastAPI, role: str, import_status: int, export_status: int
) -> None:
    """Vectors leave for operators and admins only."""
    async with client_of(app, role) as client:
        assert (await client.post(PATH, json={"people": [identity()]})).status_code == import_status
        assert (await client.get(PATH)).status_code == export_status


@pytest.mark.parametrize(
    "body",
    [{"people": []}, {"people": [identity()] * 501}, {"people": "x"}, {"people": [identity()], "x": 1}, []],
)
async def test_an_invalid_request_is_rejected_as_a_whole(api: httpx.AsyncClient, body: Any) -> None:
    """It has 1 to 500 identities and no unknown field."""
    is_problem(await api.post(PATH, json=body), 422, "request-invalid")


async def test_a_cursor_and_a_limit_are_checked(api: httpx.AsyncClient) -> None:
    """They follow the rules of every other list."""
    is_problem(await api.get(f"{PATH}?cursor=%21"), 422, "cursor-invalid")
    is_problem(await api.get(f"{PATH}?limit=501"), 422, "request-invalid")
