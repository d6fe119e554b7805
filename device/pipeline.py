"""The life of a recognition: detect, track, crop, embed, match, validate."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from broker_bridge.contract.messages import Event

from .event_validator import EventValidator
from .vision.alignment import crop_faces
from .vision.camera import Frame
from .vision.detector import Detector, FaceBox
from .vision.embedder import Embedder
from .vision.gallery import GalleryHolder, Match
from .vision.tracker import IouTracker

LOW_MARGIN = "low_margin"
# The distance of a face that matches nobody: as far as two vectors can be.
_FARTHEST = 2.0
# Share of the newest frame in the moving averages; about the last twenty frames count.
_NEWEST = 0.1


@dataclass
class PipelineStats:
    """Moving averages of frames a second and of detector plus embedder time, and counts of `frames`,
    `faces`, `matches`, `low_margin` and `events` since the start."""

    fps: float | None = None
    inference_ms: float | None = None
    counts: Counter[str] = field(default_factory=Counter)


class RecognitionPipeline:
    """Takes frames, gives events. One thread owns it; the gallery may be swapped from another.

    `min_margin` is the lead in cosine similarity that the best person needs over the second best: with less
    the face counts as no match. `timer` is monotonic seconds. Raises ValueError when the gallery is of
    another space than the embedder's.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: IouTracker,
        embedder: Embedder,
        galleries: GalleryHolder,
        validator: EventValidator,
        *,
        min_margin: float = 0.0,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        space, held = embedder.space, galleries.current.space
        if (space.id, space.dimension) != (held.id, held.dimension):
            raise ValueError(f"the embedder makes vectors of {space.id}, the gallery holds {held.id}")
        self._detector = detector
        self._tracker = tracker
        self._embedder = embedder
        self._galleries = galleries
        self._validator = validator
        self._min_margin = min_margin
        self._timer = timer
        self._last_frame_at: float | None = None
        self.stats = PipelineStats()

    def process(self, frame: Frame) -> list[tuple[Event, FaceBox]]:
        """The events that `frame` completes, each with the face it is about, in pixels of the frame."""
        began = self._timer()
        found = self._detector.detect(frame.image)
        detected = self._timer()
        track_ids = self._tracker.update(found.boxes, frame.captured_at)
        faces = crop_faces(frame.image, found.boxes)
        cropped = self._timer()
        vectors = self._embedder.embed(faces)
        inference_ms = (self._timer() - cropped + detected - began) * 1000
        gallery = self._galleries.current
        matches = [self._trusted(match) for match in gallery.match(vectors)]
        self._measure(frame, len(found), inference_ms)

        events = []
        for row, (track_id, match) in enumerate(zip(track_ids, matches, strict=True)):
            event = self._validator.process_recognition(
                track_id,
                match.user_id if match else None,
                match.distance if match else _FARTHEST,
                frame.index,
                margin=match.margin if match else None,
                inference_ms=round(inference_ms, 1),
                space=gallery.space.id,
                gallery_version=gallery.version,
            )
            if event is not None:
                events.append((event, found.face_box(row)))
        self.stats.counts["events"] += len(events)
        return events

    def _trusted(self, match: Match | None) -> Match | None:
        if match is None:
            return None
        if match.margin < self._min_margin:
            self.stats.counts[LOW_MARGIN] += 1
            return None
        self.stats.counts["matches"] += 1
        return match

    def _measure(self, frame: Frame, faces: int, inference_ms: float) -> None:
        stats = self.stats
        stats.counts["frames"] += 1
        stats.counts["faces"] += faces
        stats.inference_ms = _moving(stats.inference_ms, inference_ms)
        if self._last_frame_at is not None and frame.captured_at > self._last_frame_at:
            interval = _moving(1 / stats.fps if stats.fps else None, frame.captured_at - self._last_frame_at)
            stats.fps = 1 / interval
        self._last_frame_at = frame.captured_at


def _moving(average: float | None, newest: float) -> float:
    return newest if average is None else average + _NEWEST * (newest - average)
