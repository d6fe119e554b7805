"""A filter of events becomes a query that the index on the time of receipt bounds."""

from datetime import datetime, timedelta, timezone

from broker_bridge.registry.events.event_filter import EventFilter

AT = datetime(2026, 3, 1, tzinfo=timezone.utc)


def test_since_also_bounds_the_time_of_receipt() -> None:
    """The bound is a day earlier, for cameras whose clock is ahead."""
    query = EventFilter(since=AT, until=AT).to_query()
    assert query["timestamp"] == {"$gte": AT, "$lt": AT}
    assert AT - query["received_at"]["$gte"] == timedelta(days=1)


def test_a_filter_without_criteria_matches_every_event() -> None:
    assert EventFilter().to_query() == {}


def test_ids_and_type_are_matched_exactly() -> None:
    query = EventFilter(user_id="EMP-1", device_id="cam-1", event_type="visit").to_query()
    assert query == {"user_id": "EMP-1", "device_id": "cam-1", "event_type": "visit"}
