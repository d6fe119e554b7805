"""Workers claim, report and settle embedding jobs."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pymongo.errors import DuplicateKeyError

from broker_bridge.registry import Registry
from broker_bridge.registry.jobs.model import MAX_ATTEMPTS, ClaimRequest, JobClaim, JobOrder, JobRecord

NOW = datetime(2026, 1, 15, 10, 0, tzinfo=timezone.utc)
PHOTOS = ("photo_001", "photo_002", "photo_003")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job_order(submission_id: str | None = None, photo_ids: tuple[str, ...] = PHOTOS) -> JobOrder:
    return JobOrder("face_detect_embed", "alfred_catalog", photo_ids, submission_id=submission_id)


async def submit(registry: Registry, job_id: str, seconds: float = 0) -> JobRecord:
    submission = await registry.jobs.submit(job_id, job_order(), by="alfred", now=after(seconds))
    return submission.job


async def try_to_claim(registry: Registry, lease_token: str, seconds: float = 0) -> JobClaim | None:
    request = ClaimRequest("gpu-1", ["face_detect_embed"], 60, lease_token)
    return await registry.jobs.claim(request, after(seconds))


async def claim(registry: Registry, lease_token: str, seconds: float = 0) -> JobRecord:
    """Return the job that a worker claims."""
    found = await try_to_claim(registry, lease_token, seconds)
    assert found is not None
    return found.job


async def report(registry: Registry, lease_token: str, seconds: float, position: int, **counts: int) -> Any:
    return await registry.jobs.progress(
        "job-1", lease_token, position=position, total=None, counts=counts, now=after(seconds)
    )


async def test_a_claimed_job_is_what_was_submitted(registry: Registry) -> None:
    """The worker gets the photos in order; lists have only their number.

    Times have milliseconds.
    """
    now = NOW.replace(microsecond=123_456)
    submission = await registry.jobs.submit("job-1", job_order("night-7"), by="alfred", now=now)
    assert submission.outcome == "made"
    assert await registry.jobs.get("job-1") == submission.job == (await registry.jobs.page())[0]
    assert (submission.job.photo_count, submission.job.total, submission.job.position) == (3, 3, 0)
    assert submission.job.submitted_at == NOW.replace(microsecond=123_000)
    found = await try_to_claim(registry, "t-1", seconds=1)
    assert found is not None
    assert found.photo_ids == PHOTOS
    assert (found.job.status, found.job.attempt, found.job.lease_expires_at) == ("claimed", 1, after(61))


async def test_a_batch_has_an_id_instead_of_photos(registry: Registry) -> None:
    """The worker reports their number; an order needs exactly one of both."""
    batch = JobOrder("face_detect_embed", "alfred_catalog", batch_id="batch_2026_02_25")
    await registry.jobs.submit("job-1", batch, by="alfred", now=NOW)
    found = await try_to_claim(registry, "t-1")
    assert found is not None
    assert (found.photo_ids, found.job.batch_id, found.job.total) == (None, "batch_2026_02_25", None)
    job = await registry.jobs.progress("job-1", "t-1", position=1, total=40, counts={}, now=NOW)
    assert job is not None
    assert (job.position, job.total) == (1, 40)
    for both in ({"photo_ids": PHOTOS, "batch_id": "b"}, {}):
        with pytest.raises(ValueError, match="either photo_ids or a batch_id"):
            JobOrder("face_detect_embed", "alfred_catalog", **both)  # type: ignore[arg-type]


async def test_concurrent_workers_claim_different_jobs(registry: Registry) -> None:
    """Twenty concurrent claims of ten jobs return each job once."""
    for n in range(10):
        await submit(registry, f"job-{n}")
    claims = await asyncio.gather(*(try_to_claim(registry, f"t-{n}") for n in range(20)))
    claimed_ids = Counter(claim.job.job_id for claim in claims if claim)
    assert claimed_ids == {f"job-{n}": 1 for n in range(10)}


async def test_the_oldest_job_is_claimed_first(registry: Registry) -> None:
    """At the same time the lowest id is first; an expired lease counts too."""
    for job_id, seconds in (("job-3", 2), ("job-2", 1), ("job-1", 1), ("job-4", 3)):
        await submit(registry, job_id, seconds)
    first = [(await claim(registry, f"t-{n}", 10)).job_id for n in range(2)]
    assert first == ["job-1", "job-2"]
    later = [(await claim(registry, f"u-{n}", 70)).job_id for n in range(4)]
    assert later == ["job-1", "job-2", "job-3", "job-4"]
    assert await try_to_claim(registry, "v-1", 70) is None


async def test_the_job_of_a_dead_worker_continues_at_its_position(registry: Registry) -> None:
    """It is another attempt with the reported counts, once the lease has expired."""
    await submit(registry, "job-1")
    await claim(registry, "t-1")
    await report(registry, "t-1", 30, position=2, faces=5)
    assert await try_to_claim(registry, "t-2", 89.999) is None
    second_claim = await claim(registry, "t-2", 90)
    assert (second_claim.position, second_claim.counts, second_claim.attempt) == (2, {"faces": 5}, 2)


async def test_a_worker_without_the_lease_changes_nothing(registry: Registry) -> None:
    """Progress, result and failure are refused; the new attempt stays as it is."""
    await submit(registry, "job-1")
    await claim(registry, "t-1")
    current = await claim(registry, "t-2", 60)
    assert await report(registry, "t-1", 61, position=3) is None
    assert await registry.jobs.complete("job-1", "t-1", {"faces": 1}, after(61)) is None
    assert await registry.jobs.fail("job-1", "t-1", "no", retry=True, now=after(61)) is None
    assert await registry.jobs.get("job-1") == current


async def test_a_slow_worker_keeps_an_unclaimed_job(registry: Registry) -> None:
    """The lease has expired, but no other worker has claimed the job."""
    await submit(registry, "job-1")
    await claim(registry, "t-1")
    job = await report(registry, "t-1", 600, position=1)
    assert job.lease_expires_at == after(660)
    assert await try_to_claim(registry, "t-2", 659) is None


async def test_a_position_never_goes_back(registry: Registry) -> None:
    """A report that arrives after a later one only renews the lease."""
    await submit(registry, "job-1")
    await claim(registry, "t-1")
    await report(registry, "t-1", 1, position=2, faces=7)
    job = await report(registry, "t-1", 2, position=1, faces=3)
    assert (job.position, job.counts, job.lease_expires_at) == (2, {"faces": 7}, after(62))


async def test_a_job_fails_after_five_leases_without_progress(registry: Registry) -> None:
    """The fifth expired lease in a row is the last."""
    await submit(registry, "job-1")
    for n in range(MAX_ATTEMPTS):
        job = await claim(registry, f"t-{n}", 60 * n)
        assert (job.attempt, job.stalled) == (n + 1, n + 1)
    assert await try_to_claim(registry, "t-9", 60 * MAX_ATTEMPTS) is None
    found = await registry.jobs.get("job-1")
    assert found is not None
    assert (found.status, found.finished_at) == ("failed", after(300))
    assert found.error == "the lease expired, and 5 attempts in a row made no progress"
    assert await report(registry, "t-4", 301, position=1) is None


async def test_progress_resets_the_count_of_failed_attempts(registry: Registry) -> None:
    """A long job survives any number of workers."""
    await submit(registry, "job-1")
    for n in range(3 * MAX_ATTEMPTS):
        job = await claim(registry, f"t-{n}", 100 * n)
        await report(registry, f"t-{n}", 100 * n + 1, position=job.position + 1)
    job = await claim(registry, "t-x", 100 * 3 * MAX_ATTEMPTS)
    assert (job.attempt, job.position, job.stalled) == (16, 15, 1)


async def test_the_pause_after_a_failure_doubles(registry: Registry) -> None:
    """It begins with half a minute; the fifth failure is final."""
    await submit(registry, "job-1")
    seconds, pauses = 0.0, []
    for n in range(MAX_ATTEMPTS):
        await claim(registry, f"t-{n}", seconds)
        job = await registry.jobs.fail("job-1", f"t-{n}", "catalog away", retry=True, now=after(seconds))
        assert job is not None
        if job.not_before is None:
            break
        pauses.append((job.not_before - after(seconds)).total_seconds())
        seconds += pauses[-1]
        assert await try_to_claim(registry, "t-x", seconds - 0.001) is None
    assert pauses == [30, 60, 120, 240]
    assert (job.status, job.error, job.attempt) == ("failed", "catalog away", 5)


async def test_the_last_message_of_a_lease_can_be_repeated(registry: Registry) -> None:
    """The answer is the same; a different last message comes too late."""
    for job_id, token in (("job-1", "t-1"), ("job-2", "t-2")):
        await submit(registry, job_id)
        await claim(registry, token)
    done = await registry.jobs.complete("job-1", "t-1", {"faces": 5}, after(1))
    assert done is not None
    assert (done.status, done.result, done.finished_at) == ("done", {"faces": 5}, after(1))
    assert await registry.jobs.complete("job-1", "t-1", {"faces": 6}, after(2)) == done
    assert await registry.jobs.complete("job-1", "t-2", {"faces": 5}, after(2)) is None
    assert await registry.jobs.fail("job-1", "t-1", "no", retry=True, now=after(2)) is None
    failed = await registry.jobs.fail("job-2", "t-2", "no such batch", retry=False, now=after(1))
    assert failed is not None
    assert (failed.status, failed.error) == ("failed", "no such batch")
    assert await registry.jobs.fail("job-2", "t-2", "no such batch", retry=False, now=after(2)) == failed
    assert await registry.jobs.complete("job-2", "t-2", {}, after(2)) is None


async def test_a_repeated_failure_does_not_take_the_job_from_its_new_worker(registry: Registry) -> None:
    """The repeat returns the job as it is now."""
    await submit(registry, "job-1")
    await claim(registry, "t-1")
    await registry.jobs.fail("job-1", "t-1", "stopped", retry=True, now=NOW)
    current = await claim(registry, "t-2", 30)
    assert await registry.jobs.fail("job-1", "t-1", "stopped", retry=True, now=after(31)) == current
    done = await registry.jobs.complete("job-1", "t-2", {}, after(40))
    assert done is not None
    assert (done.status, done.error) == ("done", None)


async def test_a_repeated_submission_makes_one_job(registry: Registry) -> None:
    """Another order under the id is reported; each source has its own ids."""
    submissions = await asyncio.gather(
        *(registry.jobs.submit(f"job-{n}", job_order("night-7"), by="alfred", now=NOW) for n in range(10))
    )
    assert Counter(submission.outcome for submission in submissions) == {"made": 1, "repeated": 9}
    assert len({submission.job.job_id for submission in submissions}) == 1
    different = await registry.jobs.submit("job-x", job_order("night-7", ("p",)), by="alfred", now=NOW)
    assert different.outcome == "differs"
    berta = JobOrder("face_detect_embed", "berta", PHOTOS, submission_id="night-7")
    assert (await registry.jobs.submit("job-y", berta, by="berta", now=NOW)).outcome == "made"
    assert len(await registry.jobs.page()) == 2
    audited = [(entry.who, entry.what, entry.subject) for entry in await registry.audit.page()]
    job_id = submissions[0].job.job_id
    assert sorted(audited) == [("alfred", "job.submitted", job_id), ("berta", "job.submitted", "job-y")]


async def test_a_job_id_is_unique(registry: Registry) -> None:
    """An existing job id is not taken for a repeated submission."""
    await submit(registry, "job-1")
    with pytest.raises(DuplicateKeyError):
        await submit(registry, "job-1")


async def test_a_cancelled_job_cannot_be_claimed_or_continued(registry: Registry) -> None:
    """A finished job stays as it was; the audit entry has the author."""
    await submit(registry, "job-1")
    await submit(registry, "job-2", 1)
    await claim(registry, "t-1")
    for _ in range(2):
        job = await registry.jobs.cancel("job-1", by="ops", now=after(1))
        assert job is not None
        assert (job.status, job.finished_at, job.lease_expires_at) == ("cancelled", after(1), None)
    assert await report(registry, "t-1", 2, position=1) is None
    assert (await claim(registry, "t-2", 100)).job_id == "job-2"
    await registry.jobs.complete("job-2", "t-2", {}, after(101))
    over = await registry.jobs.cancel("job-2", by="ops", now=after(102))
    assert over is not None
    assert over.status == "done"
    assert await registry.jobs.cancel("job-9", by="ops", now=NOW) is None
    cancelled = [entry for entry in await registry.audit.page() if entry.what == "job.cancelled"]
    assert [(entry.who, entry.subject) for entry in cancelled] == [("ops", "job-1")]


async def test_photo_ids_are_deleted_when_the_job_ends(registry: Registry) -> None:
    """A job that is queued again keeps them."""
    for n in range(5):
        await submit(registry, f"job-{n}")
        await claim(registry, f"t-{n}", n)
    await registry.jobs.fail("job-0", "t-0", "stopped", retry=True, now=NOW)
    await registry.jobs.fail("job-1", "t-1", "no such photos", retry=False, now=NOW)
    await registry.jobs.complete("job-2", "t-2", {}, NOW)
    await registry.jobs.cancel("job-3", by="ops", now=NOW)
    await registry.mongo.db.jobs.update_one({"_id": "job-4"}, {"$set": {"stalled": MAX_ATTEMPTS}})
    assert (await claim(registry, "t-5", 100)).job_id == "job-0"
    statuses = [job.status for job in await registry.jobs.page()]
    assert statuses == ["failed", "cancelled", "done", "failed", "claimed"]
    kept = [
        (document["_id"], document["photo_ids"]) async for document in registry.mongo.db.job_photos.find()
    ]
    assert kept == [("job-0", list(PHOTOS))]


async def test_jobs_are_listed_newest_first_by_status(registry: Registry) -> None:
    """A cursor between two jobs of the same time works too."""
    for n in range(6):
        await submit(registry, f"job-{n}", n // 2)
    for n in range(2):
        await claim(registry, f"t-{n}", 10)
    newest = await registry.jobs.page(status="queued", limit=3)
    older = await registry.jobs.page(status="queued", before=(newest[-1].submitted_at, newest[-1].job_id))
    assert [job.job_id for job in newest + older] == ["job-5", "job-4", "job-3", "job-2"]
    assert [job.job_id for job in await registry.jobs.page(status="claimed")] == ["job-1", "job-0"]


async def test_queries_of_jobs_use_an_index(registry: Registry) -> None:
    """They read open jobs or one page; finished jobs expire."""
    for n in range(60):
        await submit(registry, f"job-{n:02}", n)
    await registry.mongo.db.jobs.update_many(
        {"submitted_at": {"$lt": after(57)}},
        {"$set": {"status": "done", "finished_at": NOW, "free_at": None}},
    )
    await registry.mongo.db.command("profile", 2)
    assert (await claim(registry, "t-1", 100)).job_id == "job-57"
    await registry.jobs.page(limit=5)
    await registry.jobs.page(status="queued", limit=5)
    await registry.mongo.db.command("profile", 0)
    profiled = registry.mongo.db["system.profile"].find({"ns": {"$regex": r"\.jobs$"}}).sort("ts")
    examined = [query["docsExamined"] async for query in profiled]
    assert examined == [0, 1, 5, 2], "to give up, to claim, two pages"
    indexes = await registry.mongo.db.jobs.index_information()
    expiry_seconds = [
        index["expireAfterSeconds"] for index in indexes.values() if "expireAfterSeconds" in index
    ]
    assert expiry_seconds == [90 * 86_400]
