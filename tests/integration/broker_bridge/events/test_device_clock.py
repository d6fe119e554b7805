"""Events of a device with a wrong clock, through a real broker and bridge."""

import asyncio
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from broker_bridge.bootstrap import Bridge
from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import MqttSettings
from broker_bridge.contract.messages import SpaceInfo
from broker_bridge.registry import Registry
from deploy.local.stack import Mosquitto
from device.client.iot_client import IoTClient
from device.management.heartbeat import HeartbeatSender
from device.mqtt.config import IoTClientConfig
from tests.conftest import FreshDevice
from tests.device_samples import event
from tests.integration.broker_bridge.support import SPACE
from tests.waiting import until

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("wrong", ["an hour ahead", "1970"])
async def test_a_wrong_clock_is_reported_and_its_events_are_stored_with_the_true_time(
    bridge: Bridge,
    registry: Registry,
    mosquitto: Mosquitto,
    fresh_device: FreshDevice,
    tmp_path: Path,
    wrong: str,
) -> None:
    """The offset is in the event's metadata; no event is rejected."""
    started = utc_now()
    offset = timedelta(hours=1) if wrong == "an hour ahead" else EPOCH - started
    config = IoTClientConfig(
        fresh_device.id,
        site_id=fresh_device.site,
        mqtt=MqttSettings.model_validate(
            {"port": mosquitto.port, "username": fresh_device.id, "password": fresh_device.password}
        ),
        spaces={SPACE: SpaceInfo(dimension=8)},
        db_path=tmp_path / "device.db",
        drain_seconds=0.5,
    )
    client = IoTClient(config, utc_now=lambda: utc_now() + offset)
    heartbeat = HeartbeatSender(
        client,
        client.sync,
        folder=tmp_path,
        interval=0.3,
        clock=client.broker.clock,
        utc_now=lambda: utc_now() + offset,
    )
    client.attach(heartbeat)
    made = event(device_id=fresh_device.id, timestamp=utc_now() + offset)
    client.send_event(made)
    client.start()

    async def settled() -> bool:
        return client.outbox.depth == 0

    async def reported() -> bool:
        record = await registry.devices.get(fresh_device.id)
        problems = (record.heartbeat or {}).get("problems", []) if record else []
        return any("backend" in problem["detail"] for problem in problems if problem["code"] == "clock-wrong")

    try:
        await until(settled)
        await until(reported)
        assert client.outbox.rejected_count == 0
    finally:
        await asyncio.to_thread(client.stop)
    stored = await registry.mongo.db["events"].find_one({"event_id": made.event_id})
    assert abs(stored["timestamp"].replace(tzinfo=timezone.utc) - started) < timedelta(seconds=5)
    assert stored["metadata"]["dated_by"] == "backend"
    off_by = timedelta(milliseconds=stored["metadata"]["clock_offset_ms"]) - offset
    assert abs(off_by) < timedelta(seconds=2)
