"""A polling device needs a snapshot sync if the history lacks changes it missed."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.registry.mongo.versions import History
from broker_bridge.registry.sync.polling import MARGIN, TimeCursor, VersionCursor

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
HISTORY = History("e1", 20, 10, {"lobby": 10}, NOW - timedelta(days=1))


@pytest.mark.parametrize(
    ("cursor", "needs_snapshot"),
    [
        (VersionCursor(0), True),
        (VersionCursor(9), True),
        (VersionCursor(10), False),
        (VersionCursor(20), False),
        (VersionCursor(21), True),
        (VersionCursor(15, "e1"), False),
        (VersionCursor(15, "e0"), True),
        (VersionCursor(5, "e1", reset_head_version=12), False),
        (VersionCursor(5, "e1", reset_head_version=9), True),
    ],
)
def test_a_version_is_followed_between_horizon_and_head(cursor: VersionCursor, needs_snapshot: bool) -> None:
    """A snapshot sync under way continues unless a younger tombstone was purged."""
    assert cursor.needs_snapshot(HISTORY, "lobby") == needs_snapshot


def test_the_horizon_of_another_site_does_not_count() -> None:
    assert not VersionCursor(3).needs_snapshot(HISTORY, "gate")


@pytest.mark.parametrize(
    ("cursor", "needs_snapshot"),
    [
        (TimeCursor(NOW), False),
        (TimeCursor(NOW, "e0"), True),
        (TimeCursor(NOW + MARGIN), False),
        (TimeCursor(NOW + MARGIN + timedelta(seconds=1)), True),
        (TimeCursor(NOW - timedelta(days=1)), True),
        (TimeCursor(NOW - timedelta(hours=23)), False),
    ],
)
def test_a_time_is_followed_after_the_last_purge_and_up_to_now(
    cursor: TimeCursor, needs_snapshot: bool
) -> None:
    assert cursor.needs_snapshot(HISTORY, NOW) == needs_snapshot


def test_a_time_is_followed_without_any_purge() -> None:
    assert not TimeCursor(NOW - timedelta(days=900)).needs_snapshot(History("e1", 20, 0), NOW)
