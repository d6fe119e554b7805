"""Enrollment with photos is one request and one transaction."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from broker_bridge.registry.identities.model import EnrollIdentity, Template
from dashboard_api.app import create_app
from dashboard_api.settings import ApiSettings
from tests.integration.dashboard_api.conftest import JPEG, FakeEmbedder, client_of, is_problem

ENROLLMENTS = "/api/v1/enrollments"
FACELESS = JPEG + b"faceless"
Photos = list[tuple[str, bytes]]
TWO: Photos = [("a.jpg", JPEG + b"1"), ("b.jpg", JPEG + b"2")]


def left_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def enroll(api: httpx.AsyncClient, photos: Photos, **fields: Any) -> httpx.Response:
    form = {"user_id": "EMP-12345", **fields}
    return await api.post(ENROLLMENTS, data=form, files=[("photo", photo) for photo in photos])


async def stored(registry: Registry) -> dict[str, Any]:
    """Return everything that an enrollment could change."""
    collections = ("identities", "templates", "meta", "audit")
    return {name: await registry.mongo.db[name].find().sort("_id", 1).to_list() for name in collections}


async def test_photos_and_fields_become_one_version(api: httpx.AsyncClient, registry: Registry) -> None:
    """One audit entry names the author; blanks around the id are dropped."""
    answer = await enroll(
        api, TWO, user_id=" EMP-12345 ", display_name="Ana", flag="vip", sites=["lobby", "gate"]
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    shown = {name: body[name] for name in ("user_id", "version", "display_name", "flag", "sites")}
    assert shown == {
        "user_id": "EMP-12345",
        "version": 1,
        "display_name": "Ana",
        "flag": "vip",
        "sites": ["gate", "lobby"],
    }
    assert (body["templates_added"], body["look_alikes"]) == (2, [])
    assert [(photo["file_name"], photo["quality"]) for photo in body["photos"]] == [
        ("a.jpg", 0.8),
        ("b.jpg", 0.8),
    ]
    templates = (await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]
    assert [template.source for template in templates] == ["photo", "photo"]
    (entry,) = await registry.audit.page(before=None, limit=5)
    assert (entry.who, entry.what, entry.subject) == ("admin", "person.enrolled", "EMP-12345")


# By the sum of its bytes a photo has one of a few vectors: these two are alike, the third is not (0.61).
ALIKE: Photos = [("a.jpg", JPEG + b"\x00"), ("b.jpg", JPEG + b"\x09")]
UNLIKE = ("c.jpg", JPEG + b"\x05")


def codes_of(photo: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in photo.get("warnings", [])]


async def test_a_photo_that_resembles_no_other_is_named(api: httpx.AsyncClient, registry: Registry) -> None:
    """By the limits of the space: in one form, and against enrolled photos."""
    record = await registry.spaces.record("face:test-8")
    assert record.limits is not None
    limits = record.limits.model_copy(update={"look_alike": 0.9, "same_person": 0.95})
    await registry.spaces.put(record.model_copy(update={"limits": limits}), by="admin")
    answer = await enroll(api, [*ALIKE, UNLIKE])
    assert [codes_of(photo) for photo in answer.json()["photos"]] == [[], [], ["photo-disagrees"]]
    (warning,) = answer.json()["photos"][2]["warnings"]
    assert "similarity 0.61" in warning["detail"]
    await enroll(api, ALIKE[:1], user_id="EMP-2")
    later = await api.post("/api/v1/identities/EMP-2/photos", content=UNLIKE[1])
    assert (codes_of(later.json()), later.json()["quality"]) == (["photo-disagrees"], 0.8)
    assert codes_of((await api.post("/api/v1/identities/EMP-2/photos", content=ALIKE[1][1])).json()) == []


async def test_a_repeated_form_has_no_further_effect(api: httpx.AsyncClient, registry: Registry) -> None:
    """After a lost answer the client sends it again and gets 200 at the same version."""
    await enroll(api, TWO, display_name="Ana")
    before = await stored(registry)
    answers = await asyncio.gather(*(enroll(api, TWO, display_name="Ana") for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["version"] for answer in answers] == [1, 1]
    assert await stored(registry) == before


async def test_forms_at_the_same_time_create_one_identity(api: httpx.AsyncClient) -> None:
    """The slower one is refused, unless it is the same."""
    answers = await asyncio.gather(
        enroll(api, TWO[:1], display_name="Ana"), enroll(api, TWO[1:], display_name="Boris")
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def known(registry: Registry, state: str) -> None:
    """Enroll EMP-12345 with a template of its own and bring it into `state`."""
    face = Template("face:test-8", b"\0\0\x80?" + bytes(28), 0.9, "vector")
    await registry.identities.enroll(EnrollIdentity("EMP-777", display_name="Other"))
    if state != "unknown":
        await registry.identities.enroll(EnrollIdentity("EMP-12345", (face,), display_name="Ana"))
    if state == "deleted":
        await registry.identities.delete("EMP-12345")
    if state == "merged":
        await registry.identity_merges.merge("EMP-12345", "EMP-777", by="admin")


CREATE, ADD = {"mode": "create"}, {"mode": "add"}
BAD: Photos = [*TWO, ("me.jfif", FACELESS)]


REFUSED: dict[str, list[tuple[Photos, dict[str, Any], int, str]]] = {
    "enrolled": [
        (TWO, {}, 409, "identity-exists"),
        (TWO, {"display_name": "Ana"}, 409, "identity-exists"),
        (BAD, {}, 422, "photo-no-face"),
        (BAD, ADD, 422, "photo-no-face"),
        (TWO, {**ADD, "display_name": "Boris"}, 422, "request-invalid"),
        (TWO, {"mode": "replace"}, 422, "request-invalid"),
    ],
    "deleted": [
        (TWO, CREATE, 409, "identity-deleted"),
        (TWO, ADD, 409, "identity-deleted"),
        (BAD, CREATE, 422, "photo-no-face"),
    ],
    "merged": [
        (TWO, CREATE, 409, "person-merged"),
        (TWO, ADD, 409, "person-merged"),
    ],
    "unknown": [
        (TWO, ADD, 404, "person-unknown"),
        (BAD, CREATE, 422, "photo-no-face"),
        ([("a.jpg", JPEG), ("b.txt", b"hello")], {}, 422, "photo-invalid"),
        ([("a.jpg", FACELESS), ("b.txt", b"hello")], {}, 422, "photos-unusable"),
        ([("a.jpg", JPEG), ("b.jpg", JPEG + 65536 * b"x")], {}, 422, "photo-too-large"),
        ([("a.jpg", JPEG), ("empty.jpg", b"")], {}, 422, "photo-invalid"),
        ([], {}, 415, "media-type-unsupported"),
        (21 * [("a.jpg", JPEG)], {}, 422, "photos-too-many"),
        (TWO, {"user_id": "no good/id"}, 422, "request-invalid"),
        (TWO, {"user_id": ""}, 422, "request-invalid"),
        (TWO, {"user_id": "bulk"}, 422, "user-id-reserved"),
        (TWO, {"user_id": ["EMP-1", "EMP-2"]}, 422, "request-invalid"),
        (TWO, {"nickname": "Ann"}, 422, "request-invalid"),
        (TWO, {"sites": ["lobby", "no good/site"]}, 422, "request-invalid"),
    ],
}


@pytest.mark.parametrize("state", REFUSED)
async def test_a_failure_changes_nothing(api: httpx.AsyncClient, registry: Registry, state: str) -> None:
    """No version, no tombstone, no audit entry; a restore still gives the template."""
    await known(registry, state)
    before = await stored(registry)
    for photos, fields, status, code in REFUSED[state]:
        is_problem(await enroll(api, photos, **fields), status, code)
        assert await stored(registry) == before, (fields, code)
    if state == "deleted":
        await registry.identities.restore("EMP-12345")
        assert len((await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]) == 1


async def test_a_look_alike_changes_nothing(app: FastAPI, registry: Registry, api: httpx.AsyncClient) -> None:
    """Under `registry.look_alikes = refuse` an identity with the face is named."""
    assert (await enroll(api, TWO[:1], user_id="EMP-777")).status_code == 201
    noted = await enroll(api, TWO[:1], user_id="EMP-1")
    assert [note["nearest_user_id"] for note in noted.json()["look_alikes"]] == ["EMP-777"]
    registry.look_alikes._settings = registry.look_alikes._settings.model_copy(
        update={"look_alikes": "refuse"}
    )
    before = await stored(registry)
    assert "EMP-" in is_problem(await enroll(api, TWO), 409, "look-alike")["detail"]
    assert await stored(registry) == before


async def test_each_unusable_photo_is_named_by_its_file(api: httpx.AsyncClient) -> None:
    """Names are cut and freed of control characters; one without a name is counted."""
    photos: Photos = [("good.jpg", JPEG), ("Ünï.jfif", FACELESS), ("x\x07" + 200 * "y", b"text")]
    problem = is_problem(await enroll(api, photos), 422, "photos-unusable")
    named = [(photo["file_name"], photo["code"]) for photo in problem["photos"]]
    assert named[0] == ("Ünï.jfif", "photo-no-face")
    assert named[1][1] == "photo-invalid"
    assert len(named[1][0]) == 100
    assert "Ünï.jfif: no face was found" in problem["detail"]
    assert "2 of 3 photos" in problem["detail"]


async def test_photos_are_added_to_an_enrolled_identity(api: httpx.AsyncClient, registry: Registry) -> None:
    """Name, flag and sites stay; a photo that it has already adds nothing."""
    await enroll(api, TWO[:1], display_name="Ana", flag="vip", sites=["lobby"])
    answer = await enroll(api, TWO, mode="add")
    assert (answer.status_code, answer.json()["templates_added"], answer.json()["version"]) == (200, 1, 2)
    identity = await registry.identities.get("EMP-12345")
    assert (identity.display_name, identity.flag, identity.sites) == ("Ana", "vip", ("lobby",))
    assert len((await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]) == 2


async def test_an_erased_identity_can_be_enrolled_again(api: httpx.AsyncClient, registry: Registry) -> None:
    """Nothing of it is left to restore."""
    await enroll(api, TWO[:1])
    await api.post("/api/v1/identities/EMP-12345/erase")
    answer = await enroll(api, TWO[1:])
    assert answer.status_code == 201
    assert len((await registry.identities.templates_of(["EMP-12345"]))["EMP-12345"]) == 1


async def test_a_damaged_form_is_a_400(api: httpx.AsyncClient, registry: Registry) -> None:
    """It changes nothing."""
    head = b'--B\r\nContent-Disposition: form-data; name="user_id"\r\n\r\nEMP-1'
    photo = b'\r\n--B\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n' + JPEG
    end = b"\r\n--B--"
    for body, boundary in (
        (head + photo, "; boundary=B"),
        (head + photo + end, ""),
        (head + photo + end, "; boundary=C"),
        (b"--B\r\nContent-Type: image/jpeg\r\n\r\nx" + end, "; boundary=B"),
        (b"--B\r\nx" + end, "; boundary=B"),
        (b"hello", "; boundary=B"),
        (head + b"\xff" + photo + end, "; boundary=B"),
        (1200 * (head + b"\r\n") + end, "; boundary=B"),
    ):
        headers = {"content-type": f"multipart/form-data{boundary}"}
        answer = await api.post(ENROLLMENTS, content=body, headers=headers)
        is_problem(answer, 400, "request-unreadable")
    assert (await registry.versions.read()).version == 0


async def test_photos_leave_no_file(
    api: httpx.AsyncClient, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even large ones, which common readers of forms write to a temporary file."""
    made: list[str] = []
    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile"):
        monkeypatch.setattr(f"tempfile.{name}", lambda *_, **__: made.append("file") and None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    photo = JPEG + 60_000 * b"m"
    assert (await enroll(api, 20 * [("a.jpg", photo)])).status_code == 201
    assert (left_in(tmp_path), made) == ([], [])
    async for document in registry.mongo.db.templates.find_raw_batches({}):
        assert 100 * b"m" not in document


async def test_a_form_past_the_limit_is_cut_off(
    registry: Registry, api_settings: ApiSettings, embedder: FakeEmbedder
) -> None:
    """The limit holds for all photos together; without photo enrollment it is a 501."""
    limited = api_settings.model_copy(update={"enrollment_max_bytes": 100_000})
    async with client_of(create_app(registry, limited, embedder), "source") as api:
        photos: Photos = [(f"{n}.jpg", JPEG + 40_000 * b"x") for n in range(3)]
        is_problem(await enroll(api, photos), 413, "payload-too-large")
        assert (await enroll(api, photos[:2])).status_code == 201
    assert len(embedder.photo_sizes) == 2
    async with client_of(create_app(registry, limited), "operator") as api:
        is_problem(await enroll(api, TWO), 501, "photos-off")


async def test_other_roles_may_not_enroll(app: FastAPI, embedder: FakeEmbedder) -> None:
    """The photo is not decoded for them."""
    for role, status in (("viewer", 403), ("edge", 403), (None, 401)):
        async with client_of(app, role) as api:
            assert (await enroll(api, TWO)).status_code == status
    assert embedder.photo_sizes == []
