"""Test which status of a device counts, on a real MongoDB."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.registry import Registry
from broker_bridge.registry.devices.reports import DeviceReport

NOW = datetime(2026, 1, 15, 10, 0, 0, tzinfo=timezone.utc)
EPOCH = datetime(1970, 1, 1, 0, 0, 20, tzinfo=timezone.utc)


async def state_after(registry: Registry, *statuses: tuple[str, str, datetime, bool]) -> tuple[str, str]:
    """Record statuses one by one and return the last state."""
    await registry.devices.register("cam-001", "lobby")
    for state, session, at, stored in statuses:
        report = DeviceReport.status("cam-001", state, session, at, NOW, stored=stored)
        await registry.devices.record_reports([report])
    found = await registry.devices.get("cam-001")
    assert found is not None
    assert found.status is not None
    return found.status.state, found.status.session


def live(state: str, session: str, at: datetime = NOW) -> tuple[str, str, datetime, bool]:
    return state, session, at, False


def stored(state: str, session: str, at: datetime = NOW) -> tuple[str, str, datetime, bool]:
    return state, session, at, True


@pytest.mark.parametrize("session", ["0", "1", "14", "ff", "65a4f0af"])
async def test_a_lower_session_replaces_a_higher_one(registry: Registry, session: str) -> None:
    """A camera with a new disk, or a clock in 1970, is online."""
    first = (live("online", "65a4f0b0"), live("lost", "65a4f0b0"))
    assert await state_after(registry, *first, live("online", session, EPOCH)) == ("online", session)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("state", ["lost", "stopped"])
async def test_the_late_end_of_an_older_session_changes_nothing(
    registry: Registry, state: str, is_stored: bool
) -> None:
    """It names another session than the current one, also if the broker has stored it."""
    late = (state, "ff", NOW, is_stored)
    assert await state_after(registry, live("online", "ff"), live("online", "1"), late) == ("online", "1")


async def test_a_late_online_of_an_ended_session_changes_nothing(registry: Registry) -> None:
    """A repeated message has the time of the first; a new session has another."""
    sent = [live("online", "1"), live("lost", "1"), live("online", "1")]
    assert await state_after(registry, *sent) == ("lost", "1")


async def test_a_number_that_returns_is_another_session(registry: Registry) -> None:
    """A disk restored from a copy gives the same number again."""
    later = EPOCH + timedelta(seconds=5)
    sent = [live("online", "14", EPOCH), live("lost", "14", EPOCH), live("online", "2"), live("lost", "2")]
    assert await state_after(registry, *sent, live("online", "14", later)) == ("online", "14")


async def test_the_stored_end_of_an_unknown_session_counts(registry: Registry) -> None:
    """The camera began and ended that session while no bridge was connected."""
    assert await state_after(registry, live("online", "5"), stored("lost", "1")) == ("lost", "1")


async def test_the_live_end_of_an_unknown_session_does_not_count(registry: Registry) -> None:
    """Only the end of the current session does."""
    assert await state_after(registry, live("online", "5"), live("lost", "9")) == ("online", "5")


async def test_a_stored_status_may_come_again(registry: Registry) -> None:
    """Every bridge and every leader gets it again at its start."""
    sent = [live("online", "5"), stored("online", "5"), live("online", "3"), stored("online", "5")]
    assert await state_after(registry, *sent, stored("online", "3")) == ("online", "3")


async def test_the_end_of_the_first_known_session_counts(registry: Registry) -> None:
    """A registry without a status takes the first one, whatever it says."""
    assert await state_after(registry, live("lost", "7")) == ("lost", "7")


async def test_the_status_of_an_older_bridge_is_continued(registry: Registry) -> None:
    """A document of earlier software has a highest number and no list of sessions."""
    await registry.devices.register("cam-001", "lobby")
    status = {"state": "online", "session": "65a4f0b0", "at": NOW, "received_at": NOW}
    await registry.mongo.db.devices.update_one(
        {"_id": "cam-001"}, {"$set": {"status": status, "session_number": 0x65A4F0B0}}
    )
    assert await state_after(registry, live("lost", "65a4f0b0")) == ("lost", "65a4f0b0")
    assert await state_after(registry, live("online", "14", EPOCH)) == ("online", "14")


async def test_a_heartbeat_shows_which_session_is_alive(registry: Registry) -> None:
    """It repairs a missed status and a wrong end; an older session changes nothing."""
    await state_after(registry, live("online", "9"), live("online", "5"), live("lost", "5"))
    for session, shown in (("9", ("lost", "5")), ("5", ("online", "5")), ("2", ("online", "2"))):
        report = DeviceReport.heartbeat_session("cam-001", session, NOW, NOW)
        await registry.devices.record_reports([report])
        found = await registry.devices.get("cam-001")
        assert found is not None
        assert found.status is not None
        assert (found.status.state, found.status.session) == shown
