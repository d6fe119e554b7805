"""Recognise the faces of a frame, in seven stages.

The stages: detect, track, align, check quality, embed, match, validate. With a liveness check it runs between
quality and embedding.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from broker_bridge.contract.messages import Event
from device.events.decision import (
    LIMITS_MISSING,
    LOW_QUALITY,
    NO_VECTOR,
    NOT_LIVE,
    QUARANTINED,
    EventDecision,
)
from device.events.event_validator import EventValidator
from device.events.match_limits import MatchLimits
from device.timing.clocks import FrameClock
from device.vision.alignment import align_faces
from device.vision.capture.camera import Frame
from device.vision.detectors.detector import Detections, Detector, FaceBox, Float32
from device.vision.embedder import Embedder
from device.vision.gallery import Gallery, GalleryHolder
from device.vision.inference.session import ModelError
from device.vision.quality import face_quality

from .face_in_frame import FaceInFrame
from .liveness import LivenessStage
from .sighting import FrameReport, Sighting
from .stage_times import INFERENCE, PipelineStats, StageTimer

OnEvent = Callable[[Event, FaceBox, Frame], None]


class FaceTracking(Protocol):
    def update(self, boxes: Float32, now: float) -> list[str]:
        """Return the track id of each row of `boxes`.

        `boxes` is float32[n, 4], xywh in pixels; `now` is monotonic seconds.
        """
        ...


class QualityCheck(Protocol):
    def check_quality(self, faces: NDArray[np.uint8], found: Detections) -> Sequence[str | None]:
        """Return per face why it is not good enough, or None.

        `faces` is uint8[n, 112, 112, 3].
        """
        ...


class EmotionReader(Protocol):
    @property
    def failure(self) -> str | None:
        """The error of the network's last use, None if it worked."""
        ...

    def read_emotions(
        self, faces: NDArray[np.uint8], sightings: Sequence[Sighting], frame_id: int
    ) -> Sequence[tuple[Event, FaceBox]]:
        """Return the emotion events that this frame completes.

        Row i of `faces` is `sightings[i]`. Never raises for a failed network: the frame's recognitions
        are decided already and must go out.
        """
        ...


class RecognitionPipeline:
    """The pipeline from frames to events.

    One thread owns it; another may swap the gallery. `on_event` runs while the gallery of the event is
    borrowed: after a swap has returned, no event of the old gallery can follow. `suppressed_reason` is
    called once per frame; it returns a reason not to match at all (a model in quarantine, an outdated
    gallery) or None. `limits` is called once per frame too, and returns the limits of a match; None for none,
    so that no face is matched. Without it the validator's own are used.
    `clock` is set to the time of each frame and drives validator and emotions. `timer` is monotonic
    seconds. `failing` has the last error of each failing network (`detect`, `embed`, `emotion`).

    Raises ValueError when gallery and embedder are of different spaces.
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
        liveness: LivenessStage | None = None,
        emotions: EmotionReader | None = None,
        limits: Callable[[], MatchLimits | None] | None = None,
        clock: FrameClock | None = None,
        suppressed_reason: Callable[[], str | None] = lambda: None,
        on_event: OnEvent = lambda _event, _box, _frame: None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        space, gallery_space = embedder.space, galleries.current.space
        if (space.id, space.dimension) != (gallery_space.id, gallery_space.dimension):
            raise ValueError(f"the embedder makes vectors of {space.id}, the gallery has {gallery_space.id}")
        self._detector = detector
        self._tracker = tracker
        self._embedder = embedder
        self._galleries = galleries
        self._validator = validator
        self._quality = quality
        self._liveness = liveness
        self._emotions = emotions
        self._limits = limits or (lambda: validator.limits)
        self._clock = clock or FrameClock()
        self._suppressed_reason = suppressed_reason
        self._on_event = on_event
        self._timer = timer
        self.stats = PipelineStats()
        self.failing: dict[str, str] = {}

    def process(self, frame: Frame) -> FrameReport:
        """Return what is seen in `frame`. Raises ModelError when a network fails on it."""
        stages = StageTimer(self._timer)
        self._clock.seconds = frame.captured_at
        with self._note_failure_of("detect"):
            found = self._detector.detect(frame.image)
        stages.end("detect")
        track_ids = self._tracker.update(found.boxes, frame.captured_at)
        stages.end("track")
        aligned = align_faces(frame.image, found)
        stages.end("align")
        quality_reasons = self._quality.check_quality(aligned, found)
        stages.end("quality")
        suppressed = self._suppressed_reason() or self._follow_limits()
        faces = _faces_in_frame(found, track_ids, quality_reasons, suppressed)
        # A quarantined model has no useful vectors; an outdated gallery does not make vectors useless.
        useful = [] if suppressed == QUARANTINED else faces
        if self._liveness is not None:
            self._liveness.check_faces(frame, useful)
            stages.end("liveness")
        self._add_vectors(useful, aligned, found.boxes)
        stages.end("embed")
        with self._galleries.borrow() as gallery:
            self._add_matches([] if suppressed else faces, gallery)
            stages.end("match")
            inference_ms = round(stages.spent(INFERENCE), 1)
            sightings = [
                face.to_sighting(self._decide(face, frame.index, gallery, inference_ms)) for face in faces
            ]
            events = [(seen.decision.event, seen.box) for seen in sightings if seen.decision.event]
            stages.end("validate")
            if self._emotions is not None:
                events += self._emotions.read_emotions(aligned, sightings, frame.index)
                self._set_failure("emotion", self._emotions.failure)
                stages.end("emotion")
            for event, box in events:
                self._on_event(event, box, frame)
            stages.end("send")
        self.stats.add_frame(frame.captured_at, quality_reasons, len(events), stages.milliseconds)
        return FrameReport(
            frame.index,
            frame.captured_at,
            gallery.version,
            tuple(sightings),
            stages.milliseconds,
            tuple(events),
        )

    def _follow_limits(self) -> str | None:
        """Give the validator the limits of this frame.

        Returns LIMITS_MISSING if there are none.
        """
        limits = self._limits()
        if limits is None:
            return LIMITS_MISSING
        self._validator.change_limits(limits)
        return None

    def _add_vectors(self, faces: Sequence[FaceInFrame], aligned: NDArray[np.uint8], boxes: Float32) -> None:
        """Give every usable face its vector, or the reason NO_VECTOR."""
        good = [face for face in faces if face.quality_reason is None and face.suppressed_reason != NOT_LIVE]
        for face, vector in zip(good, self._embed(aligned[[face.row for face in good]]), strict=True):
            if vector.any():
                face.vector = vector
                face.quality = face_quality(aligned[face.row], boxes[face.row])
            else:
                # No evidence of a stranger either.
                face.suppressed_reason = face.suppressed_reason or NO_VECTOR

    def _embed(self, faces: NDArray[np.uint8]) -> Float32:
        with self._note_failure_of("embed", used=len(faces) > 0):
            vectors = self._embedder.embed(faces)
        if not vectors.any(axis=1).all():
            self._set_failure(
                "embed",
                f"the network of {self._embedder.space.id} returns no vector for a face: expected finite "
                "numbers, got NaN, infinity or zeros",
            )
        return vectors

    def _add_matches(self, faces: Sequence[FaceInFrame], gallery: Gallery) -> None:
        """Give every face that has a vector the most similar identity of `gallery`."""
        embedded = [face for face in faces if face.vector is not None]
        vectors = [face.vector for face in embedded]
        shape = (len(vectors), self._embedder.space.dimension)
        queries = np.array(vectors, dtype=np.float32).reshape(shape)
        matches = gallery.match(queries, self._validator.limits.floor)
        for face, match in zip(embedded, matches, strict=True):
            face.match = match

    def _decide(
        self, face: FaceInFrame, frame_id: int, gallery: Gallery, inference_ms: float
    ) -> EventDecision:
        return self._validator.decide(
            face.track_id,
            face.match.user_id if face.match else None,
            face.distance,
            frame_id,
            suppressed_reason=face.suppressed_reason,
            margin=face.match.margin if face.match else None,
            inference_ms=inference_ms,
            space=gallery.space.id,
            gallery_version=gallery.version,
            liveness=face.liveness,
        )

    @contextmanager
    def _note_failure_of(self, network: str, *, used: bool = True) -> Iterator[None]:
        try:
            yield
        except ModelError as error:
            self._set_failure(network, str(error))
            raise
        if used:
            self._set_failure(network, None)

    def _set_failure(self, network: str, failure: str | None) -> None:
        if failure is None:
            self.failing.pop(network, None)
        else:
            self.failing[network] = failure


def _faces_in_frame(
    found: Detections,
    track_ids: Sequence[str],
    quality_reasons: Sequence[str | None],
    suppressed_reason: str | None,
) -> list[FaceInFrame]:
    return [
        FaceInFrame(
            row=row,
            track_id=track_id,
            box=found.face_box(row),
            landmarks=None if found.landmarks is None else found.landmarks[row],
            quality_reason=quality_reason,
            suppressed_reason=suppressed_reason or (LOW_QUALITY if quality_reason else None),
        )
        for row, (track_id, quality_reason) in enumerate(zip(track_ids, quality_reasons, strict=True))
    ]
