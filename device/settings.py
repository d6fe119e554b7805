"""The settings of a device: section `device` of the file, `WFM_DEVICE__*` in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from broker_bridge.contract.ids import DeviceId, SiteId, SpaceId
from broker_bridge.contract.settings import LogSettings, MqttSettings, Section, Settings

Seconds = Annotated[float, Field(gt=0)]


class DeviceSection(Section):
    """One camera. `source` is a camera index, a file, a folder, an RTSP URL or a GStreamer pipeline.

    Without `model` the embedded `face:gabor-512` is used: for trying out, not for identifying people.
    """

    id: DeviceId
    site: SiteId
    data_dir: Path = Path("data")
    source: str = "0"
    loop: bool = False
    fps: Annotated[float, Field(ge=0)] | None = None
    model: Path | None = None
    space: SpaceId | None = None
    dev_mode: bool = False
    hardware: Annotated[str, Field(max_length=128)] | None = None

    confirmation_frames: Annotated[int, Field(ge=1, le=1000)] = 5
    consistency_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    cooldown_seconds: Annotated[float, Field(ge=0)] = 30.0
    distance_threshold: Annotated[float, Field(ge=0, le=2)] | None = None
    """Largest cosine distance that is a match; none set is what suits the space (0.35 for ArcFace)."""
    min_margin: Annotated[float, Field(ge=0, le=2)] | None = None
    """Smallest lead over the second-best person; none set is what suits the space."""

    event_images: bool = True
    image_kb: Annotated[int, Field(ge=1, le=150)] = 50
    outbox_mb: Annotated[int, Field(ge=1)] = 512
    heartbeat_seconds: Seconds = 30.0
    sync_interval_minutes: Seconds = 15.0

    @model_validator(mode="after")
    def _space_of_the_model(self) -> "DeviceSection":
        if (self.model is None) != (self.space is None):
            raise ValueError("model (the path of an ONNX file) and space (its name) belong together")
        return self


class DeviceSettings(Settings):
    """What `python -m device` reads."""

    device: DeviceSection
    mqtt: MqttSettings = MqttSettings()
    log: LogSettings = LogSettings()
