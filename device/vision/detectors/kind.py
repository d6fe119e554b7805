"""Name the face detectors and the ones that need a model file.

A leaf module: settings import it without OpenCV or ONNX Runtime.
"""

from pathlib import Path
from typing import Final, get_args

from broker_bridge.contract.spaces import DetectorName as DetectorKind

__all__ = ["DetectorKind", "check_detector_model", "needs_model"]

_WITHOUT_MODEL: Final[frozenset[DetectorKind]] = frozenset({"cascade"})


def needs_model(kind: DetectorKind) -> bool:
    """Return whether `kind` runs from a model file of its own."""
    return kind not in _WITHOUT_MODEL


def check_detector_model(kind: DetectorKind, model: Path | None, *, setting: str = "detector") -> None:
    """Raise ValueError unless exactly the detectors that need a model have one.

    `setting` is the name of the setting that holds `kind`; the model's setting is `<setting>_model`.
    """
    if needs_model(kind) == (model is not None):
        return
    kinds: tuple[DetectorKind, ...] = get_args(DetectorKind)
    with_model = " or ".join(each for each in kinds if needs_model(each))
    without = " or ".join(each for each in kinds if not needs_model(each))
    raise ValueError(f"{setting} {with_model} needs {setting}_model (its ONNX file), {without} none")
