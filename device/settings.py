"""The settings of a device.

They are the section `device` of the file, and `WFM_DEVICE__*` in the environment.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from broker_bridge.common.settings import FilePath, LogSettings, MqttSettings, Section, Settings
from broker_bridge.contract.errors import LIVENESS_MISSING
from broker_bridge.contract.heartbeat import HEARTBEAT_SECONDS
from broker_bridge.contract.ids import DeviceId, EmotionCode, SiteId, SpaceId
from device.events.match_limits import MatchLimits
from device.vision.detectors.kind import DetectorKind
from device.vision.recorded.model_settings import FaceModelSettings

Seconds = Annotated[float, Field(ge=0.01, le=86_400)]


def _check_fps(fps: float) -> float:
    if 0 < fps < _SLOWEST_FPS:
        raise ValueError(f"fewer than {_SLOWEST_FPS} frames a second; 0 is as fast as possible")
    return fps


_SLOWEST_FPS = 0.001
Fps = Annotated[float, Field(ge=0, le=1000), AfterValidator(_check_fps)]


def _index_as_text(source: object) -> object:
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else source


CameraSource = Annotated[str, BeforeValidator(_index_as_text), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Distance = Annotated[float, Field(ge=0, le=2)]


def _check_import(path: str) -> str:
    """Return `path`. Raises ValueError unless it has the form `module:name`."""
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path, re.ASCII):
        raise ValueError("a liveness check is module:name, such as acme_depth.check:DepthCheck")
    return path


ImportPath = Annotated[str, Field(max_length=256), AfterValidator(_check_import)]


class Thresholds(Section):
    """The limits of a match: its cosine distance (0..2) and its margin.

    The nearest identity is a match within `distance`, and if the second-nearest is at least `margin` farther.
    They come before the limits of the registry and of the record beside the model.
    """

    distance: Distance
    margin: Distance = 0.0

    @property
    def match_limits(self) -> MatchLimits:
        return MatchLimits(self.distance, self.margin)


class QualitySettings(Section):
    """The quality that recognition requires of a face; a limit of 0 is off.

    Light and sharpness are those of the middle of the face: 80x80 of the 112x112 pixels that are
    embedded.
    """

    min_side: Annotated[float, Field(ge=0, le=10_000)] = 40.0
    """Pixels of the shorter side of the box."""
    min_sharpness: Annotated[float, Field(ge=0, le=65_025)] = 30.0
    """Mean square of fine detail along its weakest direction, in grey levels squared."""
    min_brightness: Annotated[float, Field(ge=0, le=255)] = 30.0
    max_brightness: Annotated[float, Field(ge=0, le=255)] = 230.0
    """Mean grey level."""
    max_yaw: Annotated[float, Field(ge=0, le=90)] = 45.0
    max_pitch: Annotated[float, Field(ge=0, le=90)] = 40.0
    max_roll: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Degrees, estimated from the landmarks; a detector that gives none asks for no pose."""


class EmotionSettings(Section):
    """An ONNX classifier for recognised faces; without this section none is used.

    `classes` names the outputs in order, `codes` those of them that are reported. The input is
    (pixels - `mean`) / `scale`, in grey for a network with one channel, in RGB for one with three.
    """

    model: FilePath
    classes: Annotated[list[str], Field(min_length=2, max_length=64)]
    codes: Annotated[dict[str, EmotionCode], Field(min_length=1)]
    mean: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    scale: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    min_duration_ms: Annotated[float, Field(ge=0, le=3_600_000)] = 500.0
    confidence_threshold: Share = 0.7
    cooldown_seconds: Annotated[float, Field(ge=0, le=604_800)] = 10.0

    @model_validator(mode="after")
    def _codes_are_of_classes(self) -> "EmotionSettings":
        unknown = sorted(set(self.codes) - set(self.classes))
        if unknown:
            raise ValueError(f"codes name {', '.join(unknown)}, which classes does not have")
        return self


class DeviceSection(Section):
    """The settings of one camera.

    A `source` is a camera index, a file, a folder, an RTSP URL or a GStreamer pipeline. Without `model`
    the model that comes with the product is used.
    """

    id: DeviceId
    site: SiteId
    data_dir: FilePath = Path("data")
    source: CameraSource = "0"
    loop: bool = False
    fps: Fps | None = None
    dev_mode: bool = False
    hardware: Annotated[str, Field(max_length=128)] | None = None

    model: FilePath | None = None
    """ONNX file or TensorRT engine of the embedder.

    The JSON beside it, its record, names space, detector, alignment and limits.
    """
    space: SpaceId | None = None
    """The space of a `model` without a record."""
    reference_model: FilePath | None = None
    """The ONNX file that an engine in `model` was built from, for the canary; none set: beside the engine."""
    detector: DetectorKind | None = None
    """The detector of a model without a record (none: the cascade); else the record names it."""
    detector_model: FilePath | None = None
    detector_score: Share = 0.5
    min_face_pixels: Annotated[int, Field(ge=16, le=8192)] = 80
    """Longer side of the smallest face that is looked for."""
    providers: Annotated[tuple[Literal["cpu", "cuda", "tensorrt"], ...], Field(min_length=1)] = ("cpu",)
    """What runs ONNX files, tried in this order."""
    engine_cache: FilePath | None = None
    fp16: bool = False
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    thresholds: dict[SpaceId, Thresholds] = Field(default_factory=dict)
    """Per space; without any, the limits of the registry hold, or else those of the model's record."""
    quality: QualitySettings = QualitySettings()
    confirmation_frames: Annotated[int, Field(ge=1, le=1000)] = 5
    consistency_threshold: Share = 0.8
    cooldown_seconds: Annotated[float, Field(ge=0, le=604_800)] = 30.0
    unknown_events: bool = True
    observations: bool = True
    """Whether the device sends every face, also unknown ones, so that persons are tracked across cameras."""
    max_gallery_age_hours: Annotated[float, Field(ge=1e-6, le=480_000)] | None = None
    """Refuse matches when the gallery was last known to be current longer ago; none set: never."""
    liveness_check: ImportPath | None = None
    """What makes the liveness check, as `module:name`; the product includes none."""
    liveness_threshold: Share | None = None
    """The least score of a face that `liveness: require` lets pass."""
    liveness: Literal["off", "report", "require"] = "off"
    """Whether the liveness of faces is measured, and whether a face that is not live is dropped."""
    emotion: EmotionSettings | None = None
    record_scores: FilePath | None = None
    """A folder for recordings of scores (never pictures or vectors), to be replayed under other settings."""
    record_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 64

    further_spaces: dict[SpaceId, Annotated[int, Field(ge=1, le=4096, strict=True)]] = Field(
        default_factory=dict
    )
    """Further spaces that the device supports, with their dimension, say of gait and speaker."""
    npy_dir: FilePath | None = None
    """A folder with `face_db/`, `gait_db/` and `speaker_db/`: a new `<user id>.npy` there is registered."""
    mirror_npy: bool = False
    """Whether identities of the registry appear in `npy_dir` as files."""
    watch_seconds: Annotated[float, Field(ge=0.01, le=10)] = 5.0
    """How often `npy_dir` is looked at."""

    event_images: bool = True
    image_kb: Annotated[int, Field(ge=1, le=150)] = 50
    outbox_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    heartbeat_seconds: Seconds = HEARTBEAT_SECONDS
    sync_interval_minutes: Seconds = 15.0

    @field_validator("liveness")
    @classmethod
    def _liveness_is_measurable(cls, mode: str, others: ValidationInfo) -> str:
        # A setting that is wrong by itself is not among the others, and has a sentence of its own.
        known = others.data
        if mode != "off" and known.get("liveness_check", "") is None:
            raise ValueError(
                f"{LIVENESS_MISSING}: {mode!r} needs a liveness check, and the product includes none: name "
                "yours in device.liveness_check as module:name, or set 'off'"
            )
        if mode == "require" and known.get("liveness_threshold", 1.0) is None:
            raise ValueError(
                f"{LIVENESS_MISSING}: 'require' needs device.liveness_threshold, above 0 and up to 1: no "
                "limit holds for every check, and 'report' shows the scores of yours"
            )
        return mode

    @model_validator(mode="after")
    def _models_belong_together(self) -> "DeviceSection":
        self.face_model_settings.check()
        return self

    @property
    def face_model_settings(self) -> FaceModelSettings:
        """The settings of the model and of its detector."""
        return FaceModelSettings(
            model=self.model,
            space=self.space,
            reference_model=self.reference_model,
            detector=self.detector,
            detector_model=self.detector_model,
            detector_score=self.detector_score,
            min_face_pixels=self.min_face_pixels,
        )

    @model_validator(mode="after")
    def _a_mirror_has_a_folder(self) -> "DeviceSection":
        if self.mirror_npy and self.npy_dir is None:
            raise ValueError("mirror_npy needs npy_dir, the folder to mirror into")
        return self


class DeviceSettings(Settings):
    """The configuration that `python -m device` reads."""

    device: DeviceSection
    mqtt: MqttSettings = MqttSettings()
    log: LogSettings = LogSettings()
