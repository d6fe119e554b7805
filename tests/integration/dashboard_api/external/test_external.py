"""Sources send names, keys and vectors of identities, and no images (seed 001)."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from broker_bridge.registry import Registry
from tests.integration.dashboard_api.conftest import FACE, client_of, is_problem, vector

SYNC = "/api/identities/sync"
INGEST = "/api/identities/ingest-embeddings"
LIST = "/api/identities/external"
LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
LONG_BASE64 = base64.b64encode(np.random.default_rng(1).bytes(120)).decode()


def unit(n: int) -> list[float]:
    """Return directions that are far from each other, for n in 0..15."""
    return [(1.0 if n < 8 else -1.0) if position == n % 8 else 0.01 for position in range(8)]


def upsert(external_id: Any, name: Any = "John Smith") -> dict[str, Any]:
    return {"external_id": external_id, "name": name, "action": "upsert"}


def faces(external_id: Any, *vectors: list[float], name: str = "John Smith") -> dict[str, Any]:
    return {
        "external_id": external_id,
        "name": name,
        "faces": [{"embedding": found_item, "confidence": 0.98} for found_item in vectors],
    }


def lines(*documents: dict[str, Any]) -> bytes:
    return b"".join(
        json.dumps({"source_system": "alfred", **found_item}).encode() + b"\n" for found_item in documents
    )


@pytest.fixture
async def source(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, "source") as client:
        yield client


async def sync(
    client: httpx.AsyncClient, *items: Any, source_system: str = "alfred_catalog"
) -> httpx.Response:
    return await client.post(SYNC, json={"source_system": source_system, "identities": list(items)})


async def ingest(client: httpx.AsyncClient, *results: Any, **more: Any) -> httpx.Response:
    return await client.post(
        INGEST, json={"source_system": "alfred_catalog", "results": list(results), **more}
    )


async def listed(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"{LIST}{query}")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["identities"]
    return rows


async def stored(registry: Registry) -> int:
    return int(await registry.mongo.db.templates.count_documents({}))


async def version(registry: Registry) -> int:
    return (await registry.versions.read()).version


async def test_identities_are_created_renamed_and_deleted_by_key(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """The example of the seed; a change without effect takes no version."""
    await sync(source, upsert("87"), upsert("15"))
    answer = await sync(
        source, upsert("42"), upsert("87", "Jane Doe"), {"external_id": "15", "action": "delete"}
    )
    assert answer.json() == {
        "success": True, "created": 1, "updated": 1, "deleted": 1, "errors": [], "error_count": 0
    }  # fmt: skip
    before = await version(registry)
    repeated = (await sync(source, upsert("42"), upsert("87", "Jane Doe"))).json()
    assert (repeated["created"], repeated["updated"], repeated["deleted"]) == (0, 0, 0)
    assert await version(registry) == before == 5
    rows = {row["external_id"]: row for row in await listed(source)}
    assert {key: row["name"] for key, row in rows.items()} == {"42": "John Smith", "87": "Jane Doe"}
    assert set(rows["42"]) == {
        "identity_id", "external_id", "source_system", "name", "embedding_count", "first_seen", "last_seen"
    }  # fmt: skip
    assert rows["42"]["identity_id"].startswith("EXT-")


async def test_the_same_key_of_another_source_is_another_identity(source: httpx.AsyncClient) -> None:
    """The list can be filtered by source."""
    await sync(source, upsert("42"))
    await sync(source, upsert("42", "Other Smith"), source_system="other.system")
    assert len({row["identity_id"] for row in await listed(source)}) == 2
    (own,) = await listed(source, "?source_system=other.system")
    assert own["name"] == "Other Smith"


async def test_an_invalid_item_is_reported_and_stops_no_other(source: httpx.AsyncClient) -> None:
    """Its error has the index, a valid key, and a stable code."""
    answer = await sync(
        source,
        upsert("1"),
        {"external_id": "2", "action": "upsert"},
        {"external_id": "3", "action": "delete"},
        upsert("4\0"),
        upsert(5),
        {"external_id": "6", "name": "x", "action": "erase"},
        upsert("7", "long name " * 30),
        upsert("8 8." * 64),
        "9",
        upsert("10", {"$gt": ""}),
        {**upsert("11"), "colour": "blue"},
        upsert("12"),
    )
    received = answer.json()
    assert (answer.status_code, received["success"], received["created"], received["error_count"]) == (
        200,
        True,
        2,
        10,
    )
    assert [error["index"] for error in received["errors"]] == list(range(1, 11))
    by_index = {error["index"]: error for error in received["errors"]}
    assert (by_index[2]["code"], by_index[2]["external_id"]) == ("person-unknown", "3")
    assert {error["code"] for error in received["errors"]} == {"request-invalid", "person-unknown"}
    assert "external_id" not in by_index[3]
    assert "long name" not in answer.text
    assert {row["external_id"] for row in await listed(source)} == {"1", "12"}


async def test_items_are_applied_in_their_order(source: httpx.AsyncClient) -> None:
    """One request creates, renames, deletes and creates again."""
    deletion = {"external_id": "42", "action": "delete"}
    answer = await sync(source, upsert("42", "A"), upsert("42", "B"), deletion, upsert("42", "C"))
    received = answer.json()
    assert (received["created"], received["updated"], received["deleted"]) == (2, 1, 1)
    (row,) = await listed(source)
    assert row["name"] == "C"


async def test_a_deleted_identity_comes_back_without_its_vectors(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """It keeps its user id."""
    await ingest(source, faces("42", unit(1), unit(2)))
    (before,) = await listed(source)
    await sync(source, {"external_id": "42", "action": "delete"})
    assert await listed(source) == []
    assert (await sync(source, upsert("42", "New Name"))).json()["created"] == 1
    (after,) = await listed(source)
    assert (after["identity_id"], after["embedding_count"]) == (before["identity_id"], 0)
    assert await stored(registry) == 0


async def test_vectors_are_stored_once_with_their_confidence(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """The example of the seed; a repeat skips every vector."""
    results = [faces("42", unit(0), unit(1)), faces("87", unit(2), name="Jane Doe")]
    first = (await ingest(source, *results)).json()
    assert (first["success"], first["identities_resolved"], first["embeddings_stored"]) == (True, 2, 3)
    before = await version(registry)
    repeated = (await ingest(source, *results)).json()
    assert (repeated["embeddings_stored"], repeated["embeddings_skipped"]) == (0, 3)
    assert (repeated["look_alikes"], await version(registry)) == ([], before)
    kept = [found async for found in registry.mongo.db.templates.find({})]
    assert {(found_item["quality"], found_item["source"], found_item["space"]) for found_item in kept} == {
        (0.98, "alfred_catalog", FACE)
    }
    rows = {row["external_id"]: row["embedding_count"] for row in await listed(source)}
    assert rows == {"42": 2, "87": 1}


async def test_numbers_and_base64_are_the_same_vector(source: httpx.AsyncClient) -> None:
    """Form and length of the vector do not matter."""
    await ingest(source, faces("42", unit(3)))
    text = base64.b64encode(np.asarray(unit(3), dtype="<f4").tobytes()).decode()
    face = {"vector": text, "confidence": 0.5}
    repeated = (await ingest(source, {"external_id": "42", "name": "John Smith", "faces": [face]})).json()
    assert (repeated["embeddings_stored"], repeated["embeddings_skipped"]) == (0, 1)


async def test_a_new_name_replaces_the_old_and_no_name_keeps_it(source: httpx.AsyncClient) -> None:
    """An empty name keeps it too."""
    await ingest(source, faces("42", unit(1)))
    await ingest(source, faces("42", unit(2), name="Jonathan Smith"))
    await ingest(source, {"external_id": "42", "faces": []})
    await ingest(source, faces("42", name=""))
    (row,) = await listed(source)
    assert (row["name"], row["embedding_count"]) == ("Jonathan Smith", 2)


@pytest.mark.parametrize(
    ("face", "code"),
    [
        ({"embedding": [1.0] * 7}, "vector-invalid"),
        ({"embedding": [0.0] * 8}, "vector-invalid"),
        ({"embedding": [float("nan")] * 8}, "vector-invalid"),
        ({"embedding": [1e308] * 8}, "vector-invalid"),
        ({"embedding": [10**400] * 8}, "vector-invalid"),
        ({"embedding": ["1"] * 8}, "request-invalid"),
        ({"embedding": [[1.0] * 8]}, "request-invalid"),
        ({"embedding": []}, "request-invalid"),
        ({"embedding": unit(1), "vector": "AAAA"}, "request-invalid"),
        ({}, "request-invalid"),
        ({"vector": "AAAA"}, "vector-invalid"),
        ({"vector": "not base64"}, "vector-invalid"),
        ({"embedding": unit(1), "confidence": 1.01}, "request-invalid"),
        ({"embedding": unit(1), "confidence": -0.01}, "request-invalid"),
        ({"embedding": unit(1), "confidence": float("nan")}, "request-invalid"),
        ({"embedding": unit(1), "confidence": "0.9"}, "request-invalid"),
        ({"embedding": unit(1), "age": 40}, "request-invalid"),
    ],
)
@pytest.mark.parametrize("form", ["json", "lines"])
async def test_an_invalid_face_rejects_its_identity_alone(
    source: httpx.AsyncClient, registry: Registry, form: str, face: Any, code: str
) -> None:
    """Valid faces of that identity are not stored either."""
    wrong = {"external_id": "1", "name": "A", "faces": [{"embedding": unit(5)}, face]}
    if form == "json":
        body = {"source_system": "alfred", "results": [wrong, faces("2", unit(6))]}
        answer = await source.post(INGEST, content=json.dumps(body), headers=JSON)
    else:
        answer = await source.post(INGEST, content=lines(wrong, faces("2", unit(6))), headers=LINES)
    received = answer.json()
    assert answer.status_code == 200, received
    assert [(error["external_id"], error["code"]) for error in received["errors"]] == [("1", code)]
    assert (received["identities_resolved"], await stored(registry), await version(registry)) == (1, 1, 1)


@pytest.mark.parametrize("field", ["image", "photo", "thumbnail", "url", "path", "file", "source_image_path"])
@pytest.mark.parametrize(
    "hide",
    [
        lambda field: {"source_system": "alfred", "results": [faces("1", unit(1))], field: "x"},
        lambda field: {
            "source_system": "alfred",
            "results": [faces("1", unit(1)), {**faces("2"), field: None}],
        },
        lambda field: {
            "source_system": "alfred",
            "results": [faces("1", unit(1)), {"external_id": "2", "faces": [{"meta": [{"a": {field: 1}}]}]}],
        },
    ],
)
async def test_a_field_for_images_rejects_the_whole_request(
    source: httpx.AsyncClient, registry: Registry, field: str, hide: Callable[[str], Any]
) -> None:
    """No image is accepted at any depth, in vectors or in names."""
    problem = is_problem(await source.post(INGEST, json=hide(field)), 422, "picture-refused")
    assert field in problem["detail"]
    items = {"source_system": "alfred", "identities": [upsert("1"), {**upsert("2"), field: "x"}]}
    is_problem(await source.post(SYNC, json=items), 422, "picture-refused")
    assert await version(registry) == 0


@pytest.mark.parametrize(
    "text",
    ["data:image/jpeg;base64,/9j/4AAQ", "http://alfred:8082/photos/1", "/srv/photos/anna.jpg", LONG_BASE64],
)
async def test_an_image_or_its_address_as_name_or_key_rejects_the_whole_request(
    source: httpx.AsyncClient, registry: Registry, text: str
) -> None:
    """The sentence names the field and never the value."""
    for item in (upsert("2", text), upsert(text), {**upsert("2"), "action": text}):
        answer = await sync(source, upsert("1"), item)
        problem = is_problem(answer, 422, "picture-refused")
        assert "identities.1." in problem["detail"]
        assert text not in answer.text
    is_problem(await ingest(source, faces("1", unit(1)), faces(text, unit(2))), 422, "picture-refused")
    is_problem(await ingest(source, faces("1", unit(1), name=text)), 422, "picture-refused")
    identities = "/api/v1/identities"
    is_problem(
        await source.post(identities, json={"user_id": "ana", "display_name": text}), 422, "picture-refused"
    )
    assert await version(registry) == 0


async def test_an_image_instead_of_a_vector_rejects_the_whole_request(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """Base64 of a JPEG as a vector, or a JPEG as the body."""
    jpeg = b"\xff\xd8\xff\xe0" + bytes(100)
    item = {"external_id": "1", "faces": [{"vector": base64.b64encode(jpeg).decode()}]}
    is_problem(await ingest(source, faces("2", unit(1)), item), 422, "picture-refused")
    is_problem(await source.post(INGEST, content=jpeg, headers=LINES), 422, "picture-refused")
    is_problem(await source.post(INGEST, content=jpeg, headers=JSON), 422, "picture-refused")
    assert await version(registry) == 0


async def test_no_collection_has_a_field_for_an_image(source: httpx.AsyncClient, registry: Registry) -> None:
    """The privacy table of the seed: documents have names, keys and ids only."""
    await sync(source, upsert("41"))
    await ingest(source, faces("42", unit(1)), faces("43", unit(1)))
    names: set[str] = set()
    for collection in await registry.mongo.db.list_collection_names():
        async for found in registry.mongo.db[collection].find({}):
            names |= set(_names(found))
    assert {"vector", "external", "display_name"} <= names
    banned = ("image", "photo", "thumbnail", "url", "path", "file")
    assert [name for name in names if any(term in name.lower() for term in banned)] == []


def _names(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


@pytest.mark.parametrize(
    "external_id", ["a/b/../c", "x+y#z", "$where", "{'$gt': ''}", "\u0410\u043d\u043d\u0430", "' OR 1=1"]
)
async def test_a_key_is_any_text(source: httpx.AsyncClient, external_id: str) -> None:
    """Slashes, operators and other alphabets have no meaning in it."""
    await sync(source, upsert(external_id))
    await sync(source, upsert("Anna", "Anna"))
    (row,) = [row for row in await listed(source) if row["external_id"] == external_id]
    assert row["source_system"] == "alfred_catalog"
    assert (await sync(source, {"external_id": external_id, "action": "delete"})).json()["deleted"] == 1
    assert len(await listed(source)) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 422, "request-invalid"),
        (b"", 422, "request-invalid"),
        (b"[" * 100_000, 422, "request-invalid"),
        (b'{"a":' * 100_000, 422, "request-invalid"),
        (b"9" * 5000, 422, "request-invalid"),
        (b"[]", 422, "request-invalid"),
        (b'{"source_system": "alfred"}', 422, "request-invalid"),
        (b'{"source_system": "a b", "results": [], "identities": []}', 422, "request-invalid"),
        (b'{"source_system": {"$gt": ""}, "results": []}', 422, "request-invalid"),
        (b'{"source_system": "' + b"x" * 51 + b'", "results": []}', 422, "request-invalid"),
        (b'{"source_system": "\xff", "results": []}', 422, "request-invalid"),
        (b'{"source_system": "alfred", "results": {"0": 1}}', 422, "request-invalid"),
        (b'{"source_system": "alfred", "results": [], "space": "face:../x"}', 422, "request-invalid"),
    ],
)
async def test_an_invalid_document_is_a_problem(
    source: httpx.AsyncClient, registry: Registry, body: bytes, status: int, code: str
) -> None:
    """No JSON, endless nesting or another shape: nothing is stored."""
    is_problem(await source.post(INGEST, content=body, headers=JSON), status, code)
    is_problem(
        await source.post(SYNC, content=body.replace(b"results", b"identities"), headers=JSON), status, code
    )
    assert await version(registry) == 0


async def test_half_a_surrogate_pair_and_huge_numbers_are_item_errors(source: httpx.AsyncClient) -> None:
    """JSON can contain them and MongoDB cannot."""
    items = ['{"external_id": "\\ud800", "name": "a", "action": "upsert"}',
             '{"external_id": "1", "name": "\\udc00", "action": "upsert"}',
             '{"external_id": 99999999999999999999999, "name": "a", "action": "upsert"}',
             '{"external_id": "ok", "name": "a", "action": "upsert"}']  # fmt: skip
    body = f'{{"source_system": "alfred", "identities": [{",".join(items)}]}}'
    answer = await source.post(SYNC, content=body, headers=JSON)
    if answer.status_code == 200:
        assert (answer.json()["created"], answer.json()["error_count"]) == (1, 3)
    else:
        is_problem(answer, 422, "request-invalid")


async def test_a_space_may_be_named_and_must_be_known(source: httpx.AsyncClient) -> None:
    """Without one it is the default space of faces."""
    received = (await ingest(source, faces("1", unit(1)), space="face:unheard-of")).json()
    assert [error["code"] for error in received["errors"]] == ["space-unknown"]
    received = (await ingest(source, faces("1", [1.0, 2.0, 3.0, 4.0]), space="gait:test-4")).json()
    assert received["embeddings_stored"] == 1


async def test_ndjson_lines_are_read_from_any_chunks(source: httpx.AsyncClient, registry: Registry) -> None:
    """Blank lines and a missing last newline are fine; errors name the line."""
    body = (
        lines(faces("1", unit(1)), faces("2", unit(2))) + b"\n\r\n{oops\n" + lines(faces("3", unit(3)))[:-1]
    )

    async def drops() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    received = (await source.post(INGEST, content=drops(), headers=LINES)).json()
    assert (received["identities_resolved"], received["embeddings_stored"], received["error_count"]) == (
        3,
        3,
        1,
    )
    assert [(error["line"], error["code"]) for error in received["errors"]] == [(5, "request-invalid")]


async def test_lines_are_unlimited_in_number_and_limited_in_length(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """A line of more than 1 MiB is an error; the next one counts."""
    long = b'{"source_system": "' + b"x" * (1024 * 1024) + b'"}\n'

    async def many() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield long
        yield lines(*(faces(str(n), vector(n)) for n in range(450)))

    received = (await source.post(INGEST, content=many(), headers=LINES)).json()
    assert (received["identities_resolved"], received["error_count"]) == (450, 20)
    assert {error["code"] for error in received["errors"]} == {"payload-too-large"}


async def test_an_image_in_a_line_ends_the_request(source: httpx.AsyncClient, registry: Registry) -> None:
    """The problem names the line; later lines are not read."""
    body = lines(faces("1", unit(1)), {**faces("2", unit(2)), "photo": "x"}, faces("3", unit(3)))
    problem = is_problem(await source.post(INGEST, content=body, headers=LINES), 422, "picture-refused")
    assert problem["detail"].startswith("line 2.photo")
    assert "3" not in {row["external_id"] for row in await listed(source)}


async def test_errors_are_all_counted_and_the_first_hundred_listed(source: httpx.AsyncClient) -> None:
    """The answer stays small for any request."""
    received = (await sync(source, *[{"external_id": str(n), "action": "delete"} for n in range(250)])).json()
    assert (received["error_count"], len(received["errors"])) == (250, 100)


async def test_a_body_past_the_limit_of_sources_is_rejected(source: httpx.AsyncClient) -> None:
    """16 MiB as JSON; more needs lines."""
    content = b'{"source_system": "' + b"x" * (16 * 1024 * 1024)
    is_problem(await source.post(INGEST, content=content, headers=JSON), 413, "payload-too-large")
    is_problem(await source.post(SYNC, content=content, headers=LINES), 413, "payload-too-large")
    is_problem(
        await source.post(INGEST, content=b"x", headers={"content-type": "text/csv"}),
        415,
        "media-type-unsupported",
    )


async def test_pages_show_every_key_once(source: httpx.AsyncClient) -> None:
    """Any page size works, also for an identity with several keys."""
    await sync(source, *(upsert(str(n)) for n in range(7)))
    keys, cursor = [], ""
    while True:
        page = (await source.get(f"{LIST}?limit=3{cursor}")).json()
        assert len(page["identities"]) <= 3
        keys += [row["external_id"] for row in page["identities"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(keys) == [str(n) for n in range(7)]
    is_problem(await source.get(f"{LIST}?cursor=AAAA"), 422, "cursor-invalid")
    is_problem(await source.get(f"{LIST}?source_system=a/b"), 422, "request-invalid")


async def test_the_roles_of_sources(app: FastAPI) -> None:
    """Sources and operators send, viewers read, cameras do neither."""
    may = {
        "admin": (200, 200),
        "operator": (200, 200),
        "source": (200, 200),
        "viewer": (403, 200),
        "edge": (403, 403),
    }
    for role, (change, look) in may.items():
        async with client_of(app, role) as client:
            assert (await sync(client, upsert("1"))).status_code == change
            assert (await ingest(client)).status_code == change
            assert (await client.post(INGEST, content=b"", headers=LINES)).status_code == change
            assert (await client.get(LIST)).status_code == look
    async with client_of(app, None) as client:
        is_problem(await sync(client, upsert("1")), 401, "key-missing")


async def test_the_audit_has_the_key_of_each_change_and_no_name(
    source: httpx.AsyncClient, registry: Registry
) -> None:
    """Each change has an entry with the name of the API key."""
    await ingest(source, faces("42", unit(1)))
    (entry,) = [
        found_item for found_item in await registry.audit.page() if found_item.what == "person.enrolled"
    ]
    assert (entry.who, entry.after and entry.after["templates_added"]) == ("source", 1)
    assert "John" not in str(entry)
