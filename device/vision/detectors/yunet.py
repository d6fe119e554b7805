"""The detector YuNet, run by OpenCV itself.

The source is Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector".
"""

from pathlib import Path

import cv2
import numpy as np

from device.vision.capture.sources import Image
from device.vision.inference.session import ENGINE_SUFFIXES, ModelError

from .detector import Detections, Float32, has_pixels
from .geometry import TIGHT_FRAME

_STRIDES = (8, 16, 32)
_CHANNELS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Numbers per cell in the outputs `cls_8`, `cls_16`, ... that OpenCV reads."""
_SAME_FACE = 0.3
_MOST_CANDIDATES = 1000
# Larger frames are reduced to this: the network finds faces of 10 to 300 pixels, and its time grows with the
# frame.
_LONG_SIDE = 640
# Two sizes, so that a network with a fixed size is detected.
_TRIALS = ((64, 96), (96, 96))


class YuNetDetector:
    """`cv2.FaceDetectorYN`, with landmarks.

    `score` is the minimum confidence (0..1) of a face, `min_face_pixels` the minimum of its longer side.
    Raises ModelError for a file that is not a YuNet of 2023 or later.
    """

    name = "yunet"
    has_landmarks = True

    def __init__(self, model: str | Path, *, score: float = 0.5, min_face_pixels: int = 0) -> None:
        _check_network(Path(model))
        self._path = Path(model)
        self._min_face_pixels = min_face_pixels
        self._size = (_LONG_SIDE, _LONG_SIDE)
        self._detector = cv2.FaceDetectorYN.create(
            str(model), "", self._size, score, _SAME_FACE, _MOST_CANDIDATES
        )

    def detect(self, image: Image) -> Detections:
        """Return the faces in `image`, uint8[h, w, 3] BGR, best first.

        Raises ValueError for another array, ModelError when the network fails.
        """
        if not has_pixels(image):
            return Detections.empty(landmarks=True)
        height, width = image.shape[:2]
        fit = min(1.0, _LONG_SIDE / max(height, width))
        size = (max(1, round(width * fit)), max(1, round(height * fit)))
        small = image if fit == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if size != self._size:
            self._detector.setInputSize(size)
            self._size = size
        try:
            answer: object = self._detector.detect(small)[1]
        except cv2.error as error:
            raise ModelError(f"YuNet failed on a frame of {width}x{height}: {_reason(error)}") from error
        if not isinstance(answer, np.ndarray):  # None without faces
            return Detections.empty(landmarks=True)
        rows: Float32 = answer.astype(np.float32, copy=False)
        if not np.isfinite(rows[:, :4]).all(axis=1).any():
            raise ModelError(f"{self._path} answers NaN or infinity where faces would be")
        # x, y, width, height, then right eye, left eye, nose and corners of the mouth of the subject, which
        # is ArcFace's order in the image; the score is last.
        scale = np.array([width / size[0], height / size[1]], dtype=np.float32)
        found = Detections(
            boxes=rows[:, :4] * np.tile(scale, 2),
            scores=rows[:, 14],
            landmarks=rows[:, 4:14].reshape(-1, 5, 2) * scale,
            frame=TIGHT_FRAME,
        )
        return found.clip_to(image, min_side=self._min_face_pixels)


def _check_network(path: Path) -> None:
    """Raise ModelError for a file that OpenCV's decoder would fail on.

    The decoder reads the outputs' memory without checking their sizes, so they are checked here.
    """
    if path.suffix.lower() in ENGINE_SUFFIXES:
        raise ModelError(f"{path} is a TensorRT engine, but YuNet runs from its ONNX file")
    if not path.is_file():
        raise ModelError(f"the model {path} cannot be read: there is no such file")
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise ModelError(f"{path} is not an ONNX model that OpenCV can run: {_reason(error)}") from error
    expected = [f"{kind}_{stride}" for kind in _CHANNELS for stride in _STRIDES]
    if not set(expected) <= set(network.getUnconnectedOutLayersNames()):
        raise ModelError(f"{path} has not the outputs cls_8 to kps_32: expected a YuNet of 2023 or later")
    for height, width in _TRIALS:
        try:
            network.setInput(np.zeros((1, 3, height, width), dtype=np.float32))
            outputs = network.forward(expected)
        except cv2.error as error:
            raise ModelError(f"{path} is not a YuNet that OpenCV can run: {_reason(error)}") from error
        cells = [(height // stride) * (width // stride) for _ in _CHANNELS for stride in _STRIDES]
        numbers = [channels for channels in _CHANNELS.values() for _ in _STRIDES]
        for name, output, cell, number in zip(expected, outputs, cells, numbers, strict=True):
            if output.size != cell * number or output.dtype != np.float32:
                raise ModelError(
                    f"{path} answers {output.dtype}{list(output.shape)} as {name} to a picture of "
                    f"{width}x{height}, expected YuNet's {cell} x {number} float32"
                )
            if not np.isfinite(output).all():
                # OpenCV would report no faces and no error.
                raise ModelError(f"{path} answers NaN or infinity as {name} to a black picture")


def _reason(error: cv2.error) -> str:
    """Return OpenCV's message in one line."""
    return " ".join(str(error).split())[:200]
