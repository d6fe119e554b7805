"""The rules by which an event is recorded, the same on every way in."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import Event
from broker_bridge.registry.devices.model import Device
from broker_bridge.registry.events.admission import EventAdmission, check_reported_visitor, check_visitor
from broker_bridge.registry.identities.model import Identity, IdentityMerge
from broker_bridge.settings import BridgeSettings
from dashboard_api.settings import ApiProgram

NOW = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)
DEVICE = Device("cam-001", "lobby")
MS = timedelta(milliseconds=1)


def visit(at: datetime) -> Event:
    return Event(
        event_id="EV3-1736942400000-000001",
        device_id="cam-001",
        user_id="EMP-1",
        event_type="visit",
        timestamp=at,
        confidence=1.0,
    )


@pytest.mark.parametrize(("at", "admitted"), [
    (NOW - timedelta(days=2), True), (NOW - timedelta(days=2) - MS, False),
    (NOW + timedelta(days=1), True), (NOW + timedelta(days=1) + MS, False),
])  # fmt: skip
def test_an_event_of_a_wrong_clock_is_rejected(at: datetime, admitted: bool) -> None:
    """The age limit is configured, the limit ahead is a day."""
    admission = EventAdmission(timedelta(days=2))
    if admitted:
        admission.check_event(visit(at), DEVICE, NOW)
        return
    with pytest.raises(ContractError, match="event-time-implausible"):
        admission.check_event(visit(at), DEVICE, NOW)


def test_an_event_of_an_unregistered_device_is_rejected_unless_devices_register_themselves() -> None:
    with pytest.raises(ContractError, match="device-unknown"):
        EventAdmission().check_event(visit(NOW), None, NOW)
    EventAdmission().check_event(visit(NOW), None, NOW, auto_register=True)


def test_bridge_and_api_default_to_the_same_age_limit() -> None:
    """The API reads it from the section of the bridge."""
    assert ApiProgram().bridge.event_max_age_days == BridgeSettings().event_max_age_days == 366


def identity(**fields: object) -> dict[str, Identity]:
    values = {"user_id": "EMP-1", "version": 1, "sites": ("lobby",), "synced_sites": ("lobby",)} | fields
    return {"EMP-1": Identity(**values)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("identities", "code"), [
    ({}, "person-unknown"),
    (identity(erased=True), "person-unknown"),
    (identity(deleted=True, deleted_at=NOW - MS), "person-unknown"),
    (identity(deleted=True, deleted_at=NOW), None),
    (identity(merge=IdentityMerge("EMP-2", (), ("lobby",), {})), "person-merged"),
    (identity(), None),
])  # fmt: skip
def test_a_visit_needs_an_identity_that_existed(identities: dict[str, Identity], code: str | None) -> None:
    if code is None:
        check_visitor(identities, "EMP-1", NOW)
        check_reported_visitor(identities, "EMP-1", "lobby", NOW)
        return
    with pytest.raises(ContractError, match=code):
        check_visitor(identities, "EMP-1", NOW)
    with pytest.raises(ContractError, match=code):
        check_reported_visitor(identities, "EMP-1", "lobby", NOW)


def test_a_reported_visit_of_an_identity_of_another_site_is_unknown() -> None:
    """The registry's own match may belong to another site."""
    check_visitor(identity(), "EMP-1", NOW)
    with pytest.raises(ContractError, match="person-unknown"):
        check_reported_visitor(identity(), "EMP-1", "gate", NOW)
