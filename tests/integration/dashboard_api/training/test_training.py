"""The queue of embedding jobs: sources submit, workers claim and report."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from broker_bridge.registry.jobs.model import MAX_ATTEMPTS
from tests.integration.dashboard_api.conftest import NOW, Clock, client_of, is_problem

SUBMIT = "/api/training/submit"
CLAIM = "/api/training/claim"
JOBS = "/api/training/jobs"
CONFIG = {"source_system": "alfred_catalog", "photo_ids": ["photo_001", "photo_002"]}
ORDER = {"job_type": "face_detect_embed", "config": CONFIG}
WORKER = {"worker_id": "gpu-1", "job_types": ["face_detect_embed"], "lease_seconds": 60}


@pytest.fixture
async def source(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the key of a source, which workers use too."""
    async with client_of(app, "source") as client:
        yield client


async def submit(client: httpx.AsyncClient, **changed: Any) -> str:
    answer = await client.post(SUBMIT, json=ORDER | changed)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def claim(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post(CLAIM, json=WORKER)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


async def report(client: httpx.AsyncClient, job: dict[str, Any], action: str, **more: Any) -> httpx.Response:
    """Send a report of a worker about its claimed job."""
    return await client.post(
        f"{JOBS}/{job['job_id']}/{action}", json={"lease_token": job["lease_token"], **more}
    )


async def post_text(client: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
    r"""Send a body with \u escapes, the only way to send half a surrogate pair."""
    return await client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


async def test_a_job_runs_from_submission_to_completion(source: httpx.AsyncClient, clock: Clock) -> None:
    """The fields are those of seed 001, with the lease and retry times."""
    answer = await source.post(SUBMIT, json=ORDER)
    submission = answer.json()
    assert answer.status_code == 201
    assert (submission["success"], submission["status"], submission["submitted_by"]) == (
        True,
        "queued",
        "source",
    )
    assert (submission["photo_count"], submission["not_before"]) == (2, "2026-01-15T10:00:00.000Z")
    job = await claim(source)
    token = job.pop("lease_token")
    assert len(token) == 32
    assert job == {
        "job_id": submission["job_id"], "job_type": "face_detect_embed", "config": CONFIG, "position": 0,
        "total": 2, "counts": {}, "attempt": 1, "lease_expires_at": "2026-01-15T10:01:00.000Z",
    }  # fmt: skip
    job["lease_token"] = token
    clock.now = NOW + timedelta(seconds=50)
    progress = await report(
        source, job, "progress", position=1, total=2, counts={"faces": 1, "photo-no-face": 0}
    )
    assert progress.status_code == 200
    assert progress.json()["lease_expires_at"] == "2026-01-15T10:01:50.000Z"
    done = await report(source, job, "complete", result={"faces": 2, "people": 1})
    assert (done.json()["success"], done.json()["status"]) == (True, "done")
    assert (await report(source, job, "complete", result={"faces": 2})).json() == done.json()
    shown = (await source.get(f"{JOBS}/{submission['job_id']}")).json()
    assert shown | {"success": True} == done.json()
    assert (shown["result"], shown["finished_at"]) == ({"faces": 2, "people": 1}, "2026-01-15T10:00:50.000Z")
    nothing = await source.post(CLAIM, json=WORKER)
    assert (nothing.status_code, nothing.content) == (204, b"")


async def test_a_batch_is_claimed_as_it_was_submitted(source: httpx.AsyncClient) -> None:
    """The catalog knows the photos of a batch."""
    config = {"source_system": "alfred_catalog", "batch_id": "batch_2026_02_25"}
    await submit(source, config=config)
    assert (await claim(source))["config"] == config


async def test_only_the_worker_gets_the_lease_and_the_photos(source: httpx.AsyncClient) -> None:
    """A list of jobs would contain millions of photo ids and the lease tokens."""
    job_id = await submit(source)
    job = await claim(source)
    for answer in (
        await source.get(f"{JOBS}/{job_id}"),
        await source.get(JOBS),
        await report(source, job, "progress", position=1),
    ):
        assert job["lease_token"] not in answer.text
        assert "photo_001" not in answer.text


async def test_many_workers_share_the_jobs(source: httpx.AsyncClient) -> None:
    """Of twenty workers ten get a job each, ten get none."""
    submitted = [await submit(source) for _ in range(10)]
    answers = await asyncio.gather(*(source.post(CLAIM, json=WORKER) for _ in range(20)))
    claimed = [answer.json()["job_id"] for answer in answers if answer.status_code == 200]
    assert sorted(claimed) == sorted(submitted)
    assert {answer.status_code for answer in answers} == {200, 204}


async def test_a_dead_workers_job_goes_to_another(source: httpx.AsyncClient, clock: Clock) -> None:
    """It continues at the reported position; the first worker gets 409."""
    await submit(source)
    first = await claim(source)
    await report(source, first, "progress", position=1, counts={"faces": 1})
    clock.now = NOW + timedelta(seconds=60)
    second = await claim(source)
    assert (second["job_id"], second["position"], second["attempt"]) == (first["job_id"], 1, 2)
    assert second["counts"] == {"faces": 1}
    for action, more in (
        ("progress", {"position": 2}), ("complete", {}), ("fail", {"error": "catalog away", "retry": True}),
    ):  # fmt: skip
        is_problem(await report(source, first, action, **more), 409, "lease-lost")
    assert (await report(source, second, "complete", result={})).status_code == 200
    clock.now = NOW + timedelta(days=1)
    assert (await source.post(CLAIM, json=WORKER)).status_code == 204


async def test_a_job_without_progress_fails(source: httpx.AsyncClient, clock: Clock) -> None:
    """Five workers in a row claimed it and never reported."""
    job_id = await submit(source)
    for n in range(MAX_ATTEMPTS):
        clock.now = NOW + timedelta(minutes=n)
        assert (await claim(source))["attempt"] == n + 1
    clock.now = NOW + timedelta(minutes=MAX_ATTEMPTS)
    assert (await source.post(CLAIM, json=WORKER)).status_code == 204
    shown = (await source.get(f"{JOBS}/{job_id}")).json()
    assert (shown["status"], shown["attempt"]) == ("failed", 5)
    assert "lease expired" in shown["error"]


async def test_a_failed_attempt_is_repeated_with_retry(source: httpx.AsyncClient, clock: Clock) -> None:
    """The job waits before the next attempt; without `retry` it ends."""
    job_id = await submit(source)
    put_back = (await report(source, await claim(source), "fail", error="catalog away", retry=True)).json()
    assert (put_back["status"], put_back["not_before"]) == ("queued", "2026-01-15T10:00:30.000Z")
    assert (await source.post(CLAIM, json=WORKER)).status_code == 204
    clock.now = NOW + timedelta(seconds=30)
    failed = await report(source, await claim(source), "fail", error="metadata: there is no such batch")
    assert (failed.json()["status"], failed.json()["error"]) == ("failed", "metadata: there is no such batch")
    clock.now = NOW + timedelta(days=1)
    assert (await source.post(CLAIM, json=WORKER)).status_code == 204
    assert (await source.get(f"{JOBS}/{job_id}")).json()["status"] == "failed"


async def test_a_submission_may_be_repeated(source: httpx.AsyncClient) -> None:
    """200 with the same job, also a finished one; another order is rejected."""
    job_id = await submit(source, submission_id="night-7")
    await report(source, await claim(source), "complete", result={"faces": 2})
    repeated = await source.post(SUBMIT, json={**ORDER, "submission_id": "night-7"})
    assert repeated.status_code == 200
    assert (repeated.json()["job_id"], repeated.json()["status"]) == (job_id, "done")
    changed = {**ORDER, "config": {**CONFIG, "photo_ids": ["photo_003"]}, "submission_id": "night-7"}
    is_problem(await source.post(SUBMIT, json=changed), 409, "submission-differs")
    assert len((await source.get(JOBS)).json()["items"]) == 1
    assert await submit(source) != await submit(source)


async def test_a_cancelled_job_is_taken_from_its_worker(api: httpx.AsyncClient) -> None:
    """Its next report gets 409. A finished job cannot be cancelled."""
    job_id = await submit(api)
    job = await claim(api)
    for _ in range(2):
        answer = await api.post(f"{JOBS}/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    problem = is_problem(await report(api, job, "progress", position=1), 409, "lease-lost")
    assert problem["detail"].endswith("the job is cancelled")
    await submit(api)
    done = await claim(api)
    await report(api, done, "complete")
    is_problem(await api.post(f"{JOBS}/{done['job_id']}/cancel"), 409, "job-finished")
    audit = (await api.get("/api/v1/audit")).json()["items"]
    assert [item["what"] for item in audit].count("job.cancelled") == 1
    assert "photo_001" not in json.dumps(audit)


async def test_jobs_are_listed_newest_first_by_status(api: httpx.AsyncClient, clock: Clock) -> None:
    """Pages neither skip nor repeat jobs of the same instant."""
    job_ids = []
    for n in range(4):
        clock.now = NOW + timedelta(seconds=n // 2)
        job_ids.append(await submit(api))
    oldest = (await claim(api))["job_id"]
    listed: list[str] = []
    params: dict[str, Any] = {"status": "queued", "limit": 1}
    while True:
        page = (await api.get(JOBS, params=params)).json()
        listed += [item["job_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert [*listed, oldest] == sorted(job_ids[2:], reverse=True) + sorted(job_ids[:2], reverse=True)


async def test_a_job_has_at_most_a_hundred_thousand_photos(
    registry: Registry, api: httpx.AsyncClient
) -> None:
    """Their ids come back in order; one more is rejected."""
    photos = [f"{n:x}" for n in range(100_001)]
    is_problem(
        await api.post(SUBMIT, json={**ORDER, "config": {**CONFIG, "photo_ids": photos}}),
        422,
        "request-invalid",
    )
    await submit(api, config={**CONFIG, "photo_ids": photos[:-1]})
    assert (await claim(api))["config"]["photo_ids"] == photos[:-1]


def with_config(**changed: Any) -> dict[str, Any]:
    config = {key: value for key, value in (CONFIG | changed).items() if value is not ...}
    return {**ORDER, "config": config}


BAD_IDS = [
    "", "a/b", "a\\b", "..", ".", "a\0b", "a\n", "\u0430bc", "\ud800", "x" * 256, "x" * 500_000,
    "http://alfred/p.jpg", "data:,abc", "DATA:image;base64,abc", {"$gt": ""}, ["a"], 7, None, True,
]  # fmt: skip
BAD_ORDERS = [
    *[with_config(photo_ids=["photo_001", bad]) for bad in BAD_IDS],
    *[with_config(photo_ids=..., batch_id=bad) for bad in BAD_IDS],
    *[with_config(source_system=bad) for bad in ("", "x" * 51, "a b", "a/b", "$where", {"$ne": 1}, None, 7)],
    with_config(batch_id="batch_1"),
    with_config(photo_ids=...),
    with_config(photo_ids=[]),
    with_config(photo_ids=["a", "b", "a"]),
    with_config(photo_ids="photo_001"),
    with_config(photo_ids={"$where": "1"}),
    with_config(url="alfred"),
    with_config(image="iVBORw0KGgo"),
    {**ORDER, "photo": "x"},
    {**ORDER, "job_type": "mine_bitcoin"},
    {**ORDER, "job_type": {"$ne": ""}},
    {**ORDER, "config": [CONFIG]},
    {**ORDER, "submission_id": {"$gt": ""}},
    {**ORDER, "submission_id": "a/b"},
    {**ORDER, "submission_id": ""},
    {"job_type": "face_detect_embed"},
    [ORDER],
]


async def test_an_invalid_job_is_rejected(source: httpx.AsyncClient, registry: Registry) -> None:
    """Paths, addresses, images, operators, look-alikes and endless lists."""
    for body in BAD_ORDERS:
        answer = await post_text(source, SUBMIT, body)
        assert answer.status_code == 422, repr(body)[:200]
        is_problem(answer, 422, "request-invalid")
        assert len(answer.text) < 2000
    assert await registry.mongo.db.jobs.count_documents({}) == 0
    assert await registry.mongo.db.audit.count_documents({}) == 0


LEASE = {"lease_token": "t"}
BAD_REPORTS: list[tuple[str, Any]] = [
    (CLAIM, {**WORKER, "lease_seconds": 9}),
    (CLAIM, {**WORKER, "lease_seconds": 3601}),
    (CLAIM, {**WORKER, "lease_seconds": 60.5}),
    (CLAIM, {**WORKER, "lease_seconds": True}),
    (CLAIM, {**WORKER, "job_types": []}),
    (CLAIM, {**WORKER, "job_types": ["other"]}),
    (CLAIM, {**WORKER, "job_types": {"$exists": True}}),
    (CLAIM, {**WORKER, "worker_id": "a b"}),
    (CLAIM, {**WORKER, "worker_id": {"$gt": ""}}),
    (CLAIM, {**WORKER, "hostname": "x"}),
    ("progress", {**LEASE, "position": -1}),
    ("progress", {**LEASE, "position": 2**63}),
    ("progress", {**LEASE, "position": "1"}),
    ("progress", {**LEASE, "position": {"$inc": 1}}),
    ("progress", {**LEASE, "position": 2, "total": 1}),
    ("progress", {"lease_token": {"$ne": ""}, "position": 1}),
    ("progress", {"lease_token": ["t"], "position": 1}),
    ("progress", {"position": 1}),
    ("progress", {**LEASE, "position": 1, "counts": {"faces": 1.5}}),
    ("progress", {**LEASE, "position": 1, "counts": {"faces": "many"}}),
    ("progress", {**LEASE, "position": 1, "counts": {"faces": -1}}),
    ("progress", {**LEASE, "position": 1, "counts": {"$set": 1}}),
    ("progress", {**LEASE, "position": 1, "counts": {"a.b": 1}}),
    ("progress", {**LEASE, "position": 1, "counts": {"a\0": 1}}),
    ("progress", {**LEASE, "position": 1, "counts": {f"a{n}": 1 for n in range(65)}}),
    ("complete", {**LEASE, "result": {"embedding": [0.1, 0.2]}}),
    ("complete", {**LEASE, "result": {"photo": "iVBORw0KGgo"}}),
    ("complete", {**LEASE, "result": {"faces": {"n": 1}}}),
    ("complete", {**LEASE, "result": [1]}),
    ("complete", {**LEASE, "thumbnail": "x"}),
    ("fail", {**LEASE, "error": ""}),
    ("fail", {**LEASE, "error": "x" * 501}),
    ("fail", {**LEASE, "error": "two\nlines"}),
    ("fail", {**LEASE, "error": "two\u2028lines"}),
    ("fail", {**LEASE, "error": "\ud800"}),
    ("fail", {**LEASE, "error": "the photo was " + "iVBORw0KGgo" * 12}),
    ("fail", {**LEASE, "error": "see data:image/png;base64,iVBOR"}),
    ("fail", {**LEASE, "error": {"$gt": ""}}),
    ("fail", {**LEASE, "error": "no", "retry": "yes"}),
    ("fail", {**LEASE}),
]


async def test_an_invalid_report_changes_nothing(source: httpx.AsyncClient, registry: Registry) -> None:
    """A report has numbers and one sentence; no operator reaches the registry."""
    waiting, job = await submit(source), await claim(source)
    before = await registry.jobs.get(waiting)
    await submit(source)
    for action, body in BAD_REPORTS:
        # The lease is valid, so that an accepted report would change the job.
        token = {"lease_token": job["lease_token"]} if body.get("lease_token") == "t" else {}
        answer = await post_text(
            source, action if action == CLAIM else f"{JOBS}/{waiting}/{action}", body | token
        )
        assert answer.status_code == 422, repr((action, body))[:200]
        is_problem(answer, 422, "request-invalid")
    assert await registry.jobs.get(waiting) == before
    assert sorted(item.status for item in await registry.jobs.page()) == ["claimed", "queued"]


async def test_reports_about_an_unknown_job_are_rejected(api: httpx.AsyncClient) -> None:
    """The answer is a 404; an invalid id is reported as such."""
    bodies = {"progress": {"position": 1}, "complete": {}, "fail": {"error": "no"}, "cancel": None}
    for job_id, status, code in (("job-404", 404, "not-found"), ("job$ne", 422, "request-invalid")):
        is_problem(await api.get(f"{JOBS}/{job_id}"), status, code)
        for action, body in bodies.items():
            sent = None if body is None else LEASE | body
            is_problem(await api.post(f"{JOBS}/{job_id}/{action}", json=sent), status, code)


async def test_an_invalid_filter_is_rejected(api: httpx.AsyncClient) -> None:
    """Unknown states, operators, foreign cursors."""
    for query in ("status=lost", "status=%7B%22%24ne%22%3A1%7D", "limit=0"):
        is_problem(await api.get(f"{JOBS}?{query}"), 422, "request-invalid")
    for query in ("cursor=%21", "cursor=YQBi"):
        is_problem(await api.get(f"{JOBS}?{query}"), 422, "cursor-invalid")


async def test_a_body_of_another_type_is_rejected(source: httpx.AsyncClient, registry: Registry) -> None:
    """A page of another origin could send a form from a browser."""
    for path in (SUBMIT, CLAIM, f"{JOBS}/job-1/complete"):
        answer = await source.post(path, content=json.dumps(ORDER), headers={"content-type": "text/plain"})
        is_problem(answer, 415, "media-type-unsupported")
    assert await registry.mongo.db.jobs.count_documents({}) == 0


MAY = {
    "admin": {"submit", "claim", "progress", "list", "show", "cancel"},
    "operator": {"submit", "list", "show", "cancel"},
    "source": {"submit", "claim", "progress", "list", "show"},
    "viewer": {"list", "show"},
    "edge": set(),
    None: set(),
}


@pytest.mark.parametrize("role", MAY)
async def test_each_role_has_its_rights(app: FastAPI, role: str | None) -> None:
    """Sources submit and work, operators submit and cancel, viewers read."""
    passed = set()
    async with client_of(app, role) as client, client_of(app, "admin") as admin:
        job_id = await submit(admin)
        job = await claim(admin)
        await submit(admin)
        for act, answer in {
            "submit": await client.post(SUBMIT, json=ORDER),
            "claim": await client.post(CLAIM, json=WORKER),
            "progress": await report(client, job, "progress", position=1),
            "list": await client.get(JOBS),
            "show": await client.get(f"{JOBS}/{job_id}"),
            "cancel": await client.post(f"{JOBS}/{job_id}/cancel"),
        }.items():
            if answer.status_code < 300:
                passed.add(act)
            else:
                is_problem(answer, *((403, "role-insufficient") if role else (401, "key-missing")))
    assert passed == MAY[role]


async def test_the_documentation_describes_the_queue(api: httpx.AsyncClient) -> None:
    """It has every path, the answer without a job, and the lost lease."""
    paths = (await api.get("/openapi.json")).json()["paths"]
    action_paths = {f"{JOBS}/{{job_id}}/{action}" for action in ("progress", "complete", "fail", "cancel")}
    assert {SUBMIT, CLAIM, JOBS, f"{JOBS}/{{job_id}}"} | action_paths <= set(paths)
    assert {"200", "204"} <= set(paths[CLAIM]["post"]["responses"])
    assert "409" in paths[f"{JOBS}/{{job_id}}/progress"]["post"]["responses"]


async def test_a_job_body_may_be_larger_than_others(api: httpx.AsyncClient) -> None:
    """A hundred thousand ids fit."""
    config = {"source_system": "catalog", "photo_ids": [f"photo_{n:08}" for n in range(100_000)]}
    body = {"job_type": "face_detect_embed", "config": config}
    answer = await api.post("/api/training/submit", json=body)
    assert answer.status_code == 201, answer.text
