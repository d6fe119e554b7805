"""The kinds of detectors, and the kinds that need a model."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from dashboard_api.settings import ApiSettings
from device.embedding.settings import WorkerSection
from device.settings import DeviceSection
from device.vision.detectors.kind import DetectorKind, check_detector_model, needs_model

MODEL = Path("detector.onnx")


def test_the_cascade_alone_needs_no_model():
    assert [kind for kind in get_args(DetectorKind) if not needs_model(kind)] == ["cascade"]


@pytest.mark.parametrize(("kind", "model"), [("cascade", None), ("scrfd", MODEL), ("yunet", MODEL)], ids=str)
def test_a_detector_with_the_model_that_it_needs_is_accepted(kind, model):
    check_detector_model(kind, model)


@pytest.mark.parametrize(("kind", "model"), [("cascade", MODEL), ("scrfd", None), ("yunet", None)], ids=str)
def test_a_missing_or_surplus_model_is_named_with_its_setting(kind, model):
    with pytest.raises(ValueError, match=r"^face_detector scrfd or yunet needs face_detector_model .*none$"):
        check_detector_model(kind, model, setting="face_detector")


@pytest.mark.parametrize(
    ("section", "field"),
    [(DeviceSection, "detector"), (WorkerSection, "detector"), (ApiSettings, "face_detector")],
)
def test_every_settings_section_offers_the_same_detectors(section, field):
    assert section.model_fields[field].annotation in (DetectorKind, DetectorKind | None)


def test_the_kinds_are_imported_without_opencv_and_onnx_runtime():
    script = (
        "import sys, device.vision.detectors.kind; print('cv2' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False", "False"]
