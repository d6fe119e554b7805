"""The settings of the worker: section `worker` of the file, `WFM_WORKER__*` in the environment."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, HttpUrl, model_validator

from broker_bridge.common.settings import BearerKey, LogSettings, Section, Settings
from broker_bridge.contract.ids import SpaceId
from device.vision.detectors.kind import DetectorKind, check_detector_model

Seconds = Annotated[float, Field(gt=0)]


def _check_base(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        raise ValueError(
            "an address is like http://host:8082, without user, ? and #; keys have their own field"
        )
    return url


BaseUrl = Annotated[HttpUrl, AfterValidator(_check_base)]


class WorkerSection(Section):
    """One worker between a photo catalog and the backend.

    Without `model` the embedded `face:gabor-512` is used: for trying out, not for identifying people.
    """

    backend_url: BaseUrl
    backend_key: BearerKey
    """An API key of the backend with the role `source`."""
    catalog_url: BaseUrl
    catalog_key: BearerKey | None = None
    """Sent to the catalog as a bearer key, if it wants one."""
    ca_file: Path | None = None
    """Authorities that both servers' certificates are checked against; none set: the system's."""
    worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = Field(
        default_factory=lambda: socket.gethostname()[:64]
    )

    model: Path | None = None
    """ONNX file or TensorRT engine of the embedder: the one that the cameras run."""
    space: SpaceId | None = None
    detector: DetectorKind = "cascade"
    """The one that the cameras run: landmarks change what is cut out."""
    detector_model: Path | None = None
    detector_score: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_face_pixels: Annotated[int, Field(ge=16)] = 80
    providers: Annotated[tuple[Literal["cpu", "cuda"], ...], Field(min_length=1)] = ("cpu",)
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    poll_seconds: Seconds = 5.0
    """How often the backend is asked for a job while there is none."""
    lease_seconds: Annotated[int, Field(ge=10, le=3600)] = 60
    """How soon another worker may take over when this one dies."""
    timeout_seconds: Seconds = 30.0
    """How long one answer may take, a photo included."""
    patience_seconds: Seconds = 600.0
    """How long a catalog may be away before its job is given back."""
    group_photos: Annotated[int, Field(ge=1, le=64)] = 32
    """Photos whose vectors are sent together; what a crash repeats at most."""
    photo_mb: Annotated[int, Field(ge=1, le=100)] = 20

    @model_validator(mode="after")
    def _models_belong_together(self) -> "WorkerSection":
        if (self.model is None) != (self.space is None):
            raise ValueError("model (the path of an ONNX file) and space (its name) belong together")
        check_detector_model(self.detector, self.detector_model)
        return self


class WorkerSettings(Settings):
    """What `python -m device.embed_worker` reads."""

    worker: WorkerSection
    log: LogSettings = LogSettings()
