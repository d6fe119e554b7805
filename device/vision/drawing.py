"""Draw the results of recognition into a frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .capture.sources import CameraError, Image
from .detectors.detector import FaceBox, Float32

Colour = tuple[int, int, int]
"""Blue, green, red."""
_Area = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; the last two beyond it."""

GREEN: Colour = (110, 240, 90)
AMBER: Colour = (40, 170, 250)
GREY: Colour = (170, 170, 170)
RED: Colour = (90, 90, 255)
_INK: Colour = (255, 255, 255)
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


@dataclass(frozen=True)
class FaceNote:
    """Text beside a face: `lines` from the top, `landmarks` float32[5, 2] in pixels."""

    box: FaceBox
    lines: Sequence[str]
    colour: Colour
    landmarks: Float32 | None = None
    is_event: bool = False


def draw(image: Image, notes: Sequence[FaceNote], header: str, footer: Sequence[str] = ()) -> Image:
    """Return a copy of `image` with `notes`, `header` and `footer` lines.

    `image` is uint8[h, w, 3].
    """
    drawn: Image = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 1000)
    step = round(36 * scale)
    top = image.shape[0] - len(footer) * step - 8
    bottom = top - 4 if footer else image.shape[0]
    for note in notes:
        _face(drawn, note, scale)
    faces = [(x, y, x + width, y + height) for x, y, width, height in (note.box for note in notes)]
    taken: list[_Area] = []
    for note in notes:
        area = _free_area(note, scale, (step + 4, bottom, image.shape[1]), faces, taken)
        _label(drawn, note, scale, area)
        taken.append(area)
    _shade(drawn, (0, 0, image.shape[1], step + 4))
    _text(drawn, header, (8, step - 2), scale, _INK)
    if footer:
        _shade(drawn, (0, bottom, image.shape[1], image.shape[0]))
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


def _free_area(
    note: FaceNote, scale: float, room: tuple[int, int, int], faces: Sequence[_Area], taken: Sequence[_Area]
) -> _Area:
    """Return the area for a label that covers least of what is drawn.

    It covers least of `faces` and of the labels in `taken`. Candidates are below the face (preferred),
    above it, at its sides, and further off. `room` is top, bottom and width.
    """
    top, bottom, width = room
    x, y, face_wide, face_tall = note.box
    tall = round(40 * scale) * len(note.lines) + 8
    wide = max((_width(line, scale) for line in note.lines), default=0) + 12
    below, above, right = y + face_tall + 4, y - tall - 4, x + face_wide - wide
    corners = [
        (x, below),
        (right, below),
        (x, above),
        (right, above),
        (x + face_wide + 4, y),
        (x - wide - 4, y),
    ]
    corners += [(at_x, at_y) for at_y in (below + tall, above - tall) for at_x in (x, right)]
    inside = [(max(0, min(at_x, width - wide)), max(top, min(at_y, bottom - tall))) for at_x, at_y in corners]
    areas = [(at_x, at_y, at_x + wide, at_y + tall) for at_x, at_y in inside]
    # Covering a little of a face is better than a label far off; covering another label is worse.
    nearness = [rank * wide * tall // 20 for rank in range(len(areas))]
    costs = [sum(_covered(area, other) for other in (*faces, *taken, *taken, *taken)) for area in areas]
    return min(zip(costs, nearness, areas, strict=True), key=lambda candidate: candidate[0] + candidate[1])[2]


def _covered(one: _Area, other: _Area) -> int:
    """Return the common pixels of both areas."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    tall = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, tall)


def _label(image: Image, note: FaceNote, scale: float, area: _Area) -> None:
    _shade(image, area)
    step = round(40 * scale)
    for row, line in enumerate(note.lines):
        _text(image, line, (area[0] + 6, area[1] + (row + 1) * step - 4), scale, note.colour)


def _width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)[0][0])


def _text(image: Image, text: str, at: tuple[int, int], scale: float, colour: Colour) -> None:
    """Draw `text`; characters beyond ASCII, which the font lacks, become `?`."""
    ascii_text = text.encode("ascii", "replace").decode()
    weight = max(1, round(1.6 * scale))
    cv2.putText(image, ascii_text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, weight, cv2.LINE_AA)


def _shade(image: Image, area: _Area) -> None:
    """Darken an area, so that text on it is readable."""
    left, top, right, bottom = (max(0, edge) for edge in area)
    image[top:bottom, left:right] //= 4


class VideoFile:
    """Writer of an `.mp4` or `.avi` file in the size of the first image."""

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in _CODECS:
            raise CameraError(f"{path}: a video file ends in {' or '.join(_CODECS)}")
        self.path = path
        self._fps = fps
        self._size: tuple[int, int] | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, image: Image) -> None:
        """Append `image`. Raises CameraError if the file cannot be written."""
        size = (image.shape[1], image.shape[0])
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path), codec, self._fps, size)
            self._size = size
        if not self._writer.isOpened():
            raise CameraError(f"{self.path}: cannot be written; check that the folder exists and is writable")
        if size != self._size:
            # The images of a folder may differ in size; a video has one size.
            image = np.asarray(cv2.resize(image, self._size), dtype=np.uint8)
        self._writer.write(image)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
