"""Record the scores of a door, for tests of recordings and their replay."""

from datetime import datetime, timedelta
from pathlib import Path

from device.events.decision import LOW_QUALITY
from device.events.event_validator import EventValidator
from device.recognition.sighting import FrameReport, Sighting
from device.recordings.format import RecordedSettings
from device.recordings.recorder import ScoreRecorder
from device.vision.detectors.detector import FaceBox
from device.vision.gallery import GalleryMatch
from tests.device_samples import NOON

SETTINGS = RecordedSettings(
    device_id="cam-001",
    space="face:test-8",
    distance_threshold=0.35,
    min_margin=0.05,
    confirmation_frames=5,
    consistency_threshold=0.8,
    cooldown_seconds=30.0,
    unknown_events=True,
    fps=10.0,
)


class RecordedDoor:
    """A validator and a recorder under one set of settings; the test sets the time."""

    def __init__(self, folder: Path, max_bytes: int = 1 << 20, **changes: object) -> None:
        self.settings = SETTINGS.model_copy(update=changes)
        self.now = 5000.0
        self.frame = 0
        self.events: list[tuple[int, str, str | None]] = []
        self.recorder = ScoreRecorder(folder, max_bytes, self.settings, wall_clock=self.time_of_day)
        self.validator = EventValidator(
            self.settings.device_id,
            self.settings.confirmation_frames,
            self.settings.consistency_threshold,
            self.settings.cooldown_seconds,
            self.settings.distance_threshold,
            min_margin=self.settings.min_margin,
            unknown_events=self.settings.unknown_events,
            clock=lambda: self.now,
            wall_clock=self.time_of_day,
        )

    def time_of_day(self) -> datetime:
        return NOON + timedelta(seconds=self.now - 5000.0)

    def see(self, *faces: Sighting, step: float = 0.1) -> FrameReport:
        """Record one frame and return its report."""
        report = FrameReport(self.frame, self.now, 812, faces, {})
        self.recorder.record(report)
        self.events += [
            (self.frame, one.track_id, one.decision.event.user_id) for one in faces if one.decision.event
        ]
        self.frame += 1
        self.now += step
        return report

    def face(
        self,
        user_id: str | None = "EMP-1",
        distance: float = 0.28,
        *,
        track: str = "face_0",
        margin: float = 0.2,
        quality_reason: str | None = None,
        suppressed_reason: str | None = None,
    ) -> Sighting:
        """Return a face of the next frame with its decision."""
        suppressed_reason = suppressed_reason or (LOW_QUALITY if quality_reason else None)
        match = (
            GalleryMatch(user_id, 1 - distance, distance, margin)
            if user_id and not suppressed_reason
            else None
        )
        decision = self.validator.decide(
            track,
            match.user_id if match else None,
            match.distance if match else 2.0,
            self.frame,
            suppressed_reason=suppressed_reason,
            margin=match.margin if match else None,
        )
        return Sighting(track, FaceBox(10, 20, 60, 70), None, quality_reason, match, None, decision)
