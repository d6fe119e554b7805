"""A camera at a door: frames become events, from start to stop."""

import logging
import math
import threading
import time
from collections import Counter
from datetime import datetime, timedelta

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.errors import (
    CAMERA_DARK,
    CAMERA_FROZEN,
    GALLERY_STALE,
    LIVENESS_FAILED,
    MODEL_FAILED,
    ContractError,
)
from broker_bridge.contract.messages import Event

from .client.assembly import Assembly
from .enrollment.registrations import RegistrationSender
from .events.decision import QUARANTINED, STALE_GALLERY
from .management.commands import CommandRunner
from .management.gallery_watch import GalleryWatch
from .management.health import Health
from .management.heartbeat import VisionReadings
from .npy_folders.watch import NpyWatch
from .recognition.assembly import Recognition
from .recognition.sighting import FrameReport
from .recordings.recorder import ScoreRecorder
from .settings import DeviceSection
from .store.connection import StoreDamagedError, StoreError
from .store.repair import mark_damaged
from .tracking.observations import ObservationSender
from .vision.capture.camera import Frame, open_camera
from .vision.capture.newest_frame import NewestFrame
from .vision.capture.picture_watch import PictureWatch
from .vision.detectors.detector import FaceBox
from .vision.inference.session import ModelError

_log = logging.getLogger(__name__)

FROZEN = "the camera sends the same picture again and again, so no face is matched: restart it or its stream"
DARK = "the picture has one colour (black, white or grey): look at the lens, the cable and the light"


class DeviceProgram:
    """The program of a camera: recognition, delivery of events, sync.

    `counts` has `events_lost`, `frames_failed` and `registrations_lost`.
    """

    def __init__(
        self,
        settings: DeviceSection,
        parts: Assembly,
        recognition: Recognition,
        *,
        health: Health,
        gallery_watch: GalleryWatch,
        registrations: RegistrationSender,
        commands: CommandRunner,
        recorder: ScoreRecorder | None,
        npy_watch: NpyWatch | None = None,
        observations: ObservationSender | None = None,
    ) -> None:
        self.parts = parts
        self.health = health
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._recognition = recognition
        self._gallery_watch = gallery_watch
        self._registrations = registrations
        self._commands = commands
        self._recorder = recorder
        self._npy_watch = npy_watch
        self._observations = observations
        self._capture: NewestFrame | None = None
        self._pictures = PictureWatch()
        self._stop = threading.Event()
        self._is_damaged = False
        self._pipeline = recognition.build_pipeline(
            suppressed_reason=self._suppressed_reason, on_event=self._send
        )

    def run(self, *, exit_at_end: bool = False) -> None:
        """Run until `request_stop`.

        After the end of a file the device stays connected unless `exit_at_end`. Raises CameraError if a
        source that is not live cannot be opened, or if `loop` is set for a live one.
        """
        self.parts.client.start()
        self.parts.sync.start_periodic_sync(self._settings.sync_interval_minutes)
        if self._npy_watch is not None:
            self._npy_watch.start()
        try:
            self._process_frames()
            if not exit_at_end:
                self._stop.wait()
        finally:
            if self._npy_watch is not None:
                self._npy_watch.stop()
            self._commands.close()
            self.parts.client.stop()
            if self._recorder is not None:
                self._recorder.close()
            self.parts.db.close()
        if self._is_damaged:
            path = self.parts.db.connection.path
            raise StoreDamagedError(f"{path}: was found damaged; the next start repairs it", "at run time")

    def request_stop(self) -> None:
        """End `run` soon; for any thread, but not for a signal handler."""
        self._stop.set()
        if self._capture is not None:
            self._capture.stop()

    def end_for_repair(self) -> None:
        """End `run` with StoreDamagedError: the next start replaces the database."""
        if not self._is_damaged:
            self._is_damaged = True
            mark_damaged(self.parts.db.connection.path)
            _log.error("store found damaged; the program ends, its next start repairs it")
            threading.Thread(target=self.request_stop, daemon=True).start()

    def _process_frames(self) -> None:
        settings = self._settings
        camera = open_camera(settings.source, loop=settings.loop, fps=settings.fps, wait_for_live=True)
        with NewestFrame(camera) as capture:
            self._capture = capture
            if self._stop.is_set():
                return
            for frame in capture:
                self._process_frame(frame)

    def _process_frame(self, frame: Frame) -> None:
        # The same picture again is no evidence, however often it comes.
        is_new = self._pictures.add(frame.image, frame.captured_at)
        self._report_pictures()
        if not is_new:
            return
        report = None
        try:
            report = self._pipeline.process(frame)
        except ModelError:
            # Recognition goes on: the next frame may succeed.
            self.counts["frames_failed"] += 1
        self._report_failures()
        if report is None:
            return
        self._observe(report, frame)
        self._register_strangers(report)
        if self._recorder is not None:
            self._recorder.use_limits(self._recognition.validator.limits)
            self._recorder.record(report)

    def _report_failures(self) -> None:
        # By network: a frame without a face does not show that the embedder works.
        self._report_problem(MODEL_FAILED, "; ".join(self._pipeline.failing.values()))
        liveness = self._recognition.liveness
        self._report_problem(LIVENESS_FAILED, liveness.failure if liveness else None)

    def _report_pictures(self) -> None:
        self._report_problem(CAMERA_FROZEN, FROZEN if self._pictures.is_frozen else None)
        self._report_problem(CAMERA_DARK, DARK if self._pictures.is_dark else None)

    def _report_problem(self, code: str, detail: str | None) -> None:
        if detail:
            self.health.report(code, detail)
        else:
            self.health.clear(code)

    def _send(self, event: Event, box: FaceBox, frame: Frame) -> None:
        image = frame.image if self._settings.event_images else None
        try:
            self.parts.client.send_event(event, image, box)
        except ContractError as error:
            # Recognition goes on: the next event may be small enough.
            self.counts["events_lost"] += 1
            _log.error("event lost: not stored event_id=%s error=%r", event.event_id, str(error))

    def _observe(self, report: FrameReport, frame: Frame) -> None:
        if self._observations is None:
            return
        height, width = frame.image.shape[:2]
        age = timedelta(seconds=max(0.0, time.monotonic() - frame.captured_at))
        self._observations.send_report(report, (width, height), self.parts.client.clock.utc_now() - age)

    def _register_strangers(self, report: FrameReport) -> None:
        if not self._registrations.registers_visitors:
            return
        space = self._recognition.space
        for sighting in report.sightings:
            event = sighting.decision.event
            if event is None or event.event_type != "unknown" or sighting.vector is None:
                continue
            try:
                self._registrations.offer_visitor(space.id, normalise(sighting.vector, space.dimension))
            except StoreError as error:
                self.counts["registrations_lost"] += 1
                _log.error("registration lost: visitor not stored error=%r", str(error))

    def _suppressed_reason(self) -> str | None:
        """Return the reason for which no face may be matched now, if any."""
        sync = self.parts.sync
        synced_at, seconds = sync.synced_at, sync.seconds_since_sync
        now = self.parts.client.clock.utc_now()
        if synced_at is not None and math.isfinite(seconds):
            # By monotonic time: a clock that is set makes no gallery old.
            now = synced_at + timedelta(seconds=seconds)
        stale = gallery_is_stale(
            now,
            synced_at,
            empty=not len(self._recognition.galleries.current),
            max_age_hours=self._settings.max_gallery_age_hours,
        )
        if stale:
            self.health.report(
                GALLERY_STALE,
                "recognition stops until the next sync: the gallery was never synced, or its last sync is "
                "older than max_gallery_age_hours",
            )
            return STALE_GALLERY
        self.health.clear(GALLERY_STALE)
        if self.health.is_quarantined:
            return QUARANTINED
        return self._gallery_watch.suppressed_reason()

    def vision_readings(self) -> VisionReadings:
        """Return the readings of camera and recognition for the heartbeat."""
        stats = self._pipeline.stats
        capture = self._capture
        return VisionReadings(
            fps=self._pictures.limit_fps(stats.fps, time.monotonic()),
            inference_ms=stats.inference_ms,
            camera=capture.state if capture else None,
            refusals={**self._recognition.refusals(), **self.counts, **self._counts_of_parts()},
            quality=dict(stats.quality_reasons),
            frames={**capture.counts, "repeated": self._pictures.repeated} if capture else {},
            problems=self.health.problems(),
        )

    def _counts_of_parts(self) -> dict[str, int]:
        counts = {f"visitors_{name}": count for name, count in self._registrations.counts.items()}
        if self._observations is not None:
            sent = self._observations.counts
            counts |= {f"observations_{name}": count for name, count in sent.items() if count}
        if self._npy_watch is not None:
            counts |= {f"files_{name}": count for name, count in self._npy_watch.counts.items()}
        if self._recorder is not None and self._recorder.counts["lost"]:
            counts["recording_lost"] = self._recorder.counts["lost"]
        return counts


def gallery_is_stale(
    now: datetime, synced_at: datetime | None, *, empty: bool, max_age_hours: float | None
) -> bool:
    """Return whether a gallery is too old to match.

    The gallery last matched the registry at `synced_at`, None before the first sync. `max_age_hours` is
    None without a limit. Even without a limit an empty gallery is stale before its first sync: every face
    would be unknown.
    """
    if synced_at is None:
        return empty or max_age_hours is not None
    # A sync in the future means a wrong clock, hence an unknown age.
    return max_age_hours is not None and abs(now - synced_at) > timedelta(hours=max_age_hours)
