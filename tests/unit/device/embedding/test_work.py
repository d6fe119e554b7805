"""A job turns photos into the registry's vectors, in order and without loss."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.spaces import SpaceRecord
from device.embedding.backend import EmbeddedFace, group_by_external_id
from device.embedding.bootstrap import open_worker
from device.embedding.error_text import to_error_text
from device.embedding.errors import AccessRefusedError, RequestRefusedError, ServiceUnavailableError
from device.embedding.progress import JobTally
from device.embedding.settings import WorkerSection
from device.vision.detectors.detector import FaceBox
from device.vision.inference.session import ModelError
from device.vision.photo_embedder import PhotoFace
from device.vision.photos.errors import PhotoError
from tests.embedding_backend import EmbeddingBackend
from tests.photo_catalog import PhotoCatalog
from tests.recording_server import Reply, Request
from tests.waiting import until

SOURCE = "alfred_catalog"


async def holds(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; a deadline fails it."""

    async def check() -> bool:
        return condition()

    await until(check)


def vector_of(data: bytes) -> bytes:
    """Return the same vector for the same photo."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    return normalise(np.random.default_rng(seed).normal(size=512), 512)


class FakeEmbedder:
    """Return the face, or the error, that the bytes of a photo name."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.before = threading.Event()
        self.before.set()

    def embed_photo(self, data: bytes, /) -> PhotoFace:
        self.before.wait(20)
        self.seen.append(data)
        if data.startswith(b"photo-"):
            raise PhotoError(data.decode(), "no good")
        if data == b"broken model":
            raise ModelError("the network fails on it")
        return PhotoFace(vector_of(data), 0.87654, FaceBox(0, 0, 10, 10))


RECORD = SpaceRecord(space="face:test-512", dimension=512, model_sha256="a" * 64, detector="cascade")


class Watcher:
    """Record the calls of a reporter."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def begin(self, job_id: str, position: int, total: int) -> None:
        self.reports.append((job_id, position, total))

    def photo_processed(self, tally: JobTally) -> None:
        pass

    def stored(self, position: int, total: int, tally: JobTally) -> None:
        self.reports.append((position, total, tally.faces))

    def end(self) -> None:
        self.reports.append("end")


@pytest.fixture
def catalog() -> Iterator[PhotoCatalog]:
    with PhotoCatalog() as server:
        yield server


@pytest.fixture
def backend() -> Iterator[EmbeddingBackend]:
    with EmbeddingBackend() as server:
        server.spaces[RECORD.space] = RECORD.model_dump()
        yield server


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def opened(catalog: PhotoCatalog, backend: EmbeddingBackend, embedder: FakeEmbedder, watcher: Watcher):
    """Return `opened(**settings)`, a worker that records its `pauses` without waiting."""

    @asynccontextmanager
    async def open_configured(*, once: bool = True, pauses: list[float] | None = None, **changed: Any):
        section = WorkerSection(
            **{
                "backend_url": backend.url,
                "backend_key": "worker-key",
                "catalog_url": catalog.url,
                "group_photos": 4,
                "timeout_seconds": 5,
                **changed,
            }
        )
        past = [0.0]

        async def sleep(seconds: float) -> None:
            past.append(past[-1] + seconds)
            if pauses is not None:
                pauses.append(seconds)
            await asyncio.sleep(0)

        async with open_worker(
            section, embedder, RECORD, watcher, once=once, sleep=sleep, clock=lambda: past[-1]
        ) as worker:
            yield worker

    return open_configured


def fill(catalog: PhotoCatalog, count: int) -> list[str]:
    """Add photos of three people in turn."""
    ids = [f"photo_{n:03}" for n in range(count)]
    for n, photo_id in enumerate(ids):
        catalog.add(photo_id, b"face of %d" % n, 40 + n % 3, f"Person {n % 3}")
    return ids


def everything(catalog: PhotoCatalog, ids: list[str]) -> dict[tuple[str, str], set[tuple[float, ...]]]:
    """Return the vectors that the registry must have in the end."""
    people: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    for photo_id in ids:
        photo = catalog.photos[photo_id]
        vector = tuple(np.frombuffer(vector_of(photo.data), "<f4").tolist())
        people.setdefault((SOURCE, str(photo.person_id)), set()).add(vector)
    return people


def stored_vectors(backend: EmbeddingBackend) -> dict[tuple[str, str], set[tuple[float, ...]]]:
    assert all(len(set(vectors)) == len(vectors) for vectors in backend.stored.values())
    return {person: set(vectors) for person, vectors in backend.stored.items()}


async def test_a_job_by_photo_ids_stores_the_vectors_of_every_identity(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any, watcher: Watcher
) -> None:
    """Vectors are grouped by identity in the seed's body, and the job gets its result."""
    ids = fill(catalog, 10)
    job = backend.submit(photo_ids=ids)
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert stored_vectors(backend) == everything(catalog, ids)
    assert backend.names == {(SOURCE, str(40 + n)): f"Person {n}" for n in range(3)}
    first = backend.bodies("ingest-embeddings")[0]
    assert (first["source_system"], first["space"]) == (SOURCE, "face:test-512")
    assert [set(person) for person in first["results"]] == [{"external_id", "name", "faces"}] * 3
    face = first["results"][0]["faces"][0]
    assert set(face) == {"embedding", "confidence"}
    assert (len(face["embedding"]), face["confidence"]) == (512, 0.8765)
    counts = {"photos": 10, "faces": 10, "embeddings_stored": 10}
    assert (job.status, job.position, job.total, job.result) == ("done", 10, 10, counts)
    assert watcher.reports == [("job-1", 0, 10), (4, 10, 4), (8, 10, 8), (10, 10, 10), "end"]
    assert worker.summary.document() == {
        "jobs_done": 1, "jobs_failed": 0, "jobs_lost": 0, "jobs_given_back": 0, **counts, "skipped": {},
    }  # fmt: skip


async def test_a_job_by_batch_fetches_only_photos_with_person_and_name(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """Other photos are counted, and their bytes are not requested."""
    ids = fill(catalog, 3)
    catalog.add("unknown", b"x", None, None)
    catalog.add("nameless", b"x", 7, None)
    catalog.add("blank", b"x", 7, "  ")
    catalog.batches["b1"] = ["unknown", *ids, "nameless", "blank"]
    job = backend.submit(batch_id="b1")
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert stored_vectors(backend) == everything(catalog, ids)
    assert sorted(catalog.files_sent()) == ids
    assert job.result == {"photos": 6, "faces": 3, "embeddings_stored": 3, "no-person": 1, "no-name": 2}


async def test_photos_without_a_vector_are_counted_by_reason(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The other photos are embedded."""
    ids = fill(catalog, 2)
    for n, code in enumerate(
        ["photo-no-face", "photo-several-faces", "photo-several-faces", "photo-invalid"]
    ):
        catalog.add(f"bad_{n}", code.encode())
    catalog.add("foreign", b"x", file_url="http://evil.example/x")
    catalog.add("strange", b"x", metadata=1, person_id={"$ne": 1})
    job = backend.submit(photo_ids=["gone", *catalog.photos])
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert stored_vectors(backend) == everything(catalog, ids)
    assert worker.summary.tally.skipped == {
        "photo-missing": 1, "photo-no-face": 1, "photo-several-faces": 2, "photo-invalid": 1,
        "url-foreign": 1, "metadata-invalid": 1,
    }  # fmt: skip
    assert (job.status, job.position) == ("done", 9)


async def test_at_most_four_photos_are_in_memory(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any, embedder: FakeEmbedder
) -> None:
    """The worker embeds one photo and prefetches three."""
    ids = fill(catalog, 12)
    backend.submit(photo_ids=ids)
    embedder.before.clear()
    async with opened(group_photos=12) as worker:
        run = asyncio.ensure_future(worker.process_jobs(once=True))
        await holds(lambda: len(catalog.files_sent()) >= 4)
        idle = await asyncio.wait({run}, timeout=0.1)
        assert idle == (set(), {run})
        assert sorted(catalog.files_sent()) == ids[:4]
        embedder.before.set()
        await run
    assert embedder.seen == [catalog.photos[photo_id].data for photo_id in ids]


async def test_a_position_is_reported_only_when_its_vectors_are_in_the_registry(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """A report of position n follows the storage of the first n vectors."""
    ids = fill(catalog, 10)
    backend.submit(photo_ids=ids)
    reported = []

    def check(request: Request) -> None:
        if request.path.endswith("/progress"):
            position = request.json()["position"]
            reported.append(position)
            wanted = everything(catalog, ids[:position])
            assert all(wanted[person] <= stored_vectors(backend)[person] for person in wanted)

    backend.before = check
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert reported == [4, 8, 10]


@pytest.mark.parametrize("path", ["ingest-embeddings", "/progress", "/complete"])
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_worker_that_dies_anywhere_loses_nothing_and_repeats_one_group(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any, path: str, nth: int
) -> None:
    """The worker ends between the backend's write and its answer."""
    ids = fill(catalog, 10)
    job = backend.submit(photo_ids=ids)
    dying = asyncio.Event()
    loop = asyncio.get_running_loop()
    seen = []

    def die(request: Request) -> Reply | None:
        if request.path.endswith(path):
            seen.append(request)
            if len(seen) == nth:
                backend.before = lambda _: None
                backend.answer(request)
                loop.call_soon_threadsafe(dying.set)
                # The worker that sent this request has ended.
                return Reply(204)
        return None

    backend.before = die
    async with opened() as worker:
        run = asyncio.ensure_future(worker._create_work(await worker._backend.claim()).process_job())
        died = asyncio.ensure_future(dying.wait())
        await asyncio.wait({run, died}, return_when=asyncio.FIRST_COMPLETED)
        run.cancel()
        died.cancel()
        await asyncio.wait({run})
    if job.status != "done":
        backend.expire(job)
    catalog.requests.clear()
    position = job.position
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert stored_vectors(backend) == everything(catalog, ids)
    assert job.status == "done"
    assert position >= 4 * (nth - 1) or path == "/complete"
    assert not set(catalog.files_sent()) & set(ids[:position])


async def test_counts_of_earlier_attempts_are_kept(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The job's result covers all its photos, the summary those of this worker."""
    ids = fill(catalog, 6)
    job = backend.submit(photo_ids=ids)
    job.position, job.total = 4, 6
    job.counts = {"photos": 4, "faces": 3, "embeddings_stored": 3, "photo-no-face": 1}
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert job.result == {"photos": 6, "faces": 5, "embeddings_stored": 5, "photo-no-face": 1}
    assert job.counts == job.result
    assert worker.summary.tally.photos == 2


async def test_a_changed_batch_starts_again_at_its_first_photo(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The new length is reported only past the old position."""
    ids = fill(catalog, 11)
    catalog.batches["b"] = ids
    job = backend.submit(batch_id="b")
    job.position, job.total, job.counts = 6, 10, {"photos": 6, "faces": 6}
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert stored_vectors(backend) == everything(catalog, ids)
    assert [body["total"] for body in backend.bodies("/progress")] == [None, 11, 11]
    assert job.result["photos"] == 11


async def test_a_lost_lease_ends_the_job_and_not_the_worker(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The next job is processed; the lost one is not touched again."""
    lost, other = backend.submit(photo_ids=fill(catalog, 8)), backend.submit(photo_ids=["photo_000"])

    def take_away(request: Request) -> None:
        if request.path.endswith("ingest-embeddings"):
            lost.token, lost.status = "another worker's", "claimed"
            backend.before = lambda _: None

    backend.before = take_away
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (lost.status, lost.position, other.status) == ("claimed", 0, "done")
    assert (worker.summary.jobs_lost, worker.summary.jobs_done, worker.summary.is_clean) == (1, 1, False)


async def test_the_lease_is_kept_alive_during_a_long_photo(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any, embedder: FakeEmbedder
) -> None:
    """The position is renewed three times per lease; a lost lease ends the job."""
    job = backend.submit(photo_ids=fill(catalog, 2))
    embedder.before.clear()
    async with opened() as worker:
        work = worker._create_work(await worker._backend.claim())
        work._lease_seconds = 0.03
        run = asyncio.ensure_future(work.process_job())
        await holds(lambda: len(backend.bodies("/progress")) >= 3)
        assert {body["position"] for body in backend.bodies("/progress")} == {0}
        assert not run.done()
        backend.expire(job)
        with pytest.raises(Exception, match="409: the lease is another worker's"):
            await run
        embedder.before.set()


async def test_a_refused_identity_does_not_affect_the_others(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The worker sends each identity alone and counts the refused one."""
    ids = fill(catalog, 6)
    backend.refused_ids = {"41"}
    job = backend.submit(photo_ids=ids)
    async with opened() as worker:
        await worker.process_jobs(once=True)
    wanted = everything(catalog, ids)
    del wanted[SOURCE, "41"]
    assert stored_vectors(backend) == wanted
    assert (job.status, job.result["person-refused"]) == ("done", 2)


async def test_a_job_without_an_accepted_identity_fails(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The error is the backend's sentence."""
    backend.refused_ids = {"40", "41", "42"}
    job = backend.submit(photo_ids=fill(catalog, 6))
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (job.status, job.retry) == ("failed", False)
    assert job.error.endswith("422: results.0.name: looks like a picture")
    assert not worker.summary.is_clean


async def test_refused_identities_are_counted_with_the_last_reason(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The backend's answer lists them."""
    job = backend.submit(photo_ids=fill(catalog, 3))
    unknown = {"index": 0, "code": "space-unknown", "detail": "there is no such space"}
    answer = {"identities_resolved": 0, "embeddings_stored": 0, "errors": [unknown] * 3, "error_count": 3}
    backend.before = lambda r: Reply.of(answer) if r.path.endswith("ingest-embeddings") else None
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert worker.summary.tally.skipped == {"person-refused": 3}
    assert (job.status, job.retry) == ("failed", False)
    assert job.error == "the backend accepted no identity: space-unknown: there is no such space"


async def test_a_backend_without_the_route_refuses_no_identity(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The job is left to another attempt."""
    job = backend.submit(photo_ids=fill(catalog, 6))
    backend.before = lambda r: Reply(404) if r.path.endswith("ingest-embeddings") else None
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (job.status, job.retry, job.position) == ("failed", True, 0)
    assert "person-refused" not in worker.summary.tally.skipped
    assert len(backend.bodies("ingest-embeddings")) == 1


async def test_an_unavailable_backend_is_retried(
    catalog: PhotoCatalog,
    backend: EmbeddingBackend,
    opened: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pauses grow with jitter to a minute; the log has a line at start and end."""
    ids = fill(catalog, 4)
    job = backend.submit(photo_ids=ids)
    away = iter([Reply(503), Reply(502), Reply(500), Reply(429)] * 3)
    backend.before = lambda r: next(away, None) if r.path.endswith("ingest-embeddings") else None
    pauses: list[float] = []
    with caplog.at_level("INFO", "device.embedding.retrier"):
        async with opened(pauses=pauses) as worker:
            await worker.process_jobs(once=True)
    assert (job.status, stored_vectors(backend)) == ("done", everything(catalog, ids))
    assert len(pauses) == 12
    assert all(1 <= pause <= min(60, 2**n) for n, pause in enumerate(pauses, 1))
    assert len(set(pauses)) == 12
    lines = [record.levelname for record in caplog.records if record.name == "device.embedding.retrier"]
    assert lines == ["WARNING", "INFO"]


async def test_once_gives_up_on_an_unavailable_backend(backend: EmbeddingBackend, opened: Any) -> None:
    """The timer that starts the worker gets the error."""
    backend.before = lambda _: Reply(503)
    async with opened(patience_seconds=300) as worker:
        with pytest.raises(ServiceUnavailableError, match="503"):
            await worker.process_jobs(once=True)


async def test_an_unavailable_catalog_releases_the_job_at_its_position(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The position covers the vectors in the registry."""
    ids = fill(catalog, 8)
    catalog.overrides["/api/photos/photo_006/file"] = lambda _: Reply(503)
    job = backend.submit(photo_ids=ids)
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (job.status, job.retry, job.position) == ("failed", True, 4)
    assert "503" in job.error
    assert worker.summary.jobs_given_back == 1


async def test_a_catalog_that_fails_over_a_whole_group_fails_the_job(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """A single photo is skipped; a group is retried."""
    ids = fill(catalog, 8)
    first, second = backend.submit(photo_ids=ids[:5]), backend.submit(photo_ids=ids[4:])
    for photo_id in ids[3:]:
        catalog.overrides[f"/api/photos/{photo_id}/file"] = lambda _: Reply(500)
    del catalog.overrides["/api/photos/photo_004/file"]
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (first.status, first.result["photo-unavailable"]) == ("done", 1)
    assert (second.status, second.position) == ("done", 4)
    again = backend.submit(photo_ids=ids[5:])
    async with opened() as worker:
        await worker.process_jobs(once=True)
    assert (again.status, again.retry, again.position) == ("failed", True, 0)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_catalog_key_ends_the_program_and_releases_the_job(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any, status: int
) -> None:
    """No photo is skipped."""
    job = backend.submit(photo_ids=fill(catalog, 2))
    catalog.overrides["/api/photos/photo_001"] = lambda _: Reply(status)
    async with opened() as worker:
        with pytest.raises(AccessRefusedError, match="the catalog at"):
            await worker.process_jobs(once=True)
    assert (job.status, job.retry) == ("failed", True)


async def test_a_failing_model_ends_the_program_and_releases_the_job(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """Another worker may have a working model."""
    catalog.add("photo_000", b"broken model")
    job = backend.submit(photo_ids=["photo_000"])
    async with opened() as worker:
        with pytest.raises(ModelError):
            await worker.process_jobs(once=True)
    assert (job.status, job.retry, job.error) == ("failed", True, "the worker stopped (ModelError)")


@pytest.mark.parametrize(
    "config", [{}, {"photo_ids": ["a"], "batch_id": "b"}, {"photo_ids": [1]}, {"photo_ids": {}}]
)
async def test_an_unreadable_job_ends_the_program_with_a_sentence(
    backend: EmbeddingBackend, opened: Any, config: dict[str, Any]
) -> None:
    """The backend has another or a newer API."""
    backend.submit(**config)
    async with opened() as worker:
        with pytest.raises(RequestRefusedError, match="does not have the expected form"):
            await worker.process_jobs(once=True)


async def test_without_once_the_worker_polls_for_jobs(
    catalog: PhotoCatalog, backend: EmbeddingBackend, opened: Any
) -> None:
    """The pauses are around `poll_seconds`."""
    pauses: list[float] = []
    ids = fill(catalog, 2)
    async with opened(once=False, pauses=pauses, poll_seconds=8) as worker:
        run = asyncio.ensure_future(worker.process_jobs())
        await holds(lambda: len(pauses) >= 3)
        job = backend.submit(photo_ids=ids)
        await holds(lambda: job.status == "done")
        run.cancel()
        await asyncio.wait({run})
    assert all(6 <= pause <= 10 for pause in pauses)
    assert stored_vectors(backend) == everything(catalog, ids)


def test_an_identity_has_one_entry_with_the_latest_name() -> None:
    """Entries have the order of their first appearance."""
    a, b = vector_of(b"a"), vector_of(b"b")
    faces = [
        EmbeddedFace("2", "Jane", a, 0.5),
        EmbeddedFace("1", "John", a, 0.6),
        EmbeddedFace("2", "Jane Doe", b, 0.7),
    ]
    people = group_by_external_id(faces)
    assert [(p["external_id"], p["name"], len(p["faces"])) for p in people] == [
        ("2", "Jane Doe", 2),
        ("1", "John", 1),
    ]
    assert normalise(json.loads(json.dumps(people))[0]["faces"][1]["embedding"], 512) == b


def test_an_error_is_sent_in_the_form_of_the_backend() -> None:
    """One line of at most 500 characters without picture data."""
    text = to_error_text("first\nsecond\t" + "A" * 5000 + " data:image/png \x00 " + "word " * 500)
    assert text.startswith("first second AAA")
    assert len(text) <= 500
    assert max(map(len, text.split())) <= 128
    assert "data:" not in text
    assert text.isprintable()
