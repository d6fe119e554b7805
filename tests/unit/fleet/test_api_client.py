"""The way to the API: patience while it is away, a sentence where nothing helps, and halves of a group."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from fleet.api_client import ApiClient
from fleet.errors import ApiRefusedError, CannotRunError
from fleet.import_source import ImportCandidate, ImportSource, SourceEntry
from fleet.importing import Importer
from fleet.report import Bar, ImportReport, RefusalFile
from fleet.settings import FleetSection

KEY = "a-key-that-nobody-may-see"
Respond = Callable[[list[dict[str, Any]]], tuple[int, Any]]


@dataclass
class Server:
    """An API that answers as a test says."""

    url: str
    respond: Respond = lambda people: (200, created(people))
    bodies: list[Any] = field(default_factory=list)


def created(people: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": [{"index": n, "result": "created", "version": 1} for n, _ in enumerate(people)]}


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            scripted.bodies.append(body)
            status, document = scripted.respond(body["people"])
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Location", "http://192.0.2.1/")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@dataclass
class Time:
    """A clock that only pauses move."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@dataclass
class Said:
    api: ApiClient
    time: Time
    sentences: list[str]


def client(url: str, patience: float = 100.0) -> Said:
    time, sentences = Time(), list[str]()
    settings = FleetSection.model_validate(
        {"api_url": url, "api_key": SecretStr(KEY), "patience_seconds": patience}
    )
    api = ApiClient(
        settings, say=sentences.append, sleep=time.sleep, clock=lambda: time.now, source=random.Random(1)
    )
    return Said(api, time, sentences)


def test_an_api_that_is_away_is_waited_for_and_that_is_said_once(server: Server) -> None:
    """503 three times, with growing pauses; then the answer, as if nothing had been."""
    busy = [503, 502, 429]
    server.respond = lambda people: (busy.pop(0), {}) if busy else (200, created(people))
    said = client(server.url)
    assert len(said.api.bring([b"{}"], dry_run=False).items) == 1
    assert len(said.time.pauses) == 3
    assert len(said.sentences) == 2
    assert "answers 503" in said.sentences[0]
    assert said.sentences[1] == "it answers again"


def test_patience_has_an_end() -> None:
    """Nobody listens there: one sentence, after the time that was set."""
    said = client("http://127.0.0.1:1", patience=60)
    with pytest.raises(CannotRunError, match=r"cannot be reached \(ConnectError\), for more than 60 s"):
        said.api.bring([b"{}"], dry_run=False)
    assert 60 <= said.time.now < 80
    assert max(said.time.pauses) <= 15


def test_a_server_that_cannot_be_trusted_is_not_waited_for(server: Server) -> None:
    """TLS with what speaks none, or with another authority's certificate."""
    said = client(server.url.replace("http://", "https://"))
    with pytest.raises(CannotRunError, match=r"no TLS .* fleet\.ca_file"):
        said.api.bring([b"{}"], dry_run=False)
    assert said.time.pauses == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_is_none_is_told(tmp_path: Path, content: str | None) -> None:
    """Before anything is sent."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    settings = FleetSection(api_key=SecretStr(KEY), ca_file=file)
    with pytest.raises(CannotRunError, match=r"fleet\.ca_file"):
        ApiClient(settings, say=print, sleep=print, clock=float, source=random.Random(1))


@pytest.mark.parametrize(
    ("status", "document", "sentence"),
    [
        (
            401,
            {"code": "key-invalid", "detail": "this API key is not known here"},
            "does not let this key in",
        ),
        (403, {"code": "role-insufficient", "detail": "this needs the role admin"}, "needs the role admin"),
        (404, b"<html>nothing here</html>", "not this API"),
        (302, b"", "not this API"),
        (200, b"<html>hello</html>", "not this API"),
        (200, {"items": []}, "does not answer for each of 1 people"),
    ],
)
def test_what_nobody_but_an_operator_can_mend_ends_it(
    server: Server, status: int, document: Any, sentence: str
) -> None:
    """One request, one sentence without the key; a redirect is not followed."""
    server.respond = lambda _: (status, document)
    said = client(server.url)
    with pytest.raises(CannotRunError, match=sentence) as caught:
        said.api.bring([b"{}"], dry_run=False)
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value)


def bring(server: Server, *user_ids: str, dry_run: bool = False, size: int = 0) -> ImportReport:
    console = Console(file=StringIO())
    report = ImportReport(console, RefusalFile(None))
    entries = [
        SourceEntry(ImportCandidate(f"x:{n}", name, json.dumps({"user_id": name, "x": "x" * size}).encode()))
        for n, name in enumerate(user_ids)
    ]
    with Bar(console, "importing", None) as bar:
        Importer(client(server.url).api, report, bar, dry_run=dry_run).run(ImportSource(iter(entries)))
    assert bar.done == len(user_ids)
    return report


@pytest.mark.parametrize("status", [413, 422, 500])
def test_a_group_that_is_refused_whole_is_halved_until_it_is_known_who_it_is(
    server: Server, status: int
) -> None:
    """One is refused, the others come in, each once."""

    def respond(people: list[dict[str, Any]]) -> tuple[int, Any]:
        if any(person["user_id"] == "EMP-5" for person in people):
            return status, {"code": "payload-too-large", "detail": "the body may have at most 100 bytes"}
        return 200, created(people)

    server.respond = respond
    report = bring(server, *[f"EMP-{n}" for n in range(8)])
    assert (report.people["created"], report.people["refused"]) == (7, 1)
    assert report.refusals == {"payload-too-large": 1}


def test_a_refusal_that_is_not_about_people_is_not_halved(server: Server) -> None:
    """405 once is enough."""
    server.respond = lambda _: (405, {"code": "method-not-allowed", "detail": "no"})
    with pytest.raises(CannotRunError):
        bring(server, "EMP-1", "EMP-2")
    assert len(server.bodies) == 1
    with pytest.raises(ApiRefusedError):
        client(server.url).api.bring([b"{}"], dry_run=False)


def test_groups_are_cut_by_number_and_by_bytes_and_keep_their_order(server: Server) -> None:
    """500 people, or 900 KiB."""
    bring(server, *[f"EMP-{n:04}" for n in range(1001)])
    assert [len(body["people"]) for body in server.bodies] == [500, 500, 1]
    names = [person["user_id"] for body in server.bodies for person in body["people"]]
    assert names == sorted(names)
    server.bodies.clear()
    bring(server, *[f"EMP-{n}" for n in range(5)], size=400_000)
    assert [len(body["people"]) for body in server.bodies] == [2, 2, 1]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_is_asked_for_as_one(server: Server, dry_run: bool) -> None:
    """In every request."""
    bring(server, "EMP-1", dry_run=dry_run)
    assert [body["dry_run"] for body in server.bodies] == [dry_run]
