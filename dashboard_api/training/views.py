"""Bodies of `/api/training`: ids and numbers, never a vector or an image."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from broker_bridge.contract.ids import RequestId
from broker_bridge.contract.messages import Count
from broker_bridge.registry.jobs.model import JobStatus, JobType
from dashboard_api.http.base_models import Body, Time, View, Whole
from dashboard_api.http.conditions import described_with, one_of_two
from dashboard_api.http.visible_text import BLANKS, VISIBLE_TEXT, NoTags

MAX_PHOTOS = 100_000
MAX_PHOTO_IDS_BYTES = 8 * 1024 * 1024
"""All ids of one job together must fit into one MongoDB document."""
_MAX_WORD_LENGTH = 128
_EMBEDDED_DATA = f"[^{BLANKS}]{{{_MAX_WORD_LENGTH + 1}}}|[Dd][Aa][Tt][Aa]:[0-9A-Za-z_]+/"
"""What no sentence has, for OpenAPI."""
_DATA_URI = re.compile(r"data:\w+/", re.IGNORECASE)


def _reject_address_or_image(catalog_id: str) -> str:
    # The pattern excludes slashes; these are the paths and data URIs without one.
    if catalog_id in (".", "..") or catalog_id.lower().startswith("data:"):
        raise ValueError("an id of the catalog is neither a path nor a data URI")
    return catalog_id


def _reject_embedded_data(sentence: str) -> str:
    if any(len(word) > _MAX_WORD_LENGTH for word in sentence.split()) or _DATA_URI.search(sentence):
        raise ValueError(f"an error is a sentence: no word past {_MAX_WORD_LENGTH} characters, no data URI")
    return sentence


CatalogId = Annotated[
    str,
    # ASCII from space to tilde without slash and backslash: an id is one segment of a path of the catalog.
    Field(
        min_length=1,
        max_length=255,
        pattern=r"^[ -.0-\[\]-~]+$",
        json_schema_extra={"not": {"pattern": r"^(\.\.?$|[Dd][Aa][Tt][Aa]:)"}},
    ),
    AfterValidator(_reject_address_or_image),
]
"""Id of a photo or a batch in its catalog, for example `photo_001`."""
SourceSystem = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[A-Za-z0-9_.-]+$")]
WorkerId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:@-]+$")]
Counts = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")], Annotated[Count, Whole]],
    Field(max_length=64),
]
"""Numbers by name, for example `{"faces": 118, "photo-no-face": 3}`."""
Sentence = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=VISIBLE_TEXT,
        json_schema_extra={"not": {"pattern": _EMBEDDED_DATA}},
    ),
    NoTags,
    AfterValidator(_reject_embedded_data),
]


class JobConfigBody(Body):
    """The photos of a job: exactly one of `photo_ids` and `batch_id`."""

    model_config = ConfigDict(json_schema_extra=described_with(one_of_two("photo_ids", "batch_id")))

    source_system: SourceSystem
    photo_ids: (
        Annotated[
            list[CatalogId],
            Field(min_length=1, max_length=MAX_PHOTOS, json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None
    batch_id: CatalogId | None = None

    @model_validator(mode="after")
    def _check_selection(self) -> "JobConfigBody":
        if (self.photo_ids is None) == (self.batch_id is None):
            raise ValueError("give photo_ids or a batch_id: exactly one of them")
        ids = self.photo_ids or ()
        if len(set(ids)) != len(ids):
            raise ValueError("photo_ids names a photo twice")
        if sum(map(len, ids)) > MAX_PHOTO_IDS_BYTES:
            raise ValueError(f"photo_ids have at most {MAX_PHOTO_IDS_BYTES} bytes together: submit two jobs")
        return self


class SubmitBody(Body):
    """A job to queue.

    The same `submission_id` again, for example after a lost answer, gives the same job.
    """

    job_type: JobType
    config: JobConfigBody
    submission_id: RequestId | None = None


class ClaimBody(Body):
    """A request for a job.

    A worker that reports no progress for `lease_seconds` loses the job.
    """

    worker_id: WorkerId
    job_types: Annotated[list[JobType], Field(min_length=1, max_length=16)]
    lease_seconds: Annotated[int, Field(ge=10, le=3600), Whole] = 60


class ProgressBody(Body):
    """The vectors of the first `position` of `total` photos have been accepted."""

    lease_token: RequestId
    position: Annotated[Count, Whole]
    total: Annotated[Count, Whole] | None = None
    counts: Counts = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_position(self) -> "ProgressBody":
        if self.total is not None and self.position > self.total:
            raise ValueError("position is more than total")
        return self


class CompleteBody(Body):
    lease_token: RequestId
    result: Counts = Field(default_factory=dict)


class FailBody(Body):
    """The reason of a failure; with `retry` the job can continue at its position."""

    lease_token: RequestId
    error: Sentence
    retry: bool = False


class PhotosConfig(View):
    source_system: str
    photo_ids: list[str]


class BatchConfig(View):
    source_system: str
    batch_id: str


class ClaimView(View):
    """A job for a worker, which continues at photo number `position`.

    The worker sends `lease_token` with each report.
    """

    job_id: str
    job_type: JobType
    config: PhotosConfig | BatchConfig
    position: int
    total: int | None
    counts: Mapping[str, int]
    attempt: int
    lease_token: str
    lease_expires_at: Time


class JobView(View):
    """A job with its progress; its photos are counted, not listed.

    `photo_count` is null for a batch. `attempt` is the number of workers that have had the job, `stalled` the
    number of the last attempts without progress; after five of these the job fails. `error` is the reason of
    the last failed attempt.
    """

    job_id: str
    job_type: JobType
    status: JobStatus
    source_system: str
    photo_count: int | None
    batch_id: str | None
    submission_id: str | None
    submitted_by: str
    submitted_at: Time
    updated_at: Time
    position: int
    total: int | None
    counts: Mapping[str, int]
    attempt: int
    stalled: int
    worker_id: str | None
    lease_expires_at: Time | None
    not_before: Time | None
    finished_at: Time | None
    result: Mapping[str, int] | None
    error: str | None


class JobAnswer(JobView):
    """The job after the request."""

    success: Literal[True] = True


class JobPage(View):
    items: list[JobView]
    next_cursor: str | None
