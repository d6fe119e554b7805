"""Time of recognition without its networks: 640x480, four faces, 10,000 templates."""

import time
from collections.abc import Callable

import numpy as np
from rich.progress import Progress

from deploy.local.sample_video import enrollment_photo
from device.recognition.assembly import build_recognition
from device.recognition.pipeline import RecognitionPipeline
from device.recognition.sighting import FrameReport
from device.settings import DeviceSection, QualitySettings
from device.vision.alignment import frame_squares
from device.vision.capture.camera import Frame
from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detections, Float32
from device.vision.detectors.geometry import CASCADE_FRAME, PREDICTOR_FRAMES
from device.vision.gallery import Gallery
from device.vision.landmarks import LandmarkPredictor
from device.vision.photos.decoding import decode_photo

from .stats import Latency, Row

FACES = 4
TEMPLATES = 10_000
LIMIT_MS = 2.0
_NETWORKS = ("detect", "embed")
_LANDMARK_RUNS = 100
# ArcFace's five points, as shares of the face's box.
_POINTS = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]], dtype=np.float32)


class _FixedDetector:
    """A detector with fixed results and no run time, so that the rest is measured."""

    name = "fixed"

    def __init__(self, boxes: Float32) -> None:
        self._found = Detections(
            boxes=boxes,
            scores=np.ones(len(boxes), np.float32),
            landmarks=boxes[:, None, :2] + _POINTS[None] * boxes[:, None, 2:],
        )

    def detect(self, image: Image) -> Detections:  # noqa: ARG002
        return self._found


def measure(frames: int, progress: Progress) -> list[Row]:
    """Return medians over `frames` frames with landmarks.

    The two networks alone stand beside them.
    """
    task = progress.add_task("pipeline", total=frames)
    picture, boxes = _four_faces()
    pipeline = _pipeline(boxes)
    reports: list[FrameReport] = []
    for index in range(frames):
        reports.append(pipeline.process(Frame(picture, index, index / 15)))
        progress.advance(task)
    assert all(len(report.sightings) == FACES for report in reports)
    assert all(seen.match for report in reports for seen in report.sightings)
    own = [sum(ms for stage, ms in one.milliseconds.items() if stage not in _NETWORKS) for one in reports]
    rows = [Row(f"pipeline: all but the networks, {FACES} faces", _latency(own), p50_limit=LIMIT_MS)]
    rows += [
        Row(f"  {stage}", _latency([one.milliseconds[stage] for one in reports]))
        for stage in ("track", "align", "quality", "match", "validate")
    ]
    embed = [one.milliseconds["embed"] for one in reports]
    cascade = _cascade(picture, min(frames, 100))
    return [
        *rows,
        Row(f"  landmarks, {FACES} faces", _latency(_landmarks(picture, boxes)), p50_limit=FACES * 1.0),
        Row(f"  beside it: embedder resnet29-512, {FACES} faces", _latency(embed), p50_limit=FACES * 15.0),
        Row("  beside it: cascade detector", _latency(cascade)),
    ]


def _pipeline(boxes: Float32) -> RecognitionPipeline:
    # The pictures of the sample are small ones, enlarged: sharpness is measured, and not required.
    quality = QualitySettings(min_sharpness=0)
    device = DeviceSection(id="bench-001", site="bench", unknown_events=False, quality=quality)
    recognition = build_recognition(device)
    space = recognition.space
    random = np.random.default_rng(3).normal(size=(TEMPLATES, space.dimension)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    user_ids = [f"EMP-{row:05d}" for row in range(TEMPLATES)]
    recognition.galleries.swap(Gallery(space, user_ids, random, version=1))
    return RecognitionPipeline(
        _FixedDetector(boxes),
        recognition.create_tracker(),
        recognition.embedder,
        recognition.galleries,
        recognition.validator,
        quality=recognition.quality,
    )


def _cascade(picture: Image, frames: int) -> list[float]:
    detector = build_recognition(DeviceSection(id="bench-001", site="bench")).detector
    return [_timed(lambda: detector.detect(picture)) for _ in range(frames)]


def _landmarks(picture: Image, boxes: Float32) -> list[float]:
    """Return the milliseconds of runs for all faces; the limit is one a face."""
    predictor = LandmarkPredictor()
    squares = frame_squares(boxes, PREDICTOR_FRAMES[CASCADE_FRAME])
    return [_timed(lambda: predictor.predict(picture, squares)) for _ in range(_LANDMARK_RUNS)]


def _four_faces() -> tuple[Image, Float32]:
    """Return a 640x480 frame of four portraits of 200 pixels, and their boxes."""
    picture = np.full((480, 640, 3), 150, dtype=np.uint8)
    boxes = []
    for position in range(FACES):
        face = decode_photo(enrollment_photo(position))[110:310, 140:340]
        left, top = 80 + 260 * (position % 2), 20 + 220 * (position // 2)
        picture[top : top + 200, left : left + 200] = face
        boxes.append([left + 30, top + 30, 140, 140])
    return picture, np.array(boxes, dtype=np.float32)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _latency(milliseconds: list[float]) -> Latency:
    return Latency.from_seconds([each / 1000 for each in milliseconds])
