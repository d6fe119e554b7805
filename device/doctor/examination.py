"""Run all checks on one device in order."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from broker_bridge.common.clock import utc_now
from broker_bridge.common.settings import SettingsError
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.embeddings import EmbeddingSpace, Vector
from device.bootstrap import database_path
from device.enrollment.gallery_rows import GalleryRows
from device.management.space_problems import SpaceOnRecord
from device.management.spaces_on_record import stored_people, stored_record
from device.recognition.assembly import limits_of, session_options
from device.recognition.liveness_check import load_liveness_check
from device.settings import DeviceSettings
from device.store.connection import StoreError
from device.store.inspection import inspect_store
from device.vision.detectors.detector import Detector
from device.vision.embedder import FaceEmbedder
from device.vision.gallery import Gallery
from device.vision.inference.loader import open_session
from device.vision.inference.session import ModelError
from device.vision.quality import QualityGate
from device.vision.recorded.face_model import load_recorded_detector, load_recorded_embedder

from .broker import check_broker
from .camera import CameraSample, check_camera, sample_camera
from .check import CheckResult, run_check
from .limits import check_limits
from .machine import check_clock, check_versions, clock_is_synchronised
from .models import check_detector, check_embedder_canary, check_emotion, check_model, check_providers
from .storage import check_disk, is_in_use
from .synthetic import synthetic_frame
from .timing import RecognitionStages, StageTimes, synthetic_gallery, time_stages

_CAMERA_SECONDS = 10.0
_SYNTHETIC_FRAMES = 30


@dataclass(frozen=True)
class ExaminationReport:
    """The results of all checks; `times` is None if the stages could not run."""

    checks: tuple[CheckResult, ...]
    times: StageTimes | None

    def count(self, state: str) -> int:
        return sum(check.state == state for check in self.checks)


def examine(
    settings: DeviceSettings,
    *,
    with_camera: bool = True,
    camera_frames: int = 0,
    on_check: Callable[[str], None] = lambda _name: None,
) -> ExaminationReport:
    """Run every check on the device of `settings`.

    `on_check` gets the name of each before it starts.
    The stages are timed on `camera_frames` frames of the camera, or on a synthetic frame if that is 0.
    """
    examination = _Examination(settings, with_camera, camera_frames)
    checks = []
    for name, check in examination.checks().items():
        on_check(name)
        checks.append(run_check(name, check))
    return ExaminationReport(tuple(checks), examination.times)


class _Examination:
    """The checks, with the results that later ones need."""

    def __init__(self, settings: DeviceSettings, with_camera: bool, camera_frames: int) -> None:
        self.times: StageTimes | None = None
        self._settings = settings
        self._device = settings.device
        self._with_camera = with_camera
        self._camera_frames = camera_frames
        self._database = database_path(settings)
        self._embedder: FaceEmbedder | None = None
        self._detector: Detector | None = None
        self._sample: CameraSample | None = None

    def checks(self) -> dict[str, Callable[[], CheckResult]]:
        device = self._device
        return {
            "versions": check_versions,
            "model": self._check_model,
            "limits": self._check_limits,
            "providers": self._check_providers,
            "canary": self._check_canary,
            "detector": self._check_detector,
            **({"liveness": self._check_liveness} if device.liveness != "off" else {}),
            **({"emotion": self._check_emotion} if device.emotion else {}),
            "camera": self._check_camera,
            "disk": lambda: check_disk(device.data_dir, self._database, device.outbox_mb),
            "clock": lambda: check_clock(utc_now(), clock_is_synchronised()),
            "broker": lambda: check_broker(self._settings.mqtt, device.id, device.data_dir, utc_now()),
            "stages": self._check_stages,
        }

    def _check_model(self) -> CheckResult:
        device = self._device
        try:
            self._embedder = load_recorded_embedder(device.face_model_settings, session_options(device))
        except ModelError as error:
            values: dict[str, JsonValue] = {"path": str(device.model), "space": device.space}
            return CheckResult("model", "fault", str(error), "check WFM_DEVICE__MODEL", values)
        return check_model(self._embedder, self._on_record(self._embedder.space.id)[0])

    def _on_record(self, space: str) -> tuple[SpaceOnRecord, int | None]:
        """Return the stored record of `space`, and how many people the site has."""
        if not self._database.exists():
            return SpaceOnRecord(), None
        try:
            with inspect_store(self._database) as store:
                return stored_record(store.config, space), stored_people(store.config)
        except StoreError:
            # The check of the disk reports it, which reads the same file.
            return SpaceOnRecord(), None

    def _check_limits(self) -> CheckResult:
        if self._embedder is None:
            return _skipped("limits", "the model cannot be loaded")
        space = self._embedder.space
        try:
            limits = limits_of(self._device, self._embedder.record)
        except SettingsError as error:
            return CheckResult("limits", "fault", str(error), "check WFM_DEVICE__THRESHOLDS")
        on_record, people = self._on_record(space.id)
        return check_limits(limits, self._rows(space), on_record, people)

    def _check_providers(self) -> CheckResult:
        if self._embedder is None:
            return _skipped("providers", "the model cannot be loaded")
        # Imported here, because ONNX Runtime is optional with a TensorRT engine.
        from device.vision.inference.onnx_session import available_providers  # noqa: PLC0415

        return check_providers(self._device.providers, available_providers(), self._embedder.session)

    def _check_canary(self) -> CheckResult:
        if self._embedder is None:
            return _skipped("canary", "the model cannot be loaded")
        embedder = self._embedder
        return check_embedder_canary(embedder.session, embedder.space.id, self._device.reference_model)

    def _check_detector(self) -> CheckResult:
        device = self._device
        # Without a model there is no record; the detector of the settings is checked all the same.
        record = DEFAULT_FACE_SPACE.model_copy(update={"detector": device.detector})
        if self._embedder is not None:
            record = self._embedder.record
        try:
            self._detector = load_recorded_detector(
                device.face_model_settings, record, session_options(device)
            )
            return check_detector(self._detector, device)
        except ModelError as error:
            self._detector = None
            return CheckResult("detector", "fault", str(error), "check WFM_DEVICE__DETECTOR_MODEL")

    def _check_liveness(self) -> CheckResult:
        device = self._device
        path = device.liveness_check or ""
        try:
            check = load_liveness_check(path)
        except SettingsError as error:
            return CheckResult("liveness", "fault", str(error), "check WFM_DEVICE__LIVENESS_CHECK")
        detail = f"{path} is loaded as {check.method!r}, not tried on a face; liveness is {device.liveness!r}"
        values: dict[str, JsonValue] = {"method": check.method, "threshold": device.liveness_threshold}
        return CheckResult("liveness", "ok", detail, None, values)

    def _check_emotion(self) -> CheckResult:
        emotion = self._device.emotion
        assert emotion is not None  # noqa: S101  # `checks` tests it
        try:
            session = open_session(emotion.model, session_options(self._device))
            return check_emotion(session, emotion)
        except ModelError as error:
            return CheckResult("emotion", "fault", str(error), "check the section `emotion` of the settings")

    def _check_camera(self) -> CheckResult:
        if not self._with_camera:
            return _skipped("camera", "as requested (--no-camera)")
        return check_camera(
            self._device.source,
            self._sample_source,
            _CAMERA_SECONDS,
            in_use=bool(is_in_use(self._device.data_dir)),
        )

    def _sample_source(self) -> CameraSample | None:
        device = self._device
        self._sample = sample_camera(device.source, _CAMERA_SECONDS, self._camera_frames, loop=device.loop)
        return self._sample

    def _check_stages(self) -> CheckResult:
        if self._embedder is None or self._detector is None:
            return _skipped("stages", "the networks cannot be loaded")
        pictures = self._sample.pictures if self._sample else []
        images = pictures or [synthetic_frame()] * _SYNTHETIC_FRAMES
        stages = RecognitionStages(
            self._detector, QualityGate(self._device.quality), self._embedder, self._gallery(self._embedder)
        )
        try:
            self.times = time_stages(stages, images, synthetic=not pictures, timer=time.perf_counter)
        except ModelError as error:
            return CheckResult("stages", "fault", str(error), "see the checks of the models")
        return _times_result(self.times, self._camera_frames > 0)

    def _gallery(self, embedder: FaceEmbedder) -> Gallery:
        """Return the device's own gallery, or a synthetic one."""
        space = embedder.space
        rows = self._rows(space)
        return Gallery(space, rows.user_ids, rows.vectors) if rows.user_ids else synthetic_gallery(space)

    def _rows(self, space: EmbeddingSpace) -> GalleryRows:
        """Return the rows of the device's own gallery, none if it has no readable one."""
        user_ids: list[str] = []
        vectors: Vector = np.empty((0, space.dimension), dtype=np.float32)
        if self._database.exists():
            # The check of the disk reports a StoreError, which reads the same file.
            with suppress(StoreError), inspect_store(self._database) as store:
                user_ids, vectors = store.load_gallery(space.id)
        return GalleryRows.from_stored(space.id, space.dimension, user_ids, vectors, 0)


def _times_result(times: StageTimes, camera_requested: bool) -> CheckResult:
    together = times.stages[-1]
    detail = (
        f"{together.median_ms:.1f} ms a frame, {times.frames_per_second:.0f} frames a second on one thread, "
        f"with {times.templates} templates"
    )
    values: dict[str, JsonValue] = {
        "median_ms": round(together.median_ms, 3),
        "p95_ms": round(together.p95_ms, 3),
        "frames_per_second": round(times.frames_per_second, 1),
        "templates": times.templates,
    }
    if times.synthetic and camera_requested:
        return CheckResult(
            "stages", "warning", f"{detail}; on a synthetic frame, because the camera gave none", None, values
        )
    return CheckResult("stages", "ok", detail, None, values)


def _skipped(name: str, why: str) -> CheckResult:
    return CheckResult(name, "skipped", f"not checked: {why}")
