"""Load the face detector that the settings name."""

from pathlib import Path
from typing import Literal

from device.vision.detectors.detector import Detector
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError, SessionOptions

DetectorKind = Literal["cascade", "scrfd", "yunet"]


def load_detector(
    kind: DetectorKind = "cascade",
    model: str | Path | None = None,
    score: float = 0.5,
    min_face_pixels: int = 80,
    options: SessionOptions | None = None,
) -> Detector:
    """The detector that a device is configured with.

    `model` is the ONNX file of `scrfd` (or its TensorRT engine) and of `yunet`; `cascade` needs none. Faces
    below `score` (0..1; not for the cascade, whose scores are ranks) or `min_face_pixels` are not reported.
    `options` say how SCRFD is run: YuNet runs on OpenCV's own CPU code. Raises ModelError.
    """
    # Imported when they are used: a device needs the libraries of its own detector alone.
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
