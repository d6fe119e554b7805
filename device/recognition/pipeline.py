"""The life of a recognition: detect, track, align, judge the quality, embed, match, validate."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.messages import Event
from broker_bridge.vectors.index import DEFAULT_FLOOR
from device.events.decision import LOW_QUALITY, NO_VECTOR, QUARANTINED, EventDecision
from device.events.event_validator import EventValidator
from device.timing.clocks import FrameClock
from device.vision.alignment import align_faces
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import Detections, Detector, FaceBox, Float32
from device.vision.embedder import Embedder
from device.vision.gallery import Gallery, GalleryHolder, GalleryMatch
from device.vision.inference.session import ModelError
from device.vision.quality import face_quality

from .sighting import FrameReport, Sighting

# The distance of a face that was compared with nobody: as far as two vectors can be.
_FARTHEST = 2.0
# Share of the newest frame in the moving averages; about the last twenty frames count.
_NEWEST = 0.1
_INFERENCE = ("detect", "embed")

OnEvent = Callable[[Event, FaceBox, Frame], None]


class FaceTracking(Protocol):
    def update(self, boxes: Float32, now: float) -> list[str]:
        """The track id of each row of `boxes` (float32[n, 4], xywh pixels) at `now` (monotonic seconds)."""
        ...


class QualityCheck(Protocol):
    def judge(self, faces: NDArray[np.uint8], found: Detections) -> Sequence[str | None]:
        """Why each of `faces` (uint8[n, 112, 112, 3]) is too poor to be recognised; None: good enough."""
        ...


class EmotionReader(Protocol):
    @property
    def failure(self) -> str | None:
        """What the network said that failed at its last use, if it did."""
        ...

    def read_emotions(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> Sequence[tuple[Event, FaceBox]]:
        """The emotion events that this frame completes; `faces` belong to `sightings` row by row.

        A network that fails raises nothing: the frame's recognitions are decided by then, and go out.
        """
        ...


@dataclass
class PipelineStats:
    """Moving averages of frames a second and of milliseconds a stage, and counts of `frames`, `faces` and
    `events` since the start; `quality_reasons` counts faces by what they lacked."""

    fps: float | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    quality_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def inference_ms(self) -> float | None:
        """Detector and embedder together; None before the first frame."""
        return sum(self.milliseconds[stage] for stage in _INFERENCE) if self.milliseconds else None


class RecognitionPipeline:
    """Takes frames, gives events. One thread owns it; the gallery may be swapped from another.

    `on_event` is called while the gallery that an event comes from is held: once a swap has returned, nothing
    of the old gallery can come out any more. `suppressed_reason` is asked once a frame for
    a reason not to match at all (a model that is not the registry's, a gallery that is too old). `floor` is
    the similarity down to which
    matches are exact (see `Gallery.match`). `clock`, which validator and emotions go by, is set to the moment
    of each frame. `timer` is monotonic seconds. `failing` has what each network (`detect`, `embed`,
    `emotion`) said that failed at its last use. Raises ValueError when the gallery is of another space than
    the embedder's.
    """

    def __init__(
        self,
        detector: Detector,
        tracker: FaceTracking,
        embedder: Embedder,
        galleries: GalleryHolder,
        validator: EventValidator,
        *,
        quality: QualityCheck,
        emotions: EmotionReader | None = None,
        floor: float = DEFAULT_FLOOR,
        clock: FrameClock | None = None,
        suppressed_reason: Callable[[], str | None] = lambda: None,
        on_event: OnEvent = lambda _event, _box, _frame: None,
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
        self._quality = quality
        self._emotions = emotions
        self._floor = floor
        self._clock = clock or FrameClock()
        self._suppressed_reason = suppressed_reason
        self._on_event = on_event
        self._timer = timer
        self._last_frame_at: float | None = None
        self.stats = PipelineStats()
        self.failing: dict[str, str] = {}

    def process(self, frame: Frame) -> FrameReport:
        """What is seen in `frame`. Raises ModelError when a network fails on it."""
        laps = _Laps(self._timer)
        self._clock.seconds = frame.captured_at
        with self._noting_failure("detect"):
            found = self._detector.detect(frame.image)
        laps.end("detect")
        track_ids = self._tracker.update(found.boxes, frame.captured_at)
        laps.end("track")
        faces = align_faces(frame.image, found)
        laps.end("align")
        poor = self._quality.judge(faces, found)
        laps.end("quality")
        suppressed_reason = self._suppressed_reason()
        # A gallery that is too old says nothing against vectors; of a model in quarantine they are worthless.
        good = [row for row, reason in enumerate(poor) if reason is None and suppressed_reason != QUARANTINED]
        embedded = zip(good, self._embed(faces[good]), strict=True)
        vectors = {row: vector for row, vector in embedded if vector.any()}
        refused = [suppressed_reason or (LOW_QUALITY if reason else None) for reason in poor]
        for row in set(good) - set(vectors):
            # Nobody, but no stranger either.
            refused[row] = suppressed_reason or NO_VECTOR
        qualities = {row: face_quality(faces[row], found.boxes[row]) for row in vectors}
        laps.end("embed")
        with self._galleries.borrow() as gallery:
            matches = self._match(gallery, vectors if suppressed_reason is None else {})
            laps.end("match")
            at = _Moment(frame.index, gallery, laps.spent(_INFERENCE))
            sightings = [
                Sighting(
                    track_id=track_id,
                    box=found.face_box(row),
                    landmarks=None if found.landmarks is None else found.landmarks[row],
                    quality_reason=poor[row],
                    match=matches.get(row),
                    vector=vectors.get(row),
                    decision=self._judge(track_id, matches.get(row), refused[row], at),
                    quality=qualities.get(row),
                )
                for row, track_id in enumerate(track_ids)
            ]
            events = [(one.decision.event, one.box) for one in sightings if one.decision.event]
            laps.end("validate")
            if self._emotions is not None:
                events += self._emotions.read_emotions(faces, sightings, frame.index)
                self._note("emotion", self._emotions.failure)
                laps.end("emotion")
            for event, box in events:
                self._on_event(event, box, frame)
            laps.end("send")
        self._measure(frame, poor, len(events), laps.milliseconds)
        return FrameReport(
            frame.index,
            frame.captured_at,
            gallery.version,
            tuple(sightings),
            laps.milliseconds,
            tuple(events),
        )

    def _embed(self, faces: NDArray[np.uint8]) -> Float32:
        with self._noting_failure("embed", used=len(faces) > 0):
            vectors = self._embedder.embed(faces)
        if not vectors.any(axis=1).all():
            self._note(
                "embed",
                f"the network of {self._embedder.space.id} gives a face no vector: it answers NaN, infinity "
                "or zeros",
            )
        return vectors

    def _match(self, gallery: Gallery, vectors: Mapping[int, Float32]) -> dict[int, GalleryMatch | None]:
        shape = (len(vectors), self._embedder.space.dimension)
        queries = np.array(list(vectors.values()), dtype=np.float32).reshape(shape)
        return dict(zip(vectors, gallery.match(queries, self._floor), strict=True))

    @contextmanager
    def _noting_failure(self, network: str, *, used: bool = True) -> Iterator[None]:
        try:
            yield
        except ModelError as error:
            self._note(network, str(error))
            raise
        if used:
            self._note(network, None)

    def _note(self, network: str, failure: str | None) -> None:
        if failure is None:
            self.failing.pop(network, None)
        else:
            self.failing[network] = failure

    def _judge(
        self, track_id: str, match: GalleryMatch | None, suppressed_reason: str | None, at: "_Moment"
    ) -> EventDecision:
        return self._validator.decide(
            track_id,
            match.user_id if match else None,
            match.distance if match else _FARTHEST,
            at.frame_id,
            suppressed_reason=suppressed_reason,
            margin=match.margin if match else None,
            inference_ms=round(at.inference_ms, 1),
            space=at.gallery.space.id,
            gallery_version=at.gallery.version,
        )

    def _measure(
        self, frame: Frame, poor: Sequence[str | None], events: int, milliseconds: dict[str, float]
    ) -> None:
        stats = self.stats
        stats.counts["frames"] += 1
        stats.counts["faces"] += len(poor)
        stats.counts["events"] += events
        stats.quality_reasons.update(reason for reason in poor if reason is not None)
        stats.milliseconds = {
            stage: _moving(stats.milliseconds.get(stage), spent) for stage, spent in milliseconds.items()
        }
        if self._last_frame_at is not None and frame.captured_at > self._last_frame_at:
            interval = _moving(1 / stats.fps if stats.fps else None, frame.captured_at - self._last_frame_at)
            stats.fps = 1 / interval
        self._last_frame_at = frame.captured_at


@dataclass(frozen=True)
class _Moment:
    """What the faces of one frame have in common."""

    frame_id: int
    gallery: Gallery
    inference_ms: float


class _Laps:
    """Milliseconds of each stage, from the end of the one before."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._since = timer()
        self.milliseconds: dict[str, float] = {}

    def end(self, stage: str) -> None:
        now = self._timer()
        self.milliseconds[stage] = (now - self._since) * 1000
        self._since = now

    def spent(self, stages: Sequence[str]) -> float:
        return sum(self.milliseconds[stage] for stage in stages)


def _moving(average: float | None, newest: float) -> float:
    return newest if average is None else average + _NEWEST * (newest - average)
