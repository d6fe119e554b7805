"""The API client waits for an unavailable API and halves refused groups."""

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
from fleet.importer import Importer
from fleet.report import ImportReport, ProgressBar, RefusalFile
from fleet.settings import FleetSection

KEY = "a-secret-key"
Respond = Callable[[list[dict[str, Any]]], tuple[int, Any]]


@dataclass
class Server:
    """An API that returns the answers of a test."""

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
class ClientSetup:
    api: ApiClient
    time: Time
    reports: list[str]


def client(url: str, patience: float = 100.0) -> ClientSetup:
    time, reports = Time(), list[str]()
    settings = FleetSection.model_validate(
        {"api_url": url, "api_key": SecretStr(KEY), "patience_seconds": patience}
    )
    api = ApiClient(
        settings, report=reports.append, sleep=time.sleep, clock=lambda: time.now, source=random.Random(1)
    )
    return ClientSetup(api, time, reports)


def test_client_waits_for_an_unavailable_api_and_reports_it_once(server: Server) -> None:
    """After three answers 503 with growing pauses the request succeeds."""
    busy = [503, 502, 429]
    server.respond = lambda people: (busy.pop(0), {}) if busy else (200, created(people))
    setup = client(server.url)
    assert len(setup.api.import_identities([b"{}"], dry_run=False).items) == 1
    assert len(setup.time.pauses) == 3
    assert len(setup.reports) == 2
    assert "answers 503" in setup.reports[0]
    assert setup.reports[1] == f"the API at {server.url} answers again"


def test_client_gives_up_after_its_patience() -> None:
    """An address without a server ends with one sentence after the configured time."""
    setup = client("http://127.0.0.1:1", patience=60)
    with pytest.raises(CannotRunError, match=r"cannot be reached \(ConnectError\), for more than 60 s"):
        setup.api.import_identities([b"{}"], dry_run=False)
    assert 60 <= setup.time.now < 80
    assert max(setup.time.pauses) <= 15


def test_client_does_not_retry_tls_errors(server: Server) -> None:
    """A plain server, or one with a foreign certificate, ends the run at once."""
    setup = client(server.url.replace("http://", "https://"))
    with pytest.raises(CannotRunError, match=r"no TLS .* fleet\.ca_file"):
        setup.api.import_identities([b"{}"], dry_run=False)
    assert setup.time.pauses == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_client_rejects_a_file_without_certificates(tmp_path: Path, content: str | None) -> None:
    """The error comes before any request."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    settings = FleetSection(api_key=SecretStr(KEY), ca_file=file)
    with pytest.raises(CannotRunError, match=r"fleet\.ca_file"):
        ApiClient(settings, report=print, sleep=print, clock=float, source=random.Random(1))


@pytest.mark.parametrize(
    ("status", "document", "sentence"),
    [
        (
            401,
            {"code": "key-invalid", "detail": "this API key is not known here"},
            "rejects this key",
        ),
        (403, {"code": "role-insufficient", "detail": "this needs the role admin"}, "needs the role admin"),
        (404, b"<html>nothing here</html>", "not this API"),
        (302, b"", "not this API"),
        (200, b"<html>hello</html>", "not this API"),
        (200, {"items": []}, "does not answer for each of 1 identities"),
    ],
)
def test_errors_that_only_an_operator_can_fix_end_the_run(
    server: Server, status: int, document: Any, sentence: str
) -> None:
    """The client sends one request, follows no redirect and never prints the key."""
    server.respond = lambda _: (status, document)
    setup = client(server.url)
    with pytest.raises(CannotRunError, match=sentence) as caught:
        setup.api.import_identities([b"{}"], dry_run=False)
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value)


def bring(server: Server, *user_ids: str, dry_run: bool = False, size: int = 0) -> ImportReport:
    console = Console(file=StringIO())
    report = ImportReport(console, RefusalFile(None))
    entries = [
        SourceEntry(ImportCandidate(f"x:{n}", name, json.dumps({"user_id": name, "x": "x" * size}).encode()))
        for n, name in enumerate(user_ids)
    ]
    with ProgressBar(console, "importing", None) as bar:
        Importer(client(server.url).api, report, bar, dry_run=dry_run).import_source(
            ImportSource(iter(entries))
        )
    assert bar.done == len(user_ids)
    return report


@pytest.mark.parametrize("status", [413, 422, 500])
def test_a_refused_group_is_halved_until_the_refused_identity_is_alone(server: Server, status: int) -> None:
    """The refused identity is reported; every other one is imported once."""

    def respond(people: list[dict[str, Any]]) -> tuple[int, Any]:
        if any(person["user_id"] == "EMP-5" for person in people):
            return status, {"code": "payload-too-large", "detail": "the body may have at most 100 bytes"}
        return 200, created(people)

    server.respond = respond
    report = bring(server, *[f"EMP-{n}" for n in range(8)])
    assert (report.results["created"], report.results["refused"]) == (7, 1)
    assert report.refusals == {"payload-too-large": 1}


def test_a_refusal_of_the_request_itself_is_not_halved(server: Server) -> None:
    """The run ends after one answer 405."""
    server.respond = lambda _: (405, {"code": "method-not-allowed", "detail": "no"})
    with pytest.raises(CannotRunError):
        bring(server, "EMP-1", "EMP-2")
    assert len(server.bodies) == 1
    with pytest.raises(ApiRefusedError):
        client(server.url).api.import_identities([b"{}"], dry_run=False)


def test_groups_are_limited_by_count_and_bytes_and_keep_their_order(server: Server) -> None:
    """A group has at most 500 identities and 900 KiB."""
    bring(server, *[f"EMP-{n:04}" for n in range(1001)])
    assert [len(body["people"]) for body in server.bodies] == [500, 500, 1]
    names = [person["user_id"] for body in server.bodies for person in body["people"]]
    assert names == sorted(names)
    server.bodies.clear()
    bring(server, *[f"EMP-{n}" for n in range(5)], size=400_000)
    assert [len(body["people"]) for body in server.bodies] == [2, 2, 1]


@pytest.mark.parametrize("dry_run", [True, False])
def test_every_request_of_a_dry_run_is_marked(server: Server, dry_run: bool) -> None:
    """The flag `dry_run` has the value of the command."""
    bring(server, "EMP-1", dry_run=dry_run)
    assert [body["dry_run"] for body in server.bodies] == [dry_run]
