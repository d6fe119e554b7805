"""The catalog client checks types, addresses and sizes of untrusted answers."""

import itertools
import math
import random
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from broker_bridge.common.retry import Backoff
from device.embedding.catalog import Catalog, CatalogPhoto, UnreadableEntry, same_origin
from device.embedding.errors import (
    AccessRefusedError,
    JobFailedError,
    PhotoSkippedError,
    ServiceUnavailableError,
)
from device.embedding.retrier import RequestRetrier
from device.embedding.service import HttpService
from tests.photo_catalog import PhotoCatalog
from tests.recording_server import RecordingServer, Reply

MOST_BYTES = 200_000


@pytest.fixture
def server() -> Iterator[PhotoCatalog]:
    with PhotoCatalog() as catalog:
        yield catalog


@pytest.fixture
async def catalog(server: PhotoCatalog):
    """Return a client that pauses ten times without waiting; the timeout is a second."""
    async with HttpService("catalog", server.url, "catalog-key", timeout=1.0) as service:
        yield Catalog(service, quick_retrier(10), max_photo_bytes=MOST_BYTES)


def quick_retrier(patience: float) -> RequestRetrier:
    """Return a retrier whose pauses advance its own clock by a second."""
    ticks = itertools.count()

    async def sleep(_: float) -> None:
        next(ticks)

    return RequestRetrier(
        patience,
        backoff=Backoff(base=1.0, cap=60.0),
        source=random.Random(1),
        clock=lambda: next(ticks) if math.isfinite(patience) else 0.0,
        sleep=sleep,
    )


async def reason(act: Any) -> str:
    with pytest.raises(PhotoSkippedError) as caught:
        await act
    return caught.value.reason


async def test_a_photo_is_found_and_loaded(server: PhotoCatalog, catalog: Catalog) -> None:
    """A numeric person id becomes text, and `file_url` is fetched with the key."""
    server.key = "catalog-key"
    server.add("photo_001", b"bytes", 42, "John Smith")
    photo = await catalog.find("photo_001")
    assert photo == CatalogPhoto(
        photo_id="photo_001",
        person_id="42",
        person_name="John Smith",
        file_url="/api/photos/photo_001/file",
    )
    assert await catalog.load(photo) == b"bytes"
    assert {r.headers["Accept-Encoding"] for r in server.requests} == {"identity"}


async def test_a_batch_lists_its_photos_in_order(server: PhotoCatalog, catalog: Catalog) -> None:
    """Without `file_url` the bytes are at `/api/photos/{id}/file` (id encoded)."""
    server.add("z one/1?#%", b"first", 42, "John Smith")
    server.add("photo_002", b"second", "p-87", "Jane Doe")
    server.batches["batch 1"] = ["z one/1?#%", "photo_002"]
    first, second = await catalog.list_batch("batch 1")
    assert isinstance(first, CatalogPhoto)
    assert isinstance(second, CatalogPhoto)
    assert (first.person_id, second.person_id, first.file_url) == ("42", "p-87", None)
    assert (await catalog.load(first), await catalog.load(second)) == (b"first", b"second")


async def test_unreadable_entries_do_not_affect_a_batch(server: PhotoCatalog, catalog: Catalog) -> None:
    """The batch keeps its valid entries."""
    bad = [
        None, 7, "photo_009", [], {}, {"photo_id": None}, {"photo_id": True}, {"photo_id": 1.5},
        {"photo_id": "a", "person_id": {"$gt": ""}}, {"photo_id": "a", "person_id": False},
        {"photo_id": "a", "person_id": 2**70}, {"photo_id": "a" * 256}, {"photo_id": "a\nb"},
        {"photo_id": "a", "person_name": 5}, {"photo_id": "a", "file_url": ["/x"]}, {"photo_id": ""},
    ]  # fmt: skip
    good = {"photo_id": 3, "person_id": None, "person_name": None, "extra": "ignored"}
    path = "/api/batches/b/photos"
    server.overrides[path] = lambda _: Reply.of({"photos": [*bad, good]})
    *unreadable, photo = await catalog.list_batch("b")
    assert unreadable == [UnreadableEntry()] * len(bad)
    assert photo == CatalogPhoto(photo_id="3")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>"),
        Reply.of([]),
        Reply.of({"photos": {}}),
        Reply.of({}),
        Reply(body=b'{"photos":' + b"[" * 100_000),
        Reply(404),
        Reply(302, headers={"Location": "/api/batches/other/photos"}),
        Reply(headers={"Content-Length": str(10**12)}, pieces=lambda: [b"{"]),
    ],
)
async def test_a_batch_without_a_list_fails_its_job(
    server: PhotoCatalog, catalog: Catalog, reply: Reply
) -> None:
    """The job is not retried."""
    server.overrides["/api/batches/b/photos"] = lambda _: reply
    with pytest.raises(JobFailedError) as caught:
        await catalog.list_batch("b")
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply.of({"photo_id": "another", "person_id": 1}), "metadata-invalid"),
        (Reply.of({"photo_id": "p", "person_id": [1]}), "metadata-invalid"),
        (Reply(body=b"{"), "metadata-invalid"),
        (Reply(body=b" " * 70_000), "photo-too-large"),
        (Reply(404), "photo-missing"),
        (Reply(410), "photo-missing"),
        (Reply(400), "photo-refused"),
        (Reply(301, headers={"Location": "/api/photos/p2"}), "photo-refused"),
        (Reply(404, pieces=lambda: [b"x" * 1000] * 10_000), "photo-missing"),
        (Reply(500), "photo-unavailable"),
    ],
)
async def test_metadata_that_cannot_be_used_skips_the_photo(
    server: PhotoCatalog, catalog: Catalog, reply: Reply, why: str
) -> None:
    """The skipped photo has its own reason."""
    server.overrides["/api/photos/p"] = lambda _: reply
    assert await reason(catalog.find("p")) == why


@pytest.mark.parametrize("photo_id", [".", ".."])
async def test_an_id_that_leaves_the_path_is_not_requested(
    server: PhotoCatalog, catalog: Catalog, photo_id: str
) -> None:
    """The request would address another resource."""
    assert await reason(catalog.find(photo_id)) == "metadata-invalid"
    assert server.requests == []


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 10_000


@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Length": str(MOST_BYTES + 1)}, pieces=lambda: [b"x"]),
        Reply(pieces=lambda: [b"x" * MOST_BYTES, b"x"]),
        Reply(pieces=endless),
    ],
)
async def test_a_photo_past_the_limit_is_not_read_to_its_end(
    server: PhotoCatalog, catalog: Catalog, reply: Reply
) -> None:
    """The limit holds with and without a length, and for an endless body.

    A photo of exactly the limit is read.
    """
    server.overrides["/api/photos/p/file"] = lambda _: reply
    assert await reason(catalog.load(CatalogPhoto(photo_id="p"))) == "photo-too-large"
    server.overrides["/api/photos/p/file"] = lambda _: Reply(body=b"x" * MOST_BYTES)
    assert len(await catalog.load(CatalogPhoto(photo_id="p"))) == MOST_BYTES


async def test_a_photo_that_trickles_times_out(server: PhotoCatalog) -> None:
    """Each byte is in time, but the whole photo is not."""
    pause = threading.Event()

    def trickle() -> Iterator[bytes]:
        while True:
            pause.wait(0.02)
            yield b"x"

    server.overrides["/api/photos/p/file"] = lambda _: Reply(pieces=trickle)
    async with HttpService("catalog", server.url, None, timeout=0.2) as service:
        catalog = Catalog(service, quick_retrier(10), max_photo_bytes=MOST_BYTES)
        assert await reason(catalog.load(CatalogPhoto(photo_id="p"))) == "photo-unavailable"
    assert len(server.requests) == 3


async def test_a_photo_that_fails_once_is_fetched_by_the_second_request(
    server: PhotoCatalog, catalog: Catalog
) -> None:
    """A status 500 may concern this photo alone and is tried three times."""
    replies = iter([Reply(500), Reply(500), Reply(body=b"there")])
    server.overrides["/api/photos/p/file"] = lambda _: next(replies)
    assert await catalog.load(CatalogPhoto(photo_id="p")) == b"there"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_unavailable_catalog_is_retried_until_the_patience_ends(
    server: PhotoCatalog, catalog: Catalog, status: int
) -> None:
    """The photo is not skipped, since the failure does not concern it."""
    away = iter([Reply(status)] * 4)
    server.overrides["/api/photos/p/file"] = lambda _: next(away, Reply(body=b"there"))
    assert await catalog.load(CatalogPhoto(photo_id="p")) == b"there"
    server.overrides["/api/photos/p/file"] = lambda _: Reply(status)
    with pytest.raises(ServiceUnavailableError):
        await catalog.load(CatalogPhoto(photo_id="p"))


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_key_skips_no_photo(server: PhotoCatalog, catalog: Catalog, status: int) -> None:
    """The error names the catalog's address and not the key."""
    server.overrides["/api/photos/p"] = lambda _: Reply(status)
    with pytest.raises(AccessRefusedError) as caught:
        await catalog.find("p")
    assert server.url in str(caught.value)
    assert "catalog-key" not in str(caught.value)


class Elsewhere(RecordingServer):
    def answer(self, request: Any) -> Reply:
        return Reply(body=b"secret of another server")


async def test_no_other_server_is_requested(server: PhotoCatalog, catalog: Catalog) -> None:
    """Absolute `file_url`s, redirects and other ports are refused."""
    with Elsewhere() as other:
        foreign = CatalogPhoto(photo_id="p", file_url=f"{other.url}/x")
        assert await reason(catalog.load(foreign)) == "url-foreign"
        server.overrides["/api/photos/p/file"] = lambda _: Reply(302, headers={"Location": f"{other.url}/x"})
        assert await reason(catalog.load(CatalogPhoto(photo_id="p"))) == "photo-refused"
        assert other.requests == []


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/api/photos/1/file", "http://alfred:8082/api/photos/1/file"),
        ("file?size=full", "http://alfred:8082/file?size=full"),
        ("http://alfred:8082/f", "http://alfred:8082/f"),
        ("HTTP://ALFRED:8082/f#part", "http://alfred:8082/f"),
        ("//alfred:8082/f", "http://alfred:8082/f"),
        ("../../../f", "http://alfred:8082/f"),
    ],
)
def test_an_address_of_the_same_origin_is_accepted(text: str, url: str) -> None:
    """The address is relative or absolute."""
    assert str(same_origin(httpx.URL("http://alfred:8082"), text)) == url


@pytest.mark.parametrize(
    "text",
    [
        "https://alfred:8082/f", "http://alfred/f", "http://alfred:8083/", "http://alfred.evil.ex:8082/",
        "//evil.example/f", "http://alfred:8082@evil.example/f", "http://user@alfred:8082/f",
        "file:///etc/passwd", "ftp://alfred:8082/f", "gopher://alfred:8082/_", "data:image/png;base64,AAAA",
        "http://evil.example\\@alfred:8082/f", "http://[::1/f", "http://alfred:99999999/f",
        "http://169.254.169.254/latest/meta-data", "http://alfred:8082\\.evil.example/f", "\\\\evil.ex\\f\n",
    ],
)  # fmt: skip
def test_an_address_of_another_origin_is_rejected(text: str) -> None:
    """Another scheme, host or port, credentials and ambiguous addresses are rejected."""
    with pytest.raises(PhotoSkippedError) as caught:
        same_origin(httpx.URL("http://alfred:8082"), text)
    assert caught.value.reason == "url-foreign"


@pytest.mark.parametrize("text", ["\\\\evil.example\\f", "/\\evil.example/f", "http:/\\evil.example/f"])
def test_a_backslash_does_not_leave_the_origin(text: str) -> None:
    """Browsers read a backslash as a slash, so the compared URL is the requested one."""
    assert same_origin(httpx.URL("http://alfred:8082"), text).host == "alfred"


def test_the_port_that_a_scheme_implies_is_the_same_port() -> None:
    """`https://host` and `https://host:443` have the same origin."""
    base = httpx.URL("https://alfred")
    assert same_origin(base, "https://alfred:443/f").host == "alfred"
    with pytest.raises(PhotoSkippedError):
        same_origin(base, "https://alfred:8443/f")
