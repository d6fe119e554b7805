"""A job: what it is, and what becomes of it. No I/O."""

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
"""Attempts in a row that got no further; after them a job is given up."""
_FIRST_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True)
class JobOrder:
    """What is to be done: with the photos `photo_ids` of a catalog, or with those of its batch `batch_id`.

    Who names a `submission_id` can submit again without making a second job.
    """

    job_type: JobType
    source_system: str
    photo_ids: tuple[str, ...] | None = None
    batch_id: str | None = None
    submission_id: str | None = None

    def __post_init__(self) -> None:
        if (self.photo_ids is None) == (self.batch_id is None):
            raise ValueError("a job is about photo_ids or a batch_id: one of them")

    @property
    def digest(self) -> str:
        """SHA-256 of what is ordered, by which a repeated order is known without its photo ids."""
        ordered = [self.job_type, self.source_system, self.batch_id, self.photo_ids]
        return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()


@dataclass(frozen=True)
class JobRecord:
    """A job as it stands, without its photo ids. Times are UTC with milliseconds.

    `position` is how far the photos are done, `attempt` how many workers have had the job, `stalled` how many
    of these in a row got no further. `free_at` is when a worker may take it: the end of its lease while it is
    claimed, None when it is over. `result` and `counts` are numbers alone.
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
        """When its worker will have lost it, while one has it."""
        return self.free_at if self.status == "claimed" else None

    @property
    def not_before(self) -> datetime | None:
        """When a worker may have it, while it waits for one."""
        return self.free_at if self.status == "queued" else None


@dataclass(frozen=True)
class Submission:
    """The job that stands for an order; `differs`: its submission id was used for another order before."""

    job: JobRecord
    outcome: Literal["made", "repeated", "differs"]


@dataclass(frozen=True)
class ClaimRequest:
    """A worker asks for a job, and will say something every `lease_seconds`; `lease_token` is a fresh one."""

    worker_id: str
    job_types: Sequence[JobType]
    lease_seconds: int
    lease_token: str


@dataclass(frozen=True)
class JobClaim:
    """A job in a worker's hands; `photo_ids` is None where it is about a batch."""

    job: JobRecord
    photo_ids: tuple[str, ...] | None


def after_failure(job: JobRecord, error: str, *, retry: bool, now: datetime) -> Document:
    """What a failed attempt changes: it is the last, or the next one waits, twice as long each time."""
    if not retry or job.stalled >= MAX_ATTEMPTS:
        return over("failed", now) | {"error": error}
    # An attempt that got further than the one before counts as the first again.
    pause = _FIRST_PAUSE * 2 ** max(job.stalled - 1, 0)
    change = {"status": "queued", "lease_token": None, "free_at": now + pause, "updated_at": now}
    return change | {"error": error}


def over(status: JobStatus, now: datetime) -> Document:
    """What changes about a job that comes to its end."""
    return {"status": status, "lease_token": None, "free_at": None, "updated_at": now, "finished_at": now}


def queued(job_id: str, order: JobOrder, who: str, now: datetime) -> Document:
    """The document of a fresh job."""
    count = None if order.photo_ids is None else len(order.photo_ids)
    job = JobRecord(
        job_id=job_id,
        job_type=order.job_type,
        source_system=order.source_system,
        batch_id=order.batch_id,
        photo_count=count,
        submission_id=order.submission_id,
        submitted_by=who,
        submitted_at=now,
        updated_at=now,
        free_at=now,
        total=count,
    )
    document = {one.name: getattr(job, one.name) for one in fields(job)}
    return {"_id": document.pop("job_id"), **document, "order_digest": order.digest}


def job_of(found: Document) -> JobRecord:
    """The job in a document of the registry."""
    known = {one.name for one in fields(JobRecord)} - {"job_id"}
    return JobRecord(job_id=found["_id"], **{name: found[name] for name in known})
