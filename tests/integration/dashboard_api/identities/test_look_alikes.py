"""Look-alikes are reported, noted in the audit, or rejected, as configured."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from broker_bridge.registry.identities.model import EnrollIdentity, ExternalKey
from broker_bridge.registry.settings import RegistrySettings
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod
from tests.integration.dashboard_api.conftest import FACE, GAIT, JPEG, FakeEmbedder, client_of, is_problem
from tests.space_limits import ensure_with_limits

TRIAL = "face:trial-512"
PEOPLE = "/api/v1/identities"
PUSH = "/api/v1/identity/"
INGEST = "/api/identities/ingest-embeddings"


def unit(n: int) -> list[float]:
    """Return directions at right angles to each other."""
    return [1.0 if position == n else 0.0 for position in range(8)]


def between(n: int, m: int, share: float) -> list[float]:
    """Return a direction that has the cosine `share` with `unit(n)`."""
    return [
        share if position == n else (1 - share**2) ** 0.5 if position == m else 0.0 for position in range(8)
    ]


def identity(user_id: str, face: list[float]) -> dict[str, Any]:
    return {"user_id": user_id, "templates": [{"space": FACE, "embedding": face}]}


def result(external_id: str, *faces: list[float]) -> dict[str, Any]:
    return {"external_id": external_id, "faces": [{"embedding": face, "confidence": 0.9} for face in faces]}


async def ingest(api: httpx.AsyncClient, *results: Any) -> dict[str, Any]:
    answer = await api.post(INGEST, json={"source_system": "alfred", "results": list(results)})
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


async def with_policy(
    app: FastAPI, mongod: Mongod, database: str, settings: ApiSettings, **registry: Any
) -> tuple[Registry, FastAPI]:
    """Return a registry of the same database under another policy."""
    opened = await Registry.open(
        MongoSettings(uri=SecretStr(mongod.uri), database=database), settings=RegistrySettings(**registry)
    )
    return opened, create_app(opened, settings, FakeEmbedder())


async def test_the_nearest_other_identity_is_reported_and_noted(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """From the similarity `look_alike` (0.5) up, in the answer and the audit."""
    await api.post(PEOPLE, json=identity("ana", unit(0)))
    await api.post(PEOPLE, json=identity("ben", unit(1)))
    received = (await api.post(PEOPLE, json=identity("cleo", between(0, 2, 0.8)))).json()
    assert received["look_alikes"] == [{"nearest_user_id": "ana", "similarity": 0.8, "space": FACE}]
    distant = (await api.post(PEOPLE, json=identity("dora", between(1, 3, 0.49)))).json()
    assert distant["look_alikes"] == []
    noted = [entry.after for entry in await registry.audit.page() if entry.subject == "cleo"]
    assert noted[0] is not None
    assert noted[0]["look_alikes"] == [{"user_id": "ana", "similarity": 0.8, "space": FACE}]


async def test_an_identity_is_not_its_own_look_alike(api: httpx.AsyncClient) -> None:
    """Another template of it is no warning; the next-nearest identity is."""
    await api.post(PEOPLE, json=identity("ana", unit(0)))
    repeated = (await api.post(PEOPLE, json=identity("ana", between(0, 1, 0.9)))).json()
    assert repeated["look_alikes"] == []
    await api.post(PEOPLE, json=identity("ben", between(0, 2, 0.6)))
    third = (await api.post(PEOPLE, json=identity("ana", between(0, 2, 0.95)))).json()
    assert [found_item["nearest_user_id"] for found_item in third["look_alikes"]] == ["ben"]


async def test_a_stored_template_is_not_compared_again(api: httpx.AsyncClient, registry: Registry) -> None:
    """A repeated request must not turn its answer into a warning."""
    await api.post(PEOPLE, json=identity("ana", unit(0)))
    await api.post(PEOPLE, json=identity("ben", unit(0)))
    repeated = (await api.post(PEOPLE, json=identity("ana", unit(0)))).json()
    assert (repeated["look_alikes"], repeated["version"]) == ([], 1)


async def test_deleted_identities_are_no_look_alikes(api: httpx.AsyncClient) -> None:
    """Their faces are not compared any more."""
    await api.post(PEOPLE, json=identity("ana", unit(0)))
    assert (await api.post(PEOPLE, json=identity("ben", unit(0)))).json()["look_alikes"] != []
    await api.delete(f"{PEOPLE}/ana")
    await api.delete(f"{PEOPLE}/ben")
    assert (await api.post(PEOPLE, json=identity("cleo", unit(0)))).json()["look_alikes"] == []


async def test_pushes_and_photos_are_compared_too(api: httpx.AsyncClient, embedder: FakeEmbedder) -> None:
    """Every way to enroll reports look-alikes."""
    await api.post(PEOPLE, json={"user_id": "ana"})
    photo = {"content": JPEG, "headers": {"content-type": "image/jpeg"}}
    assert (await api.post(f"{PEOPLE}/ana/photos", **photo)).json()["look_alikes"] == []
    await api.post(PEOPLE, json={"user_id": "ben"})
    received = (await api.post(f"{PEOPLE}/ben/photos", **photo)).json()
    assert [found_item["nearest_user_id"] for found_item in received["look_alikes"]] == ["ana"]
    body = {"modality": "gait", "embedding": [1.0, 2.0, 3.0, 4.0]}
    await api.post(PUSH, json={"name": "ana", **body})
    pushed = (await api.post(PUSH, json={"name": "ben", **body})).json()
    assert pushed["look_alikes"] == [{"nearest_user_id": "ana", "similarity": 1.0, "space": GAIT}]


async def test_identities_of_one_request_are_compared_with_each_other(api: httpx.AsyncClient) -> None:
    """The later looks like the earlier, also across batches."""
    received = await ingest(api, result("1", unit(0)), result("2", between(0, 1, 0.7)))
    (found_item,) = received["look_alikes"]
    rows = {
        row["external_id"]: row for row in (await api.get("/api/identities/external")).json()["identities"]
    }
    assert found_item == {
        "user_id": rows["2"]["identity_id"], "external_id": "2", "nearest_user_id": rows["1"]["identity_id"],
        "similarity": 0.7, "space": FACE,
    }  # fmt: skip
    fillers = [{"external_id": f"f{n}", "faces": []} for n in range(450)]
    received = await ingest(
        api, result("3", unit(5)), *fillers[:199], result("4", unit(5)), *fillers[199:], result("5", unit(5))
    )
    assert (received["look_alikes"][0]["external_id"], received["look_alikes"][0]["similarity"]) == ("4", 1.0)
    assert {found_item["external_id"] for found_item in received["look_alikes"]} == {"4", "5"}


async def test_a_policy_rejects_look_alikes_and_stores_nothing_of_them(
    api: httpx.AsyncClient, app: FastAPI, mongod: Mongod, mongo_database: str, api_settings: ApiSettings
) -> None:
    """409 `look-alike` for one identity; an error of its own among many."""
    await api.post(PEOPLE, json=identity("ana", unit(0)))
    registry, strict = await with_policy(app, mongod, mongo_database, api_settings, look_alikes="refuse")
    async with client_of(strict, "admin") as client:
        answer = await client.post(PEOPLE, json=identity("ben", unit(0)))
        assert "ana" in is_problem(answer, 409, "look-alike")["detail"]
        received = await ingest(
            client,
            result("1", unit(1), between(0, 3, 0.9)),
            # Similar to the rejected identity only, and so to no stored one.
            result("2", unit(1)),
            result("3", unit(1)),
            result("4", unit(4)),
        )
        assert [(error["external_id"], error["code"]) for error in received["errors"]] == [
            ("1", "look-alike"), ("3", "look-alike")
        ]  # fmt: skip
        assert (received["identities_resolved"], received["embeddings_stored"]) == (2, 2)
        # A template that is already stored is not compared.
        assert (await ingest(client, result("2", unit(1))))["errors"] == []
        assert (await client.get(f"{PEOPLE}/ben")).status_code == 404
    await registry.close()


async def test_a_policy_may_ignore_look_alikes(
    api: httpx.AsyncClient, app: FastAPI, mongod: Mongod, mongo_database: str, api_settings: ApiSettings
) -> None:
    """No search happens then."""
    registry, careless = await with_policy(app, mongod, mongo_database, api_settings, look_alikes="ignore")
    async with client_of(careless, "admin") as client:
        await client.post(PEOPLE, json=identity("ana", unit(0)))
        assert (await client.post(PEOPLE, json=identity("ben", unit(0)))).json()["look_alikes"] == []
    await registry.close()


@pytest.mark.parametrize("space_of_own", [0.9, 0.3])
async def test_the_similarity_is_that_of_the_space(
    api: httpx.AsyncClient, app: FastAPI, mongod: Mongod, mongo_database: str, api_settings: ApiSettings,
    space_of_own: float,
) -> None:  # fmt: skip
    """Limits differ by space."""
    limits = {FACE: {"same_person": 0.95, "look_alike": space_of_own}}
    registry, own = await with_policy(app, mongod, mongo_database, api_settings, limits=limits)
    async with client_of(own, "admin") as client:
        await client.post(PEOPLE, json=identity("ana", unit(0)))
        received = (await client.post(PEOPLE, json=identity("ben", between(0, 1, 0.6)))).json()
        assert bool(received["look_alikes"]) == (space_of_own < 0.6)
    await registry.close()


@pytest.mark.parametrize(
    ("limits", "similarity", "found"),
    [
        ({}, 0.69, False),
        ({}, 0.71, True),
        ({"look_alike": 0.6}, 0.61, True),
        ({"look_alike": 0.6}, 0.59, False),
        ({"look_alike": 0.9, "same_person": 0.95}, 0.89, False),
    ],
)
async def test_a_configured_limit_precedes_that_on_record(
    app: FastAPI, mongod: Mongod, mongo_database: str, api_settings: ApiSettings,
    limits: dict[str, Any], similarity: float, found: bool,
) -> None:  # fmt: skip
    """The space has 0.7 on record; configured ones count more."""
    registry, configured = await with_policy(
        app, mongod, mongo_database, api_settings, limits={TRIAL: limits}
    )
    await ensure_with_limits(registry, EmbeddingSpace(TRIAL, 512), same_person=0.75, look_alike=0.7)
    ana, ben = [0.0] * 512, [0.0] * 512
    ana[0], ben[0], ben[1] = 1.0, similarity, (1 - similarity**2) ** 0.5
    async with client_of(configured, "admin") as client:
        for user_id, face in (("ana", ana), ("ben", ben)):
            body = {"user_id": user_id, "templates": [{"space": TRIAL, "embedding": face}]}
            received = (await client.post(PEOPLE, json=body)).json()
    assert bool(received["look_alikes"]) == found
    await registry.close()


async def test_an_index_that_follows_its_own_writes_misses_no_other_write(
    registry: Registry, mongod: Mongod, mongo_database: str, api: httpx.AsyncClient
) -> None:
    """Two programs write in turns, and each finds the other's identities."""
    second_registry = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    for n in range(4):
        mine = (await api.post(PEOPLE, json=identity(f"mine-{n}", unit(n)))).json()
        assert mine["look_alikes"] == []
        enrollment = EnrollIdentity(f"theirs-{n}", external=ExternalKey("other", str(n)))
        await second_registry.look_alikes.enroll(enrollment)
        received = await ingest(api, result(f"copy-{n}", unit(n)))
        assert [found_item["nearest_user_id"] for found_item in received["look_alikes"]] == [f"mine-{n}"]
        rows = (await api.get("/api/identities/external?source_system=alfred")).json()["identities"]
        copy = next(row["identity_id"] for row in rows if row["external_id"] == f"copy-{n}")
        await second_registry.identities.delete(copy)
        await second_registry.identities.delete(f"mine-{n}")
        answer = (await api.post(PEOPLE, json=identity(f"again-{n}", unit(n)))).json()
        assert answer["look_alikes"] == []
        await second_registry.identities.delete(f"again-{n}")
    await second_registry.close()


async def test_a_face_without_consent_is_never_found(api: httpx.AsyncClient) -> None:
    """Neither after it is stored nor within the same request."""
    refused = identity("ana", unit(0)) | {"consent": {"face": False}}
    body = {"people": [refused, identity("ben", unit(0)), identity("cleo", unit(0))]}
    received = (await api.post(f"{PEOPLE}/bulk", json=body)).json()
    near = [
        [found_item["nearest_user_id"] for found_item in item.get("look_alikes", [])]
        for item in received["items"]
    ]
    assert near == [[], [], ["ben"]]
    later = (await api.post(PEOPLE, json=identity("dora", unit(0)))).json()
    assert {found_item["nearest_user_id"] for found_item in later["look_alikes"]} <= {"ben", "cleo"}
