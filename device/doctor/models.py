"""Check the networks: provider, file and answers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import JsonValue

from broker_bridge.contract.errors import CANARY_FAILED
from broker_bridge.contract.messages import SpaceInfo
from device.management.space_problems import SpaceOnRecord, find_differences
from device.settings import DeviceSection, EmotionSettings
from device.vision.alignment import align_faces
from device.vision.canary import check_canary, open_reference
from device.vision.detectors.detector import Detector
from device.vision.embedder import FaceEmbedder
from device.vision.emotion import EmotionClassifier
from device.vision.inference.batches import shape_text
from device.vision.inference.session import ENGINE_SUFFIXES, ModelError, Session, TensorInfo
from device.vision.model_record import record_path

from .check import CheckResult
from .synthetic import HEIGHT, WIDTH, synthetic_faces, synthetic_frame

_MEGABYTE = 1e6
_DETECTOR_RUNS = 3


def check_providers(configured: Sequence[str], offered: Sequence[str], session: Session) -> CheckResult:
    """Compare the configured providers, the available ones, and the one in use."""
    values: dict[str, JsonValue] = {
        "configured": list(configured),
        "offered": list(offered),
        "runs_on": session.runs_on,
    }
    if session.path.suffix.lower() in ENGINE_SUFFIXES:
        return CheckResult(
            "providers", "ok", f"runs on {session.runs_on}, which needs no provider", None, values
        )
    detail = (
        f"runs on {session.runs_on}; configured {', '.join(configured)}, "
        f"this ONNX Runtime has {', '.join(offered)}"
    )
    # `tensorrt (ONNX Runtime)` is the provider `tensorrt`.
    if session.runs_on.split()[0] == configured[0]:
        return CheckResult("providers", "ok", detail, None, values)
    advice = (
        f"{configured[0]} did not start; the log says why"
        if configured[0] in offered
        else f"install an ONNX Runtime that has {configured[0]}, or take it out of WFM_DEVICE__PROVIDERS"
    )
    return CheckResult("providers", "warning", detail, advice, values)


def check_model(embedder: FaceEmbedder, on_record: SpaceOnRecord) -> CheckResult:
    """Check the embedder's file, its record and its space.

    `on_record` is the registry's record of the space, as the device knows it.
    """
    session, space, record = embedder.session, embedder.space, embedder.record
    beside = record_path(session.path)
    values: dict[str, JsonValue] = {
        "path": str(session.path),
        "bytes": session.path.stat().st_size,
        "sha256": session.sha256,
        "input": _tensor(session.input),
        "outputs": [_tensor(output) for output in session.outputs],
        "space": space.id,
        "dimension": space.dimension,
        "record": str(beside) if beside.is_file() else None,
        "detector": record.detector,
        "alignment": record.alignment,
        "on_record": on_record.model_sha256,
    }
    detail = (
        f"{space.id}, {space.dimension} dimensions, from {session.path} "
        f"({session.path.stat().st_size / _MEGABYTE:.1f} MB, SHA-256 {session.sha256[:12]}...), "
        f"from {shape_text(session.input.shape)} to "
        f"{', '.join(shape_text(output.shape) for output in session.outputs)}, faces of the detector "
        f"{record.detector}, aligned by {record.alignment}; "
        + (f"record in {beside}" if beside.is_file() else "no record beside it")
    )
    own = SpaceInfo(
        dimension=space.dimension,
        model_sha256=session.sha256,
        detector=record.detector,
        alignment=record.alignment,
    )
    differences = find_differences({space.id: own}, {space.id: on_record})
    if differences:
        faults = "; ".join(f"{code}: {sentence}" for code, sentence in differences.items())
        advice = "give this device the model and the preparation on record, or a space of its own"
        return CheckResult("model", "fault", f"{faults} ({detail})", advice, values)
    known = "as on record in the registry" if on_record.model_sha256 else _NO_RECORD
    return CheckResult("model", "ok", f"{detail}; {known}", None, values)


_NO_RECORD = "this device knows no record of the registry for it yet"


def check_embedder_canary(
    session: Session,
    space: str,
    reference_model: Path | None,
    clock: Callable[[], float] = time.perf_counter,
) -> CheckResult:
    """Compare the answers to fixed inputs of the session and the CPU.

    See `vision/canary.py`.
    """
    start = clock()
    try:
        reference = open_reference(session, reference_model)
        opened_at = clock()
        result = check_canary(session, reference, clock)
    except ModelError as error:
        return CheckResult(
            "canary",
            "fault",
            f"{CANARY_FAILED}: {error}",
            "until they can be compared, no face is recognised",
            {"passed": False},
        )
    whole = (clock() - opened_at) * 1000
    values: dict[str, JsonValue] = {
        "passed": result.passed,
        "cosine": result.cosine,
        "session_ms": round(result.milliseconds, 3),
        "reference_ms": round(max(0.0, whole - result.milliseconds), 3),
        "reference_open_ms": round((opened_at - start) * 1000, 3),
        "reference": str(reference.path),
    }
    if not result.passed:
        detail = f"{CANARY_FAILED}: {result.detail}; {space} is in quarantine, so no face is recognised"
        advice = "build the engine again, or run on another provider (fp16 off, then cpu)"
        return CheckResult("canary", "fault", detail, advice, values)
    detail = f"{result.detail}; {result.milliseconds:.1f} ms for four faces"
    if reference is not session:
        detail += f", {values['reference_ms']} ms on the CPU"
    return CheckResult("canary", "ok", detail, None, values)


def check_detector(
    detector: Detector, device: DeviceSection, clock: Callable[[], float] = time.perf_counter
) -> CheckResult:
    """Run the detector on a synthetic picture; raises ModelError."""
    frame = synthetic_frame()
    times = []
    for _ in range(_DETECTOR_RUNS):
        start = clock()
        found = detector.detect(frame)
        times.append((clock() - start) * 1000)
    landmarks = found.landmarks is not None
    model = str(device.detector_model) if device.detector_model else None
    detail = (
        f"{detector.name}{f' from {model}' if model else ''}, {min(times):.1f} ms for {WIDTH}x{HEIGHT}, "
        f"{'with' if landmarks else 'without'} landmarks, {len(found)} faces in a picture without any"
    )
    values: dict[str, JsonValue] = {
        "name": detector.name,
        "model": model,
        "milliseconds": round(min(times), 3),
        "landmarks": landmarks,
        "found": len(found),
    }
    if len(found):
        return CheckResult("detector", "warning", detail, "raise WFM_DEVICE__DETECTOR_SCORE", values)
    return CheckResult("detector", "ok", detail, None, values)


def check_emotion(session: Session, emotion: EmotionSettings) -> CheckResult:
    """Run the classifier on a face of a synthetic picture; raises ModelError."""
    classifier = EmotionClassifier(
        session, emotion.classes, emotion.codes, mean=emotion.mean, scale=emotion.scale
    )
    frame = synthetic_frame()
    [found] = classifier.classify(align_faces(frame, synthetic_faces(1, frame)))
    detail = f"{session.path} ({len(emotion.classes)} classes) runs on {session.runs_on}"
    values: dict[str, JsonValue] = {
        "path": str(session.path),
        "sha256": session.sha256,
        "runs_on": session.runs_on,
    }
    if found.label is None:
        return CheckResult(
            "emotion", "fault", f"{detail} and gives no probabilities", _WRONG_EMOTIONS, values
        )
    return CheckResult("emotion", "ok", detail, None, values)


_WRONG_EMOTIONS = "take another model, or check mean, scale and classes of the section `emotion`"


def _tensor(tensor: TensorInfo) -> dict[str, JsonValue]:
    return {"name": tensor.name, "shape": list(tensor.shape)}
