"""Draws what recognition saw into the picture that it saw it in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .detector import FaceBox, Float32
from .sources import CameraError, Image

Colour = tuple[int, int, int]
"""Blue, green, red."""

GREEN: Colour = (110, 240, 90)
AMBER: Colour = (40, 170, 250)
GREY: Colour = (170, 170, 170)
RED: Colour = (90, 90, 255)
_INK: Colour = (255, 255, 255)
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


@dataclass(frozen=True)
class FaceNote:
    """What to write beside a face: `lines` from top to bottom, `landmarks` float32[5, 2] in pixels."""

    box: FaceBox
    lines: Sequence[str]
    colour: Colour
    landmarks: Float32 | None = None
    is_event: bool = False


def draw(image: Image, notes: Sequence[FaceNote], header: str, footer: Sequence[str] = ()) -> Image:
    """A copy of `image` (uint8[h, w, 3]) with `notes`, a `header` on top and `footer` lines at the bottom."""
    drawn: Image = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 1000)
    for note in notes:
        _face(drawn, note, scale)
    step = round(36 * scale)
    _shade(drawn, 0, step + 4)
    _text(drawn, header, (8, step - 2), scale, _INK)
    top = image.shape[0] - len(footer) * step - 8
    if footer:
        _shade(drawn, top - 4, image.shape[0])
    for row, line in enumerate(footer):
        _text(drawn, line, (8, top + (row + 1) * step - 6), scale, GREEN)
    return drawn


def _face(image: Image, note: FaceNote, scale: float) -> None:
    x, y, width, height = note.box
    thickness = max(1, round((5 if note.is_event else 2) * scale * 1.5))
    cv2.rectangle(image, (x, y), (x + width, y + height), note.colour, thickness)
    if note.landmarks is not None:
        for point in np.round(note.landmarks).astype(int):
            cv2.circle(image, (int(point[0]), int(point[1])), max(2, round(3 * scale)), note.colour, -1)
    step = round(40 * scale)
    # Below the face where there is room, else above, so that the face itself stays visible.
    tall = step * len(note.lines) + 8
    wide = max((_width(line, scale) for line in note.lines), default=0) + 12
    left = max(0, min(x, image.shape[1] - wide))
    top = y + height + 4 if y + height + 4 + tall <= image.shape[0] else max(0, y - tall - 4)
    _shade(image, top, top + tall, left, left + wide)
    for row, line in enumerate(note.lines):
        _text(image, line, (left + 6, top + (row + 1) * step - 4), scale, note.colour)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)[0][0])


def _text(image: Image, text: str, at: tuple[int, int], scale: float, colour: Colour) -> None:
    """The font has ASCII only."""
    ascii_text = text.encode("ascii", "replace").decode()
    weight = max(1, round(1.6 * scale))
    cv2.putText(image, ascii_text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)


def _shade(image: Image, top: int, bottom: int, left: int = 0, right: int | None = None) -> None:
    """Darkens a part, so that text on it can be read whatever lies behind."""
    part = (slice(max(0, top), bottom), slice(left, right))
    image[part] = image[part] // 4


class VideoFile:
    """An `.mp4` or `.avi` that is being written; made with the size of the first picture."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise CameraError(f"{path}: a video file ends in {' or '.join(_CODECS)}")
        self.path = path
        self._fps = fps
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: Image) -> None:
        """Append `image`; raises CameraError if the file cannot be written."""
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, size)
            self._size = size
        if not self._writer.isOpened():
            raise CameraError(f"{self.path}: cannot be written; check that the folder exists and is writable")
        if size != self._size:
            # A folder's pictures may differ; a video has one size.
            image = np.asarray(cv2.resize(image, self._size), dtype=np.uint8)
        self._writer.write(image)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
