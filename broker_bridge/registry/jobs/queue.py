"""Work for those who turn a catalog's photos into vectors: jobs that are queued, leased, and done once."""

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
    after_failure,
    job_of,
    over,
    queued,
)

_OPEN = ["queued", "claimed"]


class JobQueue:
    """Collections `jobs`, of which those that are over are forgotten after 90 days, and `job_photos`.

    The photo ids, up to 100,000, lie apart: a report of progress would write them all again. They are gone as
    soon as the job is over.

    Whoever shows a job's current `lease_token` has it. A lease that has run out but was taken by nobody can
    still be used: its worker was slow, not dead.
    """

    def __init__(self, mongo: Mongo, audit: Audit) -> None:
        self._mongo = mongo
        self._jobs = mongo.db.jobs
        self._photos = mongo.db.job_photos
        self._audit = audit

    async def submit(self, job_id: str, order: JobOrder, *, who: str, now: datetime) -> Submission:
        """Queue `order` as `job_id`, or find the job that its submission id has made before."""
        now = to_milliseconds(now)
        document = queued(job_id, order, who, now)

        async def work(session: Any) -> None:
            await self._jobs.insert_one(document, session=session)
            if order.photo_ids is not None:
                photos = {"_id": job_id, "photo_ids": list(order.photo_ids)}
                await self._photos.insert_one(photos, session=session)
            after = {key: document[key] for key in ("job_type", "source_system", "batch_id", "photo_count")}
            await self._audit.record(AuditEntry(who, "job.submitted", job_id, now, after=after), session)

        try:
            await self._mongo.transact(work)
        except DuplicateKeyError:
            key = {"source_system": order.source_system, "submission_id": order.submission_id}
            earlier = order.submission_id and await self._jobs.find_one(key)
            if not earlier:
                raise
            same = earlier["order_digest"] == order.digest
            return Submission(job_of(earlier), "repeated" if same else "differs")
        return Submission(job_of(document), "made")

    async def claim(self, request: ClaimRequest, now: datetime) -> JobClaim | None:
        """The oldest job that nobody has, now leased to this worker alone, or None."""
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
        job = job_of(found)
        if job.photo_count is None:
            return JobClaim(job, None)
        photos = await self._photos.find_one({"_id": job.job_id})
        # Without them the job was cancelled at this very moment.
        return JobClaim(job, tuple(photos["photo_ids"])) if photos else None

    async def _give_up(self, now: datetime) -> None:
        """Fail what was in enough workers' hands, none of whom got any further or said why."""
        error = f"the lease expired, and {MAX_ATTEMPTS} attempts in a row got no further"
        stuck = {"status": "claimed", "free_at": {"$lte": now}, "stalled": {"$gte": MAX_ATTEMPTS}}
        for one in [found async for found in self._jobs.find(stuck, {"_id": 1})]:
            await self._end(stuck | one, over("failed", now) | {"error": error})

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
        """Note how far a worker is, and begin its lease anew; None if the lease is not its own any more.

        A position never goes back: a report that was overtaken on its way changes no more than the lease.
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
            _held(job_id, lease_token), [{"$set": change}], return_document=ReturnDocument.AFTER
        )
        return found and job_of(found)

    async def complete(
        self, job_id: str, lease_token: str, result: Mapping[str, int], now: datetime
    ) -> JobRecord | None:
        """End a job well; None if the lease is not the worker's. The same word again changes nothing."""
        change = over("done", to_milliseconds(now)) | {"result": dict(result), "error": None}
        return await self._settle(job_id, lease_token, "complete", change)

    async def fail(
        self, job_id: str, lease_token: str, error: str, *, retry: bool, now: datetime
    ) -> JobRecord | None:
        """End an attempt badly: the job is over, or with `retry` waits for another. None as for complete."""
        found = await self._jobs.find_one(_held(job_id, lease_token))
        change = after_failure(job_of(found), error, retry=retry, now=to_milliseconds(now)) if found else {}
        return await self._settle(job_id, lease_token, "fail", change)

    async def cancel(self, job_id: str, *, who: str, now: datetime) -> JobRecord | None:
        """The job, cancelled unless it was over before; None if there is none."""

        async def record(session: Any) -> None:
            await self._audit.record(AuditEntry(who, "job.cancelled", job_id, now), session)

        is_open = {"_id": job_id, "status": {"$in": _OPEN}}
        cancelled = await self._end(is_open, over("cancelled", to_milliseconds(now)), record)
        return cancelled or await self.get(job_id)

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, or None."""
        found = await self._jobs.find_one({"_id": job_id})
        return found and job_of(found)

    async def page(
        self,
        *,
        status: JobStatus | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Up to `limit` jobs (of one status), newest first, past the `before` cursor of time and id."""
        query: Document = {"status": status} if status else {}
        jobs = newest_first(self._jobs, query, "submitted_at", before=before, limit=limit)
        return [job_of(found) async for found in jobs]

    async def _settle(self, job_id: str, lease_token: str, word: str, change: Document) -> JobRecord | None:
        """Carry out a worker's last word on its lease, or find that it has been carried out before."""
        settled = {"token": lease_token, "word": word}
        job = change and await self._end(_held(job_id, lease_token), change | {"settled": settled})
        if job:
            return job
        found = await self._jobs.find_one({"_id": job_id, "settled": settled})
        return found and job_of(found)

    async def _end(
        self, query: Document, change: Document, then: Callable[[Any], Awaitable[None]] | None = None
    ) -> JobRecord | None:
        """Make `change` to the job of `query`, whose photo ids go when it is over; None if there is none."""

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
            return job_of(found)

        return await self._mongo.transact(work)


def _held(job_id: str, lease_token: str) -> Document:
    return {"_id": job_id, "status": "claimed", "lease_token": lease_token}
