"""Routes of `/api/training`: the queue of embedding jobs (seed 001)."""

import secrets
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.ids import RequestId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.jobs.model import ClaimRequest, JobClaim, JobOrder, JobRecord, JobStatus
from broker_bridge.registry.jobs.queue import JobQueue
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Limit, MomentCursor, cut_page, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import Problem, not_found
from dashboard_api.services.dependencies import ClockDep, JobsDep
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_FOLLOW_WORK, MAY_WORK
from dashboard_api.training.views import (
    ClaimBody,
    ClaimView,
    CompleteBody,
    FailBody,
    JobAnswer,
    JobPage,
    JobView,
    ProgressBody,
    SubmitBody,
)

router = APIRouter(prefix="/api/training", tags=["training"])

V = TypeVar("V", bound=JobView)
_LEASE_LOST: dict[int | str, dict[str, Any]] = {
    409: {"description": "`lease-lost`: the lease has ended, or another worker has the job"}
}


@router.post(
    "/submit",
    status_code=201,
    dependencies=[JSON_BODY],
    responses={
        200: {"model": JobAnswer, "description": "Submitted before"},
        409: {"description": "`submission-differs`"},
    },
)
async def submit(
    body: SubmitBody, jobs: JobsDep, now: ClockDep, key: Annotated[ApiKey, MAY_ENROLL], response: Response
) -> JobAnswer:
    """Queue a job about photos, or a batch of photos, of a catalog.

    A job has the ids of photos only, never a photo.
    """
    config = body.config
    order = JobOrder(
        job_type=body.job_type,
        source_system=config.source_system,
        photo_ids=None if config.photo_ids is None else tuple(config.photo_ids),
        batch_id=config.batch_id,
        submission_id=body.submission_id,
    )
    job_id = f"job-{secrets.token_hex(8)}"
    submission = await jobs.submit(job_id, order, by=key.name, now=now())
    if submission.outcome == "differs":
        detail = f"submission {body.submission_id} was a different job before: use a new submission_id"
        raise Problem(409, "submission-differs", detail)
    if submission.outcome == "repeated":
        response.status_code = 200
    return to_view(submission.job, JobAnswer)


@router.post(
    "/claim",
    response_model=ClaimView,
    dependencies=[JSON_BODY, MAY_WORK],
    responses={204: {"description": "The queue has no free job"}},
)
async def claim(body: ClaimBody, jobs: JobsDep, now: ClockDep) -> ClaimView | Response:
    """Lease the oldest free job.

    A job is free if no worker has it, or if the lease of its worker has expired.
    """
    request = ClaimRequest(body.worker_id, body.job_types, body.lease_seconds, secrets.token_hex(16))
    claimed = await jobs.claim(request, now())
    return to_claim_view(claimed) if claimed else Response(status_code=204)


@router.post("/jobs/{job_id}/progress", dependencies=[JSON_BODY, MAY_WORK], responses=_LEASE_LOST)
async def progress(job_id: RequestId, body: ProgressBody, jobs: JobsDep, now: ClockDep) -> JobAnswer:
    """Report the progress of a job and renew its lease."""
    job = await jobs.progress(
        job_id,
        body.lease_token,
        position=body.position,
        total=body.total,
        counts=body.counts,
        now=now(),
    )
    return await _to_answer(jobs, job_id, job)


@router.post("/jobs/{job_id}/complete", dependencies=[JSON_BODY, MAY_WORK], responses=_LEASE_LOST)
async def complete(job_id: RequestId, body: CompleteBody, jobs: JobsDep, now: ClockDep) -> JobAnswer:
    """Complete a job.

    The same request again gets the same answer.
    """
    job = await jobs.complete(job_id, body.lease_token, body.result, now())
    return await _to_answer(jobs, job_id, job)


@router.post("/jobs/{job_id}/fail", dependencies=[JSON_BODY, MAY_WORK], responses=_LEASE_LOST)
async def fail(job_id: RequestId, body: FailBody, jobs: JobsDep, now: ClockDep) -> JobAnswer:
    """End a job as failed, or put it back into the queue.

    With `retry` the job becomes free again after a pause.
    """
    job = await jobs.fail(job_id, body.lease_token, body.error, retry=body.retry, now=now())
    return await _to_answer(jobs, job_id, job)


@router.post(
    "/jobs/{job_id}/cancel",
    responses={409: {"description": "`job-finished`: the job has ended already"}},
)
async def cancel(
    job_id: RequestId, jobs: JobsDep, now: ClockDep, key: Annotated[ApiKey, MAY_CHANGE]
) -> JobAnswer:
    """Cancel a job.

    A worker that has the job gets `lease-lost` for its next report.
    """
    job = await jobs.cancel(job_id, by=key.name, now=now())
    if job is None:
        raise not_found(f"job {job_id}")
    if job.status != "cancelled":
        raise Problem(409, "job-finished", f"job {job_id} is {job.status} already")
    return to_view(job, JobAnswer)


@router.get("/jobs", dependencies=[MAY_FOLLOW_WORK])
async def list_jobs(
    jobs: JobsDep,
    limit: Limit = 100,
    cursor: MomentCursor = None,
    status: Annotated[JobStatus | None, Query()] = None,
) -> JobPage:
    """List jobs, newest first.

    Finished jobs are deleted after 90 days.
    """
    found = await jobs.page(status=status, before=from_moment_cursor(cursor), limit=limit + 1)
    page, next_cursor = cut_page(found, limit, lambda last: to_moment_cursor(last.submitted_at, last.job_id))
    return JobPage(items=[to_view(job, JobView) for job in page], next_cursor=next_cursor)


@router.get("/jobs/{job_id}", dependencies=[MAY_FOLLOW_WORK])
async def show(job_id: RequestId, jobs: JobsDep) -> JobView:
    """Show one job and its progress."""
    job = await jobs.get(job_id)
    if job is None:
        raise not_found(f"job {job_id}")
    return to_view(job, JobView)


async def _to_answer(jobs: JobQueue, job_id: str, job: JobRecord | None) -> JobAnswer:
    """Return the answer to a worker; raise Problem 404 or 409 if it has no lease."""
    if job is not None:
        return to_view(job, JobAnswer)
    found = await jobs.get(job_id)
    if found is None:
        raise not_found(f"job {job_id}")
    raise Problem(409, "lease-lost", f"this lease of job {job_id} has ended: the job is {found.status}")


def to_claim_view(claim: JobClaim) -> ClaimView:
    """Return a job for the worker that has just leased it."""
    job = claim.job
    config: dict[str, Any] = {"source_system": job.source_system}
    config |= {"batch_id": job.batch_id} if claim.photo_ids is None else {"photo_ids": claim.photo_ids}
    shared = to_view(job, JobView).model_dump(include=set(ClaimView.model_fields))
    return ClaimView(**shared, config=config, lease_token=job.lease_token)


def to_view(job: JobRecord, view_type: type[V]) -> V:
    """Return a job without its photo ids and its lease token."""
    return view_type.model_validate(job, from_attributes=True)
