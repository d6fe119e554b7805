"""Define the settings of the worker, section `worker` or `WFM_WORKER__*`."""

import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, HttpUrl, model_validator

from broker_bridge.common.settings import BearerKey, FilePath, LogSettings, Section, Settings
from broker_bridge.contract.ids import SpaceId
from device.vision.detectors.kind import DetectorKind
from device.vision.recorded.model_settings import FaceModelSettings

Seconds = Annotated[float, Field(ge=0.01, le=604_800)]


def _check_base(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(
            "an address is like http://host:8082, without user, ? and #; keys have their own field"
        )
    return url


BaseUrl = Annotated[HttpUrl, AfterValidator(_check_base)]


class WorkerSection(Section):
    """One worker between a photo catalog and the backend.

    Without `model` the worker uses the model that comes with the product.
    """

    backend_url: BaseUrl
    backend_key: BearerKey
    """An API key of the backend with the role `source`."""
    catalog_url: BaseUrl
    catalog_key: BearerKey | None = None
    """The bearer key for the catalog, if it needs one."""
    ca_file: FilePath | None = None
    """Certificate authorities for both servers; None: the system's."""
    worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = Field(
        default_factory=lambda: socket.gethostname()[:64]
    )

    model: FilePath | None = None
    """ONNX file or TensorRT engine of the embedder; it must equal the model of the cameras.

    The JSON beside it, its record, names space, detector and alignment.
    """
    space: SpaceId | None = None
    """The space of a `model` without a record."""
    detector: DetectorKind | None = None
    """The detector of a model without a record (none: the cascade); else the record names it."""
    detector_model: FilePath | None = None
    detector_score: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_face_pixels: Annotated[int, Field(ge=16, le=8192)] = 80
    providers: Annotated[tuple[Literal["cpu", "cuda"], ...], Field(min_length=1)] = ("cpu",)
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    poll_seconds: Seconds = 5.0
    """The interval of requests for a job while there is none, in seconds."""
    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """The time after which another worker may take the job of a dead one, in seconds."""
    timeout_seconds: Seconds = 30.0
    """The timeout of one request, a photo included, in seconds."""
    patience_seconds: Seconds = 600.0
    """The time for which the catalog may be unavailable before the job is released, in seconds."""
    group_photos: Annotated[int, Field(ge=1, le=64)] = 32
    """The number of photos in a group: its vectors are sent together; a crash repeats one group."""
    photo_mb: Annotated[int, Field(ge=1, le=100)] = 20

    @model_validator(mode="after")
    def _models_belong_together(self) -> "WorkerSection":
        self.face_model_settings.check()
        return self

    @property
    def face_model_settings(self) -> FaceModelSettings:
        """The settings of the model and of its detector."""
        return FaceModelSettings(
            model=self.model,
            space=self.space,
            detector=self.detector,
            detector_model=self.detector_model,
            detector_score=self.detector_score,
            min_face_pixels=self.min_face_pixels,
        )


class WorkerSettings(Settings):
    """The settings of `python -m device.embed_worker`."""

    worker: WorkerSection
    log: LogSettings = LogSettings()
