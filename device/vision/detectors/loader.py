"""Load the face detector that the settings name."""

from pathlib import Path

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
) -> Detector:
    """Load the detector `kind`.

    `model` is the ONNX file of `scrfd` (or its TensorRT engine) or of `yunet`; `cascade` needs none. Faces
    below `score` (0..1; not for the cascade, since its scores are ranks) or `min_face_pixels` are not
    reported. `options` apply to SCRFD: OpenCV's own CPU code runs YuNet.

    Raises ModelError when the model is not given, cannot be read, or belongs to another detector.
    """
    # Imported on use: a device needs the libraries of its own detector alone.
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
