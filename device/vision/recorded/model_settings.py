"""Define what a program's settings say about its face model.

A leaf module: settings import it without OpenCV or ONNX Runtime.
"""

from dataclasses import dataclass
from pathlib import Path

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from device.vision.detectors.kind import DetectorKind, check_detector_model


@dataclass(frozen=True)
class FaceModelSettings:
    """The settings of a program that finds and embeds faces; all have a default.

    `model` None is the model that comes with the product. `space` names the space of a file without a record.
    `detector` None is the detector of the record; `detector_model` is its file.
    """

    model: Path | None = None
    space: str | None = None
    reference_model: Path | None = None
    detector: DetectorKind | None = None
    detector_model: Path | None = None
    detector_score: float = 0.5
    min_face_pixels: int = 80

    def check(self) -> None:
        """Raise ValueError for settings that contradict each other."""
        if self.model is None and self.space not in (None, DEFAULT_FACE_SPACE.space):
            raise ValueError(
                f"space names the space of a model file: set model too, or remove {self.space}; without a "
                f"model there is {DEFAULT_FACE_SPACE.space}"
            )
        if self.detector is not None:
            check_detector_model(self.detector, self.detector_model)
