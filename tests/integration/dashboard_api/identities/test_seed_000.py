"""`/api/v1/identity/`: the paths and bodies of seed 000."""

import httpx

from broker_bridge.registry import Registry
from tests.integration.dashboard_api.conftest import is_problem, vector

BODY = {"name": "juan_canfield", "modality": "face", "embedding": vector(1), "source_node": "brain"}


async def test_a_pushed_embedding_is_listed_with_its_metadata(api: httpx.AsyncClient) -> None:
    """One row per name and modality, never a vector."""
    pushed = await api.post("/api/v1/identity/", json=BODY)
    await api.post("/api/v1/identity/", json={**BODY, "modality": "gait", "embedding": vector(2, 4)})
    rows = (await api.get("/api/v1/identity/")).json()
    received = {"name": "juan_canfield", "modality": "face", "version": 1, "look_alikes": []}
    assert pushed.json() == received
    assert [(row["name"], row["modality"], row["embedding_dim"]) for row in rows] == [
        ("juan_canfield", "face", 8),
        ("juan_canfield", "gait", 4),
    ]
    assert set(rows[0]) == {
        "name", "modality", "embedding_dim", "source_node", "created_at", "updated_at"
    }  # fmt: skip
    assert rows[0]["source_node"] == "brain"
    assert rows[0]["created_at"].endswith("Z")


async def test_pushing_again_replaces_that_modality_alone(api: httpx.AsyncClient, registry: Registry) -> None:
    """UNIQUE(name, modality) of the seed: one vector per modality, the newest."""
    await api.post("/api/v1/identity/", json=BODY)
    await api.post("/api/v1/identity/", json={**BODY, "modality": "gait", "embedding": vector(2, 4)})
    second = await api.post("/api/v1/identity/", json={**BODY, "embedding": vector(3)})
    stored = (await registry.identities.templates_of(["juan_canfield"]))["juan_canfield"]
    assert second.json()["version"] == 3
    assert sorted(template.space for template in stored) == ["face:test-8", "gait:test-4"]


async def test_the_manifest_has_the_names_of_each_modality(api: httpx.AsyncClient) -> None:
    """`GET /names` returns {modality: [names]}, with empty modalities."""
    await api.post("/api/v1/identity/", json=BODY)
    await api.post("/api/v1/identity/", json={**BODY, "name": "ana"})
    assert (await api.get("/api/v1/identity/names")).json() == {
        "face": ["ana", "juan_canfield"],
        "gait": [],
    }


async def test_one_modality_and_whole_identities_can_be_deleted(api: httpx.AsyncClient) -> None:
    """The identity stays without the modality, and goes with the other call."""
    await api.post("/api/v1/identity/", json=BODY)
    await api.post("/api/v1/identity/", json={**BODY, "modality": "gait", "embedding": vector(2, 4)})
    assert (await api.delete("/api/v1/identity/juan_canfield/gait")).json()["version"] == 3
    assert (await api.get("/api/v1/identity/names")).json() == {"face": ["juan_canfield"], "gait": []}
    assert (await api.delete("/api/v1/identity/juan_canfield")).json()["version"] == 4
    assert (await api.get("/api/v1/identity/")).json() == []
    is_problem(await api.delete("/api/v1/identity/juan_canfield"), 404, "person-unknown")
    is_problem(await api.delete("/api/v1/identity/juan_canfield/face"), 404, "person-unknown")


async def test_the_paths_work_without_the_closing_slash(api: httpx.AsyncClient) -> None:
    """Many clients would follow a redirect without the body or the key."""
    assert (await api.post("/api/v1/identity", json=BODY)).status_code == 200
    assert len((await api.get("/api/v1/identity")).json()) == 1


async def test_a_modality_without_a_space_is_rejected(api: httpx.AsyncClient) -> None:
    """No space for voices is configured here."""
    body = {**BODY, "modality": "speaker", "embedding": vector(1, 192)}
    is_problem(await api.post("/api/v1/identity/", json=body), 422, "space-unknown")
