"""`python -m device.embed_worker` works with real pictures and networks."""

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from broker_bridge.contract.default_space import DEFAULT_FACE_SPACE
from deploy.local.sample_video import IDENTITIES, enrollment_photo
from deploy.local.stack import Program
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from tests.conftest import StartProgram
from tests.embedding_backend import EmbeddingBackend
from tests.photo_catalog import PhotoCatalog
from tests.recording_server import Reply, Request

ARGS = [sys.executable, "-m", "device.embed_worker"]
Start = Callable[..., Program]


@pytest.fixture
def catalog() -> Iterator[PhotoCatalog]:
    """Return a catalog with two photos of each demo identity."""
    with PhotoCatalog() as server:
        server.key = "catalog-key"
        for n, row in enumerate(IDENTITIES.values()):
            for copy in range(2):
                # What follows the picture makes another file of it, not another face.
                server.add(f"photo_{n}{copy}", enrollment_photo(row) + b"\0" * copy, n, f"Person {n}")
        yield server


@pytest.fixture
def backend() -> Iterator[EmbeddingBackend]:
    with EmbeddingBackend() as server:
        server.spaces[DEFAULT_FACE_SPACE.space] = DEFAULT_FACE_SPACE.model_dump(mode="json")
        yield server


@pytest.fixture
def start(catalog: PhotoCatalog, backend: EmbeddingBackend, start_program: StartProgram) -> Start:
    def begin(*args: str, **changed: str) -> Program:
        settings = {
            "backend_url": backend.url,
            "backend_key": "worker-key",
            "catalog_url": catalog.url,
            "catalog_key": "catalog-key",
            "group_photos": "2",
            **changed,
        }
        env = {f"WFM_WORKER__{name.upper()}": value for name, value in settings.items()}
        return start_program([*ARGS, *args], env, name="worker")

    return begin


def test_the_vectors_equal_those_of_the_api(
    start: Start, catalog: PhotoCatalog, backend: EmbeddingBackend
) -> None:
    """--once ends with a summary; the log has progress and no name, key or address."""
    catalog.add("wall", b"no picture at all", 1, "Person 1")
    job = backend.submit(photo_ids=list(catalog.photos))
    program = start("--once", group_photos="5")
    assert program.wait(60) == 0
    *log, summary = program.output().splitlines()
    counts = {"photos": 13, "faces": 12, "embeddings_stored": 6}
    assert json.loads(summary) == {
        "jobs_done": 1, "jobs_failed": 0, "jobs_lost": 0, "jobs_given_back": 0, **counts,
        "skipped": {"photo-invalid": 1},
    }  # fmt: skip
    assert job.result == {**counts, "photo-invalid": 1}
    photos = PhotoEmbedder(load_detector(), load_embedder())
    for n, row in enumerate(IDENTITIES.values()):
        (vector,) = backend.stored["alfred_catalog", str(n)]
        expected = photos.embed_photo(enrollment_photo(row)).vector
        assert np.asarray(vector, "<f4").tobytes() == expected
    assert any("position=5 total=13" in line for line in log)
    log_text = "\n".join(log)
    assert [secret for secret in ("Person", "-key", "/api/photos") if secret in log_text] == []


def test_a_worker_that_is_killed_repeatedly_stores_every_vector_once(
    start: Start, catalog: PhotoCatalog, backend: EmbeddingBackend
) -> None:
    """The next worker continues after the vectors in the registry."""
    job = backend.submit(photo_ids=list(catalog.photos))
    random_moments = random.Random(11)
    for attempt in range(5):
        kill_at_request(start, backend, random_moments.randint(4, 6), taken=attempt % 2 == 0)
        assert job.status == "claimed"
        backend.expire(job)
    position = job.position
    catalog.requests.clear()
    assert start("--once").wait(60) == 0
    assert job.status == "done"
    assert set(catalog.files_sent()) == set(list(catalog.photos)[position:])
    assert {key: len(vectors) for key, vectors in backend.stored.items()} == {
        ("alfred_catalog", str(n)): 1 for n in range(len(IDENTITIES))
    }
    assert job.result["photos"] == 12


def kill_at_request(start: Start, backend: EmbeddingBackend, nth: int, *, taken: bool) -> None:
    """Kill a worker while it waits for the answer to its nth request.

    `taken` says whether the backend has processed that request.
    """
    arrived, killed = threading.Event(), threading.Event()
    count = iter(range(1, 1_000_000))

    def hold(request: Request) -> Reply | None:
        if next(count) != nth:
            return None
        backend.before = lambda _: None
        answer = backend.answer(request) if taken else Reply(503)
        arrived.set()
        killed.wait(20)
        return answer

    backend.before = hold
    program = start()
    assert arrived.wait(30)
    program.kill()
    killed.set()


def test_sigterm_ends_the_worker_within_seconds_and_releases_the_job(
    start: Start, catalog: PhotoCatalog, backend: EmbeddingBackend
) -> None:
    """Also while a photo is missing; reported progress stays."""
    job = backend.submit(photo_ids=list(catalog.photos))
    waiting, release = threading.Event(), threading.Event()

    def hold(photo_id: str) -> None:
        if photo_id == "photo_20":
            waiting.set()
            release.wait(30)

    catalog.before_file = hold
    program = start()
    assert waiting.wait(30)
    program.wait_until(lambda: job.position == 4, "report two groups", 20)
    started = time.monotonic()
    assert program.stop(10) == 0
    assert time.monotonic() - started < 5
    release.set()
    assert (job.status, job.retry, job.position) == ("failed", True, 4)
    assert "job released job_id=" in program.output()
    assert "Traceback" not in program.output()


def test_sigterm_ends_a_worker_without_a_job(start: Start, backend: EmbeddingBackend) -> None:
    """The worker polls for jobs."""
    program = start(poll_seconds="60")
    program.wait_until(lambda: bool(backend.requests), "ask for a job", 30)
    assert program.stop(10) == 0


@pytest.mark.parametrize("refusing", ["backend", "catalog"])
def test_a_rejected_key_is_one_sentence_and_status_2(
    start: Start, backend: EmbeddingBackend, refusing: str
) -> None:
    """The sentence names the server and not the key."""
    job = backend.submit(photo_ids=["photo_00"])
    program = start("--once", **{f"{refusing}_key": "a-wrong-key"})
    assert program.wait(30) == 2
    last_line = program.output().splitlines()[-1]
    assert f"the {refusing} at http://127.0.0.1" in last_line
    assert "rejects the worker's key (401)" in last_line
    assert "wrong-key" not in program.output()
    assert job.status == ("queued" if refusing == "backend" else "failed")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model_sha256": "0" * 64}, "000000000000... on record"),
        ({"dimension": 128}, "dimension 512 here, 128 on record"),
        ({"detector": "scrfd"}, "detector cascade here, scrfd on record"),
        (None, "the backend has no record of"),
    ],
)
def test_a_model_that_differs_from_the_record_sends_no_vector(
    start: Start, backend: EmbeddingBackend, changed: dict[str, Any] | None, words: str
) -> None:
    """The worker ends with a sentence and status 2 before it takes a job."""
    space = DEFAULT_FACE_SPACE.space
    backend.spaces = {space: backend.spaces[space] | changed} if changed else {}
    job = backend.submit(photo_ids=["photo_00"])
    program = start("--once")
    assert program.wait(30) == 2
    assert words in program.output().splitlines()[-1]
    assert (job.status, backend.stored) == ("queued", {})


def test_a_record_that_changes_between_jobs_releases_the_job(start: Start, backend: EmbeddingBackend) -> None:
    """Another worker, with the model on record, takes it."""
    job = backend.submit(photo_ids=["photo_00"])

    def change(request: Request) -> Reply | None:
        if request.path.endswith("/claim"):
            backend.spaces[DEFAULT_FACE_SPACE.space]["model_sha256"] = "0" * 64
        return None

    backend.before = change
    program = start("--once")
    assert program.wait(30) == 2
    assert (job.status, job.retry, backend.stored) == ("failed", True, {})
    assert "differs from the backend's record" in job.error


def test_a_job_that_fails_is_status_1_with_once(
    start: Start, catalog: PhotoCatalog, backend: EmbeddingBackend
) -> None:
    """The summary has the failed job."""
    catalog.overrides["/api/batches/b/photos"] = lambda _: Reply(404)
    job = backend.submit(batch_id="b")
    program = start("--once")
    assert program.wait(30) == 1
    assert json.loads(program.output().splitlines()[-1])["jobs_failed"] == 1
    assert (job.status, job.retry) == ("failed", False)


def test_missing_settings_and_models_are_a_sentence_each(start: Start, start_program: StartProgram) -> None:
    """The status is 2, without a traceback."""
    program = start_program([*ARGS, "--once"])
    assert program.wait(30) == 2
    lines = program.output().splitlines()
    assert len(lines) == 3
    for setting, line in zip(("backend_url", "backend_key", "catalog_url"), lines, strict=True):
        assert f"WFM_WORKER__{setting.upper()}" in line
    away = start("--once", model="/no/model.onnx", space="face:test-512")
    assert away.wait(30) == 2
    assert "/no/model.onnx" in away.output()
    assert "Traceback" not in away.output()
