"""The silence of a device follows from the configured heartbeat interval."""

from datetime import datetime, timedelta, timezone

import pytest

from broker_bridge.contract.heartbeat import HEARTBEAT_SECONDS, silent_after
from broker_bridge.registry.devices.model import DeviceRecord
from dashboard_api.devices.conversions import to_view
from dashboard_api.settings import ApiSettings
from device.settings import DeviceSection

NOW = datetime(2026, 1, 15, 10, tzinfo=timezone.utc)


def test_api_and_device_default_to_the_same_heartbeat_interval() -> None:
    default = DeviceSection.model_fields["heartbeat_seconds"].default
    assert ApiSettings().heartbeat_seconds == default == HEARTBEAT_SECONDS


@pytest.mark.parametrize(("heartbeat_seconds", "age", "silent"), [
    (30.0, 90.0, False), (30.0, 90.1, True), (5.0, 15.0, False), (5.0, 15.1, True), (300.0, 600.0, False),
])  # fmt: skip
def test_a_device_is_silent_after_three_intervals(heartbeat_seconds: float, age: float, silent: bool) -> None:
    """A slower heartbeat is not taken for silence."""
    device = DeviceRecord("cam-001", "lobby", last_report_at=NOW - timedelta(seconds=age))
    assert to_view(device, {}, NOW, silent_after(heartbeat_seconds)).silent is silent
