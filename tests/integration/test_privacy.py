"""Seed 001's privacy table, row by row, on a whole job with real parts.

The parts are catalog, worker, API and MongoDB. Every photo carries random bytes of its own, and its
address a random word. The tests search for them in each file that the programs wrote, each document of
each collection, MongoDB's log of writes, and every request from the worker to the backend.
"""

import asyncio
import base64
import json
import secrets
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from pymongo import MongoClient

from broker_bridge.contract.embeddings import normalise
from broker_bridge.contract.spaces import SpaceRecord
from deploy.local.sample_video import IDENTITIES, enrollment_photo
from deploy.local.stack import Mongod, Program, free_port
from device.embedding.bootstrap import open_worker
from device.embedding.progress import LogReporter
from device.embedding.settings import WorkerSection
from device.vision.detectors.detector import FaceBox
from device.vision.photo_embedder import PhotoFace
from tests.embedding_backend import EmbeddingBackend
from tests.photo_catalog import PhotoCatalog
from tests.recording_server import RecordingServer, Reply, Request
from tests.waiting import wait_until

ADMIN_KEY = "a-long-enough-bootstrap-key"
MARKER_BYTES = 96
BLOCK = 32
SMELLS = ("image", "photo", "thumbnail", "url", "path", "file")


class Wiretap(RecordingServer):
    """Passes everything on to the API and remembers it."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def answer(self, request: Request) -> Reply:
        names = ("Authorization", "Content-Type")
        kept = {name: request.headers[name] for name in names if name in request.headers}
        answer = httpx.request(
            request.method, f"{self._target}{request.path}", content=request.body, headers=kept, timeout=20
        )
        return Reply(answer.status_code, answer.content, {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Traces:
    """What there was, and where it may have left traces."""

    photos: dict[str, bytes]
    markers: list[bytes]
    address_word: str
    folder: Path
    idle_folders: dict[Path, int]
    """Folders for temporary files, with when an entry was last made in or taken out of them."""
    requests: list[Request]
    database: str
    mongo_uri: str
    api: str
    summary: dict[str, Any]

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Return name and BSON of every document, and MongoDB's own log of writes."""
        ours = {"$regex": f"^{self.database}\\."}
        client: MongoClient[dict[str, Any]]
        with MongoClient(self.mongo_uri) as client:
            database = client[self.database]
            for name in database.list_collection_names():
                for batch in database[name].find_raw_batches({}):
                    yield name, batch
            log = client["local"]["oplog.rs"]
            for batch in log.find_raw_batches({"$or": [{"ns": ours}, {"o.applyOps.ns": ours}]}):
                yield "oplog.rs", batch

    def files(self) -> Iterator[tuple[str, bytes]]:
        for file in self.folder.rglob("*"):
            if file.is_file():
                yield str(file), file.read_bytes()

    def bodies(self) -> Iterator[tuple[str, bytes]]:
        for request in self.requests:
            yield request.path, request.body + json.dumps(dict(request.headers)).encode()


@pytest.fixture(scope="module")
def traces(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Run one job on two photos of each of six persons, and two unusable photos.

    One of the unusable photos belongs to no person, the other has no face.
    """
    folder = tmp_path_factory.mktemp("privacy")
    idle = {name: folder / name for name in ("tmp", "home")}
    for path in idle.values():
        path.mkdir()
    env = {"TMPDIR": str(idle["tmp"]), "HOME": str(idle["home"])}
    before = {path: path.stat().st_mtime_ns for path in idle.values()}
    database, word = f"wfm_test_{secrets.token_hex(6)}", f"word{secrets.token_hex(12)}"
    started: list[Program] = []
    client: MongoClient[dict[str, Any]]

    def start(name: str, args: list[str], settings: dict[str, str]) -> Program:
        program = Program([sys.executable, "-m", *args], folder / f"{name}.log", {**env, **settings}, name)
        started.append(program)
        program.start()
        return program

    try:
        with PhotoCatalog() as catalog:
            markers = fill(catalog, word)
            api_url, key = start_api(start, mongod, database)
            with Wiretap(api_url) as wiretap:
                submit(api_url, list(catalog.photos))
                settings = {"backend_url": wiretap.url, "backend_key": key, "catalog_url": catalog.url}
                worker = start(
                    "worker",
                    ["device.embed_worker", "--once"],
                    {"WFM_LOG__LEVEL": "debug"}
                    | {f"WFM_WORKER__{name.upper()}": value for name, value in settings.items()},
                )
                assert worker.wait(60) == 0, worker.output()
                yield Traces(
                    photos={photo_id: photo.data for photo_id, photo in catalog.photos.items()},
                    markers=markers,
                    address_word=word,
                    folder=folder,
                    idle_folders=before,
                    requests=wiretap.requests,
                    database=database,
                    mongo_uri=mongod.uri,
                    api=api_url,
                    summary=json.loads(worker.output().splitlines()[-1]),
                )
    finally:
        for program in started:
            program.kill()
        with MongoClient(mongod.uri) as client:
            client.drop_database(database)


def fill(catalog: PhotoCatalog, word: str) -> list[bytes]:
    """Fill the catalog with photos at addresses with `word`; return their markers."""
    markers = []

    def add(photo_id: str, picture: bytes, person: int | None, name: str | None) -> None:
        marker = secrets.token_bytes(MARKER_BYTES)
        markers.append(marker)
        data = marked(picture, marker)
        address = f"/{word}/{photo_id}.jpg"
        catalog.add(photo_id, data, person, name, file_url=address)
        catalog.overrides[address] = lambda _: Reply(body=data)

    for n, row in enumerate(IDENTITIES.values()):
        for copy in range(2):
            add(f"p{n}{copy}", noisy(enrollment_photo(row), 10 * n + copy), 100 + n, f"Person {n}")
    add("unnamed", noisy(enrollment_photo(1), 1), None, None)
    add("damaged", noisy(enrollment_photo(2), 2)[:400], 100, "Person 0")
    return markers


def noisy(jpeg: bytes, seed: int) -> bytes:
    """Return `jpeg` with noise all over, so that no part resembles any other file."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    noise = np.random.default_rng(seed).normal(0.0, 5.0, picture.shape)
    return cv2.imencode(".jpg", np.clip(picture + noise, 0, 255).astype(np.uint8))[1].tobytes()


def marked(jpeg: bytes, marker: bytes) -> bytes:
    """`jpeg` with `marker` in a comment (ITU T.81, B.2.4.5) behind its start."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(marker)) + marker + jpeg[2:]


def start_api(start: Any, mongod: Mongod, database: str) -> tuple[str, str]:
    """The API's address and a key of the role that a worker has."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "WFM_MONGO__URI": mongod.uri,
        "WFM_MONGO__DATABASE": database,
        "WFM_API__PORT": str(port),
        "WFM_API__BOOTSTRAP_KEY": ADMIN_KEY,
        "WFM_API__PHOTOS": "false",
    }
    start("api", ["dashboard_api"], settings)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    wait_until(answers, "an answer of the API", 30)
    maker = start("new-key", ["dashboard_api", "new-key", "worker", "--role", "source"], settings)
    assert maker.wait(30) == 0, maker.output()
    key = maker.output().splitlines()[-1].strip()
    # The key is printed for its owner, and is not what this test looks for.
    maker.log.unlink()
    return url, key


def admin(api: str) -> httpx.Client:
    return httpx.Client(base_url=api, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=20)


def submit(api: str, photo_ids: list[str]) -> None:
    config = {"source_system": "alfred_catalog", "photo_ids": photo_ids}
    with admin(api) as client:
        answer = client.post("/api/training/submit", json={"job_type": "face_detect_embed", "config": config})
    assert answer.status_code == 201, answer.text


def needles(traces: Traces) -> list[bytes]:
    """Return the byte strings that a trace of a photo would contain.

    They are parts of its marker, also in base64 and hex, and the blocks of 32 bytes that the photo is
    made of: any 64 bytes in a row hold at least one.
    """
    found = []
    for marker in traces.markers:
        found += [marker[start : start + BLOCK] for start in range(0, MARKER_BYTES - BLOCK + 1, BLOCK)]
        found += [marker.hex()[:BLOCK].encode(), marker.hex()[:BLOCK].upper().encode()]
        # Each of the three ways in which base64 may fall upon it.
        found += [base64.b64encode(marker[shift : shift + 48]) for shift in range(3)]
        found += [base64.urlsafe_b64encode(marker[shift : shift + 48]) for shift in range(3)]
    for photo in traces.photos.values():
        found += [photo[start : start + BLOCK] for start in range(0, len(photo) - BLOCK + 1, BLOCK)]
    return found


def places(sources: Iterator[tuple[str, bytes]], wanted: list[bytes]) -> list[str]:
    """Where any of `wanted` is found."""
    return [name for name, data in sources if any(needle in data for needle in wanted)]


def test_the_job_was_a_real_one(traces: Traces) -> None:
    """The job stored vectors, and the search finds what is there."""
    assert traces.summary["faces"] == 12
    assert traces.summary["skipped"] == {"no-person": 1, "photo-invalid": 1}
    assert traces.summary["embeddings_stored"] == 12
    photo = traces.photos["p00"]
    planted = [
        ("slice", b"x" + photo[len(photo) // 2 :][:64]),
        ("text", base64.b64encode(b"x" + photo)),
        ("hex", photo[:200].hex().encode()),
        ("nothing", b"Person 0" * 100),
    ]
    assert places(iter(planted), needles(traces)) == ["slice", "text", "hex"]
    assert {name for name, _ in traces.documents()} >= {"identities", "jobs", "oplog.rs"}
    assert any(name.endswith("worker.log") for name, _ in traces.files())


def test_no_photos_are_stored(traces: Traces) -> None:
    """No collection, no log of MongoDB and no file holds a photo, and none ever did."""
    wanted = needles(traces)
    assert places(traces.documents(), wanted) == []
    assert places(traces.files(), wanted) == []
    assert {path: path.stat().st_mtime_ns for path in traces.idle_folders} == traces.idle_folders


def test_no_photo_bytes_are_transmitted_to_the_backend(traces: Traces) -> None:
    """All requests are little more than the vectors as text; none holds a photo."""
    assert places(traces.bodies(), needles(traces)) == []
    vectors = traces.summary["faces"] * 512 * 24
    assert sum(len(request.body) for request in traces.requests) < vectors + 10_000


@pytest.mark.parametrize("field", SMELLS)
@pytest.mark.parametrize("place", ["body", "person", "face"])
def test_the_ingest_endpoint_refuses_fields_for_pictures(traces: Traces, field: str, place: str) -> None:
    """A field for pictures at any depth is refused, and no identity is created."""
    face: dict[str, Any] = {"embedding": [1.0] * 512, "confidence": 0.9}
    person: dict[str, Any] = {"external_id": "smuggler", "name": "A Smuggler", "faces": [face]}
    body: dict[str, Any] = {"source_system": "alfred_catalog", "results": [person]}
    {"body": body, "person": person, "face": face}[place][field] = "x"
    with admin(traces.api) as client:
        answer = client.post("/api/identities/ingest-embeddings", json=body)
        assert answer.status_code in {400, 422}, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        listed = client.get("/api/identities/external")
    assert listed.is_success
    assert "smuggler" not in listed.text


def test_no_address_of_a_photo_is_stored(traces: Traces) -> None:
    """No document, file, request or debug log holds the address of a photo."""
    word = [traces.address_word.encode()]
    assert places(traces.documents(), word) == []
    assert places(traces.files(), word) == []
    assert places(traces.bodies(), word) == []


def test_people_and_templates_have_no_field_for_a_picture(traces: Traces) -> None:
    """The seed's `source_image_path` is not even there to be NULL."""
    client: MongoClient[dict[str, Any]]
    with MongoClient(traces.mongo_uri) as client:
        database = client[traces.database]
        kept = [one for name in ("identities", "templates") for one in database[name].find()]
    assert len(kept) >= len(IDENTITIES)
    names = {name for document in kept for name in field_names(document)}
    assert [name for name in names if any(smell in name.lower() for smell in SMELLS)] == []


def field_names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield name
            yield from field_names(child)
    elif isinstance(value, list):
        for child in value:
            yield from field_names(child)


def test_of_a_face_there_are_512_numbers_and_no_more(traces: Traces) -> None:
    """The worker sends one vector and one confidence per face.

    They are biometric data all the same.
    """
    bodies = [request.json() for request in traces.requests if request.path.endswith("ingest-embeddings")]
    people = [person for body in bodies for person in body["results"]]
    faces = [face for person in people for face in person["faces"]]
    assert {frozenset(body) for body in bodies} == {frozenset({"source_system", "space", "results"})}
    assert {frozenset(person) for person in people} == {frozenset({"external_id", "name", "faces"})}
    assert {frozenset(face) for face in faces} == {frozenset({"embedding", "confidence"})}
    assert {len(face["embedding"]) for face in faces} == {512}
    assert len(faces) == traces.summary["faces"]


class LooksAndForgets:
    def embed_photo(self, data: bytes, /) -> PhotoFace:
        seed = int.from_bytes(data[:4], "big")
        return PhotoFace(
            normalise(np.random.default_rng(seed).normal(size=512), 512), 0.9, FaceBox(0, 0, 9, 9)
        )


async def test_the_worker_discards_photos_after_processing() -> None:
    """Forty photos of a megabyte take a handful of megabytes, and none is left."""
    megabyte = 2**20
    with PhotoCatalog() as catalog, EmbeddingBackend() as backend:
        for n in range(40):
            catalog.add(f"p{n}", n.to_bytes(4, "big") + bytes(megabyte), 1, "Person 1")
        job = backend.submit(photo_ids=list(catalog.photos))
        section = WorkerSection(
            backend_url=backend.url, backend_key="worker-key", catalog_url=catalog.url, group_photos=40
        )
        record = SpaceRecord(space="face:test-512", dimension=512)
        backend.spaces[record.space] = record.model_dump()
        async with open_worker(section, LooksAndForgets(), record, LogReporter(), once=True) as worker:
            tracemalloc.start()
            try:
                await worker.process_jobs(once=True)
                # The server's threads end with their last connections.
                await asyncio.sleep(0)
                left, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert job.result["faces"] == 40
    # Four photos, each for a moment twice: as what has arrived, and as what is photo_processed at.
    assert peak < 12 * megabyte
    assert left < 3 * megabyte
