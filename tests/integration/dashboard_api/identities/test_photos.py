"""Enrollment by photo stores the vector and never the photo."""

import asyncio
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from fastapi import FastAPI
from skimage import data as samples

from broker_bridge.contract.embeddings import EmbeddingSpace
from broker_bridge.registry import Registry
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from device.vision.detectors.loader import load_detector
from device.vision.embedder import load_embedder
from device.vision.photo_embedder import PhotoEmbedder
from tests.integration.dashboard_api.conftest import JPEG, FakeEmbedder, client_of, is_problem

PERSON = "/api/v1/identities/EMP-12345"
HEADERS = {"content-type": "image/jpeg"}


def left_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


@pytest.fixture
async def identity(api: httpx.AsyncClient) -> None:
    await api.post("/api/v1/identities", json={"user_id": "EMP-12345"})


@pytest.mark.usefixtures("identity")
async def test_a_photo_leaves_a_vector_and_nothing_else(
    api: httpx.AsyncClient, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file and no collection has its bytes, not even of a large photo."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    marker = b"a face of its own"
    photo = JPEG + marker * 3000
    answer = await api.post(f"{PERSON}/photos", content=photo, headers=HEADERS)
    assert answer.status_code == 201
    received = {
        "user_id": "EMP-12345",
        "version": 2,
        "space": "face:test-8",
        "quality": 0.8,
        "look_alikes": [],
    }
    assert answer.json() == received
    assert len((await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]) == 1
    assert left_in(tmp_path) == []
    for name in await registry.mongo.db.list_collection_names():
        async for document in registry.mongo.db[name].find_raw_batches({}):
            assert marker not in document


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(
    ("photo", "kind", "status", "code"),
    [
        (b"hello", "image/jpeg", 422, "photo-invalid"),
        (b"", "image/png", 422, "photo-invalid"),
        (JPEG + b"faceless", "image/jpeg", 422, "photo-no-face"),
        (JPEG, "image/gif", 415, "media-type-unsupported"),
        (JPEG, "multipart/form-data; boundary=x", 415, "media-type-unsupported"),
        (JPEG, "application/json", 415, "media-type-unsupported"),
        (JPEG + b"x" * 64 * 1024, "image/jpeg", 413, "payload-too-large"),
    ],
)
async def test_an_unusable_photo_is_rejected_and_changes_nothing(
    api: httpx.AsyncClient, registry: Registry, photo: bytes, kind: str, status: int, code: str
) -> None:
    """Each rejection has its own code."""
    answer = await api.post(f"{PERSON}/photos", content=photo, headers={"content-type": kind})
    is_problem(answer, status, code)
    assert (await registry.versions.read()).version == 1


@pytest.mark.usefixtures("identity")
async def test_the_content_decides_however_a_photo_is_declared(api: httpx.AsyncClient) -> None:
    """Programs name JPEG in many ways, or not at all."""
    for kind in ("image/png", "image/webp", "image/pjpeg", "image/jpg", "application/octet-stream", ""):
        answer = await api.post(f"{PERSON}/photos", content=JPEG, headers={"content-type": kind})
        assert answer.status_code == 201, kind


@pytest.mark.usefixtures("identity")
async def test_a_photo_without_an_announced_length_is_cut_off_at_the_limit(
    api: httpx.AsyncClient, embedder: FakeEmbedder
) -> None:
    """A chunked body is counted as it arrives and never reaches the embedder."""
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        while True:
            sent += 16 * 1024
            yield b"\xff\xd8" * 8 * 1024

    is_problem(
        await api.post(f"{PERSON}/photos", content=chunks(), headers=HEADERS), 413, "payload-too-large"
    )
    assert sent <= 96 * 1024
    assert embedder.photo_sizes == []


async def test_a_photo_of_an_unknown_identity_is_rejected(
    api: httpx.AsyncClient, embedder: FakeEmbedder
) -> None:
    """The identity comes first; the photo is not decoded."""
    is_problem(await api.post(f"{PERSON}/photos", content=JPEG, headers=HEADERS), 404, "person-unknown")
    assert embedder.photo_sizes == []


@pytest.mark.usefixtures("identity")
async def test_a_photo_does_not_restore_a_deleted_identity(
    api: httpx.AsyncClient, registry: Registry, embedder: FakeEmbedder
) -> None:
    """A deletion during the embedding stands."""
    loop = asyncio.get_running_loop()
    embedder.before_answer = lambda: (
        asyncio.run_coroutine_threadsafe(registry.identities.delete("EMP-12345"), loop).result(10) and None
    )
    is_problem(await api.post(f"{PERSON}/photos", content=JPEG, headers=HEADERS), 404, "person-unknown")
    assert (await registry.identities.get("EMP-12345")).deleted
    assert await registry.identities.templates_of(["EMP-12345"]) == {}


async def test_photos_that_are_off_are_a_problem(registry: Registry, api_settings: ApiSettings) -> None:
    """The answer is a 501 with the name of the setting."""
    async with client_of(create_app(registry, api_settings), "admin") as api:
        answer = await api.post(f"{PERSON}/photos", content=JPEG, headers=HEADERS)
        assert "api.photos" in is_problem(answer, 501, "photos-off")["detail"]


async def test_a_real_photo_is_embedded_by_the_devices_own_code(registry: Registry) -> None:
    """A portrait gives one vector of the built-in model; gravel is rejected."""
    embedder = PhotoEmbedder(load_detector(), load_embedder())
    await registry.spaces.ensure(EmbeddingSpace("face:resnet29-512", 512))
    settings = ApiSettings()
    app: FastAPI = create_app(registry, settings, embedder)
    portrait = cv2.imencode(".png", samples.astronaut()[:300, 100:400, ::-1])[1].tobytes()
    gravel = cv2.imencode(".jpg", samples.gravel())[1].tobytes()
    async with client_of(app, "operator") as api:
        await api.post("/api/v1/identities", json={"user_id": "EMP-12345"})
        good = await api.post(f"{PERSON}/photos", content=portrait, headers={"content-type": "image/png"})
        assert good.status_code == 201, good.text
        assert 0 < good.json()["quality"] <= 1
        is_problem(await api.post(f"{PERSON}/photos", content=gravel, headers=HEADERS), 422, "photo-no-face")
        is_problem(
            await api.post(
                f"{PERSON}/photos", content=portrait[:2000], headers={"content-type": "image/png"}
            ),
            422,
            "photo-invalid",
        )
    (template,) = (await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]
    assert (template.space, len(template.vector)) == ("face:resnet29-512", 2048)
