"""Find the only face of a photo of any size, with a bound on the work.

Detectors miss faces under some 80 pixels, and a photo of 12 megapixels that is reduced to 960 pixels has only
faces past 330. A face of 100 pixels or more is found here at any size: the photo is searched at 960
pixels, and while that shows no wide face, at twice the size in tiles, up to its own size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from device.vision.capture.sources import Image
from device.vision.detectors.detector import Detections, Detector, FaceBox, Float32

from .errors import PHOTO_NO_FACE, PHOTO_SEVERAL_FACES, PhotoError

# The photo is first reduced to this, or enlarged if it is smaller.
_LONG_SIDE = 960
_SHORT_SIDE = 640
# A face narrower than this share of the widest is background or a false detection.
_LEAST_SHARE_OF_WIDEST = 0.5
# Past this width every face that counts beside it is wide enough to be found, too.
_WIDE_FACE = 160
# Tiles overlap by the widest face that the search before could leave.
_TILE = 2400
_OVERLAP = 2 * _WIDE_FACE
# A small face is looked at once more, in a portrait cut around it, and then needs a clear score.
_PORTRAIT = 3.0
_CLEAR_SCORE = 0.55
_MOST_CANDIDATES = 8
_SAME_PLACE = 0.3
_MUCH_THE_SAME = 1.05
_ALMOST_WHOLE = 0.7


@dataclass(frozen=True)
class FaceInPhoto:
    """The only face: one detection in `image`.

    That is a part of the photo times `scale`, within a border. `left` and `top` are its place in the photo,
    in the photo's pixels; they are negative where it begins in the border.
    """

    image: Image
    found: Detections
    scale: float
    left: float
    top: float

    @property
    def box(self) -> FaceBox:
        """The face in pixels of the photo."""
        x, y, width, height = (self.found.boxes[0] / self.scale).tolist()
        return FaceBox(round(x + self.left), round(y + self.top), round(width), round(height))


class PhotoSearch:
    """The search for the only large face with a detector."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def find_face(self, photo: Image) -> FaceInPhoto:
        """Return the only large face. Raises PhotoError."""
        image, scale, margin = _with_border(photo)
        found = self._detect_large(image)
        if scale < 1 and (not len(found) or found.boxes[:, 2].max() < _WIDE_FACE):
            small = self._small_faces(photo, scale, found.boxes - _shift(margin, margin))
            if len(small) == 1:
                return small[0]
            if small:
                raise _several(len(small))
        if not len(found):
            hint = "use an unedited frontal portrait with an even light"
            raise PhotoError(PHOTO_NO_FACE, f"no face was found: {hint}")
        if len(found) > 1:
            raise _several(len(found))
        return FaceInPhoto(image, found, scale, -margin / scale, -margin / scale)

    def _detect_large(self, image: Image) -> Detections:
        """Return the large faces in `image`."""
        return _large(self._detector.detect(image))

    def _small_faces(self, photo: Image, scale: float, boxes: Float32) -> list[FaceInPhoto]:
        """Return the large faces; a search at `scale`, which gave `boxes`, misses some."""
        faces: list[FaceInPhoto] = []
        candidates = [np.asarray(box) for box in boxes / np.float32(scale)]
        while True:
            for box in candidates:
                face = self._confirm(photo, box)
                if face and not any(_overlap(face.box, other.box) > _SAME_PLACE for other in faces):
                    faces.append(face)
            widest = max((face.box.width for face in faces), default=0)
            # With a face it is known which others count; without one the next search is twice as fine.
            finer = min(1.0, _WIDE_FACE / widest) if faces else 2 * scale
            finer = 1.0 if finer > _ALMOST_WHOLE else finer
            if finer <= scale * _MUCH_THE_SAME:
                return [face for face in faces if face.box.width >= _LEAST_SHARE_OF_WIDEST * widest]
            scale = finer
            candidates = self._search_tiles(photo, scale)

    def _search_tiles(self, photo: Image, scale: float) -> list[Float32]:
        """Return boxes in pixels of the photo, the best first."""
        boxes: list[list[float]] = []
        scores: list[float] = []
        for left, top, tile in _tiles(photo, scale):
            found = self._detector.detect(tile)
            boxes += ((found.boxes + _shift(left, top)) / np.float32(scale)).tolist()
            scores += found.scores.tolist()
        if not boxes:
            return []
        kept = cv2.dnn.NMSBoxes(boxes, scores, 0.0, _SAME_PLACE)
        best = sorted(np.asarray(kept).ravel().tolist(), key=lambda row: -scores[row])
        return [np.array(boxes[row], dtype=np.float32) for row in best[:_MOST_CANDIDATES]]

    def _confirm(self, photo: Image, box: Float32) -> FaceInPhoto | None:
        """Return the face of a box in a portrait around it, or None."""
        side = _PORTRAIT * float(box[2:].max())
        left, top = (max(0, round(float(box[at] + box[at + 2] / 2) - side / 2)) for at in (0, 1))
        portrait = np.ascontiguousarray(photo[top : top + round(side), left : left + round(side)])
        image, scale, margin = _with_border(portrait)
        found = self._detect_large(image)
        wanted = (box - _shift(left, top)) * np.float32(scale) + _shift(margin, margin)
        for row in np.flatnonzero(found.scores >= _CLEAR_SCORE).tolist():
            if _overlap(found.boxes[row].tolist(), wanted.tolist()) > _SAME_PLACE:
                border = margin / scale
                return FaceInPhoto(image, found.select(np.array([row])), scale, left - border, top - border)
        return None


def _tiles(photo: Image, scale: float) -> Iterator[tuple[int, int, Image]]:
    """Yield left, top and pixels of each tile of `photo` times `scale`."""
    height, width = photo.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = photo if scale == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    step = _TILE - _OVERLAP
    for top in range(0, max(1, size[1] - _OVERLAP), step):
        for left in range(0, max(1, size[0] - _OVERLAP), step):
            tile = image[top : top + _TILE, left : left + _TILE]
            yield left, top, np.ascontiguousarray(tile, dtype=np.uint8)


def _resize(photo: Image) -> tuple[Image, float]:
    """Return the photo in the size of the first search, and its scale."""
    height, width = photo.shape[:2]
    enlarge = max(1.0, _SHORT_SIDE / min(height, width))
    scale: float = min(_LONG_SIDE / max(height, width), enlarge)
    if scale == 1.0:
        return photo, scale
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, size, interpolation=how), dtype=np.uint8), scale


def _with_border(photo: Image) -> tuple[Image, float, int]:
    """Return the resized photo in a border, its scale, and the border's width.

    The cascade and the landmarks need surroundings, which a portrait cut close to the face lacks.
    """
    image, scale = _resize(photo)
    margin = max(image.shape[:2]) // 4
    sides = (margin, margin, margin, margin)
    bordered = cv2.copyMakeBorder(image, *sides, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(bordered, dtype=np.uint8), scale, margin


def _shift(left: int, top: int) -> Float32:
    return np.array([left, top, 0, 0], dtype=np.float32)


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Return intersection over union of two boxes xywh."""
    sides = [
        max(0.0, min(first[at] + first[at + 2], second[at] + second[at + 2]) - max(first[at], second[at]))
        for at in (0, 1)
    ]
    common = sides[0] * sides[1]
    return common / (first[2] * first[3] + second[2] * second[3] - common)


def _large(found: Detections) -> Detections:
    """Return the faces at least half as wide as the widest."""
    if not len(found):
        return found
    widths = found.boxes[:, 2]
    return found.select(np.flatnonzero(widths >= _LEAST_SHARE_OF_WIDEST * widths.max()))


def _several(count: int) -> PhotoError:
    return PhotoError(PHOTO_SEVERAL_FACES, f"{count} faces were found: use a photo of one person alone")
