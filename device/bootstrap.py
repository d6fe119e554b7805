"""The wiring of `python -m device`: settings in, a running camera out."""

import fcntl
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timezone
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from broker_bridge.contract.errors import ContractError
from broker_bridge.contract.messages import SpaceInfo

from .assembly import Assembly, assemble, software_version
from .clocks import utc_now
from .event_validator import EventValidator
from .gallery_rows import GalleryRows
from .heartbeat import HeartbeatSender, VisionReadings
from .image_utils import compress_to_jpeg
from .iot_client import Image
from .iot_config import IoTClientConfig
from .pipeline import LOW_MARGIN, RecognitionPipeline
from .settings import DeviceSection, DeviceSettings, Thresholds
from .store.connection import StoreError
from .vision import gabor
from .vision.camera import Camera, Frame, open_camera
from .vision.cascade import CascadeDetector
from .vision.embedder import load_embedder
from .vision.gallery import Gallery, GalleryHolder
from .vision.sources import CameraError, is_live
from .vision.tracker import IouTracker

_log = logging.getLogger(__name__)

_REOPEN_SECONDS = 5.0
# Seed 003's distance.
_FOR_ARCFACE = Thresholds(distance=0.35)


class AlreadyRunningError(RuntimeError):
    """Another program works with this data directory."""


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold `data_dir` for this process: two devices on one outbox would send everything twice.

    Raises AlreadyRunningError, or StoreError when the folder cannot be made or written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "device.lock").open("w")
    except OSError as error:
        raise StoreError(
            f"{data_dir}: cannot be used as data folder ({error.strerror}); set WFM_DEVICE__DATA_DIR to a "
            "folder that this user may write"
        ) from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(
                f"{data_dir}: another device runs on this folder; stop it, or set WFM_DEVICE__DATA_DIR"
            ) from error
        yield


def database_path(settings: DeviceSettings) -> Path:
    return settings.device.data_dir / "device.db"


class DeviceProgram:
    """A camera at a door: recognises, sends events, follows the registry. `counts` has `events_lost`."""

    def __init__(
        self,
        settings: DeviceSettings,
        parts: Assembly,
        pipeline: RecognitionPipeline,
        validator: EventValidator,
        scheduler: BaseScheduler,
    ) -> None:
        self.parts = parts
        self.counts: Counter[str] = Counter()
        self._settings = settings.device
        self._pipeline = pipeline
        self._validator = validator
        self._scheduler = scheduler
        self._camera: Camera | None = None
        self._stop = threading.Event()
        heartbeat = HeartbeatSender(
            parts.client,
            parts.sync,
            folder=self._settings.data_dir,
            clock=time.monotonic,
            utc_now=utc_now,
            vision=self._vision_readings,
        )
        parts.client.attach(heartbeat)
        scheduler.add_job(
            heartbeat.send,
            "interval",
            seconds=self._settings.heartbeat_seconds,
            coalesce=True,
            misfire_grace_time=None,
        )

    def run(self, *, exit_at_end: bool = False) -> None:
        """Work until `request_stop`; a file that ends leaves the device connected unless `exit_at_end`.

        Raises CameraError if a source that is not live cannot be opened, or a live one is to be repeated.
        """
        self.parts.client.start()
        self.parts.sync.start_periodic_sync(self._settings.sync_interval_minutes)
        self._scheduler.start()
        try:
            self._watch()
            if not exit_at_end:
                self._stop.wait()
        finally:
            self._scheduler.shutdown(wait=False)
            self.parts.client.stop()
            self.parts.db.close()

    def request_stop(self) -> None:
        """End `run` soon; for any thread, not for a signal handler itself."""
        self._stop.set()
        if self._camera is not None:
            self._camera.stop()

    def _watch(self) -> None:
        camera = self._open_camera()
        if camera is None:
            return
        with camera:
            self._camera = camera
            if self._stop.is_set():
                return
            for frame in camera:
                self._recognise(frame)

    def _open_camera(self) -> Camera | None:
        """The camera; a live one that is away is tried again until it is there or the program ends."""
        source = self._settings.source
        while not self._stop.is_set():
            try:
                return open_camera(source, loop=self._settings.loop, fps=self._settings.fps)
            except CameraError as error:
                if not is_live(source) or self._settings.loop:
                    raise
                _log.warning("%s; next try in %.0f s", error, _REOPEN_SECONDS)
                self._stop.wait(_REOPEN_SECONDS)
        return None

    def _recognise(self, frame: Frame) -> None:
        for event, box in self._pipeline.process(frame):
            image = frame.image if self._settings.event_images else None
            try:
                self.parts.client.send_event(event, image, box)
            except (ContractError, StoreError) as error:
                # Recognition goes on: the next event may fit, the disk may be freed.
                self.counts["events_lost"] += 1
                _log.error("event %s could not be kept: %s", event.event_id, error)

    def _vision_readings(self) -> VisionReadings:
        stats = self._pipeline.stats
        return VisionReadings(
            fps=stats.fps,
            inference_ms=stats.inference_ms,
            camera=self._camera.state if self._camera else None,
            refusals={**self._validator.refusals, LOW_MARGIN: stats.counts[LOW_MARGIN], **self.counts},
        )


def build(settings: DeviceSettings) -> DeviceProgram:
    """Every part from its settings. Raises StoreError or ModelError with one sentence."""
    device = settings.device
    embedder = load_embedder(str(device.model) if device.model else None, device.space)
    space = embedder.space
    galleries = GalleryHolder(Gallery.empty(space))

    def swap(rows: GalleryRows) -> None:
        galleries.swap(Gallery(space, rows.user_ids, rows.vectors, version=rows.version))

    scheduler = BackgroundScheduler(timezone=timezone.utc, daemon=True)
    config = IoTClientConfig(
        device_id=device.id,
        site_id=device.site,
        mqtt=settings.mqtt,
        spaces={space.id: SpaceInfo(dimension=space.dimension, model_sha256=space.model_sha256)},
        software=software_version(),
        hardware=device.hardware,
        dev_mode=device.dev_mode,
    )
    parts = assemble(
        config,
        database_path(settings),
        scheduler,
        on_gallery=swap,
        encode_image=_encoder(device.image_kb * 1000),
        outbox_bytes=device.outbox_mb * 1024 * 1024,
    )
    limits = thresholds(device, space.id)
    validator = EventValidator(
        device.id,
        device.confirmation_frames,
        device.consistency_threshold,
        device.cooldown_seconds,
        limits.distance,
    )
    pipeline = RecognitionPipeline(
        CascadeDetector(), IouTracker(), embedder, galleries, validator, min_margin=limits.margin
    )
    return DeviceProgram(settings, parts, pipeline, validator, scheduler)


def thresholds(device: DeviceSection, space_id: str) -> Thresholds:
    """What counts as a match: as configured for the space, else as suits it."""
    suited = Thresholds(distance=gabor.DISTANCE_THRESHOLD, margin=gabor.MIN_MARGIN)
    return device.thresholds.get(space_id, suited if space_id == gabor.SPACE_ID else _FOR_ARCFACE)


def _encoder(budget: int) -> Callable[[Image, Sequence[float] | None], bytes | None]:
    return lambda image, box: compress_to_jpeg(image, budget, box)
