"""The heartbeat: the state of a device, every 30 seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

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
    """The sender of heartbeats: one on connecting, then every `interval` seconds.

    `clock` is monotonic seconds: the interval holds while the time of day is set.
    """

    def __init__(
        self,
        client: IoTClient,
        sync: SyncManager,
        *,
        folder: Path,
        interval: float,
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
        self._interval = interval
        self._started = clock()
        self._due_at: float | None = None

    def connected(self, now: float) -> None:
        # At once, so that the dashboard does not wait for the first interval.
        self._due_at = now

    def disconnected(self) -> None:
        self._due_at = None

    def tick(self, now: float) -> float | None:
        if self._due_at is not None and now >= self._due_at:
            # Of several missed intervals, as after a suspend, one heartbeat is sent.
            self._due_at = max(self._due_at, now - self._interval) + self._interval
            self._client.publish(channels.HEARTBEAT, self.compose().to_json())
        return self._due_at

    def compose(self) -> Heartbeat:
        """Return the heartbeat of this moment, with every field that is known."""
        system = read_system(self._folder)
        vision = self._vision()
        outbox = self._client.outbox
        others = (self._client.clock.problem(), outbox.problem)
        problems = [*vision.problems, *(problem for problem in others if problem)]
        broker = self._client.broker
        problems += broker.takeovers.problems(broker.clock())
        return Heartbeat(
            device_id=self._client.config.device_id,
            at=self._utc_now(),
            session=self._client.broker.session or "0",
            uptime_s=round(max(0.0, self._clock() - self._started), 1),
            software=self._client.config.software,
            state="degraded" if problems else "ok",
            problems=problems,
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
