"""Bad input, keys and roles: each rejection is a problem with a stable code."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from tests.integration.dashboard_api.conftest import FACE, JPEG, client_of, is_problem, vector

PUSH = "/api/v1/identity/"
PEOPLE = "/api/v1/identities"
FACE_BODY = {"name": "ana", "modality": "face", "embedding": vector(1)}


def b64(values: list[float]) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("embedding", "code"),
    [
        ([0.0] * 8, "vector-invalid"),
        ([1e-30] * 8, "vector-invalid"),
        (vector(1)[:7], "vector-invalid"),
        (vector(1, 9), "vector-invalid"),
        ([*vector(1)[:7], float("nan")], "vector-invalid"),
        ([*vector(1)[:7], float("inf")], "vector-invalid"),
        ([], "request-invalid"),
        ([1.0] * 4097, "request-invalid"),
        (["1.0"] * 8, "request-invalid"),
        ([True] * 8, "request-invalid"),
        ([[1.0]] * 8, "request-invalid"),
        ([10**400] * 8, "request-invalid"),
        (None, "request-invalid"),
        ({"$gt": ""}, "request-invalid"),
    ],
)
async def test_an_invalid_vector_is_rejected_and_never_quoted(
    api: httpx.AsyncClient, registry: Registry, embedding: Any, code: str
) -> None:
    """Zero, short, long, NaN, infinite, huge, or not numbers."""
    content = json.dumps({**FACE_BODY, "embedding": embedding})
    answer = await api.post(PUSH, content=content, headers={"content-type": "application/json"})
    problem = is_problem(answer, 422, code)
    assert "input" not in json.dumps(problem.get("fields", []))
    assert len(answer.text) < 5000
    assert (await registry.versions.read()).version == 0


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ({"space": FACE, "vector": b64([0.0] * 8)}, "vector-invalid"),
        ({"space": FACE, "vector": b64(vector(1, 7))}, "vector-invalid"),
        ({"space": FACE, "vector": b64([float("nan")] * 8)}, "vector-invalid"),
        ({"space": FACE, "vector": "not base64!"}, "vector-invalid"),
        ({"space": FACE, "vector": ""}, "vector-invalid"),
        ({"space": FACE}, "vector-invalid"),
        ({"space": FACE, "vector": b64(vector(1)), "embedding": vector(1)}, "vector-invalid"),
        ({"space": "face:other", "embedding": vector(1)}, "space-unknown"),
        ({"space": "iris:x", "embedding": vector(1)}, "request-invalid"),
        ({"space": FACE, "embedding": vector(1), "quality": 1.5}, "request-invalid"),
        ({"space": FACE, "embedding": vector(1), "quality": float("nan")}, "request-invalid"),
        ({"space": FACE, "embeding": vector(1)}, "request-invalid"),
    ],
)
async def test_an_invalid_template_leaves_no_partial_identity(
    api: httpx.AsyncClient, registry: Registry, template: dict[str, Any], code: str
) -> None:
    """One invalid template rejects the whole identity."""
    good = {"space": FACE, "embedding": vector(2)}
    content = json.dumps({"user_id": "ana", "templates": [good, template]})
    answer = await api.post(PEOPLE, content=content, headers={"content-type": "application/json"})
    is_problem(answer, 422, code)
    assert (await registry.versions.read()).version == 0


BAD_IDS = [
    "a/b", "a+b", "a#b", "a\0b", "a b", " ", "", "$where", {"$ne": None}, ["a"], 7, None,
    "\u0430na", "EMP\u20101", "\uff45mp", "a\nb", "-a", ".", "a" * 129, "x" * 500_000, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_IDS, ids=lambda bad: repr(bad)[:20])
async def test_an_invalid_id_is_rejected(api: httpx.AsyncClient, registry: Registry, name: Any) -> None:
    """Topic characters, operators, look-alike characters, and very long ids."""
    for path, body in [(PUSH, {**FACE_BODY, "name": name}), (PEOPLE, {"user_id": name})]:
        # Written as \\u escapes: half a surrogate pair could not be sent otherwise.
        headers = {"content-type": "application/json"}
        answer = await api.post(path, content=json.dumps(body), headers=headers)
        is_problem(answer, 422, "request-invalid")
        assert len(answer.text) < 2000
    assert (await registry.versions.read()).version == 0


async def test_a_body_past_its_limit_is_rejected_before_it_is_parsed(api: httpx.AsyncClient) -> None:
    """A name of a million characters, with and without an announced length."""
    content = json.dumps({**FACE_BODY, "name": "x" * 1_100_000}).encode()

    async def chunks() -> Any:
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]

    headers = {"content-type": "application/json"}
    is_problem(await api.post(PUSH, content=content, headers=headers), 413, "payload-too-large")
    is_problem(await api.post(PUSH, content=chunks(), headers=headers), 413, "payload-too-large")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PUSH, {**FACE_BODY, "modality": "iris"}),
        (PUSH, {**FACE_BODY, "colour": "blue"}),
        (PUSH, {**FACE_BODY, "source_node": "a\0b"}),
        (PUSH, [FACE_BODY]),
        (PEOPLE, {"user_id": "ana", "displayname": "Ana"}),
        (PEOPLE, {"user_id": "ana", "display_name": "x" * 257}),
        (PEOPLE, {"user_id": "ana", "display_name": "a\x1b[2J"}),
        (PEOPLE, {"user_id": "ana", "flag": "Very Important"}),
        (PEOPLE, {"user_id": "ana", "sites": ["*"]}),
        (PEOPLE, {"user_id": "ana", "sites": "lobby"}),
        ("/api/v1/devices", {"device_id": "CAM+1", "site_id": "lobby"}),
        ("/api/v1/devices", {"device_id": "cam-001", "site_id": "a/b"}),
        ("/api/v1/devices", {"device_id": "cam-001", "site_id": "lobby", "dev_mode": "yes"}),
    ],
)
async def test_a_field_that_is_wrong_or_unknown_is_named(
    api: httpx.AsyncClient, path: str, body: Any
) -> None:
    """A misspelled field is reported, not ignored."""
    problem = is_problem(await api.post(path, json=body), 422, "request-invalid")
    assert problem["fields"][0]["field"].startswith("body")


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 422), (b"", 422), (b"[" * 200_000, 400), (b'{"name": "\xff"}', 400), (b"9" * 5000, 400)],
)
async def test_invalid_json_is_rejected(api: httpx.AsyncClient, content: bytes, status: int) -> None:
    """Cut short, empty, nested without end, not UTF-8, a number without end."""
    answer = await api.post(PUSH, content=content, headers={"content-type": "application/json"})
    is_problem(answer, status, "request-invalid" if status == 422 else "request-unreadable")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_a_body_of_another_type_is_rejected(api: httpx.AsyncClient, kind: str) -> None:
    """A page of another origin could send forms from a browser."""
    answer = await api.post(PUSH, content=json.dumps(FACE_BODY), headers={"content-type": kind})
    is_problem(answer, 415, "media-type-unsupported")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("PUT", "/api/v1/identity/", 405, "method-not-allowed"),
        ("GET", "/api/v1/identity/ana", 405, "method-not-allowed"),
        ("DELETE", "/api/v1/identity/a%2Bb", 422, "request-invalid"),
        ("DELETE", "/api/v1/identity/a%00b", 422, "request-invalid"),
        ("DELETE", "/api/v1/identity/ana/iris", 422, "request-invalid"),
        ("DELETE", "/api/v1/identity/..%2F..%2Fetc/face", 404, "not-found"),
        ("GET", "/api/v1/identities?limit=0", 422, "request-invalid"),
        ("GET", "/api/v1/identities?limit=100000", 422, "request-invalid"),
        ("GET", "/api/v1/identities?cursor=%21", 422, "cursor-invalid"),
        ("GET", "/api/v1/identities?cursor=%C3%A9", 422, "cursor-invalid"),
        ("GET", "/api/v1/events?cursor=YQ", 422, "cursor-invalid"),
        ("GET", "/api/v1/events?cursor=YQBi", 422, "cursor-invalid"),
        ("GET", "/api/v1/events?since=yesterday", 422, "request-invalid"),
        ("GET", "/api/v1/events?since=2026-01-15T10:00:00", 422, "request-invalid"),
        ("GET", "/api/v1/events?since=0001-01-01T00:00:00Z", 422, "request-invalid"),
        ("GET", "/api/v1/events?until=9999-12-31T23:59:59-12:00", 422, "request-invalid"),
        ("GET", "/api/v1/events?user_id[$ne]=x", 422, "query-parameter-unknown"),
        ("GET", "/api/v1/events?user_id=%7B%22%24ne%22%3A1%7D", 422, "request-invalid"),
        ("GET", "/api/v1/events/cam-001/EV1-x", 422, "request-invalid"),
        ("GET", "/ui/..%2Fsettings.py", 404, "not-found"),
        ("GET", "/ui/%2e%2e/settings.py", 404, "not-found"),
    ],
)
async def test_each_wrong_request_has_its_problem(
    api: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """Unknown paths, methods, ids, cursors, times and query parameters."""
    answer = await api.request(method, path)
    if status == 200:
        assert answer.status_code == 200
    else:
        is_problem(answer, status, code)


REQUESTS: dict[str, tuple[str, str, Any]] = {
    "read people": ("GET", PEOPLE, None),
    "read names": ("GET", "/api/v1/identity/names", None),
    "read devices": ("GET", "/api/v1/devices", None),
    "read events": ("GET", "/api/v1/events", None),
    "read sync": ("GET", "/api/v1/sync/status", None),
    "push": ("POST", PUSH, FACE_BODY),
    "enroll": ("POST", PEOPLE, {"user_id": "ana"}),
    "photo": ("POST", f"{PEOPLE}/ana/photos", None),
    "change": ("PATCH", f"{PEOPLE}/ana", {"flag": "vip"}),
    "delete": ("DELETE", f"{PEOPLE}/ana", None),
    "delete by seed": ("DELETE", "/api/v1/identity/ana", None),
    "register": ("POST", "/api/v1/devices", {"device_id": "cam-001", "site_id": "lobby"}),
}
READS = {name for name in REQUESTS if name.startswith("read")}
ENROLLS = {"push", "enroll", "photo"}
MAY = {
    "admin": set(REQUESTS),
    "operator": set(REQUESTS) - {"register"},
    "viewer": READS,
    "source": ENROLLS,
    "edge": set(),
}


@pytest.mark.parametrize("role", MAY)
async def test_a_role_has_its_rights_and_no_others(app: FastAPI, role: str) -> None:
    """Viewer reads, source enrolls, operator changes, admin does all, edge nothing."""
    passed = set()
    async with client_of(app, role) as client, client_of(app, "admin") as admin:
        for name, (method, path, body) in REQUESTS.items():
            await admin.post(PEOPLE, json={"user_id": "ana"})
            if name == "photo":
                answer = await client.post(path, content=JPEG, headers={"content-type": "image/jpeg"})
            else:
                answer = await client.request(method, path, json=body)
            if answer.status_code < 300:
                passed.add(name)
            else:
                is_problem(answer, 403, "role-insufficient")
    assert passed == MAY[role]


async def test_every_key_gets_its_name_and_role(app: FastAPI) -> None:
    """A request without a key gets neither."""
    for role in MAY:
        async with client_of(app, role) as client:
            assert (await client.get("/api/v1/whoami")).json() == {"name": role, "role": role}
    async with client_of(app, None) as keyless:
        is_problem(await keyless.get("/api/v1/whoami"), 401, "key-missing")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key-missing"),
        ({"Authorization": "Basic a2V5OmtleQ=="}, "key-missing"),
        ({"Authorization": "Bearer"}, "key-missing"),
        ({"Authorization": "Bearer wrong"}, "key-invalid"),
        ({"Authorization": "Bearer " + "é" * 20}, "key-invalid"),
        ({"X-Api-Key": "key-of-the-admin"}, "key-missing"),
    ],
)
async def test_without_a_known_key_every_path_answers_401(
    app: FastAPI, headers: dict[str, str], code: str
) -> None:
    """The challenge comes first, before every other mistake of the request."""
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    async with client_of(app, None) as client:
        for method, path, body in REQUESTS.values():
            answer = await client.request(
                method, path + "?key=key-of-the-admin", json=body and {**body, "typo": 1}, headers=encoded
            )
            is_problem(answer, 401, code)
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_revoked_key_is_rejected(app: FastAPI, registry: Registry) -> None:
    """Its next request gets 401."""
    await registry.mongo.db.api_keys.update_one({"name": "viewer"}, {"$set": {"revoked": True}})
    async with client_of(app, "viewer") as client:
        is_problem(await client.get(PEOPLE), 401, "key-invalid")


async def test_an_unexpected_error_is_logged_and_answered_without_details(
    api: httpx.AsyncClient, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is a 500; the cause is in the log only."""

    async def broken() -> None:
        raise RuntimeError("vector 0.123 of ana")

    app.add_api_route("/api/v1/broken", broken)
    answer = await api.get("/api/v1/broken")
    is_problem(answer, 500, "internal-error")
    assert "0.123" not in answer.text
    assert "api request failed method=GET path='/api/v1/broken'" in caplog.text


async def test_every_answer_has_security_headers(
    api: httpx.AsyncClient,
) -> None:
    """Problems have them too; caches must not store API answers."""
    for path in ("/", "/api/v1/devices", "/api/v1/nothing", "/ui/app.js"):
        headers = (await api.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
    assert (await api.get("/api/v1/devices")).headers["cache-control"] == "no-store"


async def test_the_documentation_needs_no_other_server(api: httpx.AsyncClient) -> None:
    """Page, scripts and style are local, and the document has every path."""
    page = await api.get("/docs")
    assert page.status_code == 200
    assert "http" not in page.text
    for source in ("/swagger-ui/swagger-ui-bundle.js", "/swagger-ui/swagger-ui.css", "/ui/docs.js"):
        assert source in page.text
        assert (await api.get(source)).status_code == 200
    paths = (await api.get("/openapi.json")).json()["paths"]
    assert {"/api/v1/identity", "/api/v1/identities/{user_id}/photos", "/api/v1/events/stream"} <= set(paths)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("name", "allowed"), [("active", "GET"), ("export", "GET"), ("search-by-face", "POST")]
)
async def test_the_name_of_a_collection_is_not_a_global_id(
    api: httpx.AsyncClient, name: str, allowed: str, method: str
) -> None:
    """Another method is a 405, whatever the body and the query."""
    if method == allowed:
        return
    answer = await api.request(method, f"/api/detected-persons/{name}?limit=1", content=b"{")
    is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed
