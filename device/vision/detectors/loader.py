"""Load the face detector that the settings name."""

from pathlib import Path
from typing import Protocol

from broker_bridge.contract.spaces import Alignment
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError, SessionOptions

from .detector import Detector
from .kind import DetectorKind


def load_detector(
    kind: DetectorKind = "cascade",
    model: str | Path | None = None,
    score: float = 0.5,
    min_face_pixels: int = 80,
    options: SessionOptions | None = None,
    *,
    alignment: Alignment = "landmarks",
) -> Detector:
    """Load the detector `kind`, with landmarks or without.

    `model` is the ONNX file of `scrfd` (or its TensorRT engine) or of `yunet`; `cascade` needs none. Faces
    below `score` (0..1; not for the cascade, since its scores are ranks) or `min_face_pixels` are not
    reported. `options` apply to SCRFD: OpenCV's own CPU code runs YuNet. `alignment` is that of the space:
    for `landmarks`, those that a detector has not are predicted.

    Raises ModelError when the model is not given, cannot be read, or belongs to another detector.
    """
    # Imported on use: a device needs the libraries of its own detector alone.
    from .landmark_detector import BoxDetector, LandmarkDetector  # noqa: PLC0415

    detector = _load_file(kind, model, score, min_face_pixels, options)
    if alignment == "box":
        return BoxDetector(detector)
    return detector if detector.has_landmarks else LandmarkDetector(detector)


class _DetectorOfFile(Detector, Protocol):
    @property
    def has_landmarks(self) -> bool: ...


def _load_file(
    kind: DetectorKind,
    model: str | Path | None,
    score: float,
    min_face_pixels: int,
    options: SessionOptions | None,
) -> _DetectorOfFile:
    if kind == "cascade":
        from .cascade import CascadeDetector  # noqa: PLC0415

        return CascadeDetector(min_face_pixels=min_face_pixels)
    if model is None:
        raise ModelError(f"the detector {kind} needs the path of its model, an ONNX file")
    if kind == "yunet":
        from .yunet import YuNetDetector  # noqa: PLC0415

        return YuNetDetector(model, score=score, min_face_pixels=min_face_pixels)
    from .scrfd import ScrfdDetector  # noqa: PLC0415

    return ScrfdDetector(open_session(model, options), score=score, min_face_pixels=min_face_pixels)
