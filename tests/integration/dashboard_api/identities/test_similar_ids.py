"""An id is stored in one form; similar ids are shown; no id is a word of a path."""

import unicodedata
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import RESERVED_USER_IDS
from broker_bridge.registry.identities.similar_ids import add_missing_keys
from tests.integration.dashboard_api.conftest import is_problem, vector

PATH = "/api/v1/identities"
BULK = f"{PATH}/bulk"
SYNC = "/api/identities/sync"
INGEST = "/api/identities/ingest-embeddings"
NAME = "Åsa Nuñez"


def sync_body(*external_ids: str) -> dict[str, Any]:
    items = [{"external_id": key, "action": "upsert", "name": NAME} for key in external_ids]
    return {"source_system": "hr", "identities": items}


def ingest_body(*external_ids: str) -> dict[str, Any]:
    results = [{"external_id": key, "faces": [{"embedding": vector(1)}]} for key in external_ids]
    return {"source_system": "hr", "results": results}


async def user_ids(api: httpx.AsyncClient) -> list[str]:
    return [item["user_id"] for item in (await api.get(PATH)).json()["items"]]


@pytest.mark.parametrize("user_id", [" EMP-1", "EMP-1 ", "\tEMP-1\n", "\u00a0EMP-1\u200b", "\ufeffEMP-1"])
async def test_blanks_around_a_user_id_make_no_other_identity(api: httpx.AsyncClient, user_id: str) -> None:
    """Every door drops them: one by one, in bulk, in a path, and the seed's."""
    pushed = {"name": user_id, "modality": "face", "embedding": vector(1)}
    answers = [
        await api.post(PATH, json={"user_id": user_id}),
        await api.post(BULK, json={"people": [{"user_id": user_id}]}),
        await api.patch(f"{PATH}/{quote(user_id)}", json={"flag": "vip"}),
        await api.post("/api/v1/identity/", json=pushed),
        await api.get("/api/v1/events", params={"user_id": user_id}),
    ]
    assert [answer.is_success for answer in answers] == [True] * 5
    assert answers[1].json()["items"][0]["result"] == "unchanged"
    assert await user_ids(api) == ["EMP-1"]


@pytest.mark.parametrize("body", [sync_body, ingest_body])
async def test_forms_of_an_external_key_are_one_identity(api: httpx.AsyncClient, body: Any) -> None:
    """Composed or not, with blanks or without: one key, also in one request."""
    path = SYNC if body is sync_body else INGEST
    key = "Åsa Nuñez 한"
    forms = [key, unicodedata.normalize("NFD", key), f"  {key} ", f"\ufeff{key}\u200b"]
    assert (await api.post(path, json=body(*forms[:2]))).json()["errors"] == []
    assert (await api.post(path, json=body(*forms[2:]))).json()["errors"] == []
    external = (await api.get("/api/identities/external")).json()["identities"]
    assert [row["external_id"] for row in external] == [key]


async def test_a_display_name_is_stored_composed(api: httpx.AsyncClient) -> None:
    await api.post(PATH, json={"user_id": "EMP-1", "display_name": unicodedata.normalize("NFD", f" {NAME} ")})
    assert (await api.get(f"{PATH}/EMP-1")).json()["display_name"] == NAME


async def test_similar_ids_are_shown_where_an_identity_is_created_and_listed(api: httpx.AsyncClient) -> None:
    """A deleted identity is not among them, nor the identity itself."""
    for user_id in ("EMP-12345", "EMP-99999", "gone-1"):
        await api.post(PATH, json={"user_id": user_id})
    await api.delete(f"{PATH}/gone-1")
    created = await api.post(PATH, json={"user_id": "emp_12345"})
    assert created.json()["similar_ids"] == ["EMP-12345"]
    bulk = await api.post(BULK, json={"people": [{"user_id": "Emp12345"}, {"user_id": "gone1"}]})
    assert [item.get("similar_ids") for item in bulk.json()["items"]] == [["EMP-12345", "emp_12345"], None]
    again = await api.post(BULK, json={"people": [{"user_id": "Emp12345", "flag": "vip"}]})
    assert "similar_ids" not in again.json()["items"][0]
    listed = {item["user_id"]: item["similar_ids"] for item in (await api.get(PATH)).json()["items"]}
    assert listed == {
        "EMP-12345": ["Emp12345", "emp_12345"],
        "EMP-99999": [],
        "Emp12345": ["EMP-12345", "emp_12345"],
        "emp_12345": ["EMP-12345", "Emp12345"],
        "gone1": [],
    }
    assert (await api.get(f"{PATH}/EMP-12345")).json()["similar_ids"] == ["Emp12345", "emp_12345"]


async def test_similar_keys_of_one_source_are_shown(api: httpx.AsyncClient) -> None:
    """A dotless i makes a similar key; another source has keys of its own."""
    await api.post(SYNC, json=sync_body("ali.kaya", "al\N{LATIN SMALL LETTER DOTLESS I}.kaya"))
    await api.post(SYNC, json={**sync_body("ALI KAYA"), "source_system": "badges"})
    rows = {
        row["external_id"]: row["identity_id"]
        for row in (await api.get("/api/identities/external")).json()["identities"]
    }
    similar = {
        key: (await api.get(f"{PATH}/{user_id}")).json()["similar_ids"] for key, user_id in rows.items()
    }
    dotless = "al\N{LATIN SMALL LETTER DOTLESS I}.kaya"
    assert similar == {"ali.kaya": [rows[dotless]], dotless: [rows["ali.kaya"]], "ALI KAYA": []}


async def test_identities_of_an_older_program_get_their_keys(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """A start adds them and changes no version."""
    await api.post(SYNC, json=sync_body("Åsa"))
    await api.post(PATH, json={"user_id": "EMP-1"})
    await registry.mongo.db.identities.update_many({}, {"$unset": {"similar_keys": ""}})
    before = await registry.versions.read()
    await add_missing_keys(registry.mongo)
    assert await registry.versions.read() == before
    assert (await api.post(PATH, json={"user_id": "emp1"})).json()["similar_ids"] == ["EMP-1"]
    await api.post(SYNC, json=sync_body("ASA"))
    assert len(await registry.mongo.db.identities.distinct("similar_keys", {"_id": {"$regex": "^EXT"}})) == 3


# Words of paths


@pytest.mark.parametrize("user_id", sorted(RESERVED_USER_IDS))
async def test_a_word_of_a_path_is_no_user_id(api: httpx.AsyncClient, user_id: str) -> None:
    """Nothing is created by any door."""
    is_problem(await api.post(PATH, json={"user_id": user_id}), 422, "user-id-reserved")
    body = {"name": user_id, "modality": "face", "embedding": vector(1)}
    is_problem(await api.post("/api/v1/identity/", json=body), 422, "user-id-reserved")
    bulk = await api.post(BULK, json={"people": [{"user_id": user_id}, {"user_id": "EMP-1"}]})
    assert [item.get("code") for item in bulk.json()["items"]] == ["user-id-reserved", None]
    assert await user_ids(api) == ["EMP-1"]


def test_every_word_that_stands_for_a_user_id_is_reserved(app: FastAPI) -> None:
    """A word in a path in place of a user id hides the identity of that name."""
    routes = [path.strip("/").split("/") for path in app.openapi()["paths"]]
    words = set()
    for path in routes:
        for other in routes:
            if len(path) != len(other) or path == other:
                continue
            differing = [(a, b) for a, b in zip(path, other, strict=True) if a != b]
            if len(differing) == 1 and differing[0][1] in ("{user_id}", "{name}"):
                words |= {differing[0][0]} - {"{user_id}", "{name}"}
    assert words
    assert words <= RESERVED_USER_IDS
