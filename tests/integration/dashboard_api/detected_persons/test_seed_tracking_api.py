"""Run seed 004's API examples and tests with the seed's own figures."""

from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import MongoSettings, Registry
from dashboard_api.settings import ApiSettings
from deploy.local.stack import Mongod
from tests.detected_samples import face_vector, seen, write_person
from tests.integration.dashboard_api.conftest import Clock
from tests.space_limits import ensure_with_limits

SPACE = "face:arcface-w600k-r50"
FIVE_O_CLOCK = datetime(2025, 11, 10, 17, 0, tzinfo=timezone.utc)
FIVE_MINUTES = timedelta(minutes=5)
FACE = face_vector(42, 512)
# The seed's boxes are x1, y1, x2, y2; on the wire they are x, y, width, height.
FIRST_BOX, SECOND_BOX = (100, 150, 100, 250), (120, 160, 100, 250)

COLUMNS = {
    "global_id", "assigned_name", "face_embedding", "face_quality", "avg_height_pixels", "avg_width_pixels",
    "avg_height_meters", "first_seen", "last_seen", "total_appearances", "cameras_visited", "is_active",
    "current_positions", "total_detections", "quality_scores", "created_at", "updated_at",
    # Its person_id and current_room_id.
    "user_id", "current_site",
}  # fmt: skip


@pytest.fixture
def api_settings() -> ApiSettings:
    return ApiSettings(default_spaces={"face": SPACE})


@pytest.fixture(autouse=True)
async def house(registry: Registry, clock: Clock) -> None:
    clock.now = FIVE_O_CLOCK
    await ensure_with_limits(registry, EmbeddingSpace(SPACE, 512))


async def number_42(registry: Registry, *observations: Any) -> int:
    """Write the person of the examples, after 41 others that were removed."""
    await registry.tracker_store.take_ids(41)
    person = await write_person(registry, observations)
    assert person == 42
    return person


def first_sight(device_id: str = "1", at: datetime = FIVE_O_CLOCK, box: Any = FIRST_BOX) -> Any:
    return seen(device_id, at, box=box, face=FACE, space=SPACE)


async def test_scenario_1_a_person_first_detected(api: httpx.AsyncClient, registry: Registry) -> None:
    """The record of step 4.

    Cameras are named rather than numbered, and times have their offset.
    """
    await number_42(registry, first_sight())
    shown = (await api.get("/api/detected-persons/42")).json()
    assert set(shown) >= COLUMNS
    assert {key: shown[key] for key in ("global_id", "avg_height_pixels", "avg_width_pixels")} == {
        "global_id": 42, "avg_height_pixels": 250, "avg_width_pixels": 100,
    }  # fmt: skip
    assert shown["cameras_visited"] == ["1"]
    assert shown["current_positions"] == {
        "1": {"bbox": [100, 150, 200, 400], "timestamp": "2025-11-10T17:00:00.000Z"}
    }
    assert len(shown["face_embedding"]) == 512
    assert (shown["total_appearances"], shown["is_active"]) == (1, True)


async def test_scenario_2_the_same_person_on_another_camera(
    api: httpx.AsyncClient, registry: Registry, clock: Clock
) -> None:
    """Five minutes later: one more camera, position and appearance, the same id."""
    later = FIVE_O_CLOCK + FIVE_MINUTES
    await number_42(registry, first_sight(), first_sight("2", later, SECOND_BOX))
    clock.now = later
    shown = (await api.get("/api/detected-persons/42")).json()
    assert shown["cameras_visited"] == ["1", "2"]
    assert shown["current_positions"] == {
        "1": {"bbox": [100, 150, 200, 400], "timestamp": "2025-11-10T17:00:00.000Z"},
        "2": {"bbox": [120, 160, 220, 410], "timestamp": "2025-11-10T17:05:00.000Z"},
    }
    assert shown["total_appearances"] == 2
    assert (shown["first_seen"], shown["last_seen"]) == (
        "2025-11-10T17:00:00.000Z", "2025-11-10T17:05:00.000Z",
    )  # fmt: skip


async def test_scenario_3_dimensions_are_averaged_over_cameras(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """251.67 and 101.00, however often each camera has seen the person.

    Also the seed's test 3.
    """
    sizes = {"1": (100, 250), "2": (105, 260), "3": (98, 245)}
    sights = [
        first_sight(device_id, FIVE_O_CLOCK, (10, 10, width, height))
        for device_id, (width, height) in sizes.items()
    ]
    await number_42(registry, *sights, sights[0], sights[0])
    listed = (await api.get("/api/detected-persons", params={"active": True, "limit": 10})).json()["items"]
    assert [len(one["cameras_visited"]) for one in listed] == [3]
    assert f"{listed[0]['avg_height_pixels']:.2f}" == "251.67"
    assert f"{listed[0]['avg_width_pixels']:.2f}" == "101.00"


async def test_a_person_from_the_database(api: httpx.AsyncClient, registry: Registry) -> None:
    """The fields of the example answer."""
    await number_42(registry, first_sight())
    await api.patch("/api/detected-persons/42", json={"assigned_name": "John Doe"})
    shown = (await api.get("/api/detected-persons/42")).json()
    assert (shown["global_id"], shown["assigned_name"]) == (42, "John Doe")


async def test_active_persons(api: httpx.AsyncClient, registry: Registry, clock: Clock) -> None:
    """Each has its cameras; after half a minute none is left."""
    await number_42(registry, first_sight("1"), first_sight("2"))
    await write_person(registry, [seen("3", FIVE_O_CLOCK, face=face_vector(43, 512), space=SPACE)])
    said = (await api.get("/api/detected-persons/active")).json()
    assert said["active_persons"] == 2
    assert {one["global_id"]: one["cameras"] for one in said["persons"]} == {42: ["1", "2"], 43: ["3"]}
    clock.now = FIVE_O_CLOCK + FIVE_MINUTES
    assert (await api.get("/api/detected-persons/active")).json()["active_persons"] == 0


async def test_search_by_face(api: httpx.AsyncClient, registry: Registry) -> None:
    """The two above the threshold, most similar first: 0.85 and 0.72."""
    towards = face_vector(7, 512)
    towards = towards - (towards @ FACE) * FACE
    towards = towards / (towards @ towards) ** 0.5
    people = [(41, 0.85), (8, 0.72), (0, 0.55)]
    for others, similarity in people:
        await registry.tracker_store.take_ids(others)
        face = (similarity * FACE + (1 - similarity**2) ** 0.5 * towards).astype("f4")
        await write_person(registry, [seen("1", FIVE_O_CLOCK, face=face, space=SPACE)])
    body = {"face_embedding": FACE.tolist(), "threshold": 0.6}
    matches = (await api.post("/api/detected-persons/search-by-face", json=body)).json()["matches"]
    assert [(one["global_id"], round(one["similarity"], 2)) for one in matches] == [(42, 0.85), (51, 0.72)]
    del body["threshold"]
    again = (await api.post("/api/detected-persons/search-by-face", json=body)).json()["matches"]
    assert again == matches


async def test_1_a_person_is_there_after_a_restart(
    registry: Registry, mongod: Mongod, mongo_database: str
) -> None:
    """Another program knows id 42, and gives it to no other person."""
    await number_42(registry, first_sight())
    opened = await Registry.open(MongoSettings(uri=SecretStr(mongod.uri), database=mongo_database))
    try:
        (candidates,) = await opened.face_search.candidates(EmbeddingSpace(SPACE, 512), [FACE], 5, 0.6)
        assert [one.global_id for one in candidates] == [42]
        assert (await opened.tracker_store.take_ids(1)).start == 43
    finally:
        await opened.close()
