"""SCRFD, the detector of InsightFace's packs (`det_10g`, `det_500m`).

The source is Guo et al. 2021, arXiv 2105.04714.

Per stride the network returns a score, the distances from each anchor to the four sides of the face and,
in most files, to five landmarks. Files differ in the order of outputs, in a leading batch dimension, and
in the number of strides and anchors, so outputs are identified by their shapes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.vision.capture.sources import Image
from device.vision.inference.batches import shape_text
from device.vision.inference.session import ModelError, Session

from .detector import Detections, Float32, has_pixels
from .geometry import TIGHT_FRAME

_FREE_SIZE = 640
_STRIDES = {3: (8, 16, 32), 5: (8, 16, 32, 64, 128)}
"""Strides by the number of levels in a file."""
_SCORE, _BOX, _LANDMARKS = 1, 4, 10
_MAX_ANCHORS = 2
_MEAN, _SCALE = 127.5, 128.0
_SAME_FACE = 0.4
# Many more than the faces of a crowd; bounds the time that a faulty network can cost.
_MOST_CANDIDATES = 1000


@dataclass(frozen=True)
class _Level:
    """Output indices of one stride, and the centres of its anchors.

    `centres` is float32[k, 2] in pixels.
    """

    stride: int
    score: int
    box: int
    landmarks: int | None
    centres: Float32


class ScrfdDetector:
    """SCRFD on any session.

    `score` is the minimum confidence (0..1) of a face, `min_face_pixels` the minimum of its longer side.
    Raises ModelError when the network has another shape.
    """

    name = "scrfd"

    def __init__(self, session: Session, *, score: float = 0.5, min_face_pixels: int = 0) -> None:
        self._session = session
        self._score = score
        self._min_face_pixels = min_face_pixels
        self._height, self._width = _input_size(session)
        blank = np.zeros((1, 3, self._height, self._width), dtype=np.float32)
        shapes = [_rows(output).shape for output in session.run(blank)]
        self._levels = _levels(session, shapes, self._height, self._width)

    @property
    def has_landmarks(self) -> bool:
        """Whether the file has outputs for landmarks."""
        return self._levels[0].landmarks is not None

    def detect(self, image: Image) -> Detections:
        """Return the faces in `image`, uint8[h, w, 3] BGR, best first.

        Raises ValueError for another array, ModelError when the network fails.
        """
        with_landmarks = self.has_landmarks
        if not has_pixels(image):
            return Detections.empty(landmarks=with_landmarks)
        blob, scale = self._letterbox(image)
        outputs = [_rows(output) for output in self._session.run(blob)]
        scores, corners, points = self._candidates(outputs)
        finite = np.isfinite(scores) & np.isfinite(corners).all(axis=1)
        if not finite.any():
            if len(finite) or not all(np.isfinite(outputs[level.score]).all() for level in self._levels):
                # After an overflow of half precision, say. No faces would look like an empty scene.
                raise ModelError(f"{self._session.path} answers NaN or infinity where faces would be")
            return Detections.empty(landmarks=with_landmarks)
        scores, points = scores[finite], points[finite]
        left_top, right_bottom = corners[finite, :2] / scale, corners[finite, 2:] / scale
        boxes: Float32 = np.concatenate([left_top, right_bottom - left_top], axis=1)
        kept = _suppress(boxes, scores)
        found = Detections(
            boxes=boxes[kept],
            scores=scores[kept],
            landmarks=points[kept].reshape(-1, 5, 2) / scale if with_landmarks else None,
            frame=TIGHT_FRAME,
        )
        return found.clip_to(image, min_side=self._min_face_pixels)

    def _letterbox(self, image: Image) -> tuple[Float32, Float32]:
        """Return float32[1, 3, h, w] with `image` at its top left, and its scales.

        The scales are float32[2].
        """
        height, width = image.shape[:2]
        fit = min(self._width / width, self._height / height)
        # InsightFace rounds down, too.
        size = (max(1, int(width * fit)), max(1, int(height * fit)))
        canvas = np.zeros((self._height, self._width, 3), dtype=np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        blob = cv2.dnn.blobFromImage(canvas, 1 / _SCALE, mean=(_MEAN, _MEAN, _MEAN), swapRB=True)
        return np.asarray(blob, dtype=np.float32), np.array(
            [size[0] / width, size[1] / height], dtype=np.float32
        )

    def _candidates(self, outputs: list[Float32]) -> tuple[Float32, Float32, Float32]:
        """Return the anchors with a high enough score, in input pixels. NaN is not.

        They are scores float32[k], corners float32[k, 4] and landmarks float32[k, 10] (or float32[k, 0]).
        """
        scores, corners, points = [], [], []
        for level in self._levels:
            sure = np.flatnonzero(outputs[level.score][:, 0] >= self._score)
            centres = level.centres[sure]
            distances = outputs[level.box][sure] * level.stride
            scores.append(outputs[level.score][sure, 0])
            corners.append(np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1))
            if level.landmarks is None:
                points.append(np.empty((len(sure), 0), dtype=np.float32))
            else:
                points.append(outputs[level.landmarks][sure] * level.stride + np.tile(centres, 5))
        return np.concatenate(scores), np.concatenate(corners), np.concatenate(points)


def _input_size(session: Session) -> tuple[int, int]:
    """Return the network's height and width, 640 if free. Raises ModelError."""
    shape = session.input.shape
    size = [_FREE_SIZE if side is None else side for side in shape[2:]]
    if len(shape) != 4 or shape[1] not in (3, None) or any(side < 32 or side % 32 for side in size):
        raise ModelError(
            f"{session.path} takes {shape_text(shape)}, expected an SCRFD network with [1, 3, h, w] in "
            "multiples of 32, for example [1, 3, 640, 640]"
        )
    return size[0], size[1]


def _rows(output: Float32) -> Float32:
    """Return float32[k, c], with or without a batch dimension in `output`."""
    return output[0] if output.ndim == 3 and len(output) == 1 else output


def _levels(session: Session, shapes: list[tuple[int, ...]], height: int, width: int) -> tuple[_Level, ...]:
    """Return the levels of outputs of these shapes.

    Raises ModelError for other shapes.
    """
    kinds: dict[int, list[int]] = {_SCORE: [], _BOX: [], _LANDMARKS: []}
    for index, shape in enumerate(shapes):
        if len(shape) != 2 or shape[1] not in kinds:
            raise _not_scrfd(session, shapes)
        kinds[shape[1]].append(index)
    for indices in kinds.values():
        indices.sort(key=lambda index: -shapes[index][0])
    strides = _STRIDES.get(len(kinds[_SCORE]), ())
    without = [None] * len(strides)
    landmarks: list[int] | list[None] = kinds[_LANDMARKS] or without
    if not strides or not len(kinds[_BOX]) == len(landmarks) == len(strides):
        raise _not_scrfd(session, shapes)
    levels = []
    for stride, score, box, points in zip(strides, kinds[_SCORE], kinds[_BOX], landmarks, strict=True):
        cells = (height // stride) * (width // stride)
        rows = shapes[score][0]
        same = rows == shapes[box][0] and (points is None or rows == shapes[points][0])
        if not same or not cells or rows % cells or not 1 <= rows // cells <= _MAX_ANCHORS:
            raise _not_scrfd(session, shapes)
        centres = _centres(height // stride, width // stride, stride, rows // cells)
        levels.append(_Level(stride, score, box, points, centres))
    return tuple(levels)


def _centres(rows: int, columns: int, stride: int, anchors: int) -> Float32:
    """Return x and y of each anchor, cell by cell.

    The result is float32[rows * columns * anchors, 2].
    """
    y, x = np.mgrid[:rows, :columns]
    cells = np.stack([x, y], axis=-1).reshape(-1, 2) * stride
    return np.repeat(cells, anchors, axis=0).astype(np.float32)


def _not_scrfd(session: Session, shapes: list[tuple[int, ...]]) -> ModelError:
    answers = ", ".join(shape_text(shape) for shape in shapes[:15])
    return ModelError(
        f"{session.path} answers {answers}: expected an SCRFD network, with scores [k, 1], boxes [k, 4] and "
        "perhaps landmarks [k, 10] for 3 or 5 strides"
    )


def _suppress(boxes: Float32, scores: Float32) -> NDArray[np.intp]:
    """Return the rows of `boxes` (xywh) that remain, best first.

    Greedy non-maximum suppression removes the others.
    """
    kept = cv2.dnn.NMSBoxes(
        boxes.astype(np.float64).tolist(), scores.tolist(), 0.0, _SAME_FACE, top_k=_MOST_CANDIDATES
    )
    return np.asarray(kept, dtype=np.intp).reshape(-1)
