"""A page of events costs as much as the page, however many events there are."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest

from broker_bridge.registry import Registry
from broker_bridge.registry.events.event_filter import EventFilter
from broker_bridge.registry.mongo.paging import newest_first
from broker_bridge.registry.mongo.schema import ensure_indexes

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
EVENTS, LIMIT = 3000, 20
MIDDLE = (NOW + timedelta(seconds=EVENTS // 2), "cam-0/EV1-1")


def document(n: int) -> dict[str, Any]:
    """Return event `n` of 30 users at 5 cameras."""
    at = NOW + timedelta(seconds=n)
    return {
        "_id": f"cam-{n % 5}/EV1-{n}",
        "device_id": f"cam-{n % 5}",
        "user_id": f"EMP-{n % 30}",
        "event_type": "facial_id",
        "timestamp": at,
        "received_at": at,
        "position": n,
    }


@pytest.fixture
async def filled(registry: Registry) -> Registry:
    await registry.mongo.db.events.insert_many([document(n) for n in range(EVENTS)])
    return registry


def stages(plan: dict[str, Any]) -> Iterator[str]:
    yield plan["stage"]
    for child in (plan.get("inputStage"), *plan.get("inputStages", ())):
        if child:
            yield from stages(child)


FILTERS = [
    EventFilter(user_id=user, device_id=device, event_type=kind, since=since, received_after=after)
    for user, device, kind, since, after in product(
        (None, "EMP-0"), (None, "cam-0"), (None, "facial_id"), (None, NOW), (None, NOW)
    )
]


@pytest.mark.parametrize("before", [None, MIDDLE], ids=["first page", "later page"])
async def test_every_filter_reads_a_page_from_an_index_in_its_order(
    filled: Registry, before: tuple[datetime, str] | None
) -> None:
    """No plan reads the collection or sorts, and none reads much more than it returns."""
    for criteria in FILTERS:
        cursor = newest_first(
            filled.mongo.db.events, criteria.to_query(), "received_at", before=before, limit=LIMIT
        )
        explained: dict[str, Any] = await cursor.explain()  # type: ignore[attr-defined]
        used = set(stages(explained["queryPlanner"]["winningPlan"]))
        assert not used & {"COLLSCAN", "SORT"}, (criteria, used)
        assert "IXSCAN" in used
        counted = explained["executionStats"]
        assert counted["nReturned"] == LIMIT
        # Both a user and a camera: the events of the one are read for those of the other.
        both = criteria.user_id is not None and criteria.device_id is not None
        assert counted["totalKeysExamined"] <= LIMIT * (7 if both else 1) + 2, criteria


async def test_indexes_of_earlier_releases_are_replaced(registry: Registry) -> None:
    """They would cost each event a write and serve no page."""
    events, trails = registry.mongo.db.events, registry.mongo.db.trails
    await events.create_index([("user_id", 1), ("received_at", -1)])
    await trails.create_index([("person", 1), ("since", -1)])
    await ensure_indexes(registry.mongo, None)
    assert "user_id_1_received_at_-1" not in await events.index_information()
    assert "user_id_1_received_at_-1__id_-1" in await events.index_information()
    assert "person_1_since_-1" not in await trails.index_information()
