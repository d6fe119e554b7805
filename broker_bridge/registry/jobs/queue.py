"""Queue jobs that turn the photos of a catalog into vectors.

A worker leases each job.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from broker_bridge.contract.wire import to_milliseconds
from broker_bridge.registry.audit import Audit, AuditEntry
from broker_bridge.registry.mongo.client import Document, Mongo
from broker_bridge.registry.mongo.paging import newest_first

from .model import (
    MAX_ATTEMPTS,
    ClaimRequest,
    JobClaim,
    JobOrder,
    JobRecord,
    JobStatus,
    Submission,
    end_update,
    failure_update,
    job_from_document,
    new_document,
)

_OPEN = ["queued", "claimed"]


class JobQueue:
    """Collections `jobs`, where finished jobs expire after 90 days, and `job_photos`.

    The photo ids, up to 100,000, are stored apart: a report of progress would write them all again. They are
    deleted when the job ends.

    The current `lease_token` gives access to a job. An expired lease still does until another worker claims
    the job: its worker was slow, not dead.
    """

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._jobs = mongo.db.jobs
        self._photos = mongo.db.job_photos
        self._audit = audit

    async def submit(self, job_id: str, order: JobOrder, *, by: str, now: datetime) -> Submission:
        """Queue `order` as `job_id`, or find the job of its submission id."""
        now = to_milliseconds(now)
        document = new_document(job_id, order, by, now)

        async def work(session: Any) -> None:
            await self._jobs.insert_one(document, session=session)
            if order.photo_ids is not None:
                photos = {"_id": job_id, "photo_ids": list(order.photo_ids)}
                await self._photos.insert_one(photos, session=session)
            after = {key: document[key] for key in ("job_type", "source_system", "batch_id", "photo_count")}
            await self._audit.record(AuditEntry(by, "job.submitted", job_id, now, after=after), session)

        try:
            await self._mongo.transact(work)
        except DuplicateKeyError:
            key = {"source_system": order.source_system, "submission_id": order.submission_id}
            earlier = order.submission_id and await self._jobs.find_one(key)
            if not earlier:
                raise
            same = earlier["order_digest"] == order.digest
            return Submission(job_from_document(earlier), "repeated" if same else "differs")
        return Submission(job_from_document(document), "made")

    async def claim(self, request: ClaimRequest, now: datetime) -> JobClaim | None:
        """Lease the oldest free job to a worker and return it, or None."""
        now = to_milliseconds(now)
        await self._give_up(now)
        found = await self._jobs.find_one_and_update(
            {
                "status": {"$in": _OPEN},
                "free_at": {"$lte": now},
                "stalled": {"$lt": MAX_ATTEMPTS},
                "job_type": {"$in": list(request.job_types)},
            },
            {
                "$set": {
                    "status": "claimed",
                    "worker_id": request.worker_id,
                    "lease_token": request.lease_token,
                    "lease_seconds": request.lease_seconds,
                    "free_at": now + timedelta(seconds=request.lease_seconds),
                    "updated_at": now,
                },
                "$inc": {"attempt": 1, "stalled": 1},
            },
            sort=[("submitted_at", 1), ("_id", 1)],
            return_document=ReturnDocument.AFTER,
        )
        if found is None:
            return None
        job = job_from_document(found)
        if job.photo_count is None:
            return JobClaim(job, None)
        photos = await self._photos.find_one({"_id": job.job_id})
        # Without photos the job was cancelled in this moment.
        return JobClaim(job, tuple(photos["photo_ids"])) if photos else None

    async def _give_up(self, now: datetime) -> None:
        """Fail jobs after MAX_ATTEMPTS expired leases in a row without progress."""
        error = f"the lease expired, and {MAX_ATTEMPTS} attempts in a row made no progress"
        stuck = {"status": "claimed", "free_at": {"$lte": now}, "stalled": {"$gte": MAX_ATTEMPTS}}
        for stuck_id in [found async for found in self._jobs.find(stuck, {"_id": 1})]:
            await self._end(stuck | stuck_id, end_update("failed", now) | {"error": error})

    async def progress(
        self,
        job_id: str,
        lease_token: str,
        *,
        position: int,
        total: int | None,
        counts: Mapping[str, int],
        now: datetime,
    ) -> JobRecord | None:
        """Record a worker's progress and renew its lease.

        Returns None if the worker has lost the lease. A position never goes back: a report that arrives after
        a later one only renews the lease.
        """
        now = to_milliseconds(now)
        overtaken = {"$lt": [position, "$position"]}
        lease = {"$multiply": ["$lease_seconds", 1000]}
        change = {
            "stalled": {"$cond": [{"$gt": [position, "$position"]}, 0, "$stalled"]},
            "counts": {"$cond": [overtaken, "$counts", {"$literal": dict(counts)}]},
            "position": {"$max": [position, "$position"]},
            "total": "$total" if total is None else total,
            "free_at": {"$add": [now, lease]},
            "updated_at": now,
        }
        found = await self._jobs.find_one_and_update(
            _leased(job_id, lease_token), [{"$set": change}], return_document=ReturnDocument.AFTER
        )
        return found and job_from_document(found)

    async def complete(
        self, job_id: str, lease_token: str, result: Mapping[str, int], now: datetime
    ) -> JobRecord | None:
        """Complete a job; return None if the worker has lost the lease.

        A repeat changes nothing.
        """
        change = end_update("done", to_milliseconds(now)) | {"result": dict(result), "error": None}
        return await self._settle(job_id, lease_token, "complete", change)

    async def fail(
        self, job_id: str, lease_token: str, error: str, *, retry: bool, now: datetime
    ) -> JobRecord | None:
        """Fail an attempt: the job fails, or with `retry` is queued again.

        Returns as `complete`.
        """
        found = await self._jobs.find_one(_leased(job_id, lease_token))
        change = (
            failure_update(job_from_document(found), error, retry=retry, now=to_milliseconds(now))
            if found
            else {}
        )
        return await self._settle(job_id, lease_token, "fail", change)

    async def cancel(self, job_id: str, *, by: str, now: datetime) -> JobRecord | None:
        """Cancel a job unless it has ended, and return it; None if there is none."""

        async def record(session: Any) -> None:
            await self._audit.record(AuditEntry(by, "job.cancelled", job_id, now), session)

        is_open = {"_id": job_id, "status": {"$in": _OPEN}}
        cancelled = await self._end(is_open, end_update("cancelled", to_milliseconds(now)), record)
        return cancelled or await self.get(job_id)

    async def get(self, job_id: str) -> JobRecord | None:
        """Return the job, or None."""
        found = await self._jobs.find_one({"_id": job_id})
        return found and job_from_document(found)

    async def page(
        self,
        *,
        status: JobStatus | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Return up to `limit` jobs (of one status), newest first.

        They come after the cursor `before` of time and id.
        """
        query: Document = {"status": status} if status else {}
        jobs = newest_first(self._jobs, query, "submitted_at", before=before, limit=limit)
        return [job_from_document(found) async for found in jobs]

    async def _settle(
        self, job_id: str, lease_token: str, message: str, change: Document
    ) -> JobRecord | None:
        """Settle a lease by the last message of its worker.

        A message that has settled it before is found again.
        """
        settled = {"token": lease_token, "word": message}
        job = change and await self._end(_leased(job_id, lease_token), change | {"settled": settled})
        if job:
            return job
        found = await self._jobs.find_one({"_id": job_id, "settled": settled})
        return found and job_from_document(found)

    async def _end(
        self, query: Document, change: Document, then: Callable[[Any], Awaitable[None]] | None = None
    ) -> JobRecord | None:
        """Update the job that matches `query` and return it, or None.

        Photo ids are deleted when the job ends.
        """

        async def work(session: Any) -> JobRecord | None:
            found = await self._jobs.find_one_and_update(
                query, {"$set": change}, return_document=ReturnDocument.AFTER, session=session
            )
            if found is None:
                return None
            if found["finished_at"]:
                await self._photos.delete_one({"_id": found["_id"]}, session=session)
            if then:
                await then(session)
            return job_from_document(found)

        return await self._mongo.transact(work)


def _leased(job_id: str, lease_token: str) -> Document:
    return {"_id": job_id, "status": "claimed", "lease_token": lease_token}
