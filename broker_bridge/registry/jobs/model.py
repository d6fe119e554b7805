"""Define jobs and decide their transitions. No I/O."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Literal

from broker_bridge.registry.mongo.client import Document

JobType = Literal["face_detect_embed"]
JobStatus = Literal["queued", "claimed", "done", "failed", "cancelled"]

MAX_ATTEMPTS = 5
"""Attempts in a row without progress, after which a job fails."""
_FIRST_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True)
class JobOrder:
    """Work on the photos `photo_ids` of a catalog, or on its batch `batch_id`.

    An order with a `submission_id` can be submitted again without making a second job.
    """

    job_type: JobType
    source_system: str
    photo_ids: tuple[str, ...] | None = None
    batch_id: str | None = None
    submission_id: str | None = None

    def __post_init__(self) -> None:
        if (self.photo_ids is None) == (self.batch_id is None):
            raise ValueError("a job needs either photo_ids or a batch_id")

    @property
    def digest(self) -> str:
        """SHA-256 of the work.

        A repeated order is recognised by it without its photo ids.
        """
        work = [self.job_type, self.source_system, self.batch_id, self.photo_ids]
        return hashlib.sha256(json.dumps(work).encode()).hexdigest()


@dataclass(frozen=True)
class JobRecord:
    """A job as of now, without its photo ids. Times are UTC with milliseconds.

    `position` is the number of photos done, `attempt` the number of claims, `stalled` the number of the last
    attempts without progress. From `free_at` on a worker may claim the job: it is the end of the lease of a
    claimed job, and None for a finished one. `result` and `counts` hold numbers only.
    """

    job_id: str
    job_type: JobType
    source_system: str
    batch_id: str | None
    photo_count: int | None
    submission_id: str | None
    submitted_by: str
    submitted_at: datetime
    updated_at: datetime
    free_at: datetime | None
    status: JobStatus = "queued"
    position: int = 0
    total: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    attempt: int = 0
    stalled: int = 0
    worker_id: str | None = None
    lease_token: str | None = None
    lease_seconds: int | None = None
    finished_at: datetime | None = None
    result: Mapping[str, int] | None = None
    error: str | None = None

    @property
    def lease_expires_at(self) -> datetime | None:
        """The end of the lease of a claimed job."""
        return self.free_at if self.status == "claimed" else None

    @property
    def not_before(self) -> datetime | None:
        """The earliest time at which a worker may claim a queued job."""
        return self.free_at if self.status == "queued" else None


@dataclass(frozen=True)
class Submission:
    """The job of an order.

    With the outcome `differs` the submission id belongs to another order.
    """

    job: JobRecord
    outcome: Literal["made", "repeated", "differs"]


@dataclass(frozen=True)
class ClaimRequest:
    """The request of a worker for a job.

    The worker reports at least every `lease_seconds`; `lease_token` is new for each request.
    """

    worker_id: str
    job_types: Sequence[JobType]
    lease_seconds: int
    lease_token: str


@dataclass(frozen=True)
class JobClaim:
    """A claimed job; `photo_ids` is None for a batch."""

    job: JobRecord
    photo_ids: tuple[str, ...] | None


def failure_update(job: JobRecord, error: str, *, retry: bool, now: datetime) -> Document:
    """Return the update after a failed attempt.

    The job fails, or is queued again after a pause that doubles with each attempt.
    """
    if not retry or job.stalled >= MAX_ATTEMPTS:
        return end_update("failed", now) | {"error": error}
    # After progress the pauses begin with the first one.
    pause = _FIRST_PAUSE * 2 ** max(job.stalled - 1, 0)
    change = {"status": "queued", "lease_token": None, "free_at": now + pause, "updated_at": now}
    return change | {"error": error}


def end_update(status: JobStatus, now: datetime) -> Document:
    """Return the update of a job that ends."""
    return {"status": status, "lease_token": None, "free_at": None, "updated_at": now, "finished_at": now}


def new_document(job_id: str, order: JobOrder, by: str, now: datetime) -> Document:
    """Return the document of a new job."""
    count = None if order.photo_ids is None else len(order.photo_ids)
    job = JobRecord(
        job_id=job_id,
        job_type=order.job_type,
        source_system=order.source_system,
        batch_id=order.batch_id,
        photo_count=count,
        submission_id=order.submission_id,
        submitted_by=by,
        submitted_at=now,
        updated_at=now,
        free_at=now,
        total=count,
    )
    document = {one.name: getattr(job, one.name) for one in fields(job)}
    return {"_id": document.pop("job_id"), **document, "order_digest": order.digest}


def job_from_document(found: Document) -> JobRecord:
    """Return the job of a document."""
    known = {one.name for one in fields(JobRecord)} - {"job_id"}
    return JobRecord(job_id=found["_id"], **{name: found[name] for name in known})
