"""Settings of the API."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from broker_bridge.common.settings import BearerKey, FilePath, Host, LogSettings, Port, Section, Settings
from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from broker_bridge.contract.heartbeat import HEARTBEAT_SECONDS
from broker_bridge.contract.ids import SpaceId
from broker_bridge.registry import MongoSettings
from broker_bridge.registry.detected_persons.settings import SearchSettings, TrackingSettings
from broker_bridge.registry.events.admission import MAX_AGE_DAYS
from broker_bridge.registry.settings import RegistrySettings
from device.vision.detectors.kind import DetectorKind, check_detector_model

Modality = Literal["face", "gait", "speaker"]


def _default_spaces() -> dict[Modality, str]:
    return {"face": DEFAULT_FACE_SPACE.space, "gait": "gait:default-256", "speaker": "speaker:default-192"}


class ApiSettings(Section):
    """Section `api`. Sizes in bytes."""

    host: Host = "127.0.0.1"
    port: Port = 8000
    bootstrap_key: Annotated[BearerKey, Field(min_length=8)] | None = None
    """Becomes an admin key in a database that has no key yet."""
    json_max_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 1024 * 1024
    ingest_max_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 16 * 1024 * 1024
    """Limit of JSON bodies of sources and of jobs. NDJSON may have any number of lines of up to 1 MiB."""
    photos: bool = True
    """Whether enrollment by photo is on, which loads the face model into this program."""
    photo_max_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 10 * 1024 * 1024
    enrollment_max_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 64 * 1024 * 1024
    """Limit of an enrollment with all its photos, which are in memory until it is done."""
    face_model: FilePath | None = None
    """ONNX model that embeds photos, with its record beside it; None is the built-in model."""
    face_detector: DetectorKind | None = None
    """Detector of faces in photos; None is that of the record. Cameras have the same, since landmarks change
    the crop."""
    face_detector_model: FilePath | None = None
    default_spaces: dict[Modality, SpaceId] = Field(default_factory=_default_spaces)
    """Embedding space of a modality where a request names none. That of faces is the space of `face_model`;
    a modality that is not named keeps its default."""
    stream_keepalive_seconds: Annotated[float, Field(ge=0.01, le=10)] = 5.0
    """Pause of the live stream after which it sends a comment, by which readers tell a pause from a break."""
    heartbeat_seconds: Annotated[float, Field(ge=0.01, le=86_400)] = HEARTBEAT_SECONDS
    """Interval of the fleet's heartbeats: the largest `heartbeat_seconds` of its devices."""

    @model_validator(mode="after")
    def _check_detector_model(self) -> "ApiSettings":
        if self.face_detector is None:
            return self
        check_detector_model(self.face_detector, self.face_detector_model, setting="face_detector")
        return self


class EventSettings(Section):
    """The key of section `bridge` that the API reads too: the age limit of events."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    event_max_age_days: Annotated[float, Field(ge=0.0001, le=20_000)] = MAX_AGE_DAYS


class ApiProgram(Settings):
    """Every section that `python -m dashboard_api` reads."""

    mongo: MongoSettings = MongoSettings()
    registry: RegistrySettings = RegistrySettings()
    tracking: TrackingSettings = TrackingSettings()
    search: SearchSettings = SearchSettings()
    bridge: EventSettings = EventSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @field_validator("api", mode="after")
    @classmethod
    def _complete_default_spaces(cls, api: ApiSettings) -> ApiSettings:
        """Keep the default of each modality that is not named."""
        spaces = _default_spaces()
        if api.face_model is not None:
            # The space of another model is known when it is loaded.
            del spaces["face"]
        if "default_spaces" in api.model_fields_set:
            spaces.update(api.default_spaces)
        return api.model_copy(update={"default_spaces": spaces})
