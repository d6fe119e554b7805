"""The heartbeat: the state of a device, every 30 seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from apscheduler.schedulers.base import BaseScheduler

from broker_bridge.contract import channels
from broker_bridge.contract.messages import Heartbeat, WireError
from device.client.iot_client import IoTClient
from device.enrollment.sync_manager import SyncManager
from device.mqtt.link import SessionListener

from .system import read_system


@dataclass(frozen=True)
class VisionReadings:
    """The readings of camera and recognition; all absent on a virtual device."""

    fps: float | None = None
    inference_ms: float | None = None
    camera: Literal["ok", "reopening", "ended"] | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    quality: Mapping[str, int] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[WireError] = ()


class HeartbeatSender(SessionListener):
    """The sender of heartbeats, which publishes in the client's thread.

    `send` is for any thread.
    """

    def __init__(
        self,
        client: IoTClient,
        sync: SyncManager,
        *,
        folder: Path,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime],
        vision: Callable[[], VisionReadings] = VisionReadings,
    ) -> None:
        self._client = client
        self._sync = sync
        self._folder = folder
        self._clock = clock
        self._utc_now = utc_now
        self._vision = vision
        self._started = clock()

    def connected(self, _now: float) -> None:
        # At once, so that the dashboard does not wait for the first interval.
        self._publish()

    def schedule(self, scheduler: BaseScheduler, seconds: float) -> None:
        """Send a heartbeat every `seconds` while the scheduler runs."""
        scheduler.add_job(self.send, "interval", seconds=seconds, coalesce=True, misfire_grace_time=None)

    def send(self) -> None:
        self._client.submit(self._publish)

    def _publish(self) -> None:
        self._client.publish(channels.HEARTBEAT, self.compose().to_json())

    def compose(self) -> Heartbeat:
        """Return the heartbeat of this moment, with every field that is known."""
        system = read_system(self._folder)
        vision = self._vision()
        outbox = self._client.outbox
        return Heartbeat(
            device_id=self._client.config.device_id,
            at=self._utc_now(),
            session=self._client.broker.session or "0",
            uptime_s=round(max(0.0, self._clock() - self._started), 1),
            software=self._client.config.software,
            state="degraded" if vision.problems else "ok",
            problems=list(vision.problems),
            fps=_rounded(vision.fps),
            inference_ms=_rounded(vision.inference_ms),
            camera=vision.camera,
            temperatures=system.temperatures,
            memory_mb=system.memory_mb,
            disk_free_mb=system.disk_free_mb,
            outbox_depth=outbox.depth,
            outbox_dropped=outbox.events_dropped,
            images_dropped=outbox.images_dropped,
            rejected=outbox.rejected_count,
            refusals=dict(vision.refusals),
            quality=dict(vision.quality),
            frames=dict(vision.frames),
            sync=self._sync.position(),
            syncing=self._sync.progress(),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
