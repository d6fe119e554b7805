"""The feed over REST: in order of receipt, with a cursor that never skips."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from broker_bridge.registry import Registry
from dashboard_api.http.paging import to_cursor
from tests.integration.dashboard_api.conftest import NOW, event, is_problem

FEED = "/api/v1/events/feed"


def numbers(page: dict[str, Any]) -> list[int]:
    return [int(item["event_id"][-6:], 16) for item in page["items"]]


async def read(api: httpx.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await api.get(FEED, params=params)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_a_poller_sees_late_events_once_and_in_order_of_receipt(
    api: httpx.AsyncClient, registry: Registry
) -> None:
    """A poll by `since` misses events of an outage, which have old times."""
    await registry.events.record([event(n) for n in range(3)])
    first = await read(api, limit=2)
    second = await read(api, limit=2, cursor=first["cursor"])
    assert (numbers(first), first["more"], numbers(second), second["more"]) == ([0, 1], True, [2], False)
    late = "2026-01-15T09:58:15.000Z"
    # Recorded last by a worker whose clock is behind: neither time shows that the event is new.
    await registry.events.record([event(3, timestamp=late, received_at=NOW - timedelta(minutes=5))])
    third = await read(api, cursor=second["cursor"])
    assert numbers(third) == [3]
    listed = await api.get("/api/v1/events", params={"since": "2026-01-15T10:00:00Z"})
    assert 3 not in numbers(listed.json())
    assert numbers(await read(api, cursor=third["cursor"])) == []


async def test_the_feed_begins_after_a_time_of_receipt(api: httpx.AsyncClient, registry: Registry) -> None:
    """`received_after` filters the list as well."""
    await registry.events.record([event(n, received_at=NOW + timedelta(seconds=n)) for n in range(4)])
    after = {"received_after": "2026-01-15T10:00:01Z"}
    assert numbers(await read(api, **after)) == [2, 3]
    assert numbers((await api.get("/api/v1/events", params=after)).json()) == [3, 2]
    page = await read(api, received_after="2026-01-15T11:00:00Z")
    await registry.events.record([event(9)])
    assert numbers(page) == []
    assert numbers(await read(api, cursor=page["cursor"])) == [9]


async def test_filters_of_the_feed_are_those_of_the_list(api: httpx.AsyncClient, registry: Registry) -> None:
    """A cursor moves over events that do not match."""
    await registry.events.record([event(n, device=f"cam-{n % 2}") for n in range(6)])
    page = await read(api, device_id="cam-1", limit=2)
    assert (numbers(page), page["more"]) == ([1, 3], True)
    page = await read(api, device_id="cam-1", cursor=page["cursor"])
    assert (numbers(page), page["more"]) == ([5], False)
    assert numbers(await read(api, cursor=page["cursor"])) == []


async def test_the_cursor_of_another_history_is_refused(api: httpx.AsyncClient, registry: Registry) -> None:
    """A restored backup gives positions again that a poller has passed."""
    await registry.events.record([event(1)])
    cursor = (await read(api))["cursor"]
    epoch = (await registry.versions.read()).epoch
    is_problem(await api.get(FEED, params={"cursor": to_cursor(epoch, "2")}), 410, "resume-lost")
    await registry.versions.begin_epoch()
    is_problem(await api.get(FEED, params={"cursor": cursor}), 410, "resume-lost")
    assert numbers(await read(api)) == [1]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "1", to_cursor("e"), to_cursor("e", "-1"), to_cursor("e", "1" * 19), to_cursor("e", "1", "2"),
     to_cursor("e", "\u0661"), to_cursor("e", " 1"), to_cursor("e", "1.5"), "%00"],
)  # fmt: skip
async def test_a_cursor_is_taken_unchanged(api: httpx.AsyncClient, cursor: str) -> None:
    """Anything else is refused, not read as the beginning."""
    is_problem(await api.get(FEED, params={"cursor": cursor}), 422, "cursor-invalid")
