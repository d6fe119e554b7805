"""`/api/training`: the queue of photos to turn into vectors (seed 001), for sources and for their workers."""

import secrets
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Response

from broker_bridge.contract.ids import RequestId
from broker_bridge.registry.api_keys import ApiKey
from broker_bridge.registry.jobs.model import ClaimRequest, JobClaim, JobOrder, JobRecord, JobStatus
from dashboard_api.http.json_bodies import JSON_BODY
from dashboard_api.http.paging import Cursor, Limit, from_moment_cursor, to_moment_cursor
from dashboard_api.http.problems import Problem, not_found
from dashboard_api.services.security import MAY_CHANGE, MAY_ENROLL, MAY_FOLLOW_WORK, MAY_WORK
from dashboard_api.services.services import Services, ServicesDep
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
_LOST: dict[int | str, dict[str, Any]] = {
    409: {"description": "`lease-lost`: another has the job, or nobody"}
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
    body: SubmitBody, services: ServicesDep, key: Annotated[ApiKey, MAY_ENROLL], response: Response
) -> JobAnswer:
    """Queue a job about photos or a batch of a catalog. Ids only: nothing here looks at a photo."""
    config = body.config
    order = JobOrder(
        job_type=body.job_type,
        source_system=config.source_system,
        photo_ids=None if config.photo_ids is None else tuple(config.photo_ids),
        batch_id=config.batch_id,
        submission_id=body.submission_id,
    )
    job_id = f"job-{secrets.token_hex(8)}"
    submission = await services.registry.jobs.submit(job_id, order, who=key.name, now=services.now())
    if submission.outcome == "differs":
        detail = f"submission {body.submission_id} was about something else before: take a fresh id"
        raise Problem(409, "submission-differs", detail)
    if submission.outcome == "repeated":
        response.status_code = 200
    return to_view(submission.job, JobAnswer)


@router.post(
    "/claim",
    response_model=ClaimView,
    dependencies=[JSON_BODY, MAY_WORK],
    responses={204: {"description": "There is no job to do"}},
)
async def claim(body: ClaimBody, services: ServicesDep) -> ClaimView | Response:
    """Take the oldest job that no worker has. Whose lease has expired has it no more."""
    request = ClaimRequest(body.worker_id, body.job_types, body.lease_seconds, secrets.token_hex(16))
    found = await services.registry.jobs.claim(request, services.now())
    return to_claim_view(found) if found else Response(status_code=204)


@router.post("/jobs/{job_id}/progress", dependencies=[JSON_BODY, MAY_WORK], responses=_LOST)
async def progress(job_id: RequestId, body: ProgressBody, services: ServicesDep) -> JobAnswer:
    """Say how far a worker is; its lease begins anew."""
    job = await services.registry.jobs.progress(
        job_id,
        body.lease_token,
        position=body.position,
        total=body.total,
        counts=body.counts,
        now=services.now(),
    )
    return await _answer(services, job_id, job)


@router.post("/jobs/{job_id}/complete", dependencies=[JSON_BODY, MAY_WORK], responses=_LOST)
async def complete(job_id: RequestId, body: CompleteBody, services: ServicesDep) -> JobAnswer:
    """End a job well. Saying it again is answered again."""
    job = await services.registry.jobs.complete(job_id, body.lease_token, body.result, services.now())
    return await _answer(services, job_id, job)


@router.post("/jobs/{job_id}/fail", dependencies=[JSON_BODY, MAY_WORK], responses=_LOST)
async def fail(job_id: RequestId, body: FailBody, services: ServicesDep) -> JobAnswer:
    """End a job badly, or with `retry` put it back for another attempt, after a pause."""
    job = await services.registry.jobs.fail(
        job_id, body.lease_token, body.error, retry=body.retry, now=services.now()
    )
    return await _answer(services, job_id, job)


@router.post(
    "/jobs/{job_id}/cancel",
    responses={409: {"description": "`job-finished`: it was over before"}},
)
async def cancel(job_id: RequestId, services: ServicesDep, key: Annotated[ApiKey, MAY_CHANGE]) -> JobAnswer:
    """Take a job off the queue; a worker who has it is told at its next report."""
    job = await services.registry.jobs.cancel(job_id, who=key.name, now=services.now())
    if job is None:
        raise not_found(f"job {job_id}")
    if job.status != "cancelled":
        raise Problem(409, "job-finished", f"job {job_id} is {job.status} already")
    return to_view(job, JobAnswer)


@router.get("/jobs", dependencies=[MAY_FOLLOW_WORK])
async def list_jobs(
    services: ServicesDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: Annotated[JobStatus | None, Query()] = None,
) -> JobPage:
    """Jobs, newest first; what is over is forgotten after 90 days."""
    found = await services.registry.jobs.page(
        status=status, before=from_moment_cursor(cursor), limit=limit + 1
    )
    shown = found[:limit]
    following = to_moment_cursor(shown[-1].submitted_at, shown[-1].job_id) if len(found) > limit else None
    return JobPage(items=[to_view(job, JobView) for job in shown], next_cursor=following)


@router.get("/jobs/{job_id}", dependencies=[MAY_FOLLOW_WORK])
async def show(job_id: RequestId, services: ServicesDep) -> JobView:
    """One job and how far it is."""
    job = await services.registry.jobs.get(job_id)
    if job is None:
        raise not_found(f"job {job_id}")
    return to_view(job, JobView)


async def _answer(services: Services, job_id: str, job: JobRecord | None) -> JobAnswer:
    """What a worker is told; raises Problem 404 or 409 where its lease is not the job's."""
    if job is not None:
        return to_view(job, JobAnswer)
    found = await services.registry.jobs.get(job_id)
    if found is None:
        raise not_found(f"job {job_id}")
    raise Problem(409, "lease-lost", f"this lease of job {job_id} is over: the job is {found.status}")


def to_claim_view(found: JobClaim) -> ClaimView:
    """A job as the worker gets it who has just leased it."""
    job = found.job
    config: dict[str, Any] = {"source_system": job.source_system}
    config |= {"batch_id": job.batch_id} if found.photo_ids is None else {"photo_ids": found.photo_ids}
    shown = to_view(job, JobView).model_dump(include=set(ClaimView.model_fields))
    return ClaimView(**shown, config=config, lease_token=job.lease_token)


def to_view(job: JobRecord, kind: type[V]) -> V:
    """A job as everybody may see it: without its photo ids and its lease token."""
    return kind.model_validate(job, from_attributes=True)
